/* embed, select_row, latent_in, sampler_step, advance against plain loops. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/op_run.h"
#include "tests/support/tensors.h"
#include "vk/base/cleanup.h"
#include "vk/base/half.h"
#include "vk/sample/sched.h"
#include "vk/shaders/abi/step.h"

#define TOLERANCE     5e-4
#define TOLERANCE_F32 2e-5f /* absolute, of values up to some 10 */

/* Runs on every variant; the caller looks at the result in between. */
#define for_each_variant(v) for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++)

static void must_run(enum op_variant v, enum op_kind op, const union op_args *args,
                     const struct op_slot slots[OP_SLOTS], void *ret_out, size_t size)
{
    struct fault f = {0};
    int r = op_run(v, op, args, slots, ret_out, size, &f);

    if (r < 0)
        print_message("%s: %s\n", op_variant_name(v), f.text);
    assert_int_equal(r, 0);
}

/* Ids from `first` on are rows of `words`; UINT32_MAX: there are none. */
static void check_embed(uint32_t first)
{
    enum { ROWS = 14, C = 20, VOCAB = 50, WORDS = 12, LENGTH = 7, POSITIONS = 9 };
    struct rows tokens = rows_random(VOCAB, layout_plain(C), 0, 1);
    struct rows words = rows_random(WORDS, layout_plain(C), 0, 1);
    struct rows positions = rows_random(POSITIONS, layout_plain(C), 0, 1);
    bool has_words = first != UINT32_MAX;
    uint32_t ids[ROWS], last = has_words ? first + WORDS - 1 : VOCAB - 1;
    double expected[ROWS * C];
    float result[ROWS * 24];
    const union op_args args = {.embed = {.rows = ROWS,
                                          .c = C,
                                          .length = LENGTH,
                                          .positions = POSITIONS,
                                          .has_words = has_words,
                                          .first_word = has_words ? first : 0}};
    const struct op_slot slots[OP_SLOTS] = {
        [0] = {tokens.halves, tokens.bytes, true},
        [1] = {positions.halves, positions.bytes, true},
        [2] = has_words ? (struct op_slot){words.halves, words.bytes, false}
                        : (struct op_slot){tokens.halves, tokens.bytes, true},
        [4] = {ids, sizeof ids, false},
    };

    for (uint32_t i = 0; i < ROWS; i++)
        ids[i] = i == 3 ? last : i == 5 && has_words ? first : i * 11 % (last + 1);
    for (uint32_t i = 0; i < ROWS * C; i++) {
        uint32_t id = ids[i / C];
        const float *row = id < first ? tokens.dense + id * C : words.dense + (id - first) * C;
        expected[i] = (double)row[i % C] + (double)positions.dense[i / C % LENGTH * C + i % C];
    }
    for_each_variant(v)
    {
        must_run(v, OP_embed, &args, slots, result, sizeof result);
        assert_true(rows_error(result, 1, ROWS, layout_plain(C), expected) <= TOLERANCE);
    }
    rows_done(&tokens);
    rows_done(&words);
    rows_done(&positions);
}

static void test_embed(void **state)
{
    (void)state;
    check_embed(UINT32_MAX);
    check_embed(50); /* right behind the table */
    check_embed(43); /* the table is longer than the vocabulary */
}

static void test_select_row(void **state)
{
    enum { ROWS = 9, C = 77 };
    struct rows table = rows_random(ROWS, layout_plain(C), 0, 1);
    uint16_t result[80];
    const union op_args args = {.select_row = {.c = C}};

    (void)state;
    for (uint32_t step = 0; step < ROWS; step += 4) {
        const struct op_slot slots[OP_SLOTS] = {
            [0] = {table.halves, table.bytes, false},
            [4] = {&step, sizeof step, false},
        };
        for_each_variant(v)
        {
            must_run(v, OP_select_row, &args, slots, result, sizeof result);
            assert_memory_equal(result, table.halves + step * 80, sizeof result);
        }
    }
    rows_done(&table);
}

/* Two picture planes behind a gap of one, appended without the scale, beside four scaled ones. */
static void run_latent_in(bool by_step, uint32_t extra)
{
    enum { HW = 117, C = 4, BATCH = 2, STEP = 2, AT = C + 1, ALL = AT + 5 };
    _cleanup_(freep) float *x = floats_random(ALL * HW, 0, 1);
    float rows[3 * STEP_ROW_FLOATS] = {0};
    uint32_t step = STEP, c = C + extra, padded = pad8(c);
    float scale = by_step ? 0.37f : 5.5f;
    double expected[BATCH * HW * (C + 5)];
    uint16_t result[BATCH * HW * 16];
    const union op_args args = {.latent_in = {.batch = BATCH,
                                              .hw = HW,
                                              .c = C,
                                              .by_step = by_step,
                                              .scale = 5.5f,
                                              .extra = extra,
                                              .extra_at = extra ? AT : 0}};
    const struct op_slot slots[OP_SLOTS] = {
        [4] = {x, ALL * HW * sizeof *x, false},
        [5] = {by_step ? rows : NULL, sizeof rows, false},
        [6] = {by_step ? &step : NULL, sizeof step, false},
    };

    rows[STEP * STEP_ROW_FLOATS + STEP_INPUT_SCALE] = 0.37f;
    for (uint32_t i = 0; i < BATCH * HW * c; i++) {
        uint32_t channel = i % c, pixel = i / c % HW;
        expected[i] = channel < C ? (double)(x[channel * HW + pixel] * scale)
                                  : (double)x[(AT + channel - C) * HW + pixel];
    }
    for_each_variant(v)
    {
        must_run(v, OP_latent_in, &args, slots, result, BATCH * HW * padded * sizeof *result);
        assert_true(rows_error(result, 0, BATCH * HW, layout_plain(c), expected) <= TOLERANCE);
        for (uint32_t i = 0; i < HW; i++) /* rounded as everywhere */
            assert_int_equal(result[i * padded], half_from_float(x[i] * scale));
    }
}

static void test_latent_in(void **state)
{
    static const uint32_t extras[] = {0, 2, 5};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(extras); i++) {
        run_latent_in(false, extras[i]);
        run_latent_in(true, extras[i]);
    }
}

static void test_latent_in_refuses(void **state)
{
    const union op_args args = {
        .latent_in = {.batch = 1, .hw = 64, .c = 4, .extra = 5, .extra_at = 3}};
    struct fault f = {0};

    (void)state;
    assert_int_equal(ops[OP_latent_in].check(&args, &f), -EINVAL);
    assert_string_equal(f.text, "latent_in: extra planes inside the latents");
}

#define SAMPLER_HW 117u
#define SAMPLER_C  4u
#define GROUP      (SAMPLER_HW * SAMPLER_C)

/* sched.h's formula for value i; `state` in place. */
static void ref_sampler_step(const double *row, double m, bool is_masked, double *state, uint32_t i)
{
    double *x = &state[i], *saved = x + STATE_SAVED * GROUP, *history = x + STATE_E * GROUP;
    double *sum = x + STATE_SUM * GROUP;
    double was = *x, clip = row[STEP_CLIP], e0 = row[STEP_CONV_X] * was + row[STEP_CONV_M] * m;

    if (clip != 0)
        e0 = e0 < -clip ? -clip : e0 > clip ? clip : e0;
    *x = row[STEP_X_SCALE] * (row[STEP_USE_SAVED] != 0 ? *saved : was) + row[STEP_PLAIN_X] * was +
         row[STEP_M_SCALE] * m + row[STEP_E_SCALE] * e0 + row[STEP_SUM_SCALE] * *sum +
         row[STEP_NOISE_SCALE] * x[STATE_NOISE * GROUP];
    for (uint32_t k = 0; k < SCHED_HISTORY; k++)
        *x += row[STEP_E_SCALE + 1 + k] * history[k * GROUP];
    if (is_masked) {
        double paint = state[STATE_MASK * GROUP + i % SAMPLER_HW];
        *x = paint * *x + (1 - paint) * (row[STEP_KEEP_IMAGE] * x[STATE_ORIGINAL * GROUP] +
                                         row[STEP_KEEP_NOISE] * x[STATE_ORIGINAL_NOISE * GROUP]);
    }
    x[STATE_CLEAN * GROUP] = row[STEP_CLEAN_X] * was + row[STEP_CLEAN_M] * m;
    *sum = row[STEP_SUM_KEEP] * *sum + row[STEP_SUM_E] * e0;
    if (row[STEP_SAVE] != 0)
        *saved = was;
    for (uint32_t k = SCHED_HISTORY; row[STEP_PUSH] != 0 && k-- > 0;)
        history[k * GROUP] = k > 0 ? history[(k - 1) * GROUP] : e0;
}

static void run_sampler(const float *row, bool is_guided, bool is_masked)
{
    enum { MOST = STATE_MASKED * GROUP };
    const union op_args args = {
        .sampler_step = {
            .batch = is_guided ? 2 : 1, .hw = SAMPLER_HW, .c = SAMPLER_C, .is_masked = is_masked}};
    const uint32_t n = (is_masked ? STATE_MASKED : STATE_PLAIN) * GROUP;
    _cleanup_(freep) float *e = floats_random(2 * SAMPLER_HW * 8, 0, 1);
    _cleanup_(freep) float *before = floats_random(MOST, 0, 1);
    float rows[2 * STEP_ROW_FLOATS] = {0}, after[MOST];
    uint32_t step = 1;
    double expected[MOST], row_double[STEP_ROW_FLOATS];
    const struct op_slot slots[OP_SLOTS] = {
        [4] = {e, (is_guided ? 2 : 1) * SAMPLER_HW * 8 * sizeof *e, false},
        [5] = {rows, sizeof rows, false},
        [6] = {&step, sizeof step, false},
        [7] = {before, n * sizeof *before, false},
    };

    memcpy(rows + STEP_ROW_FLOATS, row, STEP_ROW_FLOATS * sizeof *row);
    for (int i = 0; i < STEP_ROW_FLOATS; i++)
        row_double[i] = (double)row[i];
    for (uint32_t i = 0; i < GROUP; i++) /* painted, kept, in between */
        before[STATE_MASK * GROUP + i] = (float)(i % 3) / 2;
    for (uint32_t i = 0; i < MOST; i++)
        expected[i] = (double)before[i];
    for (uint32_t i = 0; i < GROUP; i++) {
        uint32_t at = i % SAMPLER_HW * 8 + i / SAMPLER_HW;
        double m = (double)e[at], conditional = (double)e[SAMPLER_HW * 8 + at];
        m += is_guided ? row_double[STEP_GUIDANCE] * (conditional - m) : 0;
        ref_sampler_step(row_double, m, is_masked, expected, i);
    }
    for_each_variant(v)
    {
        must_run(v, OP_sampler_step, &args, slots, after, n * sizeof *after);
        for (uint32_t i = 0; i < n; i++)
            assert_true(fabs((double)after[i] - expected[i]) <= (double)TOLERANCE_F32);
    }
}

static void test_sampler_step(void **state)
{
    static const float table[][STEP_ROW_FLOATS] = {
        {[STEP_X_SCALE] = 1.01f,
         [STEP_E_SCALE] = -0.07f,
         [STEP_CONV_M] = 1,
         [STEP_GUIDANCE] = 7.5f},
        {[STEP_X_SCALE] = 0.98f,
         [STEP_E_SCALE] = 0.5f,
         [STEP_E_SCALE + 1] = -0.4f,
         [STEP_E_SCALE + 2] = 0.3f,
         [STEP_E_SCALE + 3] = -0.2f,
         [STEP_CONV_M] = 1,
         [STEP_PUSH] = 1,
         [STEP_KEEP_IMAGE] = 1,
         [STEP_GUIDANCE] = 1.5f},
        {[STEP_X_SCALE] = 1.1f,
         [STEP_E_SCALE] = 0.25f,
         [STEP_E_SCALE + 1] = 0.25f,
         [STEP_CONV_M] = 1,
         [STEP_USE_SAVED] = 1,
         [STEP_KEEP_IMAGE] = 0.6f,
         [STEP_KEEP_NOISE] = 0.8f,
         [STEP_GUIDANCE] = 0},
        {[STEP_X_SCALE] = 1.1f,
         [STEP_PLAIN_X] = -0.3f,
         [STEP_E_SCALE] = 0.25f,
         [STEP_CONV_X] = 0.9f,
         [STEP_CONV_M] = -0.4f,
         [STEP_SAVE] = 1,
         [STEP_PUSH] = 1,
         [STEP_SUM_E] = 0.16f,
         [STEP_CLEAN_X] = 1.5f,
         [STEP_CLEAN_M] = -0.7f,
         [STEP_NOISE_SCALE] = 0.35f,
         [STEP_GUIDANCE] = 2},
        {[STEP_X_SCALE] = 0.7f,
         [STEP_PLAIN_X] = 0.2f,
         [STEP_E_SCALE] = 0.1f,
         [STEP_CONV_M] = 1,
         [STEP_CONV_X] = 1.4f,
         [STEP_CLIP] = 0.6f,
         [STEP_M_SCALE] = 0.8f,
         [STEP_SUM_SCALE] = 0.9f,
         [STEP_SUM_KEEP] = 1,
         [STEP_SUM_E] = 0.3f,
         [STEP_USE_SAVED] = 1,
         [STEP_NOISE_SCALE] = 1.2f,
         [STEP_KEEP_IMAGE] = 0.1f,
         [STEP_KEEP_NOISE] = 1.3f,
         [STEP_GUIDANCE] = 1},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        for (int k = 0; k < 4; k++)
            run_sampler(table[i], k & 1, k & 2);
}

/* Memory that was never written must not leak in through a weight of zero: history, noise, and the
 * original where everything is painted. */
static void test_sampler_step_ignores_what_is_empty(void **state)
{
    enum { N = STATE_MASKED * 8 };
    const union op_args args = {.sampler_step = {.batch = 1, .hw = 8, .c = 1, .is_masked = true}};
    float e[8 * 8] = {0};
    float rows[STEP_ROW_FLOATS] = {[STEP_X_SCALE] = 2, [STEP_E_SCALE] = 1, [STEP_CONV_M] = 1};
    float before[N], after[N];
    uint32_t step = 0;
    const struct op_slot slots[OP_SLOTS] = {
        [4] = {e, sizeof e, false},
        [5] = {rows, sizeof rows, false},
        [6] = {&step, sizeof step, false},
        [7] = {before, sizeof before, false},
    };

    (void)state;
    for (int i = 0; i < N; i++)
        before[i] = i < 8 || i / 8 == STATE_MASK ? 1 : NAN;
    for_each_variant(v)
    {
        must_run(v, OP_sampler_step, &args, slots, after, sizeof after);
        for (int i = 0; i < 8; i++)
            assert_true(after[i] == 2.0f); /* cmocka's float_equal takes NaN for equal */
    }
}

static void test_advance(void **state)
{
    uint32_t step = 41, after = 0;
    const struct op_slot slots[OP_SLOTS] = {[OP_OUT] = {&step, sizeof step, false}};

    (void)state;
    for_each_variant(v)
    {
        must_run(v, OP_advance, &(union op_args){.advance = {0}}, slots, &after, sizeof after);
        assert_int_equal(after, 42);
    }
}

/* Every row of the table is whole: names, functions, a result. */
static void test_table(void **state)
{
    (void)state;
    for (int i = 0; i < OP_KIND_COUNT; i++) {
        assert_non_null(ops[i].name);
        assert_true(ops[i].check && ops[i].choose && ops[i].cost);
        assert_int_equal(ops[i].writes, 1u << OP_OUT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_select_row),
        cmocka_unit_test(test_latent_in),
        cmocka_unit_test(test_latent_in_refuses),
        cmocka_unit_test(test_sampler_step),
        cmocka_unit_test(test_sampler_step_ignores_what_is_empty),
        cmocka_unit_test(test_advance),
        cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests(tests, NULL, op_run_teardown);
}
