/* groupnorm_merge.h — constants of groupnorm_merge.comp. Included by C and GLSL. */
#ifndef ABI_GROUPNORM_MERGE_H
#define ABI_GROUPNORM_MERGE_H

#define GROUPNORM_MERGE_SPEC_LX    0 /* lanes */
#define GROUPNORM_MERGE_SPEC_COUNT 1

#define GROUPNORM_MERGE_PUSH_HW     4
#define GROUPNORM_MERGE_PUSH_PIXELS 5 /* per part */
#define GROUPNORM_MERGE_PUSH_PARTS  6
#define GROUPNORM_MERGE_PUSH_GROUPS 7
#define GROUPNORM_MERGE_PUSH_ROW    8 /* vec2 from one part to the next */
#define GROUPNORM_MERGE_PUSH_EPS    9 /* f32 bits */
#define GROUPNORM_MERGE_PUSH_COUNT  10

#endif
