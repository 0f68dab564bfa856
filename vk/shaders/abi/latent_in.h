/* latent_in.h — constants of latent_in.comp. Included by C and GLSL. */
#ifndef ABI_LATENT_IN_H
#define ABI_LATENT_IN_H

#define LATENT_IN_SPEC_LX      0 /* lanes */
#define LATENT_IN_SPEC_BY_STEP 1
#define LATENT_IN_SPEC_COUNT   2

#define LATENT_IN_PUSH_HW    4
#define LATENT_IN_PUSH_C     5
#define LATENT_IN_PUSH_BATCH 6
#define LATENT_IN_PUSH_SCALE 7 /* f32 bits */
#define LATENT_IN_PUSH_EXTRA 8 /* planes appended as they are */
#define LATENT_IN_PUSH_AT    9 /* the first of them, in planes from the start of x */
#define LATENT_IN_PUSH_COUNT 10

#endif
