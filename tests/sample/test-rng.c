/* rng: torch.randn of the CPU generator, within the 2e-6 by which torch's own builds differ. */
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
#include "vk/sample/rng.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_printed_values),
        cmocka_unit_test(test_golden_draws),
        cmocka_unit_test(test_low_32_bits_of_the_seed),
        cmocka_unit_test(test_small_draws_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
