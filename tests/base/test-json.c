/* json: limits on nesting and keys, typed members, messages. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vk/base/json.h"

static void test_bad_text_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "line 1"},
        {"{", "line 1"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"[1,\n2,\n]", "line 3"},
        {"{} x", "end of file expected"},
        {"{\"a\": 1e999}", "overflow"},
        {"{\"a\": 99999999999999999999}", "too big"},
        {"\"text\"", "'[' or '{' expected"},
        {"{\"a\": \"\\u0000\"}", "\\u0000"},
        {"{\"a\": \"\xff\"}", "0xff"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        json_t *root = NULL;
        struct fault f = {0};
        assert_int_equal(json_parse(rows[i].text, strlen(rows[i].text), &root, &f), -EINVAL);
        assert_null(root);
        assert_non_null(strstr(f.text, rows[i].says));
    }
}

static void test_nul_is_refused(void **state)
{
    static const char text[] = "[1\0, 2]"; /* jansson takes it */
    struct fault f = {0};
    json_t *root = NULL;

    (void)state;
    assert_int_equal(json_parse(text, sizeof text - 1, &root, &f), -EINVAL);
    assert_null(root);
    assert_non_null(strstr(f.text, "NUL"));
}

static void test_depth(void **state)
{
    char text[2 * JSON_DEPTH_MAX + 3];

    (void)state;
    for (size_t depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
        _cleanup_(json_freep) json_t *root = NULL;
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        int r = json_parse(text, 2 * depth, &root, NULL);
        assert_int_equal(r, depth <= JSON_DEPTH_MAX ? 0 : -EINVAL);
    }
    _cleanup_(json_freep) json_t *root = NULL;
    memset(text, '[',
           sizeof text); /* brackets in a string do not nest, quoted quotes do not end it */
    memcpy(text, "[\"\\\"", 4);
    memcpy(text + sizeof text - 2, "\"]", 2);
    assert_int_equal(json_parse(text, sizeof text, &root, NULL), 0);
}

static const char members[] = "{\"u\": 7, \"neg\": -1, \"d\": 0.5, \"t\": true, \"s\": \"word\","
                              " \"n\": null, \"list\": [1, 2, 3], \"words\": [\"a\", \"b\"],"
                              " \"mixed\": [1, \"b\"]}";

static void test_members(void **state)
{
    _cleanup_(json_freep) json_t *root = NULL;
    uint64_t u = 99;
    uint32_t u32 = 99, list[3];
    double d = 99;
    bool t = false;
    const char *s = NULL, *words[2];
    size_t count;

    (void)state;
    assert_int_equal(json_parse(members, strlen(members), &root, NULL), 0);
    assert_int_equal(json_get_uint(root, "absent", 0, 9, &u, NULL), 0);
    assert_int_equal(json_get_uint(root, "n", 0, 9, &u, NULL), 0);
    assert_int_equal(u, 99);
    assert_int_equal(json_get_uint(root, "u", 7, 7, &u, NULL), 1);
    assert_int_equal(u, 7);
    assert_int_equal(json_get_u32(root, "u", 0, 9, &u32, NULL), 1);
    assert_int_equal(u32, 7);
    assert_int_equal(json_get_double(root, "d", 0, 1, &d, NULL), 1);
    assert_true(d == 0.5);
    assert_int_equal(json_get_double(root, "u", 0, 9, &d, NULL), 1);
    assert_true(d == 7);
    assert_int_equal(json_get_bool(root, "t", &t, NULL), 1);
    assert_true(t);
    assert_int_equal(json_get_string(root, "s", &s, NULL), 1);
    assert_string_equal(s, "word");
    assert_int_equal(json_get_u32_list(root, "list", 1, 3, 3, list, &count, NULL), 1);
    assert_int_equal(count, 3);
    assert_int_equal(list[2], 3);
    assert_int_equal(json_get_string_list(root, "words", 2, words, &count, NULL), 1);
    assert_int_equal(count, 2);
    assert_string_equal(words[1], "b");
}

static void test_wrong_members(void **state)
{
    _cleanup_(json_freep) json_t *root = NULL;
    uint64_t u;
    uint32_t list[3];
    double d;
    bool t;
    const char *s, *words[2];
    size_t count;
    struct fault f;

    (void)state;
    assert_int_equal(json_parse(members, strlen(members), &root, NULL), 0);
    assert_int_equal(json_get_uint(root, "u", 8, 9, &u, &f), -EINVAL);
    assert_string_equal(f.text, "u: 7 is outside 8…9");
    assert_int_equal(json_get_uint(root, "neg", 0, UINT64_MAX, &u, &f), -EINVAL);
    assert_int_equal(json_get_uint(root, "d", 0, 9, &u, &f), -EINVAL);
    assert_string_equal(f.text, "d: want a whole number, the file has a fraction");
    assert_int_equal(json_get_double(root, "d", 1, 2, &d, &f), -EINVAL);
    assert_int_equal(json_get_double(root, "s", 1, 2, &d, &f), -EINVAL);
    assert_int_equal(json_get_bool(root, "u", &t, &f), -EINVAL);
    assert_int_equal(json_get_string(root, "t", &s, &f), -EINVAL);
    assert_int_equal(json_get_u32_list(root, "list", 1, 2, 3, list, &count, &f), -EINVAL);
    assert_int_equal(json_get_u32_list(root, "list", 1, 3, 2, list, &count, &f), -EINVAL);
    assert_int_equal(json_get_u32_list(root, "s", 1, 3, 3, list, &count, &f), -EINVAL);
    assert_int_equal(json_get_string_list(root, "mixed", 2, words, &count, &f), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_text_is_refused),
        cmocka_unit_test(test_nul_is_refused),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_wrong_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
