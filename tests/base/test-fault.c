/* fault: texts are UTF-8 and whole characters, whatever they were made of and however long. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

static void test_what_is_no_utf8_becomes_a_question_mark(void **state)
{
    static const struct {
        const char *given, *becomes;
    } rows[] = {
        {"fox \xf0\x9f\xa6\x8a!", "fox \xf0\x9f\xa6\x8a!"},
        {"\xff!", "?!"},
        {"\x80\x80!", "?!"},
        {"\xc3!", "?!"},
        {"\xf0\x9f\xa6!", "?!"},
        {"\xc0\xaf.", "?."},         /* overlong */
        {"\xe0\x80\xaf.", "?."},     /* overlong */
        {"\xed\xa0\x80.", "?."},     /* a surrogate */
        {"\xf4\x90\x80\x80.", "?."}, /* beyond U+10FFFF */
        {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
        {"cut \xc3", "cut "},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fault f = {0};
        assert_int_equal(fault_set(&f, -EINVAL, "%s", rows[i].given), -EINVAL);
        assert_string_equal(f.text, rows[i].becomes);
    }
}

static void test_long_text_ends_with_a_character(void **state)
{
    char text[300];

    (void)state;
    for (size_t before = 0; before < 4; before++) {
        struct fault f = {0};
        memset(text, 'x', sizeof text);
        for (size_t i = before; i + 2 < sizeof text; i += 3)
            memcpy(text + i, "\xe2\x82\xac", 3);
        text[sizeof text - 1] = '\0';
        (void)fault_set(&f, -EINVAL, "%s", text);
        size_t n = strlen(f.text);
        assert_in_range(n, sizeof f.text - 3, sizeof f.text - 1);
        assert_memory_equal(f.text + n - 3, "\xe2\x82\xac", 3);
        (void)fault_prefix(&f, -EINVAL, "place");
        assert_memory_equal(f.text, "place: ", 7);
        assert_memory_equal(f.text + strlen(f.text) - 3, "\xe2\x82\xac", 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_no_utf8_becomes_a_question_mark),
        cmocka_unit_test(test_long_text_ends_with_a_character),
    };

    return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}
