#include "tests/ops/ref_gemm.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "vk/base/half.h"

double ref_activation(enum activation kind, double x)
{
    switch (kind) {
    case ACTIVATION_SILU:
        return x / (1 + exp(-x));
    case ACTIVATION_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case ACTIVATION_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    default:
        return x;
    }
}

/* Element of the concat at a point of the picture the taps see; zero outside. */
static double input_at(const struct gemm_args *a, const struct ref_gemm *in, uint32_t image,
                       int64_t y, int64_t x, uint32_t k)
{
    int64_t height = a->upsample ? a->upsampled_height : a->in_height;
    int64_t width = a->upsample ? a->upsampled_width : a->in_width;

    if (y < 0 || x < 0 || y >= height || x >= width)
        return 0;
    if (a->upsample) {
        y /= 2;
        x /= 2;
    }
    size_t pixel = ((size_t)image * a->in_height + (size_t)y) * a->in_width + (size_t)x;
    if (k < a->k0)
        return (double)in->x0[pixel * a->k0 + k];
    return (double)in->x1[pixel * a->k1 + k - a->k0];
}

static double column(const struct gemm_args *a, const struct ref_gemm *in, uint64_t m, uint32_t n)
{
    uint32_t k_count = a->k0 + a->k1, ox = (uint32_t)(m % a->width);
    uint32_t oy = (uint32_t)(m / a->width % a->height);
    uint32_t image = (uint32_t)(m / a->width / a->height);
    double sum = in->bias ? (double)in->bias[n] : 0;

    if (in->row_add)
        sum += (double)in->row_add[a->row_add_offset + n];
    for (uint32_t t = 0; t < a->taps_h * a->taps_w; t++) {
        int64_t y = (int64_t)oy * a->stride + t / a->taps_w - a->pad_top;
        int64_t x = (int64_t)ox * a->stride + t % a->taps_w - a->pad_left;
        const float *w = in->w + ((size_t)n * a->taps_h * a->taps_w + t) * k_count;
        for (uint32_t k = 0; k < k_count; k++)
            sum += input_at(a, in, image, y, x, k) * (double)w[k];
    }
    return sum;
}

void ref_gemm(const struct gemm_args *a, const struct ref_gemm *in, double *ret_y)
{
    uint64_t rows = (uint64_t)a->batch * a->height * a->width;
    uint32_t n_out = a->geglu ? a->n / 2 : a->n;

    for (uint64_t m = 0; m < rows; m++) {
        for (uint32_t n = 0; n < n_out; n++) {
            double y = ref_activation(a->activation, column(a, in, m, n));
            if (a->geglu)
                y *= ref_activation(ACTIVATION_GELU, column(a, in, m, n_out + n));
            y *= (double)a->scale;
            if (in->residual)
                y += (double)in->residual[m * n_out + n];
            ret_y[m * n_out + n] = y;
        }
    }
}

/* The logical column at packed column p, or -1 for padding. */
static int64_t logical_column(const struct gemm_args *a, uint32_t p)
{
    uint32_t half = a->n / 2, block = p / 64, lane = p % 64 / 8, j = p % 8;

    if (!a->geglu)
        return p < a->n ? (int64_t)p : -1;
    uint32_t output = 32 * block + 4 * lane + j % 4;
    if (output >= half)
        return -1;
    return j < 4 ? output : half + output;
}

uint16_t *ref_gemm_pack(const struct gemm_args *a, const float *w, size_t *ret_size)
{
    uint32_t taps = a->taps_h * a->taps_w, k_count = a->k0 + a->k1;
    uint32_t columns = (a->n + 63) / 64 * 64;
    uint16_t *packed = calloc((size_t)columns * taps * k_count, sizeof *packed);

    if (!packed)
        abort();
    for (uint32_t p = 0; p < columns; p++) {
        int64_t n = logical_column(a, p);
        for (uint32_t t = 0; n >= 0 && t < taps; t++) {
            for (uint32_t k = 0; k < k_count; k++) {
                size_t vector = (((size_t)(p / 64) * taps + t) * (k_count / 8) + k / 8) * 64 +
                                p % 8 * 8 + p % 64 / 8;
                packed[vector * 8 + k % 8] =
                    half_from_float(w[((size_t)n * taps + t) * k_count + k]);
            }
        }
    }
    *ret_size = (size_t)columns * taps * k_count * sizeof *packed;
    return packed;
}

float *ref_gemm_pack_vector(const struct gemm_args *a, const float *v, size_t *ret_size)
{
    uint32_t columns = (a->n + 63) / 64 * 64;
    float *packed = calloc(columns, sizeof *packed);

    if (!packed)
        abort();
    for (uint32_t p = 0; p < columns; p++) {
        int64_t n = logical_column(a, p);
        packed[p] = n >= 0 ? v[n] : 0.0f;
    }
    *ret_size = columns * sizeof *packed;
    return packed;
}
