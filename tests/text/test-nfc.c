/* nfc: composition, order of marks, and where the reference's older tables show. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vk/base/cleanup.h"
#include "vk/text/nfc.h"

#define LENGTH_MAX 5

/* From NFC of tokenizers 0.13.3; zero ends a row. */
static void test_rows(void **state)
{
    static const struct {
        uint32_t from[LENGTH_MAX + 1], to[LENGTH_MAX + 1];
    } rows[] = {
        {{0}, {0}},
        {{'e', 0x301}, {0xe9}},
        {{0xe9}, {0xe9}},
        {{0x301, 'e'}, {0x301, 'e'}},
        {{'a', 0x301, 0x323}, {0x1ea1, 0x301}}, /* sorted, then composed */
        {{'a', 0x301, 0x301}, {0xe1, 0x301}},   /* equal classes block */
        {{'a', 0x334, 0x301}, {0xe1, 0x334}},   /* a lower class does not */
        {{0x212b}, {0xc5}},                     /* singleton */
        {{0x958}, {0x915, 0x93c}},              /* excluded from composition */
        {{0xfb01}, {0xfb01}},                   /* compatibility only */
        {{0x1100, 0x1161, 0x11a8}, {0xac01}},   /* Hangul */
        {{0xac00, 0x11a8}, {0xac01}},
        {{0x9c7, 0x9be}, {0x9cb}}, /* two starters */
        {{'a', 0x345, 0x300}, {0xe0, 0x345}},
        {{'a', 0x898, 0x334}, {'a', 0x898, 0x334}},   /* a young mark: class 0 */
        {{'a', 0x1dfa, 0x301}, {'a', 0x1dfa, 0x301}}, /* and it blocks */
        {{0x11935, 0x11930}, {0x11935, 0x11930}},     /* the young letter is not made */
        {{0x11938}, {0x11938}},                       /* nor taken apart */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct codepoints from = {0}, to = {0};
        for (uint32_t k = 0; rows[i].from[k]; k++)
            assert_int_equal(codepoints_add(&from, rows[i].from[k], k), 0);
        assert_int_equal(nfc_append(&to, from.items, from.count), 0);
        size_t n = 0;
        for (; rows[i].to[n]; n++)
            if (n >= to.count || to.items[n].c != rows[i].to[n])
                fail_msg("row %zu: character %zu is wrong", i, n);
        assert_int_equal(to.count, n);
        array_done(&from);
        array_done(&to);
    }
}

static void test_places_are_kept(void **state)
{
    struct codepoints from = {0}, to = {0};
    static const char text[] = "xe\xcc\x81y"; /* x, e, U+0301, y */

    (void)state;
    assert_int_equal(codepoints_decode(&from, text, strlen(text), NULL), 0);
    assert_int_equal(nfc_append(&to, from.items, from.count), 0);
    assert_int_equal(to.count, 3);
    assert_int_equal(to.items[1].at, 1);
    assert_int_equal(to.items[2].at, 4);
    array_done(&from);
    array_done(&to);
}

static void test_bad_bytes_are_placed(void **state)
{
    struct codepoints points = {0};
    size_t bad = 0;

    (void)state;
    assert_int_equal(codepoints_decode(&points, "ab\xc3(", 4, &bad), -EILSEQ);
    assert_int_equal(bad, 2);
    array_done(&points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_places_are_kept),
        cmocka_unit_test(test_bad_bytes_are_placed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
