/* The file side: opened once, header checked at once, data read by range.
 *
 * Data passes through a window of a few MiB that is read around the page cache where the file
 * system allows it (O_DIRECT): a model is read once and would only push other files out of
 * memory. */
#include "vk/weights/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vk/base/file.h"
#include "vk/base/half.h"

#define LENGTH_BYTES 8u
#define WINDOW_BYTES (4u << 20)
#define WINDOW_ALIGN                                                                               \
    4096u /* of offset, size and memory: no file system asks for more with O_DIRECT */

struct safetensors {
    int fd;
    char *label;
    char *head; /* length word and header */
    size_t head_size;
    struct safetensors_header header;
    struct stat opened;
    char *window;                        /* WINDOW_BYTES, or NULL before the first read */
    uint64_t window_offset, window_size; /* what of the file it holds */
    bool is_direct;
    uint64_t sum;
};

static int read_exactly(int fd, void *ret_data, size_t size, uint64_t offset, struct fault *f)
{
    char *at = ret_data;

    while (size > 0) {
        ssize_t n = pread(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fault_set(f, file_error(errno), "cannot read: %s", strerror(errno));
        if (n == 0)
            return fault_set(f, -EINVAL, "truncated while it was read");
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static uint64_t little_endian(const unsigned char bytes[LENGTH_BYTES])
{
    uint64_t value = 0;

    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static int check_length(uint64_t length, uint64_t file_size, struct fault *f)
{
    if (length > SAFETENSORS_HEADER_MAX)
        return fault_set(f, -EINVAL,
                         "not a safetensors file, or a header of %" PRIu64
                         " bytes; at most %u are allowed",
                         length, SAFETENSORS_HEADER_MAX);
    if (LENGTH_BYTES + length > file_size)
        return fault_set(f, -EINVAL,
                         "truncated: the header ends at byte %" PRIu64 ", the file at %" PRIu64,
                         LENGTH_BYTES + length, file_size);
    return 0;
}

/* Reads length word and header into s->head. */
static int read_head(struct safetensors *s, struct fault *f)
{
    uint64_t file_size = (uint64_t)s->opened.st_size;
    unsigned char word[LENGTH_BYTES];

    if (file_size < LENGTH_BYTES)
        return fault_set(f, -EINVAL,
                         file_size ? "truncated: %" PRIu64 " bytes"
                                   : "the file is empty (%" PRIu64 " bytes)",
                         file_size);
    int r = read_exactly(s->fd, word, sizeof word, 0, f);
    if (r < 0)
        return r;
    uint64_t length = little_endian(word);
    r = check_length(length, file_size, f);
    if (r < 0)
        return r;
    s->head_size = (size_t)(LENGTH_BYTES + length);
    s->head = malloc(s->head_size);
    if (!s->head)
        return fault_set(f, -ENOMEM, "out of memory");
    return read_exactly(s->fd, s->head, s->head_size, 0, f);
}

/* O_NONBLOCK: a FIFO in the place of a file must not block; for files it means nothing. */
static int open_file(struct safetensors *s, const char *path, struct fault *f)
{
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (s->fd < 0)
        return fault_set(f, file_error(errno), "%s", strerror(errno));
    if (fstat(s->fd, &s->opened) < 0)
        return fault_set(f, file_error(errno), "%s", strerror(errno));
    if (!S_ISREG(s->opened.st_mode))
        return fault_set(f, -EINVAL, "not a regular file");
    int r = read_head(s, f);
    if (r < 0)
        return r;
    return safetensors_parse(s->head + LENGTH_BYTES, s->head_size - LENGTH_BYTES,
                             (uint64_t)s->opened.st_size - s->head_size, &s->header, f);
}

int safetensors_open(const char *path, const char *label, struct safetensors **ret_file,
                     struct fault *f)
{
    _cleanup_(safetensors_closep) struct safetensors *s = calloc(1, sizeof *s);

    if (!s)
        return fault_set(f, -ENOMEM, "out of memory");
    s->fd = -1;
    s->label = strdup(label ? label : path);
    if (!s->label)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = open_file(s, path, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", s->label);
    r = safetensors_check_unchanged(s, f);
    if (r < 0)
        return r;
    *ret_file = TAKE_PTR(s);
    return 0;
}

struct safetensors *safetensors_close(struct safetensors *s)
{
    if (!s)
        return NULL;
    closep(&s->fd);
    safetensors_header_done(&s->header);
    free(s->window);
    free(s->head);
    free(s->label);
    free(s);
    return NULL;
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->header.count;
}

const struct safetensors_tensor *safetensors_get(const struct safetensors *s, size_t index)
{
    return &s->header.tensors[index];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    size_t low = 0, high = s->header.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct safetensors_tensor *t = &s->header.tensors[s->header.by_name[middle]];
        int order = strcmp(name, t->name);
        if (order == 0)
            return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *safetensors_label(const struct safetensors *s)
{
    return s->label;
}

uint64_t safetensors_file_size(const struct safetensors *s)
{
    return (uint64_t)s->opened.st_size;
}

const void *safetensors_header_bytes(const struct safetensors *s, size_t *ret_size)
{
    *ret_size = s->head_size;
    return s->head;
}

int safetensors_check_owner(const struct safetensors *s, struct fault *f)
{
    const struct stat *st = &s->opened;

    if (st->st_uid != 0 && st->st_uid != geteuid())
        return fault_set(f, -EPERM, "%s: belongs to user %u; want root or user %u (chown)",
                         s->label, (unsigned)st->st_uid, (unsigned)geteuid());
    if (st->st_mode & (S_IWGRP | S_IWOTH))
        return fault_set(f, -EPERM, "%s: %s may write it; want mode 0644 or stricter (chmod)",
                         s->label, st->st_mode & S_IWOTH ? "everybody" : "its group");
    return 0;
}

/* --- data ----------------------------------------------------------------------------------- */

static int open_window(struct safetensors *s, struct fault *f)
{
    int flags = fcntl(s->fd, F_GETFL);

    s->window_size = 0;
    s->window = aligned_alloc(WINDOW_ALIGN, WINDOW_BYTES);
    if (!s->window)
        return fault_set(f, -ENOMEM, "out of memory");
    s->is_direct = flags >= 0 && fcntl(s->fd, F_SETFL, flags | O_DIRECT) == 0;
    return 0;
}

/* One read at an aligned offset; a file system that took the flag may still refuse the read. */
static ssize_t read_window(struct safetensors *s, uint64_t offset)
{
    for (;;) {
        ssize_t n = pread(s->fd, s->window, WINDOW_BYTES, (off_t)offset);
        if (n >= 0 || (errno != EINTR && !(errno == EINVAL && s->is_direct)))
            return n;
        if (errno == EINVAL) {
            s->is_direct = false;
            (void)fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_DIRECT); /* the retry tells */
        }
    }
}

/* Makes the window hold the byte at `offset`. */
static int move_window(struct safetensors *s, uint64_t offset, struct fault *f)
{
    uint64_t start = offset / WINDOW_ALIGN * WINDOW_ALIGN;

    s->window_size = 0;
    ssize_t n = read_window(s, start);
    if (n < 0)
        return fault_set(f, file_error(errno), "cannot read: %s", strerror(errno));
    if (start + (uint64_t)n <= offset)
        return fault_set(f, -EINVAL, "truncated while it was read");
    if (!s->is_direct)
        (void)posix_fadvise(s->fd, (off_t)start, n, POSIX_FADV_DONTNEED); /* advice only */
    s->window_offset = start;
    s->window_size = (uint64_t)n;
    return 0;
}

/* Eight bytes at a time, each step a bijection of the sum. The multiplier is 2^64 over the golden
 * ratio. */
static uint64_t sum_more(uint64_t sum, const char *data, size_t size)
{
    uint64_t word;

    for (; size > 0; data += sizeof word, size -= sizeof word) {
        word = 0;
        if (size < sizeof word) {
            memcpy(&word, data, size);
            size = sizeof word;
        } else {
            memcpy(&word, data, sizeof word);
        }
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 32;
    }
    return sum;
}

uint64_t safetensors_sum(const struct safetensors *s)
{
    return s->sum;
}

/* Elements whose magnitude, as bits without the sign, reaches `limit` are refused. */
struct bound {
    uint32_t element; /* bytes: 2 or 4; 1: anything goes */
    uint32_t limit;
};

/* Loops of words without an exit, for the compiler to take several at a time. */
static bool reaches_16(const char *data, size_t count, uint32_t limit)
{
    uint32_t bad = 0;
    uint16_t x;

    for (size_t i = 0; i < count; i++) {
        memcpy(&x, data + i * sizeof x, sizeof x);
        bad |= (x & 0x7fffu) >= limit;
    }
    return bad;
}

static bool reaches_32(const char *data, size_t count, uint32_t limit)
{
    uint32_t bad = 0, x;

    for (size_t i = 0; i < count; i++) {
        memcpy(&x, data + i * sizeof x, sizeof x);
        bad |= (x & 0x7fffffffu) >= limit;
    }
    return bad;
}

static bool is_bad(const struct bound *b, const char *data, size_t size)
{
    if (b->element == 2)
        return reaches_16(data, size / 2, b->limit);
    return b->element == 4 && reaches_32(data, size / 4, b->limit);
}

/* Bounded elements are copied whole: one that the window's end cuts waits for the next window. */
static int read_data(struct safetensors *s, uint64_t offset, char *data, size_t size,
                     const struct bound *bound, struct fault *f)
{
    int r = s->window || size == 0 ? 0 : open_window(s, f);

    while (size > 0 && r >= 0) {
        if (offset < s->window_offset ||
            offset + bound->element > s->window_offset + s->window_size) {
            r = move_window(s, offset, f);
            if (r >= 0 && offset + bound->element > s->window_offset + s->window_size)
                r = fault_set(f, -EINVAL, "truncated while it was read");
            continue;
        }
        uint64_t within = offset - s->window_offset, left = s->window_size - within;
        size_t n = size < left ? size : (size_t)(left - left % bound->element);
        if (is_bad(bound, s->window + within, n))
            return -EDOM; /* the caller says which */
        memcpy(data, s->window + within, n);
        s->sum = sum_more(s->sum, s->window + within, n);
        data += n;
        offset += n;
        size -= n;
    }
    return r;
}

int safetensors_read(struct safetensors *s, const struct safetensors_tensor *t, uint64_t from,
                     void *ret_data, size_t size, struct fault *f)
{
    static const struct bound none = {.element = 1};

    if (from > t->size || size > t->size - from)
        return fault_set(f, -ERANGE, "%s: %s: no bytes %" PRIu64 "…%" PRIu64, s->label, t->name,
                         from, from + size);
    int r = read_data(s, s->head_size + t->offset + from, ret_data, size, &none, f);
    return r < 0 ? fault_prefix(f, r, "%s", s->label) : 0;
}

static struct bound bound_of(enum safetensors_dtype type, enum safetensors_range range)
{
    /* the first magnitude that is too large: infinity, or 65520 (BF16: 65536) */
    static const uint32_t limits[][2] = {
        [SAFETENSORS_F16] = {0x7c00, 0x7c00},
        [SAFETENSORS_BF16] = {0x7f80, 0x4780},
        [SAFETENSORS_F32] = {0x7f800000, 0x477ff000},
    };
    bool is_float = type == SAFETENSORS_F16 || type == SAFETENSORS_BF16 || type == SAFETENSORS_F32;

    return (struct bound){.element = is_float ? safetensors_dtype_size(type) : 1,
                          .limit = is_float ? limits[type][range] : 0};
}

static double number_of(enum safetensors_dtype type, const char *data)
{
    uint16_t half = 0;
    float x = 0;

    if (type == SAFETENSORS_F32)
        memcpy(&x, data, sizeof x);
    else
        memcpy(&half, data, sizeof half);
    return type == SAFETENSORS_F32    ? (double)x
           : type == SAFETENSORS_BF16 ? (double)bfloat_to_float(half)
                                      : (double)half_to_float(half);
}

/* Reads once more, element by element, to say which one it is. */
static int name_number(struct safetensors *s, const struct safetensors_tensor *t, uint64_t from,
                       size_t size, enum safetensors_range range, struct fault *f)
{
    static const struct bound none = {.element = 1};
    const struct bound bound = bound_of(t->dtype, range);
    char data[4] = {0}, number[32] = "NaN";

    for (uint64_t at = from; at < from + size; at += bound.element) {
        int r = read_data(s, s->head_size + t->offset + at, data, bound.element, &none, f);
        if (r < 0)
            return fault_prefix(f, r, "%s", s->label);
        if (!is_bad(&bound, data, bound.element))
            continue;
        double x = number_of(t->dtype, data);
        if (!isnan(x))
            (void)snprintf(number, sizeof number, "%g", x);
        return fault_set(f, -EINVAL, "%s: %.100s: element %" PRIu64 " is %s; want numbers below %s",
                         s->label, t->name, at / bound.element, number,
                         range == SAFETENSORS_HALF ? "65520" : "infinity");
    }
    return fault_set(f, -ESTALE, "%s: changed while it was read", s->label);
}

int safetensors_read_numbers(struct safetensors *s, const struct safetensors_tensor *t,
                             uint64_t from, void *ret_data, size_t size,
                             enum safetensors_range range, struct fault *f)
{
    struct bound bound = bound_of(t->dtype, range);

    if (from > t->size || size > t->size - from)
        return fault_set(f, -ERANGE, "%s: %s: no bytes %" PRIu64 "…%" PRIu64, s->label, t->name,
                         from, from + size);
    int r = read_data(s, s->head_size + t->offset + from, ret_data, size, &bound, f);
    if (r == -EDOM)
        return name_number(s, t, from, size, range, f);
    return r < 0 ? fault_prefix(f, r, "%s", s->label) : 0;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

int safetensors_check_unchanged(struct safetensors *s, struct fault *f)
{
    struct stat now;

    free(s->window);
    s->window = NULL;
    if (fstat(s->fd, &now) < 0)
        return fault_set(f, file_error(errno), "%s: %s", s->label, strerror(errno));
    if (now.st_size != s->opened.st_size || !same_time(now.st_mtim, s->opened.st_mtim))
        return fault_set(f, -ESTALE, "%s: changed while it was read", s->label);
    return 0;
}
