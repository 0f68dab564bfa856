/* peak.h — constants of peak_scalar.comp and peak_vec4.comp. Included by C and GLSL. */
#ifndef ABI_PEAK_H
#define ABI_PEAK_H

#define PEAK_SPEC_LX    0 /* lanes */
#define PEAK_SPEC_COUNT 1

#define PEAK_PUSH_ROUNDS 4
#define PEAK_PUSH_COUNT  5

#define PEAK_CHAINS        12 /* independent, per lane */
#define PEAK_FMA_PER_ROUND 96 /* per lane: each chain eight times */

#endif
