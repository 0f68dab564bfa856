/* taesd — the small VAE for previews: AutoencoderTiny.
 *
 * Convolutions, rectifiers, additions; no norms, no attention: a twentieth of the VAE's work.
 * Source: diffusers 0.31.0 autoencoders/autoencoder_tiny.py, vae.py (EncoderTiny, DecoderTiny),
 * unet_2d_blocks.py (AutoencoderTinyBlock). */
#pragma once

#include "vk/models/blocks.h"
#include "vk/models/vae_plane.h"

struct taesd_side {
    uint32_t levels;
    uint32_t channels[MODEL_LEVELS_MAX]; /* (en|de)coder_block_out_channels; all the same */
    uint32_t blocks[MODEL_LEVELS_MAX];   /* num_(en|de)coder_blocks */
};

struct taesd_config {
    struct taesd_side encoder, decoder;
    uint32_t latent_channels; /* 4 */
    double scaling_factor;    /* 1: latents as the sampler has them */
};

int taesd_config_parse(const json_t *config, struct taesd_config *ret_config, struct fault *f);

/* Picture pixels per latent. */
static inline uint32_t taesd_factor(const struct taesd_config *config)
{
    return 1u << (config->decoder.levels - 1);
}

/* Latents after taesd_squash() f16 [1, h, w, latent_channels] -> f32 [1, H, W, 3] in about 0…1 (the
 * reference then maps that to -1…1). `limits` as in vae.h. Label: out. */
tensor build_taesd_decoder(struct graph *g, const struct taesd_config *config, tensor latents,
                           const struct band_limits *limits);

/* A picture f16 [1, H, W, 3] in 0…1 -> latents f32 [1, h, w, latent_channels]. Label: latents. */
tensor build_taesd_encoder(struct graph *g, const struct taesd_config *config, tensor image,
                           const struct band_limits *limits);

/* What the decoder does to latents first: 3 tanh(x / 3). */
float taesd_squash(float latent);
