/* tensors — host-side tensors for the tests of ops: seeded values, layouts, comparison. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/ops/layout.h"

/* A tensor of rows of logical channels, in the form references read (f32, dense) and in the form
 * kernels read (f16, padded). Both hold the same values: those of the halves. */
struct rows {
    uint32_t rows;
    struct layout layout;
    float *dense;     /* [rows, layout.count] */
    uint16_t *halves; /* [rows, layout_padded(layout)] */
    size_t bytes;     /* of halves */
    float *floats;    /* the halves as f32, twice the bytes */
};

/* Roughly normal values of the given mean and deviation, from a seed of its own per call. */
struct rows rows_random(uint32_t rows, struct layout layout, float mean, float deviation);
void rows_done(struct rows *r);

/* f32 vector, same distribution; malloc'd. */
float *floats_random(size_t count, float mean, float deviation);
float random_float(void); /* roughly normal, mean 0, deviation 1 */

/* Relative L2 error of the padded f16 (or f32) result against dense expected values. Infinite when
 * a padding channel is not zero or a value is no number; `what` and the place are printed then. */
double rows_error(const void *result, int is_f32, uint32_t rows, struct layout layout,
                  const double *expected);
