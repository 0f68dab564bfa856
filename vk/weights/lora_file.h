/* lora_file — an open LoRA, checked against the model it is for: W' = W + scale * weight * up down.
 *
 * Every tensor of the file must belong to a module of the model, each module must have `down` and
 * `up` of its weight's shape, and nothing else may be there. Values are read when they are needed.
 * Pickles are refused by name. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/weights/lora_names.h"

#define LORA_RANK_MAX 4096u

struct safetensors_tensor;

struct lora_module {
    uint32_t part; /* of the weights */
    uint32_t rank;
    float scale; /* alpha / rank; 1 without alpha */
    const struct safetensors_tensor *down, *up, *alpha;
};

struct lora_file;

/* `label` begins the faults. -ENOENT, -EINVAL + fault naming tensor, what is there and what was
 * wanted; -ENOMEM. */
int lora_file_open(const char *path, const char *label, const struct weights *w,
                   const struct lora_names *names, struct lora_file **ret_file, struct fault *f);
struct lora_file *lora_file_close(struct lora_file *file);
DEFINE_FREEP(struct lora_file *, lora_file_close)

size_t lora_file_count(const struct lora_file *file);
const struct lora_module *lora_file_module(const struct lora_file *file, size_t index);

/* -EPERM + fault: others than root and this user own or may write it. */
int lora_file_check_owner(const struct lora_file *file, struct fault *f);

/* A module's numbers: down [rank, columns], up [rows, rank], f32. -EINVAL + fault: not finite. */
struct lora_matrices {
    float *down, *up;
    uint32_t rank;
    uint64_t columns;
};
int lora_file_read(struct lora_file *file, size_t index, const struct weights *w,
                   struct lora_matrices *ret_matrices, struct fault *f);
void lora_matrices_done(struct lora_matrices *m);

/* values [rows, columns] += factor * up[first … first + rows - 1] down. Pure. */
void lora_add(const struct lora_matrices *m, float factor, uint32_t first, uint32_t rows,
              float *values);
