/* groupnorm_apply.h — constants of groupnorm_apply.comp. Included by C and GLSL. */
#ifndef ABI_GROUPNORM_APPLY_H
#define ABI_GROUPNORM_APPLY_H

#define GROUPNORM_APPLY_SPEC_LX      0 /* lanes */
#define GROUPNORM_APPLY_SPEC_SOURCES 1
#define GROUPNORM_APPLY_SPEC_SILU    2
#define GROUPNORM_APPLY_SPEC_X_F32   3
#define GROUPNORM_APPLY_SPEC_COUNT   4

#define GROUPNORM_APPLY_PUSH_HW     4
#define GROUPNORM_APPLY_PUSH_C0     5
#define GROUPNORM_APPLY_PUSH_C1     6
#define GROUPNORM_APPLY_PUSH_GROUPS 7
#define GROUPNORM_APPLY_PUSH_PIXELS 8 /* per invocation */
#define GROUPNORM_APPLY_PUSH_COUNT  9

#endif
