/* advance — the step counter moves on. Kernel: shaders/advance.comp. */
#include "vk/ops/ops-private.h"

int advance_check(const union op_args *args, struct fault *f)
{
    (void)args;
    (void)f;
    return 0;
}

int advance_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                   struct dispatch *ret_dispatch, struct fault *f)
{
    (void)caps;
    (void)args;
    (void)texel_ok;
    (void)f;
    *ret_dispatch =
        (struct dispatch){.kernel = "advance", .push_count = OP_TEXEL_SLOTS, .groups = {1, 1, 1}};
    return 0;
}

struct op_cost advance_cost(const union op_args *args)
{
    (void)args;
    return (struct op_cost){.bytes_read = 4, .bytes_written = 4};
}
