#include "vk/pipeline/image.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/cleanup.h"
#include "vk/pipeline/resample.h"

/* --- out -------------------------------------------------------------------------------------- */

void image_from_decoder(const float *values, size_t pixels, float *ret_rgb)
{
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < 3; c++) {
            float v = values[8 * i + c] / 2 + 0.5f;
            ret_rgb[3 * i + c] = v > 0 ? (v < 1 ? v : 1) : 0;
        }
    }
}

void image_to_bytes(const float *rgb, size_t count, uint8_t *ret_bytes)
{
    for (size_t i = 0; i < count; i++)
        ret_bytes[i] = (uint8_t)nearbyintf(255 * rgb[i]);
}

/* --- sizes ------------------------------------------------------------------------------------ */

int image_size(const struct engine_raster *in, uint32_t multiple, uint32_t *width, uint32_t *height,
               struct fault *f)
{
    uint32_t w = *width ? *width : in->width - in->width % multiple;
    uint32_t h = *height ? *height : in->height - in->height % multiple;

    if (w == 0 || h == 0)
        return fault_set(f, -EINVAL,
                         "image: %ux%u pixels are less than %u a side: give width and height",
                         in->width, in->height, multiple);
    *width = w;
    *height = h;
    return 0;
}

/* The whole picture's size when its shape is kept: both sides at least the target's (cover) or at
 * most. Ratios are compared as the reference does, in double; the other side rounds down. */
static void keep_shape(const struct engine_raster *in, const struct image_target *to,
                       uint32_t *ret_width, uint32_t *ret_height)
{
    double ratio = (double)to->width / to->height, own = (double)in->width / in->height;
    uint64_t width = (uint64_t)in->width * to->height / in->height;
    uint64_t height = (uint64_t)in->height * to->width / in->width;
    int is_cover = to->fit == FIT_COVER;

    if (is_cover ? ratio > own : ratio < own)
        width = to->width;
    if (is_cover ? ratio <= own : ratio >= own)
        height = to->height;
    *ret_width = width ? (uint32_t)width : 1;
    *ret_height = height ? (uint32_t)height : 1;
}

/* --- resizing --------------------------------------------------------------------------------- */

/* A window of the enlarged picture, its centre on the target's. Halves round down on both. */
static int cover(const struct engine_raster *in, enum resample_filter filter,
                 const struct image_target *to, uint8_t *ret_pixels)
{
    uint32_t width, height;

    keep_shape(in, to, &width, &height);
    width = width < to->width ? to->width : width;
    height = height < to->height ? to->height : height;
    const struct resample_axis x = {0, in->width, width, width / 2 - to->width / 2, to->width};
    const struct resample_axis y = {0, in->height, height, height / 2 - to->height / 2, to->height};
    return resample_window(in, filter, &x, &y, ret_pixels);
}

/* Copies `count` rows of `from` into `to` at (left, top); what would lie outside is dropped. */
static void paste(const struct engine_raster *from, uint32_t left, uint32_t top,
                  const struct image_target *to, uint8_t *pixels)
{
    size_t channels = from->channels;
    uint32_t width = from->width < to->width - left ? from->width : to->width - left;

    for (uint32_t y = 0; y < from->height && top + y < to->height; y++)
        memcpy(pixels + ((size_t)(top + y) * to->width + left) * channels,
               from->pixels + (size_t)y * from->width * channels, width * channels);
}

/* A bar of width x height pixels at (left, top): the line of `in` at one of its edges, repeated. */
static int paste_bar(const struct engine_raster *in, const struct resample_axis *x,
                     const struct resample_axis *y, uint32_t left, uint32_t top,
                     const struct image_target *to, uint8_t *pixels)
{
    _cleanup_(freep) uint8_t *bar = malloc((size_t)x->size * y->size * in->channels);

    if (!bar)
        return -ENOMEM;
    int r = resample_window(in, RESAMPLE_BICUBIC, x, y, bar);
    if (r == 0)
        paste(&(struct engine_raster){bar, x->size, y->size, in->channels}, left, top, to, pixels);
    return r;
}

/* The bars before and behind the picture that was pasted at (left, top). */
static int paste_bars(const struct engine_raster *in, uint32_t left, uint32_t top,
                      const struct image_target *to, uint8_t *pixels)
{
    uint32_t w = in->width, h = in->height;
    struct resample_axis x = {0, w, w, 0, w}, y = {0, h, h, 0, h};
    struct resample_axis *bar = left > 0 ? &x : &y;
    int r = 0;

    if (left == 0 && top == 0)
        return 0;
    for (int end = 0; end < 2 && r == 0; end++) {
        uint32_t thickness = left > 0 ? left : top, length = left > 0 ? w : h;
        bar->from = bar->to = end ? length : 0;
        bar->size = bar->count = thickness;
        uint32_t at = end ? thickness + length : 0;
        r = paste_bar(in, &x, &y, left > 0 ? at : 0, left > 0 ? 0 : at, to, pixels);
    }
    return r;
}

static int contain(const struct engine_raster *in, enum resample_filter filter,
                   const struct image_target *to, uint8_t *ret_pixels)
{
    uint32_t width, height;

    keep_shape(in, to, &width, &height);
    _cleanup_(freep) uint8_t *pixels = malloc((size_t)width * height * in->channels);
    if (!pixels)
        return -ENOMEM;
    int r = resample(in, filter, width, height, pixels);
    if (r < 0)
        return r;
    const struct engine_raster whole = {pixels, width, height, in->channels};
    uint32_t left = to->width / 2 - width / 2, top = to->height / 2 - height / 2;
    paste(&whole, left, top, to, ret_pixels);
    return paste_bars(&whole, left, top, to, ret_pixels);
}

static int fit_by(const struct engine_raster *in, enum resample_filter filter,
                  const struct image_target *to, uint8_t *ret_pixels, struct fault *f)
{
    int r;

    if (!in->pixels || in->width == 0 || in->height == 0 ||
        (in->channels != 1 && in->channels != 3))
        return fault_set(f, -EINVAL, "no picture of %ux%u pixels and %u channels", in->width,
                         in->height, in->channels);
    if (to->fit == FIT_COVER)
        r = cover(in, filter, to, ret_pixels);
    else if (to->fit == FIT_CONTAIN)
        r = contain(in, filter, to, ret_pixels);
    else
        r = resample(in, filter, to->width, to->height, ret_pixels);
    return r < 0 ? fault_set(f, r, "%ux%u pixels cannot become %ux%u%s", in->width, in->height,
                             to->width, to->height, r == -ENOMEM ? ": out of memory" : "")
                 : 0;
}

int image_fit(const struct engine_raster *in, const struct image_target *to, uint8_t *ret_pixels,
              struct fault *f)
{
    return fit_by(in, RESAMPLE_LANCZOS, to, ret_pixels, f);
}

/* --- pictures --------------------------------------------------------------------------------- */

int image_prepare(const struct engine_raster *in, const struct image_target *to, float *ret_planes,
                  struct fault *f)
{
    size_t count = (size_t)to->width * to->height, channels = in->channels;
    _cleanup_(freep) uint8_t *pixels = malloc(count * channels + 1);

    if (!pixels)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = image_fit(in, to, pixels, f);
    if (r < 0)
        return r;
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < count; i++) {
            float v = (float)pixels[i * channels + (channels == 3 ? c : 0)] / 255.0f;
            ret_planes[c * count + i] = 2.0f * v - 1.0f;
        }
    return 0;
}

/* --- masks ------------------------------------------------------------------------------------ */

/* RGB -> gray in place, as Pillow's convert("L"). */
static void to_gray(uint8_t *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = pixels + 3 * i;
        pixels[i] = (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 0x8000u) >> 16);
    }
}

static int mask_bytes(const struct engine_raster *in, enum resample_filter filter,
                      const struct image_target *to, uint8_t **ret_gray, struct fault *f)
{
    size_t count = (size_t)to->width * to->height;
    _cleanup_(freep) uint8_t *pixels = malloc(count * in->channels + 1);

    if (!pixels)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = fit_by(in, filter, to, pixels, f);
    if (r < 0)
        return r;
    if (in->channels == 3)
        to_gray(pixels, count);
    *ret_gray = TAKE_PTR(pixels);
    return 0;
}

static int prepare_binary(const struct engine_raster *in, const struct image_target *to,
                          uint32_t factor, float *ret_pixels, float *ret_latents, struct fault *f)
{
    _cleanup_(freep) uint8_t *gray = NULL;

    int r = mask_bytes(in, RESAMPLE_LANCZOS, to, &gray, f);
    if (r < 0)
        return r;
    for (size_t i = 0; ret_pixels && i < (size_t)to->width * to->height; i++)
        ret_pixels[i] = gray[i] >= 128; /* 127 / 255 < 0.5 */
    for (uint32_t y = 0; ret_latents && y < to->height / factor; y++)
        for (uint32_t x = 0; x < to->width / factor; x++)
            *ret_latents++ = gray[(size_t)y * factor * to->width + (size_t)x * factor] >= 128;
    return 0;
}

static int prepare_legacy(const struct engine_raster *in, const struct image_target *to,
                          float *ret_values, struct fault *f)
{
    _cleanup_(freep) uint8_t *gray = NULL;

    int r = ret_values ? mask_bytes(in, RESAMPLE_NEAREST, to, &gray, f) : 0;
    for (size_t i = 0; gray && i < (size_t)to->width * to->height; i++)
        ret_values[i] = (float)gray[i] / 255.0f;
    return r;
}

int mask_prepare(const struct engine_raster *in, const struct image_target *to, uint32_t factor,
                 enum mask_rule rule, float *ret_pixels, float *ret_latents, struct fault *f)
{
    const struct image_target latents = {to->width / factor, to->height / factor, to->fit};

    if (rule == MASK_BINARY)
        return prepare_binary(in, to, factor, ret_pixels, ret_latents, f);
    int r = prepare_legacy(in, to, ret_pixels, f);
    return r < 0 ? r : prepare_legacy(in, &latents, ret_latents, f);
}

void image_blank(float *planes, const float *mask_pixels, size_t count)
{
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < count; i++)
            if (mask_pixels[i] >= 0.5f)
                planes[c * count + i] = 0;
}
