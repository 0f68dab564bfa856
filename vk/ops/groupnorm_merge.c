/* groupnorm_merge — an invocation per group. Kernel: shaders/groupnorm_merge.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/groupnorm_merge.h"

int groupnorm_merge_check(const union op_args *args, struct fault *f)
{
    const struct groupnorm_merge_args *a = &args->groupnorm_merge;
    const struct rule rules[] = {
        {a->hw > 0 && a->pixels > 0 && a->groups > 0, "an empty tensor"},
        {a->parts == div_up(a->hw, a->pixels ? a->pixels : 1), "not as many parts as pixels take"},
        {a->row % 2 == 0 && a->row >= 2 * a->groups, "a part's row is too short"},
        {(uint64_t)a->parts * a->row <= INT32_MAX && a->hw <= INT32_MAX / 2, "too large to index"},
        {a->eps > 0, "eps must be positive"},
    };

    return ops_check("groupnorm_merge", rules, ARRAY_SIZE(rules), f);
}

int groupnorm_merge_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                           struct dispatch *ret_dispatch, struct fault *f)
{
    const struct groupnorm_merge_args *a = &args->groupnorm_merge;
    uint32_t lanes = ops_lanes(caps);
    struct dispatch d = {.kernel = "groupnorm_merge",
                         .spec_count = GROUPNORM_MERGE_SPEC_COUNT,
                         .push_count = GROUPNORM_MERGE_PUSH_COUNT,
                         .groups = {(uint32_t)div_up(a->groups, lanes), 1, 1}};
    const struct launch_need need = {
        .op = "groupnorm_merge",
        .binding_bytes = 4ull * a->parts * a->row,
        .invocations = lanes,
    };

    d.spec[GROUPNORM_MERGE_SPEC_LX] = lanes;
    d.push[GROUPNORM_MERGE_PUSH_HW] = a->hw;
    d.push[GROUPNORM_MERGE_PUSH_PIXELS] = a->pixels;
    d.push[GROUPNORM_MERGE_PUSH_PARTS] = a->parts;
    d.push[GROUPNORM_MERGE_PUSH_GROUPS] = a->groups;
    d.push[GROUPNORM_MERGE_PUSH_ROW] = a->row / 2;
    d.push[GROUPNORM_MERGE_PUSH_EPS] = ops_float_bits(a->eps);
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost groupnorm_merge_cost(const union op_args *args)
{
    const struct groupnorm_merge_args *a = &args->groupnorm_merge;

    return (struct op_cost){.bytes_read = 8ull * a->parts * a->groups,
                            .bytes_written = 8ull * a->groups};
}
