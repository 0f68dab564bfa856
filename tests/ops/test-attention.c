/* attention against its definition: few and many tokens, odd heads, wide heads, fused rows. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/ops/ref_attention.h"
#include "tests/support/op_run.h"
#include "tests/support/tensors.h"
#include "vk/base/cleanup.h"
#include "vk/shaders/abi/attention.h"

#define TOLERANCE 5e-4

struct attention_case {
    uint32_t batch, heads, q_tokens, k_tokens, head_dim;
    bool causal;
    float deviation; /* of q and k: large ones make the softmax sharp */
};

static const struct attention_case cases[] = {
    {1, 1, 1, 1, 8, false, 1},      {2, 2, 4, 4, 5, false, 1},     {2, 3, 16, 16, 24, false, 1},
    {1, 2, 9, 77, 24, false, 1},    {2, 2, 77, 77, 8, true, 1},    {1, 1, 300, 300, 8, false, 1},
    {2, 8, 64, 77, 40, false, 1},   {1, 2, 117, 117, 13, true, 1}, {1, 1, 33, 65, 40, false, 20},
    {1, 1, 35, 35, 160, false, 1},  {1, 1, 20, 20, 512, false, 1}, {1, 2, 7, 8, 72, false, 1},
    {1, 1, 33, 65, 40, false, 150}, /* q k far beyond 65504, where upcast_attention is meant for */
};

static struct attention_args args_of(const struct attention_case *c)
{
    uint32_t padded = pad8(c->head_dim), row = c->heads * padded / 8;

    return (struct attention_args){
        .batch = c->batch,
        .heads = c->heads,
        .q_tokens = c->q_tokens,
        .k_tokens = c->k_tokens,
        .head_dim = c->head_dim,
        .head_padded = padded,
        .q_stride = row,
        .k_stride = row,
        .v_stride = row,
        .causal = c->causal,
        .scale = 1 / sqrtf((float)c->head_dim),
    };
}

static double run_case(const struct attention_case *c, enum op_variant variant, struct fault *f)
{
    const struct attention_args a = args_of(c);
    struct layout layout = {.count = c->heads * c->head_dim, .run = c->head_dim};
    struct rows q = rows_random(c->batch * c->q_tokens, layout, 0, c->deviation);
    struct rows k = rows_random(c->batch * c->k_tokens, layout, 0, c->deviation);
    struct rows v = rows_random(c->batch * c->k_tokens, layout, 0.5f, 1);
    _cleanup_(freep) double *expected = calloc((size_t)q.rows * layout.count, sizeof *expected);
    _cleanup_(freep) void *result = malloc(q.bytes);
    const struct op_slot slots[OP_SLOTS] = {
        [0] = {q.halves, q.bytes, false},
        [1] = {k.halves, k.bytes, false},
        [2] = {v.halves, v.bytes, false},
    };

    assert_true(expected && result);
    ref_attention(&a, q.dense, k.dense, v.dense, expected);
    int r =
        op_run(variant, OP_attention, &(union op_args){.attention = a}, slots, result, q.bytes, f);
    double error = r < 0 ? INFINITY : rows_error(result, 0, q.rows, layout, expected);
    rows_done(&q);
    rows_done(&k);
    rows_done(&v);
    return error;
}

static void test_shapes(void **state)
{
    int failures = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++) {
            const struct attention_case *c = &cases[i];
            struct fault f = {0};
            if (v == OP_VARIANT_CPU_SSBO && i % 2) /* half of them: compiling is slow */
                continue;
            double error = run_case(c, v, &f);
            if (!(error <= TOLERANCE)) {
                print_message("%u x %u heads of %u, %u on %u tokens, %s: error %g %s\n", c->batch,
                              c->heads, c->head_dim, c->q_tokens, c->k_tokens, op_variant_name(v),
                              error, f.text);
                failures++;
            }
        }
    }
    assert_int_equal(failures, 0);
}

/* q, k and v side by side in one tensor, in slots 0, 1 and 2 at offsets. */
static void test_fused_rows(void **state)
{
    const struct attention_case c = {2, 2, 20, 20, 16, false, 1};
    struct attention_args a = args_of(&c);
    struct rows fused = rows_random(40, layout_plain(96), 0, 1);
    float part[3][40 * 32];
    double expected[40 * 32];
    uint16_t result[40 * 32];
    const struct op_slot slot = {fused.halves, fused.bytes, false};
    const struct op_slot slots[OP_SLOTS] = {slot, slot, slot};
    struct fault f = {0};

    (void)state;
    for (size_t i = 0; i < 3 * 40 * 32; i++)
        part[i / 32 % 3][i / 96 * 32 + i % 32] = fused.dense[i];
    ref_attention(&a, part[0], part[1], part[2], expected);
    a.q_stride = a.k_stride = a.v_stride = 12;
    a.k_offset = 4;
    a.v_offset = 8;
    for (enum op_variant v = 0; v < OP_VARIANT_COUNT; v++) {
        assert_int_equal(op_run(v, OP_attention, &(union op_args){.attention = a}, slots, result,
                                sizeof result, &f),
                         0);
        double error = rows_error(result, 0, 40, layout_plain(32), expected);
        assert_true(error <= TOLERANCE);
    }
    rows_done(&fused);
}

static void test_choice(void **state)
{
    static const struct caps narrow = {
        .is_cpu = false,
        .max_invocations = 128,
        .max_groups = {65535, 65535, 65535},
        .max_binding = 1u << 20,
    };
    struct attention_args a = args_of(&(struct attention_case){2, 8, 4096, 4096, 40, false, 1});
    struct dispatch d = {0};
    struct fault f = {0};

    (void)state;
    assert_int_equal(
        ops[OP_attention].choose(&narrow, &(union op_args){.attention = a}, false, &d, &f), -EFBIG);
    struct caps wide = narrow;
    wide.max_binding = 128u << 20;
    assert_int_equal(
        ops[OP_attention].choose(&wide, &(union op_args){.attention = a}, false, &d, &f), 0);
    assert_int_equal(d.groups[1], 16);
    assert_int_equal(d.groups[2], 1);
    assert_true(d.groups[0] * d.spec[ATTENTION_SPEC_LX] * d.spec[ATTENTION_SPEC_TQ] >= 4096);
    a = args_of(&(struct attention_case){1, 1, 64, 64, 512, false, 1});
    assert_int_equal(
        ops[OP_attention].choose(&wide, &(union op_args){.attention = a}, false, &d, &f), 0);
    assert_true(d.groups[2] * d.spec[ATTENTION_SPEC_DV] >= 64); /* slices cover the head */
}

static void test_check(void **state)
{
    struct attention_args wide = args_of(&(struct attention_case){1, 1, 4, 4, 520, false, 1});
    struct attention_args lopsided = args_of(&(struct attention_case){1, 1, 4, 5, 8, true, 1});
    struct attention_args narrow = args_of(&(struct attention_case){1, 2, 4, 4, 8, false, 1});
    struct fault f = {0};

    (void)state;
    assert_int_equal(ops[OP_attention].check(&(union op_args){.attention = wide}, &f), -EINVAL);
    assert_non_null(strstr(f.text, "512"));
    assert_int_equal(ops[OP_attention].check(&(union op_args){.attention = lopsided}, &f), -EINVAL);
    narrow.k_offset = 1;
    assert_int_equal(ops[OP_attention].check(&(union op_args){.attention = narrow}, &f), -EINVAL);
    assert_non_null(strstr(f.text, "wider"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_fused_rows),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_check),
    };

    return cmocka_run_group_tests(tests, NULL, op_run_teardown);
}
