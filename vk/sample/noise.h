/* noise — the random numbers of a job: torch's CPU or CUDA generator behind one face. */
#pragma once

#include "vk/sample/philox.h"
#include "vk/sample/rng.h"

/* In the order of the words of the request's row `rng`. */
enum noise_kind {
    NOISE_CPU,
    NOISE_CUDA,
};

struct noise {
    enum noise_kind kind;
    struct rng rng;
    struct philox philox;
};

/* The CPU generator takes the seed's low 32 bits, CUDA's all 64. */
void noise_init(struct noise *noise, enum noise_kind kind, uint64_t seed);

/* One torch.randn(n) call. */
void noise_normal(struct noise *noise, float *ret_values, size_t n);

/* Elements first … first + count - 1 of one torch.randn(total) call, without room for the others:
 * one picture's part of a draw for a batch. first + count <= total. */
void noise_part(struct noise *noise, size_t total, size_t first, float *ret_values, size_t count);
