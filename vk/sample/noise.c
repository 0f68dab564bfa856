#include "vk/sample/noise.h"

void noise_init(struct noise *noise, enum noise_kind kind, uint64_t seed)
{
    noise->kind = kind;
    rng_init(&noise->rng, seed);
    philox_init(&noise->philox, seed, 0);
}

void noise_normal(struct noise *noise, float *ret_values, size_t n)
{
    noise_part(noise, n, 0, ret_values, n);
}

void noise_part(struct noise *noise, size_t total, size_t first, float *ret_values, size_t count)
{
    if (noise->kind == NOISE_CUDA)
        philox_normal(&noise->philox, total, first, ret_values, count);
    else
        rng_normal_part(&noise->rng, total, first, ret_values, count);
}
