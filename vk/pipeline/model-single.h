/* model-single — the configurations of a single-file checkpoint (vk/weights/single.h), as the files
 * of a Hugging Face directory would say them: from shapes, from what is usual, from model.json.
 *
 * Usual, because no shape tells: groups = gcd(32, every width of the network); heads of the U-Net
 * gcd(8, width) a level in Stable Diffusion 1, of gcd(64, width) channels in 2 and in the text
 * encoders (so 8, 64 and 32 groups in models of the published widths); quick_gelu in CLIP, gelu in
 * OpenCLIP; PNDM and epsilon, or DDIM and v at 96 latents a side for version 2 that is neither for
 * inpainting nor says global_step 875000 (its 512-pixel base).
 *
 * model.json, an object, overrides: the sections "unet", "vae", "text_encoder", "scheduler" hold
 * keys of the Hugging Face files; a key at the top is put where its name says (table in
 * model-single.c), and one that is not known is refused. */
#pragma once

#include "vk/base/json.h"
#include "vk/weights/single.h"

enum single_config {
    SINGLE_TEXT,
    SINGLE_UNET,
    SINGLE_VAE,
    SINGLE_SCHEDULER,
    SINGLE_CONFIG_COUNT,
};

struct single_configs {
    json_t *of[SINGLE_CONFIG_COUNT]; /* objects */
    bool is_overridden;              /* there is a model.json */
    bool has_pad_token;              /* which says pad_token_id */
    uint32_t pad_token;
};

/* `directory`: of model.json. -EINVAL + fault naming file and key, -ENOMEM. */
int single_configs_make(const char *directory, const struct single_facts *facts,
                        struct single_configs *ret_configs, struct fault *f);
void single_configs_done(struct single_configs *configs);
