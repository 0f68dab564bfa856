/* The known-answer picture: a sound device passes again and again and draws on as before; damaged
 * weights, a NaN, and an answer that differs from the kept one are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/folder.h"
#include "tests/support/must.h"
#include "vk/base/file.h"
#include "vk/engine.h"
#include "vk/pipeline/check.h"
#include "vk/weights/weights-private.h"

#define MODEL "tests/golden/models/two"

/* How often to do what takes seconds on a slow driver. */
static size_t rounds_of(size_t many)
{
    return is_slow_device() ? 1 : many;
}

/* --- through the engine's face ---------------------------------------------------------------- */

/* Reports of pipelines compiled while opening, which is where its time goes. */
static void count_compiled(double fraction, void *userdata)
{
    *(unsigned *)userdata += fraction == 1;
}

static struct engine *open_model(const char *directory)
{
    unsigned compiled = 0;
    const struct engine_options options = {
        .allow_cpu = ENGINE_ALLOW_CPU_YES, .on_load = count_compiled, .userdata = &compiled};
    struct engine *e = NULL;
    struct fault f = {0};

    if (engine_open(directory, &options, &e, &f) < 0)
        fail_msg("%s", f.text);
    assert_true(compiled > 20);
    return e;
}

static struct engine *open_engine(void)
{
    return open_model(MODEL);
}

static void engine_passes(struct engine *e)
{
    struct fault f = {0};

    if (engine_check(e, &f) != 0)
        fail_msg("%s", f.text);
}

static int keep_digest(const struct engine_picture *p, void *userdata)
{
    sha256_hex(p->rgb, (size_t)3 * p->width * p->height, userdata);
    return 0;
}

static void draw_with(const struct engine_observer *observer, struct engine *e, uint32_t side,
                      void *userdata)
{
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

    if (engine_run(e, &q, NULL, observer, userdata, &f) < 0)
        fail_msg("%s", f.text);
}

static void draw(struct engine *e, uint32_t side, char ret_digest[SHA256_HEX_SIZE])
{
    draw_with(&(struct engine_observer){.on_picture = keep_digest}, e, side, ret_digest);
}

/* A job that is checked between its steps: the machine slept there. */
struct checking {
    char digest[SHA256_HEX_SIZE]; /* first: keep_digest() writes it */
    struct engine *engine;
    unsigned checks;
};

static void check_at_step(const struct engine_step *step, void *userdata)
{
    struct checking *c = userdata;

    (void)step;
    c->checks++;
    engine_passes(c->engine);
}

static void passes_and_draws_on(void **state)
{
    char first[SHA256_HEX_SIZE], second[SHA256_HEX_SIZE];
    struct engine *e = open_engine();

    (void)state;
    draw(e, 32, first);
    for (size_t i = 0; i < rounds_of(3); i++) {
        engine_passes(e);
        draw(e, 32, second);
        assert_string_equal(first, second);
    }
    struct checking between = {.engine = e};
    draw_with(&(struct engine_observer){.on_picture = keep_digest, .on_step = check_at_step}, e, 32,
              &between);
    assert_int_equal(between.checks, 2);
    assert_string_equal(first, between.digest);
    engine_cancel(e); /* meant for the next picture, not for the check */
    engine_passes(e);
    engine_close(e);
}

/* Whatever a model is made for, its known answer can be drawn: a daemon asks for it first. */
static void every_kind_passes(void **state)
{
    static const char *const models[] = {
        "tests/golden/models/inpaint", "tests/golden/models/kind-lcm",
        "tests/golden/models/kind-sd2", "tests/golden/models/kind-single-sd1"};

    (void)state;
    for (size_t i = 0; i < rounds_of(ARRAY_SIZE(models)); i++) {
        struct engine *e = open_model(models[i]);
        engine_passes(e);
        engine_passes(e);
        engine_close(e);
    }
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

/* --- one rig: device, model, weights ---------------------------------------------------------- */

static struct pipeline rig;
static struct weights *rig_weights;
static struct model *rig_model;

static int open_rig(void **state)
{
    struct fault f = {0};
    int r = model_open(MODEL, &rig_model, &f);

    (void)state;
    if (r >= 0)
        r = weights_open(MODEL, &rig_weights, &f);
    if (r >= 0)
        r = session_declare_weights(rig_model, rig_weights, &f);
    if (r >= 0)
        r = gpu_open(&(struct gpu_options){.allow_cpu = 1}, &rig.gpu, &f);
    if (r >= 0)
        r = weights_load(rig_weights, rig.gpu, NULL, NULL, &f);
    if (r < 0)
        (void)fprintf(stderr, "%s\n", f.text);
    rig.model = rig_model;
    rig.weights = rig_weights;
    return r;
}

static int close_rig(void **state)
{
    (void)state;
    weights_free(rig_weights);
    gpu_close(rig.gpu);
    model_free(rig_model);
    return 0;
}

static void start(struct check *c, const char *cache)
{
    struct fault f = {0};

    if (check_init(c, &rig, cache, &f) < 0)
        fail_msg("%s", f.text);
}

static void passes(struct check *c)
{
    struct fault f = {0};

    if (check_run(c, &f) != 0)
        fail_msg("%s", f.text);
}

static void fails(struct check *c, const char *words)
{
    struct fault f = {0};

    assert_int_equal(check_run(c, &f), -EBADMSG);
    assert_int_equal(f.err, -EBADMSG);
    if (!strstr(f.text, words))
        fail_msg("\"%s\" has no \"%s\"", f.text, words);
}

/* A start of its own: what a new process with this cache would say. NULL: it passes. */
static void at_a_start(const char *cache, const char *words)
{
    struct check c;

    start(&c, cache);
    if (words)
        fails(&c, words);
    else
        passes(&c);
    check_done(&c);
}

/* --- the answer on disk ----------------------------------------------------------------------- */

static char *text_of(const char *path)
{
    struct fault f = {0};
    char *text = NULL;
    size_t size;

    if (file_read(path, 65536, &text, &size, &f) < 0)
        fail_msg("%s", f.text);
    return text;
}

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), 0);
}

static void file_holds(const char *path, const char *want)
{
    char *text = text_of(path);

    assert_string_equal(text, want);
    free(text);
}

/* The next start passes with the same answer, and is refused with another one. */
static void keeps_its_answer(void **state)
{
    struct check_answer answer;
    struct check c;

    start(&c, *state);
    passes(&c);
    char *text = text_of(c.path);
    assert_true(check_parse(text, c.key, &answer));
    at_a_start(*state, NULL);
    for (int part = 0; part < CHECK_PART_COUNT; part++) {
        static const char *const words[] = {"weights", "text encoder", "U-Net", "decoder"};
        struct check_answer other = answer;
        other.digest[part][3] = other.digest[part][3] == '0' ? '1' : '0';
        char *wrong = check_format(c.key, &other);
        put(c.path, wrong);
        at_a_start(*state, words[part]);
        file_holds(c.path, wrong); /* the evidence stays */
        free(wrong);
    }
    at_a_start(*state, c.path);
    passes(&c); /* this process has its own answer already */
    check_done(&c);
    free(text);
}

/* Another key, as after a driver's update, and damage: a new answer takes the place. */
static void replaces_useless_answers(void **state)
{
    struct check_answer answer;
    struct check c;

    start(&c, *state);
    passes(&c);
    char *text = text_of(c.path);
    assert_true(check_parse(text, c.key, &answer));
    answer.digest[CHECK_TEXT][0] ^= 1;
    char *damaged = check_format(c.key, &answer);
    damaged[30] ^= 1;
    c.key[0] = c.key[0] == '0' ? '1' : '0';
    char *foreign = check_format(c.key, &answer);
    const char *const useless[] = {foreign, damaged, "", "diffused answer 1\n"};
    for (size_t i = 0; i < ARRAY_SIZE(useless); i++) {
        put(c.path, useless[i]);
        at_a_start(*state, NULL);
        file_holds(c.path, text);
    }
    check_done(&c);
    at_a_start("/nonexistent/folder", NULL); /* cannot be kept: no error */
    free(foreign);
    free(damaged);
    free(text);
}

/* --- damage in device memory ------------------------------------------------------------------ */

static void copy_back(const struct gpu_buffer *buffer, uint64_t offset, void *data, size_t size)
{
    struct fault f = {0};

    if (gpu_download(rig.gpu, buffer, offset, data, size, &f) < 0)
        fail_msg("%s", f.text);
}

static void copy_to(const struct gpu_buffer *buffer, uint64_t offset, const void *data, size_t size)
{
    struct fault f = {0};

    if (gpu_upload(rig.gpu, buffer, offset, data, size, &f) < 0)
        fail_msg("%s", f.text);
}

/* One bit of any weight: seen by a running process, and by the next start. */
static void sees_one_bit(void **state)
{
    size_t rounds = rounds_of(8);
    struct check c;

    start(&c, *state);
    passes(&c);
    for (size_t i = 0; i < rig_weights->packed.count; i += rig_weights->packed.count / rounds) {
        const struct weight_place *p = &rig_weights->packed.items[i].place;
        const struct gpu_buffer *buffer = rig_weights->buffers.items[p->buffer];
        uint64_t at = p->offset + (i * 7919) % p->size / 4 * 4;
        uint32_t word;
        copy_back(buffer, at, &word, sizeof word);
        word ^= 1u << i % 32;
        copy_to(buffer, at, &word, sizeof word);
        fails(&c, "the weights in device memory changed");
        word ^= 1u << i % 32;
        copy_to(buffer, at, &word, sizeof word);
        passes(&c);
    }
    check_done(&c);
}

/* Finds a packed weight by the end of its name. */
static const struct packed *find_weight(enum weights_component component, const char *ending)
{
    for (size_t i = 0; i < rig_weights->packed.count; i++) {
        const struct packed *p = &rig_weights->packed.items[i];
        size_t n = strlen(p->key), m = strlen(ending);
        if (p->component == component && n >= m && strcmp(p->key + n - m, ending) == 0)
            return p;
    }
    fail_msg("no weight ends in %s", ending);
    return NULL;
}

/* Garbage before the first answer: no sum to compare with, but the picture tells. */
static void sees_garbage_at_start(void **state)
{
    static const struct {
        enum weights_component component;
        const char *ending, *words;
        uint8_t fill;
    } rows[] = {
        {WEIGHTS_TEXT_ENCODER, "final_layer_norm.weight", "the text encoder's result holds", 0xff},
        {WEIGHTS_UNET, "conv_out.bias", "the U-Net's latents holds", 0xff},
        {WEIGHTS_VAE, "conv_out.bias", "the decoder's picture holds", 0xff},
        {WEIGHTS_VAE, "decoder.conv_out.weight", "the decoder's picture is the same", 0x00},
    };
    struct fault f = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct packed *p = find_weight(rows[i].component, rows[i].ending);
        const struct gpu_buffer *buffer = rig_weights->buffers.items[p->place.buffer];
        uint8_t *old = malloc(p->place.size), *bad = malloc(p->place.size);
        copy_back(buffer, p->place.offset, old, p->place.size);
        memset(bad, rows[i].fill, p->place.size);
        copy_to(buffer, p->place.offset, bad, p->place.size);
        struct check c;
        start(&c, NULL);
        int r = check_run(&c, &f);
        check_done(&c);
        copy_to(buffer, p->place.offset, old, p->place.size);
        free(old);
        free(bad);
        assert_int_equal(r, -EBADMSG);
        if (!strstr(f.text, rows[i].words))
            fail_msg("%s: %s", rows[i].ending, f.text);
    }
    at_a_start(NULL, NULL);
}

/* The zeros that texel reads outside a picture rely on, of the check's own session. */
static void sees_lost_zeros(void **state)
{
    const uint32_t one = 1, zero = 0;
    struct check c;

    (void)state;
    start(&c, NULL);
    passes(&c);
    copy_to(c.pipeline.session->arena, 128, &one, sizeof one);
    fails(&c, "byte 128 of the activations");
    copy_to(c.pipeline.session->arena, 128, &zero, sizeof zero);
    passes(&c);
    check_done(&c);
}

/* A check after sleep needs no memory and makes no kernels. */
static void allocates_once(void **state)
{
    static const enum gpu_call calls[] = {GPU_CALL_ALLOCATE_MEMORY, GPU_CALL_CREATE_PIPELINES};
    uint64_t before[ARRAY_SIZE(calls)];
    struct check c;

    (void)state;
    start(&c, NULL);
    passes(&c);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        before[i] = gpu_call_count(rig.gpu, calls[i]);
    passes(&c);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        assert_int_equal(gpu_call_count(rig.gpu, calls[i]), before[i]);
    check_done(&c);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_setup, folder_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_and_draws_on),   cmocka_unit_test(every_kind_passes),
        cmocka_unit_test(format_is_strict),      IN_FOLDER(keeps_its_answer),
        IN_FOLDER(replaces_useless_answers),     IN_FOLDER(sees_one_bit),
        cmocka_unit_test(sees_garbage_at_start), cmocka_unit_test(sees_lost_zeros),
        cmocka_unit_test(allocates_once),
    };

    return cmocka_run_group_tests_name("check", tests, open_rig, close_rig);
}
