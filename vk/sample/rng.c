#include "vk/sample/rng.h"

#include <math.h>

#define STATE_WORDS 624u
#define SHIFT_WORDS 397u
#define BLOCK       16u /* torch's vectorised path works on blocks of 16 */

static const double two_pi = 6.283185307179586476925;

void rng_init(struct rng *rng, uint64_t seed)
{
    uint32_t x = (uint32_t)seed;

    rng->state[0] = x;
    for (uint32_t i = 1; i < STATE_WORDS; i++) {
        x = 1812433253u * (x ^ x >> 30) + i;
        rng->state[i] = x;
    }
    rng->next = STATE_WORDS;
    rng->has_cached = false;
    rng->cached = 0;
}

/* mt19937's recurrence over the whole state. Source: Matsumoto and Nishimura 1998. */
static void twist(struct rng *rng)
{
    for (uint32_t i = 0; i < STATE_WORDS; i++) {
        uint32_t y =
            (rng->state[i] & 0x80000000u) | (rng->state[(i + 1) % STATE_WORDS] & 0x7fffffffu);
        rng->state[i] =
            rng->state[(i + SHIFT_WORDS) % STATE_WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    rng->next = 0;
}

static uint32_t draw32(struct rng *rng)
{
    if (rng->next == STATE_WORDS)
        twist(rng);
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* 24 bits, 0 included, 1 excluded. */
static float uniform_float(struct rng *rng)
{
    return (float)(draw32(rng) & 0xffffffu) * 0x1p-24f;
}

/* 53 bits of two draws, the first one high. */
static double uniform_double(struct rng *rng)
{
    uint64_t high = draw32(rng);

    return (double)((high << 32 | draw32(rng)) & 0x1fffffffffffffull) * 0x1p-53;
}

/* Box and Muller: radius from the first eight of a block, angle from the last eight. */
static void transform_block(float *block)
{
    for (size_t i = 0; i < BLOCK / 2; i++) {
        float u1 = 1 - block[i], u2 = block[i + BLOCK / 2];
        float radius = sqrtf(-2 * logf(u1)), angle = (float)two_pi * u2;
        block[i] = radius * cosf(angle);
        block[i + BLOCK / 2] = radius * sinf(angle);
    }
}

static double draw_scalar(struct rng *rng)
{
    if (rng->has_cached) {
        rng->has_cached = false;
        return rng->cached;
    }
    double u1 = uniform_double(rng), u2 = uniform_double(rng);
    double radius = sqrt(-2 * log1p(-u2)), angle = two_pi * u1;
    rng->cached = radius * sin(angle);
    rng->has_cached = true;
    return radius * cos(angle);
}

/* What a caller wants of a draw. */
struct part {
    float *values;
    size_t first, count;
};

/* The next 16 uniforms as normals, to where elements at … at + 15 go. Blocks nobody wants only move
 * the generator on. */
static void draw_block(struct rng *rng, size_t at, const struct part *part)
{
    float block[BLOCK];
    size_t end = part->first + part->count;

    for (size_t i = 0; i < BLOCK; i++)
        block[i] = uniform_float(rng);
    if (at >= end || at + BLOCK <= part->first)
        return;
    transform_block(block);
    for (size_t i = 0; i < BLOCK; i++) {
        if (at + i >= part->first && at + i < end)
            part->values[at + i - part->first] = block[i];
    }
}

static void draw_few(struct rng *rng, size_t total, const struct part *part)
{
    for (size_t i = 0; i < total; i++) {
        float value = (float)draw_scalar(rng);
        if (i >= part->first && i < part->first + part->count)
            part->values[i - part->first] = value;
    }
}

void rng_normal_part(struct rng *rng, size_t total, size_t first, float *ret_values, size_t count)
{
    const struct part part = {.values = ret_values, .first = first, .count = count};
    size_t at = 0;

    if (total < BLOCK) {
        draw_few(rng, total, &part);
        return;
    }
    for (; at + BLOCK <= total; at += BLOCK)
        draw_block(rng, at, &part);
    if (at == total)
        return;
    for (; at < total; at++) /* drawn, then drawn over: */
        (void)draw32(rng);
    draw_block(rng, total - BLOCK, &part); /* the last 16 anew */
}

void rng_normal(struct rng *rng, float *ret_values, size_t n)
{
    rng_normal_part(rng, n, 0, ret_values, n);
}
