/* attention — flash attention: queries per lane, slices of wide heads. Kernel:
 * shaders/attention.comp. */
#include "vk/ops/ops-private.h"

#include <math.h>

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/attention.h"

#define HEAD_MAX    512u /* channels of a padded head */
#define FEW_QUERIES 8u   /* up to here a lane takes one query, so that lanes do not idle */
#define SLICE_MAX   10u  /* uvec4 of the result per invocation: 80 f32 a query */

static uint32_t slices_of(const struct attention_args *a)
{
    return (uint32_t)div_up(a->head_padded / 8, SLICE_MAX);
}

int attention_check(const union op_args *args, struct fault *f)
{
    const struct attention_args *a = &args->attention;
    uint32_t d = a->head_padded / 8;
    uint64_t rows = (uint64_t)a->batch * (a->q_tokens > a->k_tokens ? a->q_tokens : a->k_tokens);
    const struct rule rules[] = {
        {a->batch > 0 && a->heads > 0 && a->q_tokens > 0 && a->k_tokens > 0, "an empty result"},
        {a->head_dim > 0 && a->head_padded == pad8(a->head_dim),
         "head_padded is not pad8(head_dim)"},
        {a->head_padded <= HEAD_MAX, "a head of more than 512 channels"},
        {a->q_stride >= a->q_offset + a->heads * d && a->k_stride >= a->k_offset + a->heads * d &&
             a->v_stride >= a->v_offset + a->heads * d,
         "heads wider than a row"},
        {!a->causal || a->q_tokens == a->k_tokens, "causal: as many queries as keys"},
        {rows * a->q_stride <= INT32_MAX && rows * a->k_stride <= INT32_MAX &&
             rows * a->v_stride <= INT32_MAX,
         "an operand too large to index"},
    };

    return ops_check("attention", rules, ARRAY_SIZE(rules), f);
}

int attention_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                     struct dispatch *ret_dispatch, struct fault *f)
{
    const struct attention_args *a = &args->attention;
    uint32_t d8 = a->head_padded / 8, lanes = caps->is_cpu ? 8 : 32;
    uint32_t per_lane = a->q_tokens > FEW_QUERIES && caps->is_cpu ? 4 : 1;
    uint64_t rows_q = (uint64_t)a->batch * a->q_tokens, rows_k = (uint64_t)a->batch * a->k_tokens;
    struct dispatch d = {.kernel = "attention",
                         .spec_count = ATTENTION_SPEC_COUNT,
                         .push_count = ATTENTION_PUSH_COUNT};
    const struct launch_need need = {
        .op = "attention",
        .texel_uvec4 = max_u64(rows_q * a->q_stride,
                               rows_k * (a->k_stride > a->v_stride ? a->k_stride : a->v_stride)),
        .binding_bytes = rows_q * a->heads * a->head_padded * 2,
        .invocations = lanes,
    };

    d.spec[ATTENTION_SPEC_LX] = lanes;
    d.spec[ATTENTION_SPEC_TQ] = per_lane;
    d.spec[ATTENTION_SPEC_BC] = 8;
    d.spec[ATTENTION_SPEC_DV] = (uint32_t)div_up(d8, slices_of(a));
    d.spec[ATTENTION_SPEC_CAUSAL] = a->causal;
    d.push[ATTENTION_PUSH_HEADS] = a->heads;
    d.push[ATTENTION_PUSH_Q_TOKENS] = a->q_tokens;
    d.push[ATTENTION_PUSH_K_TOKENS] = a->k_tokens;
    d.push[ATTENTION_PUSH_D] = d8;
    d.push[ATTENTION_PUSH_Q_STRIDE] = a->q_stride;
    d.push[ATTENTION_PUSH_K_STRIDE] = a->k_stride;
    d.push[ATTENTION_PUSH_V_STRIDE] = a->v_stride;
    d.push[ATTENTION_PUSH_Q_OFFSET] = a->q_offset;
    d.push[ATTENTION_PUSH_K_OFFSET] = a->k_offset;
    d.push[ATTENTION_PUSH_V_OFFSET] = a->v_offset;
    d.push[ATTENTION_PUSH_SCALE] = ops_float_bits((float)((double)a->scale * M_LOG2E));
    d.groups[0] = (uint32_t)div_up(a->q_tokens, lanes * per_lane);
    d.groups[1] = a->batch * a->heads;
    d.groups[2] = slices_of(a);
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost attention_cost(const union op_args *args)
{
    const struct attention_args *a = &args->attention;
    uint64_t scores = (uint64_t)a->batch * a->heads * a->q_tokens * a->k_tokens;
    uint64_t row = (uint64_t)a->heads * a->head_padded * 2;

    return (struct op_cost){
        .macs = 2 * scores * a->head_dim,
        .macs_issued = scores * a->head_padded * (1 + slices_of(a)),
        .bytes_read = (uint64_t)a->batch * (a->q_tokens + 2ull * a->k_tokens) * row,
        .bytes_written = (uint64_t)a->batch * a->q_tokens * row,
    };
}
