/* philox — torch's CUDA generator: the same seed draws the noise a CUDA device draws.
 *
 * Philox4x32-10, the seed as key. A draw launches 256 * blocks threads, `blocks` being what it
 * needs, at most the GPU's multiprocessors times their resident blocks of 256 threads. Thread i
 * turns the four words of counter (offset, 0, i low, i high) into four normals, for elements i,
 * i + threads, i + 2 threads, i + 3 threads; larger draws go on with offset + 1. So a draw no
 * larger than one launch is the same on every GPU, a larger one depends on the GPU model: 40,960
 * values on a T4, 125,952 on an RTX 3090, 196,608 on a 4090, 221,184 on an A100 (a 512x512 picture
 * has 16,384, 1024x1024 has 65,536). max_blocks 0 stands for a GPU that is large enough.
 *
 * Agrees with CUDA within 1e-5 (its sine and cosine are approximations). Source: pytorch
 * aten/src/ATen/native/cuda/DistributionTemplates.h, cuRAND's Philox and Box-Muller. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct philox {
    uint64_t seed;
    uint64_t offset;     /* counters every thread has used */
    uint32_t max_blocks; /* 0: as many as a draw needs */
};

void philox_init(struct philox *p, uint64_t seed, uint32_t max_blocks);

/* Elements first … first + count - 1 of one torch.randn(total) call. first + count <= total. */
void philox_normal(struct philox *p, size_t total, size_t first, float *ret_values, size_t count);
