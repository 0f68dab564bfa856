/* layernorm.h — constants of layernorm.comp. Included by C and GLSL. */
#ifndef ABI_LAYERNORM_H
#define ABI_LAYERNORM_H

#define LAYERNORM_SPEC_LX      0 /* lanes per row, a power of two */
#define LAYERNORM_SPEC_LY      1 /* rows per workgroup */
#define LAYERNORM_SPEC_F32_OUT 2
#define LAYERNORM_SPEC_X_F32   3
#define LAYERNORM_SPEC_COUNT   4

#define LAYERNORM_PUSH_ROWS  4
#define LAYERNORM_PUSH_C     5
#define LAYERNORM_PUSH_EPS   6 /* f32 bits */
#define LAYERNORM_PUSH_COUNT 7

#endif
