#include "vk/base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/file.h"

/* Deepest nesting of brackets outside strings; a count, not a parser: bad text is jansson's to
 * refuse. */
static size_t text_depth(const char *text, size_t length)
{
    size_t depth = 0, deepest = 0;
    bool in_string = false;

    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (in_string)
            continue;
        else if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        if (depth > deepest)
            deepest = depth;
    }
    return deepest;
}

/* jansson does not look whether its buffers could grow: a token may come out shorter, and a string
 * without its closing quote is read on beyond the buffer. So we look; and while a text is parsed,
 * buffers (their sizes are powers of two) grow into a reserve when there is no memory. What is not
 * a buffer gets none, which ends the parsing. */
static _Thread_local bool ran_out;
static _Thread_local struct {
    char *begin, *next, *end;
} reserve;

static void *take_reserve(size_t size)
{
    if (size < 32 || (size & (size - 1)) || size > (size_t)(reserve.end - reserve.next))
        return NULL;
    reserve.next += size;
    return reserve.next - size;
}

static void *allocate(size_t size)
{
    void *block = malloc(size);

    ran_out |= !block;
    return block ? block : take_reserve(size);
}

static void release(void *block)
{
    uintptr_t at = (uintptr_t)block;

    if (!reserve.begin || at < (uintptr_t)reserve.begin || at >= (uintptr_t)reserve.end)
        free(block);
}

__attribute__((constructor)) static void watch_jansson(void)
{
    json_set_alloc_funcs(allocate, release);
}

/* Room for a buffer to grow from 16 bytes to the longest string, doubled each time, twice over. */
static bool open_reserve(const char *text, size_t length)
{
    size_t longest = 0, size = 4096;

    for (size_t i = 0, since = 0; i < length; i++) {
        since = text[i] == '"' ? 0 : since + 1;
        if (text[i] == '\\' && i + 1 < length) /* an escaped quote ends nothing */
            since++, i++;
        longest = since > longest ? since : longest;
    }
    while (size < 8 * longest)
        size *= 2;
    reserve.begin = reserve.next = malloc(size);
    reserve.end = reserve.begin ? reserve.begin + size : NULL;
    return reserve.begin != NULL;
}

static void close_reserve(void)
{
    free(reserve.begin);
    reserve.begin = reserve.next = reserve.end = NULL;
}

bool json_ran_out(void)
{
    bool answer = ran_out;

    ran_out = false;
    return answer;
}

static json_t *load(const char *text, size_t length, size_t flags, json_error_t *ret_error)
{
    if (!open_reserve(text, length)) {
        ran_out = true;
        return NULL;
    }
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES | flags, ret_error);
    if (ran_out) /* it may lie in the reserve */
        root = json_free(root);
    close_reserve();
    return root;
}

static int parse(const char *text, size_t length, size_t flags, json_t **ret_root, struct fault *f)
{
    json_error_t error;

    if (length && memchr(text, '\0', length)) /* which jansson overlooks behind a number */
        return fault_set(f, -EINVAL, "holds a NUL character");
    if (text_depth(text, length) > JSON_DEPTH_MAX)
        return fault_set(f, -EINVAL, "nested deeper than %u", JSON_DEPTH_MAX);
    (void)json_ran_out();
    _cleanup_(json_freep) json_t *root = load(text, length, flags, &error);
    if (json_ran_out())
        return fault_set(f, -ENOMEM, "out of memory");
    if (!root)
        return fault_set(f, -EINVAL, "line %d, column %d: %s", error.line, error.column,
                         error.text);
    *ret_root = TAKE_PTR(root);
    return 0;
}

int json_parse(const char *text, size_t length, json_t **ret_root, struct fault *f)
{
    return parse(text, length, 0, ret_root, f);
}

static int read_object(const char *path, size_t limit, size_t flags, json_t **ret_root,
                       struct fault *f)
{
    _cleanup_(freep) char *text = NULL;
    _cleanup_(json_freep) json_t *root = NULL;
    size_t size;

    int r = file_read(path, limit, &text, &size, f);
    if (r < 0)
        return r;
    r = parse(text, size, flags, &root, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", path);
    if (!json_is_object(root))
        return fault_set(f, -EINVAL, "%s: not a JSON object", path);
    *ret_root = TAKE_PTR(root);
    return 0;
}

int json_read_object(const char *path, size_t limit, json_t **ret_root, struct fault *f)
{
    return read_object(path, limit, 0, ret_root, f);
}

int json_read_config(const char *directory, const char *file, json_t **ret_root, struct fault *f)
{
    char path[PATH_MAX];

    int r = file_path(path, f, "%s/%s", directory, file);
    return r < 0 ? r : json_read_object(path, JSON_CONFIG_MAX, ret_root, f);
}

int json_read_object_of_doubles(const char *path, size_t limit, json_t **ret_root, struct fault *f)
{
    return read_object(path, limit, JSON_DECODE_INT_AS_REAL, ret_root, f);
}

/* What a value is called in a message. */
static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",    [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a fraction", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return names[json_typeof(value)];
}

/* NULL when absent or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static int wrong_type(struct fault *f, const char *key, const char *want, const json_t *value)
{
    return fault_set(f, -EINVAL, "%s: want %s, the file has %s", key, want, type_name(value));
}

static int to_uint(const json_t *value, const char *key, uint64_t min, uint64_t max,
                   uint64_t *ret_value, struct fault *f)
{
    if (!json_is_integer(value))
        return wrong_type(f, key, "a whole number", value);
    json_int_t n = json_integer_value(value);
    if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
        return fault_set(f, -EINVAL, "%s: %" JSON_INTEGER_FORMAT " is outside %" PRIu64 "…%" PRIu64,
                         key, n, min, max);
    *ret_value = (uint64_t)n;
    return 1;
}

int json_get_uint(const json_t *object, const char *key, uint64_t min, uint64_t max,
                  uint64_t *ret_value, struct fault *f)
{
    const json_t *value = member(object, key);

    return value ? to_uint(value, key, min, max, ret_value, f) : 0;
}

int json_get_u32(const json_t *object, const char *key, uint32_t min, uint32_t max,
                 uint32_t *ret_value, struct fault *f)
{
    uint64_t wide = 0;

    int r = json_get_uint(object, key, min, max, &wide, f);
    if (r > 0)
        *ret_value = (uint32_t)wide;
    return r;
}

int json_get_bool(const json_t *object, const char *key, bool *ret_value, struct fault *f)
{
    const json_t *value = member(object, key);

    if (!value)
        return 0;
    if (!json_is_boolean(value))
        return wrong_type(f, key, "true or false", value);
    *ret_value = json_is_true(value);
    return 1;
}

int json_get_double(const json_t *object, const char *key, double min, double max,
                    double *ret_value, struct fault *f)
{
    const json_t *value = member(object, key);

    if (!value)
        return 0;
    if (!json_is_number(value))
        return wrong_type(f, key, "a number", value);
    double x = json_number_value(value);
    if (!(x >= min && x <= max))
        return fault_set(f, -EINVAL, "%s: %g is outside %g…%g", key, x, min, max);
    *ret_value = x;
    return 1;
}

int json_get_string(const json_t *object, const char *key, const char **ret_value, struct fault *f)
{
    const json_t *value = member(object, key);

    if (!value)
        return 0;
    if (!json_is_string(value))
        return wrong_type(f, key, "a string", value);
    *ret_value = json_string_value(value);
    return 1;
}

/* The list under `key` and its length: 1, 0 when absent, -EINVAL. */
static int get_list(const json_t *object, const char *key, size_t capacity, const json_t **ret_list,
                    struct fault *f)
{
    const json_t *list = member(object, key);

    if (!list)
        return 0;
    if (!json_is_array(list))
        return wrong_type(f, key, "a list", list);
    if (json_array_size(list) > capacity)
        return fault_set(f, -EINVAL, "%s: %zu entries, at most %zu are possible", key,
                         json_array_size(list), capacity);
    *ret_list = list;
    return 1;
}

int json_get_u32_list(const json_t *object, const char *key, uint32_t min, uint32_t max,
                      size_t capacity, uint32_t *ret_values, size_t *ret_count, struct fault *f)
{
    const json_t *list = NULL;

    int r = get_list(object, key, capacity, &list, f);
    if (r <= 0)
        return r;
    for (size_t i = 0; i < json_array_size(list); i++) {
        uint64_t wide = 0;
        r = to_uint(json_array_get(list, i), key, min, max, &wide, f);
        if (r < 0)
            return r;
        ret_values[i] = (uint32_t)wide;
    }
    *ret_count = json_array_size(list);
    return 1;
}

int json_get_string_list(const json_t *object, const char *key, size_t capacity,
                         const char **ret_values, size_t *ret_count, struct fault *f)
{
    const json_t *list = NULL;

    int r = get_list(object, key, capacity, &list, f);
    if (r <= 0)
        return r;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_string(value))
            return wrong_type(f, key, "a list of strings", value);
        ret_values[i] = json_string_value(value);
    }
    *ret_count = json_array_size(list);
    return 1;
}
