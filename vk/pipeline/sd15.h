/* sd15 — Stable Diffusion 1.5's shape, for what is planned or measured without its files. */
#pragma once

#include "vk/pipeline/model.h"

extern const struct model sd15; /* no directory, tokenizer or scheduler */
