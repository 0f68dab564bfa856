/* decode — latents to pictures.
 *
 * Works on the session pipeline_prepare() made. How (whole, in bands, planes made again) was chosen
 * with it (fit.h); submissions end after every launch of weight, so a cancellation waits for one
 * band's convolution at most, and engine_progress() moves on within a band. */
#pragma once

#include <stdatomic.h>

#include "vk/pipeline/pipeline.h"

/* The latents of the session's state (not yet divided by the scaling factor) -> the picture f32
 * [height, width, 3] in 0…1. `values` has room for session.image_size bytes and is overwritten: the
 * picture lies at its begin. Errors: those of recording_run(). */
int decode_picture(struct pipeline *p, float *values, const atomic_bool *cancel, struct fault *f);

/* A rough picture of latents on their way: f32 [latent_channels, h, w] as the sampler has them (the
 * estimate of the clean ones) -> RGB [height, width, 3]. Between two steps: the session's pinned
 * tensors stay as they are. By the model's small VAE where there is one; else by a linear map,
 * which the first call of a pipeline fits with one decode of 16 x 16 latents (preview.h). The first
 * call of a session records the small VAE's commands. Errors: those of recording_run(). */
int decode_preview(struct pipeline *p, const float *latents, uint8_t *ret_rgb,
                   const atomic_bool *cancel, struct fault *f);
