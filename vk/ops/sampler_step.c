/* sampler_step — guidance and one scheduler call in place. Kernel: shaders/sampler_step.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/sampler_step.h"
#include "vk/shaders/abi/step.h"

static uint32_t groups(const struct sampler_step_args *a)
{
    return a->is_masked ? STATE_MASKED : STATE_PLAIN;
}

int sampler_step_check(const union op_args *args, struct fault *f)
{
    const struct sampler_step_args *a = &args->sampler_step;
    const struct rule rules[] = {
        {a->batch == 1 || a->batch == 2, "batch is neither 1 nor 2"},
        {a->hw > 0 && a->c > 0, "an empty tensor"},
        {(uint64_t)a->hw * pad8(a->c) * STATE_MASKED <= INT32_MAX, "too large to index"},
    };

    return ops_check("sampler_step", rules, ARRAY_SIZE(rules), f);
}

int sampler_step_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                        struct dispatch *ret_dispatch, struct fault *f)
{
    const struct sampler_step_args *a = &args->sampler_step;
    uint32_t lanes = ops_lanes(caps);
    struct dispatch d = {.kernel = "sampler_step",
                         .spec_count = SAMPLER_STEP_SPEC_COUNT,
                         .push_count = SAMPLER_STEP_PUSH_COUNT,
                         .groups = {(uint32_t)div_up(a->hw, lanes), a->c, 1}};
    const struct launch_need need = {
        .op = "sampler_step",
        .binding_bytes =
            4ull * a->hw * max_u64((uint64_t)a->c * groups(a), (uint64_t)a->batch * pad8(a->c)),
        .invocations = lanes,
    };

    d.spec[SAMPLER_STEP_SPEC_LX] = lanes;
    d.spec[SAMPLER_STEP_SPEC_GUIDED] = a->batch == 2;
    d.spec[SAMPLER_STEP_SPEC_MASKED] = a->is_masked;
    d.push[SAMPLER_STEP_PUSH_HW] = a->hw;
    d.push[SAMPLER_STEP_PUSH_C] = a->c;
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost sampler_step_cost(const union op_args *args)
{
    const struct sampler_step_args *a = &args->sampler_step;
    uint64_t plane = 4ull * a->hw * a->c;

    return (struct op_cost){
        .bytes_read = (groups(a) - 1) * plane + 4ull * a->batch * a->hw * pad8(a->c),
        .bytes_written = (STATE_PLAIN - 1) * plane,
    };
}
