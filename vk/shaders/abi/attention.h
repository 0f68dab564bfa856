/* attention.h — constants of attention.comp. Included by C and GLSL. */
#ifndef ABI_ATTENTION_H
#define ABI_ATTENTION_H

#define ATTENTION_SPEC_LX     0 /* lanes along the queries */
#define ATTENTION_SPEC_TQ     1 /* queries per lane */
#define ATTENTION_SPEC_BC     2 /* keys per block */
#define ATTENTION_SPEC_DV     3 /* uvec4 of the result an invocation keeps: a slice of the head */
#define ATTENTION_SPEC_CAUSAL 4
#define ATTENTION_SPEC_COUNT  5

#define ATTENTION_PUSH_HEADS    4
#define ATTENTION_PUSH_Q_TOKENS 5
#define ATTENTION_PUSH_K_TOKENS 6
#define ATTENTION_PUSH_D        7 /* uvec4 per head */
#define ATTENTION_PUSH_Q_STRIDE 8
#define ATTENTION_PUSH_K_STRIDE 9
#define ATTENTION_PUSH_V_STRIDE 10
#define ATTENTION_PUSH_Q_OFFSET 11
#define ATTENTION_PUSH_K_OFFSET 12
#define ATTENTION_PUSH_V_OFFSET 13
#define ATTENTION_PUSH_SCALE    14 /* f32 bits: scale * log2(e) */
#define ATTENTION_PUSH_COUNT    15

#endif
