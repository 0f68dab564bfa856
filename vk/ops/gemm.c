/* gemm — tiles of the implicit GEMM. Kernel: shaders/gemm.comp; contract: op.h. */
#include "vk/ops/ops-private.h"

#include <errno.h>

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/gemm.h"

/* A tile of the direct flavour: LY x TM rows by 64 columns per workgroup, FMAs in sub-blocks of BI
 * x BJ. `cost` is the time of one tile, relative to the others on the same kind of device: the tile
 * that covers M at the least total is taken. A row here is where another flavour (packed f16,
 * cooperative matrix) would name its kernel. */
struct tile {
    bool is_cpu;
    uint32_t subgroup; /* the least subgroup size it is for */
    const char *kernel;
    uint32_t ly, tm, bi, bj;
    float cost;
};

/* CPU: measured on lavapipe 22.3 (vectors of 8) with `make bench`. What a large tile gains is the
 * fetching and unpacking it saves, until its loop outgrows the instruction cache (past 16 rows).
 * Sub-blocks of 4 x 4 are 10 % faster with some epilogues, 15 % slower with others; 8 x 1 is even.
 * Software devices of narrower vectors (SwiftShader: 4) gain nothing and compile large tiles for
 * seconds. GPU: from register budgets, to be replaced by a tuner. */
static const struct tile tiles[] = {
    {true, 8, "gemm", 1, 16, 8, 1, 16.0f}, {true, 8, "gemm", 1, 8, 8, 1, 9.2f},
    {true, 0, "gemm", 1, 4, 4, 2, 6.0f},   {true, 0, "gemm", 1, 1, 1, 8, 2.0f},
    {false, 0, "gemm", 8, 8, 8, 8, 64.0f}, {false, 0, "gemm", 8, 4, 4, 8, 36.0f},
    {false, 0, "gemm", 8, 1, 1, 8, 14.0f},
};

static bool is_picture(const struct gemm_args *a)
{
    return a->taps_h * a->taps_w > 1 || a->stride > 1 || a->pad_top != 0 || a->pad_left > 0 ||
           a->upsample || a->height != a->in_height || a->width != a->in_width;
}

static uint64_t rows_of(const struct gemm_args *a)
{
    return (uint64_t)a->batch * a->height * a->width;
}

static uint64_t depth_of(const struct gemm_args *a)
{
    return (uint64_t)a->taps_h * a->taps_w * (a->k0 + a->k1);
}

static const struct tile *tile_for(bool is_cpu, uint32_t subgroup, uint64_t rows)
{
    const struct tile *best = NULL;
    double best_cost = 0;

    for (size_t i = 0; i < ARRAY_SIZE(tiles); i++) {
        const struct tile *t = &tiles[i];
        double cost = (double)div_up(rows, t->ly * t->tm) * (double)t->cost;
        if (t->is_cpu == is_cpu && t->subgroup <= subgroup && (!best || cost < best_cost)) {
            best = t;
            best_cost = cost;
        }
    }
    return best;
}

int gemm_check(const union op_args *args, struct fault *f)
{
    const struct gemm_args *a = &args->gemm;
    uint32_t limit = 1u << 15; /* of a side: row_y in the kernel marks missing rows with -65536 */
    const struct rule rules[] = {
        {a->batch > 0 && a->height > 0 && a->width > 0, "an empty result"},
        {a->height <= limit && a->width <= (1u << 20) && a->in_height <= limit, "a side too long"},
        {rows_of(a) <= INT32_MAX / 16, "too many rows"},
        {a->k0 > 0 && a->k0 % 8 == 0 && a->k1 % 8 == 0, "k0 or k1 is no multiple of 8"},
        {a->n > 0 && a->n % 8 == 0, "n is no multiple of 8"},
        {!a->geglu || a->n % 16 == 0, "geglu: n is no multiple of 16"},
        {rows_of(a) * (a->n / 8) <= INT32_MAX / 2, "a result too large to index"},
        {a->taps_h > 0 && a->taps_w > 0 && a->taps_h <= 15 && a->taps_w <= 15, "taps not in 1…15"},
        {a->stride > 0 && a->stride <= 16, "stride not in 1…16"},
        {a->pad_top > -16 && a->pad_top < 16 && a->pad_left < 16, "padding not in 0…15"},
        {a->in_height > 0 && a->in_width > 0, "an empty input"},
        {!a->upsample || (a->upsampled_height > 0 && a->upsampled_width > 0 &&
                          (a->upsampled_height + 1) / 2 <= a->in_height &&
                          (a->upsampled_width + 1) / 2 <= a->in_width),
         "upsampled to more than twice the input"},
        {!a->geglu || (!a->has_residual && !a->has_row_add && a->activation == ACTIVATION_NONE &&
                       a->last_activation == ACTIVATION_NONE),
         "geglu goes with bias and scale only"},
        {a->activation <= ACTIVATION_RELU && a->last_activation <= ACTIVATION_RELU,
         "no such activation"},
        {(uint64_t)a->batch * a->in_height * a->in_width * ((a->k0 + a->k1) / 4) <= INT32_MAX,
         "an input too large to index"},
        {div_up(a->n, GEMM_BLOCK) * GEMM_BLOCK * depth_of(a) / 8 <= INT32_MAX,
         "a weight too large to index"},
    };

    return ops_check("gemm", rules, ARRAY_SIZE(rules), f);
}

static void fill_spec(const struct gemm_args *a, const struct tile *t, struct dispatch *d)
{
    d->spec_count = GEMM_SPEC_COUNT;
    d->spec[GEMM_SPEC_LY] = t->ly;
    d->spec[GEMM_SPEC_TM] = t->tm;
    d->spec[GEMM_SPEC_BI] = t->bi;
    d->spec[GEMM_SPEC_BJ] = t->bj;
    d->spec[GEMM_SPEC_PICTURE] = is_picture(a);
    d->spec[GEMM_SPEC_UPSAMPLE] = a->upsample;
    d->spec[GEMM_SPEC_SOURCES] = a->k1 ? 2 : 1;
    d->spec[GEMM_SPEC_BIAS] = a->has_bias;
    d->spec[GEMM_SPEC_ROW_ADD] = a->has_row_add;
    d->spec[GEMM_SPEC_RESIDUAL] = a->has_residual;
    d->spec[GEMM_SPEC_GEGLU] = a->geglu;
    d->spec[GEMM_SPEC_F32_OUT] = a->f32_out;
    d->spec[GEMM_SPEC_ACTIVATION] = a->activation;
    d->spec[GEMM_SPEC_LAST] = a->last_activation;
    d->spec[GEMM_SPEC_X_F32] = a->x_f32;
    d->spec[GEMM_SPEC_RES_F32] = a->has_residual && a->residual_f32;
}

static void fill_push(const struct gemm_args *a, struct dispatch *d)
{
    d->push_count = GEMM_PUSH_COUNT;
    d->push[GEMM_PUSH_M] = (uint32_t)rows_of(a);
    d->push[GEMM_PUSH_N] = a->n;
    d->push[GEMM_PUSH_K0] = a->k0 / 8;
    d->push[GEMM_PUSH_K1] = a->k1 / 8;
    d->push[GEMM_PUSH_HEIGHT] = a->height;
    d->push[GEMM_PUSH_WIDTH] = a->width;
    d->push[GEMM_PUSH_IN_HEIGHT] = a->in_height;
    d->push[GEMM_PUSH_IN_WIDTH] = a->in_width;
    d->push[GEMM_PUSH_SEEN_HEIGHT] = a->upsample ? a->upsampled_height : a->in_height;
    d->push[GEMM_PUSH_SEEN_WIDTH] = a->upsample ? a->upsampled_width : a->in_width;
    d->push[GEMM_PUSH_TAPS_H] = a->taps_h;
    d->push[GEMM_PUSH_TAPS_W] = a->taps_w;
    d->push[GEMM_PUSH_STRIDE] = a->stride;
    d->push[GEMM_PUSH_PAD_TOP] = (uint32_t)a->pad_top;
    d->push[GEMM_PUSH_PAD_LEFT] = a->pad_left;
    d->push[GEMM_PUSH_ROW_ADD_OFFSET] = a->row_add_offset;
    d->push[GEMM_PUSH_SCALE] = ops_float_bits(a->scale);
}

static uint64_t result_bytes(const struct gemm_args *a)
{
    return rows_of(a) * (a->geglu ? a->n / 2 : a->n) * (a->f32_out ? 4 : 2);
}

static uint64_t residual_bytes(const struct gemm_args *a)
{
    return a->has_residual ? rows_of(a) * a->n * (a->residual_f32 ? 4 : 2) : 0;
}

static uint64_t weight_bytes(const struct gemm_args *a)
{
    return div_up(a->n, GEMM_BLOCK) * GEMM_BLOCK * depth_of(a) * 2;
}

static uint64_t source_bytes(const struct gemm_args *a, uint32_t k)
{
    return (uint64_t)a->batch * a->in_height * a->in_width * k * (a->x_f32 ? 4 : 2);
}

int gemm_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                struct dispatch *ret_dispatch, struct fault *f)
{
    const struct gemm_args *a = &args->gemm;
    const struct tile *t = tile_for(caps->is_cpu, caps->subgroup_size, rows_of(a));
    struct dispatch d = {.kernel = t->kernel};
    uint64_t sources = max_u64(source_bytes(a, a->k0), source_bytes(a, a->k1));
    struct launch_need need = {
        .op = "gemm",
        .texel_uvec4 = max_u64(sources, weight_bytes(a)) / 16,
        .binding_bytes = result_bytes(a),
        .invocations = GEMM_LANES * t->ly,
    };

    need.texel_uvec4 = max_u64(need.texel_uvec4, residual_bytes(a) / 16);
    fill_spec(a, t, &d);
    fill_push(a, &d);
    ops_fold(caps, div_up(rows_of(a), t->ly * t->tm), 2, d.groups);
    d.groups[1] = (uint32_t)div_up(a->n, GEMM_BLOCK);
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost gemm_cost(const union op_args *args)
{
    const struct gemm_args *a = &args->gemm;
    const struct tile *t = tile_for(true, 8, rows_of(a));
    uint64_t tile_rows = t->ly * t->tm, columns = div_up(a->n, GEMM_BLOCK) * GEMM_BLOCK;

    return (struct op_cost){
        .macs = rows_of(a) * a->n * depth_of(a),
        .macs_issued = div_up(rows_of(a), tile_rows) * tile_rows * columns * depth_of(a),
        .bytes_read = source_bytes(a, a->k0 + a->k1) + weight_bytes(a) + residual_bytes(a) +
                      (a->has_bias ? columns * 4 : 0) + (a->has_row_add ? (uint64_t)a->n * 4 : 0),
        .bytes_written = result_bytes(a),
    };
}
