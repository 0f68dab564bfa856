/* step.h — one row of the step table on the device (32 f32; row k belongs to scheduler call k) and
 * the planes of the state, both read by latent_in and sampler_step. vk/sample/sched.h has the
 * formula, vk/pipeline/step_row.h fills a row. Included by C and GLSL. */
#ifndef ABI_STEP_H
#define ABI_STEP_H

#define STEP_ROW_FLOATS  32
#define STEP_TIMESTEP    0 /* for people; its embedding is a table of its own */
#define STEP_INPUT_SCALE 1
#define STEP_GUIDANCE    2
#define STEP_CONV_X      3
#define STEP_CONV_M      4
#define STEP_CLIP        5 /* 0: none */
#define STEP_X_SCALE     6
#define STEP_PLAIN_X     7
#define STEP_M_SCALE     8
#define STEP_E_SCALE     9 /* 9…12: newest estimate first */
#define STEP_SUM_SCALE   13
#define STEP_NOISE_SCALE 14
#define STEP_SUM_KEEP    15
#define STEP_SUM_E       16
#define STEP_USE_SAVED   17 /* 0 or 1 */
#define STEP_SAVE        18
#define STEP_PUSH        19
#define STEP_CLEAN_X     20
#define STEP_CLEAN_M     21
#define STEP_KEEP_IMAGE  22
#define STEP_KEEP_NOISE  23

/* The state is f32 groups of [c, hw], c the latents' channels. */
#define STATE_X     0
#define STATE_SAVED 1
#define STATE_E     2 /* 2…4: older estimates, newest first */
#define STATE_SUM   5
#define STATE_NOISE 6 /* this call's draw, where its row has a noise scale */
#define STATE_CLEAN 7 /* written: the estimate of the finished latents */
#define STATE_PLAIN 8 /* groups without inpainting */

/* Masked inpainting (4-channel U-Net). */
#define STATE_MASK           8 /* plane 0 only: [hw], 1 = paint, 0 = keep */
#define STATE_ORIGINAL       9
#define STATE_ORIGINAL_NOISE 10
#define STATE_MASKED         11 /* groups with masked inpainting */

/* An inpainting U-Net: its extra planes (mask, then the masked picture's latents: 1 + c planes of
 * [hw]) lie where STATE_EXTRA begins, two groups. */
#define STATE_EXTRA    8
#define STATE_EXTENDED 10 /* groups with extra planes */

#endif
