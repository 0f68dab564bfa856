/* tiny — a model's small VAE (vk/models/taesd.h) on a device: taesd/ in the model directory.
 *
 * A few megabytes, resident as long as the model is. */
#pragma once

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/gpu/gpu.h"
#include "vk/models/taesd.h"
#include "vk/weights/weights.h"

struct tiny {
    struct taesd_config config;
    struct weights *weights;
};

/* Reads taesd/config.json and the weights' headers; *ret_tiny is NULL, and 0 returned, for a model
 * without taesd/. Errors: -EINVAL, -ENOENT, -ENOMEM; f names file, key or tensor. */
int tiny_open(const char *model_directory, struct tiny **ret_tiny, struct fault *f);
/* Brings the weights to the device. */
int tiny_load(struct tiny *t, struct gpu *gpu, struct fault *f);
struct tiny *tiny_free(struct tiny *t);
DEFINE_FREEP(struct tiny *, tiny_free)
