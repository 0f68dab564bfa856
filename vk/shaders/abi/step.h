/* step.h — one row of the step table on the device: 16 f32, read by latent_in and sampler_step.
 * Included by C and GLSL. Row k belongs to scheduler call k. */
#ifndef ABI_STEP_H
#define ABI_STEP_H

#define STEP_ROW_FLOATS  16
#define STEP_TIMESTEP    0 /* for people; its embedding is a table of its own */
#define STEP_INPUT_SCALE 1
#define STEP_X_SCALE     2
#define STEP_E_SCALE     3 /* 3…6: newest estimate first */
#define STEP_USE_SAVED   7 /* 0 or 1 */
#define STEP_SAVE        8
#define STEP_PUSH        9
#define STEP_GUIDANCE    10
#define STEP_CLIP        11
#define STEP_CLIP_X      12
#define STEP_CLIP_E      13

#endif
