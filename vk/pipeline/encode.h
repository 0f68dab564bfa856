/* encode — a picture to the parameters of its posterior, through the VAE's encoder.
 *
 * Works on the session pipeline_prepare() made, whose width and height the picture has. The first
 * call of a session records the encoder's commands; memory is there already, weights are resident:
 * no file is touched. */
#pragma once

#include <stdatomic.h>

#include "vk/pipeline/pipeline.h"

/* pixels f32 [3, height, width] in -1…1 -> moments f32 [2 * latent_channels, h, w] with h = height
 * / factor: first the means, then the logarithms of the variances as the network gives them (the
 * reference clamps them to -30…20), unscaled: latents = scaling_factor * (mean + exp(logvar / 2) *
 * noise). The pixels are rounded to f16. Errors: those of recording_run() (-ECANCELED within one
 * submission), -ENOMEM. */
int encode_image(struct pipeline *p, const float *pixels, float *ret_moments,
                 const atomic_bool *cancel, struct fault *f);
