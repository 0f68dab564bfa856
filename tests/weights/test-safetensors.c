/* safetensors: what is accepted, and every kind of bad file with the message people see. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/safetensors_write.h"
#include "vk/base/file.h"
#include "vk/weights/safetensors.h"

/* In libc's place: a disk that has gone bad. */
static bool is_disk_bad;

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    if (!is_disk_bad)
        return syscall(SYS_pread64, fd, data, size, offset);
    errno = EIO;
    return -1;
}

static char directory[] = "/tmp/test-safetensors-XXXXXX";
static char path[64];

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    (void)snprintf(path, sizeof path, "%s/x.safetensors", directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)remove(path);
    return remove(directory);
}

/* --- the grammar ------------------------------------------------------------------------------ */

#define T(name, from, to)                                                                          \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #to "],\"data_offsets\":[" #from "," #to "]}"
#define ONE(members) "{\"a\":{" members "}}"

struct row {
    const char *text;
    uint64_t data_size;
    const char *says; /* NULL: accepted */
};

static void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct safetensors_header h = {0};
        struct fault f = {0};
        int r = safetensors_parse(rows[i].text, strlen(rows[i].text), rows[i].data_size, &h, &f);
        if (rows[i].says && (r != -EINVAL || !strstr(f.text, rows[i].says)))
            fail_msg("%s: want \"%s\", got %d \"%s\"", rows[i].text, rows[i].says, r, f.text);
        if (!rows[i].says && r != 0)
            fail_msg("%s: %s", rows[i].text, f.text);
        if (r < 0)
            assert_null(h.tensors);
        safetensors_header_done(&h);
    }
}

static void test_good_headers(void **state)
{
    static const struct row rows[] = {
        {"{}", 0, NULL},
        {"{ }   ", 0, NULL},
        {"{\"__metadata__\":{}}", 0, NULL},
        {"{\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\u0000\\n\"}," T("a", 0, 3) "}", 3, NULL},
        {"{" T("b", 0, 3) " , " T("__a", 0, 0) "}", 3, NULL},
        {"{\"scalar\":{\"shape\":[],\"data_offsets\":[0,2],\"dtype\":\"F16\"}}", 2, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[0,0]}}", 0, NULL},
        {"{\"\xc3\xa4\":{\"dtype\":\"I64\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[0,8]}}", 8,
         NULL},
    };

    (void)state;
    check_rows(rows, ARRAY_SIZE(rows));
}

static void test_bad_text(void **state)
{
    static const struct row rows[] = {
        {"", 0, "must begin with '{'"},
        {" {}", 0, "must begin with '{'"},
        {"[]", 0, "must begin with '{'"},
        {"{", 0, "byte 1: want '\"'"},
        {"{}x", 0, "byte 2: text after the header's end"},
        {"{\"a", 0, "the string does not end"},
        {"{\"a\"", 0, "want ':'"},
        {"{\"a\":", 0, "tensor \"a\": header, byte 5: want '{'"},
        {"{\"a\":1}", 0, "want '{'"},
        {"{" T("a", 0, 1) ",}", 1, "want '\"'"},
        {"{" T("a", 0, 1) " " T("b", 1, 1) "}", 1, "want '}'"},
        {"{\"\xff\":1}", 0, "byte 2: not UTF-8"},
        {"{\"\xc0\xaf\":1}", 0, "not UTF-8"},
        {"{\"\xe0\x80\xaf\":1}", 0, "not UTF-8"},
        {"{\"\xed\xa0\x80\":1}", 0, "not UTF-8"},
        {"{\"\xf4\x90\x80\x80\":1}", 0, "not UTF-8"},
        {"{\"\xe2\x82", 0, "not UTF-8"},
        {"{\"\\ud800\":1}", 0, "half a surrogate pair"},
        {"{\"\\ud800\\u0041\":1}", 0, "half a surrogate pair"},
        {"{\"\\u12g4\":1}", 0, "want four hex digits"},
        {"{\"\\x\":1}", 0, "unknown escape"},
        {"{\"\\u0000\":1}", 0, "a control character in a name"},
        {"{\"a\nb\":1}", 0, "a control character in a string"},
        {"{\"a\\nb\":1}", 0, "a control character in a name"},
        {"{\"a\":[[[[[[[[[[[[]]]]]]]]]]]]}", 0, "want '{'"},
        {"{\"a\":{\"dtype\":{\"a\":{}}}}", 0, "want '\"'"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__: header, byte 21: want '\"'"},
        {"{\"__metadata__\":{\"a\":\"1\",\"\\u0061\":\"2\"}}", 0,
         "__metadata__: \"a\" is there twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0,
         "__metadata__: header, byte 34: duplicate"},
    };

    (void)state;
    check_rows(rows, ARRAY_SIZE(rows));
}

static void test_bad_members(void **state)
{
    static const struct row rows[] = {
        {ONE(""), 0, "want '\"'"},
        {ONE("\"dtype\":\"U8\""), 0, "want dtype, shape and data_offsets"},
        {ONE("\"shape\":[1],\"data_offsets\":[0,1]"), 1, "want dtype, shape and data_offsets"},
        {ONE("\"dtype\":\"U8\",\"dtype\":\"U8\""), 0, "duplicate key"},
        {ONE("\"dtype\":\"U8\",\"colour\":\"red\""), 0, "unknown key"},
        {ONE("\"dtype\":\"F8_E4M3\""), 0, "tensor \"a\": dtype \"F8_E4M3\" is unknown"},
        {ONE("\"dtype\":\"f16\""), 0, "dtype \"f16\" is unknown"},
        {ONE("\"dtype\":7"), 0, "want '\"'"},
        {ONE("\"shape\":7"), 0, "want '['"},
        {ONE("\"shape\":[1.0]"), 0, "want a whole number, plainly written"},
        {ONE("\"shape\":[1e3]"), 0, "want a whole number, plainly written"},
        {ONE("\"shape\":[01]"), 0, "want a whole number, plainly written"},
        {ONE("\"shape\":[-1]"), 0, "want a whole number"},
        {ONE("\"shape\":[true]"), 0, "want a whole number"},
        {ONE("\"shape\":[1,]"), 0, "want a whole number"},
        {ONE("\"shape\":[18446744073709551616]"), 0, "the number is too large"},
        {ONE("\"shape\":[1,1,1,1,1,1,1,1,1]"), 0, "the list is too long"},
        {ONE("\"data_offsets\":[0]"), 0, "want a begin and an end"},
        {ONE("\"data_offsets\":[0,1,2]"), 0, "the list is too long"},
        {ONE("\"data_offsets\":[2,1]"), 0, "want a begin and an end"},
        {ONE("\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]"), 8,
         "tensor \"a\": F32 [3] does not take 8 bytes"},
        {ONE("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0,
         "does not take 0 bytes"},
        {ONE("\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]"), 0,
         "does not take 0 bytes"},
    };

    (void)state;
    check_rows(rows, ARRAY_SIZE(rows));
}

static void test_bad_places(void **state)
{
    static const struct row rows[] = {
        {"{" T("a", 0, 4) "," T("a", 0, 4) "}", 4, "tensor \"a\" is there twice"},
        {"{" T("a", 0, 4) "," T("\\u0061", 0, 4) "}", 4, "tensor \"a\" is there twice"},
        {"{" T("a", 0, 4) "," T("b", 0, 4) "}", 4, "overlaps"},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}," T("a", 0, 4) "}", 7,
         "tensor \"b\" overlaps \"a\""},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}," T("a", 0, 4) "}", 9,
         "a hole of 1 bytes before tensor \"b\""},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5,
         "a hole of 1 bytes before tensor \"b\""},
        {"{" T("a", 0, 4) "}", 3, "truncated: the tensors take 4 bytes, the file has 3"},
        {"{" T("a", 0, 4) "}", 5, "1 bytes after the last tensor"},
        {"{}", 1, "1 bytes after the last tensor"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551615],"
         "\"data_offsets\":[0,18446744073709551615]}}",
         9, "truncated"},
    };

    (void)state;
    check_rows(rows, ARRAY_SIZE(rows));
}

/* `count` entries of an object made by `format` with the entry's number. */
static char *many(const char *begin, const char *format, unsigned count, const char *end)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    (void)fputs(begin, out);
    for (unsigned i = 0; i < count; i++) {
        if (i > 0)
            (void)fputc(',', out);
        (void)fprintf(out, "\"n%u\":%s", i, format);
    }
    (void)fputs(end, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_limits(void **state)
{
    static const char tensor[] = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
    char name[2 * SAFETENSORS_NAME_MAX] = {0}, text[1024];

    (void)state;
    for (unsigned extra = 0; extra <= 1; extra++) {
        _cleanup_(freep) char *tensors = many("{", tensor, SAFETENSORS_TENSORS_MAX + extra, "}");
        _cleanup_(freep) char *metadata =
            many("{\"__metadata__\":{", "\"\"", SAFETENSORS_METADATA_MAX + extra, "}}");
        memset(name, 'n', SAFETENSORS_NAME_MAX + extra);
        (void)snprintf(text, sizeof text, "{\"%s\":%s}", name, tensor);
        check_rows((struct row[]){{tensors, 0, extra ? "more than 8192 tensors" : NULL},
                                  {metadata, 0, extra ? "more than 8192 entries" : NULL},
                                  {text, 0, extra ? "longer than 256 bytes" : NULL}},
                   3);
    }
}

static void test_order_and_names(void **state)
{
    static const char text[] = "{\"b\\t\":1}";
    static const char good[] = "{\"\\u00e4\\ud83e\\udd8a\\/"
                               "\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                               "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}";
    struct safetensors_header h = {0};

    (void)state;
    assert_int_equal(safetensors_parse(text, strlen(text), 0, &h, NULL), -EINVAL);
    assert_int_equal(safetensors_parse(good, strlen(good), 16, &h, NULL), 0);
    assert_int_equal(h.count, 2);
    assert_string_equal(h.tensors[0].name, "a");
    assert_string_equal(h.tensors[1].name, "\xc3\xa4\xf0\x9f\xa6\x8a/");
    assert_int_equal(h.tensors[1].dtype, SAFETENSORS_BF16);
    assert_int_equal(h.tensors[1].rank, 2);
    assert_int_equal(h.tensors[1].dims[1], 3);
    assert_int_equal(h.tensors[1].offset, 4);
    assert_int_equal(h.by_name[0], 0);
    safetensors_header_done(&h);
}

/* --- files ------------------------------------------------------------------------------------ */

/* A file of a length word, a header text and `data_size` bytes; and its fault. */
static void check_file(uint64_t length, const char *text, size_t data_size, const char *says)
{
    _cleanup_(freep) char *bytes = calloc(1, 8 + strlen(text) + data_size + 1);
    struct safetensors *s = NULL;
    struct fault f = {0};

    assert_non_null(bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, text, strlen(text));
    assert_int_equal(file_write_atomic(path, bytes, 8 + strlen(text) + data_size, NULL), 0);
    int r = safetensors_open(path, "unet/model.safetensors", &s, &f);
    assert_int_equal(r, -EINVAL);
    assert_null(s);
    if (strncmp(f.text, "unet/model.safetensors: ", 24) != 0 || !strstr(f.text, says))
        fail_msg("want \"%s\", got \"%s\"", says, f.text);
}

static void test_bad_files(void **state)
{
    static const char one[] = "{" T("a", 0, 4) "}";
    struct safetensors *s = NULL;
    struct fault f = {0};

    (void)state;
    check_file(3, "{}", 0, "truncated: the header ends at byte 11, the file at 10");
    check_file(2, "{}", 1, "1 bytes after the last tensor");
    check_file(0, "", 0, "must begin with '{'");
    check_file(SAFETENSORS_HEADER_MAX + 1, "{}", 0, "a header of 16777217 bytes");
    check_file(UINT64_MAX, "{}", 0, "a header of 18446744073709551615 bytes");
    check_file(strlen(one), one, 3, "truncated: the tensors take 4 bytes");
    assert_int_equal(file_write_atomic(path, "", 0, NULL), 0);
    assert_int_equal(safetensors_open(path, NULL, &s, &f), -EINVAL);
    assert_non_null(strstr(f.text, "the file is empty"));
    assert_int_equal(file_write_atomic(path, "1234567", 7, NULL), 0);
    assert_int_equal(safetensors_open(path, NULL, &s, &f), -EINVAL);
    assert_non_null(strstr(f.text, "truncated: 7 bytes"));
    assert_int_equal(safetensors_open(directory, NULL, &s, &f), -EINVAL);
    assert_non_null(strstr(f.text, "not a regular file"));
    assert_int_equal(safetensors_open("/nonexistent", NULL, &s, &f), -ENOENT);
    assert_string_equal(f.text, "/nonexistent: No such file or directory");
}

static void test_fifo_does_not_block(void **state)
{
    struct safetensors *s = NULL;

    (void)state;
    (void)remove(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(safetensors_open(path, NULL, &s, NULL), -EINVAL);
    assert_int_equal(remove(path), 0);
}

static const uint8_t bytes[] = {1, 2, 3, 4, 5};
static const float floats[] = {1, 2, 3, 4, 5, 6};

static void write_good_file(void)
{
    const struct safetensors_item items[] = {
        {.name = "bytes", .dtype = "U8", .rank = 1, .dims = {5}, .data = bytes},
        {.name = "floats", .dtype = "F32", .rank = 2, .dims = {2, 3}, .data = floats},
    };
    struct fault f;

    if (safetensors_write(path, items, ARRAY_SIZE(items), &f) < 0)
        fail_msg("%s", f.text);
}

static void test_reading(void **state)
{
    _cleanup_(safetensors_closep) struct safetensors *s = NULL;
    struct fault f = {0};
    float values[2];
    size_t size;

    (void)state;
    write_good_file();
    assert_int_equal(safetensors_open(path, NULL, &s, &f), 0);
    assert_int_equal(safetensors_count(s), 2);
    assert_null(safetensors_find(s, "float"));
    assert_null(safetensors_find(s, "zz"));
    assert_ptr_equal(safetensors_find(s, "bytes"), safetensors_get(s, 0));
    const struct safetensors_tensor *t = safetensors_find(s, "floats");
    assert_non_null(t);
    assert_int_equal(t->size, sizeof floats);
    assert_int_equal(safetensors_read(s, t, 8, values, sizeof values, &f), 0);
    assert_memory_equal(values, floats + 2, sizeof values);
    assert_int_equal(safetensors_read(s, t, 20, values, 8, &f), -ERANGE);
    assert_int_equal(safetensors_read(s, t, UINT64_MAX, values, 8, &f), -ERANGE);
    assert_memory_equal((const char *)safetensors_header_bytes(s, &size) + 8, "{", 1);
    assert_int_equal(safetensors_file_size(s), size + sizeof bytes + sizeof floats);
    assert_int_equal(safetensors_check_unchanged(s, &f), 0);
}

#define LARGE_WORDS (3u << 20) /* 12 MiB: three of the reader's windows */

/* A tensor of several windows after one of 3 bytes, so that nothing is aligned. */
static void check_large(const char *file)
{
    _cleanup_(safetensors_closep) struct safetensors *s = NULL;
    _cleanup_(freep) uint32_t *words = malloc(4 * LARGE_WORDS), *found = malloc(4 * LARGE_WORDS);
    struct fault f = {0};

    assert_non_null(words);
    assert_non_null(found);
    for (uint32_t i = 0; i < LARGE_WORDS; i++)
        words[i] = i * 2654435761u;
    const struct safetensors_item items[] = {
        {.name = "bytes", .dtype = "U8", .rank = 1, .dims = {3}, .data = bytes},
        {.name = "large", .dtype = "U32", .rank = 1, .dims = {LARGE_WORDS}, .data = words},
    };
    assert_int_equal(safetensors_write(file, items, ARRAY_SIZE(items), &f), 0);
    assert_int_equal(safetensors_open(file, NULL, &s, &f), 0);
    const struct safetensors_tensor *t = safetensors_find(s, "large");
    for (size_t at = 0; at < t->size; at += 5000000) {
        size_t n = t->size - at < 5000000 ? t->size - at : 5000000;
        assert_int_equal(safetensors_read(s, t, at, (char *)found + at, n, &f), 0);
    }
    assert_memory_equal(words, found, t->size);
    assert_int_equal(safetensors_check_unchanged(s, &f), 0);
    assert_int_equal(safetensors_read(s, t, 4, found, 4, &f), 0); /* backwards, window freed */
    assert_int_equal(found[0], words[1]);
    assert_int_equal(safetensors_read(s, t, t->size, found, 0, &f), 0);
    assert_int_equal(remove(file), 0);
}

static void test_large_unaligned(void **state)
{
    (void)state;
    check_large(path);
}

/* tmpfs refuses O_DIRECT. */
static void test_large_without_direct(void **state)
{
    char file[64];

    (void)state;
    (void)snprintf(file, sizeof file, "/dev/shm/test-safetensors-%ld", (long)getpid());
    if (access("/dev/shm", W_OK) < 0) {
        print_message("/dev/shm cannot be written to\n");
        skip();
    }
    check_large(file);
}

/* Bits of a number that cannot be computed with, and how the message ends. */
static const struct {
    const char *type;
    uint32_t bits;
    enum safetensors_range range;
    const char *text; /* NULL: it can */
} numbers[] = {
    {"F16", 0x7c00, SAFETENSORS_HALF, "inf; want numbers below 65520"},
    {"F16", 0x7e01, SAFETENSORS_FINITE, "NaN; want numbers below infinity"},
    {"F16", 0xfc00, SAFETENSORS_HALF, "-inf; want numbers below 65520"},
    {"F16", 0xfbff, SAFETENSORS_HALF, NULL},
    {"BF16", 0x7f81, SAFETENSORS_HALF, "NaN; want numbers below 65520"},
    {"BF16", 0xc780, SAFETENSORS_HALF, "-65536; want numbers below 65520"},
    {"BF16", 0x477f, SAFETENSORS_HALF, NULL},
    {"BF16", 0xc780, SAFETENSORS_FINITE, NULL},
    {"F32", 0x7f800000, SAFETENSORS_FINITE, "inf; want numbers below infinity"},
    {"F32", 0x7fc00000, SAFETENSORS_HALF, "NaN; want numbers below 65520"},
    {"F32", 0x477ff000, SAFETENSORS_HALF, "65520; want numbers below 65520"},
    {"F32", 0x477fefff, SAFETENSORS_HALF, NULL},
    {"F32", 0x49000000, SAFETENSORS_FINITE, NULL},
};

#define MANY_NUMBERS 2200000u

/* One such number among many, `shift` bytes after where they would be aligned. */
static void read_with(size_t row, uint64_t element, size_t shift)
{
    _cleanup_(safetensors_closep) struct safetensors *s = NULL;
    size_t size = numbers[row].type[0] == 'F' && numbers[row].type[1] == '3' ? 4 : 2;
    _cleanup_(freep) char *data = calloc(MANY_NUMBERS, size), *found = calloc(MANY_NUMBERS, size);
    const struct safetensors_item items[] = {
        {.name = "skew", .dtype = "U8", .rank = 1, .dims = {shift}, .data = bytes},
        {.name = "w", .dtype = numbers[row].type, .rank = 1, .dims = {MANY_NUMBERS}, .data = data}};
    struct fault f = {0};
    char text[96];

    for (size_t i = 0; i < MANY_NUMBERS * size; i++)
        data[i] = (char)(i * 37 & 0x3f); /* small numbers of any type */
    memcpy(data + element * size, &numbers[row].bits, size);
    assert_int_equal(safetensors_write(path, items, 2, &f), 0);
    assert_int_equal(safetensors_open(path, "x", &s, &f), 0);
    const struct safetensors_tensor *t = safetensors_find(s, "w");
    int r = safetensors_read_numbers(s, t, 0, found, MANY_NUMBERS * size, numbers[row].range, &f);
    if (!numbers[row].text) {
        assert_int_equal(r, 0);
        assert_memory_equal(found, data, MANY_NUMBERS * size);
        return;
    }
    (void)snprintf(text, sizeof text, "x: w: element %u is %s", (unsigned)element,
                   numbers[row].text);
    assert_int_equal(r, -EINVAL);
    assert_string_equal(f.text, text);
}

/* Of every type; then at both ends and around where the reader's window of 4 MiB ends. */
static void test_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        read_with(i, 100000 * i + 7, i % 4);
    read_with(0, 0, 1);
    read_with(0, MANY_NUMBERS - 1, 1);
    for (uint64_t at = 1048540; at < 1048550; at++) /* the header takes about 130 bytes */
        read_with(9, at, at % 4);
}

/* -EIO is a lost device's: whoever reads a model from a bad disk must not start the worker anew. */
static void test_bad_disk(void **state)
{
    _cleanup_(safetensors_closep) struct safetensors *s = NULL;
    struct fault f = {0};
    float values[6];

    (void)state;
    write_good_file();
    is_disk_bad = true;
    assert_int_equal(safetensors_open(path, "x", &s, &f), -ENODATA);
    assert_string_equal(f.text, "x: cannot read: Input/output error");
    is_disk_bad = false;
    assert_int_equal(safetensors_open(path, "x", &s, NULL), 0);
    const struct safetensors_tensor *t = safetensors_find(s, "floats");
    is_disk_bad = true;
    assert_int_equal(safetensors_read(s, t, 0, values, sizeof values, &f), -ENODATA);
    assert_string_equal(f.text, "x: cannot read: Input/output error");
    is_disk_bad = false;
}

static void test_change_is_noticed(void **state)
{
    _cleanup_(safetensors_closep) struct safetensors *s = NULL;
    struct fault f = {0};
    float values[6];

    (void)state;
    write_good_file();
    assert_int_equal(safetensors_open(path, "x", &s, NULL), 0);
    assert_int_equal(truncate(path, 200), 0);
    assert_int_equal(safetensors_check_unchanged(s, &f), -ESTALE);
    assert_string_equal(f.text, "x: changed while it was read");
    assert_int_equal(truncate(path, 10), 0);
    const struct safetensors_tensor *t = safetensors_find(s, "floats");
    assert_int_equal(safetensors_read(s, t, 0, values, sizeof values, &f), -EINVAL);
    assert_string_equal(f.text, "x: truncated while it was read");
}

static int owner_of(mode_t mode, struct fault *f)
{
    _cleanup_(safetensors_closep) struct safetensors *s = NULL;

    assert_int_equal(chmod(path, mode), 0);
    assert_int_equal(safetensors_open(path, "x", &s, NULL), 0);
    return safetensors_check_owner(s, f);
}

static void test_owner_and_mode(void **state)
{
    struct fault f = {0};

    (void)state;
    write_good_file();
    assert_int_equal(owner_of(0644, &f), 0);
    assert_int_equal(owner_of(0400, &f), 0);
    assert_int_equal(owner_of(0664, &f), -EPERM);
    assert_string_equal(f.text, "x: its group may write it; want mode 0644 or stricter (chmod)");
    assert_int_equal(owner_of(0646, &f), -EPERM);
    assert_string_equal(f.text, "x: everybody may write it; want mode 0644 or stricter (chmod)");
    if (geteuid() != 0) {
        print_message("only root gives files away\n");
        skip();
    }
    assert_int_equal(chown(path, 65534, 0), 0);
    assert_int_equal(owner_of(0644, &f), -EPERM);
    assert_string_equal(f.text, "x: belongs to user 65534; want root or user 0 (chown)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_owner_and_mode),
        cmocka_unit_test(test_good_headers),
        cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_bad_members),
        cmocka_unit_test(test_bad_places),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_order_and_names),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_fifo_does_not_block),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_large_unaligned),
        cmocka_unit_test(test_large_without_direct),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_bad_disk),
        cmocka_unit_test(test_change_is_noticed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
