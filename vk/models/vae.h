/* vae — latents to pictures and back: AutoencoderKL.
 *
 * Source: diffusers 0.6.0 vae.py, unet_blocks.py (UNetMidBlock2D, UpDecoderBlock2D,
 * DownEncoderBlock2D), attention.py (AttentionBlock: one head, old and new tensor names). */
#pragma once

#include "vk/models/blocks.h"
#include "vk/models/vae_plane.h"

struct vae_config {
    uint32_t levels;
    uint32_t channels[MODEL_LEVELS_MAX]; /* block_out_channels */
    uint32_t layers;                     /* layers_per_block; the decoder has one more */
    uint32_t groups;
    uint32_t latent_channels; /* 4 */
    double scaling_factor;    /* 0.18215: latents are divided by it */
};

int vae_config_parse(const json_t *config, struct vae_config *ret_config, struct fault *f);

/* Picture pixels per latent, 2^(levels - 1). */
static inline uint32_t vae_factor(const struct vae_config *config)
{
    return 1u << (config->levels - 1);
}

/* Both take `limits` (NULL: none) as vae_plane.h says. Labels go to planes that are kept.
 *
 * Latents (already divided by the scaling factor) f16 [B, h, w, latent_channels] -> f32 [B, H, W,
 * 3] in about -1…1. Labels: post_quant_conv, decoder.conv_in, mid_block, up_blocks.<i>, out. */
tensor build_vae_decoder(struct graph *g, const struct vae_config *config, tensor latents,
                         const struct band_limits *limits);

/* A picture f16 [1, H, W, 3] in -1…1, H and W multiples of vae_factor() -> moments f32 [1, h, w,
 * 2 * latent_channels]: the posterior's mean, then the logarithm of its variance (not clamped); not
 * yet times the scaling factor. Downsampling pads right and bottom by one. Labels: conv_in,
 * down_blocks.<i>, mid_block, moments. */
tensor build_vae_encoder(struct graph *g, const struct vae_config *config, tensor image,
                         const struct band_limits *limits);
