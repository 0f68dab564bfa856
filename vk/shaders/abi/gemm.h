/* gemm.h — specialization constants and push constants of gemm.comp. Included by C and GLSL. */
#ifndef ABI_GEMM_H
#define ABI_GEMM_H

#define GEMM_LANES 8  /* along N; a lane owns 8 neighbouring columns, a block 64 */
#define GEMM_BLOCK 64 /* columns of a block of packed weights, weights.h */

/* Specialization constants. */
#define GEMM_SPEC_LY         0 /* rows of lanes per workgroup, each with a tile of its own */
#define GEMM_SPEC_TM         1 /* rows of the result per lane */
#define GEMM_SPEC_BI         2 /* order of the FMAs: BI x BJ accumulators run over 8 k at a time; */
#define GEMM_SPEC_BJ         3 /* BI divides TM, BJ divides 8 */
#define GEMM_SPEC_PICTURE    4 /* 0: a linear layer, row m of the result reads row m of x */
#define GEMM_SPEC_UPSAMPLE   5
#define GEMM_SPEC_SOURCES    6 /* 1 or 2 */
#define GEMM_SPEC_BIAS       7
#define GEMM_SPEC_ROW_ADD    8
#define GEMM_SPEC_RESIDUAL   9
#define GEMM_SPEC_GEGLU      10
#define GEMM_SPEC_F32_OUT    11
#define GEMM_SPEC_ACTIVATION 12 /* enum activation, op.h */
#define GEMM_SPEC_X_F32      13
#define GEMM_SPEC_RES_F32    14
#define GEMM_SPEC_LAST       15 /* after the residual */
#define GEMM_SPEC_COUNT      16

/* Push constants: 0…3 first uvec4 of slots 0…3, then: */
#define GEMM_PUSH_M              4 /* rows */
#define GEMM_PUSH_N              5 /* columns, a multiple of 8 */
#define GEMM_PUSH_K0             6 /* uvec4 per row and tap of slot 0 */
#define GEMM_PUSH_K1             7 /* … of slot 1 */
#define GEMM_PUSH_HEIGHT         8
#define GEMM_PUSH_WIDTH          9
#define GEMM_PUSH_IN_HEIGHT      10 /* in memory */
#define GEMM_PUSH_IN_WIDTH       11
#define GEMM_PUSH_SEEN_HEIGHT    12 /* of the picture the taps see: the input or its enlargement */
#define GEMM_PUSH_SEEN_WIDTH     13
#define GEMM_PUSH_TAPS_H         14
#define GEMM_PUSH_TAPS_W         15
#define GEMM_PUSH_STRIDE         16
#define GEMM_PUSH_PAD_TOP        17
#define GEMM_PUSH_PAD_LEFT       18
#define GEMM_PUSH_ROW_ADD_OFFSET 19
#define GEMM_PUSH_SCALE          20 /* f32 bits */
#define GEMM_PUSH_COUNT          21

#endif
