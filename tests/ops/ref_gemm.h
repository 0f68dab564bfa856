/* ref_gemm — what gemm must compute, in double, straight from the definition in op.h. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/ops/op.h"

struct ref_gemm {
    const float *x0, *x1;  /* [batch, in_height, in_width, k0 or k1] */
    const float *w;        /* [n][taps_h][taps_w][k0 + k1]; geglu: values' rows, then gates' */
    const float *bias;     /* [n], as w */
    const float *row_add;  /* from row_add_offset on: [n] */
    const float *residual; /* [M, n] */
};

/* ret_y: [M, n], with geglu [M, n / 2]. */
void ref_gemm(const struct gemm_args *a, const struct ref_gemm *in, double *ret_y);

/* w as weights.h packs it: f16 [N/64][tap][K/8][j 8][lane 8][8]; malloc'd, *ret_size bytes. */
uint16_t *ref_gemm_pack(const struct gemm_args *a, const float *w, size_t *ret_size);

/* A vector in the order of the packed columns, padded to 64; malloc'd. */
float *ref_gemm_pack_vector(const struct gemm_args *a, const float *v, size_t *ret_size);

double ref_activation(enum activation kind, double x);
