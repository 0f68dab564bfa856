/* select_row — the row of a table that the step counter names. Kernel: shaders/select_row.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/select_row.h"

int select_row_check(const union op_args *args, struct fault *f)
{
    const struct rule rules[] = {
        {args->select_row.c > 0 && args->select_row.c <= 1u << 20, "c is not in 1…1048576"},
    };

    return ops_check("select_row", rules, ARRAY_SIZE(rules), f);
}

int select_row_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                      struct dispatch *ret_dispatch, struct fault *f)
{
    uint32_t v = pad8(args->select_row.c) / 8, lanes = ops_lanes(caps);
    struct dispatch d = {.kernel = "select_row",
                         .spec_count = SELECT_ROW_SPEC_COUNT,
                         .push_count = SELECT_ROW_PUSH_COUNT,
                         .groups = {(uint32_t)div_up(v, lanes), 1, 1}};
    const struct launch_need need = {
        .op = "select_row",
        .texel_uvec4 = v,
        .binding_bytes = v * 16ull,
        .invocations = lanes,
    };

    d.spec[SELECT_ROW_SPEC_LX] = lanes;
    d.push[SELECT_ROW_PUSH_V] = v;
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost select_row_cost(const union op_args *args)
{
    uint64_t bytes = pad8(args->select_row.c) * 2ull;

    return (struct op_cost){.bytes_read = bytes + 4, .bytes_written = bytes};
}
