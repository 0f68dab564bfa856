/* lora_names — what the tensors of a LoRA file are called, and which weight each is for.
 *
 * Three families of names, all brought to the first one's form, which is unambiguous because it is
 * only ever compared with the names of weights that a model has:
 *     kohya      lora_unet_down_blocks_0_attentions_0_…_attn1_to_q.lora_down.weight, .lora_up
 *                .weight, .alpha; lora_te_text_model_encoder_layers_0_self_attn_q_proj.…;
 *                modules of the U-Net also under LDM's names (lora_unet_input_blocks_1_1_…)
 *     diffusers  unet.down_blocks.0.….attn1.to_q.lora.down.weight, …attn1.processor.to_q_lora
 *                .down.weight, with or without "unet."; text_encoder.….q_proj.lora_linear_layer
 *                .up.weight
 *     PEFT       unet.….to_q.lora_A.weight, .lora_B.weight, also with base_model.model. in front
 * Source: kohya-ss sd-scripts networks/lora.py; diffusers 0.6.0 to 0.31.0 loaders; peft 0.13. */
#pragma once

#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/weights/weights.h"

#define LORA_NAME_MAX 320u /* bytes */

enum lora_role {
    LORA_DOWN,    /* [rank, columns of the weight] */
    LORA_UP,      /* [rows of the weight, rank] */
    LORA_ALPHA,   /* a number: the scale is alpha / rank */
    LORA_FOREIGN, /* of a relative that is not supported: LoHa, LoKr, DoRA, … */
    LORA_NO_ROLE, /* no name of a LoRA's tensor */
};

/* What a tensor is, and the module it belongs to in kohya's form. Pure. */
enum lora_role lora_parse_name(const char *tensor, char ret_module[LORA_NAME_MAX]);

/* The modules of a model: kohya's names of its matrices. */
struct lora_names;
int lora_names_new(const struct weights *w, struct lora_names **ret_names, struct fault *f);
struct lora_names *lora_names_free(struct lora_names *names);
DEFINE_FREEP(struct lora_names *, lora_names_free)

/* The part (weights_part()) of that module: 0 and *ret_part, or -ENOENT. */
int lora_names_find(const struct lora_names *names, const char *module, uint32_t *ret_part);
