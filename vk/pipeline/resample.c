/* resample — see the header. Every sum, its order and its rounding are Pillow's: what looks
 * needless (a position added up step by step, int casts) decides bits. */
#include "vk/pipeline/resample.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/cleanup.h"

/* Of a coefficient's fraction: 32 - 8 of the pixel - 2 for sums beyond 1. */
#define FRACTION_BITS 22

/* --- filters ---------------------------------------------------------------------------------- */

static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x = x * M_PI;
    return sin(x) / x;
}

static double lanczos(double x)
{
    return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

static const struct kernel {
    double (*weight)(double x);
    double support;
} kernels[] = {
    [RESAMPLE_NEAREST] = {NULL, 0},
    [RESAMPLE_BICUBIC] = {bicubic, 2.0},
    [RESAMPLE_LANCZOS] = {lanczos, 3.0},
};

/* --- coefficients ----------------------------------------------------------------------------- */

/* Per pixel of the window: the source pixels it is made of and their weights in fixed point. */
struct taps {
    struct range {
        uint32_t first, count;
    } * ranges; /* owned */
    int32_t *k; /* owned; `stride` a pixel */
    size_t stride;
};

static void taps_done(struct taps *taps)
{
    free(taps->ranges);
    free(taps->k);
}

static int32_t to_fixed(double weight)
{
    return (int32_t)((weight < 0 ? -0.5 : 0.5) + weight * (1 << FRACTION_BITS));
}

static struct range fill_taps(const struct kernel *kernel, double center, double widening,
                              uint32_t in_size, double *weights, int32_t *ret_k)
{
    double support = kernel->support * widening, sum = 0, narrowing = 1.0 / widening;
    int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);

    first = first < 0 ? 0 : first;
    end = end > in_size ? in_size : end;
    size_t count = end > first ? (size_t)(end - first) : 0;
    for (size_t i = 0; i < count; i++) {
        weights[i] = kernel->weight(((double)i + (double)first - center + 0.5) * narrowing);
        sum += weights[i];
    }
    for (size_t i = 0; i < count; i++)
        ret_k[i] = to_fixed(sum != 0.0 ? weights[i] / sum : weights[i]);
    return (struct range){(uint32_t)first, (uint32_t)count};
}

static int make_taps(const struct kernel *kernel, uint32_t in_size, const struct resample_axis *a,
                     struct taps *ret_taps)
{
    _cleanup_(taps_done) struct taps taps = {0};
    double scale = (a->to - a->from) / a->size, widening = scale < 1.0 ? 1.0 : scale;

    taps.stride = (size_t)ceil(kernel->support * widening) * 2 + 1;
    taps.ranges = calloc(a->count, sizeof *taps.ranges);
    taps.k = calloc(a->count, taps.stride * sizeof *taps.k);
    _cleanup_(freep) double *weights = calloc(taps.stride, sizeof *weights);
    if (!taps.ranges || !taps.k || !weights)
        return -ENOMEM;
    for (uint32_t i = 0; i < a->count; i++) {
        double center = a->from + (a->first + i + 0.5) * scale;
        taps.ranges[i] =
            fill_taps(kernel, center, widening, in_size, weights, taps.k + i * taps.stride);
    }
    *ret_taps = taps;
    taps = (struct taps){0};
    return 0;
}

static uint8_t clip(int32_t sum)
{
    sum >>= FRACTION_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* --- the two passes --------------------------------------------------------------------------- */

/* Rows first…first + count of `in`, each made x->count pixels wide. */
static void stretch_across(const struct engine_raster *in, const struct taps *taps, uint32_t width,
                           struct range rows, uint8_t *out)
{
    size_t channels = in->channels, stride = in->width * channels;

    for (uint32_t y = 0; y < rows.count; y++) {
        const uint8_t *row = in->pixels + (rows.first + y) * stride;
        for (uint32_t x = 0; x < width; x++) {
            const uint8_t *from = row + taps->ranges[x].first * channels;
            const int32_t *k = taps->k + x * taps->stride;
            for (size_t c = 0; c < channels; c++) {
                int32_t sum = 1 << (FRACTION_BITS - 1);
                for (uint32_t i = 0; i < taps->ranges[x].count; i++)
                    sum += from[i * channels + c] * k[i];
                *out++ = clip(sum);
            }
        }
    }
}

/* Lines of `stride` bytes; `skipped` of the source's rows are not in `in`. */
static int stretch_down(const uint8_t *in, const struct taps *taps, size_t stride, uint32_t skipped,
                        uint32_t height, uint8_t *out)
{
    _cleanup_(freep) int32_t *sums = malloc(stride * sizeof *sums);

    if (!sums)
        return -ENOMEM;
    for (uint32_t y = 0; y < height; y++) {
        const uint8_t *from = in + (taps->ranges[y].first - skipped) * stride;
        const int32_t *k = taps->k + y * taps->stride;
        for (size_t x = 0; x < stride; x++)
            sums[x] = 1 << (FRACTION_BITS - 1);
        for (uint32_t i = 0; i < taps->ranges[y].count; i++)
            for (size_t x = 0; x < stride; x++)
                sums[x] += from[i * stride + x] * k[i];
        for (size_t x = 0; x < stride; x++)
            *out++ = clip(sums[x]);
    }
    return 0;
}

static bool is_identity(const struct resample_axis *a, uint32_t in_size)
{
    return a->size == in_size && a->from == 0 && a->to == in_size;
}

/* Taps that take each pixel as it is: exact, as 255 << 22 and the half are all that is summed. */
static int make_identity(const struct resample_axis *a, struct taps *ret_taps)
{
    _cleanup_(taps_done) struct taps taps = {.stride = 1};

    taps.ranges = calloc(a->count, sizeof *taps.ranges);
    taps.k = calloc(a->count, sizeof *taps.k);
    if (!taps.ranges || !taps.k)
        return -ENOMEM;
    for (uint32_t i = 0; i < a->count; i++) {
        taps.ranges[i] = (struct range){a->first + i, 1};
        taps.k[i] = 1 << FRACTION_BITS;
    }
    *ret_taps = taps;
    taps = (struct taps){0};
    return 0;
}

static int axis_taps(const struct kernel *kernel, uint32_t in_size, const struct resample_axis *a,
                     struct taps *ret_taps)
{
    return is_identity(a, in_size) ? make_identity(a, ret_taps)
                                   : make_taps(kernel, in_size, a, ret_taps);
}

/* The source rows that any row of the window needs. */
static struct range rows_needed(const struct taps *taps, uint32_t count)
{
    uint32_t first = UINT32_MAX, end = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct range *r = &taps->ranges[i];
        first = r->first < first ? r->first : first;
        end = r->first + r->count > end ? r->first + r->count : end;
    }
    return (struct range){first, end > first ? end - first : 0};
}

static int filter_window(const struct engine_raster *in, const struct kernel *kernel,
                         const struct resample_axis *x, const struct resample_axis *y,
                         uint8_t *ret_pixels)
{
    _cleanup_(taps_done) struct taps across = {0}, down = {0};
    size_t stride = (size_t)x->count * in->channels;

    int r = axis_taps(kernel, in->width, x, &across);
    if (r == 0)
        r = axis_taps(kernel, in->height, y, &down);
    if (r < 0)
        return r;
    struct range rows = rows_needed(&down, y->count);
    _cleanup_(freep) uint8_t *middle = malloc(rows.count * stride + 1);
    if (!middle)
        return -ENOMEM;
    stretch_across(in, &across, x->count, rows, middle);
    return stretch_down(middle, &down, stride, rows.first, y->count, ret_pixels);
}

/* --- nearest ---------------------------------------------------------------------------------- */

static int nearest_places(uint32_t in_size, const struct resample_axis *a, uint32_t **ret_places)
{
    double scale = (a->to - a->from) / a->size, at = a->from + scale * 0.5;
    uint32_t *places = calloc(a->count, sizeof *places);

    if (!places)
        return -ENOMEM;
    for (uint64_t i = 0; i < (uint64_t)a->first + a->count; i++) {
        uint32_t place = (uint32_t)at;
        if (i >= a->first)
            places[i - a->first] = place < in_size ? place : in_size - 1;
        at += scale;
    }
    *ret_places = places;
    return 0;
}

static int nearest_window(const struct engine_raster *in, const struct resample_axis *x,
                          const struct resample_axis *y, uint8_t *ret_pixels)
{
    _cleanup_(freep) uint32_t *columns = NULL, *rows = NULL;
    size_t channels = in->channels;

    int r = nearest_places(in->width, x, &columns);
    if (r == 0)
        r = nearest_places(in->height, y, &rows);
    if (r < 0)
        return r;
    for (uint32_t j = 0; j < y->count; j++) {
        const uint8_t *row = in->pixels + (size_t)rows[j] * in->width * channels;
        for (uint32_t i = 0; i < x->count; i++)
            for (size_t c = 0; c < channels; c++)
                *ret_pixels++ = row[columns[i] * channels + c];
    }
    return 0;
}

/* --- entries ---------------------------------------------------------------------------------- */

static bool is_sound(const struct resample_axis *a, uint32_t in_size)
{
    return in_size > 0 && a->count > 0 && a->first < a->size && a->count <= a->size - a->first &&
           a->from >= 0 && a->from <= a->to && a->to <= in_size;
}

int resample_window(const struct engine_raster *in, enum resample_filter filter,
                    const struct resample_axis *x, const struct resample_axis *y,
                    uint8_t *ret_pixels)
{
    if (!in->pixels || in->channels == 0 || !is_sound(x, in->width) || !is_sound(y, in->height))
        return -EINVAL;
    if (filter == RESAMPLE_NEAREST)
        return nearest_window(in, x, y, ret_pixels);
    return filter_window(in, &kernels[filter], x, y, ret_pixels);
}

int resample(const struct engine_raster *in, enum resample_filter filter, uint32_t width,
             uint32_t height, uint8_t *ret_pixels)
{
    const struct resample_axis x = {0, in->width, width, 0, width};
    const struct resample_axis y = {0, in->height, height, 0, height};

    return resample_window(in, filter, &x, &y, ret_pixels);
}
