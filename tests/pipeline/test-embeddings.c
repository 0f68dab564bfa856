/* embeddings: the ways a file may name its word, the numbers as they are stored; what is refused is
 * named, with the file and what was wanted. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/folder.h"
#include "tests/support/safetensors_write.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/half.h"
#include "vk/pipeline/embeddings.h"

#define TOKENIZER "tests/golden/tokenizer"
#define WIDTH     5u /* padded to 8 */

static const float numbers[12 * WIDTH] = {1, 2, 3, 4, 5, -6, 0.5f, 7, 8, 9, 10, 11, 12, 13, 14};

static void put(const char *model, const char *name, const struct safetensors_item *items,
                size_t count)
{
    char path[PATH_MAX];
    struct fault f = {0};

    (void)snprintf(path, sizeof path, "%s/embeddings/%s", model, name);
    if (safetensors_write(path, items, count, &f) < 0)
        fail_msg("%s", f.text);
}

static void take(const char *model, const char *name)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/embeddings/%s", model, name);
    assert_int_equal(unlink(path), 0);
}

/* A model folder that is only a tokenizer, and embeddings/. */
static int setup(void **state)
{
    char path[PATH_MAX], target[PATH_MAX];

    if (folder_setup(state) < 0 || !realpath(TOKENIZER, target))
        return -1;
    (void)snprintf(path, sizeof path, "%s/tokenizer", (const char *)*state);
    if (symlink(target, path) < 0)
        return -1;
    (void)snprintf(path, sizeof path, "%s/embeddings", (const char *)*state);
    return mkdir(path, 0755);
}

static int read_model(const char *model, struct clip_bpe **ret_tokenizer, struct embeddings *e,
                      struct fault *f)
{
    if (clip_bpe_open(TOKENIZER, ret_tokenizer, f) < 0)
        fail_msg("%s", f->text);
    return embeddings_read(model, WIDTH, *ret_tokenizer, e, f);
}

/* The ids of a text between BOS and EOS. */
static void check_ids(const struct clip_bpe *t, const char *text, const int32_t *want, size_t count)
{
    int32_t ids[77];

    assert_int_equal(clip_bpe_encode(t, text, strlen(text), 77, ids, NULL, NULL), 0);
    for (size_t i = 0; i < count; i++)
        if (ids[1 + i] != want[i])
            fail_msg("%s: id %zu is %d, want %d", text, i, ids[1 + i], want[i]);
    assert_int_equal(ids[1 + count], clip_bpe_get_marks(t).eos);
}

static void test_kinds(void **state)
{
    const char *model = *state;
    uint16_t halves[2 * WIDTH], bfloats[WIDTH] = {0x3f80, 0xc000, 0, 0x4000, 0x3f00};
    int64_t id = 265;
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    _cleanup_(embeddings_done) struct embeddings e = {0};
    struct fault f = {0};

    for (size_t i = 0; i < 2 * WIDTH; i++)
        halves[i] = half_from_float(numbers[i]);
    put(model, "a.safetensors",
        &(struct safetensors_item){"<Cat-Toy>", "BF16", 1, {WIDTH}, bfloats}, 1);
    put(model, "old style.safetensors",
        &(struct safetensors_item){"emb_params", "F16", 2, {2, WIDTH}, halves}, 1);
    const struct safetensors_item several[] = {{"string_to_param.*", "F32", 2, {3, WIDTH}, numbers},
                                               {"string_to_token.*", "I64", 1, {1}, &id}};
    put(model, "swirl.safetensors", several, 2);
    put(model, "notes.txt", several, 1); /* left alone */
    if (read_model(model, &t, &e, &f) < 0)
        fail_msg("%s", f.text);
    int32_t first = (int32_t)e.first;
    assert_int_equal(e.rows, 6);
    assert_int_equal(e.first + 6, clip_bpe_vocab_size(t));
    check_ids(t, "<cat-toy>", (const int32_t[]){first}, 1);
    check_ids(t, "<CAT-TOY><cat-toy>", (const int32_t[]){first, first}, 2);
    check_ids(t, "OLD  STYLE", (const int32_t[]){first + 1, first + 2}, 2);
    check_ids(t, "swirl swirl_2", (const int32_t[]){first + 3, first + 4, first + 5, first + 5}, 4);
    assert_true(half_to_float(e.halves[1]) == -2);           /* bfloat16 */
    assert_true(half_to_float(e.halves[8 + 4]) == 5);        /* the second row's */
    assert_true(half_to_float(e.halves[2 * 8 + 1]) == 0.5f); /* its second vector */
    assert_true(half_to_float(e.halves[5 * 8 + 4]) == 14);   /* the last number */
    for (size_t row = 0; row < 6; row++)
        for (size_t i = WIDTH; i < 8; i++)
            assert_int_equal(e.halves[row * 8 + i], 0);
    take(model, "a.safetensors");
    take(model, "old style.safetensors");
    take(model, "swirl.safetensors");
}

static void test_none(void **state)
{
    char model[PATH_MAX];
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    struct embeddings e = {0};
    struct fault f = {0};

    (void)snprintf(model, sizeof model, "%s/tokenizer", (const char *)*state); /* no embeddings/ */
    assert_int_equal(read_model(model, &t, &e, &f), 0);
    assert_int_equal(e.rows, 0);
    assert_null(e.halves);
}

static void test_refused(void **state)
{
    static float bad[WIDTH] = {1, 2, NAN, 4, 5}, large[WIDTH] = {1, 2, 3, 70000, 5};
    static float many[76 * WIDTH];
    static const struct {
        const char *file;
        struct safetensors_item item;
        const char *why;
    } rows[] = {
        {"x.pt", {"<w>", "F32", 1, {WIDTH}, numbers}, "embeddings/x.pt: is a pickle: convert"},
        {"x.bin", {"<w>", "F32", 1, {WIDTH}, numbers}, "embeddings/x.bin: is a pickle: convert"},
        {"x.safetensors",
         {"<w>", "F32", 1, {WIDTH + 1}, numbers},
         "embeddings/x.safetensors: <w>: want [1…75,5], file has [6]"},
        {"x.safetensors",
         {"emb_params", "F32", 3, {1, 1, WIDTH}, numbers},
         "emb_params: want [1…75,5], file has [1,1,5]"},
        {"x.safetensors",
         {"emb_params", "F32", 2, {0, WIDTH}, numbers},
         "emb_params: want [1…75,5], file has [0,5]"},
        {"x.safetensors", {"emb_params", "F32", 2, {76, WIDTH}, many}, "file has [76,5]"},
        {"x.safetensors",
         {"emb_params", "I32", 1, {WIDTH}, numbers},
         "emb_params: want F16, BF16 or F32, file has I32"},
        {"x.safetensors", {"<w>", "F32", 1, {WIDTH}, bad}, "<w>: element 2 is "},
        {"x.safetensors", {"<w>", "F32", 1, {WIDTH}, large}, "<w>: element 3 is "},
        {"a.safetensors",
         {"emb_params", "F32", 1, {WIDTH}, numbers},
         "embeddings/a.safetensors: \"a\" is in the tokenizer's vocabulary; give it another"},
        {"x.safetensors",
         {"<|ENDOFTEXT|>", "F32", 1, {WIDTH}, numbers},
         "embeddings/x.safetensors: \"<|ENDOFTEXT|>\": there is such a token already"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
        struct embeddings e = {0};
        struct fault f = {0};
        put(*state, rows[i].file, &rows[i].item, 1);
        int r = read_model(*state, &t, &e, &f);
        if (r >= 0 || !strstr(f.text, rows[i].why))
            fail_msg("row %zu: %d, \"%s\", want \"%s\"", i, r, f.text, rows[i].why);
        assert_null(e.halves);
        take(*state, rows[i].file);
    }
}

static void test_several_refused(void **state)
{
    const struct safetensors_item two[] = {{"clip_g", "F32", 1, {WIDTH}, numbers},
                                           {"clip_l", "F32", 1, {WIDTH}, numbers}};
    const struct safetensors_item one = {"<w>", "F32", 1, {WIDTH}, numbers};
    struct embeddings e = {0};
    struct fault f = {0};

    {
        _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
        put(*state, "xl.safetensors", two, 2);
        assert_int_equal(read_model(*state, &t, &e, &f), -EINVAL);
        assert_non_null(strstr(f.text, "embeddings/xl.safetensors: want emb_params"));
        take(*state, "xl.safetensors");
    }
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    put(*state, "a.safetensors", &one, 1);
    put(*state, "b.safetensors", &one, 1);
    assert_int_equal(read_model(*state, &t, &e, &f), -EEXIST);
    assert_non_null(strstr(f.text, "embeddings/b.safetensors: \"<w>\": there is such a token"));
    take(*state, "a.safetensors");
    take(*state, "b.safetensors");
}

/* A file that others may write is told of, as weights are. */
static void test_owner(void **state)
{
    const struct safetensors_item one = {"<w>", "F32", 1, {WIDTH}, numbers};
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = NULL;
    _cleanup_(embeddings_done) struct embeddings e = {0};
    char path[PATH_MAX];
    struct fault f = {0};

    put(*state, "w.safetensors", &one, 1);
    (void)snprintf(path, sizeof path, "%s/embeddings/w.safetensors", (const char *)*state);
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(read_model(*state, &t, &e, &f), 0);
    assert_int_equal(e.owner.err, -EPERM);
    assert_non_null(strstr(e.owner.text, "embeddings/w.safetensors"));
    take(*state, "w.safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds), cmocka_unit_test(test_none), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_several_refused), cmocka_unit_test(test_owner)};

    return cmocka_run_group_tests_name("embeddings", tests, setup, folder_teardown);
}
