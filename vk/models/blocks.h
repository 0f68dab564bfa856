/* blocks — what U-Net and VAE share: residual blocks, resampling, the transformer of a U-Net level.
 *
 * Names and order follow diffusers 0.6.0 (resnet.py, attention.py, unet_blocks.py). All activations
 * f16 [B, H, W, C]. Errors stay in the graph (build.h). */
#pragma once

#include "vk/base/json.h"
#include "vk/graph/build.h"

#define MODEL_LEVELS_MAX 4u
#define MODEL_LAYERS_MAX 3u
#define MODEL_WIDTH_MAX  16384u

/* ResnetBlock2D: norm1, SiLU, conv1 (+ time embedding), norm2, SiLU, conv2, + x or
 * conv_shortcut(x). */
struct resnet_params {
    uint32_t out;
    uint32_t groups;
    float eps;
    tensor concat;        /* skip connection whose channels follow x's, or 0 */
    tensor time;          /* f32 [1, all resnets' channels], or 0 (VAE) */
    uint32_t time_offset; /* this resnet's first element in it */
};
tensor build_resnet(struct graph *g, tensor x, const struct resnet_params *p);

/* SpatialTransformer with one BasicTransformerBlock. `context_kv` holds the context's keys and
 * values of this block, f16 [B, tokens, 1, 2 * padded heads]: constant per job, made by
 * build_context_kv(). */
struct transformer_params {
    uint32_t heads;
    uint32_t groups;
    tensor context_kv;
};
tensor build_transformer(struct graph *g, tensor x, const struct transformer_params *p);

/* Keys and values of `context` for the transformer in scope (width `channels`), written to `into`.
 */
void build_context_kv(struct graph *g, tensor context, uint32_t channels, uint32_t heads,
                      tensor into);

/* Padded channels of one of q, k, v of a width in heads. */
static inline uint32_t heads_padded(uint32_t channels, uint32_t heads)
{
    return heads * pad8(channels / heads);
}

/* --- configuration files ---------------------------------------------------------------------- */

/* A key that must have one value, because nothing else is built. A list must hold nothing else. */
struct config_fixed {
    const char *key;
    enum {
        CONFIG_NULL,
        CONFIG_FALSE,
        CONFIG_TRUE,
        CONFIG_ONE,
        CONFIG_THREE,
        CONFIG_SILU, /* or its other name, swish */
        CONFIG_DEFAULT,
        CONFIG_POSITIONAL,
        CONFIG_MID_CROSS_ATTENTION,
        CONFIG_UNET_CLASS,
        CONFIG_VAE_CLASS,
    } value;
};

/* Checks that every key is absent, null or has its value: -EINVAL + fault naming the key. */
int config_check_fixed(const json_t *config, const struct config_fixed *rows, size_t count,
                       struct fault *f);
