/* Weights to the device: slabs, then rows streamed through the two staging blocks. While the device
 * packs one block, the next one is read straight into the other. Parts go in file order, so reading
 * is sequential; a tensor larger than a block goes row by row. */
#include "vk/weights/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/gpu/gpu.h"
#include "vk/weights/weights-private.h"

#define SLAB_BYTES    (256ull << 20)
#define SCRATCH_BYTES (1u << 20)

static uint64_t aligned(uint64_t n)
{
    return (n + GPU_OFFSET_ALIGNMENT - 1) / GPU_OFFSET_ALIGNMENT * GPU_OFFSET_ALIGNMENT;
}

/* --- places ----------------------------------------------------------------------------------- */

static uint64_t slab_limit(const struct caps *caps)
{
    uint64_t limit =
        caps->max_buffer < caps->max_allocation ? caps->max_buffer : caps->max_allocation;

    return limit < SLAB_BYTES ? limit : SLAB_BYTES;
}

static int add_slab(struct weights *w, struct gpu *gpu, uint64_t size, struct fault *f)
{
    struct gpu_buffer **place = array_push(&w->buffers);

    if (!place)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = gpu_buffer_new(gpu, GPU_LIFETIME_WEIGHTS, size, place, f);
    if (r < 0) {
        w->buffers.count--;
        return fault_prefix(f, r, "weights");
    }
    return gpu_clear(gpu, *place, 0, size, f);
}

/* Fills slabs in the order of declaration; a weight over the slab size has a slab of its own. */
static int place_all(struct weights *w, struct gpu *gpu, struct fault *f)
{
    const struct caps *caps = gpu_get_caps(gpu);
    uint64_t limit = slab_limit(caps), end = 0;

    for (size_t i = 0; i < w->packed.count; i++) {
        struct packed *p = &w->packed.items[i];
        if (p->size > caps->max_binding)
            return fault_set(f, -EFBIG, "%.100s: %" PRIu64 " bytes, the device binds %" PRIu64,
                             p->key, p->size, caps->max_binding);
        if (end > 0 && end + aligned(p->size) > limit) {
            int r = add_slab(w, gpu, end, f);
            if (r < 0)
                return r;
            end = 0;
        }
        p->place = (struct weight_place){(uint32_t)w->buffers.count, end, p->size};
        end += aligned(p->size);
    }
    return end > 0 ? add_slab(w, gpu, end, f) : 0;
}

/* --- streaming -------------------------------------------------------------------------------- */

struct stream {
    struct weights *w;
    struct gpu *gpu;
    uint32_t block; /* the one being filled */
    char *data;     /* its memory; NULL: not mapped yet */
    uint64_t used;
    uint32_t count;
    struct gpu_launch launches[GPU_STAGING_LAUNCHES];
    struct gpu_binding bindings[GPU_STAGING_LAUNCHES][2];
    struct pack_launch packs[GPU_STAGING_LAUNCHES];
    uint64_t done, total; /* bytes of the files */
    void (*on_progress)(double, void *);
    void *userdata;
    weights_edit_t *edit; /* NULL: as the files have it */
    void *edit_userdata;
    float *scratch; /* SCRATCH_BYTES, or one row where that is more: staging may be slow to read */
};

/* Of an edited part f32 goes to the device, whatever the file has. */
static enum safetensors_dtype staged_type(const struct stream *s, const struct part *p)
{
    return s->edit ? SAFETENSORS_F32 : p->tensor->dtype;
}

static uint64_t row_bytes(const struct stream *s, const struct part *p)
{
    return pack_row_elements(&p->want) * safetensors_dtype_size(staged_type(s, p));
}

/* Hands the block to the device and turns to the other. */
static int flush(struct stream *s, struct fault *f)
{
    if (s->count > 0) {
        int r = gpu_staging_submit(s->gpu, s->block, s->launches, s->count, f);
        if (r < 0)
            return r;
        s->block = !s->block;
    }
    s->data = NULL;
    s->used = 0;
    s->count = 0;
    if (s->on_progress && s->total > 0)
        s->on_progress((double)s->done / (double)s->total, s->userdata);
    return 0;
}

static int read_edited(struct stream *s, const struct part *p, uint32_t first, uint32_t count,
                       struct fault *f)
{
    uint64_t row = row_bytes(s, p), elements = pack_row_elements(&p->want);
    uint32_t step = row < SCRATCH_BYTES ? (uint32_t)(SCRATCH_BYTES / row) : 1;
    char *to = s->data + s->used;

    for (uint32_t done = 0; done < count; done += step) {
        uint32_t n = count - done < step ? count - done : step;
        int r =
            safetensors_read_floats(p->file, p->tensor, (p->first_row + first + done) * elements,
                                    n * elements, s->scratch, f);
        if (r >= 0)
            r = s->edit((uint32_t)(p - s->w->parts.items), first + done, n, s->scratch,
                        s->edit_userdata, f);
        if (r < 0)
            return r;
        memcpy(to + done * row, s->scratch, n * row);
    }
    return 0;
}

static int read_rows(struct stream *s, const struct part *p, uint32_t first, uint32_t count,
                     struct fault *f)
{
    uint64_t row = row_bytes(s, p);

    if (s->edit)
        return read_edited(s, p, first, count, f);
    return safetensors_read_numbers(p->file, p->tensor, row * (p->first_row + first),
                                    s->data + s->used, row * count, pack_range(&p->want), f);
}

/* Reads rows first … first + count - 1 into the block and notes the launch that packs them. */
static int add_rows(struct stream *s, const struct part *p, uint32_t first, uint32_t count,
                    struct fault *f)
{
    const struct packed *packed = &s->w->packed.items[p->weight];
    uint64_t size = row_bytes(s, p) * count, base = (uint64_t)s->block * GPU_STAGING_BLOCK;
    uint32_t i = s->count;

    int r = read_rows(s, p, first, count, f);
    if (r < 0)
        return r;
    s->packs[i] = pack_rows(&p->want, staged_type(s, p), first, count);
    s->launches[i] = (struct gpu_launch){
        .bindings = s->bindings[i],
        .binding_count = 2,
        .push = s->packs[i].push,
        .push_count = PACK_PUSH,
        .groups = {s->packs[i].groups[0], s->packs[i].groups[1], s->packs[i].groups[2]},
    };
    r = gpu_kernel_get(s->gpu, s->packs[i].kernel, NULL, 0, &s->launches[i].kernel, f);
    if (r < 0)
        return r;
    s->bindings[i][0] = (struct gpu_binding){.slot = 4,
                                             .buffer = gpu_staging_buffer(s->gpu),
                                             .offset = base + s->used,
                                             .size = (size + 3) / 4 * 4};
    s->bindings[i][1] = (struct gpu_binding){.slot = 7,
                                             .buffer = s->w->buffers.items[packed->place.buffer],
                                             .offset = packed->place.offset,
                                             .size = packed->place.size};
    s->count++;
    s->used += aligned(size);
    s->done += size;
    return 0;
}

/* Rows that may follow in this block; 0: it must be flushed first. */
static uint64_t room(const struct stream *s, uint64_t row)
{
    return s->count < GPU_STAGING_LAUNCHES ? (GPU_STAGING_BLOCK - s->used) / row : 0;
}

static int stream_part(struct stream *s, const struct part *p, struct fault *f)
{
    uint64_t row = row_bytes(s, p);
    uint32_t first = 0;

    if (row > GPU_STAGING_BLOCK)
        return fault_set(f, -EFBIG,
                         "%s: %.100s: a row of %" PRIu64 " bytes, at most %u are possible",
                         safetensors_label(p->file), p->tensor->name, row, GPU_STAGING_BLOCK);
    while (first < p->want.n) {
        void *data = s->data;
        int r = data ? 0 : gpu_staging_map(s->gpu, s->block, &data, f);
        if (r < 0)
            return r;
        s->data = data;
        uint64_t left = p->want.n - first, fits = room(s, row);
        uint32_t count = (uint32_t)(left < fits ? left : fits);
        if (count > 0)
            r = add_rows(s, p, first, count, f);
        if (r == 0 && count < left)
            r = flush(s, f);
        if (r < 0)
            return r;
        first += count;
    }
    return 0;
}

static int compare_place(const void *a, const void *b)
{
    const struct part *x = *(const struct part *const *)a, *y = *(const struct part *const *)b;

    if (x->want.component != y->want.component)
        return x->want.component < y->want.component ? -1 : 1;
    if (x->file != y->file)
        return strcmp(safetensors_label(x->file), safetensors_label(y->file));
    if (x->tensor != y->tensor)
        return x->tensor->offset < y->tensor->offset ? -1 : x->tensor->offset > y->tensor->offset;
    return x->first_row < y->first_row ? -1 : x->first_row > y->first_row;
}

/* `order`: the parts to stream, in any order. */
static int stream_parts(struct stream *s, const struct part **order, size_t count, struct fault *f)
{
    int r = 0;

    for (size_t i = 0; i < count; i++)
        s->total += order[i]->want.n * row_bytes(s, order[i]);
    qsort(order, count, sizeof order[0], compare_place);
    for (size_t i = 0; r == 0 && i < count; i++)
        r = stream_part(s, order[i], f);
    if (r == 0)
        r = flush(s, f);
    int waited = gpu_staging_wait(s->gpu, r < 0 ? NULL : f);
    return r < 0 ? r : waited;
}

static int stream_all(struct stream *s, struct fault *f)
{
    size_t count = s->w->parts.count;
    _cleanup_(freep) const struct part **order = calloc(count + 1, sizeof(const struct part *));

    if (!order)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        order[i] = &s->w->parts.items[i];
    return stream_parts(s, order, count, f);
}

static int check_unchanged(const struct weights *w, struct fault *f)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < w->files.count; i++)
        r = safetensors_check_unchanged(w->files.items[i], f);
    return r;
}

/* --- all of it -------------------------------------------------------------------------------- */

static int load(struct weights *w, struct gpu *gpu, void (*on_progress)(double, void *),
                void *userdata, struct fault *f)
{
    _cleanup_(freep) struct stream *s = calloc(1, sizeof *s);

    if (!s)
        return fault_set(f, -ENOMEM, "out of memory");
    *s = (struct stream){.w = w, .gpu = gpu, .on_progress = on_progress, .userdata = userdata};
    int r = weights_check_files(w, f);
    if (r == 0)
        r = place_all(w, gpu, f);
    if (r == 0)
        r = weights_prepare_sum(w, gpu, f);
    if (r == 0)
        r = stream_all(s, f);
    return r < 0 ? r : check_unchanged(w, f);
}

/* Declarations with virtual places, and no device memory. */
static void undo(struct weights *w)
{
    uint64_t end = 0;

    for (size_t i = 0; i < w->buffers.count; i++)
        (void)gpu_buffer_free(w->buffers.items[i]);
    array_done(&w->buffers);
    w->sums = gpu_buffer_free(w->sums);
    for (size_t i = 0; i < w->packed.count; i++) {
        w->packed.items[i].place = (struct weight_place){0, end, w->packed.items[i].size};
        end += aligned(w->packed.items[i].size);
    }
}

int weights_load(struct weights *w, struct gpu *gpu, void (*on_progress)(double, void *),
                 void *userdata, struct fault *f)
{
    if (w->is_loaded)
        return fault_set(f, -EALREADY, "the weights are loaded already");
    int r = load(w, gpu, on_progress, userdata, f);
    w->is_loaded = r == 0;
    if (r < 0)
        undo(w);
    return r;
}

void weights_unload(struct weights *w)
{
    undo(w);
    w->is_loaded = false;
}

/* --- again, changed --------------------------------------------------------------------------- */

static int make_scratch(struct stream *s, const uint32_t *parts, size_t count, struct fault *f)
{
    uint64_t size = SCRATCH_BYTES;

    for (size_t i = 0; i < count; i++) {
        uint64_t row = row_bytes(s, &s->w->parts.items[parts[i]]);
        size = row > size ? row : size;
    }
    s->scratch = malloc(size);
    return s->scratch ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

int weights_repack(struct weights *w, struct gpu *gpu, const struct weights_change *change,
                   struct fault *f)
{
    _cleanup_(freep) struct stream *s = calloc(1, sizeof *s);
    _cleanup_(freep) const struct part **order =
        calloc(change->count + 1, sizeof(const struct part *));

    if (!s || !order)
        return fault_set(f, -ENOMEM, "out of memory");
    if (!w->is_loaded)
        return fault_set(f, -ENOENT, "the weights are not loaded");
    *s = (struct stream){
        .w = w, .gpu = gpu, .edit = change->edit, .edit_userdata = change->userdata};
    for (size_t i = 0; i < change->count; i++)
        order[i] = &w->parts.items[change->parts[i]];
    int r = make_scratch(s, change->parts, change->count, f);
    if (r == 0)
        r = stream_parts(s, order, change->count, f);
    free(s->scratch);
    return r < 0 ? r : check_unchanged(w, f);
}

uint32_t weights_part_count(const struct weights *w)
{
    return (uint32_t)w->parts.count;
}

struct weight_part weights_part(const struct weights *w, uint32_t index)
{
    const struct weight_want *want = &w->parts.items[index].want;

    return (struct weight_part){.component = want->component,
                                .name = want->name,
                                .is_matrix = want->pack == PACK_GEMM,
                                .n = want->n,
                                .k = want->k,
                                .taps_h = want->taps_h,
                                .taps_w = want->taps_w};
}

uint32_t weights_buffer_count(const struct weights *w)
{
    return (uint32_t)w->buffers.count;
}

const struct gpu_buffer *weights_buffer(const struct weights *w, uint32_t index)
{
    return w->buffers.items[index];
}
