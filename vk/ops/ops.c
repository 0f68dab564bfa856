/* ops — the table of operators, and decisions all of them take alike. */
#include "vk/ops/op.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/ops/ops-private.h"

/* Views smaller than this (SwiftShader: 65,536 texels) hold too few tensors for a variant of their
 * own. */
#define TEXELS_WORTH_IT (1u << 20)

/* Slots read and written, op.h. */
enum {
    READS_gemm = SLOT(0) | SLOT(1) | SLOT(2) | SLOT(3) | SLOT(4) | SLOT(5),
    READS_attention = SLOT(0) | SLOT(1) | SLOT(2),
    READS_groupnorm_stats = SLOT(0) | SLOT(1),
    READS_groupnorm_merge = SLOT(4),
    READS_groupnorm_apply = SLOT(0) | SLOT(1) | SLOT(4) | SLOT(5) | SLOT(6),
    READS_layernorm = SLOT(0) | SLOT(5) | SLOT(6),
    READS_embed = SLOT(0) | SLOT(1) | SLOT(2) | SLOT(4),
    READS_select_row = SLOT(0) | SLOT(4),
    READS_latent_in = SLOT(4) | SLOT(5) | SLOT(6),
    READS_sampler_step = SLOT(4) | SLOT(5) | SLOT(6) | SLOT(7),
    READS_advance = SLOT(7),
};

const struct op ops[OP_KIND_COUNT] = {
#define OP(op)                                                                                     \
    [OP_##op] = {.name = #op,                                                                      \
                 .reads = READS_##op,                                                              \
                 .writes = SLOT(OP_OUT),                                                           \
                 .check = op##_check,                                                              \
                 .choose = op##_choose,                                                            \
                 .cost = op##_cost},
#include "vk/ops/ops.def"
#undef OP
};

int ops_check(const char *op, const struct rule *rules, size_t count, struct fault *f)
{
    for (size_t i = 0; i < count; i++) {
        if (!rules[i].is_met)
            return fault_set(f, -EINVAL, "%s: %s", op, rules[i].text);
    }
    return 0;
}

static int check_grid(const struct caps *caps, const char *op, const struct dispatch *d,
                      struct fault *f)
{
    for (int i = 0; i < 3; i++) {
        if (d->groups[i] > caps->max_groups[i])
            return fault_set(f, -EFBIG, "%s: %u workgroups along %c, the device takes %u", op,
                             d->groups[i], "xyz"[i], caps -> max_groups[i]);
    }
    return 0;
}

int ops_settle(const struct caps *caps, const struct launch_need *need, bool texel_ok,
               struct dispatch *d, struct fault *f)
{
    bool fits_texels = texel_ok && need->texel_uvec4 <= caps->max_texels;
    bool fits_binding = need->texel_uvec4 * 16 <= caps->max_binding;
    bool wants_texels = caps->is_cpu && caps->max_texels >= TEXELS_WORTH_IT;

    if (!fits_texels && !fits_binding)
        return fault_set(f, -EFBIG, "%s: an operand of %" PRIu64 " bytes fits no binding", need->op,
                         need->texel_uvec4 * 16);
    if (need->binding_bytes > caps->max_binding)
        return fault_set(f, -EFBIG,
                         "%s: an operand of %" PRIu64 " bytes, the device binds %" PRIu64, need->op,
                         need->binding_bytes, caps->max_binding);
    if (need->invocations > caps->max_invocations)
        return fault_set(f, -EFBIG, "%s: workgroups of %u, the device takes %u", need->op,
                         need->invocations, caps->max_invocations);
    d->texel = need->texel_uvec4 > 0 && fits_texels && (wants_texels || !fits_binding);
    return check_grid(caps, need->op, d, f);
}

uint32_t ops_lanes(const struct caps *caps)
{
    return caps->is_cpu ? 8 : 64;
}

void ops_fold(const struct caps *caps, uint64_t count, int other, uint32_t ret_groups[3])
{
    uint64_t folds = div_up(count, caps->max_groups[0]);

    ret_groups[0] = (uint32_t)div_up(count, folds ? folds : 1);
    ret_groups[other] = (uint32_t)(folds < UINT32_MAX ? folds : UINT32_MAX);
}

uint32_t ops_float_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}
