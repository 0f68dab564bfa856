/* ref_norm — group norm and layer norm in double. */
#pragma once

#include <stdint.h>

/* x [batch, hw, c]: mean and 1 / sqrt(var + eps) of every (batch, group) to ret_stats [batch,
 * groups, 2]. */
void ref_group_stats(const float *x, uint32_t batch, uint32_t hw, uint32_t c, uint32_t groups,
                     double eps, double *ret_stats);

/* One row of c values. gamma, beta [c]. */
void ref_layernorm(const float *x, uint32_t c, const float *gamma, const float *beta, double eps,
                   double *ret_y);
