/* vae — latents to pictures: AutoencoderKL's decoder.
 *
 * Source: diffusers 0.6.0 vae.py, unet_blocks.py (UNetMidBlock2D, UpDecoderBlock2D), attention.py
 * (AttentionBlock: one head, old and new tensor names). The encoder's tensors are checked, not used
 * yet. */
#pragma once

#include "vk/models/blocks.h"

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

/* Latents (already divided by the scaling factor) f16 [B, h, w, latent_channels] -> f32 [B, H, W,
 * 3] in about -1…1. Labels: post_quant_conv, decoder.conv_in, mid_block, up_blocks.<i>, out. */
tensor build_vae_decoder(struct graph *g, const struct vae_config *config, tensor latents);

/* Declares the encoder's and quant_conv's tensors as known and checked. The graph gains nodes of no
 * use: give it one of its own. */
void build_vae_encoder_checks(struct graph *g, const struct vae_config *config);
