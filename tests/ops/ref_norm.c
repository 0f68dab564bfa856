#include "tests/ops/ref_norm.h"

#include <math.h>
#include <stddef.h>

void ref_group_stats(const float *x, uint32_t batch, uint32_t hw, uint32_t c, uint32_t groups,
                     double eps, double *ret_stats)
{
    uint32_t size = c / groups;
    double count = (double)size * hw;

    for (uint32_t i = 0; i < batch * groups; i++) {
        const float *first = x + (size_t)(i / groups) * hw * c + i % groups * size;
        double sum = 0, squares = 0;
        for (size_t j = 0; j < (size_t)hw * size; j++)
            sum += (double)first[j / size * c + j % size];
        for (size_t j = 0; j < (size_t)hw * size; j++) {
            double d = (double)first[j / size * c + j % size] - sum / count;
            squares += d * d;
        }
        ret_stats[2 * i] = sum / count;
        ret_stats[2 * i + 1] = 1 / sqrt(squares / count + eps);
    }
}

void ref_layernorm(const float *x, uint32_t c, const float *gamma, const float *beta, double eps,
                   double *ret_y)
{
    double stats[2];

    ref_group_stats(x, 1, 1, c, 1, eps, stats);
    for (uint32_t i = 0; i < c; i++)
        ret_y[i] = ((double)x[i] - stats[0]) * stats[1] * (double)gamma[i] + (double)beta[i];
}
