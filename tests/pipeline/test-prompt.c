/* prompt: chunks and weights as the rules of the web UI make them; what is left out is told; lists;
 * learned words stay together. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <jansson.h>

#include "vk/pipeline/prompt.h"

#define GOLDEN    "tests/golden/texts/emphasis.jsonl"
#define TOKENIZER "tests/golden/tokenizer"
#define TOKENS    77

struct bench {
    struct model model; /* of which only the tokenizer and its length count */
    struct clip_bpe_marks marks;
    char warning[1024];
    unsigned warnings;
};

static void on_warning(const char *text, void *userdata)
{
    struct bench *b = userdata;

    b->warnings++;
    (void)snprintf(b->warning, sizeof b->warning, "%s", text);
}

static const struct engine_observer observer = {.on_warning = on_warning};

static int open_tokenizer(void **state)
{
    static struct bench b;
    struct fault f = {0};

    b.model.text.positions = TOKENS;
    if (clip_bpe_open(TOKENIZER, &b.model.tokenizer, &f) < 0) {
        (void)fprintf(stderr, "%s\n", f.text);
        return -1;
    }
    b.marks = clip_bpe_get_marks(b.model.tokenizer);
    *state = &b;
    return 0;
}

static int close_tokenizer(void **state)
{
    struct bench *b = *state;

    (void)clip_bpe_free(b->model.tokenizer);
    return 0;
}

static struct prompts read_prompts(struct bench *b, const struct request *q)
{
    struct prompts p = {0};
    struct fault f = {0};

    b->warnings = 0;
    b->warning[0] = '\0';
    if (prompts_read(&b->model, q, &observer, b, &p, &f) < 0)
        fail_msg("%s", f.text);
    return p;
}

/* --- goldens ---------------------------------------------------------------------------------- */

/* [[ids without padding, [[count, weight], …]], …] */
static void check_chunks(const struct bench *b, const char *text, const char *mode,
                         const struct prompts *p, const json_t *chunks)
{
    if (p->chunks != json_array_size(chunks))
        fail_msg("%s, \"%s\": %u chunks, want %zu", mode, text, p->chunks, json_array_size(chunks));
    for (uint32_t c = 0; c < p->chunks; c++) {
        const json_t *ids = json_array_get(json_array_get(chunks, c), 0);
        const json_t *runs = json_array_get(json_array_get(chunks, c), 1);
        size_t run = 0;
        json_int_t left = json_integer_value(json_array_get(json_array_get(runs, 0), 0));
        for (size_t i = 0; i < TOKENS; i++) {
            const json_t *id = json_array_get(ids, i);
            int32_t want = id ? (int32_t)json_integer_value(id) : b->marks.pad;
            int32_t got = p->positive[0].ids[c * TOKENS + i];
            if (got != want)
                fail_msg("%s, \"%s\": id %zu of chunk %u is %d, want %d", mode, text, i, c, got,
                         want);
            while (left == 0)
                left = json_integer_value(json_array_get(json_array_get(runs, ++run), 0));
            left--;
            float weight = (float)json_number_value(json_array_get(json_array_get(runs, run), 1));
            if (p->positive[0].weights[c * TOKENS + i] != weight)
                fail_msg("%s, \"%s\": weight %zu of chunk %u is %g, want %g", mode, text, i, c,
                         (double)p->positive[0].weights[c * TOKENS + i], (double)weight);
        }
    }
}

static void check_line(struct bench *b, const char *line)
{
    static const struct {
        const char *name;
        uint32_t syntax, long_prompt;
    } modes[] = {
        {"plain.truncate", PROMPT_SYNTAX_PLAIN, LONG_PROMPT_TRUNCATE},
        {"plain.chunk", PROMPT_SYNTAX_PLAIN, LONG_PROMPT_CHUNK},
        {"weighted.truncate", PROMPT_SYNTAX_WEIGHTED, LONG_PROMPT_TRUNCATE},
        {"weighted.chunk", PROMPT_SYNTAX_WEIGHTED, LONG_PROMPT_CHUNK},
    };
    json_t *row = json_loads(line, 0, NULL);
    char *text = strdup(json_string_value(json_object_get(row, "p")));

    assert_non_null(text);
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        struct request q = {
            .prompt = text, .prompt_syntax = modes[i].syntax, .long_prompt = modes[i].long_prompt};
        const json_t *chunks = json_object_get(row, modes[i].name);
        struct prompts p = read_prompts(b, &q);
        check_chunks(b, text, modes[i].name, &p,
                     chunks ? chunks : json_object_get(row, modes[0].name));
        prompts_done(&p);
    }
    free(text);
    json_decref(row);
}

static void test_golden(void **state)
{
    _cleanup_(fclosep) FILE *file = fopen(GOLDEN, "re");
    _cleanup_(freep) char *line = NULL;
    size_t capacity = 0, rows = 0;

    assert_non_null(file);
    for (; getline(&line, &capacity, file) >= 0; rows++)
        check_line(*state, line);
    assert_true(rows > 200);
}

/* --- what is left out ------------------------------------------------------------------------- */

/* `count` tokens: one digit each. */
static char *digits(size_t count, const char *end)
{
    char *text = malloc(count + strlen(end) + 1);

    assert_non_null(text);
    for (size_t i = 0; i < count; i++)
        text[i] = (char)('0' + i % 10);
    strcpy(text + count, end);
    return text;
}

static void test_warnings(void **state)
{
    static const struct {
        size_t digits;
        const char *end;
        uint32_t syntax, long_prompt, compat;
        const char *warning; /* NULL: none */
    } rows[] = {
        {75, "", 0, 0, 0, NULL},
        {75, " fox moon", 0, 0, 0, "prompt: longer than 75 tokens; left out: \"fox moon\""},
        {75, "(fox)", 1, 0, 0, "prompt: longer than 75 tokens; left out: \"fox)\""},
        {75, " fox BREAK moon", 1, 0, 0, "prompt: longer than 75 tokens; left out: \"fox \""},
        {75, " fox BREAK moon", 0, 1, 0, NULL},
        {76, "", 0, 0, 0, "prompt: longer than 75 tokens; left out: \"5\""},
        {76, "", 0, 0, COMPAT_0_6, NULL}, /* only EOS is gone */
        {77, "", 0, 0, COMPAT_0_6, "prompt: longer than 76 tokens; left out: \"6\""},
        {16 * 75, "", 0, 1, 0, NULL},
        {16 * 75, " fox", 0, 1, 0, "prompt: longer than 16 chunks; left out: \"fox\""},
        {16 * 75, " BREAK", 0, 1, 0, NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct bench *b = *state;
        struct request q = {.prompt = digits(rows[i].digits, rows[i].end),
                            .prompt_syntax = rows[i].syntax,
                            .long_prompt = rows[i].long_prompt,
                            .compat = rows[i].compat};
        struct prompts p = read_prompts(b, &q);
        if (b->warnings != (rows[i].warning != NULL) ||
            strcmp(b->warning, rows[i].warning ? rows[i].warning : "") != 0)
            fail_msg("row %zu: %u warnings: %s", i, b->warnings, b->warning);
        prompts_done(&p);
        free(q.prompt);
    }
}

/* A warning holds whole characters, however long the text is. */
static void test_long_warning(void **state)
{
    struct bench *b = *state;

    for (size_t shift = 0; shift < 4; shift++) {
        struct request q = {.prompt = digits(75 + shift, "")};
        q.prompt = realloc(q.prompt, 8192);
        assert_non_null(q.prompt);
        for (size_t i = 0; i < 1000; i++)
            strcat(q.prompt, "\xf0\x9f\xa6\x8a");
        struct prompts p = read_prompts(b, &q);
        struct codepoints points = {0};
        assert_int_equal(b->warnings, 1);
        assert_int_equal(codepoints_decode(&points, b->warning, strlen(b->warning), NULL), 0);
        assert_non_null(strstr(b->warning, " …\""));
        array_done(&points);
        prompts_done(&p);
        free(q.prompt);
    }
}

/* diffusers 0.6.0: no EOS behind an over-long positive prompt; the negative one has it. */
static void test_compat(void **state)
{
    struct bench *b = *state;
    char *text = digits(80, "");
    struct request q = {
        .prompt = text, .negative_prompt = text, .guidance_scale = 5, .compat = COMPAT_0_6};
    struct prompts p = read_prompts(b, &q);
    int32_t one = p.positive[0].ids[1], six = p.positive[0].ids[6];

    assert_int_equal(p.chunks, 1);
    assert_int_equal(p.positive[0].ids[0], b->marks.bos);
    assert_int_equal(p.positive[0].ids[71], one);
    assert_int_equal(p.positive[0].ids[76], six);
    assert_int_equal(p.negative[0].ids[75], p.positive[0].ids[75]);
    assert_int_equal(p.negative[0].ids[76], b->marks.eos);
    assert_int_equal(b->warnings, 2);
    prompts_done(&p);
    free(text);
}

/* --- several texts ---------------------------------------------------------------------------- */

static void test_lists(void **state)
{
    struct bench *b = *state;
    char prompts[] = "[\"fox\",\"a BREAK b BREAK c\"]", negatives[] = "[\"\",\"moon\"]";
    struct request q = {.prompts = prompts,
                        .negative_prompts = negatives,
                        .guidance_scale = 5,
                        .long_prompt = LONG_PROMPT_CHUNK};
    struct prompts p = read_prompts(b, &q);

    assert_int_equal(p.count, 2);
    assert_int_equal(p.negative_count, 2);
    assert_int_equal(p.chunks, 3);
    assert_string_equal(p.positive[1].text, "a BREAK b BREAK c");
    assert_string_equal(prompts_negative(&p, 1)->text, "moon");
    for (uint32_t c = 1; c < 3; c++) /* the short ones are filled with empty chunks */
        assert_memory_equal(p.positive[0].ids + c * TOKENS, prompts_negative(&p, 0)->ids,
                            TOKENS * sizeof(int32_t));
    prompts_done(&p);
    q.negative_prompts = NULL;
    p = read_prompts(b, &q);
    assert_int_equal(p.negative_count, 1);
    assert_ptr_equal(prompts_negative(&p, 0), prompts_negative(&p, 1));
    assert_string_equal(p.negative[0].text, "");
    prompts_done(&p);
}

static void test_refused(void **state)
{
    struct bench *b = *state;
    char prompts[] = "[\"fox\",\"a (b:1.2.3)\"]", negatives[] = "[\"\",\"moon\",\"\"]";
    struct request q = {
        .prompts = prompts, .guidance_scale = 5, .prompt_syntax = PROMPT_SYNTAX_WEIGHTED};
    struct prompts p = {0};
    struct fault f = {0};

    assert_int_equal(prompts_read(&b->model, &q, &observer, b, &p, &f), -EINVAL);
    assert_string_equal(f.text, "prompts: text 2: the weight at byte 4 is no number");
    q.negative_prompts = negatives;
    assert_int_equal(prompts_read(&b->model, &q, &observer, b, &p, &f), -EINVAL);
    assert_string_equal(f.text, "negative_prompts: 3 texts, but there are 2 prompts");
    assert_null(p.positive);
}

/* A negative prompt that is not used is not read. */
static void test_unguided(void **state)
{
    struct bench *b = *state;
    char *text = digits(200, "");
    struct request q = {
        .negative_prompt = text, .guidance_scale = 1, .long_prompt = LONG_PROMPT_CHUNK};
    struct prompts p = read_prompts(b, &q);

    assert_int_equal(p.chunks, 1);
    assert_null(p.negative[0].ids);
    assert_string_equal(p.negative[0].text, text);
    prompts_done(&p);
    free(text);
}

/* --- learned words ---------------------------------------------------------------------------- */

static void test_words(void **state)
{
    struct bench *b = *state;
    char *text = digits(73, " <toy> 1");
    struct request q = {.prompt = text, .long_prompt = LONG_PROMPT_CHUNK};
    uint32_t first = 0, before = clip_bpe_vocab_size(b->model.tokenizer);

    assert_int_equal(clip_bpe_add_word(b->model.tokenizer, "<toy>", 4, &first, NULL), 0);
    assert_int_equal(first, before);
    assert_int_equal(clip_bpe_add_word(b->model.tokenizer, "<TOY>", 4, &first, NULL), -EEXIST);
    struct prompts p = read_prompts(b, &q);
    assert_int_equal(p.chunks, 2);
    assert_int_equal(p.positive[0].ids[74], b->marks.eos);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(p.positive[0].ids[TOKENS + 1 + i], first + i);
    prompts_done(&p);
    q.long_prompt = LONG_PROMPT_TRUNCATE;
    p = read_prompts(b, &q);
    assert_int_equal(p.positive[0].ids[75], first + 1);
    assert_int_equal(p.positive[0].ids[76], b->marks.eos);
    prompts_done(&p);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),   cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_lists),    cmocka_unit_test(test_long_warning),
        cmocka_unit_test(test_compat),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unguided), cmocka_unit_test(test_words)};

    return cmocka_run_group_tests_name("prompt", tests, open_tokenizer, close_tokenizer);
}
