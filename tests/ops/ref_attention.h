/* ref_attention — softmax(q k^T * scale) v in double. */
#pragma once

#include "vk/ops/op.h"

/* q [batch, q_tokens, heads, head_dim], k and v [batch, k_tokens, …], y as q; dense. */
void ref_attention(const struct attention_args *a, const float *q, const float *k, const float *v,
                   double *ret_y);
