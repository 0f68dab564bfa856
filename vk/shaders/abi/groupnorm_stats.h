/* groupnorm_stats.h — constants of groupnorm_stats.comp. Included by C and GLSL. */
#ifndef ABI_GROUPNORM_STATS_H
#define ABI_GROUPNORM_STATS_H

#define GROUPNORM_STATS_SPEC_LX      0 /* lanes, a power of two */
#define GROUPNORM_STATS_SPEC_SOURCES 1
#define GROUPNORM_STATS_SPEC_X_F32   2
#define GROUPNORM_STATS_SPEC_IS_PART 3
#define GROUPNORM_STATS_SPEC_COUNT   4

#define GROUPNORM_STATS_PUSH_HW     4
#define GROUPNORM_STATS_PUSH_C0     5
#define GROUPNORM_STATS_PUSH_C1     6
#define GROUPNORM_STATS_PUSH_GROUPS 7
#define GROUPNORM_STATS_PUSH_EPS    8 /* f32 bits */
#define GROUPNORM_STATS_PUSH_COUNT  9

#endif
