/* rng, philox, noise: torch.randn of the CPU generator, within the 2e-6 by which torch's own builds
 * differ, and of the CUDA generator, within 1e-5. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/golden.h"
#include "tests/support/sched_walk.h"
#include "vk/base/cleanup.h"
#include "vk/sample/noise.h"

#define TOLERANCE 2e-6f
#define DRAW_MAX  16384

static void check_values(const char *name, const float *got, const float *want, size_t n,
                         float tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= tolerance))
            fail_msg("%s: value %zu is %.8g, want %.8g", name, i, (double)got[i], (double)want[i]);
}

/* torch 1.12's own printed values. */
static void test_printed_values(void **state)
{
    static const float twenty[] = {-1.1258f, -1.1524f, -.2506f, -.4339f, .5988f,  -1.5551f, -.3414f,
                                   1.8530f,  .4681f,   -.1577f, 1.4437f, .2660f,  1.3894f,  1.5863f,
                                   .9463f,   -.8437f,  .9318f,  1.2590f, 2.0050f, .0537f};
    static const float six[] = {1.5410f, -.2934f, -2.1788f, .5684f, -1.0845f, -1.3986f};
    static const float forty_two[] = {1.9269f, 1.4873f,  .9007f,  -2.1055f,
                                      .6784f,  -1.2345f, -.0431f, -1.6047f};
    static float values[DRAW_MAX];
    struct rng rng;

    (void)state;
    rng_init(&rng, 0);
    rng_normal(&rng, values, 20);
    check_values("seed 0, n 20", values, twenty, 20, 6e-5f);
    rng_init(&rng, 0);
    rng_normal(&rng, values, 6);
    check_values("seed 0, n 6", values, six, 6, 6e-5f);
    rng_init(&rng, 42);
    rng_normal(&rng, values, DRAW_MAX);
    check_values("seed 42", values, forty_two, 8, 6e-5f);
}

/* Names are seed.S.n.N, with .first or .last when only an end of the draw is stored. */
static void test_golden_draws(void **state)
{
    struct golden *g = golden_open("tests/golden/rng.safetensors");
    static float values[DRAW_MAX];

    (void)state;
    assert_non_null(g);
    assert_true(golden_count(g) >= 18);
    for (size_t i = 0; i < golden_count(g); i++) {
        const struct golden_tensor *t = golden_at(g, i);
        unsigned long seed;
        unsigned n;
        char end[16] = "";
        struct rng rng;
        assert_true(sscanf(t->name, "seed.%lu.n.%u.%15s", &seed, &n, end) >= 2);
        assert_true(n <= DRAW_MAX);
        rng_init(&rng, seed);
        rng_normal(&rng, values, n);
        check_values(t->name, strcmp(end, "last") == 0 ? values + n - t->count : values, t->f32,
                     t->count, TOLERANCE);
    }
    golden_free(g);
}

static void test_low_32_bits_of_the_seed(void **state)
{
    struct rng a, b;

    (void)state;
    rng_init(&a, 7);
    rng_init(&b, 7 + ((uint64_t)1 << 32));
    assert_memory_equal(a.state, b.state, sizeof a.state);
}

/* Three draws of one and one of three are the same: the sine half waits for the next call. */
static void test_small_draws_go_on(void **state)
{
    struct rng a, b;
    float one[3], three[3];

    (void)state;
    rng_init(&a, 5);
    rng_init(&b, 5);
    rng_normal(&a, three, 3);
    for (int i = 0; i < 3; i++)
        rng_normal(&b, one + i, 1);
    assert_memory_equal(one, three, sizeof one);
}

/* --- CUDA ------------------------------------------------------------------------------------- */

/* Printed by torch on a CUDA device; the second draw goes on where the first ended. */
static void test_cuda_values(void **state)
{
    static const float zero[] = {-.92466f, -.42534f, -2.64385f, .14518f,
                                 -.12087f, -.57973f, -.62285f,  -.32839f};
    static const float second[] = {.1808f, -.5523f, .9238f, -.7350f};
    static const float forty_two[] = {.1940f,   2.1614f, -.1721f, .8491f,
                                      -1.9244f, .6530f,  -.6494f, -.8175f};
    static float values[DRAW_MAX];
    struct noise noise;

    (void)state;
    noise_init(&noise, NOISE_CUDA, 0);
    noise_normal(&noise, values, DRAW_MAX);
    check_values("CUDA, seed 0", values, zero, 8, 6e-6f);
    noise_normal(&noise, values, 4);
    check_values("CUDA, seed 0, second", values, second, 4, 6e-5f);
    noise_init(&noise, NOISE_CUDA, 42);
    noise_normal(&noise, values, 8);
    check_values("CUDA, seed 42", values, forty_two, 8, 6e-5f);
}

/* A small GPU's threads take four elements each, in strides; the first are as on a large one. */
static void test_cuda_strides(void **state)
{
    enum { BLOCKS = 2, THREADS = BLOCKS * 256, N = 4 * THREADS + 100 };
    static float large[N], small[N], next[8], expected[8];
    struct philox p;

    (void)state;
    philox_init(&p, 7, 0);
    philox_normal(&p, N, 0, large, N);
    assert_int_equal(p.offset, 1);
    philox_init(&p, 7, BLOCKS);
    philox_normal(&p, N, 0, small, N);
    assert_int_equal(p.offset, 2);
    assert_memory_equal(small, large, THREADS * sizeof *small);
    for (size_t i = 0; i < THREADS; i++) /* sine and cosine share a radius: not the same numbers */
        assert_true(small[THREADS + i] != large[THREADS + i]);
    philox_normal(&p, 8, 0, next, 8);
    philox_init(&p, 7, 0);
    for (int i = 0; i < 3; i++) /* the fifth stride is the second counter of the first threads */
        philox_normal(&p, 100, 0, i == 1 ? large : expected, i == 1 ? 100 : 8);
    assert_memory_equal(small + 4 * THREADS, large, 100 * sizeof *large);
    assert_memory_equal(next, expected, sizeof next);
}

/* diffusers' own test of Euler-a on a CUDA device: 10 steps of the made-up model. */
static void test_cuda_euler_a(void **state)
{
    static struct walk w;
    struct sched_config config = sched_config_default();
    struct sched_spec spec = {.sched = SCHED_EULER_A, .steps = 10};
    struct sched_table table;
    struct noise noise;

    (void)state;
    config.train_steps = 1100;
    config.beta_start = 0.0001;
    config.beta_end = 0.02;
    config.beta_schedule = SCHED_BETA_LINEAR;
    assert_int_equal(sched_make(&spec, &config, &table, NULL), 0);
    noise_init(&noise, NOISE_CUDA, 0);
    walk_start(&w, table.init_noise_sigma);
    w.is_fed_scaled = true;
    for (uint32_t k = 0; k < table.count; k++) {
        if (table.rows[k].noise_scale != 0)
            noise_normal(&noise, w.noise, WALK_SAMPLE);
        walk_call(&w, &table.rows[k]);
    }
    sched_table_done(&table);
    if (!(fabs(walk_sum(&w) - 144.8084) <= 1e-2))
        fail_msg("the sum is %.7g, want 144.8084", walk_sum(&w));
}

/* --- parts ------------------------------------------------------------------------------------ */

/* Any part of a draw is what the whole draw has there, and leaves the generator where it does. */
static void test_parts(void **state)
{
    static const size_t totals[] = {1, 7, 15, 16, 17, 40, 64, 77, 300};
    float whole[300], part[300], next[2];

    (void)state;
    for (int kind = NOISE_CPU; kind <= NOISE_CUDA; kind++) {
        for (size_t t = 0; t < ARRAY_SIZE(totals); t++) {
            size_t n = totals[t];
            for (size_t first = 0; first < n; first += n / 5 + 1) {
                size_t count = n - first < 11 ? n - first : 11;
                struct noise a, b;
                noise_init(&a, kind, 3);
                noise_init(&b, kind, 3);
                noise_normal(&a, whole, n);
                noise_part(&b, n, first, part, count);
                assert_memory_equal(part, whole + first, count * sizeof *part);
                noise_normal(&a, next, 1);
                noise_normal(&b, next + 1, 1);
                assert_true(next[0] == next[1]);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printed_values),
        cmocka_unit_test(test_golden_draws),
        cmocka_unit_test(test_low_32_bits_of_the_seed),
        cmocka_unit_test(test_small_draws_go_on),
        cmocka_unit_test(test_cuda_values),
        cmocka_unit_test(test_cuda_strides),
        cmocka_unit_test(test_cuda_euler_a),
        cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
