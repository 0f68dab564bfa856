/* groupnorm_stats and groupnorm_apply against the definition: groups that straddle uvec4 and the
 * two sources of a concat, and a mean far larger than the deviation. */
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/ops/ref_gemm.h"
#include "tests/ops/ref_norm.h"
#include "tests/support/op_run.h"
#include "tests/support/tensors.h"
#include "vk/base/cleanup.h"

#define TOLERANCE       5e-4
#define TOLERANCE_STATS 2e-5

struct groupnorm_case {
    uint32_t batch, hw, c0, c1, groups;
    bool silu, x_f32;
    float mean, deviation;
};

static const struct groupnorm_case cases[] = {
    {1, 1, 8, 0, 2, false, false, 0, 1},        {2, 4, 32, 0, 32, true, true, 0, 1},
    {2, 117, 24, 0, 4, true, false, 0, 1},      {2, 9, 320, 0, 32, false, true, 0, 1},
    {2, 64, 24, 16, 5, true, false, 0, 1},      {2, 25, 20, 12, 4, true, true, 0, 1},
    {1, 49, 13, 7, 4, false, false, 0, 1},      {1, 256, 30, 0, 3, true, true, 1, 1},
    {2, 100, 16, 8, 3, false, false, 60, 0.5f}, {1, 4096, 8, 0, 1, false, true, 500, 1},
    {2, 117, 24, 0, 4, true, true, 0, 1},       {2, 25, 20, 12, 4, true, false, 0, 1},
    {1, 4096, 8, 0, 1, false, false, 500, 1},   {1, 24576, 8, 0, 1, false, false, 500, 1},
};

struct operands {
    struct rows x0, x1;
    float *concat; /* [batch, hw, c0 + c1] */
    float *gamma, *beta;
    double *stats, *expected;
};

static void operands_init(const struct groupnorm_case *c, struct operands *o)
{
    uint32_t rows = c->batch * c->hw, width = c->c0 + c->c1, size = width / c->groups;

    o->x0 = rows_random(rows, layout_plain(c->c0), c->mean, c->deviation);
    o->x1 = rows_random(rows, layout_plain(c->c1), c->mean, c->deviation);
    o->concat = floats_random((size_t)rows * width, 0, 0);
    for (size_t i = 0; i < (size_t)rows * width; i++) {
        size_t row = i / width, ch = i % width;
        o->concat[i] =
            ch < c->c0 ? o->x0.dense[row * c->c0 + ch] : o->x1.dense[row * c->c1 + ch - c->c0];
    }
    o->gamma = floats_random(pad8(width) + 64, 1, 0.3f);
    o->beta = floats_random(pad8(width) + 64, 0, 1);
    o->stats = calloc(2ull * c->batch * c->groups, sizeof *o->stats);
    o->expected = calloc((size_t)rows * width, sizeof *o->expected);
    assert_true(o->stats && o->expected);
    ref_group_stats(o->concat, c->batch, c->hw, width, c->groups, 1e-5, o->stats);
    for (size_t i = 0; i < (size_t)rows * width; i++) {
        size_t ch = i % width, group = i / width / c->hw * c->groups + ch / size;
        double y = ((double)o->concat[i] - o->stats[2 * group]) * o->stats[2 * group + 1] *
                       (double)o->gamma[ch] +
                   (double)o->beta[ch];
        o->expected[i] = c->silu ? ref_activation(ACTIVATION_SILU, y) : y;
    }
}

static void operands_done(struct operands *o)
{
    rows_done(&o->x0);
    rows_done(&o->x1);
    free(o->concat);
    free(o->gamma);
    free(o->beta);
    free(o->stats);
    free(o->expected);
}

/* Worst error: of a mean against the deviation, of a 1 / deviation against itself. */
static double stats_error(const float *got, const double *want, size_t groups)
{
    double worst = 0;

    for (size_t i = 0; i < groups; i++) {
        double mean = fabs((double)got[2 * i] - want[2 * i]) * want[2 * i + 1];
        double rstd = fabs((double)got[2 * i + 1] / want[2 * i + 1] - 1);
        worst = fmax(worst, isfinite(mean + rstd) ? fmax(mean, rstd) : INFINITY);
    }
    return worst;
}

static double run_stats(const struct groupnorm_case *c, const struct operands *o, enum op_variant v,
                        float *ret_stats, struct fault *f)
{
    const union op_args args = {.groupnorm_stats = {.batch = c->batch,
                                                    .hw = c->hw,
                                                    .c0 = c->c0,
                                                    .c1 = c->c1,
                                                    .groups = c->groups,
                                                    .eps = 1e-5f,
                                                    .x_f32 = c->x_f32}};
    const struct op_slot slots[OP_SLOTS] = {
        [0] = op_slot_rows(&o->x0, c->x_f32),
        [1] = c->c1 ? op_slot_rows(&o->x1, c->x_f32) : (struct op_slot){0},
    };
    size_t groups = (size_t)c->batch * c->groups;
    int r = op_run(v, OP_groupnorm_stats, &args, slots, ret_stats, groups * 8, f);

    return r < 0 ? INFINITY : stats_error(ret_stats, o->stats, groups);
}

static double run_apply(const struct groupnorm_case *c, const struct operands *o, enum op_variant v,
                        const float *stats, struct fault *f)
{
    const union op_args args = {.groupnorm_apply = {.batch = c->batch,
                                                    .hw = c->hw,
                                                    .c0 = c->c0,
                                                    .c1 = c->c1,
                                                    .groups = c->groups,
                                                    .silu = c->silu,
                                                    .x_f32 = c->x_f32}};
    struct layout y = {.count = c->c0 + c->c1, .first = c->c1 ? c->c0 : 0};
    size_t vector = (c->c0 + c->c1) * sizeof(float);
    size_t size = (size_t)c->batch * c->hw * layout_padded(y) * 2;
    const struct op_slot slots[OP_SLOTS] = {
        [0] = op_slot_rows(&o->x0, c->x_f32),
        [1] = c->c1 ? op_slot_rows(&o->x1, c->x_f32) : (struct op_slot){0},
        [4] = {stats, (size_t)c->batch * c->groups * 8, false},
        [5] = {o->gamma, vector, true},
        [6] = {o->beta, vector, true},
    };
    _cleanup_(freep) void *result = malloc(size);

    assert_non_null(result);
    int r = op_run(v, OP_groupnorm_apply, &args, slots, result, size, f);
    return r < 0 ? INFINITY : rows_error(result, 0, c->batch * c->hw, y, o->expected);
}

static void test_shapes(void **state)
{
    int failures = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct operands o;
        operands_init(&cases[i], &o);
        for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++) {
            struct fault f = {0};
            float stats[2 * 64];
            double of_stats = run_stats(&cases[i], &o, v, stats, &f);
            double of_apply = run_apply(&cases[i], &o, v, stats, &f);
            if (!(of_stats <= TOLERANCE_STATS) || !(of_apply <= TOLERANCE)) {
                print_message("case %zu, %s: stats %g, result %g %s\n", i, op_variant_name(v),
                              of_stats, of_apply, f.text);
                failures++;
            }
        }
        operands_done(&o);
    }
    assert_int_equal(failures, 0);
}

static void test_check(void **state)
{
    union op_args a = {
        .groupnorm_stats = {.batch = 1, .hw = 4, .c0 = 10, .groups = 4, .eps = 1e-5f}};
    struct fault f = {0};

    (void)state;
    assert_true(ops[OP_groupnorm_stats].check(&a, &f) < 0);
    assert_non_null(strstr(f.text, "groups"));
    a.groupnorm_apply = (struct groupnorm_apply_args){1, 4, 10, 0, 4, false, false};
    assert_true(ops[OP_groupnorm_apply].check(&a, &f) < 0);
}

/* Pictures of any height fit the grid of the smallest legal device. */
static void test_grid(void **state)
{
    static const struct caps caps = {
        .max_invocations = 128,
        .max_groups = {65535, 65535, 65535},
        .max_binding = 4ull << 30,
    };
    const union op_args a = {.groupnorm_apply = {1, 4096 * 4096, 32, 0, 8, true, false}};
    struct dispatch d;
    struct fault f = {0};

    (void)state;
    assert_int_equal(ops[OP_groupnorm_apply].choose(&caps, &a, false, &d, &f), 0);
    assert_in_range(d.groups[1], 1, 65535);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_grid),
    };

    return cmocka_run_group_tests(tests, NULL, op_run_teardown);
}
