/* loras — the files of a request's row `lora`, looked for before the job waits: NAME or
 * NAME.safetensors in one directory. The engine says what is wrong with their content, when the job
 * runs. */
#pragma once

#include "vk/base/fault.h"

/* `text`: the row's, may be NULL. -EINVAL for what is no name or weight, or a file that cannot be
 * read; f names it. */
int loras_check(const char *text, const char *directory, struct fault *f);
