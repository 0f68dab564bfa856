/* A fake engine behind engine.h: it "draws" a gradient that depends on prompt, seed and size only,
 * in milliseconds and without Vulkan, so that everything above the engine can be tested.
 *
 * Knobs, by environment:
 *     DIFFUSED_FAKE_STEP_MSEC       how long a step takes; default 0
 *     DIFFUSED_FAKE_LOAD_MSEC       how long opening takes; default 0
 *     DIFFUSED_FAKE_FAIL_OPEN       opening fails with this text (-EINVAL)
 *     DIFFUSED_FAKE_FAIL_CONTEXT    reading the configuration fails with this text (-EINVAL)
 *     DIFFUSED_FAKE_FAIL_RUN        every run fails with this text (-ENOMEM)
 *     DIFFUSED_FAKE_CRASH_AT_STEP   abort() at this step of the first picture …
 *     DIFFUSED_FAKE_CRASH_MARKER    … only if this file does not exist yet; it is made just before
 *     DIFFUSED_FAKE_LOST_AT_STEP    the device is lost (-EIO) at this step, with the same marker
 *     DIFFUSED_FAKE_HANG            any value: the first step never ends, and no cancel helps
 *     DIFFUSED_FAKE_HANG_AT_STEP    this step of the first picture never ends, with the same marker
 *     DIFFUSED_FAKE_HANG_LOAD       any value: opening never ends
 *     DIFFUSED_FAKE_CHECK_MSEC      how long the known-answer picture takes; default 0
 *     DIFFUSED_FAKE_WRONG_CHECK     the n-th known-answer picture of the process (1: at its start)
 *                                   comes out wrong, with the same marker
 *     DIFFUSED_FAKE_LOST_CHECK      the device is lost at the n-th one, with the same marker
 *     DIFFUSED_FAKE_CHECK_FAIL      the known-answer picture is wrong, with this text (-EBADMSG)
 *     DIFFUSED_FAKE_WARNING         every run warns with this text */
#include "vk/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "vk/tools.h"

struct engine {
    char *model; /* base name */
    atomic_bool cancelled;
    atomic_uint_fast64_t submissions;
    uint32_t checks;
};

static long knob(const char *name, long fallback)
{
    const char *text = getenv(name);

    return text ? strtol(text, NULL, 10) : fallback;
}

static void sleep_msec(long msec)
{
    struct timespec t = {msec / 1000, msec % 1000 * 1000000};

    while (msec > 0 && nanosleep(&t, &t) < 0 && errno == EINTR)
        continue;
}

static _Noreturn void hang(void)
{
    for (;;)
        sleep_msec(1000);
}

/* Whether a knob that should bite at `step` bites now; with a marker file only the first time. */
static bool is_due(const char *name, uint32_t step)
{
    const char *marker = getenv("DIFFUSED_FAKE_CRASH_MARKER");

    if (knob(name, 0) != (long)step)
        return false;
    if (!marker)
        return true;
    _cleanup_(closep) int fd = open(marker, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    return fd >= 0;
}

int engine_read_context(const char *model_directory, struct request_context *ret_context,
                        struct fault *f)
{
    const char *fail = getenv("DIFFUSED_FAKE_FAIL_CONTEXT");

    (void)model_directory;
    if (fail)
        return fault_set(f, -EINVAL, "%s", fail);
    *ret_context = (struct request_context){
        .width = 64, .height = 64, .multiple = 8, .train_steps = 1000, .scheduler = SCHEDULER_PNDM};
    return 0;
}

int engine_open(const char *model_directory, const struct engine_options *options,
                struct engine **ret_engine, struct fault *f)
{
    const char *fail = getenv("DIFFUSED_FAKE_FAIL_OPEN");
    const char *slash = strrchr(model_directory, '/');
    long msec = knob("DIFFUSED_FAKE_LOAD_MSEC", 0);

    for (int i = 0; i <= 10; i++) {
        if (options->on_load)
            options->on_load(i / 10.0, options->userdata);
        sleep_msec(msec / 10);
    }
    if (getenv("DIFFUSED_FAKE_HANG_LOAD"))
        hang();
    if (fail)
        return fault_set(f, -EINVAL, "%s", fail);
    _cleanup_(engine_closep) struct engine *e = calloc(1, sizeof *e);
    if (e)
        e->model = strdup(slash ? slash + 1 : model_directory);
    if (!e || !e->model)
        return fault_set(f, -ENOMEM, "out of memory");
    *ret_engine = TAKE_PTR(e);
    return 0;
}

struct engine *engine_close(struct engine *engine)
{
    if (engine)
        free(engine->model);
    free(engine);
    return NULL;
}

void engine_get_info(const struct engine *engine, struct engine_info *ret_info)
{
    *ret_info = (struct engine_info){
        .device = "Fake device",
        .device_node = "/dev/dri/fake",
        .driver = "fake 1.0",
        .is_cpu = true,
        .model = engine->model,
        .model_hash = "fa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4e",
        .memory_used = 1 << 20,
        .memory_total = 1 << 24,
    };
    (void)engine_read_context("", &ret_info->context, NULL); /* the device stays as it was opened */
}

/* FNV-1a, 64 bit. */
static uint64_t hash(const char *text, uint64_t seed)
{
    uint64_t h = 0xcbf29ce484222325u ^ seed;

    for (; text && *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

static int draw(const struct request *q, uint32_t picture, const struct engine_observer *observer,
                void *userdata)
{
    uint64_t seed = q->seed + picture, h = hash(q->prompt, seed);
    _cleanup_(freep) uint8_t *rgb = malloc((size_t)q->width * q->height * 3);

    if (!rgb)
        return -ENOMEM;
    for (uint32_t y = 0; y < q->height; y++) {
        for (uint32_t x = 0; x < q->width; x++) {
            uint8_t *p = rgb + ((size_t)y * q->width + x) * 3;
            p[0] = (uint8_t)(x * 255 / q->width);
            p[1] = (uint8_t)(y * 255 / q->height);
            p[2] = (uint8_t)h;
        }
    }
    struct engine_picture done = {.index = picture,
                                  .rgb = rgb,
                                  .width = q->width,
                                  .height = q->height,
                                  .seed = seed,
                                  .prompt = q->prompt ? q->prompt : "",
                                  .negative_prompt = q->negative_prompt ? q->negative_prompt : ""};
    return observer->on_picture ? observer->on_picture(&done, userdata) : 0;
}

static int take_step(struct engine *engine, uint32_t picture, uint32_t step, struct fault *f)
{
    static const struct rlimit no_core = {0, 0};

    if (getenv("DIFFUSED_FAKE_HANG") ||
        (picture == 0 && is_due("DIFFUSED_FAKE_HANG_AT_STEP", step)))
        hang();
    if (picture == 0 && is_due("DIFFUSED_FAKE_CRASH_AT_STEP", step)) {
        (void)setrlimit(RLIMIT_CORE, &no_core); /* the crash is meant */
        (void)signal(SIGABRT, SIG_DFL);
        abort();
    }
    if (picture == 0 && is_due("DIFFUSED_FAKE_LOST_AT_STEP", step))
        return fault_set(f, -EIO, "device lost");
    sleep_msec(knob("DIFFUSED_FAKE_STEP_MSEC", 0));
    atomic_fetch_add(&engine->submissions, 1);
    return 0;
}

int engine_run(struct engine *engine, const struct request *request,
               const struct engine_inputs *inputs, const struct engine_observer *observer,
               void *userdata, struct fault *f)
{
    const char *warning = getenv("DIFFUSED_FAKE_WARNING"), *fail = getenv("DIFFUSED_FAKE_FAIL_RUN");
    /* as PNDM has it */
    bool is_pndm = request->scheduler == SCHEDULER_PNDM && request->steps > 1;
    uint32_t steps = request->steps + is_pndm;
    int r = 0;

    (void)inputs;
    if (fail)
        return fault_set(f, -ENOMEM, "%s", fail);
    if (warning && observer->on_warning)
        observer->on_warning(warning, userdata);
    for (uint32_t picture = 0; picture < request->count && r == 0; picture++) {
        for (uint32_t step = 1; step <= steps && r == 0; step++) {
            r = take_step(engine, picture, step, f);
            if (r == 0 && atomic_exchange(&engine->cancelled, false))
                r = fault_set(f, -ECANCELED, "cancelled");
            if (r == 0 && observer->on_step)
                observer->on_step(&(struct engine_step){picture, step, steps, 1000.0 - step},
                                  userdata);
        }
        if (r == 0)
            r = draw(request, picture, observer, userdata);
    }
    return r;
}

int engine_check(struct engine *engine, struct fault *f)
{
    const char *fail = getenv("DIFFUSED_FAKE_CHECK_FAIL");

    engine->checks++;
    sleep_msec(knob("DIFFUSED_FAKE_CHECK_MSEC", 0));
    atomic_fetch_add(&engine->submissions, 1);
    if (fail)
        return fault_set(f, -EBADMSG, "%s", fail);
    if (is_due("DIFFUSED_FAKE_WRONG_CHECK", engine->checks))
        return fault_set(f, -EBADMSG, "the known picture came out wrong");
    return is_due("DIFFUSED_FAKE_LOST_CHECK", engine->checks) ? fault_set(f, -EIO, "device lost")
                                                              : 0;
}

void engine_cancel(struct engine *engine)
{
    atomic_store(&engine->cancelled, true);
}

uint64_t engine_progress(const struct engine *engine)
{
    return atomic_load(&engine->submissions);
}

/* --- tools.h ---------------------------------------------------------------------------------- */

int tools_probe(FILE *out, bool json, struct fault *f)
{
    (void)f;
    (void)fputs(json ? "{\"devices\": [{\"name\": \"Fake device\", \"node\": \"/dev/dri/fake\", "
                       "\"driver\": \"fake 1.0\", \"type\": \"cpu\", \"memory\": 16777216, "
                       "\"chosen\": true}]}\n"
                     : "* Fake device  /dev/dri/fake  fake 1.0  cpu  16 MiB\n",
                out);
    return 0;
}

int tools_bench(const struct tools_options *options, FILE *out, struct fault *f)
{
    (void)f;
    (void)fprintf(out, options->json ? "{\"model\": \"%s\", \"shapes\": []}\n" : "bench of %s\n",
                  options->model);
    return 0;
}

int tools_explain(const struct tools_options *options, FILE *out, struct fault *f)
{
    (void)f;
    (void)fprintf(out,
                  options->json ? "{\"model\": \"%s\", \"width\": %" PRIu32 ", \"height\": %" PRIu32
                                  "}\n"
                                : "%s at %" PRIu32 "x%" PRIu32 "\n",
                  options->model, options->width, options->height);
    return 0;
}
