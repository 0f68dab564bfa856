/* safetensors_write — writes safetensors files: for tests, for render's tensors, for made-up
 * models.
 *
 * Tensors lie in the order given, without gaps, as the format wants. Names and strings are written
 * as they are: no quotes, no control characters. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/base/fault.h"

#define SAFETENSORS_ITEM_DIMS 8

struct safetensors_item {
    const char *name;
    const char *dtype; /* "F32", "F16", "BF16", "I32", "I64", "U8" … */
    uint32_t rank;
    uint64_t dims[SAFETENSORS_ITEM_DIMS];
    const void *data; /* product of dims elements, C order, little endian */
};

/* Bytes of the tensor's data; 0 for an unknown dtype. */
uint64_t safetensors_item_size(const struct safetensors_item *item);

/* Writes header and data to `path`, over what was there. */
int safetensors_write(const char *path, const struct safetensors_item *items, size_t count,
                      struct fault *f);

/* Only the length and the header, padded with blanks so that data starts at a multiple of 8: the
 * caller writes the tensors after it, in order. `data` of the items is not read. */
int safetensors_write_header(int fd, const struct safetensors_item *items, size_t count,
                             struct fault *f);
