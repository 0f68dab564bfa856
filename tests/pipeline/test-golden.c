/* Whole runs against the reference: every ticket of tests/golden/cases. Tokens equal, noise within
 * 2e-6, text 2e-3, latents 5e-3 at the first step and 1e-2 at the last, pictures at least 45 dB. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/picture.h"
#include "tests/support/golden.h"
#include "tests/support/must.h"
#include "vk/base/file.h"
#include "vk/engine.h"

#define CASES "tests/golden/cases/"
#define TEXTS "tests/golden/texts/"

/* The engine of the model last used: cases come sorted by model. */
static struct engine *engine;
static char engine_model[256];

struct check {
    const struct golden *golden;
    size_t compared;
    uint32_t last_step;
    char worst[64], trouble[256];
    double text, first, last, psnr;
};

static void trouble(struct check *c, const char *name, double got, double limit)
{
    if (!c->trouble[0])
        (void)snprintf(c->trouble, sizeof c->trouble, "%s: %.3e, limit %.3e", name, got, limit);
}

static void check_error(struct check *c, const char *name, const float *got,
                        const struct golden_tensor *want, double limit, double *worst)
{
    double error = golden_relative_l2(got, want->f32, want->count);

    if (error > *worst)
        *worst = error;
    if (!(error <= limit))
        trouble(c, name, error, limit);
}

static void check_tokens(struct check *c, const struct engine_tensor *t,
                         const struct golden_tensor *want)
{
    if (memcmp(t->data, want->i32, want->count * sizeof(int32_t)) != 0)
        trouble(c, "tokens", 1, 0);
}

static void check_noise(struct check *c, const float *got, const struct golden_tensor *want)
{
    for (size_t i = 0; i < want->count; i++) {
        double d = fabs((double)got[i] - want->f32[i]);
        if (!(d <= 2e-6 * fmax(1, fabs(want->f32[i]))))
            trouble(c, "noise", d, 2e-6);
    }
}

static void on_tensor(uint32_t picture, const struct engine_tensor *t, void *userdata)
{
    struct check *c = userdata;
    char name[64];
    bool is_first = strcmp(t->name, "latents.000") == 0;

    if (picture)
        (void)snprintf(name, sizeof name, "%u.%s", picture, t->name);
    else
        (void)snprintf(name, sizeof name, "%s", t->name);
    const struct golden_tensor *want = golden_find(c->golden, name);
    if (!want)
        return; /* goldens hold a few of the steps */
    for (uint32_t i = 0; i < t->rank; i++) {
        if (want->rank != t->rank || want->dims[i] != t->dims[i]) {
            trouble(c, name, t->dims[i], want->dims[i]);
            return;
        }
    }
    c->compared++;
    if (strcmp(t->name, "tokens") == 0)
        check_tokens(c, t, want);
    else if (strcmp(t->name, "noise") == 0)
        check_noise(c, t->data, want);
    else if (strcmp(t->name, "text") == 0)
        check_error(c, name, t->data, want, 2e-3, &c->text);
    else if (strcmp(t->name, "original") == 0)
        check_error(c, name, t->data, want, 5e-3, &c->first);
    else if (strncmp(t->name, "latents.", 8) == 0)
        check_error(c, name, t->data, want, is_first ? 5e-3 : 1e-2,
                    is_first ? &c->first : &c->last);
    else {
        double psnr = golden_psnr(t->data, want->f32, want->count);
        if (psnr < c->psnr)
            c->psnr = psnr;
        if (!(psnr >= 45))
            trouble(c, name, psnr, 45);
    }
}

/* The ticket's [golden] model. */
static void model_directory(const char *text, char *ret, size_t size)
{
    const char *p = strstr(text, "model");
    char name[64] = "";

    assert_non_null(strstr(text, "[golden]"));
    p = strstr(strstr(text, "[golden]"), "model");
    assert_non_null(p);
    assert_int_equal(sscanf(p, "model = %63s", name), 1);
    if (strcmp(name, "demo") == 0)
        (void)snprintf(ret, size, "packaging/demo-model");
    else
        (void)snprintf(ret, size, "tests/golden/models/%s", name);
}

static void need_engine(const char *directory)
{
    struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};
    struct fault f = {0};

    if (engine && strcmp(directory, engine_model) == 0)
        return;
    engine = engine_close(engine);
    if (engine_open(directory, &options, &engine, &f) < 0)
        fail_msg("%s", f.text);
    (void)snprintf(engine_model, sizeof engine_model, "%s", directory);
}

static void read_case(const char *path, struct request *ret_request, char *directory, size_t size)
{
    static const char *const ignored[] = {"golden", NULL};
    struct request_context context;
    struct fault f = {0};
    char *text = NULL;
    size_t length = 0;

    if (file_read(path, 65536, &text, &length, &f) < 0)
        fail_msg("%s", f.text);
    model_directory(text, directory, size);
    if (request_parse_ticket(text, length, ignored, ret_request, &f) < 0 ||
        engine_read_context(directory, &context, &f) < 0 ||
        request_complete(ret_request, NULL, &context, &f) < 0 ||
        request_check(ret_request, &context, &f) < 0)
        fail_msg("%s: %s", path, f.text);
    free(text);
}

/* A picture beside the ticket. */
static struct engine_raster read_picture(const char *row, const char *name, struct picture *picture)
{
    struct fault f = {0};
    char path[512], *data = NULL;
    size_t size = 0;

    (void)snprintf(path, sizeof path, CASES "%s", name);
    if (file_read(path, PICTURE_FILE_MAX, &data, &size, &f) < 0 ||
        picture_decode(row, data, size, picture, &f) < 0)
        fail_msg("%s: %s", path, f.text);
    free(data);
    return (struct engine_raster){.pixels = picture->pixels,
                                  .width = picture->width,
                                  .height = picture->height,
                                  .channels = 3};
}

/* What a slow device leaves out: the demo model, runs of more than ten steps, and of the many that
 * differ in numbers computed on the host all but a few: these use every graph and every plane of
 * the state. */
static bool is_long(const char *path, const char *directory, const struct request *request)
{
    static const char *const few[] = {"-stream-", "inpaint-euler-a", "texts/chunk.ini",
                                      "texts/words", "texts/skip-1"};

    if (strcmp(directory, "packaging/demo-model") == 0 || request->steps > 10)
        return true;
    if (!strstr(path, "/run-") && !strstr(path, "/texts/"))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(few); i++)
        if (strstr(path, few[i]))
            return false;
    return true;
}

static void test_case(void **state)
{
    static const struct engine_observer observer = {.on_tensor = on_tensor};
    const char *path = *state;
    struct request request = {0};
    struct check c = {.psnr = 200};
    struct picture image = {0}, mask = {0};
    struct engine_inputs inputs = {0};
    struct fault f = {0};
    char directory[256], data[512];

    read_case(path, &request, directory, sizeof directory);
    if (is_slow_device() && is_long(path, directory, &request)) {
        request_done(&request);
        (void)printf("%s: DIFFUSED_SLOW_DEVICE is set\n", path);
        skip();
    }
    (void)snprintf(data, sizeof data, "%.*s.safetensors", (int)strlen(path) - 4, path);
    struct golden *golden = golden_open(data);
    assert_non_null(golden);
    c.golden = golden;
    if (request_has_image(&request))
        inputs.image = read_picture("image", request.image, &image);
    if (request_has_mask(&request))
        inputs.mask = read_picture("mask", request.mask, &mask);
    need_engine(directory);
    if (engine_run(engine, &request, &inputs, &observer, &c, &f) < 0)
        fail_msg("%s: %s", path, f.text);
    (void)printf("%s: text %.1e, first %.1e, last %.1e, picture %.1f dB\n",
                 path + strlen("tests/golden/"), c.text, c.first, c.last, c.psnr);
    assert_int_equal(c.compared, golden_count(golden)); /* nothing stored was left out */
    if (c.trouble[0])
        fail_msg("%s: %s", path, c.trouble);
    golden_free(golden);
    picture_done(&image);
    picture_done(&mask);
    request_done(&request);
}

/* With an argument: only the cases whose names hold it. */
int main(int argc, char **argv)
{
    struct CMUnitTest tests[256];
    glob_t found;
    size_t n = 0;

    if (glob(CASES "*.ini", 0, NULL, &found) != 0 ||
        glob(TEXTS "*.ini", GLOB_APPEND, NULL, &found) != 0) {
        (void)fprintf(stderr, CASES ", " TEXTS ": no cases\n");
        return 1;
    }
    for (size_t i = 0; i < found.gl_pathc && n < ARRAY_SIZE(tests); i++) {
        char *path = found.gl_pathv[i];
        if (argc < 2 || strstr(path, argv[1]))
            tests[n++] =
                (struct CMUnitTest){.name = path, .test_func = test_case, .initial_state = path};
    }
    int failed = _cmocka_run_group_tests("golden", tests, n, NULL, NULL);
    engine = engine_close(engine);
    globfree(&found);
    return failed;
}
