/* latent_in — latents into the layout a convolution reads. Kernel: shaders/latent_in.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/latent_in.h"

/* Channels a row has, and planes x is read to. */
static uint32_t channels(const struct latent_in_args *a)
{
    return a->c + a->extra;
}

static uint32_t planes(const struct latent_in_args *a)
{
    return a->extra ? a->extra_at + a->extra : a->c;
}

int latent_in_check(const union op_args *args, struct fault *f)
{
    const struct latent_in_args *a = &args->latent_in;
    const struct rule rules[] = {
        {a->batch > 0 && a->hw > 0 && a->c > 0, "an empty tensor"},
        {a->extra == 0 || a->extra_at >= a->c, "extra planes inside the latents"},
        {(uint64_t)a->batch * a->hw * pad8(a->c + a->extra) <= INT32_MAX, "too large to index"},
        {(uint64_t)a->hw * ((uint64_t)a->extra_at + a->extra) <= INT32_MAX, "too large to index"},
    };

    return ops_check("latent_in", rules, ARRAY_SIZE(rules), f);
}

int latent_in_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                     struct dispatch *ret_dispatch, struct fault *f)
{
    const struct latent_in_args *a = &args->latent_in;
    uint32_t lanes = ops_lanes(caps);
    struct dispatch d = {.kernel = "latent_in",
                         .spec_count = LATENT_IN_SPEC_COUNT,
                         .push_count = LATENT_IN_PUSH_COUNT,
                         .groups = {(uint32_t)div_up(a->hw, lanes), pad8(channels(a)) / 8, 1}};
    const struct launch_need need = {
        .op = "latent_in",
        .binding_bytes =
            max_u64((uint64_t)a->batch * pad8(channels(a)) * 2, planes(a) * 4ull) * a->hw,
        .invocations = lanes,
    };

    d.spec[LATENT_IN_SPEC_LX] = lanes;
    d.spec[LATENT_IN_SPEC_BY_STEP] = a->by_step;
    d.push[LATENT_IN_PUSH_HW] = a->hw;
    d.push[LATENT_IN_PUSH_C] = a->c;
    d.push[LATENT_IN_PUSH_BATCH] = a->batch;
    d.push[LATENT_IN_PUSH_SCALE] = ops_float_bits(a->scale);
    d.push[LATENT_IN_PUSH_EXTRA] = a->extra;
    d.push[LATENT_IN_PUSH_AT] = a->extra_at;
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost latent_in_cost(const union op_args *args)
{
    const struct latent_in_args *a = &args->latent_in;

    return (struct op_cost){
        .bytes_read = 4ull * channels(a) * a->hw,
        .bytes_written = (uint64_t)a->batch * a->hw * pad8(channels(a)) * 2,
    };
}
