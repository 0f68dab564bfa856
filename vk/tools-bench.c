/* tools-bench — every distinct GEMM and convolution of one guided U-Net evaluation at 128x128
 * pixels, timed beside the FMA peak.
 *
 * The shapes come from the graph itself: of the model in options, or of Stable Diffusion 1.5
 * without one. Weights are random and lie in a pool that every launch takes a fresh window of,
 * because a real step finds none of its weights in a cache. Other programs may use the machine:
 * each timing stands between two runs of the peak shader, and medians of rates and of ratios over
 * several rounds are shown. */
#include "vk/tools.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/base/array.h"
#include "vk/graph/record.h"
#include "vk/pipeline/sd15.h"
#include "vk/pipeline/session.h"
#include "vk/tools-peak.h"

#define SIDE        128u /* pixels */
#define ROUNDS      7u
#define POOL_BYTES  (256ull << 20) /* of weights */
#define CHUNK_MACS  (3ull << 28)   /* per submission: some 30 ms on a slow device */
#define LAUNCHES    24u            /* per submission, at most */
#define NAME_LENGTH 48

/* A distinct GEMM and what was measured. */
struct shape {
    struct gemm_args args;
    char name[NAME_LENGTH]; /* of the first node that has it */
    uint32_t count;         /* nodes that have it */
    struct dispatch dispatch;
    double gflops, share; /* medians; share of the peak */
};

/* Where operands lie in the arena; slot 2 is in the pool. */
struct places {
    uint64_t offset[OP_SLOTS], size[OP_SLOTS];
};

struct bench {
    struct gpu *gpu;
    struct gpu_buffer *arena, *pool;
    struct places places; /* the largest of all shapes */
    uint64_t arena_size, pool_size, pool_next;
    struct peak *peak;
    struct ARRAY(struct shape) shapes;
    struct ARRAY(double) peaks;
    struct ARRAY(double) natives;
};

static void bench_done(struct bench *b)
{
    (void)peak_free(b->peak);
    (void)gpu_buffer_free(b->arena);
    (void)gpu_buffer_free(b->pool);
    (void)gpu_close(b->gpu);
    array_done(&b->shapes);
    array_done(&b->peaks);
    array_done(&b->natives);
}

/* --- shapes ----------------------------------------------------------------------------------- */

static int add_shape(struct bench *b, const struct node *node, struct fault *f)
{
    struct gemm_args args = node->args.gemm;

    args.row_add_offset = 0; /* where in a table: no matter */
    for (size_t i = 0; i < b->shapes.count; i++) {
        if (memcmp(&b->shapes.items[i].args, &args, sizeof args) == 0) {
            b->shapes.items[i].count++;
            return 0;
        }
    }
    struct shape *s = array_push(&b->shapes);
    if (!s)
        return fault_set(f, -ENOMEM, "out of memory");
    memcpy(&s->args, &args, sizeof args); /* with its padding, which was zero in the node */
    (void)snprintf(s->name, sizeof s->name, "%s", node->name);
    s->count = 1;
    return 0;
}

/* The GEMMs of one evaluation that depend on the picture: not those of one row (the time
 * embedding). */
static int collect_shapes(struct bench *b, const struct model *model, struct fault *f)
{
    _cleanup_(weights_freep) struct weights *declared = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct session_shape shape = {.width = SIDE, .height = SIDE, .batch = 2};
    struct session_layout layout;
    int r = weights_open(NULL, &declared, f);

    if (r < 0)
        return r;
    session_layout_make(model, &shape, &layout);
    r = session_build_graph(model, declared, &layout, SESSION_DENOISE, false, &g, f);
    for (size_t i = 0; r >= 0 && i < g->nodes.count; i++) {
        const struct node *node = &g->nodes.items[i];
        const struct gemm_args *a = &node->args.gemm;
        if (node->op == OP_gemm && a->batch * a->height * a->width > 1)
            r = add_shape(b, node, f);
    }
    return r;
}

/* --- operands --------------------------------------------------------------------------------- */

static uint64_t rows_of(const struct gemm_args *a)
{
    return (uint64_t)a->batch * a->height * a->width;
}

static uint64_t macs_of(const struct gemm_args *a)
{
    return rows_of(a) * a->n * a->taps_h * a->taps_w * (a->k0 + a->k1);
}

static uint64_t aligned(uint64_t size)
{
    return (size + GPU_OFFSET_ALIGNMENT - 1) & ~(uint64_t)(GPU_OFFSET_ALIGNMENT - 1);
}

/* Bytes of each slot's tensor, 0 where the shape has none. */
static void size_slots(const struct gemm_args *a, uint64_t ret_size[OP_SLOTS])
{
    uint64_t pixels = (uint64_t)a->batch * a->in_height * a->in_width * (a->x_f32 ? 4 : 2);
    uint64_t columns = (a->n + 63) / 64 * 64;

    memset(ret_size, 0, OP_SLOTS * sizeof *ret_size);
    ret_size[0] = pixels * a->k0;
    ret_size[1] = pixels * a->k1;
    ret_size[2] = columns * a->taps_h * a->taps_w * (a->k0 + a->k1) * 2;
    ret_size[3] = a->has_residual ? rows_of(a) * a->n * (a->residual_f32 ? 4 : 2) : 0;
    ret_size[4] = a->has_bias ? columns * 4 : 0;
    ret_size[5] = a->has_row_add ? columns * 4 : 0;
    ret_size[OP_OUT] = rows_of(a) * (a->geglu ? a->n / 2 : a->n) * (a->f32_out ? 4 : 2);
}

static void plan_buffers(struct bench *b)
{
    struct places *p = &b->places;
    uint64_t size[OP_SLOTS];

    for (size_t i = 0; i < b->shapes.count; i++) {
        size_slots(&b->shapes.items[i].args, size);
        for (uint32_t s = 0; s < OP_SLOTS; s++)
            p->size[s] = size[s] > p->size[s] ? size[s] : p->size[s];
    }
    b->arena_size = GPU_OFFSET_ALIGNMENT; /* zeros */
    for (uint32_t s = 0; s < OP_SLOTS; s++) {
        p->offset[s] = b->arena_size;
        b->arena_size += s == 2 ? 0 : aligned(p->size[s]);
    }
    b->pool_size = aligned(p->size[2]) > POOL_BYTES ? aligned(p->size[2]) : POOL_BYTES;
}

/* Halves of 0.06 to 0.25, either sign; as f32 they are numbers of that kind too. */
static int fill(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t from, struct fault *f)
{
    enum { WORDS = 1 << 20 };
    uint64_t size = gpu_buffer_size(buffer);
    _cleanup_(freep) uint32_t *words = malloc(WORDS * sizeof *words);
    uint32_t state = 1;
    int r = 0;

    if (!words)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < WORDS; i++) {
        state = state * 1664525u + 1013904223u;
        words[i] = (state & 0x87ff07ffu) | 0x2c002c00u;
    }
    for (uint64_t at = from; at < size && r >= 0; at += WORDS * sizeof *words) {
        uint64_t left = size - at;
        r = gpu_upload(gpu, buffer, at, words, left < WORDS * 4 ? left : WORDS * 4, f);
    }
    return r;
}

static int make_buffers(struct bench *b, struct fault *f)
{
    plan_buffers(b);
    int r = gpu_buffer_new(b->gpu, GPU_LIFETIME_ARENA, b->arena_size, &b->arena, f);
    if (r >= 0)
        r = gpu_buffer_new(b->gpu, GPU_LIFETIME_WEIGHTS, b->pool_size, &b->pool, f);
    if (r >= 0)
        r = gpu_clear(b->gpu, b->arena, 0, GPU_OFFSET_ALIGNMENT, f);
    if (r >= 0)
        r = fill(b->gpu, b->arena, GPU_OFFSET_ALIGNMENT, f);
    return r < 0 ? r : fill(b->gpu, b->pool, 0, f);
}

/* --- one shape -------------------------------------------------------------------------------- */

/* Binds a launch's tensors; the weight is the next window of the pool. */
static uint32_t bind(struct bench *b, const struct shape *s, uint32_t push[DISPATCH_MAX_PUSH],
                     struct gpu_binding bindings[OP_SLOTS])
{
    uint64_t size[OP_SLOTS];
    uint32_t count = 0;

    size_slots(&s->args, size);
    if (b->pool_next + size[2] > b->pool_size)
        b->pool_next = 0;
    for (uint32_t slot = 0; slot < OP_SLOTS; slot++) {
        bool texel = s->dispatch.texel && slot < OP_TEXEL_SLOTS, whole = texel && slot != 2;
        if (!size[slot])
            continue;
        if (whole)
            push[slot] = (uint32_t)(b->places.offset[slot] / 16);
        bindings[count++] = (struct gpu_binding){
            .slot = slot,
            .texel = texel,
            .buffer = slot == 2 ? b->pool : b->arena,
            .offset = slot == 2 ? b->pool_next
                      : whole   ? 0
                                : b->places.offset[slot],
            .size = whole ? b->arena_size : size[slot],
        };
    }
    b->pool_next += aligned(size[2]);
    return count;
}

static int record_shape(struct bench *b, struct shape *s, uint32_t launches,
                        struct gpu_commands **ret_commands, struct fault *f)
{
    _cleanup_(gpu_commands_freep) struct gpu_commands *c = NULL;
    const struct dispatch *d = &s->dispatch;
    struct gpu_binding bindings[OP_SLOTS];
    uint32_t push[DISPATCH_MAX_PUSH];
    struct gpu_launch l = {.bindings = bindings, .push = push, .push_count = d->push_count};
    char name[64];
    int r = gpu_commands_new(b->gpu, launches, &c, f);

    (void)snprintf(name, sizeof name, "%s.%s", d->kernel, d->texel ? "texel" : "ssbo");
    if (r >= 0)
        r = gpu_kernel_get(b->gpu, name, d->spec, d->spec_count, &l.kernel, f);
    memcpy(l.groups, d->groups, sizeof l.groups);
    for (uint32_t i = 0; i < launches && r >= 0; i++) {
        memcpy(push, d->push, sizeof push);
        l.binding_count = bind(b, s, push, bindings);
        r = gpu_commands_launch(c, &l, f);
        if (r >= 0)
            gpu_commands_barrier(c);
    }
    if (r >= 0)
        r = gpu_commands_end(c, f);
    if (r < 0)
        return r;
    *ret_commands = TAKE_PTR(c);
    return 0;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count ? values[count / 2] : 0;
}

static int run_peak(struct bench *b, double *ret_gflops, struct fault *f)
{
    double *peak = array_push(&b->peaks);

    if (!peak)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = peak_run(b->peak, peak, f);
    *ret_gflops = *peak;
    return r;
}

/* Rounds of peak, shape, peak, …, peak: each timing against the mean of its two neighbours. */
static int time_rounds(struct bench *b, struct shape *s, struct gpu_commands *c, double gflop,
                       struct fault *f)
{
    double rates[ROUNDS], shares[ROUNDS], before, after;
    int r = run_peak(b, &before, f);

    for (uint32_t i = 0; i < ROUNDS && r >= 0; i++) {
        r = gpu_submit(b->gpu, c, 0, f);
        rates[i] = gflop / (1e-9 * (double)gpu_last_nsec(b->gpu));
        if (r >= 0)
            r = run_peak(b, &after, f);
        if (r < 0)
            return r;
        shares[i] = rates[i] * (1 / before + 1 / after) / 2;
        before = after;
    }
    s->gflops = median(rates, ROUNDS);
    s->share = median(shares, ROUNDS);
    return r;
}

static int time_shape(struct bench *b, struct shape *s, struct fault *f)
{
    _cleanup_(gpu_commands_freep) struct gpu_commands *c = NULL;
    uint64_t macs = macs_of(&s->args), fitting = CHUNK_MACS / macs;
    uint32_t launches = fitting > LAUNCHES ? LAUNCHES : fitting ? (uint32_t)fitting : 1;
    int r = ops[OP_gemm].choose(gpu_get_caps(b->gpu), &(union op_args){.gemm = s->args}, true,
                                &s->dispatch, f);

    if (r >= 0)
        r = record_shape(b, s, launches, &c, f);
    if (r >= 0)
        r = gpu_submit(b->gpu, c, 0, f); /* compiles */
    return r < 0 ? r : time_rounds(b, s, c, 2e-9 * (double)macs * launches, f);
}

static int run(struct bench *b, struct fault *f)
{
    int r = 0;

    for (size_t i = 0; i < b->shapes.count && r >= 0; i++) {
        double *native = array_push(&b->natives);
        if (!native)
            return fault_set(f, -ENOMEM, "out of memory");
        *native = peak_native();
        r = time_shape(b, &b->shapes.items[i], f);
    }
    return r;
}

/* --- answers ---------------------------------------------------------------------------------- */

struct summary {
    double gmac, seconds, share; /* of one evaluation; share: MAC-weighted mean */
    double peak, native;
};

static struct summary summarize(struct bench *b)
{
    struct summary sum = {.peak = median(b->peaks.items, b->peaks.count),
                          .native = median(b->natives.items, b->natives.count)};

    for (size_t i = 0; i < b->shapes.count; i++) {
        const struct shape *s = &b->shapes.items[i];
        double gmac = 1e-9 * (double)macs_of(&s->args) * s->count;
        sum.gmac += gmac;
        sum.seconds += 2 * gmac / s->gflops;
        sum.share += gmac * s->share;
    }
    sum.share /= sum.gmac;
    return sum;
}

static void print_text(const struct bench *b, const struct summary *sum, FILE *out)
{
    (void)fprintf(out, "%s\nFMA peak %.1f GFLOP/s (%s); native %s loop %.1f GFLOP/s\n\n",
                  gpu_get_facts(b->gpu)->name, sum->peak, peak_kernel(b->peak), peak_native_kind(),
                  sum->native);
    (void)fprintf(out, "%-38s %5s %5s %6s %5s %4s %8s %8s %7s\n", "first of its shape", "count",
                  "rows", "depth", "cols", "tile", "GMAC", "GFLOP/s", "of peak");
    for (size_t i = 0; i < b->shapes.count; i++) {
        const struct shape *s = &b->shapes.items[i];
        const struct gemm_args *a = &s->args;
        (void)fprintf(out, "%-38.38s %5u %5" PRIu64 " %6u %5u %4u %8.4f %8.1f %6.1f%%\n", s->name,
                      s->count, rows_of(a), a->taps_h * a->taps_w * (a->k0 + a->k1), a->n,
                      s->dispatch.spec[1], 1e-9 * (double)macs_of(a) * s->count, s->gflops,
                      100 * s->share);
    }
    (void)fprintf(
        out,
        "\nMAC-weighted mean %.1f%% of peak; all %.2f GMAC of a guided evaluation in %.3f s: "
        "%.1f GFLOP/s\n",
        100 * sum->share, sum->gmac, sum->seconds, 2 * sum->gmac / sum->seconds);
}

static void print_json(const struct bench *b, const struct summary *sum, FILE *out)
{
    (void)fprintf(out,
                  "{\"peak_gflops\": %.2f, \"peak_kernel\": \"%s\", \"native_gflops\": %.2f, "
                  "\"native_kind\": \"%s\", \"share_of_peak\": %.4f, \"gmac\": %.4f, "
                  "\"seconds\": %.4f, \"shapes\": [",
                  sum->peak, peak_kernel(b->peak), sum->native, peak_native_kind(), sum->share,
                  sum->gmac, sum->seconds);
    for (size_t i = 0; i < b->shapes.count; i++) {
        const struct shape *s = &b->shapes.items[i];
        const struct gemm_args *a = &s->args;
        (void)fprintf(out,
                      "%s\n  {\"name\": \"%s\", \"count\": %u, \"rows\": %" PRIu64
                      ", \"depth\": %u, \"columns\": %u, \"taps\": %u, \"gflops\": %.2f, "
                      "\"share_of_peak\": %.4f}",
                      i ? "," : "", s->name, s->count, rows_of(a),
                      a->taps_h * a->taps_w * (a->k0 + a->k1), a->n, a->taps_h * a->taps_w,
                      s->gflops, s->share);
    }
    (void)fputs("\n]}\n", out);
}

static int open_parts(struct bench *b, const struct tools_options *options, struct fault *f)
{
    struct gpu_options gpu = {.device = options->device, .allow_cpu = -1};
    _cleanup_(model_freep) struct model *model = NULL;
    int r = options->model ? model_open(options->model, &model, f) : 0;

    if (options->allow_cpu != ENGINE_ALLOW_CPU_AUTO)
        gpu.allow_cpu = options->allow_cpu == ENGINE_ALLOW_CPU_YES;
    if (r >= 0)
        r = collect_shapes(b, model ? model : &sd15, f);
    if (r >= 0)
        r = gpu_open(&gpu, &b->gpu, f);
    if (r >= 0)
        r = make_buffers(b, f);
    return r < 0 ? r : peak_new(b->gpu, &b->peak, f);
}

int tools_bench(const struct tools_options *options, FILE *out, struct fault *f)
{
    _cleanup_(bench_done) struct bench b = {0};
    int r = open_parts(&b, options, f);

    if (r >= 0)
        r = run(&b, f);
    if (r < 0)
        return r;
    struct summary sum = summarize(&b);
    if (options->json)
        print_json(&b, &sum, out);
    else
        print_text(&b, &sum, out);
    return 0;
}
