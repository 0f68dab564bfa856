/* safetensors — a file of named tensors, read with suspicion.
 *
 * 8 bytes little-endian N, N bytes of JSON, data. Refused: N over 16 MiB or beyond the file, a header that
 * does not begin with '{', nesting over 4, duplicate keys, keys other than dtype, shape, data_offsets,
 * dtypes not in the list, fractions or exponents where integers belong, more than 8192 tensors, names over
 * 256 bytes or with control characters, more than 8 dimensions, products that overflow, tensors that
 * overlap or leave holes, bytes after the last one, metadata that is not string to string.
 * Source: the format's README (huggingface/safetensors); the limits are ours. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define SAFETENSORS_MAX_HEADER (16u << 20)
#define SAFETENSORS_MAX_DEPTH  4u
#define SAFETENSORS_MAX_COUNT  8192u
#define SAFETENSORS_MAX_NAME   256u
#define SAFETENSORS_MAX_RANK   8u

enum safetensor_type {
    SAFETENSOR_F16,
    SAFETENSOR_BF16,
    SAFETENSOR_F32,
    SAFETENSOR_F64,
    SAFETENSOR_I8,
    SAFETENSOR_I16,
    SAFETENSOR_I32,
    SAFETENSOR_I64,
    SAFETENSOR_U8,
    SAFETENSOR_BOOL,
    SAFETENSOR_TYPE_COUNT,
};

struct safetensor {
    char *name;
    enum safetensor_type type;
    uint32_t rank;
    uint64_t dims[SAFETENSORS_MAX_RANK];
    uint64_t offset, size; /* bytes, from the beginning of the file */
};

struct safetensors;

/* Opens and checks. `label` begins every fault; NULL: the path. Errors: errno of open, -EINVAL for what
 * the list above refuses, -ENOMEM. */
int safetensors_open(const char *path, const char *label, struct safetensors **ret_file,
                     struct fault *f);
struct safetensors *safetensors_close(struct safetensors *file);
DEFINE_FREEP(struct safetensors *, safetensors_close)

/* Tensors in order of their data. */
size_t safetensors_count(const struct safetensors *file);
const struct safetensor *safetensors_at(const struct safetensors *file, size_t index);
const struct safetensor *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_label(const struct safetensors *file);
uint64_t safetensors_size(const struct safetensors *file); /* of the file */

/* SHA-256 of the header with its length. */
const uint8_t *safetensors_digest(const struct safetensors *file);

/* Reads `size` bytes at `offset` within a tensor. -EIO when the file has become shorter. */
int safetensors_read(const struct safetensors *file, const struct safetensor *tensor,
                     uint64_t offset, void *ret_data, uint64_t size, struct fault *f);

/* Is the file the one that was opened (size, times)? -ESTALE + fault when it was changed meanwhile. */
int safetensors_check_unchanged(const struct safetensors *file, struct fault *f);

const char *safetensor_type_to_string(enum safetensor_type type);
uint32_t safetensor_type_size(enum safetensor_type type);
/* "[320,4,3,3]" */
void safetensor_format_shape(uint32_t rank, const uint64_t *dims, char *ret_text, size_t size);
