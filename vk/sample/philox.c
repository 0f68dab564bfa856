#include "vk/sample/philox.h"

#include <math.h>

#define BLOCK_THREADS 256u
#define ROUNDS        10
#define WORDS         4u /* a counter gives, and a thread turns into normals at a time */

struct words {
    uint32_t w[WORDS];
};

/* Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3. */
static struct words philox4x32(uint64_t offset, uint64_t thread, uint64_t seed)
{
    struct words c = {
        {(uint32_t)offset, (uint32_t)(offset >> 32), (uint32_t)thread, (uint32_t)(thread >> 32)}};
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t a = (uint64_t)c.w[0] * 0xd2511f53u, b = (uint64_t)c.w[2] * 0xcd9e8d57u;
        c = (struct words){{(uint32_t)(b >> 32) ^ c.w[1] ^ key0, (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c.w[3] ^ key1, (uint32_t)a}};
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return c;
}

/* Normal `part` of a counter's four: Box and Muller of words 0 and 1, then of 2 and 3; the sine
 * first. */
static float normal(const struct words *c, uint32_t part)
{
    uint32_t x = c->w[part & 2], y = c->w[(part & 2) + 1];
    float u = (float)x * 0x1p-32f + 0x1p-33f;
    float v = ((float)y * 0x1p-32f + 0x1p-33f) * 6.2831853071795864769f;
    float radius = sqrtf(-2 * logf(u));

    return radius * (part & 1 ? cosf(v) : sinf(v));
}

void philox_init(struct philox *p, uint64_t seed, uint32_t max_blocks)
{
    *p = (struct philox){.seed = seed, .max_blocks = max_blocks};
}

void philox_normal(struct philox *p, size_t total, size_t first, float *ret_values, size_t count)
{
    uint64_t blocks = (total + BLOCK_THREADS - 1) / BLOCK_THREADS;

    if (total == 0)
        return;
    if (p->max_blocks && blocks > p->max_blocks)
        blocks = p->max_blocks;
    uint64_t threads = blocks * BLOCK_THREADS, stride = threads * WORDS;
    for (size_t k = 0; k < count; k++) {
        uint64_t i = first + k;
        struct words c = philox4x32(p->offset + i / stride, i % threads, p->seed);
        ret_values[k] = normal(&c, (uint32_t)(i / threads % WORDS));
    }
    p->offset += (total - 1) / stride + 1;
}
