/* drop-name: what a file is by its name, names that fit, names that can be shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/drop-name.h"
#include "vk/base/cleanup.h"

/* --- names ------------------------------------------------------------------------------------ */

static void test_kinds(void **state)
{
    static const struct {
        const char *name;
        enum drop_kind kind;
        size_t base;
    } rows[] = {
        {"fox.txt", DROP_KIND_TEXT, 3},
        {"FOX.TXT", DROP_KIND_TEXT, 3},
        {"fox.ini", DROP_KIND_INI, 3},
        {"fox.png", DROP_KIND_PICTURE, 3},
        {"fox.JPEG", DROP_KIND_PICTURE, 3},
        {"fox.jpg", DROP_KIND_PICTURE, 3},
        {"fox.mask.png", DROP_KIND_MASK, 3},
        {"a.b.txt", DROP_KIND_TEXT, 3},
        {".fox.txt", DROP_KIND_IGNORED, 8},
        {"fox.txt.part", DROP_KIND_IGNORED, 12},
        {"fox.tmp", DROP_KIND_IGNORED, 7},
        {"x.crdownload", DROP_KIND_IGNORED, 12},
        {"fox.txt~", DROP_KIND_IGNORED, 8},
        {"fox.pdf", DROP_KIND_OTHER, 3},
        {"fox", DROP_KIND_OTHER, 3},
        {".txt", DROP_KIND_IGNORED, 4},
        {"f.averylongending", DROP_KIND_OTHER, 17},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        size_t base = 0;
        assert_int_equal(drop_name_split(rows[i].name, &base), rows[i].kind);
        assert_int_equal(base, rows[i].base);
    }
}

static void test_long_names(void **state)
{
    char name[256], base[DROP_NAME_SIZE];

    (void)state;
    memset(name, 'a', 255);
    name[255] = '\0';
    drop_name_base(name, 251, 0, base);
    assert_int_equal(strlen(base), 239);
    drop_name_base(name, 251, 99999, base);
    assert_int_equal(strlen(base), 245);
    assert_string_equal(base + 239, "~99999");
    for (size_t i = 0; i + 3 <= 255; i += 3) /* U+20AC: 239 = 79 x 3 + 2 */
        memcpy(name + i, "\xe2\x82\xac", 3);
    drop_name_base(name, 255, 0, base);
    assert_int_equal(strlen(base), 237);
    memset(name, 0xbf, 255); /* no UTF-8 at all: cut anywhere */
    drop_name_base(name, 255, 0, base);
    assert_int_equal(strlen(base), 239);
    drop_name_base("fox.txt", 3, 2, base);
    assert_string_equal(base, "fox~2");
}

static void test_shown_names(void **state)
{
    char shown[DROP_SHOWN_SIZE], small[16];

    (void)state;
    drop_name_show("a\nb\x1b[31m\\c\x7f", shown, sizeof shown);
    assert_string_equal(shown, "a\\x0ab\\x1b[31m\\x5cc\\x7f");
    drop_name_show("\xff\xc3\xa9\xe2\x80\xae\xc2\x85", shown, sizeof shown); /* é, RLO, NEL */
    assert_string_equal(shown, "\\xff\xc3\xa9\\xe2\\x80\\xae\\xc2\\x85");
    drop_name_show("\xed\xa0\x80\xc0\xaf", shown, sizeof shown); /* surrogate, overlong */
    assert_string_equal(shown, "\\xed\\xa0\\x80\\xc0\\xaf");
    drop_name_show("0123456789abcdefgh", small, sizeof small);
    assert_string_equal(small, "0123456789ab\xe2\x80\xa6");
}

static void test_keys(void **state)
{
    char a[DROP_KEY_SIZE], b[DROP_KEY_SIZE];

    (void)state;
    assert_int_equal(drop_key_make(a), 0);
    assert_int_equal(drop_key_make(b), 0);
    assert_string_not_equal(a, b);
    assert_true(drop_key_is_valid(a));
    assert_false(drop_key_is_valid("0123"));
    assert_false(drop_key_is_valid("0123456789ABCDEF0123456789abcdef"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_shown_names),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
