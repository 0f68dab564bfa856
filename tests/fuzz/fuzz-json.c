/* JSON of strangers. What is accepted nests no deeper than allowed and is the same after it was
 * written and read again; looking up keys keeps to json.h's contract: 1 and a value in range, 0 and
 * nothing touched, or -EINVAL and a fault. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vk/base/json.h"

static const int errors[] = {-EINVAL, 0};

static unsigned depth_of(const json_t *value)
{
    unsigned deepest = 0;
    const char *key;
    json_t *member;
    size_t i;

    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        unsigned depth = depth_of(member);
        deepest = depth > deepest ? depth : deepest;
    }
    json_array_foreach(value, i, member)
    {
        unsigned depth = depth_of(member);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + (json_is_object(value) || json_is_array(value));
}

static void check_answer(int r, bool untouched, bool in_range, const struct fault *f)
{
    if (r < 0)
        fuzz_check_fault(r, f, errors);
    fuzz_check(r < 0 || r == 0 || r == 1);
    fuzz_check(r == 1 ? in_range : untouched);
}

static void look_up_numbers(const json_t *root)
{
    uint64_t wide = 99;
    uint32_t narrow = 99;
    double number = 99;
    bool flag = true;
    struct fault f = {0};

    int r = json_get_uint(root, "u", 1, 77, &wide, &f);
    check_answer(r, wide == 99, wide >= 1 && wide <= 77, &f);
    r = json_get_u32(root, "u", 0, 77, &narrow, &f);
    check_answer(r, narrow == 99, narrow <= 77, &f);
    r = json_get_double(root, "d", -1, 1, &number, &f);
    check_answer(r, number == 99, number >= -1 && number <= 1, &f);
    r = json_get_bool(root, "b", &flag, &f);
    check_answer(r, flag, true, &f);
}

static void look_up_lists(const json_t *root)
{
    uint32_t numbers[3] = {99, 99, 99};
    const char *texts[2] = {NULL, NULL}, *text = NULL;
    size_t count = 99;
    struct fault f = {0};

    int r = json_get_string(root, "s", &text, &f);
    check_answer(r, !text, text && fuzz_is_utf8(text, strlen(text)), &f);
    r = json_get_u32_list(root, "l", 0, 9, 3, numbers, &count, &f);
    check_answer(r, count == 99, count <= 3, &f);
    for (size_t i = 0; r == 1 && i < count; i++)
        fuzz_check(numbers[i] <= 9);
    count = 99;
    r = json_get_string_list(root, "t", 2, texts, &count, &f);
    check_answer(r, count == 99, count <= 2, &f);
    for (size_t i = 0; r == 1 && i < count; i++)
        fuzz_check(texts[i]);
}

static void check_accepted(json_t *root)
{
    struct fault f = {0};
    json_t *again = NULL;

    fuzz_check(json_is_object(root) || json_is_array(root));
    fuzz_check(depth_of(root) <= JSON_DEPTH_MAX);
    look_up_numbers(root);
    look_up_lists(root);
    char *text = json_dumps(root, JSON_REAL_PRECISION(17));
    fuzz_check(text && json_parse(text, strlen(text), &again, &f) == 0);
    fuzz_check(json_equal(root, again));
    free(text);
    json_decref(again);
}

static void run(const uint8_t *data, size_t size)
{
    json_t *root = NULL;
    struct fault f = {0};

    int r = json_parse((const char *)data, size, &root, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        fuzz_check(!root);
        return;
    }
    check_accepted(root);
    json_decref(root);
}

static const char *const words[] = {"{",
                                    "}",
                                    "[",
                                    "]",
                                    ",",
                                    ":",
                                    "\"u\":",
                                    "\"d\":",
                                    "\"b\":",
                                    "\"s\":",
                                    "\"l\":",
                                    "\"t\":",
                                    "null",
                                    "true",
                                    "-0",
                                    "1e308",
                                    "1E-400",
                                    "\\u0000",
                                    "\\ud83e\\udd8a",
                                    "9223372036854775808",
                                    "[[[[[[[[[[[[[[[[",
                                    "{\"a\":{\"a\":{\"a\":",
                                    NULL};

const struct fuzz_target fuzz_json = {.name = "json", .max_size = 4096, .run = run, .words = words};
