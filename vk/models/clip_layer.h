/* clip_layer — one layer of CLIP's transformers, of the text's and of the picture's alike:
 * h + attention(layer_norm1(h)), then + mlp(layer_norm2(.)).
 *
 * Names and order follow transformers 4.23.1 modeling_clip.py (CLIPEncoderLayer). */
#pragma once

#include "vk/models/blocks.h"

struct clip_layer {
    uint32_t width, intermediate, heads; /* width divides into heads */
    float eps;                           /* of both norms */
    enum activation activation;
    bool causal; /* a token sees no later one */
    bool wide;   /* f32 between norms and linear layers, where it costs little: few rows */
};

/* h [B, tokens, 1, width] -> the same, in the scope of the layer. Errors stay in the graph. */
tensor build_clip_layer(struct graph *g, const struct clip_layer *layer, tensor h);

/* "hidden_act" of a configuration: quick_gelu (when absent) or gelu. -EINVAL + fault. */
int clip_parse_activation(const json_t *config, enum activation *ret_activation, struct fault *f);
