/* clip_text — CLIP's text encoder: token ids to the last hidden state after the final norm.
 *
 * Causal, no padding mask, as the reference runs it. Source: transformers 4.23.1 modeling_clip.py
 * (CLIPTextTransformer). */
#pragma once

#include "vk/models/blocks.h"

#define CLIP_TEXT_LAYERS_MAX 48u

struct clip_text_config {
    uint32_t vocab_size;        /* 49408 */
    uint32_t hidden_size;       /* 512 */
    uint32_t intermediate_size; /* 2048 */
    uint32_t layers;            /* 12 */
    uint32_t heads;             /* 8 */
    uint32_t positions;         /* 77 */
    float eps;                  /* 1e-5 */
    enum activation activation; /* quick_gelu */
};

/* text_encoder/config.json; the defaults above where a key is absent. -EINVAL + fault naming the
 * key. */
int clip_text_config_parse(const json_t *config, struct clip_text_config *ret_config,
                           struct fault *f);

struct clip_text_inputs {
    tensor ids;   /* u32 [R, tokens, 1, 1], tokens <= positions */
    tensor words; /* pinned f16 [any, hidden_size]: the rows of ids from first_word on; 0: none */
    uint32_t first_word;
    uint32_t skip; /* the last layers left out: below or equal to config->layers */
    tensor into;   /* pinned result, or 0 */
};

/* -> f16 (or as `into`) [R, tokens, 1, hidden_size]: the hidden state `skip` layers before the
 * last, after the final norm. Labels: layers.<i>, out. */
tensor build_clip_text(struct graph *g, const struct clip_text_config *config,
                       const struct clip_text_inputs *in);
