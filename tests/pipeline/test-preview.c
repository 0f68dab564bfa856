/* preview: a fit finds the map that made the colours, stays sane where little or nothing is known,
 * and is applied as it says; probes are smooth, normal and always the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vk/base/cleanup.h"
#include "vk/base/sha256.h"
#include "vk/pipeline/preview.h"

#define H      24u
#define W      40u
#define FACTOR 4u

/* Latents of up to about 3 stay inside 0…1. */
static const struct preview_map truth = {
    .weights = {{.1f, .02f, -.05f, 0}, {-.03f, .08f, .01f, .04f}, {.02f, -.06f, .03f, -.09f}},
    .bias = {.5f, .45f, .55f},
};

/* What a decoder that is linear would make of the latents, with detail that averages out. */
static float *decode(const float *latents, uint32_t height, uint32_t width)
{
    size_t plane = (size_t)height * width;
    float *rgb = malloc(plane * FACTOR * FACTOR * 3 * sizeof *rgb), *p = rgb;

    assert_non_null(rgb);
    for (uint32_t y = 0; y < height * FACTOR; y++)
        for (uint32_t x = 0; x < width * FACTOR; x++)
            for (size_t c = 0; c < 3; c++) {
                float detail = (x ^ y) & 1 ? .02f : -.02f;
                *p = truth.bias[c] + detail;
                for (size_t k = 0; k < PREVIEW_CHANNELS; k++)
                    *p +=
                        truth.weights[c][k] * latents[k * plane + y / FACTOR * width + x / FACTOR];
                p++;
            }
    return rgb;
}

static void check_map(const struct preview_map *map, const struct preview_map *want)
{
    for (size_t c = 0; c < 3; c++) {
        assert_true(fabsf(map->bias[c] - want->bias[c]) < 1e-4f);
        for (size_t k = 0; k < PREVIEW_CHANNELS; k++)
            assert_true(fabsf(map->weights[c][k] - want->weights[c][k]) < 1e-4f);
    }
}

static void add(struct preview_fit *fit, const float *latents, uint32_t height, uint32_t width)
{
    _cleanup_(freep) float *rgb = decode(latents, height, width);

    preview_fit_add(fit, latents, height, width, FACTOR, rgb);
}

static void test_fit(void **state)
{
    static float latents[PREVIEW_CHANNELS * H * W];
    struct preview_fit fit = {0};
    struct preview_map map;

    (void)state;
    preview_probe(H, W, latents);
    add(&fit, latents, H, W);
    preview_fit_solve(&fit, &map);
    check_map(&map, &truth);
    preview_probe(8, 8, latents); /* another size adds to it */
    add(&fit, latents, 8, 8);
    preview_fit_solve(&fit, &map);
    check_map(&map, &truth);
}

/* One latent, latents all alike, two channels that are the same: no number explodes. */
static void test_little(void **state)
{
    static const float same[PREVIEW_CHANNELS * 4] = {1, 1, 1, 1, .5, .5, .5, .5, 2, 2, 2, 2};
    static float latents[PREVIEW_CHANNELS * H * W];
    struct preview_fit fit = {0};
    struct preview_map map;
    uint8_t rgb[12], *pixel = rgb;

    (void)state;
    preview_fit_solve(&fit, &map);
    for (size_t c = 0; c < 3; c++)
        assert_true(map.bias[c] == 0 && map.weights[c][0] == 0);
    add(&fit, same, 2, 2);
    preview_fit_solve(&fit, &map);
    preview_apply(&map, same, 2, 2, rgb);
    for (size_t c = 0; c < 3; c++) {
        float want = truth.bias[c];
        for (size_t k = 0; k < PREVIEW_CHANNELS; k++)
            want += truth.weights[c][k] * same[4 * k];
        assert_true(fabsf(pixel[c] - 255 * want) < 1);
    }
    preview_probe(H, W, latents);
    memcpy(latents + H * W, latents, H * W * sizeof *latents);
    fit = (struct preview_fit){0};
    add(&fit, latents, H, W);
    preview_fit_solve(&fit, &map);
    for (size_t c = 0; c < 3; c++) {
        assert_true(fabsf(map.weights[c][0] + map.weights[c][1] - truth.weights[c][0] -
                          truth.weights[c][1]) < 1e-4f);
        assert_true(fabsf(map.weights[c][0]) < 1);
    }
}

static void test_apply(void **state)
{
    static const struct preview_map map = {.weights = {{1}, {0, 1}, {0, 0, 1, 1}},
                                           .bias = {0, .5f, -.25f}};
    const float latents[PREVIEW_CHANNELS * 3] = {0, .5f, 2, 0, -1, .25f, NAN, 0, .5f, 0, .25f, .5f};
    static const uint8_t want[] = {0, 0, 0, 128, 0, 0, 255, 191, 191};
    uint8_t rgb[9], large[9 * 4];

    (void)state;
    preview_apply(&map, latents, 1, 3, rgb);
    assert_memory_equal(rgb, want, sizeof want);
    memset(rgb, 77, sizeof rgb);
    assert_int_equal(preview_enlarge(rgb, 1, 3, 2, large), 0);
    for (size_t i = 0; i < sizeof large; i++)
        assert_int_equal(large[i], 77);
}

static void test_probe(void **state)
{
    enum { N = 96 };
    static float latents[PREVIEW_CHANNELS * N * N];
    char sum[SHA256_HEX_SIZE];

    (void)state;
    preview_probe(N, N, latents);
    for (size_t c = 0; c < PREVIEW_CHANNELS; c++) {
        double mean = 0, square = 0, step = 0;
        const float *plane = latents + c * N * N;
        for (size_t i = 0; i < N * N; i++) {
            mean += plane[i] / (N * N);
            square += (double)plane[i] * plane[i] / (N * N);
            step = i % N ? fmax(step, fabs((double)plane[i] - plane[i - 1])) : step;
        }
        assert_true(fabs(mean) < .15);
        assert_true(square > .3 && square < .8); /* lines between points: 1, halves and quarters */
        assert_true(step < 2);
    }
    sha256_hex(latents, sizeof latents, sum);
    assert_string_equal(sum, "e99735b2de3d06cc9ce81f724e708706100d1cde9b7c8b74cc2eae3277966cda");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_little),
        cmocka_unit_test(test_apply),
        cmocka_unit_test(test_probe),
    };

    return cmocka_run_group_tests_name("preview", tests, NULL, NULL);
}
