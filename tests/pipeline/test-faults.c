/* The n-th Vulkan call fails, for every n of a whole picture: opening the model, drawing, drawing
 * in another size, checking. Out of host or device memory, once or from then on; a lost device.
 *
 * Each trial: the fault is told with the right errno and names the call; nothing stays behind
 * (all Vulkan objects are counted, all device bytes); after a lack of memory the same engine
 * draws the picture it should, bit by bit; after a loss the engine refuses, closes, and a new
 * one draws.
 *
 * Without FULL=1 the calls that a picture makes by the hundred (descriptor sets, views) are
 * sampled, see is_chosen(); everything else is exhaustive in both. Device and pipelines are kept
 * between trials (support/vulkan_faults.h): what fails is the call, never the driver. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/folder.h"
#include "tests/support/must.h"
#include "tests/support/vulkan_faults.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"
#include "vk/engine.h"

#define MODEL "tests/golden/models/two"

/* --- a model whose own pictures are tiny: trials are about calls, not pixels ----------------- */

static char *folder, model[512];

static int link_in(const char *name)
{
    char from[PATH_MAX], to[PATH_MAX * 2];

    if (!realpath(MODEL, from) || snprintf(to, sizeof to, "%s/%s", from, name) >= (int)sizeof to ||
        snprintf(from, sizeof from, "%s/%s", folder, name) >= (int)sizeof from)
        return -1;
    return symlink(to, from);
}

static int write_config(void)
{
    static const char key[] = "\"sample_size\": ";
    _cleanup_(freep) char *text = NULL, *changed = NULL;
    char path[600];
    size_t size;

    if (file_read(MODEL "/unet/config.json", 65536, &text, &size, NULL) < 0)
        return -1;
    char *at = strstr(text, key);
    if (!at)
        return -1;
    *at = '\0';
    if (asprintf(&changed, "%s%s4%s", text, key,
                 at + strcspn(at + sizeof key, ",}\n") + sizeof key) < 0)
        return -1;
    (void)snprintf(path, sizeof path, "%s/unet/config.json", folder);
    return file_write_atomic(path, changed, strlen(changed), NULL);
}

static int make_model(void)
{
    static const char *const names[] = {"text_encoder", "vae", "tokenizer", "scheduler",
                                        "unet/diffusion_pytorch_model.safetensors"};
    char path[600];

    if (folder_setup((void **)&folder) < 0)
        return -1;
    (void)snprintf(model, sizeof model, "%s", folder);
    (void)snprintf(path, sizeof path, "%s/unet", folder);
    int r = mkdir(path, 0755);
    for (size_t i = 0; i < ARRAY_SIZE(names) && r == 0; i++)
        r = link_in(names[i]);
    return r < 0 ? r : write_config();
}

/* --- one engine, one picture ------------------------------------------------------------------ */

enum size {
    SIZE_MODEL,
    SIZE_OTHER,
    SIZE_COUNT,
};

static const uint32_t sides[SIZE_COUNT] = {8, 16};
static char right[SIZE_COUNT][SHA256_HEX_SIZE]; /* the pictures, without faults */
static uint64_t right_used[SIZE_COUNT];         /* device bytes after each */
static uint64_t check_used;                     /* what a check adds, once */

static int open_engine(struct engine **ret, struct fault *f)
{
    const struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};

    return engine_open(model, &options, ret, f);
}

static int keep_digest(const struct engine_picture *p, void *userdata)
{
    sha256_hex(p->rgb, (size_t)3 * p->width * p->height, userdata);
    return 0;
}

static int draw(struct engine *e, enum size size, char ret_digest[SHA256_HEX_SIZE], struct fault *f)
{
    static const struct engine_observer observer = {.on_picture = keep_digest};
    char prompt[] = "a fox";
    const struct request q = {.prompt = prompt,
                              .width = sides[size],
                              .height = sides[size],
                              .steps = 2,
                              .guidance_scale = 3,
                              .seed = 9,
                              .count = 1,
                              .scheduler = SCHEDULER_DDIM};

    ret_digest[0] = '\0';
    return engine_run(e, &q, NULL, &observer, ret_digest, f);
}

static uint64_t used(const struct engine *e)
{
    struct engine_info info;

    engine_get_info(e, &info);
    return info.memory_used;
}

/* --- what is tried ---------------------------------------------------------------------------- */

/* The part of an engine's life in which calls fail; before it all is well. */
enum phase {
    PHASE_OPEN, /* and the first picture */
    PHASE_SIZE, /* a picture of another size */
    PHASE_CHECK,
    PHASE_COUNT,
};

static const char *const phase_names[PHASE_COUNT] = {"open and draw", "another size", "check"};

struct trial {
    enum phase phase;
    struct vulkan_fault_plan plan;
    const char *call; /* the one to fail, as the clean run had it */
};

static void wrong(const struct trial *t, const char *what, const char *detail)
{
    fail_msg("%s, call %lu (%s) %s%s: %s: %s", phase_names[t->phase], (unsigned long)t->plan.nth,
             t->call, vulkan_fault_to_string(t->plan.fault), t->plan.sticky ? " and after" : "",
             what, detail);
}

/* Does the text name what failed? Memory is named by what it was for. */
static bool names_cause(const struct fault *f, const char *call)
{
    static const char *const memory[] = {"vkAllocateMemory", "vkCreateBuffer",
                                         "vkBindBufferMemory"};

    for (size_t i = 0; i < ARRAY_SIZE(memory); i++)
        if (strcmp(call, memory[i]) == 0 && strstr(f->text, "not enough device memory: "))
            return true;
    return strstr(f->text, call) != NULL;
}

/* `r` is what the engine said while calls failed. */
static void check_words(const struct trial *t, int r, const struct fault *f)
{
    int want = t->plan.fault == VULKAN_DEVICE_LOST ? -EIO : -ENOMEM;
    char text[64];

    if (r >= 0)
        return;
    (void)snprintf(text, sizeof text, "%d", r);
    if (r != want || f->err != want)
        wrong(t, "errno", f->text);
    if (!t->plan.sticky && !names_cause(f, vulkan_faults_hit()))
        wrong(t, "the text does not name the call", f->text);
    if (strchr(f->text, '\n') || !f->text[0])
        wrong(t, "no text of one line", f->text);
}

static void must_draw(const struct trial *t, struct engine *e, enum size size)
{
    char digest[SHA256_HEX_SIZE];
    struct fault f = {0};

    if (draw(e, size, digest, &f) < 0)
        wrong(t, "the next picture", f.text);
    if (strcmp(digest, right[size]) != 0)
        wrong(t, "the next picture differs", digest);
    if (used(e) != right_used[size] &&
        (t->phase != PHASE_CHECK || used(e) != right_used[size] + check_used))
        wrong(t, "device memory", "is not what this picture takes");
}

/* The phase itself; an engine that was opened is the caller's in every case. */
static int live(const struct trial *t, struct engine **e, struct fault *f)
{
    char digest[SHA256_HEX_SIZE];
    int r = *e ? 0 : open_engine(e, f);

    if (r < 0)
        return r;
    if (t->phase == PHASE_CHECK)
        return engine_check(*e, f);
    enum size size = t->phase == PHASE_SIZE ? SIZE_OTHER : SIZE_MODEL;
    r = draw(*e, size, digest, f);
    if (r >= 0 && strcmp(digest, right[size]) != 0)
        wrong(t, "a picture that differs", "and no error");
    return r;
}

static struct engine *begin(enum phase phase)
{
    struct engine *e = NULL;
    struct fault f = {0};
    char digest[SHA256_HEX_SIZE];

    if (phase == PHASE_OPEN)
        return NULL;
    if (open_engine(&e, &f) < 0 || draw(e, SIZE_MODEL, digest, &f) < 0)
        fail_msg("%s", f.text);
    return e;
}

static int64_t alive_before; /* 0, unless a test failed and left something */

static void none_alive(const struct trial *t)
{
    const char *kind;

    if (vulkan_faults_alive(&kind) != alive_before)
        wrong(t, "left behind", kind);
}

static void after_loss(const struct trial *t, struct engine *e)
{
    char digest[SHA256_HEX_SIZE];
    struct fault f = {0};

    if (e && draw(e, SIZE_MODEL, digest, &f) != -EIO)
        wrong(t, "a lost device draws on", f.text);
    (void)engine_close(e);
    none_alive(t);
    vulkan_faults_disarm();
    e = begin(PHASE_SIZE);
    must_draw(t, e, SIZE_MODEL);
    (void)engine_close(e);
}

static void run_trial(const struct trial *t)
{
    struct engine *e = begin(t->phase);
    struct fault f = {0};

    vulkan_faults_arm(&t->plan);
    int r = live(t, &e, &f);
    if (!vulkan_faults_hit())
        wrong(t, "the call did not come", "");
    check_words(t, r, &f);
    if (t->plan.fault == VULKAN_DEVICE_LOST) {
        after_loss(t, e);
        return;
    }
    vulkan_faults_disarm();
    if (e) {
        must_draw(t, e, SIZE_MODEL);
        f = (struct fault){0};
        if (t->phase == PHASE_CHECK && engine_check(e, &f) < 0)
            wrong(t, "the next check", f.text);
    }
    (void)engine_close(e);
    none_alive(t);
}

/* --- all of them ------------------------------------------------------------------------------ */

/* The calls of a phase when nothing fails, for a plan's kind of fault. */
static uint64_t count_calls(enum phase phase, enum vulkan_fault fault, char (**ret_names)[40])
{
    const struct trial t = {.phase = phase, .plan = {.fault = fault}};
    struct engine *e = begin(phase);
    struct fault f = {0};

    vulkan_faults_arm(&t.plan);
    if (live(&t, &e, &f) < 0)
        fail_msg("%s", f.text);
    uint64_t n = vulkan_faults_calls();
    *ret_names = calloc(n + 1, sizeof **ret_names);
    assert_non_null(*ret_names);
    for (uint64_t i = 1; i <= n; i++)
        (void)snprintf((*ret_names)[i], sizeof **ret_names, "%s", vulkan_faults_name(i));
    vulkan_faults_disarm();
    (void)engine_close(e);
    return n;
}

/* With FULL all; else the first of each name and every `stride`-th of the others. */
static bool is_chosen(char (*names)[40], uint64_t nth, bool sticky)
{
    uint64_t first = sticky ? 1 : 3, stride = sticky ? 64 : 32, before = 0;

    if (is_slow_device()) {
        first = 1;
        stride = 128;
    }
    for (uint64_t i = 1; i < nth; i++)
        before += strcmp(names[i], names[nth]) == 0;
    return getenv("FULL") || before < first || before % stride == 0;
}

static void every_call_fails(enum phase phase, enum vulkan_fault fault, bool sticky)
{
    uint64_t tried = 0;
    char(*names)[40];
    const char *kind;

    if (phase != PHASE_OPEN && is_slow_device()) {
        (void)printf("the calls are the faster driver's, tried there\n");
        skip();
    }
    vulkan_faults_disarm(); /* whatever a failed test left */
    alive_before = vulkan_faults_alive(&kind);
    uint64_t n = count_calls(phase, fault, &names);

    for (uint64_t nth = 1; nth <= n; nth++) {
        const struct trial t = {phase, {nth, fault, sticky}, names[nth]};
        if (!is_chosen(names, nth, sticky))
            continue;
        run_trial(&t);
        tried++;
    }
    (void)printf("%s, %s%s: %lu of %lu calls\n", phase_names[phase], vulkan_fault_to_string(fault),
                 sticky ? " from then on" : "", (unsigned long)tried, (unsigned long)n);
    free(names);
}

static void host_memory_once(void **state)
{
    every_call_fails(*(enum phase *)*state, VULKAN_OUT_OF_HOST_MEMORY, false);
}

static void host_memory_for_good(void **state)
{
    every_call_fails(*(enum phase *)*state, VULKAN_OUT_OF_HOST_MEMORY, true);
}

static void device_memory_once(void **state)
{
    every_call_fails(*(enum phase *)*state, VULKAN_OUT_OF_DEVICE_MEMORY, false);
}

static void device_memory_for_good(void **state)
{
    every_call_fails(*(enum phase *)*state, VULKAN_OUT_OF_DEVICE_MEMORY, true);
}

static void device_lost(void **state)
{
    every_call_fails(*(enum phase *)*state, VULKAN_DEVICE_LOST, false);
}

static int setup(void **state)
{
    struct engine *e = NULL;
    struct fault f = {0};
    int r;

    (void)state;
    if (make_model() < 0) {
        perror(MODEL);
        return -1;
    }
    vulkan_faults_keep_device(true);
    r = open_engine(&e, &f);
    for (int size = SIZE_COUNT - 1; size >= 0 && r >= 0; size--) {
        r = draw(e, (enum size)size, right[size], &f);
        right_used[size] = r < 0 ? 0 : used(e);
    }
    if (r >= 0)
        r = engine_check(e, &f);
    check_used = r < 0 ? 0 : used(e) - right_used[SIZE_MODEL];
    (void)engine_close(e);
    if (r < 0)
        (void)fprintf(stderr, "%s\n", f.text);
    return r;
}

static int teardown(void **state)
{
    (void)state;
    vulkan_faults_keep_device(false);
    return folder_teardown((void **)&folder);
}

int main(void)
{
    static enum phase phases[PHASE_COUNT] = {PHASE_OPEN, PHASE_SIZE, PHASE_CHECK};
#define IN_PHASE(test, phase) cmocka_unit_test_prestate(test, &phases[phase])
#define ALL_IN(phase)                                                                              \
    IN_PHASE(host_memory_once, phase), IN_PHASE(host_memory_for_good, phase),                      \
        IN_PHASE(device_memory_once, phase), IN_PHASE(device_memory_for_good, phase),              \
        IN_PHASE(device_lost, phase)
    const struct CMUnitTest tests[] = {ALL_IN(PHASE_OPEN), ALL_IN(PHASE_SIZE), ALL_IN(PHASE_CHECK)};

    return cmocka_run_group_tests_name("faults", tests, setup, teardown);
}
