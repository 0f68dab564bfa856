/* The header of a safetensors file. Input: 8 bytes little endian, the size of the data; one byte,
 * 'T' or 'M': 8190 more tensors or metadata entries are put in after the first '{' (to reach the
 * limits from a small input); the header.
 *
 * The oracle is a second reader, written over jansson: both accept and refuse the same headers and
 * see the same tensors. What is accepted lies in the file without holes and overlaps; a file made
 * of it opens, and every byte of every tensor is read from its place. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "vk/base/file.h"
#include "vk/weights/safetensors.h"

#define PREFIX   9u
#define MANY     8190u
#define FILE_MAX 4096u /* bytes of data of files that are made */

static uint64_t get_word(const uint8_t *p)
{
    uint64_t value = 0;

    for (unsigned i = 8; i-- > 0;)
        value = value << 8 | p[i];
    return value;
}

static void put_word(uint8_t *p, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

/* --- the second reader ------------------------------------------------------------------------ */

static bool is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return length <= SAFETENSORS_NAME_MAX;
}

static int find_dtype(const json_t *value)
{
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
        return -1; /* a NUL within */
    for (int i = 0; i < SAFETENSORS_DTYPE_COUNT; i++)
        if (strcmp(json_string_value(value),
                   safetensors_dtype_to_string((enum safetensors_dtype)i)) == 0)
            return i;
    return -1;
}

static bool read_numbers(const json_t *list, size_t max, uint64_t *ret_values, size_t *ret_count)
{
    if (!json_is_array(list) || json_array_size(list) > max)
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return false;
        ret_values[i] = (uint64_t)json_integer_value(value);
    }
    *ret_count = json_array_size(list);
    return true;
}

static bool read_tensor(const char *name, const json_t *value, struct safetensors_tensor *t)
{
    uint64_t range[2] = {0};
    size_t rank = 0, two = 0;
    int dtype = find_dtype(json_object_get(value, "dtype"));

    if (!is_name(name, strlen(name)) || json_object_size(value) != 3 || dtype < 0 ||
        !read_numbers(json_object_get(value, "shape"), SAFETENSORS_RANK_MAX, t->dims, &rank) ||
        !read_numbers(json_object_get(value, "data_offsets"), 2, range, &two) || two != 2 ||
        range[0] > range[1])
        return false;
    unsigned __int128 size = safetensors_dtype_size((enum safetensors_dtype)dtype);
    bool has_zero = false;
    for (size_t i = 0; i < rank; i++) {
        has_zero |= t->dims[i] == 0;
        size = size > UINT64_MAX ? size : size * t->dims[i];
    }
    t->name = (char *)(uintptr_t)name;
    t->dtype = (enum safetensors_dtype)dtype;
    t->rank = (uint32_t)rank;
    t->offset = range[0];
    t->size = range[1] - range[0];
    return size == t->size && !(has_zero && t->size);
}

static bool read_metadata(const json_t *value)
{
    const char *key;
    json_t *text;

    if (!json_is_object(value) || json_object_size(value) > SAFETENSORS_METADATA_MAX)
        return false;
    json_object_foreach((json_t *)(uintptr_t)value, key,
                        text) if (!is_name(key, strlen(key)) || !json_is_string(text)) return false;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

/* Fills `list`, which has room for all entries; the count, or -1 for a header to be refused. */
static int read_entries(const json_t *root, struct safetensors_tensor *list)
{
    size_t count = 0;
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        bool good = strcmp(key, "__metadata__") == 0 ? read_metadata(value)
                                                     : read_tensor(key, value, &list[count++]);
        if (!good || count > SAFETENSORS_TENSORS_MAX)
            return -1;
    }
    return (int)count;
}

static bool is_contiguous(const struct safetensors_tensor *list, size_t count, uint64_t data_size)
{
    uint64_t at = 0;

    for (size_t i = 0; i < count; i++) {
        if (list[i].offset != at)
            return false;
        at += list[i].size;
    }
    return at == data_size;
}

/* jansson's numbers end at 2^63-1, and it takes "-0" for a whole number. */
static bool is_beyond_reader(const char *text, size_t length)
{
    size_t digits = 0;

    for (size_t i = 0; i < length; i++) {
        digits = text[i] >= '0' && text[i] <= '9' ? digits + 1 : 0;
        if (digits > 18 || (text[i] == '-' && i + 1 < length && text[i + 1] == '0'))
            return true;
    }
    return false;
}

static void check_alike(const struct safetensors_header *header, const json_t *root)
{
    for (size_t i = 0; i < header->count; i++) {
        const struct safetensors_tensor *t = &header->tensors[i];
        struct safetensors_tensor other = {0};
        fuzz_check(read_tensor(t->name, json_object_get(root, t->name), &other));
        fuzz_check(other.dtype == t->dtype && other.rank == t->rank);
        fuzz_check(memcmp(other.dims, t->dims, t->rank * sizeof t->dims[0]) == 0);
        fuzz_check(other.offset == t->offset && other.size == t->size);
    }
}

static void compare_readers(const char *text, size_t length, uint64_t data_size, int r,
                            const struct safetensors_header *header)
{
    json_error_t error;

    if (is_beyond_reader(text, length))
        return;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    /* jansson overlooks a NUL behind a number */
    bool is_object = json_is_object(root) && text[0] == '{' && !memchr(text, '\0', length);
    struct safetensors_tensor *list = calloc(json_object_size(root) + 1, sizeof *list);
    int count = is_object ? read_entries(root, list) : -1;

    if (count > 0)
        qsort(list, (size_t)count, sizeof *list, by_place);
    bool accepted = count >= 0 && is_contiguous(list, (size_t)count, data_size);
    fuzz_check(accepted == (r == 0));
    if (accepted) {
        fuzz_check((size_t)count == header->count);
        check_alike(header, root);
    }
    free(list);
    json_decref(root);
}

/* --- what holds of every accepted header ------------------------------------------------------ */

static void check_accepted(const struct safetensors_header *h, uint64_t data_size)
{
    uint64_t at = 0;

    fuzz_check(h->count <= SAFETENSORS_TENSORS_MAX);
    for (size_t i = 0; i < h->count; i++) {
        const struct safetensors_tensor *t = &h->tensors[i];
        char shape[SAFETENSORS_SHAPE_TEXT];
        fuzz_check(t->dtype < SAFETENSORS_DTYPE_COUNT && t->rank <= SAFETENSORS_RANK_MAX);
        fuzz_check(strlen(t->name) <= SAFETENSORS_NAME_MAX);
        fuzz_check(fuzz_is_utf8(t->name, strlen(t->name)));
        fuzz_check(t->offset == at && t->size <= data_size - at);
        fuzz_check(strlen(safetensors_format_shape(t->dims, t->rank, shape)) <
                   SAFETENSORS_SHAPE_TEXT);
        at += t->size;
    }
    fuzz_check(at == data_size);
    for (size_t i = 1; i < h->count; i++)
        fuzz_check(strcmp(h->tensors[h->by_name[i - 1]].name, h->tensors[h->by_name[i]].name) < 0);
}

static uint8_t byte_at(uint64_t place)
{
    return (uint8_t)(place * 7 + (place >> 8));
}

static int make_file(const char *text, size_t length, uint64_t data_size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    uint8_t word[8], data[FILE_MAX];

    put_word(word, length);
    for (size_t i = 0; i < data_size; i++)
        data[i] = byte_at(i);
    fuzz_check(fd >= 0);
    fuzz_check(file_write_all(fd, word, sizeof word) == 0);
    fuzz_check(file_write_all(fd, text, length) == 0);
    fuzz_check(file_write_all(fd, data, data_size) == 0);
    return fd;
}

static void read_file(struct safetensors *s, const struct safetensors_header *h)
{
    struct fault f = {0};
    uint8_t data[FILE_MAX];

    fuzz_check(safetensors_count(s) == h->count);
    for (size_t i = 0; i < h->count; i++) {
        const struct safetensors_tensor *t = safetensors_find(s, h->tensors[i].name);
        fuzz_check(t && strcmp(t->name, h->tensors[i].name) == 0);
        fuzz_check(t->offset == h->tensors[i].offset && t->size == h->tensors[i].size);
        uint64_t from = t->size / 3;
        fuzz_check(safetensors_read(s, t, from, data, t->size - from, &f) == 0);
        for (uint64_t k = from; k < t->size; k++)
            fuzz_check(data[k - from] == byte_at(t->offset + k));
        fuzz_check(safetensors_read(s, t, t->size, data, 1, NULL) == -ERANGE);
    }
    fuzz_check(!safetensors_find(s, "\x01"));
    fuzz_check(safetensors_check_unchanged(s, &f) == 0);
}

static void check_file(const char *text, size_t length, uint64_t data_size,
                       const struct safetensors_header *h)
{
    struct safetensors *s = NULL;
    struct fault f = {0};
    char path[32];

    int fd = make_file(text, length, data_size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int r = safetensors_open(path, "fuzz", &s, &f);
    fuzz_check(r == 0);
    read_file(s, h);
    (void)safetensors_close(s);
    (void)close(fd);
}

/* --- one input -------------------------------------------------------------------------------- */

/* The header with many more entries after its first '{'. Malloc'd. */
static char *widen(const uint8_t *text, size_t length, char kind, size_t *ret_length)
{
    char *wide = NULL;
    FILE *out = open_memstream(&wide, ret_length);
    size_t open = 0;

    fuzz_check(out);
    while (open < length && text[open] != '{')
        open++;
    open += open < length;
    (void)fwrite(text, 1, open, out);
    if (kind == 'M')
        (void)fputs("\"__metadata__\":{", out);
    for (unsigned i = 0; i < MANY; i++)
        (void)fprintf(out,
                      kind == 'M'
                          ? "\"%u\":\"\","
                          : "\"%u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},",
                      i);
    (void)fwrite(text + open, 1, length - open, out);
    fuzz_check(fclose(out) == 0);
    return wide;
}

static void parse(const char *text, size_t length, uint64_t data_size)
{
    static const int errors[] = {-EINVAL, 0};
    struct safetensors_header header = {0};
    struct fault f = {0};

    int r = safetensors_parse(text, length, data_size, &header, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        fuzz_check(!header.tensors && !header.by_name && header.count == 0);
    } else {
        check_accepted(&header, data_size);
    }
    compare_readers(text, length, data_size, r, &header);
    if (r == 0 && data_size <= FILE_MAX && length < 2 * FILE_MAX)
        check_file(text, length, data_size, &header);
    safetensors_header_done(&header);
}

static void run(const uint8_t *data, size_t size)
{
    if (size < PREFIX)
        return;
    size_t length = size - PREFIX;
    char kind = (char)data[8];
    bool is_wide = kind == 'T' || kind == 'M';
    char *text = is_wide ? widen(data + PREFIX, length, kind, &length) : malloc(length);
    fuzz_check(text || length == 0);
    if (!is_wide && length)
        memcpy(text, data + PREFIX, length); /* its own block: a read past the end is seen */
    parse(text, length, get_word(data));
    free(text);
}

/* --- mutation --------------------------------------------------------------------------------- */

struct writer {
    uint8_t *data;
    size_t size, max_size;
};

static void append(struct writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(struct writer *w, const char *format, ...)
{
    char piece[400];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof piece)
        w->size = fuzz_insert(w->data, w->size, w->max_size, w->size, piece, (size_t)n);
}

static void append_tensor(struct writer *w, uint32_t *seed, uint64_t *at)
{
    static const char *const parts[] = {"w", "bias", "\\u00e9", "\\ud83d\\ude00",
                                        "/", "\\n",  ".",       "\xc3\xa9"};
    enum safetensors_dtype dtype =
        (enum safetensors_dtype)fuzz_below(seed, SAFETENSORS_DTYPE_COUNT);
    uint64_t size = safetensors_dtype_size(dtype);
    uint32_t rank = fuzz_below(seed, 9);

    append(w, "\"%s%s%u\":{\"dtype\":\"%s\",\"shape\":[", parts[fuzz_below(seed, 8)],
           parts[fuzz_below(seed, 8)], fuzz_below(seed, 9), safetensors_dtype_to_string(dtype));
    for (uint32_t i = 0; i < rank; i++) {
        uint32_t dim = fuzz_below(seed, 12) ? 1 + fuzz_below(seed, 3) : fuzz_below(seed, 2) * 70000;
        size *= dim;
        append(w, "%s%u", i ? "," : "", dim);
    }
    append(w, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *at, *at + size);
    *at += size;
}

/* A header of some tensors, sound but for name clashes. */
static size_t generate(uint8_t *data, size_t max_size, uint32_t *seed)
{
    struct writer w = {data, PREFIX, max_size};
    uint32_t count = fuzz_below(seed, 5);
    uint64_t at = 0;

    append(&w, "{");
    if (fuzz_below(seed, 3) == 0)
        append(&w, "\"__metadata__\" : {\"a\":\"%u\",\"format\":\"pt\"}%s", fuzz_below(seed, 9),
               count ? "," : "");
    for (uint32_t i = 0; i < count; i++) {
        append_tensor(&w, seed, &at);
        append(&w, "%s", i + 1 < count ? ",\n" : "");
    }
    append(&w, "}%s", fuzz_below(seed, 2) ? "   " : "");
    put_word(data, at);
    data[8] = 0;
    return w.size;
}

/* The largest end of a pair of numbers in brackets: what the data's size should be. */
static uint64_t find_end(const uint8_t *data, size_t size)
{
    uint64_t number = 0, end = 0;

    for (size_t i = PREFIX; i < size; i++) {
        if (data[i] >= '0' && data[i] <= '9')
            number = number * 10 + (uint64_t)(data[i] - '0');
        else {
            end =
                data[i] == ']' && i + 1 < size && data[i + 1] == '}' && number > end ? number : end;
            number = 0;
        }
    }
    return end;
}

static size_t mutate(uint8_t *data, size_t size, size_t max_size, uint32_t seed,
                     fuzz_bytes_t *bytes)
{
    if (max_size > PREFIX)
        data[8] = 0; /* the wide ones cost too much to be the beginning of many others */
    if (size < PREFIX || (max_size > 1024 && fuzz_below(&seed, 4) == 0)) {
        if (max_size < 1024)
            return bytes(data, size, max_size);
        size = generate(data, max_size, &seed);
        return fuzz_below(&seed, 2)
                   ? size
                   : PREFIX + bytes(data + PREFIX, size - PREFIX, max_size - PREFIX);
    }
    size = PREFIX + bytes(data + PREFIX, size - PREFIX, max_size - PREFIX);
    put_word(data, find_end(data, size));
    return size;
}

static const char *const words[] = {
    "\"dtype\"",
    "\"shape\"",
    "\"data_offsets\"",
    "\"__metadata__\"",
    "\"F16\"",
    "\"BOOL\"",
    "\"I64\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\\"",
    "18446744073709551615",
    "1e3",
    "-1",
    "\xf0\x9f\xa6\x8a",
    NULL,
};

const struct fuzz_target fuzz_safetensors = {
    .name = "safetensors", .max_size = 4096, .run = run, .mutate = mutate, .words = words};
