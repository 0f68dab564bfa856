/* emphasis: parts and weights as the rules of the web UI make them, for prompts and for nonsense;
 * weights that are none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include <jansson.h>

#include "vk/base/cleanup.h"
#include "vk/text/emphasis.h"

#define GOLDEN "tests/golden/texts/emphasis.jsonl"

static struct emphasis parse(const char *text)
{
    struct emphasis e = {0};
    struct fault f = {0};

    if (emphasis_parse(text, strlen(text), EMPHASIS_BRACKETS | EMPHASIS_BREAKS, &e, &f) < 0)
        fail_msg("%s: %s", text, f.text);
    return e;
}

/* Do the part's characters spell the text? */
static bool is_text(const struct emphasis *e, const struct emphasis_part *part, const char *text)
{
    struct codepoints want = {0};
    bool is_same = false;

    assert_int_equal(codepoints_decode(&want, text, strlen(text), NULL), 0);
    if (want.count == part->count) {
        is_same = true;
        for (size_t i = 0; i < want.count; i++)
            is_same &= want.items[i].c == e->points.items[part->first + i].c;
    }
    array_done(&want);
    return is_same;
}

static void check_parts(const char *text, const json_t *parts)
{
    struct emphasis e = parse(text);

    if (e.parts.count != json_array_size(parts))
        fail_msg("\"%s\": %zu parts, want %zu", text, e.parts.count, json_array_size(parts));
    for (size_t i = 0; i < e.parts.count; i++) {
        const struct emphasis_part *part = &e.parts.items[i];
        const json_t *want = json_array_get(parts, i), *word = json_array_get(want, 0);
        double weight = json_number_value(json_array_get(want, 1));
        assert_int_equal(part->is_break, json_is_null(word));
        if (!part->is_break && part->weight != weight)
            fail_msg("\"%s\": part %zu weighs %.17g, want %.17g", text, i, part->weight, weight);
        if (!part->is_break && !is_text(&e, part, json_string_value(word)))
            fail_msg("\"%s\": part %zu is not \"%s\"", text, i, json_string_value(word));
    }
    emphasis_done(&e);
}

static void test_golden(void **state)
{
    _cleanup_(fclosep) FILE *file = fopen(GOLDEN, "re");
    _cleanup_(freep) char *line = NULL;
    size_t capacity = 0, rows = 0;

    (void)state;
    assert_non_null(file);
    for (; getline(&line, &capacity, file) >= 0; rows++) {
        json_t *row = json_loads(line, 0, NULL);
        check_parts(json_string_value(json_object_get(row, "p")), json_object_get(row, "parts"));
        json_decref(row);
    }
    assert_true(rows > 200);
}

static void test_places(void **state)
{
    struct emphasis e = parse("é (fox:1.5) BREAK \\(a");

    (void)state;
    assert_int_equal(e.parts.count, 5);
    assert_int_equal(e.parts.items[0].at, 0);
    assert_int_equal(e.parts.items[1].at, 4);  /* fox */
    assert_int_equal(e.parts.items[2].at, 12); /* nothing, before BREAK */
    assert_true(e.parts.items[3].is_break);
    assert_int_equal(e.parts.items[3].at, 13);
    assert_int_equal(e.parts.items[4].at, 19); /* nothing, then "(a" */
    assert_int_equal(e.points.items[e.parts.items[4].first].at, 20);
    emphasis_done(&e);
}

static void test_plain(void **state)
{
    static const char text[] = "a (b:1.2) BREAK \\(c";
    struct emphasis e = {0};

    (void)state;
    assert_int_equal(emphasis_parse(text, strlen(text), 0, &e, NULL), 0);
    assert_int_equal(e.parts.count, 1);
    assert_true(e.parts.items[0].weight == 1);
    assert_true(is_text(&e, &e.parts.items[0], text));
    emphasis_done(&e);
    assert_int_equal(emphasis_parse(text, strlen(text), EMPHASIS_BREAKS, &e, NULL), 0);
    assert_int_equal(e.parts.count, 3);
    assert_true(is_text(&e, &e.parts.items[0], "a (b:1.2)"));
    assert_true(is_text(&e, &e.parts.items[2], "\\(c"));
    emphasis_done(&e);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *why;
        int err;
    } rows[] = {
        {"a (b:1.2.3)", "byte 4 is no number", -EINVAL},
        {"(b:.)", "byte 2 is no number", -EINVAL},
        {"(b:-..)", "byte 2 is no number", -EINVAL},
        {"(b:101)", "byte 2 is 101, beyond 100", -EINVAL},
        {"(b:-1000)", "byte 2 is -1000, beyond 100", -EINVAL},
        {"(b:11111111111111111111111111111111111111111111111111111111111111111111111111111111)",
         "beyond 100", -EINVAL},
        {"a ((b:20):6)", "byte 4 has the weight 120, beyond 100", -EINVAL},
        {"(((((((((((((((((((((((((((((((((((((((((((((((((((a", "byte 51 has the weight", -EINVAL},
        {"a\xff", "not UTF-8 at byte 1", -EILSEQ},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct emphasis e = {0};
        struct fault f = {0};
        int r = emphasis_parse(rows[i].text, strlen(rows[i].text), EMPHASIS_BRACKETS, &e, &f);
        if (r != rows[i].err || !strstr(f.text, rows[i].why))
            fail_msg("%s: %d, %s", rows[i].text, r, f.text);
        assert_null(e.parts.items);
    }
}

/* The longest prompt there is, as bad as can be, in well under a second. */
static void test_long(void **state)
{
    static const char *const units[] = {"(a", "(a:1)", "[", "\\(", ": ", "BREAK "};
    enum { SIZE = 16384 };
    char *text = malloc(SIZE + 1);
    clock_t start = clock();

    (void)state;
    assert_non_null(text);
    for (size_t u = 0; u < ARRAY_SIZE(units); u++) {
        struct emphasis e = {0};
        size_t n = strlen(units[u]);
        for (size_t i = 0; i < SIZE; i++)
            text[i] = units[u][i % n];
        int r = emphasis_parse(text, SIZE, EMPHASIS_BRACKETS | EMPHASIS_BREAKS, &e, NULL);
        assert_true(r == 0 || r == -EINVAL);
        emphasis_done(&e);
    }
    free(text);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 10); /* under sanitizers too */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_places),
                                       cmocka_unit_test(test_plain), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_long)};

    return cmocka_run_group_tests_name("emphasis", tests, NULL, NULL);
}
