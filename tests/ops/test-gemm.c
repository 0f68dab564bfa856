/* gemm against its definition, over shapes that do not fit the tiles; its rounding; its choices. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/ops/ref_gemm.h"
#include "tests/support/device.h"
#include "tests/support/op_run.h"
#include "tests/support/tensors.h"
#include "vk/base/cleanup.h"
#include "vk/base/half.h"
#include "vk/shaders/abi/gemm.h"

#define TOLERANCE     5e-4 /* f16 results: rounding alone is 2e-4 to 3e-4 */
#define TOLERANCE_F32 1e-6

#define ALL 7u /* variants: bits of enum op_variant */
#define CPU 3u
#define ONE 1u /* where the epilogue is tried, the variants do not differ */

struct gemm_case {
    const char *what;
    struct gemm_args args;
    uint32_t variants;
};

/* The parts of gemm_args; a scale of 0 stands for 1 in this file. */
#define FROM(h, w, k)         .in_height = (h), .in_width = (w), .k0 = (k)
#define TO(b, h, w, columns)  .batch = (b), .height = (h), .width = (w), .n = (columns)
#define TAPS(h, w, top, left) .taps_h = (h), .taps_w = (w), .pad_top = (top), .pad_left = (left)
#define LINEAR(rows, k, columns)                                                                   \
    FROM(rows, 1, k), TO(1, rows, 1, columns), TAPS(1, 1, 0, 0), .stride = 1
#define CONV3(b, h, w, k, columns)                                                                 \
    FROM(h, w, k), TO(b, h, w, columns), TAPS(3, 3, 1, 1), .stride = 1
#define UPSAMPLE(h, w) .upsample = true, .upsampled_height = (h), .upsampled_width = (w)

static const struct gemm_case cases[] = {
    {"1 row", {LINEAR(1, 8, 8), .has_bias = true}, ALL},
    {"7 rows", {LINEAR(7, 24, 24), .has_bias = true}, ALL},
    {"77 rows", {LINEAR(77, 360, 72), .has_bias = true}, ALL},
    {"117 rows, 320 columns", {LINEAR(117, 8, 320), .has_bias = true}, ONE},
    {"no bias", {LINEAR(5, 40, 136)}, ONE},
    {"residual", {LINEAR(21, 48, 72), .has_bias = true, .has_residual = true}, ALL},
    {"silu", {LINEAR(3, 32, 40), .has_bias = true, .activation = ACTIVATION_SILU}, ONE},
    {"gelu", {LINEAR(3, 32, 40), .has_bias = true, .activation = ACTIVATION_GELU}, ONE},
    {"quick gelu", {LINEAR(3, 32, 40), .has_bias = true, .activation = ACTIVATION_QUICK_GELU}, ONE},
    {"geglu", {LINEAR(7, 40, 144), .has_bias = true, .geglu = true}, ALL},
    {"geglu of 8", {LINEAR(3, 16, 16), .has_bias = true, .geglu = true}, ONE},
    {"geglu to f32", {LINEAR(3, 16, 48), .has_bias = true, .geglu = true, .f32_out = true}, ONE},
    {"f32", {LINEAR(3, 64, 24), .has_bias = true, .f32_out = true}, ONE},
    {"scaled", {LINEAR(4, 24, 72), .has_bias = true, .scale = 0.125f}, ONE},
    {"two sources", {LINEAR(3, 24, 72), .k1 = 16, .has_bias = true}, ALL},
    {"9x13", {CONV3(1, 9, 13, 24, 72), .has_bias = true}, ALL},
    {"batch 2, row add, residual",
     {CONV3(2, 5, 3, 16, 40), .has_bias = true, .has_row_add = true, .row_add_offset = 24,
      .has_residual = true},
     ALL},
    {"concat 3x3", {CONV3(2, 3, 3, 16, 24), .k1 = 8, .has_bias = true}, ALL},
    {"stride 2",
     {FROM(9, 13, 16), TO(1, 5, 7, 24), TAPS(3, 3, 1, 1), .stride = 2, .has_bias = true},
     CPU},
    {"stride 2, padded right and below only",
     {FROM(4, 8, 16), TO(2, 2, 4, 24), TAPS(3, 3, 0, 0), .stride = 2, .has_bias = true},
     ONE},
    {"upsampled to even",
     {FROM(3, 2, 8), TO(1, 6, 4, 24), TAPS(3, 3, 1, 1), .stride = 1, UPSAMPLE(6, 4)},
     ONE},
    {"upsampled to odd",
     {FROM(3, 4, 8), TO(2, 5, 7, 24), TAPS(3, 3, 1, 1), .stride = 1, UPSAMPLE(5, 7)},
     ALL},
    {"1x1 on a picture",
     {FROM(3, 5, 24), TO(2, 3, 5, 32), TAPS(1, 1, 0, 0), .stride = 1, .has_bias = true},
     ONE},
    {"1x5 taps", {FROM(4, 9, 8), TO(1, 4, 9, 8), TAPS(1, 5, 0, 2), .stride = 1}, ONE},
    {"f32 from f32", {LINEAR(21, 48, 72), .has_bias = true, .x_f32 = true, .f32_out = true}, ALL},
    {"f32 residual",
     {LINEAR(7, 24, 72), .has_bias = true, .has_residual = true, .residual_f32 = true},
     ALL},
    {"f32 concat 3x3, f32 residual",
     {CONV3(2, 5, 3, 16, 24), .k1 = 8, .has_bias = true, .x_f32 = true, .has_residual = true,
      .residual_f32 = true, .f32_out = true},
     ALL},
    {"f32 upsampled",
     {FROM(3, 4, 8), TO(2, 5, 7, 24), TAPS(3, 3, 1, 1), .stride = 1, UPSAMPLE(5, 7), .x_f32 = true},
     CPU},
    {"conv to f32", {CONV3(1, 2, 2, 16, 8), .has_bias = true, .f32_out = true}, ONE},
};

/* Host side of one case. */
struct operands {
    struct rows x0, x1, residual;
    float *w, *bias, *row_add;
    uint16_t *packed;
    float *packed_bias;
    size_t packed_size, bias_size, row_add_size;
    double *expected;
    struct layout result;
    uint32_t rows;
};

static void operands_init(const struct gemm_args *a, struct operands *o)
{
    uint32_t in_rows = a->batch * a->in_height * a->in_width;
    size_t depth = (size_t)a->taps_h * a->taps_w * (a->k0 + a->k1);

    *o = (struct operands){.rows = a->batch * a->height * a->width};
    o->result = layout_plain(a->geglu ? a->n / 2 : a->n);
    o->x0 = rows_random(in_rows, layout_plain(a->k0), 0, 1);
    o->x1 = rows_random(in_rows, layout_plain(a->k1), 0, 1);
    o->residual = rows_random(o->rows, o->result, 0, 1);
    o->w = floats_random(a->n * depth, 0, 1 / sqrtf((float)depth));
    for (size_t i = 0; i < a->n * depth; i++)
        o->w[i] = half_to_float(half_from_float(o->w[i]));
    o->bias = floats_random(a->n, 0, 1);
    o->row_add_size = (a->row_add_offset + a->n) * sizeof(float);
    o->row_add = floats_random(o->row_add_size / sizeof(float), 0, 1);
    o->packed = ref_gemm_pack(a, o->w, &o->packed_size);
    o->packed_bias = ref_gemm_pack_vector(a, o->bias, &o->bias_size);
    o->expected = calloc((size_t)o->rows * o->result.count, sizeof *o->expected);
    assert_non_null(o->expected);
    const struct ref_gemm in = {.x0 = o->x0.dense,
                                .x1 = o->x1.dense,
                                .w = o->w,
                                .bias = a->has_bias ? o->bias : NULL,
                                .row_add = a->has_row_add ? o->row_add : NULL,
                                .residual = a->has_residual ? o->residual.dense : NULL};
    ref_gemm(a, &in, o->expected);
}

static void operands_done(struct operands *o)
{
    rows_done(&o->x0);
    rows_done(&o->x1);
    rows_done(&o->residual);
    free(o->w);
    free(o->bias);
    free(o->row_add);
    free(o->packed);
    free(o->packed_bias);
    free(o->expected);
}

static double run_case(const struct gemm_args *a, const struct operands *o, enum op_variant variant,
                       struct fault *f)
{
    size_t size = (size_t)o->rows * layout_padded(o->result) * (a->f32_out ? 4 : 2);
    const struct op_slot slots[OP_SLOTS] = {
        [0] = op_slot_rows(&o->x0, a->x_f32),
        [1] = a->k1 ? op_slot_rows(&o->x1, a->x_f32) : (struct op_slot){0},
        [2] = {o->packed, o->packed_size, true},
        [3] = a->has_residual ? op_slot_rows(&o->residual, a->residual_f32) : (struct op_slot){0},
        [4] = {a->has_bias ? o->packed_bias : NULL, o->bias_size, true},
        [5] = {a->has_row_add ? o->row_add : NULL, o->row_add_size, false},
    };
    _cleanup_(freep) void *result = malloc(size);

    assert_non_null(result);
    int r = op_run(variant, OP_gemm, &(union op_args){.gemm = *a}, slots, result, size, f);
    return r < 0 ? INFINITY : rows_error(result, a->f32_out, o->rows, o->result, o->expected);
}

static void test_shapes(void **state)
{
    int failures = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gemm_args args = cases[i].args, *a = &args;
        struct operands o;
        args.scale = args.scale == 0 ? 1 : args.scale;
        operands_init(a, &o);
        for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++) {
            struct fault f = {0};
            if (!(cases[i].variants >> v & 1))
                continue;
            double error = run_case(a, &o, v, &f);
            bool bad = !(error <= (a->f32_out ? TOLERANCE_F32 : TOLERANCE));
            if (bad)
                print_message("%s, %s: error %g %s\n", cases[i].what, op_variant_name(v), error,
                              f.text);
            failures += bad;
        }
        operands_done(&o);
    }
    assert_int_equal(failures, 0);
}

/* x = 0, so the result is the bias, rounded: ties, the ends of the range, subnormals. */
static void test_rounding(void **state)
{
    static const float values[] = {
        0x1p0f + 0x1p-11f,
        0x1p0f + 0x3p-11f,
        0x1p0f + 0x1.002p-11f,
        0x1p0f + 0x1.ffep-12f,
        -0x1p0f - 0x1p-11f,
        -0x1p0f - 0x3p-11f,
        65503.998f,
        65504.0f,
        65519.996f,
        65520.0f,
        -65520.0f,
        1e30f,
        0x1p-14f,
        0x1.ffep-15f,
        0x1.ffcp-15f,
        0x1p-24f,
        0x1p-25f,
        0x1.002p-25f,
        0x3p-25f,
        0x5p-25f,
        -0x1p-25f,
        -0x3p-25f,
        0x1p-26f,
        0x1p-60f,
        0.0f,
        0x1.554p-2f,
        0x1.556p-2f,
        2049.0f,
        2051.0f,
        4098.0f,
        -4102.0f,
        0x1.ffdp-16f,
        0x1.002p-14f,
        0x1.006p-14f,
        0x1.ffffffp-15f,
        1.0f / 3.0f,
    };
    enum { COUNT = 64 };
    struct gemm_args a = {LINEAR(1, 8, COUNT), .has_bias = true, .scale = 1};
    float bias[COUNT];
    uint16_t x[8] = {0}, result[COUNT];
    _cleanup_(freep) uint16_t *w = calloc(COUNT * 8, sizeof *w);

    (void)state;
    for (size_t i = 0; i < COUNT; i++)
        bias[i] = i < ARRAY_SIZE(values) ? values[i] : ldexpf(random_float(), (int)(i % 40) - 26);
    const struct op_slot slots[OP_SLOTS] = {
        [0] = {x, sizeof x, false},
        [2] = {w, COUNT * 16, true},
        [4] = {bias, sizeof bias, true},
    };
    for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++) {
        struct fault f = {0};
        int r = op_run(v, OP_gemm, &(union op_args){.gemm = a}, slots, result, sizeof result, &f);
        assert_string_equal(f.text, "");
        assert_int_equal(r, 0);
        for (size_t i = 0; i < COUNT; i++) {
            if (result[i] != half_from_float(bias[i]))
                print_message("%a: 0x%04x, not 0x%04x\n", (double)bias[i], result[i],
                              half_from_float(bias[i]));
            assert_int_equal(result[i], half_from_float(bias[i]));
        }
    }
}

/* Subnormal halves are numbers like all others on the way in. */
static void test_subnormal_input(void **state)
{
    struct gemm_args a = {LINEAR(1, 8, 8), .f32_out = true, .scale = 1};
    uint16_t x[8] = {0x0001, 0x03ff, 0x8001, 0, 0, 0, 0, 0};
    _cleanup_(freep) uint16_t *w = calloc(64 * 8, sizeof *w);
    float result[8];
    struct fault f = {0};

    (void)state;
    for (int n = 0; n < 3; n++)
        w[n * 64 + n] = 0x6400; /* 1024: column n takes x[n]; vector j 8 + lane 0 */
    const struct op_slot slots[OP_SLOTS] = {
        [0] = {x, sizeof x, false},
        [2] = {w, 64 * 16, true},
    };
    for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++) {
        assert_int_equal(
            op_run(v, OP_gemm, &(union op_args){.gemm = a}, slots, result, sizeof result, &f), 0);
        for (int n = 0; n < 3; n++)
            assert_true(result[n] == half_to_float(x[n]) * 1024);
    }
}

static struct dispatch choose(const struct caps *caps, const struct gemm_args *a, bool texel_ok)
{
    struct dispatch d = {0};
    struct fault f = {0};
    int r = ops[OP_gemm].choose(caps, &(union op_args){.gemm = *a}, texel_ok, &d, &f);

    if (r < 0)
        print_message("%s\n", f.text);
    assert_int_equal(r, 0);
    return d;
}

static void test_choice_of_variant(void **state)
{
    const struct gemm_args a = {LINEAR(512, 320, 320)};
    struct caps caps = caps_of_lavapipe;

    (void)state;
    assert_true(choose(&caps, &a, true).texel);
    assert_false(choose(&caps, &a, false).texel);
    caps.max_texels = 65536; /* SwiftShader */
    assert_false(choose(&caps, &a, true).texel);
    caps = caps_of_lavapipe;
    caps.is_cpu = false;
    assert_false(choose(&caps, &a, true).texel);
    caps.max_binding = 65536; /* too small for x: only texel views are left */
    struct dispatch d;
    struct fault f = {0};
    assert_int_equal(ops[OP_gemm].choose(&caps, &(union op_args){.gemm = a}, false, &d, &f),
                     -EFBIG);
    assert_non_null(strstr(f.text, "gemm"));
}

static void test_choice_of_tile(void **state)
{
    static const struct {
        uint32_t rows, tm;
    } want[] = {{1, 1}, {2, 1}, {4, 4}, {8, 8}, {16, 16}, {24, 8}, {32, 16}, {117, 16}, {512, 16}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        const struct gemm_args a = {LINEAR(want[i].rows, 320, 320)};
        struct dispatch d = choose(&caps_of_lavapipe, &a, true);
        assert_int_equal(d.spec[GEMM_SPEC_TM], want[i].tm);
        assert_int_equal(d.groups[1], 5);
    }
}

/* No device is asked for more than it has, and every row of the result is in some workgroup. */
static void test_grid(void **state)
{
    const struct gemm_args a = {LINEAR(3000000, 8, 64)};
    struct caps caps = caps_of_lavapipe;

    (void)state;
    caps.max_binding = 1ull << 32;
    for (int is_gpu = 0; is_gpu < 2; is_gpu++) {
        caps.is_cpu = !is_gpu;
        caps.max_invocations = 128;
        struct dispatch d = choose(&caps, &a, true);
        uint64_t rows =
            (uint64_t)d.groups[0] * d.groups[2] * d.spec[GEMM_SPEC_LY] * d.spec[GEMM_SPEC_TM];
        assert_in_range(d.groups[0], 1, 65535);
        assert_in_range(d.groups[2], 1, 65535);
        assert_in_range(rows, 3000000, 3000000 + 65535 * 64);
        assert_in_range(GEMM_LANES * d.spec[GEMM_SPEC_LY], 1, 128);
        assert_in_range(d.push_count * 4, 16, 128);
    }
}

static void test_check(void **state)
{
    static const struct {
        struct gemm_args args;
        const char *text;
    } bad[] = {
        {{LINEAR(0, 8, 8)}, "empty result"},
        {{LINEAR(1, 12, 8)}, "multiple of 8"},
        {{LINEAR(1, 8, 12)}, "n is no multiple"},
        {{LINEAR(1, 8, 24), .geglu = true}, "geglu: n"},
        {{LINEAR(1, 8, 16), .geglu = true, .has_residual = true}, "geglu goes with"},
        {{FROM(1, 1, 8), TO(1, 1, 1, 8), .taps_h = 1, .stride = 1}, "taps"},
        {{FROM(3, 4, 8), TO(1, 8, 8, 8), TAPS(3, 3, 1, 1), .stride = 1, UPSAMPLE(8, 8)},
         "twice the input"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct fault f = {0};
        int r = ops[OP_gemm].check(&(union op_args){.gemm = bad[i].args}, &f);
        assert_int_equal(r, -EINVAL);
        if (!strstr(f.text, bad[i].text))
            print_message("%s: %s\n", bad[i].text, f.text);
        assert_non_null(strstr(f.text, bad[i].text));
    }
}

static void test_cost(void **state)
{
    const struct gemm_args a = {CONV3(2, 16, 16, 320, 320), .has_bias = true};
    struct op_cost c = ops[OP_gemm].cost(&(union op_args){.gemm = a});

    (void)state;
    assert_int_equal(c.macs, 512ull * 320 * 2880);
    assert_int_equal(c.macs_issued, 512ull * 320 * 2880);
    assert_int_equal(c.bytes_read, 512 * 320 * 2 + 2880 * 320 * 2 + 320 * 4);
    assert_int_equal(c.bytes_written, 512 * 320 * 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),          cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_subnormal_input), cmocka_unit_test(test_choice_of_variant),
        cmocka_unit_test(test_choice_of_tile),  cmocka_unit_test(test_grid),
        cmocka_unit_test(test_check),           cmocka_unit_test(test_cost),
    };

    return cmocka_run_group_tests(tests, NULL, op_run_teardown);
}
