/* What the device holds, summed by the device: a few bytes come back instead of all. */
#include "vk/weights/weights.h"

#include <errno.h>

#include "vk/gpu/gpu.h"
#include "vk/shaders/abi/weight_sum.h"
#include "vk/weights/weights-private.h"

#define PIECE_BYTES  (64ull << 20) /* of one launch */
#define SUBMIT_COUNT 4u            /* launches: a submission stays short on a slow device */
#define SUM_BYTES    16u           /* a workgroup's */

/* The pieces that all buffers make: walked once to count, once to launch. */
struct walk {
    const struct weights *w;
    uint64_t piece; /* bytes at most */
    size_t buffer;
    uint64_t offset;
};

static bool next_piece(struct walk *walk, struct gpu_binding *ret)
{
    if (walk->buffer == walk->w->buffers.count)
        return false;
    const struct gpu_buffer *buffer = walk->w->buffers.items[walk->buffer];
    uint64_t left = gpu_buffer_size(buffer) - walk->offset;
    *ret = (struct gpu_binding){.slot = 4,
                                .buffer = buffer,
                                .offset = walk->offset,
                                .size = left < walk->piece ? left : walk->piece};
    walk->offset += ret->size;
    if (ret->size == left) {
        walk->buffer++;
        walk->offset = 0;
    }
    return true;
}

static struct walk walk_of(const struct weights *w, struct gpu *gpu)
{
    uint64_t limit = gpu_get_caps(gpu)->max_binding / GPU_OFFSET_ALIGNMENT * GPU_OFFSET_ALIGNMENT;

    return (struct walk){.w = w, .piece = limit < PIECE_BYTES ? limit : PIECE_BYTES};
}

int weights_prepare_sum(struct weights *w, struct gpu *gpu, struct fault *f)
{
    struct walk walk = walk_of(w, gpu);
    struct gpu_binding piece;
    uint64_t pieces = 0;

    while (next_piece(&walk, &piece))
        pieces++;
    return gpu_buffer_new(gpu, GPU_LIFETIME_WEIGHTS, (pieces + 1) * WEIGHT_SUM_GROUPS * SUM_BYTES,
                          &w->sums, f);
}

/* Up to SUBMIT_COUNT launches through one staging block. Returns how many, or < 0. */
static int submit_some(struct weights *w, struct gpu *gpu, struct walk *walk, uint32_t first,
                       struct fault *f)
{
    struct gpu_launch launches[SUBMIT_COUNT];
    struct gpu_binding bindings[SUBMIT_COUNT][2];
    uint32_t push[SUBMIT_COUNT][WEIGHT_SUM_PUSH], n = 0;
    struct gpu_kernel *kernel;
    void *unused;

    int r = gpu_kernel_get(gpu, "weight_sum.ssbo", NULL, 0, &kernel, f);
    if (r >= 0)
        r = gpu_staging_map(gpu, 0, &unused, f);
    if (r < 0)
        return r;
    while (n < SUBMIT_COUNT && next_piece(walk, &bindings[n][0])) {
        bindings[n][1] =
            (struct gpu_binding){.slot = 7, .buffer = w->sums, .size = gpu_buffer_size(w->sums)};
        push[n][WEIGHT_SUM_VECTORS] = (uint32_t)(bindings[n][0].size / 16);
        push[n][WEIGHT_SUM_FIRST] = (first + n) * WEIGHT_SUM_GROUPS;
        launches[n] = (struct gpu_launch){.kernel = kernel,
                                          .bindings = bindings[n],
                                          .binding_count = 2,
                                          .push = push[n],
                                          .push_count = WEIGHT_SUM_PUSH,
                                          .groups = {WEIGHT_SUM_GROUPS, 1, 1}};
        n++;
    }
    r = n > 0 ? gpu_staging_submit(gpu, 0, launches, n, f) : 0;
    return r < 0 ? r : (int)n;
}

int weights_sum(struct weights *w, struct gpu *gpu, uint8_t ret_digest[SHA256_SIZE],
                struct fault *f)
{
    struct walk walk = walk_of(w, gpu);
    uint32_t done = 0;
    int n;

    do {
        n = submit_some(w, gpu, &walk, done, f);
        if (n < 0)
            return n;
        done += (uint32_t)n;
    } while (n > 0);
    size_t size = (size_t)done * WEIGHT_SUM_GROUPS * SUM_BYTES;
    _cleanup_(freep) uint8_t *sums = calloc(size + 1, 1);
    if (!sums)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = gpu_download(gpu, w->sums, 0, sums, size, f);
    if (r < 0)
        return r;
    struct sha256 s;
    sha256_init(&s);
    sha256_feed(&s, sums, size);
    sha256_finish(&s, ret_digest);
    return 0;
}
