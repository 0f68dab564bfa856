#include "tests/ops/ref_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void one_query(const struct attention_args *a, const float *q, const float *k,
                      const float *v, uint32_t key_end, double *weights, double *ret_y)
{
    size_t row = (size_t)a->heads * a->head_dim;
    double top = -INFINITY, sum = 0;

    for (uint32_t j = 0; j < key_end; j++) {
        double s = 0;
        for (uint32_t d = 0; d < a->head_dim; d++)
            s += (double)q[d] * (double)k[j * row + d];
        weights[j] = s * (double)a->scale;
        top = fmax(top, weights[j]);
    }
    for (uint32_t j = 0; j < key_end; j++)
        sum += weights[j] = exp(weights[j] - top);
    memset(ret_y, 0, a->head_dim * sizeof *ret_y);
    for (uint32_t j = 0; j < key_end; j++) {
        for (uint32_t d = 0; d < a->head_dim; d++)
            ret_y[d] += weights[j] / sum * (double)v[j * row + d];
    }
}

void ref_attention(const struct attention_args *a, const float *q, const float *k, const float *v,
                   double *ret_y)
{
    size_t row = (size_t)a->heads * a->head_dim;
    double *weights = calloc(a->k_tokens, sizeof *weights);

    if (!weights)
        abort();
    for (uint32_t b = 0; b < a->batch; b++) {
        for (uint32_t t = 0; t < a->q_tokens; t++) {
            for (uint32_t h = 0; h < a->heads; h++) {
                size_t at = ((size_t)b * a->q_tokens + t) * row + h * a->head_dim;
                size_t keys = (size_t)b * a->k_tokens * row + h * a->head_dim;
                one_query(a, q + at, k + keys, v + keys, a->causal ? t + 1 : a->k_tokens, weights,
                          ret_y + at);
            }
        }
    }
    free(weights);
}
