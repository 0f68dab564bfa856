/* loras — the names in a request's row `lora`: "NAME[:weight],…".
 *
 * A name is that of a file NAME.safetensors in the directory of [model] loras, and nothing else: no
 * path, nothing hidden. */
#pragma once

#include "vk/base/fault.h"

#define LORAS_MAX     8u   /* of one request */
#define LORA_NAME_MAX 128u /* bytes */

/* Turns every NAME into DIRECTORY/NAME.safetensors, the weights stay: malloc'd into *ret_text. An
 * empty or NULL text gives an empty one. -EINVAL for what is no name or weight, and where there is
 * no directory (NULL, empty, or one whose path holds ',' or ':'); -ENOENT for a file that is not
 * there; -ENOMEM. f names the LoRA. */
int loras_resolve(const char *text, const char *directory, char **ret_text, struct fault *f);
