/* unet — the noise estimator: latents, timestep, prompt context to an estimate of the noise.
 *
 * Any widths, 2 to 4 levels, attention or plain blocks at any of them, one in the middle or none,
 * 1 to 3 layers a block, any heads and groups; Stable Diffusion 1 and 2, inpainting, and models
 * that were distilled with their guidance as an input (LCM). Source: diffusers 0.6.0 and, for what
 * came later, 0.31.0 unet_2d_condition.py, unet_blocks.py; a down block's downsampler has the
 * block's output width (0.6.0 builds it wrongly when layers_per_block is 1). */
#pragma once

#include "vk/models/blocks.h"

#define UNET_LATENT_CHANNELS  4u
#define UNET_INPAINT_CHANNELS 9u /* latents, mask 1, the masked picture's latents 4 */

struct unet_config {
    uint32_t levels;
    uint32_t channels[MODEL_LEVELS_MAX];   /* block_out_channels */
    bool down_attention[MODEL_LEVELS_MAX]; /* CrossAttnDownBlock2D, in the order of the file */
    bool up_attention[MODEL_LEVELS_MAX];   /* CrossAttnUpBlock2D, likewise (deepest first) */
    bool lacks_middle;                     /* mid_block_type null: distilled models have none */
    uint32_t heads[MODEL_LEVELS_MAX];      /* attention_head_dim, which means heads */
    uint32_t layers;                       /* layers_per_block; up blocks have one more */
    uint32_t groups;
    float eps;
    uint32_t context_width;   /* cross_attention_dim */
    uint32_t in_channels;     /* 4, or 9 for inpainting */
    uint32_t out_channels;    /* 4: those of the latents */
    uint32_t time_width;      /* time_embedding_dim; 0: 4 * channels[0] */
    uint32_t condition_width; /* time_cond_proj_dim: the guidance is an input; 0: it is not */
    uint32_t sample_size;
    uint32_t downsample_padding; /* 1; 0: right and bottom only */
    bool flip_sin_to_cos;
    double freq_shift;
};

/* unet/config.json; diffusers' defaults where a key is absent. -EINVAL + fault naming the key. */
int unet_config_parse(const json_t *config, struct unet_config *ret_config, struct fault *f);

/* The transformers in execution order: whose context keys and values are pinned. */
#define UNET_TRANSFORMERS_MAX (MODEL_LEVELS_MAX * (2 * MODEL_LAYERS_MAX + 1) + 1)
struct unet_transformer {
    char scope[48]; /* "down_blocks.0.attentions.1" */
    uint32_t channels, heads;
};
uint32_t unet_transformers(const struct unet_config *config,
                           struct unet_transformer ret_list[UNET_TRANSFORMERS_MAX]);

/* Width of the sinusoidal timestep embedding: channels[0]. Fills `width` values for `timestep`: the
 * first half cosines and the second sines when flip_sin_to_cos. Source: embeddings.py
 * get_timestep_embedding. */
void unet_timestep_embedding(const struct unet_config *config, double timestep, float *ret_values);

/* The input that stands for guidance in a model with a condition_width: that many values. Such a
 * model is run once a step, without an unconditional half. Source: diffusers 0.31.0
 * pipeline_stable_diffusion.py get_guidance_scale_embedding. */
void unet_guidance_embedding(const struct unet_config *config, double guidance_scale,
                             float *ret_values);

/* Keys and values of every transformer: context f16 [B, tokens, 1, context_width] -> kv[i]
 * (pinned). */
void build_unet_context(struct graph *g, const struct unet_config *config, tensor context,
                        const tensor *kv);

struct unet_inputs {
    tensor latents;   /* f16 [B, h, w, in_channels] */
    tensor embedding; /* f16 [1, 1, 1, channels[0]] */
    tensor condition; /* f16 [1, 1, 1, condition_width]; 0 where there is none */
    const tensor *kv; /* one per transformer */
};
/* -> f32 [B, h, w, out_channels]. Labels: conv_in, down_blocks.<i>, mid_block, up_blocks.<i>, out.
 */
tensor build_unet(struct graph *g, const struct unet_config *config, const struct unet_inputs *in);
