/* clip_vision — CLIP's picture encoder: patches of a picture to its embedding, as the safety
 * checker uses it.
 *
 * Patch, class and position embeddings, pre_layrnorm (the reference's spelling), the layers,
 * post_layernorm of the class token, visual_projection. Source: transformers 4.23.1
 * modeling_clip.py (CLIPVisionTransformer), diffusers 0.6.0 safety_checker.py. */
#pragma once

#include "vk/models/blocks.h"

#define CLIP_VISION_LAYERS_MAX 64u
#define CLIP_VISION_IMAGE_MAX  1024u /* pixels of a side */
#define CLIP_VISION_TOKENS_MAX 16385u

struct clip_vision_config {
    uint32_t hidden_size;       /* 768 */
    uint32_t intermediate_size; /* 3072 */
    uint32_t layers;            /* 12 */
    uint32_t heads;             /* 12 */
    uint32_t image_size;        /* 224; a side */
    uint32_t patch_size;        /* 32; pixels of the picture's rest are not looked at */
    uint32_t projection;        /* 512 */
    float eps;                  /* 1e-5 */
    enum activation activation; /* quick_gelu */
};

/* safety_checker/config.json: "vision_config_dict" where it is there, else "vision_config"; the
 * defaults above where a key is absent. -EINVAL + fault naming the key. */
int clip_vision_config_parse(const json_t *config, struct clip_vision_config *ret_config,
                             struct fault *f);

/* Patches of a side; tokens: the class token and the patches; values of a patch. */
static inline uint32_t clip_vision_grid(const struct clip_vision_config *c)
{
    return c->image_size / c->patch_size;
}

static inline uint32_t clip_vision_tokens(const struct clip_vision_config *c)
{
    return clip_vision_grid(c) * clip_vision_grid(c) + 1;
}

static inline uint32_t clip_vision_patch_values(const struct clip_vision_config *c)
{
    return 3 * c->patch_size * c->patch_size;
}

/* image f32 [image_size, image_size, 3] to the rows that build_clip_vision() reads:
 * [tokens][patch values padded to 8], row 0 and padding zero. Pure. */
void clip_vision_unfold(const struct clip_vision_config *config, const float *image,
                        float *ret_rows);

/* patches f32 [1, tokens, 1, patch values], first [1, tokens, 1, 1] (1 in row 0) -> f32 [1, tokens,
 * 1, projection], of which row 0 is the picture's embedding. Tensors "vision_model.vision_model.…"
 * and "visual_projection.weight". Labels: embeddings, pre, layers.<i>, post, out. */
tensor build_clip_vision(struct graph *g, const struct clip_vision_config *config, tensor patches,
                         tensor first);
