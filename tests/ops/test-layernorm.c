/* layernorm against its definition: odd widths, large means, both result types. */
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/ops/ref_norm.h"
#include "tests/support/op_run.h"
#include "tests/support/tensors.h"
#include "vk/base/cleanup.h"

#define TOLERANCE     5e-4
#define TOLERANCE_F32 2e-5

struct layernorm_case {
    uint32_t rows, c;
    bool f32_out, x_f32;
    float mean, deviation;
};

static const struct layernorm_case cases[] = {
    {1, 8, false, false, 0, 1},   {7, 24, false, true, 0, 1},    {77, 768, false, false, 0, 1},
    {117, 13, false, true, 0, 1}, {9, 360, true, false, 0, 1},   {8, 20, true, true, 3, 1},
    {3, 320, true, true, 300, 1}, {3, 320, true, false, 300, 1}, {300, 40, false, true, 0, 20},
};

static double run_case(const struct layernorm_case *c, enum op_variant v, struct fault *f)
{
    const union op_args args = {
        .layernorm = {
            .rows = c->rows, .c = c->c, .eps = 1e-5f, .f32_out = c->f32_out, .x_f32 = c->x_f32}};
    struct rows x = rows_random(c->rows, layout_plain(c->c), c->mean, c->deviation);
    uint32_t padded = (c->c + 63) / 64 * 64;
    _cleanup_(freep) float *gamma = floats_random(padded, 1, 0.3f);
    _cleanup_(freep) float *beta = floats_random(padded, 0, 1);
    size_t size = x.bytes * (c->f32_out ? 2 : 1);
    _cleanup_(freep) double *expected = calloc((size_t)c->rows * c->c, sizeof *expected);
    _cleanup_(freep) void *result = malloc(size);
    const struct op_slot slots[OP_SLOTS] = {
        [0] = op_slot_rows(&x, c->x_f32),
        [5] = {gamma, padded * sizeof *gamma, true},
        [6] = {beta, padded * sizeof *beta, true},
    };

    assert_true(expected && result);
    for (uint32_t i = c->c; i < padded; i++)
        gamma[i] = beta[i] = 0;
    for (uint32_t i = 0; i < c->rows; i++)
        ref_layernorm(x.dense + (size_t)i * c->c, c->c, gamma, beta, 1e-5,
                      expected + (size_t)i * c->c);
    int r = op_run(v, OP_layernorm, &args, slots, result, size, f);
    double error = r < 0 ? INFINITY : rows_error(result, c->f32_out, c->rows, x.layout, expected);
    rows_done(&x);
    return error;
}

static void test_shapes(void **state)
{
    int failures = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++) {
            struct fault f = {0};
            double error = run_case(&cases[i], v, &f);
            if (!(error <= (cases[i].f32_out ? TOLERANCE_F32 : TOLERANCE))) {
                print_message("%u rows of %u, %s: error %g %s\n", cases[i].rows, cases[i].c,
                              op_variant_name(v), error, f.text);
                failures++;
            }
        }
    }
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
    };

    return cmocka_run_group_tests(tests, NULL, op_run_teardown);
}
