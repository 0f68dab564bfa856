/* groupnorm_apply — 8 channels per invocation, walking down pixels. Kernel:
 * shaders/groupnorm_apply.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/groupnorm_apply.h"

/* Pixels per invocation: enough to pay for the 8 means, gains and shifts read first. */
#define PIXELS_CPU 32u
#define PIXELS_GPU 8u

static uint32_t row_of(const struct groupnorm_apply_args *a)
{
    return (pad8(a->c0) + pad8(a->c1)) / 8;
}

int groupnorm_apply_check(const union op_args *args, struct fault *f)
{
    const struct groupnorm_apply_args *a = &args->groupnorm_apply;
    const struct rule rules[] = {
        {a->batch > 0 && a->hw > 0 && a->c0 > 0, "an empty tensor"},
        {a->groups > 0 && (a->c0 + a->c1) % a->groups == 0, "channels do not divide into groups"},
        {(uint64_t)a->batch * a->hw * row_of(a) <= INT32_MAX / 2, "too large to index"},
    };

    return ops_check("groupnorm_apply", rules, ARRAY_SIZE(rules), f);
}

int groupnorm_apply_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                           struct dispatch *ret_dispatch, struct fault *f)
{
    const struct groupnorm_apply_args *a = &args->groupnorm_apply;
    uint32_t lanes = ops_lanes(caps), pixels = caps->is_cpu ? PIXELS_CPU : PIXELS_GPU;
    struct dispatch d = {.kernel = "groupnorm_apply",
                         .spec_count = GROUPNORM_APPLY_SPEC_COUNT,
                         .push_count = GROUPNORM_APPLY_PUSH_COUNT};
    const struct launch_need need = {
        .op = "groupnorm_apply",
        .texel_uvec4 =
            (uint64_t)a->batch * a->hw * pad8(a->c0 > a->c1 ? a->c0 : a->c1) / (a->x_f32 ? 4 : 8),
        .binding_bytes = (uint64_t)a->batch * a->hw * row_of(a) * 16,
        .invocations = lanes,
    };

    while (div_up(a->hw, pixels) > caps->max_groups[1])
        pixels *= 2;
    d.spec[GROUPNORM_APPLY_SPEC_LX] = lanes;
    d.spec[GROUPNORM_APPLY_SPEC_SOURCES] = a->c1 ? 2 : 1;
    d.spec[GROUPNORM_APPLY_SPEC_X_F32] = a->x_f32;
    d.spec[GROUPNORM_APPLY_SPEC_SILU] = a->silu;
    d.push[GROUPNORM_APPLY_PUSH_HW] = a->hw;
    d.push[GROUPNORM_APPLY_PUSH_C0] = a->c0;
    d.push[GROUPNORM_APPLY_PUSH_C1] = a->c1;
    d.push[GROUPNORM_APPLY_PUSH_GROUPS] = a->groups;
    d.push[GROUPNORM_APPLY_PUSH_PIXELS] = pixels;
    d.groups[0] = (uint32_t)div_up(row_of(a), lanes);
    d.groups[1] = (uint32_t)div_up(a->hw, pixels);
    d.groups[2] = a->batch;
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost groupnorm_apply_cost(const union op_args *args)
{
    const struct groupnorm_apply_args *a = &args->groupnorm_apply;
    uint64_t bytes = (uint64_t)a->batch * a->hw * row_of(a) * 16;

    return (struct op_cost){
        .bytes_read = (a->x_f32 ? 2 : 1) * bytes + (uint64_t)a->batch * a->groups * 8 +
                      8ull * (a->c0 + a->c1),
        .bytes_written = bytes,
    };
}
