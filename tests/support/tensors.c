#include "tests/support/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/half.h"

static uint64_t random_state = 1;

/* Sum of four uniforms (an LCG's high bits), scaled to deviation 1. */
float random_float(void)
{
    double sum = 0;

    for (int i = 0; i < 4; i++) {
        random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
        sum += (double)(random_state >> 40) / (1 << 24) - 0.5;
    }
    return (float)(sum * sqrt(3.0));
}

static void *must_alloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);

    if (!p)
        abort();
    return p;
}

float *floats_random(size_t count, float mean, float deviation)
{
    float *x = must_alloc(count, sizeof *x);

    for (size_t i = 0; i < count; i++)
        x[i] = mean + deviation * random_float();
    return x;
}

struct rows rows_random(uint32_t rows, struct layout layout, float mean, float deviation)
{
    size_t width = layout_padded(layout);
    struct rows r = {.rows = rows, .layout = layout, .bytes = rows * width * 2};

    r.dense = floats_random((size_t)rows * layout.count, mean, deviation);
    r.halves = must_alloc(rows * width, sizeof *r.halves);
    r.floats = must_alloc(rows * width, sizeof *r.floats);
    for (size_t row = 0; row < rows; row++) {
        for (uint32_t c = 0; c < layout.count; c++) {
            uint16_t h = half_from_float(r.dense[row * layout.count + c]);
            r.halves[row * width + layout_position(layout, c)] = h;
            r.floats[row * width + layout_position(layout, c)] = half_to_float(h);
            r.dense[row * layout.count + c] = half_to_float(h);
        }
    }
    return r;
}

void rows_done(struct rows *r)
{
    free(r->dense);
    free(r->halves);
    free(r->floats);
    *r = (struct rows){0};
}

static float element(const void *data, int is_f32, size_t i)
{
    return is_f32 ? ((const float *)data)[i] : half_to_float(((const uint16_t *)data)[i]);
}

/* Padding channels of one row that are not zero. */
static int count_dirty(const void *row, int is_f32, size_t first, struct layout layout)
{
    int dirty = 0;
    size_t width = layout_padded(layout);
    uint8_t *real = must_alloc(width, 1);

    for (uint32_t c = 0; c < layout.count; c++)
        real[layout_position(layout, c)] = 1;
    for (size_t p = 0; p < width; p++)
        dirty += !real[p] && element(row, is_f32, first + p) != 0.0f;
    free(real);
    return dirty;
}

double rows_error(const void *result, int is_f32, uint32_t rows, struct layout layout,
                  const double *expected)
{
    double difference = 0, norm = 0;
    size_t width = layout_padded(layout);

    for (size_t row = 0; row < rows; row++) {
        if (count_dirty(result, is_f32, row * width, layout)) {
            (void)fprintf(stderr, "row %zu: padding is not zero\n", row);
            return INFINITY;
        }
        for (uint32_t c = 0; c < layout.count; c++) {
            double want = expected[row * layout.count + c];
            double got = (double)element(result, is_f32, row * width + layout_position(layout, c));
            if (!isfinite(got)) {
                (void)fprintf(stderr, "row %zu channel %u: %g for %g\n", row, c, got, want);
                return INFINITY;
            }
            difference += (got - want) * (got - want);
            norm += want * want;
        }
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}
