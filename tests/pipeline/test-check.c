/* The known-answer picture: a sound device passes again and again and draws on as before; damaged
 * weights, a NaN, and an answer that differs from the kept one are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/folder.h"
#include "vk/base/file.h"
#include "vk/engine.h"
#include "vk/pipeline/check.h"

#define MODEL "tests/golden/models/mid-only"

/* --- through the engine's face ---------------------------------------------------------------- */

static struct engine *open_engine(const char *cache)
{
    const struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES, .cache = cache};
    struct engine *e = NULL;
    struct fault f = {0};

    if (engine_open(MODEL, &options, &e, &f) < 0)
        fail_msg("%s", f.text);
    return e;
}

static void must_pass(struct engine *e)
{
    struct fault f = {0};

    if (engine_check(e, &f) != 0)
        fail_msg("%s", f.text);
}

static int keep_digest(uint32_t picture, const uint8_t *rgb, uint32_t width, uint32_t height,
                       uint64_t seed, void *userdata)
{
    (void)picture, (void)seed;
    sha256_hex(rgb, (size_t)3 * width * height, userdata);
    return 0;
}

static void draw(struct engine *e, uint32_t side, char ret_digest[SHA256_HEX_SIZE])
{
    static const struct engine_observer observer = {.on_picture = keep_digest};
    char prompt[] = "a fox";
    const struct request q = {.prompt = prompt,
                              .width = side,
                              .height = side,
                              .steps = 2,
                              .guidance_scale = 3,
                              .seed = 9,
                              .count = 1,
                              .scheduler = SCHEDULER_DDIM};
    struct fault f = {0};

    if (engine_run(e, &q, &observer, ret_digest, &f) < 0)
        fail_msg("%s", f.text);
}

static void passes_and_draws_on(void **state)
{
    char first[SHA256_HEX_SIZE], second[SHA256_HEX_SIZE];
    struct engine *e = open_engine(NULL);

    (void)state;
    draw(e, 32, first);
    for (int i = 0; i < 3; i++) {
        must_pass(e);
        draw(e, 32, second);
        assert_string_equal(first, second);
    }
    engine_cancel(e); /* meant for the next picture, not for the check */
    must_pass(e);
    engine_close(e);
}

static char *kept_file(const char *folder)
{
    char pattern[512];
    glob_t found;

    (void)snprintf(pattern, sizeof pattern, "%s/answer-*.txt", folder);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    char *path = strdup(found.gl_pathv[0]);
    globfree(&found);
    return path;
}

static char *text_of(const char *path)
{
    struct fault f = {0};
    char *text = NULL;
    size_t size;

    if (file_read(path, 65536, &text, &size, &f) < 0)
        fail_msg("%s", f.text);
    return text;
}

/* The next process passes with the same answer, and is refused with another one. */
static void keeps_its_answer(void **state)
{
    struct check_answer answer;
    struct engine *e = open_engine(*state);
    struct fault f = {0};
    char key[SHA256_HEX_SIZE];

    must_pass(e);
    engine_close(e);
    char *path = kept_file(*state), *text = text_of(path);
    assert_int_equal(sscanf(strstr(text, "\nkey "), " key %64s", key), 1);
    assert_true(check_parse(text, key, &answer));
    e = open_engine(*state);
    must_pass(e);
    engine_close(e);

    answer.digest[CHECK_LATENTS][3] ^= 1;
    char *other = check_format(key, &answer);
    assert_int_equal(file_write_atomic(path, other, strlen(other), NULL), 0);
    e = open_engine(*state);
    for (int i = 0; i < 2; i++) {
        f = (struct fault){0};
        assert_int_equal(engine_check(e, &f), -EBADMSG);
        assert_int_equal(f.err, -EBADMSG);
        assert_non_null(strstr(f.text, "the U-Net's latents"));
        assert_non_null(strstr(f.text, path));
    }
    engine_close(e);
    char *still = text_of(path);
    assert_string_equal(still, other); /* the evidence stays */
    free(still);

    /* another key, as after a driver's update, and damage: a new answer takes the place */
    key[0] ^= 1;
    char *foreign = check_format(key, &answer);
    other[30] ^= 1;
    const char *const useless[] = {foreign, other, "", "diffused answer 1\n"};
    for (size_t i = 0; i < ARRAY_SIZE(useless); i++) {
        assert_int_equal(file_write_atomic(path, useless[i], strlen(useless[i]), NULL), 0);
        e = open_engine(*state);
        must_pass(e);
        engine_close(e);
        still = text_of(path);
        assert_string_equal(still, text);
        free(still);
    }
    free(foreign);
    free(other);
    free(text);
    free(path);
}

static void format_is_strict(void **state)
{
    struct check_answer answer = {0}, found;
    char key[SHA256_HEX_SIZE];

    (void)state;
    sha256_hex("k", 1, key);
    for (int i = 0; i < CHECK_PART_COUNT; i++)
        sha256_hex(&i, sizeof i, answer.digest[i]);
    char *text = check_format(key, &answer);
    size_t length = strlen(text);
    assert_true(check_parse(text, key, &found));
    assert_memory_equal(&found, &answer, sizeof found);
    for (size_t i = 0; i < length; i++) {
        char *cut = strndup(text, i);
        assert_false(check_parse(cut, key, &found));
        free(cut);
        text[i] ^= 1;
        assert_false(check_parse(text, key, &found));
        text[i] ^= 1;
    }
    free(text);
}

/* --- with damage in device memory ------------------------------------------------------------- */

struct rig {
    struct gpu *gpu;
    struct model *model;
    struct weights *weights;
    struct check check;
};

static struct rig rig;

static int open_rig(void **state)
{
    struct fault f = {0};
    int r = model_open(MODEL, &rig.model, &f);

    (void)state;
    if (r >= 0)
        r = weights_open(MODEL, &rig.weights, &f);
    if (r >= 0)
        r = session_declare_weights(rig.model, rig.weights, &f);
    if (r >= 0)
        r = gpu_open(&(struct gpu_options){.allow_cpu = 1}, &rig.gpu, &f);
    if (r >= 0)
        r = weights_load(rig.weights, rig.gpu, NULL, NULL, &f);
    const struct pipeline p = {.gpu = rig.gpu, .model = rig.model, .weights = rig.weights};
    if (r >= 0)
        r = check_init(&rig.check, &p, NULL, &f);
    if (r < 0)
        (void)fprintf(stderr, "%s\n", f.text);
    return r;
}

static int close_rig(void **state)
{
    (void)state;
    check_done(&rig.check);
    weights_free(rig.weights);
    gpu_close(rig.gpu);
    model_free(rig.model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_and_draws_on),
        cmocka_unit_test_setup_teardown(keeps_its_answer, folder_setup, folder_teardown),
        cmocka_unit_test(format_is_strict),
    };

    return cmocka_run_group_tests_name("check", tests, open_rig, close_rig);
}
