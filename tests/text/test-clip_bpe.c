/* clip_bpe: stored prompts give the reference's ids; files that lie are refused; long words are
 * fast. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <cmocka.h>

#include <jansson.h>

#include "vk/base/file.h"
#include "vk/text/clip_bpe.h"

#define TOKENIZER "tests/golden/tokenizer"
#define DEMO      "packaging/demo-model/tokenizer"
#define IDS       77

/* --- goldens ---------------------------------------------------------------------------------- */

/* One line {"p": text, "ids": [77 numbers]}. */
static void check_line(const struct clip_bpe *t, const char *line, const char *path, size_t number)
{
    json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
    const json_t *text = json_object_get(row, "p"), *ids = json_object_get(row, "ids");
    int32_t got[IDS];

    assert_true(json_is_string(text));
    assert_int_equal(json_array_size(ids), IDS);
    assert_int_equal(
        clip_bpe_encode(t, json_string_value(text), json_string_length(text), IDS, got, NULL, NULL),
        0);
    for (size_t i = 0; i < IDS; i++) {
        int32_t want = (int32_t)json_integer_value(json_array_get(ids, i));
        if (got[i] != want)
            fail_msg("%s:%zu: id %zu is %d, want %d", path, number, i, got[i], want);
    }
    json_decref(row);
}

static size_t check_file(const char *directory, const char *path)
{
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    _cleanup_(freep) char *line = NULL;
    size_t capacity = 0, number = 0;
    struct fault f = {0};

    if (clip_bpe_open(directory, &t, &f) < 0)
        fail_msg("%s", f.text);
    assert_non_null(file);
    assert_int_equal(clip_bpe_model_max_length(t), IDS);
    while (getline(&line, &capacity, file) >= 0)
        check_line(t, line, path, ++number);
    return number;
}

static void test_golden_prompts(void **state)
{
    (void)state;
    assert_true(check_file(TOKENIZER, TOKENIZER "/prompts.jsonl") >= 500);
    assert_true(check_file(TOKENIZER, TOKENIZER "/prompts-nul.jsonl") > 0);
    assert_true(check_file(TOKENIZER, TOKENIZER "/prompts-young.jsonl") > 0);
}

static void test_golden_prompts_of_demo_model(void **state)
{
    (void)state;
    if (access(DEMO "/vocab.json", R_OK) < 0) {
        print_message("skipped: " DEMO " is not there\n");
        skip();
    }
    assert_true(check_file(DEMO, TOKENIZER "/prompts-demo.jsonl") > 0);
}

/* --- made-up files ---------------------------------------------------------------------------- */

/* A folder of its own; files not given are removed from it. */
static const char *folder(const char *vocab, const char *merges, const char *config,
                          const char *map, const char *added)
{
    static char directory[64];
    const struct {
        const char *name, *text;
    } files[] = {
        {"vocab.json", vocab},
        {"merges.txt", merges},
        {"tokenizer_config.json", config},
        {"special_tokens_map.json", map},
        {"added_tokens.json", added},
    };

    if (!directory[0]) {
        strcpy(directory, "/tmp/test-clip_bpe-XXXXXX");
        assert_non_null(mkdtemp(directory));
    }
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", directory, files[i].name);
        if (files[i].text)
            assert_int_equal(file_write_atomic(path, files[i].text, strlen(files[i].text), NULL),
                             0);
        else
            (void)unlink(path); /* may not be there */
    }
    return directory;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder(NULL, NULL, NULL, NULL, NULL));
}

#define SPECIALS "\"<|startoftext|>\": 8, \"<|endoftext|>\": 9"
#define VOCAB                                                                                      \
    "{\"a\": 0, \"a</w>\": 1, \"b\": 2, \"b</w>\": 3, \"aa\": 4, \"ab</w>\": 5, \"!</w>\": "       \
    "6, " SPECIALS "}"
#define MERGES "#version: 0.2\na a\na b</w>\n"

static void test_files_that_lie_are_refused(void **state)
{
    static const struct {
        const char *vocab, *merges, *config, *map, *added, *says;
    } rows[] = {
        {NULL, MERGES, NULL, NULL, NULL, "vocab.json: No such file"},
        {VOCAB, NULL, NULL, NULL, NULL, "merges.txt: No such file"},
        {"[]", MERGES, NULL, NULL, NULL, "vocab.json: not a JSON object"},
        {"{\"a\": 1, \"a\": 2}", MERGES, NULL, NULL, NULL, "vocab.json: line 1"},
        {"{\"a\": -1}", MERGES, NULL, NULL, NULL, "\"a\": want an id"},
        {"{\"a\": 1048576}", MERGES, NULL, NULL, NULL, "\"a\": want an id"},
        {"{\"a\": \"b\"}", MERGES, NULL, NULL, NULL, "\"a\": want an id"},
        {"{\"a\": 0}", MERGES, NULL, NULL, NULL, "bos_token \"<|startoftext|>\" is not"},
        {VOCAB, "#v\na a\na\n", NULL, NULL, NULL, "merges.txt: line 3: want two"},
        {VOCAB, "#v\na a\n\na b</w>\n", NULL, NULL, NULL, "merges.txt: line 3: want two"},
        {VOCAB, "#v\na a a\n", NULL, NULL, NULL, "line 2: more than two"},
        {VOCAB, "#v\nb b\n", NULL, NULL, NULL, "line 2: a part or the whole"},
        {VOCAB, MERGES, "{", NULL, NULL, "tokenizer_config.json: line 1"},
        {VOCAB, MERGES, "{\"bos_token\": 5}", NULL, NULL, "bos_token: want a token"},
        {VOCAB, MERGES, "{\"pad_token\": \"\"}", NULL, NULL, "pad_token: want a token"},
        {VOCAB, MERGES, "{\"model_max_length\": 1}", NULL, NULL, "model_max_length"},
        {VOCAB, MERGES, "{\"model_max_length\": 70000}", NULL, NULL, "model_max_length"},
        {VOCAB, MERGES, "{\"padding_side\": \"left\"}", NULL, NULL, "padding_side"},
        {VOCAB, MERGES, NULL, "{\"pad_token\": {\"content\": \"none\"}}", NULL,
         "pad_token \"none\""},
        {VOCAB, MERGES, NULL, "{\"additional_special_tokens\": [\"x\"]}", NULL, "\"x\" is not"},
        {VOCAB, MERGES, NULL, NULL, "{\"<x>\": \"10\"}", "\"<x>\": want an id"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct clip_bpe *t = NULL;
        struct fault f = {0};
        const char *d =
            folder(rows[i].vocab, rows[i].merges, rows[i].config, rows[i].map, rows[i].added);
        assert_true(clip_bpe_open(d, &t, &f) < 0);
        assert_null(t);
        if (!strstr(f.text, rows[i].says))
            fail_msg("row %zu: \"%s\" does not say \"%s\"", i, f.text, rows[i].says);
    }
}

static void test_tokens_of_the_files(void **state)
{
    static const struct {
        const char *config, *map, *added, *text;
        int32_t ids[8];
        uint32_t max_length, size;
    } rows[] = {
        {NULL, NULL, NULL, "aab b", {8, 4, 3, 3, 9, 9, 9, 9}, 77, 10},
        {NULL, NULL, NULL, "ab c", {8, 5, 9, 9, 9, 9, 9, 9}, 77, 10}, /* c is unknown: 9 */
        {"{\"model_max_length\": 16}", NULL, NULL, "", {8, 9, 9, 9, 9, 9, 9, 9}, 16, 10},
        {"{\"model_max_length\": 1000000000000000019884624838656}",
         NULL,
         NULL,
         "B",
         {8, 3, 9, 9, 9, 9, 9, 9},
         77,
         10},
        /* SD 2's way: the padding token is special wherever it stands in the raw text */
        {NULL, "{\"pad_token\": \"b\"}", NULL, "abaB", {8, 1, 2, 5, 9, 2, 2, 2}, 77, 10},
        /* an added token is looked for in the normalised text, and is normalised itself */
        {NULL, NULL, "{\"<A>\": 11}", "a<a>a", {8, 1, 11, 1, 9, 9, 9, 9}, 77, 12},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
        struct fault f = {0};
        int32_t ids[8];
        const char *d = folder(VOCAB, MERGES, rows[i].config, rows[i].map, rows[i].added);
        if (clip_bpe_open(d, &t, &f) < 0)
            fail_msg("row %zu: %s", i, f.text);
        assert_int_equal(clip_bpe_model_max_length(t), rows[i].max_length);
        assert_int_equal(clip_bpe_vocab_size(t), rows[i].size);
        assert_int_equal(clip_bpe_encode(t, rows[i].text, strlen(rows[i].text), 8, ids, NULL, NULL),
                         0);
        assert_memory_equal(ids, rows[i].ids, sizeof ids);
    }
}

/* --- over-long and bad text ------------------------------------------------------------------- */

static void test_dropped_bytes(void **state)
{
    static const struct {
        const char *text;
        uint32_t n;
        size_t dropped;
    } rows[] = {
        {"b b", 4, 0},
        {"b b ", 4, 0},
        {"b b b", 4, 1},
        {"b  b\tb b", 4, 3},
        {"b aab", 4, 1},         /* cut within a word, at a token: aa | b */
        {"b", 2, 1},             /* no room at all */
        {"B\xcc\x81 b b", 4, 6}, /* b, then two unknown bytes of one mark: cut before the mark */
        {"b <|endoftext|> b", 4, 1},
        {"b b <|endoftext|>", 4, 13},
    };
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;

    (void)state;
    assert_int_equal(clip_bpe_open(folder(VOCAB, MERGES, NULL, NULL, NULL), &t, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int32_t ids[8];
        size_t dropped = 99;
        assert_int_equal(
            clip_bpe_encode(t, rows[i].text, strlen(rows[i].text), rows[i].n, ids, &dropped, NULL),
            0);
        assert_int_equal(dropped, rows[i].dropped);
        assert_int_equal(ids[0], 8);
        assert_int_equal(ids[rows[i].n - 1], 9);
    }
}

static void test_bad_text(void **state)
{
    static const char *const rows[] = {
        "a\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82",
    };
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    int32_t ids[IDS];
    struct fault f;

    (void)state;
    assert_int_equal(clip_bpe_open(TOKENIZER, &t, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(clip_bpe_encode(t, rows[i], strlen(rows[i]), IDS, ids, NULL, &f), -EILSEQ);
    assert_int_equal(clip_bpe_encode(t, "a", 1, 1, ids, NULL, &f), -EINVAL);
}

static double milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* One word as long as a prompt may be. Quadratic merging would take seconds; sanitizers cost 10
 * times. */
static void test_a_long_word_is_fast(void **state)
{
    enum { SIZE = 16384 };
    static const char *const letters[] = {"etaoinsr", "a", "\xcc\xa3\xcc\x81", "<|"};
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    char word[SIZE];
    int32_t ids[IDS];

    (void)state;
    assert_int_equal(clip_bpe_open(TOKENIZER, &t, NULL), 0);
    for (size_t k = 0; k < ARRAY_SIZE(letters); k++) {
        size_t n = strlen(letters[k]);
        for (size_t i = 0; i < SIZE; i++)
            word[i] = letters[k][i % n];
        double start = milliseconds();
        assert_int_equal(clip_bpe_encode(t, word, SIZE, IDS, ids, NULL, NULL), 0);
        assert_true(milliseconds() - start < 200);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_prompts),
        cmocka_unit_test(test_golden_prompts_of_demo_model),
        cmocka_unit_test(test_files_that_lie_are_refused),
        cmocka_unit_test(test_tokens_of_the_files),
        cmocka_unit_test(test_dropped_bytes),
        cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_a_long_word_is_fast),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
