/* safetensors — files of named tensors, read as strictly as files of strangers must be.
 *
 * Layout: 8 bytes little endian N, N bytes of JSON, data. The header is an object of
 *     "name": {"dtype": "F16", "shape": [320, 4, 3, 3], "data_offsets": [begin, end]}
 * and perhaps "__metadata__": {string: string}; offsets count from the end of the header.
 * Refused: anything not UTF-8 or not JSON, a first byte other than '{', duplicate or unknown keys,
 * numbers that are not plain whole ones, control characters in names, sizes that do not fit dtype
 * and shape, holes, overlaps, bytes after the last tensor, and whatever is over the limits below.
 * The parser does not recurse and allocates only for tensors within the limits. Source:
 * github.com/huggingface/safetensors, README "Format". */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define SAFETENSORS_HEADER_MAX   (16u << 20) /* bytes */
#define SAFETENSORS_TENSORS_MAX  8192u
#define SAFETENSORS_METADATA_MAX 8192u /* entries */
#define SAFETENSORS_NAME_MAX     256u  /* bytes of a tensor's name or a metadata key */
#define SAFETENSORS_RANK_MAX     8u

enum safetensors_dtype {
    SAFETENSORS_BOOL,
    SAFETENSORS_U8,
    SAFETENSORS_I8,
    SAFETENSORS_U16,
    SAFETENSORS_I16,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_U32,
    SAFETENSORS_I32,
    SAFETENSORS_F32,
    SAFETENSORS_U64,
    SAFETENSORS_I64,
    SAFETENSORS_F64,
    SAFETENSORS_DTYPE_COUNT,
};

struct safetensors_tensor {
    char *name;
    enum safetensors_dtype dtype;
    uint32_t rank; /* 0: a single number */
    uint64_t dims[SAFETENSORS_RANK_MAX];
    uint64_t offset, size; /* bytes of data; offset from the end of the header */
};

/* What a header says: tensors in the order of their data. */
struct safetensors_header {
    struct safetensors_tensor *tensors;
    size_t count;
    uint32_t *by_name; /* indices, sorted by name */
};

/* Pure: parses `length` bytes of header before `data_size` bytes of data. *ret_header is the
 * caller's to give to safetensors_header_done(). -EINVAL + fault naming tensor or byte; -ENOMEM. */
int safetensors_parse(const char *text, size_t length, uint64_t data_size,
                      struct safetensors_header *ret_header, struct fault *f);
void safetensors_header_done(struct safetensors_header *header);

struct safetensors;

/* Opens `path` once and reads its header. Faults begin with `label` (NULL: path). -EINVAL, or
 * file_error(), as of the readers below. */
int safetensors_open(const char *path, const char *label, struct safetensors **ret_file,
                     struct fault *f);
struct safetensors *safetensors_close(struct safetensors *s);
DEFINE_FREEP(struct safetensors *, safetensors_close)

size_t safetensors_count(const struct safetensors *s);
const struct safetensors_tensor *safetensors_get(const struct safetensors *s, size_t index);
const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name);
const char *safetensors_label(const struct safetensors *s);
uint64_t safetensors_file_size(const struct safetensors *s);

/* Length word and header as they are in the file. */
const void *safetensors_header_bytes(const struct safetensors *s, size_t *ret_size);

/* Reads `size` bytes of the tensor's data, `from` bytes after its begin: fastest in the order
 * of the data, past the page cache where the file system can. */
int safetensors_read(struct safetensors *s, const struct safetensors_tensor *t, uint64_t from,
                     void *ret_data, size_t size, struct fault *f);

/* The same for whole elements of F16, BF16 or F32 that are to be computed with: -EINVAL + fault
 * naming tensor and element when one is NaN, infinite or, with SAFETENSORS_HALF, too large for half
 * precision. */
enum safetensors_range {
    SAFETENSORS_FINITE,
    SAFETENSORS_HALF, /* below 65520, which rounds to infinity */
};
int safetensors_read_numbers(struct safetensors *s, const struct safetensors_tensor *t,
                             uint64_t from, void *ret_data, size_t size,
                             enum safetensors_range range, struct fault *f);

/* Elements first … first + count - 1 as f32, from F16, BF16, F32 or F64, or a whole number type up
 * to 32 bits or I64: -EINVAL + fault for another type and for a value that is no finite f32. */
int safetensors_read_floats(struct safetensors *s, const struct safetensors_tensor *t,
                            uint64_t first, size_t count, float *ret_values, struct fault *f);

/* -EPERM + fault when the file, as opened, belongs to somebody other than root and this process's
 * user, or when its group or others may write it. */
int safetensors_check_owner(const struct safetensors *s, struct fault *f);

/* Of all data read so far, in the order of reading: fast, and no cryptography. */
uint64_t safetensors_sum(const struct safetensors *s);

/* After the last read: -ESTALE + fault when size or times of the file changed since it was
 * opened. Frees what reading needed; more reads are possible. */
int safetensors_check_unchanged(struct safetensors *s, struct fault *f);

/* Bytes of an element; "F16"; "[320,4,3,3]" into ret_text, cut when longer, returned. */
uint32_t safetensors_dtype_size(enum safetensors_dtype dtype);
const char *safetensors_dtype_to_string(enum safetensors_dtype dtype);
#define SAFETENSORS_SHAPE_TEXT 96
const char *safetensors_format_shape(const uint64_t *dims, uint32_t rank,
                                     char ret_text[SAFETENSORS_SHAPE_TEXT]);
