/* sampler_step.h — constants of sampler_step.comp. Included by C and GLSL. */
#ifndef ABI_SAMPLER_STEP_H
#define ABI_SAMPLER_STEP_H

#define SAMPLER_STEP_SPEC_LX     0 /* lanes */
#define SAMPLER_STEP_SPEC_GUIDED 1 /* batch 2: unconditional and conditional */
#define SAMPLER_STEP_SPEC_MASKED 2 /* masked inpainting: kept areas are put back */
#define SAMPLER_STEP_SPEC_COUNT  3

#define SAMPLER_STEP_PUSH_HW    4
#define SAMPLER_STEP_PUSH_C     5
#define SAMPLER_STEP_PUSH_COUNT 6

#endif
