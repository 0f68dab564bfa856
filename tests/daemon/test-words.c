/* words: folding, word boundaries, phrases, and the line a bad list is told of. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/words.h"

static const char list[] = "\xef\xbb\xbf# what the museum does not want\n"
                           "fox\n"
                           "\n"
                           "Straße\r\n"
                           "red   apple\n"
                           "café\n"
                           "don't\n"
                           "Øre\n"
                           "裸体\n"
                           "किताब\n"
                           "  ½ pint  \n"
                           "fox\n"
                           "one two three four\n"
                           "one twofold\n"
                           "one2 three\n";

static struct words *parse(const char *text)
{
    struct words *words = NULL;
    struct fault f = {0};

    if (words_parse(text, strlen(text), "list", &words, &f) < 0)
        fail_msg("%s", f.text);
    return words;
}

static void test_finding(void **state)
{
    static const struct {
        const char *text;
        unsigned line; /* 0: not found */
    } rows[] = {
        {"", 0},
        {"a cat", 0},
        {"fox", 2},
        {"a FOX, running", 2},
        {"(fox)", 2},
        {"fox_trot", 2},
        {"foxtrot", 0}, /* whole words only */
        {"outfox", 0},
        {"fox2", 0},
        {"f o x", 0},
        {"ｆｏｘ", 2},                  /* full-width */
        {"𝐟𝐨𝐱", 2},                     /* mathematical bold */
        {"f\xc2\xado\xe2\x80\x8bx", 2}, /* soft hyphen, zero width space */
        {"fo\xcc\x88x", 2},             /* o and a combining diaeresis */
        {"f\xffox fo\xffx", 0},         /* no UTF-8 separates */
        {"\xff"
         "fox\xff",
         2},
        {"die STRASSE", 4},
        {"straße", 4},
        {"strase", 0},
        {"red apple", 5},
        {"red\n\n\t  Apple!", 5},
        {"red, apple", 5},
        {"redapple", 0},
        {"red big apple", 0},
        {"infrared apple", 0},
        {"red apples", 0},
        {"cafe", 6},
        {"CAFE\xcc\x81", 6},
        {"cafés", 0},
        {"I don’t know", 7},
        {"dont", 0},
        {"øre", 8},
        {"ore", 8},
        {"more", 0},
        {"一个裸体的人", 9}, /* no blanks in that script */
        {"裸 体", 9},
        {"裸", 0},
        {"किताब", 10},
        {"कताब", 0}, /* another vowel is another word */
        {"1⁄2 pint", 11},
        {"one two three five one two three four", 13},
        {"one two three", 0},
        {"two three four", 0},
        {"one two twofold one twofold", 14},
        {"one one2 two one2 three", 15},
    };
    _cleanup_(words_freep) struct words *words = parse(list);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const char *place = NULL;
        char want[16] = "";
        int r = words_find(words, rows[i].text, &place);
        if (rows[i].line)
            (void)snprintf(want, sizeof want, "list:%u", rows[i].line);
        if (r != (rows[i].line > 0) || strcmp(place ? place : "", want) != 0)
            fail_msg("\"%s\": found %s, want %s", rows[i].text, place ? place : "nothing",
                     *want ? want : "nothing");
    }
}

static void test_bad_lists(void **state)
{
    static const struct {
        const char *text;
        size_t length;
        const char *want;
    } rows[] = {
        {"fox\n\xff\n", 6, "list:2: is not UTF-8"},
        {"fox\nca\0t\n", 9, "list:2: is not UTF-8"},
        {"fox\n\n ... \n", 11, "list:3: holds no letter"},
        {"\xcc\x81\n", 3, "list:1: holds no letter"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct words *words = NULL;
        struct fault f = {0};
        assert_int_equal(words_parse(rows[i].text, rows[i].length, "list", &words, &f), -EINVAL);
        assert_int_equal(strncmp(f.text, rows[i].want, strlen(rows[i].want)), 0);
    }
}

static void test_limits(void **state)
{
    static char text[WORDS_MAX * 8 + 16];
    struct words *words = NULL;
    struct fault f = {0};
    size_t n = 0;

    (void)state;
    for (unsigned i = 0; i < WORDS_MAX; i++)
        n += (size_t)sprintf(text + n, "w%u\n", i);
    assert_int_equal(words_parse(text, n, "list", &words, &f), 0);
    const char *place = NULL;
    assert_int_equal(words_find(words, "a w7 b", &place), 1);
    assert_string_equal(place, "list:8");
    words = words_free(words);
    n += (size_t)sprintf(text + n, "more\n");
    assert_int_equal(words_parse(text, n, "list", &words, &f), -EINVAL);
    assert_string_equal(f.text, "list:10001: more than 10000 entries");

    n = 0;
    for (unsigned i = 0; i < WORDS_PHRASE_MAX + 1; i++)
        n += (size_t)sprintf(text + n, "a ");
    assert_int_equal(words_parse(text, n, "list", &words, &f), -EINVAL);
    assert_string_equal(f.text, "list:1: more than 32 words");
}

static void test_empty(void **state)
{
    _cleanup_(words_freep) struct words *words = parse("# nothing\n");
    const char *place;
    struct fault f = {0};
    struct words *none = NULL;

    (void)state;
    assert_int_equal(words_find(words, "anything", &place), 0);
    assert_int_equal(words_read("/no/such/list", &none, &f), -ENOENT);
    assert_non_null(strstr(f.text, "/no/such/list"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finding),
        cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_empty),
    };

    return cmocka_run_group_tests_name("words", tests, NULL, NULL);
}
