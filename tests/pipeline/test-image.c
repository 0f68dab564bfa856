/* image, resample: bytes and floats equal those of Pillow and of diffusers' own functions, for the
 * cases of tests/golden/pictures/; windows, limits and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/made_picture.h"
#include "vk/base/cleanup.h"
#include "vk/base/sha256.h"
#include "vk/pipeline/image.h"
#include "vk/pipeline/resample.h"

#define FOLDER "tests/golden/pictures/"
#define HEX    "64[0-9a-f]"

static const char *const filters[] = {"nearest", "bicubic", "lanczos"};
static const char *const fits[] = {"stretch", "cover", "contain"};

static unsigned index_of(const char *name, const char *const *names)
{
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    fail_msg("unknown name %s", name);
    return 0;
}

static FILE *open_golden(const char *name)
{
    char path[128];

    (void)snprintf(path, sizeof path, FOLDER "%s.txt", name);
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("%s: cannot open", path);
    return file;
}

static void check_sum(const void *data, size_t size, const char *want, const char *line,
                      const char *what)
{
    char sum[SHA256_HEX_SIZE];

    sha256_hex(data, size, sum);
    if (strcmp(sum, want) != 0)
        fail_msg("%s differs: %s", what, line);
}

/* --- resample --------------------------------------------------------------------------------- */

static void test_resize(void **state)
{
    char line[512], filter[16], kind[16], sum[SHA256_HEX_SIZE];
    unsigned channels, w, h, W, H, count = 0;
    _cleanup_(fclosep) FILE *file = open_golden("resize");

    (void)state;
    while (fgets(line, sizeof line, file)) {
        assert_int_equal(sscanf(line, "%15s %15s %u %u %u %u %u %" HEX, filter, kind, &channels, &w,
                                &h, &W, &H, sum),
                         8);
        _cleanup_(freep) uint8_t *pixels = made_picture(kind, w, h, channels);
        _cleanup_(freep) uint8_t *out = malloc((size_t)W * H * channels);
        const struct engine_raster in = {pixels, w, h, channels};
        assert_int_equal(resample(&in, (enum resample_filter)index_of(filter, filters), W, H, out),
                         0);
        check_sum(out, (size_t)W * H * channels, sum, line, "resize");
        count++;
    }
    assert_true(count >= 150);
}

/* Any window holds the pixels that the whole has there. */
static void test_window(void **state)
{
    enum { W = 61, H = 83 };
    _cleanup_(freep) uint8_t *pixels = made_picture("noise", 40, 100, 3);
    const struct engine_raster in = {pixels, 40, 100, 3};
    uint8_t whole[W * H * 3], part[W * H * 3];
    static const uint32_t windows[][4] = {
        {0, 0, 61, 83}, {60, 82, 1, 1}, {7, 30, 20, 9}, {0, 50, 61, 1}, {33, 0, 1, 83}};

    (void)state;
    for (unsigned filter = 0; filter < 3; filter++) {
        assert_int_equal(resample(&in, (enum resample_filter)filter, W, H, whole), 0);
        for (size_t i = 0; i < ARRAY_SIZE(windows); i++) {
            const uint32_t *w = windows[i];
            const struct resample_axis x = {0, 40, W, w[0], w[2]}, y = {0, 100, H, w[1], w[3]};
            assert_int_equal(resample_window(&in, (enum resample_filter)filter, &x, &y, part), 0);
            for (uint32_t j = 0; j < w[3]; j++)
                assert_memory_equal(part + j * w[2] * 3, whole + ((w[1] + j) * W + w[0]) * 3,
                                    w[2] * 3);
        }
    }
}

static void test_refusals(void **state)
{
    uint8_t pixel[3] = {0}, out[64];
    const struct engine_raster one = {pixel, 1, 1, 3}, none = {NULL, 1, 1, 3},
                               empty = {pixel, 0, 1, 3};
    static const struct resample_axis good = {0, 1, 4, 0, 4},
                                      bad[] = {{0, 1, 4, 4, 1}, {0, 1, 4, 1, 4}, {0, 1, 0, 0, 0},
                                               {0, 2, 4, 0, 4}, {1, 0, 4, 0, 4}, {0, 1, 4, 0, 0}};

    (void)state;
    assert_int_equal(resample(&none, RESAMPLE_LANCZOS, 2, 2, out), -EINVAL);
    assert_int_equal(resample(&empty, RESAMPLE_LANCZOS, 2, 2, out), -EINVAL);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(resample_window(&one, RESAMPLE_LANCZOS, &good, &bad[i], out), -EINVAL);
        assert_int_equal(resample_window(&one, RESAMPLE_NEAREST, &bad[i], &good, out), -EINVAL);
    }
}

/* --- image ------------------------------------------------------------------------------------ */

struct fit_case {
    char fit[16], kind[16], sums[4][SHA256_HEX_SIZE];
    unsigned channels, w, h, W, H;
};

static void check_masks(const struct engine_raster *in, const struct image_target *to,
                        const char *pixel_sum, const char *latent_sum, const char *line)
{
    size_t count = (size_t)to->width * to->height;
    _cleanup_(freep) float *mask = malloc(count * sizeof *mask);
    _cleanup_(freep) float *latents = malloc(count / 64 * sizeof *latents);

    assert_int_equal(mask_prepare(in, to, 8, MASK_BINARY, mask, latents, NULL), 0);
    check_sum(mask, count * sizeof *mask, pixel_sum, line, "mask");
    check_sum(latents, count / 64 * sizeof *latents, latent_sum, line, "mask of latents");
}

static void check_planes(const struct engine_raster *in, const struct image_target *to,
                         const char *sum, const char *line)
{
    size_t size = (size_t)to->width * to->height * 3 * sizeof(float);
    _cleanup_(freep) float *planes = malloc(size);

    assert_int_equal(image_prepare(in, to, planes, NULL), 0);
    check_sum(planes, size, sum, line, "planes");
}

static void check_fit(const struct fit_case *c, const char *line)
{
    const struct image_target to = {c->W, c->H, (enum request_fit)index_of(c->fit, fits)};
    _cleanup_(freep) uint8_t *pixels = made_picture(c->kind, c->w, c->h, c->channels);
    _cleanup_(freep) uint8_t *out = malloc((size_t)c->W * c->H * c->channels);
    const struct engine_raster in = {pixels, c->w, c->h, c->channels};
    const char(*sum)[SHA256_HEX_SIZE] = c->sums;

    assert_int_equal(image_fit(&in, &to, out, NULL), 0);
    check_sum(out, (size_t)c->W * c->H * c->channels, *sum++, line, "fit");
    if (c->channels == 3)
        check_planes(&in, &to, *sum++, line);
    check_masks(&in, &to, sum[0], sum[1], line);
}

static void test_fit(void **state)
{
    char line[512];
    unsigned count = 0;
    _cleanup_(fclosep) FILE *file = open_golden("fit");

    (void)state;
    while (fgets(line, sizeof line, file)) {
        struct fit_case c;
        int n =
            sscanf(line, "%15s %15s %u %u %u %u %u %" HEX " %" HEX " %" HEX " %" HEX, c.fit, c.kind,
                   &c.channels, &c.w, &c.h, &c.W, &c.H, c.sums[0], c.sums[1], c.sums[2], c.sums[3]);
        assert_int_equal(n, c.channels == 3 ? 11 : 10);
        check_fit(&c, line);
        count++;
    }
    assert_true(count >= 120);
}

/* 0.6.0's legacy mask is 1 where the picture is kept. */
static void check_legacy_mask(const struct engine_raster *mask, const struct image_target *to,
                              const char *sum, const char *line)
{
    size_t count = (size_t)to->width * to->height / 64;
    _cleanup_(freep) float *latents = malloc(count * sizeof *latents);

    assert_int_equal(mask_prepare(mask, to, 8, MASK_LEGACY, NULL, latents, NULL), 0);
    for (size_t i = 0; i < count; i++)
        latents[i] = 1 - latents[i];
    check_sum(latents, count * sizeof *latents, sum, line, "legacy mask");
}

static void check_blanked(const struct engine_raster *in, const struct engine_raster *mask,
                          const char *sum, const char *line)
{
    size_t count = (size_t)in->width * in->height;
    const struct image_target to = {in->width, in->height, FIT_STRETCH};
    _cleanup_(freep) float *planes = malloc(3 * count * sizeof *planes);
    _cleanup_(freep) float *pixels = malloc(count * sizeof *pixels);

    assert_int_equal(image_prepare(in, &to, planes, NULL), 0);
    assert_int_equal(mask_prepare(mask, &to, 8, MASK_BINARY, pixels, NULL, NULL), 0);
    image_blank(planes, pixels, count);
    check_sum(planes, 3 * count * sizeof *planes, sum, line, "masked picture");
}

static void check_prepare(const char *kind, unsigned w, unsigned h, char sums[5][SHA256_HEX_SIZE],
                          const char *line)
{
    uint32_t width = 0, height = 0, w8 = w / 8 * 8, h8 = h / 8 * 8;
    _cleanup_(freep) uint8_t *pixels = made_picture(kind, w, h, 3);
    _cleanup_(freep) uint8_t *gray = made_picture("edges", w, h, 1);
    _cleanup_(freep) uint8_t *pixels8 = made_picture(kind, w8, h8, 3);
    _cleanup_(freep) uint8_t *gray8 = made_picture("edges", w8, h8, 1);
    const struct engine_raster in = {pixels, w, h, 3}, mask = {gray, w, h, 1};
    const struct engine_raster in8 = {pixels8, w8, h8, 3}, mask8 = {gray8, w8, h8, 1};

    assert_int_equal(image_size(&in, 32, &width, &height, NULL), 0);
    const struct image_target to = {width, height, FIT_STRETCH}, to8 = {w8, h8, 0};
    check_planes(&in, &to, sums[0], line);
    check_legacy_mask(&mask, &to, sums[1], line);
    check_masks(&mask8, &to8, sums[2], sums[4], line);
    check_blanked(&in8, &mask8, sums[3], line);
}

static void test_prepare(void **state)
{
    char line[512], kind[16], sums[5][SHA256_HEX_SIZE];
    unsigned w, h, count = 0;
    _cleanup_(fclosep) FILE *file = open_golden("prepare");

    (void)state;
    while (fgets(line, sizeof line, file)) {
        assert_int_equal(sscanf(line, "%15s %u %u %" HEX " %" HEX " %" HEX " %" HEX " %" HEX, kind,
                                &w, &h, sums[0], sums[1], sums[2], sums[3], sums[4]),
                         8);
        check_prepare(kind, w, h, sums, line);
        count++;
    }
    assert_true(count >= 20);
}

/* Gray in three channels is gray in one, whatever is done to it. */
static void test_gray(void **state)
{
    enum { W = 48, H = 24 };
    _cleanup_(freep) uint8_t *gray = made_picture("edges", 50, 31, 1);
    uint8_t rgb[50 * 31 * 3];
    float a[W * H * 3], b[W * H * 3], mask_a[W * H], mask_b[W * H], latents[W * H / 64];
    const struct engine_raster one = {gray, 50, 31, 1}, three = {rgb, 50, 31, 3};

    (void)state;
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = gray[i / 3];
    for (unsigned fit = 0; fit < 3; fit++) {
        const struct image_target to = {W, H, (enum request_fit)fit};
        assert_int_equal(image_prepare(&one, &to, a, NULL), 0);
        assert_int_equal(image_prepare(&three, &to, b, NULL), 0);
        assert_memory_equal(a, b, sizeof a);
        for (unsigned rule = 0; rule < 2; rule++) {
            enum mask_rule r = (enum mask_rule)rule;
            assert_int_equal(mask_prepare(&one, &to, 8, r, mask_a, latents, NULL), 0);
            assert_int_equal(mask_prepare(&three, &to, 8, r, mask_b, latents, NULL), 0);
            assert_memory_equal(mask_a, mask_b, sizeof mask_a);
        }
    }
}

/* A line of pixels may become a whole picture, and the other way; nothing grows on the way. */
static void test_extremes(void **state)
{
    static const uint32_t sizes[][2] = {{4096, 1}, {1, 4096}, {1, 1}, {4096, 3}};
    _cleanup_(freep) uint8_t *pixels = made_picture("edges", 4096, 3, 3);
    _cleanup_(freep) uint8_t *out = malloc((size_t)2048 * 2048 * 3);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        const struct engine_raster in = {pixels, sizes[i][0], sizes[i][1], 3};
        for (unsigned fit = 0; fit < 3; fit++) {
            struct image_target to = {8, 2048, (enum request_fit)fit};
            assert_int_equal(image_fit(&in, &to, out, NULL), 0);
            to = (struct image_target){2048, 8, (enum request_fit)fit};
            assert_int_equal(image_fit(&in, &to, out, NULL), 0);
        }
    }
}

static void test_size(void **state)
{
    static const struct {
        uint32_t w, h, multiple, width, height; /* in */
        uint32_t want_w, want_h;                /* 0: refused */
    } rows[] = {
        {640, 481, 8, 0, 0, 640, 480}, {640, 481, 32, 0, 0, 640, 480}, {639, 95, 32, 0, 0, 608, 64},
        {639, 95, 8, 64, 0, 64, 88},   {5, 9, 8, 0, 0, 0, 0},          {5, 9, 8, 8, 0, 8, 8},
        {5, 9, 8, 8, 16, 8, 16},       {31, 64, 32, 0, 0, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct engine_raster in = {NULL, rows[i].w, rows[i].h, 3};
        uint32_t width = rows[i].width, height = rows[i].height;
        struct fault f = {0};
        int r = image_size(&in, rows[i].multiple, &width, &height, &f);
        if (rows[i].want_w == 0) {
            assert_int_equal(r, -EINVAL);
            assert_non_null(strstr(f.text, "pixels are less than"));
            continue;
        }
        assert_int_equal(r, 0);
        assert_int_equal(width, rows[i].want_w);
        assert_int_equal(height, rows[i].want_h);
    }
}

static void test_bad_rasters(void **state)
{
    uint8_t pixels[16] = {0};
    float out[8 * 8 * 3];
    const struct image_target to = {8, 8, FIT_COVER};
    const struct engine_raster rows[] = {{NULL, 2, 2, 3},
                                         {pixels, 0, 2, 3},
                                         {pixels, 2, 0, 1},
                                         {pixels, 2, 2, 2},
                                         {pixels, 2, 2, 4}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fault f = {0};
        assert_int_equal(image_prepare(&rows[i], &to, out, &f), -EINVAL);
        assert_int_equal(strncmp(f.text, "no picture of", 13), 0);
        assert_int_equal(mask_prepare(&rows[i], &to, 8, MASK_BINARY, out, NULL, &f), -EINVAL);
        assert_int_equal(strncmp(f.text, "no picture of", 13), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize),      cmocka_unit_test(test_window),
        cmocka_unit_test(test_refusals),    cmocka_unit_test(test_fit),
        cmocka_unit_test(test_prepare),     cmocka_unit_test(test_gray),
        cmocka_unit_test(test_extremes),    cmocka_unit_test(test_size),
        cmocka_unit_test(test_bad_rasters),
    };

    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
