/* preview — a rough picture straight from latents: each pixel is a linear map of its latent.
 *
 * The map is fitted (least squares) to what the model's own decoder makes of latents: first of made
 * up ones, and, where the caller adds them, of pictures that were drawn anyway. Smooth latents are
 * what a decoder is made for: in white noise every latent has strangers for neighbours, and the map
 * comes out pale. On the demo model, against decoded pictures of its kind reduced to latents' size,
 * a fit to themselves is off by 0.067 (RMS of 1), to preview_probe() by 0.093 to 0.097, to white
 * noise by 0.12. Pure; a fit costs one decode, of any size. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PREVIEW_CHANNELS 4 /* of latents, as the VAE has them */

/* rgb[c] in 0…1 = bias[c] + sum over k of weights[c][k] * latent[k] */
struct preview_map {
    float weights[3][PREVIEW_CHANNELS], bias[3];
};

/* What a fit has seen, as sums; all-zero has seen nothing. */
struct preview_fit {
    double products[PREVIEW_CHANNELS + 1][PREVIEW_CHANNELS + 1]; /* of latents and 1 */
    double targets[3][PREVIEW_CHANNELS + 1];                     /* of them and the colours */
};

/* Latents for a first fit, f32 [PREVIEW_CHANNELS, height, width], scaled as the sampler has them:
 * normal numbers on a grid four latents apart, in between by straight lines; always the same. */
void preview_probe(uint32_t height, uint32_t width, float *ret_latents);

/* Adds one decoded picture: latents f32 [PREVIEW_CHANNELS, height, width] and rgb f32 [height *
 * factor, width * factor, 3] in 0…1; each latent counts with the mean of its square. */
void preview_fit_add(struct preview_fit *fit, const float *latents, uint32_t height, uint32_t width,
                     uint32_t factor, const float *rgb);

/* The best map for what was added. Directions that nothing was said about get weight 0: a fit that
 * has seen nothing is black. */
void preview_fit_solve(const struct preview_fit *fit, struct preview_map *ret_map);

/* latents f32 [PREVIEW_CHANNELS, height, width] -> RGB [height, width, 3]. NaN becomes 0. */
void preview_apply(const struct preview_map *map, const float *latents, uint32_t height,
                   uint32_t width, uint8_t *ret_rgb);

/* RGB [height, width, 3] -> [height * factor, width * factor, 3], bicubic. 0 or -ENOMEM. */
int preview_enlarge(const uint8_t *rgb, uint32_t height, uint32_t width, uint32_t factor,
                    uint8_t *ret_rgb);
