/* The header's grammar: exactly what the format allows, so there is no general JSON here and no
 * recursion, however deep the text nests. Names are decoded, compared after decoding. */
#include "vk/weights/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/array.h"

static const struct {
    const char *name;
    uint32_t size; /* bytes */
} dtypes[SAFETENSORS_DTYPE_COUNT] = {
    [SAFETENSORS_BOOL] = {"BOOL", 1}, [SAFETENSORS_U8] = {"U8", 1},
    [SAFETENSORS_I8] = {"I8", 1},     [SAFETENSORS_U16] = {"U16", 2},
    [SAFETENSORS_I16] = {"I16", 2},   [SAFETENSORS_F16] = {"F16", 2},
    [SAFETENSORS_BF16] = {"BF16", 2}, [SAFETENSORS_U32] = {"U32", 4},
    [SAFETENSORS_I32] = {"I32", 4},   [SAFETENSORS_F32] = {"F32", 4},
    [SAFETENSORS_U64] = {"U64", 8},   [SAFETENSORS_I64] = {"I64", 8},
    [SAFETENSORS_F64] = {"F64", 8},
};

uint32_t safetensors_dtype_size(enum safetensors_dtype dtype)
{
    return dtypes[dtype].size;
}

const char *safetensors_dtype_to_string(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

const char *safetensors_format_shape(const uint64_t *dims, uint32_t rank,
                                     char ret_text[SAFETENSORS_SHAPE_TEXT])
{
    size_t n = 1;

    (void)snprintf(ret_text, SAFETENSORS_SHAPE_TEXT, "[");
    for (uint32_t i = 0; i < rank && n < SAFETENSORS_SHAPE_TEXT; i++)
        n += (size_t)snprintf(ret_text + n, SAFETENSORS_SHAPE_TEXT - n, "%s%" PRIu64, i ? "," : "",
                              dims[i]);
    if (n < SAFETENSORS_SHAPE_TEXT)
        (void)snprintf(ret_text + n, SAFETENSORS_SHAPE_TEXT - n, "]");
    return ret_text;
}

/* --- text ------------------------------------------------------------------------------------- */

struct parser {
    const char *text;
    size_t length, at;
    uint64_t data_size;
    struct ARRAY(struct safetensors_tensor) tensors;
    struct ARRAY(char *) metadata; /* keys */
    bool has_metadata;
    struct fault *fault;
};

static int bad(struct parser *p, const char *what)
{
    return fault_set(p->fault, -EINVAL, "header, byte %zu: %s", p->at, what);
}

static int no_memory(struct parser *p)
{
    return fault_set(p->fault, -ENOMEM, "out of memory");
}

static void skip_blanks(struct parser *p)
{
    while (p->at < p->length && strchr(" \t\n\r", p->text[p->at]) && p->text[p->at])
        p->at++;
}

/* The next character that is no blank, or 0 at the end. It stays. */
static char peek(struct parser *p)
{
    skip_blanks(p);
    return p->at < p->length ? p->text[p->at] : '\0';
}

/* `c` is never 0, so the end is no match. */
static bool accept(struct parser *p, char c)
{
    if (peek(p) != c)
        return false;
    p->at++;
    return true;
}

static int expect(struct parser *p, char c)
{
    char what[] = "want '?'";

    if (accept(p, c))
        return 0;
    what[6] = c;
    return bad(p, what);
}

/* Bytes of the well-formed UTF-8 sequence at `s`, 0 when there is none. */
static size_t utf8_sequence(const unsigned char *s, size_t left)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

    if (n == 0 || s[0] > 0xf4 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f, beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : n;
}

static int check_utf8(struct parser *p)
{
    while (p->at < p->length) {
        size_t n = utf8_sequence((const unsigned char *)p->text + p->at, p->length - p->at);
        if (n == 0)
            return bad(p, "not UTF-8");
        p->at += n;
    }
    p->at = 0;
    return 0;
}

/* --- strings ---------------------------------------------------------------------------------- */

/* Decoded bytes; those over the capacity are counted, not kept. */
struct text {
    char bytes[SAFETENSORS_NAME_MAX + 1];
    size_t length;
};

static void put_byte(struct text *t, unsigned char byte)
{
    if (t->length < SAFETENSORS_NAME_MAX)
        t->bytes[t->length] = (char)byte;
    t->length++;
}

static void put_code_point(struct text *t, uint32_t c)
{
    static const struct {
        uint32_t below;
        unsigned lead, shift;
    } rows[] = {{0x80, 0, 0}, {0x800, 0xc0, 6}, {0x10000, 0xe0, 12}, {0x110000, 0xf0, 18}};
    size_t i = 0;

    while (c >= rows[i].below)
        i++;
    put_byte(t, (unsigned char)(rows[i].lead | c >> rows[i].shift));
    for (unsigned shift = rows[i].shift; shift > 0; shift -= 6)
        put_byte(t, (unsigned char)(0x80 | (c >> (shift - 6) & 0x3f)));
}

static int parse_hex(struct parser *p, uint32_t *ret_value)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    uint32_t value = 0;

    for (int i = 0; i < 4; i++) {
        const char *digit =
            p->at < p->length && p->text[p->at] ? strchr(digits, p->text[p->at]) : NULL;
        if (!digit)
            return bad(p, "want four hex digits");
        value = value << 4 | ((uint32_t)(digit - digits) & 15);
        p->at++;
    }
    *ret_value = value;
    return 0;
}

/* What follows \u: one or two groups of four digits. */
static int parse_unicode(struct parser *p, struct text *t)
{
    uint32_t c = 0, low = 0;

    int r = parse_hex(p, &c);
    if (r < 0)
        return r;
    if (c >= 0xd800 && c < 0xdc00 && p->at + 1 < p->length && p->text[p->at] == '\\' &&
        p->text[p->at + 1] == 'u') {
        p->at += 2;
        r = parse_hex(p, &low);
        if (r < 0)
            return r;
        if (low >= 0xdc00 && low < 0xe000)
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c >= 0xd800 && c < 0xe000)
        return bad(p, "half a surrogate pair");
    put_code_point(t, c);
    return 0;
}

static int parse_escape(struct parser *p, struct text *t)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = p->at < p->length ? p->text[p->at++] : '\0';
    const char *found = c ? strchr(from, c) : NULL;

    if (c == 'u')
        return parse_unicode(p, t);
    if (!found)
        return bad(p, "unknown escape");
    put_byte(t, (unsigned char)to[found - from]);
    return 0;
}

static int parse_string(struct parser *p, struct text *ret_text)
{
    int r = expect(p, '"');

    ret_text->length = 0;
    while (r >= 0) {
        if (p->at >= p->length)
            return bad(p, "the string does not end");
        unsigned char c = (unsigned char)p->text[p->at];
        if (c < 0x20)
            return bad(p, "a control character in a string");
        p->at++;
        if (c == '"')
            break;
        if (c == '\\')
            r = parse_escape(p, ret_text);
        else
            put_byte(ret_text, c);
    }
    if (r >= 0 && ret_text->length <= SAFETENSORS_NAME_MAX)
        ret_text->bytes[ret_text->length] = '\0';
    return r;
}

/* A string of limited length without control characters: a key, a name, a dtype. */
static int parse_name(struct parser *p, struct text *ret_text)
{
    int r = parse_string(p, ret_text);

    if (r < 0)
        return r;
    if (ret_text->length > SAFETENSORS_NAME_MAX)
        return bad(p, "a name longer than 256 bytes");
    for (size_t i = 0; i < ret_text->length; i++) {
        unsigned char c = (unsigned char)ret_text->bytes[i];
        if (c < 0x20 || c == 0x7f)
            return bad(p, "a control character in a name");
    }
    return 0;
}

/* --- values ----------------------------------------------------------------------------------- */

static int parse_uint(struct parser *p, uint64_t *ret_value)
{
    uint64_t value = 0;
    char first = peek(p);

    if (first < '0' || first > '9')
        return bad(p, "want a whole number");
    while (p->at < p->length && p->text[p->at] >= '0' && p->text[p->at] <= '9') {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(p->text[p->at] - '0'), &value))
            return bad(p, "the number is too large");
        p->at++;
        if (first == '0')
            break;
    }
    if (p->at < p->length && p->text[p->at] && strchr("0123456789.eE", p->text[p->at]))
        return bad(p, "want a whole number, plainly written");
    *ret_value = value;
    return 0;
}

/* [a, b, …], at most `capacity` numbers. */
static int parse_list(struct parser *p, uint32_t capacity, uint64_t *ret_values,
                      uint32_t *ret_count)
{
    uint32_t count = 0;
    int r = expect(p, '[');

    if (r < 0)
        return r;
    if (accept(p, ']')) {
        *ret_count = 0;
        return 0;
    }
    do {
        if (count == capacity)
            return bad(p, "the list is too long");
        r = parse_uint(p, &ret_values[count++]);
        if (r < 0)
            return r;
    } while (accept(p, ','));
    *ret_count = count;
    return expect(p, ']');
}

static int parse_dtype(struct parser *p, enum safetensors_dtype *ret_dtype)
{
    struct text text;
    int r = parse_name(p, &text);

    if (r < 0)
        return r;
    for (int i = 0; i < SAFETENSORS_DTYPE_COUNT; i++) {
        if (strcmp(text.bytes, dtypes[i].name) == 0) {
            *ret_dtype = (enum safetensors_dtype)i;
            return 0;
        }
    }
    return fault_set(p->fault, -EINVAL, "dtype \"%.40s\" is unknown", text.bytes);
}

static int parse_offsets(struct parser *p, struct safetensors_tensor *t)
{
    uint64_t offsets[2];
    uint32_t count = 0;
    int r = parse_list(p, 2, offsets, &count);

    if (r < 0)
        return r;
    if (count != 2 || offsets[0] > offsets[1])
        return bad(p, "data_offsets want a begin and an end");
    t->offset = offsets[0];
    t->size = offsets[1] - offsets[0];
    return 0;
}

/* One key and value of a tensor's object. *seen: a bit for each key so far. */
static int parse_member(struct parser *p, struct safetensors_tensor *t, unsigned *seen)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    struct text key;
    size_t i = 0;

    int r = parse_name(p, &key);
    if (r < 0)
        return r;
    while (i < ARRAY_SIZE(keys) && strcmp(key.bytes, keys[i]) != 0)
        i++;
    if (i == ARRAY_SIZE(keys))
        return bad(p, "unknown key");
    if (*seen & 1u << i)
        return bad(p, "duplicate key");
    *seen |= 1u << i;
    r = expect(p, ':');
    if (r < 0)
        return r;
    if (i == 0)
        return parse_dtype(p, &t->dtype);
    return i == 1 ? parse_list(p, SAFETENSORS_RANK_MAX, t->dims, &t->rank) : parse_offsets(p, t);
}

/* size = product of dims * bytes of an element, without overflow? */
static int check_size(struct parser *p, const struct safetensors_tensor *t)
{
    char shape[SAFETENSORS_SHAPE_TEXT];
    uint64_t size = dtypes[t->dtype].size;
    bool overflow = false;

    for (uint32_t i = 0; i < t->rank; i++)
        overflow |= __builtin_mul_overflow(size, t->dims[i], &size);
    if (!overflow && size == t->size)
        return 0;
    return fault_set(p->fault, -EINVAL, "%s %s does not take %" PRIu64 " bytes",
                     dtypes[t->dtype].name, safetensors_format_shape(t->dims, t->rank, shape),
                     t->size);
}

static int parse_tensor(struct parser *p, struct safetensors_tensor *t)
{
    unsigned seen = 0;
    int r = expect(p, '{');

    if (r < 0)
        return r;
    do {
        r = parse_member(p, t, &seen);
        if (r < 0)
            return r;
    } while (accept(p, ','));
    r = expect(p, '}');
    if (r < 0)
        return r;
    if (seen != 7)
        return bad(p, "want dtype, shape and data_offsets");
    return check_size(p, t);
}

/* --- the whole -------------------------------------------------------------------------------- */

static int add_tensor(struct parser *p, const char *name)
{
    struct safetensors_tensor tensor = {0};

    int r = parse_tensor(p, &tensor);
    if (r < 0)
        return fault_prefix(p->fault, r, "tensor \"%.100s\"", name);
    if (p->tensors.count == SAFETENSORS_TENSORS_MAX)
        return bad(p, "more than 8192 tensors");
    tensor.name = strdup(name);
    struct safetensors_tensor *t = tensor.name ? array_push(&p->tensors) : NULL;
    if (!t) {
        free(tensor.name);
        return no_memory(p);
    }
    *t = tensor;
    return 0;
}

static int add_metadata(struct parser *p)
{
    struct text key, value;

    int r = parse_name(p, &key);
    if (r >= 0)
        r = expect(p, ':');
    if (r >= 0)
        r = parse_string(p, &value);
    if (r < 0)
        return r;
    if (p->metadata.count == SAFETENSORS_METADATA_MAX)
        return bad(p, "more than 8192 entries");
    char **slot = array_push(&p->metadata);
    if (!slot)
        return no_memory(p);
    *slot = strdup(key.bytes);
    return *slot ? 0 : no_memory(p);
}

static int parse_metadata(struct parser *p)
{
    int r = p->has_metadata ? bad(p, "duplicate key") : expect(p, '{');

    p->has_metadata = true;
    if (r < 0 || accept(p, '}'))
        return r;
    do {
        r = add_metadata(p);
    } while (r >= 0 && accept(p, ','));
    return r < 0 ? r : expect(p, '}');
}

static int parse_entry(struct parser *p)
{
    struct text name;

    int r = parse_name(p, &name);
    if (r < 0)
        return r;
    r = expect(p, ':');
    if (r < 0)
        return r;
    if (strcmp(name.bytes, "__metadata__") != 0)
        return add_tensor(p, name.bytes);
    r = parse_metadata(p);
    return r < 0 ? fault_prefix(p->fault, r, "__metadata__") : 0;
}

static int parse_object(struct parser *p)
{
    int r;

    if (p->length == 0 || p->text[0] != '{')
        return bad(p, "the header must begin with '{'");
    p->at = 1;
    if (!accept(p, '}')) {
        do {
            r = parse_entry(p);
            if (r < 0)
                return r;
        } while (accept(p, ','));
        r = expect(p, '}');
        if (r < 0)
            return r;
    }
    skip_blanks(p);
    return p->at == p->length ? 0 : bad(p, "text after the header's end");
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int check_metadata(struct parser *p)
{
    if (p->metadata.count == 0)
        return 0;
    qsort(p->metadata.items, p->metadata.count, sizeof p->metadata.items[0], compare_keys);
    for (size_t i = 1; i < p->metadata.count; i++) {
        if (strcmp(p->metadata.items[i - 1], p->metadata.items[i]) == 0)
            return fault_set(p->fault, -EINVAL, "__metadata__: \"%.100s\" is there twice",
                             p->metadata.items[i]);
    }
    return 0;
}

/* Empty tensors lie before the one that begins where they do. */
static int compare_places(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

/* One tensor after the other from 0 to the end of the file; they are sorted by place. */
static int check_places(struct parser *p)
{
    uint64_t at = 0;

    for (size_t i = 0; i < p->tensors.count; i++) {
        const struct safetensors_tensor *t = &p->tensors.items[i];
        if (t->offset < at)
            return fault_set(p->fault, -EINVAL, "tensor \"%.100s\" overlaps \"%.100s\"", t->name,
                             p->tensors.items[i - 1].name);
        if (t->offset > at)
            return fault_set(p->fault, -EINVAL,
                             "a hole of %" PRIu64 " bytes before tensor \"%.100s\"", t->offset - at,
                             t->name);
        at += t->size;
    }
    if (at > p->data_size)
        return fault_set(p->fault, -EINVAL,
                         "truncated: the tensors take %" PRIu64 " bytes, the file has %" PRIu64, at,
                         p->data_size);
    if (at < p->data_size)
        return fault_set(p->fault, -EINVAL, "%" PRIu64 " bytes after the last tensor",
                         p->data_size - at);
    return 0;
}

static int compare_names(const void *a, const void *b, void *tensors)
{
    const struct safetensors_tensor *t = tensors;

    return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

/* Fills the index by name; two neighbours alike are a duplicate key. */
static int index_names(struct parser *p, uint32_t **ret_by_name)
{
    struct safetensors_tensor *t = p->tensors.items;
    size_t count = p->tensors.count;
    _cleanup_(freep) uint32_t *by_name = calloc(count + 1, sizeof *by_name);

    if (!by_name)
        return no_memory(p);
    for (uint32_t i = 0; i < count; i++)
        by_name[i] = i;
    qsort_r(by_name, count, sizeof *by_name, compare_names, t);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(t[by_name[i - 1]].name, t[by_name[i]].name) == 0)
            return fault_set(p->fault, -EINVAL, "tensor \"%.100s\" is there twice",
                             t[by_name[i]].name);
    }
    *ret_by_name = TAKE_PTR(by_name);
    return 0;
}

static int parse_all(struct parser *p, uint32_t **ret_by_name)
{
    int r = check_utf8(p);

    if (r >= 0)
        r = parse_object(p);
    if (r >= 0)
        r = check_metadata(p);
    if (r < 0)
        return r;
    if (p->tensors.count)
        qsort(p->tensors.items, p->tensors.count, sizeof p->tensors.items[0], compare_places);
    r = index_names(p, ret_by_name);
    return r < 0 ? r : check_places(p);
}

void safetensors_header_done(struct safetensors_header *header)
{
    for (size_t i = 0; i < header->count; i++)
        free(header->tensors[i].name);
    free(header->tensors);
    free(header->by_name);
    *header = (struct safetensors_header){0};
}

int safetensors_parse(const char *text, size_t length, uint64_t data_size,
                      struct safetensors_header *ret_header, struct fault *f)
{
    struct parser p = {.text = text, .length = length, .data_size = data_size, .fault = f};
    uint32_t *by_name = NULL;

    int r = parse_all(&p, &by_name);
    for (size_t i = 0; i < p.metadata.count; i++)
        free(p.metadata.items[i]);
    array_done(&p.metadata);
    struct safetensors_header header = {p.tensors.items, p.tensors.count, by_name};
    if (r < 0)
        safetensors_header_done(&header);
    else
        *ret_header = header;
    return r;
}
