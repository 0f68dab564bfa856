/* A fake engine behind engine.h: it "draws" a gradient that depends on prompt, seed and size only,
 * in milliseconds and without Vulkan, so that everything above the engine can be tested. A picture
 * that starts from another has that one's first red and green everywhere, and with a mask that
 * one's first value as the last pixel's red; a prompt with the word "forbidden" is what the
 * safety checker finds. What a model is like its directory's name says:
 *     …safe…     has a safety checker       …inpaint…  is made for inpainting
 *     …wide…     128 x 64 pixels            …odd…      its configuration cannot be read
 *     …bad…      its weights are bad        …huge…     does not fit the device
 *     …deadly…   kills the process that loads it
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
 *     DIFFUSED_FAKE_WRONG_AT_STEP   the weights are not sound (-EBADMSG) at this step, likewise
 *     DIFFUSED_FAKE_HANG            any value: the first step never ends, and no cancel helps
 *     DIFFUSED_FAKE_HANG_AT_STEP    this step of the first picture never ends, with the same marker
 *     DIFFUSED_FAKE_HANG_LOAD       any value: opening never ends
 *     DIFFUSED_FAKE_CHECK_MSEC      how long the known-answer picture takes; default 0
 *     DIFFUSED_FAKE_WRONG_CHECK     the n-th known-answer picture of the process (1: at its start)
 *                                   comes out wrong, with the same marker
 *     DIFFUSED_FAKE_LOST_CHECK      the device is lost at the n-th one, with the same marker
 *     DIFFUSED_FAKE_CHECK_FAIL      the known-answer picture is wrong, with this text (-EBADMSG)
 *     DIFFUSED_FAKE_WARNING         every run warns with this text
 *     DIFFUSED_FAKE_TELL            any value: every run warns with what it was given */
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
    char *loras; /* directory, or NULL */
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

static bool is_called(const char *model_directory, const char *word)
{
    const char *slash = strrchr(model_directory, '/');

    return strstr(slash ? slash + 1 : model_directory, word) != NULL;
}

int engine_read_context(const char *model_directory, struct request_context *ret_context,
                        struct fault *f)
{
    const char *fail = getenv("DIFFUSED_FAKE_FAIL_CONTEXT");

    if (fail)
        return fault_set(f, -EINVAL, "%s", fail);
    if (is_called(model_directory, "odd"))
        return fault_set(f, -EINVAL, "%s: what is this?", model_directory);
    *ret_context = (struct request_context){.width = is_called(model_directory, "wide") ? 128 : 64,
                                            .height = 64,
                                            .multiple = 8,
                                            .train_steps = 1000,
                                            .scheduler = SCHEDULER_PNDM,
                                            .is_inpainting = is_called(model_directory, "inpaint"),
                                            .has_safety = is_called(model_directory, "safe"),
                                            .text_layers = 12};
    return 0;
}

static _Noreturn void crash(void)
{
    static const struct rlimit no_core = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &no_core); /* the crash is meant */
    (void)signal(SIGABRT, SIG_DFL);
    abort();
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
    if (is_called(model_directory, "bad"))
        return fault_set(f, -EINVAL, "unet: conv_in.weight: want [320,4,3,3]");
    if (is_called(model_directory, "huge"))
        return fault_set(f, -ENOMEM, "the weights need 9 GiB of device memory, there are 2");
    if (is_called(model_directory, "deadly"))
        crash();
    _cleanup_(engine_closep) struct engine *e = calloc(1, sizeof *e);
    if (e)
        e->model = strdup(slash ? slash + 1 : model_directory);
    if (e && options->loras)
        e->loras = strdup(options->loras);
    if (!e || !e->model)
        return fault_set(f, -ENOMEM, "out of memory");
    *ret_engine = TAKE_PTR(e);
    return 0;
}

struct engine *engine_close(struct engine *engine)
{
    if (engine) {
        free(engine->model);
        free(engine->loras);
    }
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
    (void)engine_read_context(engine->model, &ret_info->context, NULL); /* as it was opened */
}

/* FNV-1a, 64 bit. */
static uint64_t hash(const char *text, uint64_t seed)
{
    uint64_t h = 0xcbf29ce484222325u ^ seed;

    for (; text && *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

/* What one run works on. */
struct run {
    const struct request *request;
    const struct engine_inputs *inputs; /* never NULL */
    const struct engine_observer *observer;
    void *userdata;
    struct text_list prompts, negatives;
    uint32_t width, height, steps;
    bool has_safety;
};

static void paint(const struct run *run, uint64_t h, uint8_t *rgb)
{
    const struct engine_raster *image = &run->inputs->image, *mask = &run->inputs->mask;
    uint32_t width = run->width, height = run->height;

    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            uint8_t *p = rgb + ((size_t)y * width + x) * 3;
            p[0] = image->pixels ? image->pixels[0] : (uint8_t)(x * 255 / width);
            p[1] = image->pixels ? image->pixels[1] : (uint8_t)(y * 255 / height);
            p[2] = (uint8_t)h;
        }
    }
    if (mask->pixels)
        rgb[((size_t)width * height - 1) * 3] = mask->pixels[0];
}

static void judge(const struct run *run, struct engine_picture *done, uint8_t *rgb)
{
    const struct request *q = run->request;

    done->is_checked = q->safety != SAFETY_OFF && run->has_safety;
    if (!done->is_checked)
        return;
    done->is_nsfw = strstr(done->prompt, "forbidden") != NULL;
    done->is_blackened = done->is_nsfw && q->safety == SAFETY_BLACK;
    done->score_count = 20;
    for (uint32_t i = 0; i < done->score_count; i++)
        done->scores[i] = done->is_nsfw && i == 5 ? 0.031 : -0.1 - i / 1000.0;
    if (done->is_blackened)
        memset(rgb, 0, (size_t)done->width * done->height * 3);
}

static const char *text_of(const struct text_list *list, size_t index, const char *fallback)
{
    return index < list->count ? list->items[index] : fallback ? fallback : "";
}

static int draw(const struct run *run, uint32_t picture)
{
    const struct request *q = run->request;
    size_t prompt = picture / q->count;
    struct engine_picture done = {.index = picture,
                                  .width = run->width,
                                  .height = run->height,
                                  .seed = q->seed + picture,
                                  .prompt = text_of(&run->prompts, prompt, q->prompt),
                                  .negative_prompt =
                                      text_of(&run->negatives, prompt, q->negative_prompt)};
    _cleanup_(freep) uint8_t *rgb = malloc((size_t)run->width * run->height * 3);

    if (!rgb)
        return -ENOMEM;
    paint(run, hash(done.prompt, done.seed), rgb);
    judge(run, &done, rgb);
    done.rgb = rgb;
    return run->observer->on_picture ? run->observer->on_picture(&done, run->userdata) : 0;
}

/* Eight pixels square, the lighter the later. */
static void preview(const struct run *run, uint32_t picture, uint32_t step)
{
    uint32_t every = run->request->preview_steps;
    uint8_t rgb[8 * 8 * 3];

    if (every == 0 || step % every != 0 || !run->observer->on_preview)
        return;
    memset(rgb, (int)(step * 255 / run->steps), sizeof rgb);
    run->observer->on_preview(picture, step, rgb, 8, 8, run->userdata);
}

static void tell(const struct engine *engine, const struct run *run)
{
    const struct engine_raster *image = &run->inputs->image, *mask = &run->inputs->mask;
    const char *lora = run->request->lora;
    char text[512];

    if (!getenv("DIFFUSED_FAKE_TELL") || !run->observer->on_warning)
        return;
    (void)snprintf(text, sizeof text,
                   "fake: model %s, image %" PRIu32 "x%" PRIu32 ", mask %" PRIu32 "x%" PRIu32
                   ", strength %g, lora %s of %s, prompts %zu",
                   engine->model, image->width, image->height, mask->width, mask->height,
                   run->request->strength, lora && *lora ? lora : "none",
                   engine->loras ? engine->loras : "the model", run->prompts.count);
    run->observer->on_warning(text, run->userdata);
}

static int take_step(struct engine *engine, uint32_t picture, uint32_t step, struct fault *f)
{
    if (getenv("DIFFUSED_FAKE_HANG") ||
        (picture == 0 && is_due("DIFFUSED_FAKE_HANG_AT_STEP", step)))
        hang();
    if (picture == 0 && is_due("DIFFUSED_FAKE_CRASH_AT_STEP", step))
        crash();
    if (picture == 0 && is_due("DIFFUSED_FAKE_LOST_AT_STEP", step))
        return fault_set(f, -EIO, "device lost");
    if (picture == 0 && is_due("DIFFUSED_FAKE_WRONG_AT_STEP", step))
        return fault_set(f, -EBADMSG, "the weights are not what they were");
    sleep_msec(knob("DIFFUSED_FAKE_STEP_MSEC", 0));
    atomic_fetch_add(&engine->submissions, 1);
    return 0;
}

/* As pipelines have it: a size that is the picture's is floored, strength takes its part of the
 * steps, PNDM needs one more. */
static void plan(struct run *run)
{
    const struct request *q = run->request;
    const struct engine_raster *image = &run->inputs->image;
    uint32_t steps = q->steps;

    run->width = q->width ? q->width : image->width / 8 * 8;
    run->height = q->height ? q->height : image->height / 8 * 8;
    if (image->pixels)
        steps = (uint32_t)(steps * q->strength);
    run->steps = q->scheduler == SCHEDULER_PNDM && steps > 1 ? steps + 1 : steps;
}

static int draw_all(struct engine *engine, const struct run *run, struct fault *f)
{
    const struct engine_observer *observer = run->observer;
    uint32_t count = request_picture_count(run->request);
    int r = 0;

    for (uint32_t picture = 0; picture < count && r == 0; picture++) {
        for (uint32_t step = 1; step <= run->steps && r == 0; step++) {
            r = take_step(engine, picture, step, f);
            if (r == 0 && atomic_exchange(&engine->cancelled, false))
                r = fault_set(f, -ECANCELED, "cancelled");
            if (r == 0)
                preview(run, picture, step);
            if (r == 0 && observer->on_step)
                observer->on_step(&(struct engine_step){picture, step, run->steps, 1000.0 - step},
                                  run->userdata);
        }
        if (r == 0)
            r = draw(run, picture);
    }
    return r;
}

int engine_run(struct engine *engine, const struct request *request,
               const struct engine_inputs *inputs, const struct engine_observer *observer,
               void *userdata, struct fault *f)
{
    static const struct engine_inputs none = {0};
    const char *warning = getenv("DIFFUSED_FAKE_WARNING"), *fail = getenv("DIFFUSED_FAKE_FAIL_RUN");
    struct run run = {.request = request,
                      .inputs = inputs ? inputs : &none,
                      .observer = observer,
                      .userdata = userdata,
                      .has_safety = is_called(engine->model, "safe")};

    if (fail)
        return fault_set(f, -ENOMEM, "%s", fail);
    if (warning && observer->on_warning)
        observer->on_warning(warning, userdata);
    if (request_has_image(request) && !run.inputs->image.pixels)
        return fault_set(f, -EINVAL, "image: named, but not given");
    plan(&run);
    int r = request_list(request, &request_rows[REQUEST_prompts], &run.prompts);
    if (r == 0)
        r = request_list(request, &request_rows[REQUEST_negative_prompts], &run.negatives);
    if (r == 0) {
        tell(engine, &run);
        r = draw_all(engine, &run, f);
    }
    text_list_done(&run.prompts);
    text_list_done(&run.negatives);
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
