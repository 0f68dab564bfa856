#include "vk/pipeline/preview.h"

#include <math.h>
#include <string.h>

#include "vk/pipeline/resample.h"

#define TERMS  (PREVIEW_CHANNELS + 1)
#define STRIDE 4u /* latents between points of the probe */

/* A column that lies in the others' span to this part of its length has nothing new. */
#define NOTHING_NEW 1e-9

/* --- probe ------------------------------------------------------------------------------------ */

/* A normal number for a point of the grid: the sum of twelve uniform ones. */
static float point(uint32_t channel, uint32_t y, uint32_t x)
{
    uint32_t state = (channel * 73856093u ^ y * 19349663u ^ x * 83492791u) | 1;
    float sum = -6;

    for (unsigned i = 0; i < 12; i++) {
        state ^= state << 13; /* xorshift32. Source: Marsaglia, "Xorshift RNGs", 2003. */
        state ^= state >> 17;
        state ^= state << 5;
        sum += (float)(state >> 8) * 0x1p-24f;
    }
    return sum;
}

void preview_probe(uint32_t height, uint32_t width, float *ret_latents)
{
    for (uint32_t c = 0; c < PREVIEW_CHANNELS; c++) {
        for (uint32_t y = 0; y < height; y++) {
            for (uint32_t x = 0; x < width; x++) {
                uint32_t row = y / STRIDE, column = x / STRIDE;
                float down = (float)(y % STRIDE) / STRIDE, right = (float)(x % STRIDE) / STRIDE;
                float top = point(c, row, column) * (1 - right) + point(c, row, column + 1) * right;
                float below =
                    point(c, row + 1, column) * (1 - right) + point(c, row + 1, column + 1) * right;
                *ret_latents++ = top * (1 - down) + below * down;
            }
        }
    }
}

/* --- fit -------------------------------------------------------------------------------------- */

static void mean_color(const float *rgb, size_t stride, uint32_t factor, double ret_color[3])
{
    memset(ret_color, 0, 3 * sizeof *ret_color);
    for (uint32_t y = 0; y < factor; y++)
        for (uint32_t i = 0; i < 3 * factor; i++)
            ret_color[i % 3] += rgb[y * stride + i];
    for (size_t c = 0; c < 3; c++)
        ret_color[c] /= (double)factor * factor;
}

void preview_fit_add(struct preview_fit *fit, const float *latents, uint32_t height, uint32_t width,
                     uint32_t factor, const float *rgb)
{
    size_t plane = (size_t)height * width, stride = (size_t)width * factor * 3;

    for (size_t i = 0; i < plane; i++) {
        double terms[TERMS], color[3];
        for (size_t k = 0; k < PREVIEW_CHANNELS; k++)
            terms[k] = latents[k * plane + i];
        terms[PREVIEW_CHANNELS] = 1;
        mean_color(rgb + i / width * factor * stride + i % width * factor * 3, stride, factor,
                   color);
        for (size_t k = 0; k < TERMS; k++) {
            for (size_t l = 0; l < TERMS; l++)
                fit->products[k][l] += terms[k] * terms[l];
            for (size_t c = 0; c < 3; c++)
                fit->targets[c][k] += terms[k] * color[c];
        }
    }
}

/* Cholesky of the products, constant first so that it is kept before all. ret[i][i] is 0 where term
 * i adds nothing to those before it. */
static void factorize(const double products[TERMS][TERMS], double ret[TERMS][TERMS])
{
    for (size_t i = 0; i < TERMS; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = products[i][j];
            for (size_t k = 0; k < j; k++)
                sum -= ret[i][k] * ret[j][k];
            if (i != j)
                ret[i][j] = ret[j][j] != 0 ? sum / ret[j][j] : 0;
            else
                ret[i][i] = sum > NOTHING_NEW * products[i][i] ? sqrt(sum) : 0;
        }
    }
}

static void substitute(const double lower[TERMS][TERMS], double values[TERMS])
{
    for (size_t i = 0; i < TERMS; i++) {
        for (size_t k = 0; k < i; k++)
            values[i] -= lower[i][k] * values[k];
        values[i] = lower[i][i] != 0 ? values[i] / lower[i][i] : 0;
    }
    for (size_t i = TERMS; i-- > 0;) {
        for (size_t k = i + 1; k < TERMS; k++)
            values[i] -= lower[k][i] * values[k];
        values[i] = lower[i][i] != 0 ? values[i] / lower[i][i] : 0;
    }
}

void preview_fit_solve(const struct preview_fit *fit, struct preview_map *ret_map)
{
    static const size_t order[TERMS] = {PREVIEW_CHANNELS, 0, 1, 2, 3};
    double products[TERMS][TERMS], lower[TERMS][TERMS] = {{0}}, values[TERMS];

    for (size_t i = 0; i < TERMS; i++)
        for (size_t j = 0; j < TERMS; j++)
            products[i][j] = fit->products[order[i]][order[j]];
    factorize(products, lower);
    for (size_t c = 0; c < 3; c++) {
        for (size_t i = 0; i < TERMS; i++)
            values[i] = fit->targets[c][order[i]];
        substitute(lower, values);
        ret_map->bias[c] = (float)values[0];
        for (size_t k = 0; k < PREVIEW_CHANNELS; k++)
            ret_map->weights[c][k] = (float)values[k + 1];
    }
}

/* --- use -------------------------------------------------------------------------------------- */

void preview_apply(const struct preview_map *map, const float *latents, uint32_t height,
                   uint32_t width, uint8_t *ret_rgb)
{
    size_t plane = (size_t)height * width;

    for (size_t i = 0; i < plane; i++) {
        for (size_t c = 0; c < 3; c++) {
            float v = map->bias[c];
            for (size_t k = 0; k < PREVIEW_CHANNELS; k++)
                v += map->weights[c][k] * latents[k * plane + i];
            *ret_rgb++ = (uint8_t)(v > 0 ? (v < 1 ? 255 * v + 0.5f : 255) : 0);
        }
    }
}

int preview_enlarge(const uint8_t *rgb, uint32_t height, uint32_t width, uint32_t factor,
                    uint8_t *ret_rgb)
{
    const struct engine_raster in = {rgb, width, height, 3};

    return resample(&in, RESAMPLE_BICUBIC, width * factor, height * factor, ret_rgb);
}
