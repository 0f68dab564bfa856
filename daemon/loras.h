/* loras — the names in a request's row `lora`: "NAME[:weight],…", looked at before the job waits.
 *
 * A name is that of a file NAME.safetensors in a directory, and nothing else: no path, nothing
 * hidden. The engine says what is wrong with its content, when the job runs. */
#pragma once

#include "vk/base/fault.h"

#define LORAS_MAX     16u  /* of one request, as the engine has it */
#define LORA_NAME_MAX 128u /* bytes */

/* An empty or NULL text names none. -EINVAL for what is no name or weight, or a file that cannot be
 * read; f names it. */
int loras_check(const char *text, const char *directory, struct fault *f);
