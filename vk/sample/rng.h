/* rng — torch's CPU generator: the same seed draws the same noise.
 *
 * mt19937 seeded with the low 32 bits. rng_normal() is one torch.randn(n) call: n >= 16 fills with
 * 24-bit uniforms and transforms blocks of 16 (the last 16 redrawn when n % 16 != 0); smaller n go
 * value by value in double precision, the sine half kept for the next call. Agrees with torch
 * within 2e-6 (torch's own builds differ among each other by that much). Source: pytorch
 * aten/src/ATen/native/cpu/ DistributionTemplates.h, core/DistributionsHelper.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng {
    uint32_t state[624];
    uint32_t next;
    bool has_cached;
    double cached; /* the second normal of the last scalar pair */
};

void rng_init(struct rng *rng, uint64_t seed);
void rng_normal(struct rng *rng, float *ret_values, size_t n);

/* Elements first … first + count - 1 of rng_normal(total), the generator moved on by all of it.
 * first + count <= total. */
void rng_normal_part(struct rng *rng, size_t total, size_t first, float *ret_values, size_t count);
