#include "vk/weights/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "vk/base/array.h"
#include "vk/base/json.h"
#include "vk/base/sha256.h"

#define LENGTH_BYTES 8u

struct safetensors {
    int fd;
    char *label;
    struct stat st; /* as opened */
    uint64_t data;  /* file offset of the first tensor's bytes */
    uint8_t digest[SHA256_SIZE];
    struct ARRAY(struct safetensor) tensors;
    const struct safetensor **by_name; /* sorted */
};

static const struct {
    const char *name;
    uint32_t size;
} types[SAFETENSOR_TYPE_COUNT] = {
    [SAFETENSOR_F16] = {"F16", 2},   [SAFETENSOR_BF16] = {"BF16", 2}, [SAFETENSOR_F32] = {"F32", 4},
    [SAFETENSOR_F64] = {"F64", 8},   [SAFETENSOR_I8] = {"I8", 1},     [SAFETENSOR_I16] = {"I16", 2},
    [SAFETENSOR_I32] = {"I32", 4},   [SAFETENSOR_I64] = {"I64", 8},   [SAFETENSOR_U8] = {"U8", 1},
    [SAFETENSOR_BOOL] = {"BOOL", 1},
};

const char *safetensor_type_to_string(enum safetensor_type type)
{
    return types[type].name;
}

uint32_t safetensor_type_size(enum safetensor_type type)
{
    return types[type].size;
}

void safetensor_format_shape(uint32_t rank, const uint64_t *dims, char *ret_text, size_t size)
{
    size_t n = (size_t)snprintf(ret_text, size, "[");

    for (uint32_t i = 0; i < rank && n < size; i++)
        n += (size_t)snprintf(ret_text + n, size - n, "%s%" PRIu64, i ? "," : "", dims[i]);
    if (n < size)
        (void)snprintf(ret_text + n, size - n, "]");
}

/* --- the header's JSON
 * ------------------------------------------------------------------------------ */

/* The library's own limit on nesting is far above what this format needs. */
static bool is_too_deep(const char *text, size_t size)
{
    size_t depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '['))
            depth++;
        else if (!in_string && (c == '}' || c == ']') && depth > 0)
            depth--;
        if (depth > SAFETENSORS_MAX_DEPTH)
            return true;
    }
    return false;
}

/* A list of at most `capacity` whole numbers >= 0. */
static int parse_numbers(const json_t *list, uint32_t capacity, uint64_t *ret_values,
                         uint32_t *ret_count)
{
    if (!json_is_array(list) || json_array_size(list) > capacity)
        return -EINVAL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return -EINVAL;
        ret_values[i] = (uint64_t)json_integer_value(value);
    }
    *ret_count = (uint32_t)json_array_size(list);
    return 0;
}

static int parse_type(const json_t *value, enum safetensor_type *ret_type)
{
    for (int i = 0; json_is_string(value) && i < SAFETENSOR_TYPE_COUNT; i++) {
        if (strcmp(json_string_value(value), types[i].name) == 0) {
            *ret_type = (enum safetensor_type)i;
            return 0;
        }
    }
    return -EINVAL;
}

static bool is_good_name(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > SAFETENSORS_MAX_NAME)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return true;
}

/* Bytes that type and shape ask for. */
static int shape_bytes(const struct safetensor *t, uint64_t *ret_bytes)
{
    uint64_t bytes = types[t->type].size;

    for (uint32_t i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(bytes, t->dims[i], &bytes))
            return -EOVERFLOW;
    *ret_bytes = bytes;
    return 0;
}

/* Offsets of the result count from the data's beginning. */
static int parse_tensor(const char *name, const json_t *entry, struct safetensor *ret,
                        struct fault *f)
{
    uint64_t span[2], bytes;
    uint32_t span_count;

    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return fault_set(f, -EINVAL, "%.100s: want dtype, shape and data_offsets, nothing else",
                         name);
    if (parse_type(json_object_get(entry, "dtype"), &ret->type) < 0)
        return fault_set(f, -EINVAL, "%.100s: dtype is not one we know", name);
    if (parse_numbers(json_object_get(entry, "shape"), SAFETENSORS_MAX_RANK, ret->dims,
                      &ret->rank) < 0)
        return fault_set(f, -EINVAL, "%.100s: shape is not a list of at most %u whole numbers",
                         name, SAFETENSORS_MAX_RANK);
    if (parse_numbers(json_object_get(entry, "data_offsets"), 2, span, &span_count) < 0 ||
        span_count != 2 || span[0] > span[1])
        return fault_set(f, -EINVAL, "%.100s: data_offsets is not a pair of whole numbers in order",
                         name);
    if (shape_bytes(ret, &bytes) < 0 || bytes != span[1] - span[0])
        return fault_set(f, -EINVAL, "%.100s: data_offsets and shape disagree on the size", name);
    ret->offset = span[0];
    ret->size = bytes;
    return 0;
}

static int check_metadata(const json_t *metadata, struct fault *f)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metadata))
        return fault_set(f, -EINVAL, "__metadata__ is not an object");
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value))
            return fault_set(f, -EINVAL, "__metadata__: values must be strings");
    }
    return 0;
}

static int add_tensor(struct safetensors *file, const char *name, const json_t *entry,
                      struct fault *f)
{
    struct safetensor parsed = {0};

    if (!is_good_name(name))
        return fault_set(f, -EINVAL,
                         "a tensor name is empty, over %u bytes or has control characters",
                         SAFETENSORS_MAX_NAME);
    if (file->tensors.count == SAFETENSORS_MAX_COUNT)
        return fault_set(f, -EINVAL, "more than %u tensors", SAFETENSORS_MAX_COUNT);
    int r = parse_tensor(name, entry, &parsed, f);
    if (r < 0)
        return r;
    struct safetensor *place = array_push(&file->tensors);
    if (!place)
        return fault_set(f, -ENOMEM, "out of memory");
    *place = parsed;
    place->name = strdup(name);
    return place->name ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

static int parse_header(struct safetensors *file, const char *text, size_t size, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    const char *name;
    json_t *entry;

    if (size == 0 || text[0] != '{')
        return fault_set(f, -EINVAL, "the header does not begin with '{'");
    if (is_too_deep(text, size))
        return fault_set(f, -EINVAL, "the header is nested deeper than %u", SAFETENSORS_MAX_DEPTH);
    int r = json_parse(text, size, &root, f);
    if (r < 0)
        return fault_prefix(f, r, "header");
    json_object_foreach(root, name, entry)
    {
        r = strcmp(name, "__metadata__") == 0 ? check_metadata(entry, f)
                                              : add_tensor(file, name, entry, f);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- where the data lies
 * ---------------------------------------------------------------------------- */

static int compare_place(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size; /* empty ones come first */
}

static int compare_name(const void *a, const void *b)
{
    return strcmp((*(const struct safetensor *const *)a)->name,
                  (*(const struct safetensor *const *)b)->name);
}

/* The data must be covered from first to last byte, once. Offsets become the file's. */
static int check_cover(struct safetensors *file, struct fault *f)
{
    uint64_t want = 0, data_size = (uint64_t)file->st.st_size - file->data;

    if (file->tensors.count > 0)
        qsort(file->tensors.items, file->tensors.count, sizeof file->tensors.items[0],
              compare_place);
    for (size_t i = 0; i < file->tensors.count; i++) {
        struct safetensor *t = &file->tensors.items[i];
        if (t->offset != want)
            return fault_set(f, -EINVAL, "%.100s: data begins at %" PRIu64 ", %s %" PRIu64, t->name,
                             t->offset,
                             t->offset < want ? "overlapping what ends at" : "a hole from", want);
        if (t->size > data_size - want)
            return fault_set(f, -EINVAL, "%.100s: data ends beyond the file (truncated?)", t->name);
        want += t->size;
        t->offset += file->data;
    }
    if (want != data_size)
        return fault_set(f, -EINVAL, "%" PRIu64 " bytes of data, the tensors have %" PRIu64,
                         data_size, want);
    return 0;
}

static int index_names(struct safetensors *file, struct fault *f)
{
    file->by_name = calloc(file->tensors.count + 1, sizeof file->by_name[0]);
    if (!file->by_name)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < file->tensors.count; i++)
        file->by_name[i] = &file->tensors.items[i];
    qsort(file->by_name, file->tensors.count, sizeof file->by_name[0], compare_name);
    return 0;
}

/* --- the file
 * --------------------------------------------------------------------------------------- */

static int read_at(const struct safetensors *file, uint64_t offset, void *data, uint64_t size,
                   struct fault *f)
{
    char *p = data;

    while (size > 0) {
        ssize_t n = pread(file->fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fault_set(f, -errno, "%s", strerror(errno));
        if (n == 0)
            return fault_set(f, -EIO, "the file has become shorter");
        p += n;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return 0;
}

static int read_header(struct safetensors *file, struct fault *f)
{
    uint8_t prefix[LENGTH_BYTES];
    uint64_t file_size = (uint64_t)file->st.st_size, size = 0;
    struct sha256 hash;

    if (file_size < LENGTH_BYTES)
        return fault_set(f, -EINVAL, "%" PRIu64 " bytes: too short for a header", file_size);
    int r = read_at(file, 0, prefix, sizeof prefix, f);
    if (r < 0)
        return r;
    for (unsigned i = LENGTH_BYTES; i-- > 0;)
        size = size << 8 | prefix[i];
    if (size > SAFETENSORS_MAX_HEADER)
        return fault_set(f, -EINVAL, "a header of %" PRIu64 " bytes, at most %u are possible", size,
                         SAFETENSORS_MAX_HEADER);
    if (size > file_size - LENGTH_BYTES)
        return fault_set(f, -EINVAL, "a header of %" PRIu64 " bytes in a file of %" PRIu64, size,
                         file_size);
    _cleanup_(freep) char *text = malloc(size + 1);
    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    r = read_at(file, LENGTH_BYTES, text, size, f);
    if (r < 0)
        return r;
    sha256_init(&hash);
    sha256_feed(&hash, prefix, sizeof prefix);
    sha256_feed(&hash, text, size);
    sha256_finish(&hash, file->digest);
    file->data = LENGTH_BYTES + size;
    return parse_header(file, text, size, f);
}

static int open_file(struct safetensors *file, const char *path, struct fault *f)
{
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file->fd < 0 || fstat(file->fd, &file->st) < 0)
        return fault_set(f, -errno, "%s", strerror(errno));
    if (!S_ISREG(file->st.st_mode))
        return fault_set(f, -EINVAL, "not a regular file");
    return 0;
}

int safetensors_open(const char *path, const char *label, struct safetensors **ret_file,
                     struct fault *f)
{
    static int (*const checks[])(struct safetensors *, struct fault *) = {
        read_header,
        check_cover,
        index_names,
    };
    _cleanup_(safetensors_closep) struct safetensors *file = calloc(1, sizeof *file);

    if (!file)
        return fault_set(f, -ENOMEM, "out of memory");
    file->fd = -1;
    file->label = strdup(label ? label : path);
    if (!file->label)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = open_file(file, path, f);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(checks); i++)
        r = checks[i](file, f);
    if (r < 0)
        return fault_prefix(f, r, "%.100s", file->label);
    *ret_file = TAKE_PTR(file);
    return 0;
}

struct safetensors *safetensors_close(struct safetensors *file)
{
    if (!file)
        return NULL;
    closep(&file->fd);
    for (size_t i = 0; i < file->tensors.count; i++)
        free(file->tensors.items[i].name);
    array_done(&file->tensors);
    free(file->by_name);
    free(file->label);
    free(file);
    return NULL;
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->tensors.count;
}

const struct safetensor *safetensors_at(const struct safetensors *file, size_t index)
{
    return &file->tensors.items[index];
}

const struct safetensor *safetensors_find(const struct safetensors *file, const char *name)
{
    size_t low = 0, high = file->tensors.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, file->by_name[middle]->name);
        if (order == 0)
            return file->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *safetensors_label(const struct safetensors *file)
{
    return file->label;
}

uint64_t safetensors_size(const struct safetensors *file)
{
    return (uint64_t)file->st.st_size;
}

const uint8_t *safetensors_digest(const struct safetensors *file)
{
    return file->digest;
}

int safetensors_read(const struct safetensors *file, const struct safetensor *tensor,
                     uint64_t offset, void *ret_data, uint64_t size, struct fault *f)
{
    if (offset > tensor->size || size > tensor->size - offset)
        return fault_set(f, -EINVAL, "%.100s: %.100s: read beyond its end", file->label,
                         tensor->name);
    int r = read_at(file, tensor->offset + offset, ret_data, size, f);
    return r < 0 ? fault_prefix(f, r, "%.100s", file->label) : 0;
}

int safetensors_check_unchanged(const struct safetensors *file, struct fault *f)
{
    struct stat now;

    if (fstat(file->fd, &now) < 0)
        return fault_set(f, -errno, "%.100s: %s", file->label, strerror(errno));
    if (now.st_size != file->st.st_size || now.st_mtim.tv_sec != file->st.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != file->st.st_mtim.tv_nsec)
        return fault_set(f, -ESTALE, "%.100s: changed while it was read", file->label);
    return 0;
}
