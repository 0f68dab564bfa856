/* lora — LoRAs merged into the weights on the device, and taken out again bit by bit.
 *
 * W' = W + sum of weight * alpha / rank * up down is computed in f32 from the files and packed over
 * the weight; taking it out packs the file's own numbers again, so nothing is kept beside the
 * weights but a list of what was touched. Only what the set of LoRAs changes is read. The model's
 * files are the ones that were opened with it; one that was rewritten since is noticed. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/gpu/gpu.h"
#include "vk/weights/weights.h"

struct lora_options {
    const char *directory; /* where NAME.safetensors are; NULL: none but paths */
    /* A name may be a path, as seen from this directory ("": from here) or from here, with or
     * without .safetensors; NULL: it may not. Paths go before names. */
    const char *beside;
    bool strict_owner; /* refuse (-EPERM) files that others than root and this user may write */
};

struct lora_state;

/* `w` is loaded, without any LoRA; both stay the caller's. Strings are copied. -ENOMEM. */
int lora_new(struct weights *w, struct gpu *gpu, const struct lora_options *options,
             struct lora_state **ret_state, struct fault *f);
struct lora_state *lora_free(struct lora_state *l);
DEFINE_FREEP(struct lora_state *, lora_free)

/* Makes the weights those of the model with the LoRAs of `spec` (request_loras()); NULL or "":
 * without any. Nothing is done when they are that already. To be called
 * between pictures; what was computed from the weights before (embeddings of prompts) is void when
 * lora_id() changes. `cancel` (may be NULL) is looked at before each megabyte that is merged; what
 * only takes out is done to the end. Errors leave the weights as they are or without any LoRA:
 * -EINVAL, -ENOENT, -EPERM (spec, or a file: f names it and the tensor), -ERANGE a sum beyond half
 * precision, -ECANCELED, -ENOMEM, -EIO the device is lost, -ESTALE a file of the model changed.
 * -EBADMSG, and from then on always: the weights could not be put back, or are not what they were;
 * the model must be opened again. */
int lora_apply(struct lora_state *l, const char *spec, const atomic_bool *cancel, struct fault *f);

/* Names the weights as they are: 0 as in the files, else a number that no other set of LoRAs gets.
 */
uint64_t lora_id(const struct lora_state *l);

/* Of the weights with the LoRAs that are merged now (weights_sum()), taken when they were merged;
 * NULL without any. */
const uint8_t *lora_sum(const struct lora_state *l);
