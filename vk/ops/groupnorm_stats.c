/* groupnorm_stats — a workgroup per group and batch entry. Kernel: shaders/groupnorm_stats.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/groupnorm_stats.h"

int groupnorm_stats_check(const union op_args *args, struct fault *f)
{
    const struct groupnorm_stats_args *a = &args->groupnorm_stats;
    const struct rule rules[] = {
        {a->batch > 0 && a->hw > 0 && a->c0 > 0, "an empty tensor"},
        {a->groups > 0 && (a->c0 + a->c1) % a->groups == 0, "channels do not divide into groups"},
        {(uint64_t)a->batch * a->hw * (a->c0 + a->c1) / 4 < INT32_MAX, "too large to index"},
        {a->eps > 0, "eps must be positive"},
    };

    return ops_check("groupnorm_stats", rules, ARRAY_SIZE(rules), f);
}

int groupnorm_stats_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                           struct dispatch *ret_dispatch, struct fault *f)
{
    const struct groupnorm_stats_args *a = &args->groupnorm_stats;
    struct dispatch d = {.kernel = "groupnorm_stats",
                         .spec_count = GROUPNORM_STATS_SPEC_COUNT,
                         .push_count = GROUPNORM_STATS_PUSH_COUNT,
                         .groups = {a->groups, a->batch, 1}};
    const struct launch_need need = {
        .op = "groupnorm_stats",
        .texel_uvec4 =
            (uint64_t)a->batch * a->hw * pad8(a->c0 > a->c1 ? a->c0 : a->c1) / (a->x_f32 ? 4 : 8),
        .binding_bytes = (uint64_t)a->batch * a->groups * 8,
        .invocations = ops_lanes(caps),
    };

    d.spec[GROUPNORM_STATS_SPEC_LX] = ops_lanes(caps);
    d.spec[GROUPNORM_STATS_SPEC_SOURCES] = a->c1 ? 2 : 1;
    d.spec[GROUPNORM_STATS_SPEC_X_F32] = a->x_f32;
    d.spec[GROUPNORM_STATS_SPEC_IS_PART] = a->is_part;
    d.push[GROUPNORM_STATS_PUSH_HW] = a->hw;
    d.push[GROUPNORM_STATS_PUSH_C0] = a->c0;
    d.push[GROUPNORM_STATS_PUSH_C1] = a->c1;
    d.push[GROUPNORM_STATS_PUSH_GROUPS] = a->groups;
    d.push[GROUPNORM_STATS_PUSH_EPS] = ops_float_bits(a->eps);
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost groupnorm_stats_cost(const union op_args *args)
{
    const struct groupnorm_stats_args *a = &args->groupnorm_stats;

    return (struct op_cost){
        .bytes_read = (uint64_t)a->batch * a->hw * (pad8(a->c0) + pad8(a->c1)) * (a->x_f32 ? 4 : 2),
        .bytes_written = (uint64_t)a->batch * a->groups * 8,
    };
}
