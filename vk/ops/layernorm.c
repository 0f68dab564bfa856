/* layernorm — a lane per row on a CPU, lanes along the row on a GPU. Kernel:
 * shaders/layernorm.comp. */
#include "vk/ops/ops-private.h"

#include "vk/base/cleanup.h"
#include "vk/shaders/abi/layernorm.h"

int layernorm_check(const union op_args *args, struct fault *f)
{
    const struct layernorm_args *a = &args->layernorm;
    const struct rule rules[] = {
        {a->rows > 0 && a->c > 0, "an empty tensor"},
        {(uint64_t)a->rows * pad8(a->c) / 4 <= INT32_MAX, "too large to index"},
        {a->eps > 0, "eps must be positive"},
    };

    return ops_check("layernorm", rules, ARRAY_SIZE(rules), f);
}

int layernorm_choose(const struct caps *caps, const union op_args *args, bool texel_ok,
                     struct dispatch *ret_dispatch, struct fault *f)
{
    const struct layernorm_args *a = &args->layernorm;
    uint32_t lx = caps->is_cpu ? 1 : 32, ly = caps->is_cpu ? 8 : 2;
    uint64_t texels = (uint64_t)a->rows * pad8(a->c) / 8;
    struct dispatch d = {.kernel = "layernorm",
                         .spec_count = LAYERNORM_SPEC_COUNT,
                         .push_count = LAYERNORM_PUSH_COUNT,
                         .groups = {1, 1, 1}};
    const struct launch_need need = {
        .op = "layernorm",
        .texel_uvec4 = texels * (a->x_f32 ? 2 : 1),
        .binding_bytes = texels * (a->f32_out ? 32 : 16),
        .invocations = lx * ly,
    };

    d.spec[LAYERNORM_SPEC_LX] = lx;
    d.spec[LAYERNORM_SPEC_LY] = ly;
    d.spec[LAYERNORM_SPEC_F32_OUT] = a->f32_out;
    d.spec[LAYERNORM_SPEC_X_F32] = a->x_f32;
    d.push[LAYERNORM_PUSH_ROWS] = a->rows;
    d.push[LAYERNORM_PUSH_C] = a->c;
    d.push[LAYERNORM_PUSH_EPS] = ops_float_bits(a->eps);
    ops_fold(caps, div_up(a->rows, ly), 1, d.groups);
    int r = ops_settle(caps, &need, texel_ok, &d, f);
    if (r < 0)
        return r;
    *ret_dispatch = d;
    return 0;
}

struct op_cost layernorm_cost(const union op_args *args)
{
    const struct layernorm_args *a = &args->layernorm;
    uint64_t elements = (uint64_t)a->rows * pad8(a->c);

    return (struct op_cost){
        .bytes_read = elements * (a->x_f32 ? 4 : 2) + 8ull * a->c,
        .bytes_written = elements * (a->f32_out ? 4 : 2),
    };
}
