/* request: every row's limits and messages, completion, whole-request checks, tickets. */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vk/pipeline/request.h"

static const struct request_context sd = {
    .width = 512, .height = 512, .multiple = 8, .train_steps = 1000, .scheduler = SCHEDULER_PNDM};

static void check_says(const struct fault *f, const char *says, const char *where)
{
    if (!strstr(f->text, says))
        fail_msg("%s: \"%s\" does not say \"%s\"", where, f->text, says);
}

static int set_text(struct request *q, const char *name, const char *text, struct fault *f)
{
    const struct request_row *row = request_row_find(name);

    assert_non_null(row);
    return request_set_text(q, row, text, strlen(text), f);
}

/* --- rows ------------------------------------------------------------------------------------- */

static void test_rows(void **state)
{
    (void)state;
    assert_ptr_equal(request_row_find("guidance-scale"), &request_rows[REQUEST_guidance_scale]);
    assert_ptr_equal(request_row_find("guidance_scale"), &request_rows[REQUEST_guidance_scale]);
    assert_null(request_row_find("step"));
    assert_null(request_row_find(""));
    assert_string_equal(request_row_signature(&request_rows[REQUEST_prompt]), "s");
    assert_string_equal(request_row_signature(&request_rows[REQUEST_width]), "u");
    assert_string_equal(request_row_signature(&request_rows[REQUEST_guidance_scale]), "d");
    assert_string_equal(request_row_signature(&request_rows[REQUEST_seed]), "t");
    assert_string_equal(request_row_signature(&request_rows[REQUEST_scheduler]), "s");
    assert_string_equal(request_row_signature(&request_rows[REQUEST_prompts]), "as");
    assert_string_equal(request_row_signature(&request_rows[REQUEST_image]), "h");
    for (int i = 0; i < SCHEDULER_KIND_COUNT; i++) {
        const char *name = scheduler_kind_to_string((enum scheduler_kind)i);
        struct request q = {0};
        assert_int_equal(
            request_set_text(&q, &request_rows[REQUEST_scheduler], name, strlen(name), NULL), 0);
        assert_int_equal(q.scheduler, i);
        request_done(&q);
    }
}

static void test_legal_texts(void **state)
{
    static const struct {
        const char *row, *text, *formatted;
    } rows[] = {
        {"prompt", "a fox; a hound = two", "a fox; a hound = two"},
        {"prompt", "", ""},
        {"negative_prompt", "é 狐 🦊", "é 狐 🦊"},
        {"width", "8", "8"},
        {"height", "2048", "2048"},
        {"steps", "1", "1"},
        {"steps", "0500", "500"},
        {"guidance_scale", "0", "0"},
        {"guidance_scale", "7.5", "7.5"},
        {"guidance_scale", "1e2", "100"},
        {"guidance_scale", ".1", "0.1"},
        {"guidance_scale", "0.30000000000000004", "0.30000000000000004"},
        {"seed", "0", "0"},
        {"seed", "9223372036854775807", "9223372036854775807"},
        {"count", "16", "16"},
        {"scheduler", "euler", "euler"},
        {"scheduler", "pndm", "pndm"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(request_done) struct request q = {0};
        _cleanup_(freep) char *text = NULL;
        struct fault f = {0};
        if (set_text(&q, rows[i].row, rows[i].text, &f) < 0)
            fail_msg("%s = %s: %s", rows[i].row, rows[i].text, f.text);
        assert_int_equal(request_format(&q, request_row_find(rows[i].row), &text), 0);
        assert_string_equal(text, rows[i].formatted);
    }
}

static void test_illegal_texts(void **state)
{
    static const struct {
        const char *row, *text;
        int err;
        const char *says;
    } rows[] = {
        {"steps", "0", -EINVAL, "steps: 0 is outside 1…500"},
        {"steps", "501", -EINVAL, "steps: 501 is outside 1…500"},
        {"steps", "-1", -EINVAL, "steps: -1 is outside 1…500"},
        {"steps", "", -EINVAL, "steps: "},
        {"steps", "ten", -EINVAL, "steps: ten is no whole number"},
        {"steps", "1.5", -EINVAL, "steps: 1.5 is no whole number"},
        {"steps", "20 ", -EINVAL, "steps: "},
        {"steps", " 20", -EINVAL, "steps: "},
        {"steps", "+20", -EINVAL, "steps: "},
        {"steps", "0x10", -EINVAL, "steps: "},
        {"steps", "1e1", -EINVAL, "steps: "},
        {"steps", "4294967297", -EINVAL, "steps: 4294967297 is outside 1…500"},
        {"steps", "18446744073709551617", -EINVAL, "steps: 18446744073709551617 is outside"},
        {"width", "7", -EINVAL, "width: 7 is outside 8…2048"},
        {"width", "100000", -EINVAL, "width: 100000 is outside 8…2048"},
        {"count", "17", -EINVAL, "count: 17 is outside 1…16"},
        {"seed", "9223372036854775808", -EINVAL, "is outside 0…9223372036854775807"},
        {"guidance_scale", "nan", -EINVAL, "guidance_scale: nan is no number"},
        {"guidance_scale", "inf", -EINVAL, "guidance_scale: inf is no number"},
        {"guidance_scale", "0x1p3", -EINVAL, "guidance_scale: 0x1p3 is no number"},
        {"guidance_scale", "7,5", -EINVAL, "guidance_scale: 7,5 is no number"},
        {"guidance_scale", "7.5x", -EINVAL, "guidance_scale: 7.5x is no number"},
        {"guidance_scale", "1e999", -EINVAL, "guidance_scale: 1e999 is "},
        {"guidance_scale", "", -EINVAL, "guidance_scale: "},
        {"guidance_scale", "-0.5", -EINVAL, "guidance_scale: -0.5 is outside 0…100"},
        {"guidance_scale", "100.001", -EINVAL, "guidance_scale: 100.001 is outside 0…100"},
        {"scheduler", "ddpn", -EINVAL, "scheduler: ddpn is unknown; choose one of: pndm ddim lms"},
        {"scheduler", "pndm ddim", -EINVAL, "scheduler: "},
        {"scheduler", "", -EINVAL, "scheduler: "},
        {"scheduler", "PNDM", -EINVAL, "scheduler: "},
        {"prompt", "a\xff", -EILSEQ, "prompt: is not UTF-8"},
        {"steps", "\xff", -EILSEQ, "steps: "},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(request_done) struct request q = {0};
        struct fault f = {0};
        int r = set_text(&q, rows[i].row, rows[i].text, &f);
        if (r != rows[i].err)
            fail_msg("%s = %s: %d, want %d", rows[i].row, rows[i].text, r, rows[i].err);
        check_says(&f, rows[i].says, rows[i].text);
        assert_int_equal(q.set, 0);
    }
}

static void test_typed_values(void **state)
{
    const struct request_row *width = &request_rows[REQUEST_width];
    const struct request_row *guidance = &request_rows[REQUEST_guidance_scale];
    const struct request_row *scheduler = &request_rows[REQUEST_scheduler];
    _cleanup_(request_done) struct request q = {0};
    struct fault f;

    (void)state;
    assert_int_equal(request_set_uint(&q, width, 512, &f), 0);
    assert_int_equal(q.width, 512);
    assert_int_equal(request_set_uint(&q, width, 100000, &f), -EINVAL);
    check_says(&f, "width: 100000 is outside 8…2048", "u");
    assert_int_equal(request_set_uint(&q, width, UINT64_MAX, &f), -EINVAL);
    assert_int_equal(q.width, 512);
    assert_int_equal(request_set_double(&q, width, 512, &f), -EINVAL);
    check_says(&f, "width: want a whole number", "d for u");
    assert_int_equal(request_set_double(&q, guidance, 100, &f), 0);
    assert_int_equal(request_set_double(&q, guidance, (double)NAN, &f), -EINVAL);
    assert_int_equal(request_set_double(&q, guidance, (double)INFINITY, &f), -EINVAL);
    assert_int_equal(request_set_uint(&q, scheduler, 1, &f), -EINVAL);
    check_says(&f, "scheduler: want", "u for s");
    assert_int_equal(request_set_uint(&q, &request_rows[REQUEST_prompt], 1, &f), -EINVAL);
}

static void test_long_texts(void **state)
{
    const struct request_row *prompt = &request_rows[REQUEST_prompt];
    _cleanup_(request_done) struct request q = {0};
    _cleanup_(freep) char *text = malloc(10 << 20);
    struct fault f;

    (void)state;
    memset(text, 'a', 10 << 20);
    assert_int_equal(request_set_text(&q, prompt, text, REQUEST_PROMPT_MAX, &f), 0);
    assert_int_equal(strlen(q.prompt), REQUEST_PROMPT_MAX);
    assert_int_equal(request_set_text(&q, prompt, text, REQUEST_PROMPT_MAX + 1, &f), -E2BIG);
    assert_int_equal(request_set_text(&q, prompt, text, 10 << 20, &f), -E2BIG);
    check_says(&f, "prompt: 10485760 bytes; at most 16384", "10 MB");
    assert_int_equal(request_set_text(&q, prompt, "a\0b", 3, &f), -EILSEQ);
    check_says(&f, "prompt: holds a NUL", "NUL");
    assert_int_equal(request_set_text(&q, &request_rows[REQUEST_steps], text, 10 << 20, &f),
                     -EINVAL);
    assert_int_equal(request_set_text(&q, &request_rows[REQUEST_scheduler], text, 10 << 20, &f),
                     -EINVAL);
    assert_int_equal(request_set_text(&q, prompt, "b", 1, &f), 0); /* replaces, does not leak */
}

/* "7.5" is read and written the same where the decimal sign is a comma; skipped without such a
 * locale. */
static void test_no_locale_dependence(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "nl_NL.UTF-8"};
    _cleanup_(request_done) struct request q = {0};
    _cleanup_(freep) char *text = NULL;
    bool is_found = false;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names) && !is_found; i++)
        is_found = setlocale(LC_ALL, names[i]);
    if (!is_found) {
        print_message("skipped: no locale with a decimal comma is installed\n");
        skip();
    }
    assert_int_equal(set_text(&q, "guidance_scale", "2.5", NULL), 0);
    assert_true(q.guidance_scale == 2.5);
    assert_int_equal(request_format(&q, &request_rows[REQUEST_guidance_scale], &text), 0);
    setlocale(LC_ALL, "C");
    assert_string_equal(text, "2.5");
}

/* --- the whole request ------------------------------------------------------------------------ */

static void test_complete(void **state)
{
    _cleanup_(request_done) struct request q = {0}, defaults = {0}, plain = {0}, copy = {0};
    struct request_context context = sd;

    (void)state;
    context.width = 128;
    context.height = 64;
    context.scheduler = SCHEDULER_LMS;
    assert_int_equal(set_text(&defaults, "steps", "20", NULL), 0);
    assert_int_equal(set_text(&defaults, "guidance_scale", "2.5", NULL), 0);
    assert_int_equal(set_text(&defaults, "negative_prompt", "blurry", NULL), 0);
    assert_int_equal(set_text(&defaults, "width", "256", NULL), 0);
    assert_int_equal(set_text(&q, "prompt", "a fox", NULL), 0);
    assert_int_equal(set_text(&q, "guidance_scale", "3", NULL), 0);
    assert_int_equal(request_complete(&q, &defaults, &context, NULL), 0);
    assert_string_equal(q.prompt, "a fox");
    assert_string_equal(q.negative_prompt, "blurry");
    assert_int_equal(q.width, 256);
    assert_int_equal(q.height, 64);
    assert_int_equal(q.steps, 20);
    assert_true(q.guidance_scale == 3);
    assert_true(q.seed <= UINT32_MAX);
    assert_int_equal(q.count, 1);
    assert_int_equal(q.scheduler, SCHEDULER_LMS);
    for (int i = 0; i < REQUEST_ROW_COUNT; i++)
        assert_true(request_is_set(&q, (enum request_row_id)i));
    assert_int_equal(request_check(&q, &context, NULL), 0);

    assert_int_equal(request_complete(&plain, NULL, &sd, NULL), 0);
    assert_int_equal(plain.steps, 50);
    assert_true(plain.guidance_scale == 7.5);
    assert_int_equal(plain.width, 512);
    assert_true(plain.seed != q.seed); /* once in 4 billion runs it is equal */

    assert_int_equal(request_copy(&q, &copy), 0);
    assert_string_equal(copy.prompt, "a fox");
    assert_ptr_not_equal(copy.prompt, q.prompt);
    assert_int_equal(copy.set, q.set);
    assert_int_equal(copy.seed, q.seed);
}

static void test_check(void **state)
{
    static const struct {
        const char *row, *text, *row2, *text2;
        int err;
        const char *says;
    } rows[] = {
        {"width", "516", NULL, NULL, -EINVAL, "width: 516 is not a multiple of 8; use 512 or 520"},
        {"height", "2047", NULL, NULL, -EINVAL,
         "height: 2047 is not a multiple of 8; use 2040 or 2048"},
        {"width", "9", NULL, NULL, -EINVAL, "width: 9 is not a multiple of 8; use 8 or 16"},
        {"width", "520", NULL, NULL, 0, ""},
        {"width", "1024", "height", "1024", -EFBIG, "1024x1024"},
        {"width", "2048", "height", "256", 0, ""},
        {"seed", "9223372036854775807", "count", "1", 0, ""},
        {"seed", "9223372036854775807", "count", "2", -EINVAL, "seed: 9223372036854775807"},
        {"seed", "9223372036854775792", "count", "16", 0, ""},
    };
    struct request_context context = sd;

    (void)state;
    context.max_pixels = 1024 * 1024 - 1;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(request_done) struct request q = {0};
        struct fault f = {0};
        assert_int_equal(set_text(&q, rows[i].row, rows[i].text, &f), 0);
        if (rows[i].row2)
            assert_int_equal(set_text(&q, rows[i].row2, rows[i].text2, &f), 0);
        assert_int_equal(request_complete(&q, NULL, &context, &f), 0);
        assert_int_equal(request_check(&q, &context, &f), rows[i].err);
        check_says(&f, rows[i].says, rows[i].text);
    }
}

/* A model of few training steps, and one whose picture sides go by 32. */
static void test_check_against_the_model(void **state)
{
    _cleanup_(request_done) struct request q = {0};
    struct request_context context = sd;
    struct fault f;

    (void)state;
    assert_int_equal(request_complete(&q, NULL, &sd, NULL), 0);
    context.train_steps = 50;
    assert_int_equal(request_check(&q, &context, &f), -EINVAL);
    check_says(&f, "steps: 50 is outside 1…49", "steps");
    context.train_steps = 51;
    assert_int_equal(request_check(&q, &context, &f), 0);
    context.multiple = 32;
    q.width = 8;
    assert_int_equal(request_check(&q, &context, &f), -EINVAL);
    check_says(&f, "width: 8 is not a multiple of 32; use 32", "multiple");
    q.width = 2040;
    assert_int_equal(request_check(&q, &context, &f), -EINVAL);
    check_says(&f, "width: 2040 is not a multiple of 32; use 2016 or 2048", "multiple");
}

/* --- tickets ---------------------------------------------------------------------------------- */

static int parse(const char *text, struct request *ret, struct fault *f)
{
    static const char *const ignored[] = {"golden", NULL};

    return request_parse_ticket(text, strlen(text), ignored, ret, f);
}

static void test_ticket(void **state)
{
    _cleanup_(request_done) struct request q = {0};
    static const char text[] = "\xef\xbb\xbf; a comment\r\n"
                               "[job]\r\n"
                               "prompt = a fox; a hound : two = three # four\r\n"
                               "\n"
                               "  # indented comment\n"
                               "   \n"
                               "width=256\n"
                               "guidance-scale : 2.5\n"
                               "scheduler = ddim\n"
                               "negative_prompt =\n"
                               "[golden]\n"
                               "model = two\n"
                               "[job]\n"
                               "seed = 42";
    struct fault f = {0};

    (void)state;
    if (parse(text, &q, &f) < 0)
        fail_msg("%s", f.text);
    assert_string_equal(q.prompt, "a fox; a hound : two = three # four");
    assert_int_equal(q.width, 256);
    assert_true(q.guidance_scale == 2.5);
    assert_int_equal(q.scheduler, SCHEDULER_DDIM);
    assert_string_equal(q.negative_prompt, "");
    assert_int_equal(q.seed, 42);
    assert_true(request_is_set(&q, REQUEST_negative_prompt));
    assert_false(request_is_set(&q, REQUEST_steps));
}

static void test_bad_tickets(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"prompt = x\n", "line 1: before the section"},
        {"[job]\nprompt = x\ncolour = red\n", "line 3: unknown key colour"},
        {"[job]\nprompt = x\n[jobs]\nsteps = 3\n", "line 4: unknown section jobs"},
        {"[job]\nsteps = 3\n\nsteps = 4\n", "line 4: given twice: steps"},
        {"[job]\nguidance_scale = 3\nguidance-scale = 4\n", "line 3: given twice"},
        {"[job]\nprompt = x\n  and more\n", "line 3: begins with a blank"},
        {"[job]\nprompt = x\n\tsteps = 4\n", "line 3: begins with a blank"},
        {"[job]\nprompt\n", "line 2: neither a section"},
        {"[job\nprompt = x\n", "line 1: neither a section"},
        {"[job]\nsteps = 0\n", "line 2: steps: 0 is outside 1…500"},
        {"[job]\nsteps = 20 ; few\n", "line 2: steps: "},
        {"[job]\nprompt = \xff\n", "line 2: prompt: is not UTF-8"},
        {"[job]\nprompts = [\"a\", 3]\n", "line 2: prompts: entry 2 is no text"},
        {"[job]\nprompts = [\"a\"\n", "line 2: prompts: is no JSON array"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct request q = {0};
        struct fault f = {0};
        if (parse(rows[i].text, &q, &f) >= 0)
            fail_msg("row %zu is taken", i);
        check_says(&f, rows[i].says, "ticket");
        assert_int_equal(q.set, 0);
        assert_null(q.prompt);
    }
    struct fault f;
    struct request q;
    assert_int_equal(request_parse_ticket("[job]\nprompt = a\0b\n", 19, NULL, &q, &f), -EILSEQ);
    check_says(&f, "line 2: ", "NUL");
}

/* The INI library's own limit is 200 bytes a line; a prompt may have 16 KiB. */
static void test_long_lines(void **state)
{
    static const size_t lengths[] = {180, 190, 197, 200, 201, 1000, REQUEST_PROMPT_MAX};
    static char text[REQUEST_PROMPT_MAX + 64];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        _cleanup_(request_done) struct request q = {0};
        struct fault f = {0};
        size_t n = (size_t)sprintf(text, "[job]\nprompt = ");
        memset(text + n, 'x', lengths[i]);
        strcpy(text + n + lengths[i], "y\nsteps = 7\n");
        text[n + lengths[i] - 1] = 'y';
        memmove(text + n + lengths[i], text + n + lengths[i] + 1, 12);
        if (parse(text, &q, &f) < 0)
            fail_msg("%zu: %s", lengths[i], f.text);
        assert_int_equal(strlen(q.prompt), lengths[i]);
        assert_int_equal(q.prompt[lengths[i] - 1], 'y');
        assert_int_equal(q.steps, 7);
    }
}

static void test_ticket_of_ten_megabytes(void **state)
{
    _cleanup_(freep) char *text = malloc((10 << 20) + 1);
    struct request q;
    struct fault f;

    (void)state;
    memset(text, 'x', 10 << 20);
    memcpy(text, "[job]\nprompt = ", 15);
    assert_true(request_parse_ticket(text, 10 << 20, NULL, &q, &f) < 0);
    check_says(&f, "line 2: ", "one line");
    memset(text + 6, '\n', (10 << 20) - 6);
    memcpy(text + (10 << 20) - 5, "what?", 5);
    assert_true(request_parse_ticket(text, 10 << 20, NULL, &q, &f) < 0);
    check_says(&f, "line 10485", "many lines");
}

static void test_a_golden_ticket(void **state)
{
    static const char text[] =
        "[job]\nprompt = ΣΊΣΥΦΟΣ und der große Fuchs, 赤い狐 🦊 İ½\n"
        "negative_prompt = été\nwidth = 40\nheight = 56\nsteps = 5\n"
        "guidance_scale = 5\nseed = 4294967295\ncount = 2\n"
        "scheduler = ddim\n\n[golden]\nmodel = four\n";
    _cleanup_(request_done) struct request q = {0};

    (void)state;
    assert_int_equal(parse(text, &q, NULL), 0);
    assert_int_equal(q.count, 2);
    assert_int_equal(q.seed, 4294967295);
    assert_string_equal(q.prompt, "ΣΊΣΥΦΟΣ und der große Fuchs, 赤い狐 🦊 İ½");
}

static void test_booleans(void **state)
{
    static const struct {
        const char *text;
        uint32_t value;
    } good[] = {{"yes", 1}, {"true", 1}, {"1", 1}, {"no", 0}, {"false", 0}, {"0", 0}};
    _cleanup_(request_done) struct request q = {0};
    _cleanup_(freep) char *text = NULL;
    struct fault f = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(set_text(&q, "ephemeral", good[i].text, &f), 0);
        assert_int_equal(q.ephemeral, good[i].value);
    }
    assert_int_equal(set_text(&q, "ephemeral", "maybe", &f), -EINVAL);
    check_says(&f, "ephemeral: maybe is neither yes nor no", "maybe");
    assert_int_equal(request_set_double(&q, &request_rows[REQUEST_ephemeral], 1, &f), -EINVAL);
    check_says(&f, "want yes or no", "a double");
    assert_int_equal(request_format(&q, &request_rows[REQUEST_ephemeral], &text), 0);
    assert_string_equal(text, "no");
}

static void test_merge(void **state)
{
    _cleanup_(request_done) struct request q = {0}, preset = {0};
    struct fault f = {0};

    (void)state;
    assert_int_equal(set_text(&q, "steps", "7", &f), 0);
    assert_int_equal(set_text(&preset, "steps", "9", &f), 0);
    assert_int_equal(set_text(&preset, "negative_prompt", "rain", &f), 0);
    assert_int_equal(request_merge(&q, &preset), 0);
    assert_int_equal(q.steps, 7); /* given: stays */
    assert_string_equal(q.negative_prompt, "rain");
    assert_false(request_is_set(&q, REQUEST_width));
}

static void expect_list(const struct request *q, const char *const *want, size_t count)
{
    _cleanup_(text_list_done) struct text_list list = {0};

    assert_int_equal(request_list(q, &request_rows[REQUEST_prompts], &list), 0);
    assert_int_equal(list.count, count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(list.items[i], want[i]);
}

static void test_lists(void **state)
{
    static const char *const texts[] = {"a fox", "", "two | \"three\"", "four\nfive"};
    const struct request_row *row = &request_rows[REQUEST_prompts];
    _cleanup_(request_done) struct request q = {0}, again = {0};
    _cleanup_(freep) char *text = NULL;
    struct fault f = {0};

    (void)state;
    assert_int_equal(request_prompt_count(&q), 1);
    assert_int_equal(set_text(&q, "prompts", " a cat|a dog  | ", &f), 0);
    expect_list(&q, (const char *const[]){"a cat", "a dog", ""}, 3);
    assert_int_equal(request_set_list(&q, row, texts, ARRAY_SIZE(texts), &f), 0);
    expect_list(&q, texts, ARRAY_SIZE(texts));
    assert_int_equal(request_format(&q, row, &text), 0);
    assert_int_equal(set_text(&again, "prompts", text, &f), 0);
    expect_list(&again, texts, ARRAY_SIZE(texts));
    q.count = 3;
    assert_int_equal(request_picture_count(&q), 12);
    assert_int_equal(set_text(&q, "prompts", "", &f), 0);
    assert_int_equal(request_prompt_count(&q), 1);
    const char *many[REQUEST_PICTURES_MAX + 1];
    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = "x";
    assert_int_equal(request_set_list(&q, row, many, ARRAY_SIZE(many), &f), -EINVAL);
    check_says(&f, "prompts: more than 64 texts", "many");
    f = (struct fault){0};
    assert_int_equal(request_set_list(&q, row, (const char *const[]){"\xff"}, 1, &f), -EILSEQ);
    f = (struct fault){0};
    assert_int_equal(request_set_list(&q, &request_rows[REQUEST_prompt], texts, 1, &f), -EINVAL);
    check_says(&f, "prompt: is no list", "prompt");
}

/* Rows that hang together, in ticket notation. */
static void test_together(void **state)
{
    static const struct {
        const char *ticket, *says; /* "": legal */
        bool is_inpainting, has_safety;
    } rows[] = {
        {"image = a.png\n", "", false, false},
        {"image = a.png\nwidth = 64\n", "", false, false},
        {"image = a.png\nmask = m.png\n", "", true, false},
        {"mask = m.png\n", "mask: there is no image", false, false},
        {"prompt = x\n", "mask: this model is made for inpainting", true, false},
        {"prompt = x\nprompts = a|b\n", "prompts: there is a prompt too", false, false},
        {"prompts = a|b\nnegative_prompts = c|d\n", "", false, false},
        {"prompts = a|b\nnegative_prompts = c\n", "negative_prompts: 1 texts, but there are 2",
         false, false},
        {"negative_prompts = c\nnegative_prompt = c\n", "negative_prompts: there is a", false,
         false},
        {"prompts = a|b|c|d|e\ncount = 13\n", "count: 5 prompts of 13 pictures each make 65", false,
         false},
        {"safety = black\n", "safety: this model has no safety checker", false, false},
        {"safety = black\n", "", false, true},
        {"clip_skip = 12\n", "clip_skip: 12 of the text encoder's 12 layers; at most 11", false,
         false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(request_done) struct request q = {0};
        struct request_context context = sd;
        struct fault f = {0};
        char text[256];
        (void)snprintf(text, sizeof text, "[job]\n%s", rows[i].ticket);
        context.is_inpainting = rows[i].is_inpainting;
        context.has_safety = rows[i].has_safety;
        context.text_layers = 12;
        assert_int_equal(parse(text, &q, &f), 0);
        assert_int_equal(request_complete(&q, NULL, &context, &f), 0);
        assert_true(q.strength == (rows[i].is_inpainting ? 1 : 0.8));
        if (!strstr(text, "safety"))
            assert_int_equal(q.safety, rows[i].has_safety ? SAFETY_BLACK : SAFETY_OFF);
        int r = request_check(&q, &context, &f);
        if ((r < 0) != (rows[i].says[0] != 0))
            fail_msg("%s: %d", rows[i].ticket, r);
        if (r < 0)
            check_says(&f, rows[i].says, rows[i].ticket);
    }
}

static void test_loras(void **state)
{
    static const struct {
        const char *text, *fault;
    } bad[] = {
        {"a,,b", "empty name"},   {",a", "empty name"},     {"a,", "empty name"},
        {":1", "empty name"},     {"a:x", "NAME:weight"},   {"a:", "NAME:weight"},
        {"a:nan", "NAME:weight"}, {"a:101", "NAME:weight"}, {"a:1 b", "NAME:weight"},
        {"a, ,b", "empty name"},  {"a:0x1", "NAME:weight"},
    };
    struct request_lora *e = calloc(REQUEST_LORAS_MAX, sizeof *e);
    struct fault f = {0};
    char many[256] = "x";
    uint32_t n = 9;

    (void)state;
    assert_non_null(e);
    assert_int_equal(request_loras(NULL, e, &n, &f), 0);
    assert_int_equal(n, 0);
    assert_int_equal(request_loras(" ", e, &n, &f), 0);
    assert_int_equal(n, 0);
    assert_int_equal(request_loras(" one:0.5, dir/two.safetensors ,old:three:-2,four", e, &n, &f),
                     0);
    assert_int_equal(n, 4);
    assert_string_equal(e[0].name, "one");
    assert_true(e[0].weight == 0.5);
    assert_string_equal(e[1].name, "dir/two.safetensors");
    assert_true(e[1].weight == 1 && e[2].weight == -2 && e[3].weight == 1);
    assert_string_equal(e[2].name, "old:three");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (request_loras(bad[i].text, e, &n, &f) != -EINVAL || !strstr(f.text, bad[i].fault))
            fail_msg("%s: %s", bad[i].text, f.text);
    }
    for (unsigned i = 0; i < REQUEST_LORAS_MAX; i++)
        (void)strcat(many, ",x");
    assert_int_equal(request_loras(many, e, &n, &f), -EINVAL);
    free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_legal_texts),
        cmocka_unit_test(test_illegal_texts),
        cmocka_unit_test(test_typed_values),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_no_locale_dependence),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_check_against_the_model),
        cmocka_unit_test(test_ticket),
        cmocka_unit_test(test_bad_tickets),
        cmocka_unit_test(test_booleans),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_ticket_of_ten_megabytes),
        cmocka_unit_test(test_a_golden_ticket),
        cmocka_unit_test(test_loras),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
