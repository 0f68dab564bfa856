#include "vk/pipeline/pipeline.h"

#include <errno.h>
#include <string.h>

#include "vk/pipeline/decode.h"
#include "vk/pipeline/image.h"
#include "vk/pipeline/lora.h"
#include "vk/pipeline/run.h"
#include "vk/pipeline/safety.h"

static void run_done(struct run *run)
{
    prompts_done(&run->prompts);
    sched_table_done(&run->table);
    free(run->latents);
    free(run->moments);
    free(run->masked);
    free(run->original);
    free(run->mask);
    free(run->image);
    free(run->bytes);
}

/* --- what the stages share -------------------------------------------------------------------- */

static void report(const struct run *run, uint32_t picture, const struct engine_tensor *t)
{
    if (run->observer->on_tensor)
        run->observer->on_tensor(picture, t, run->userdata);
}

void run_report_latents(const struct run *run, uint32_t picture, const char *name,
                        const float *data)
{
    const struct session_layout *l = &run->session->layout;

    report(run, picture,
           &(struct engine_tensor){.name = name,
                                   .element = ENGINE_ELEMENT_F32,
                                   .rank = 3,
                                   .dims = {run_channels(run), l->latent_height, l->latent_width},
                                   .data = data});
}

void run_warn(const struct run *run, const char *text)
{
    if (run->observer->on_warning)
        run->observer->on_warning(text, run->userdata);
}

static uint64_t state_offset(const struct run *run, uint32_t group)
{
    return run->session->layout.state.offset + group * run_latents(run) * sizeof(float);
}

int run_write_state(const struct run *run, uint32_t group, const float *values, size_t count,
                    struct fault *f)
{
    return gpu_upload(run->p->gpu, run->session->arena, state_offset(run, group), values,
                      count * sizeof *values, f);
}

int run_read_state(const struct run *run, uint32_t group, float *ret_values, struct fault *f)
{
    return gpu_download(run->p->gpu, run->session->arena, state_offset(run, group), ret_values,
                        run_latents(run) * sizeof *ret_values, f);
}

/* --- latents to picture ----------------------------------------------------------------------- */

static void report_image(const struct run *run, uint32_t picture)
{
    report(run, picture,
           &(struct engine_tensor){.name = "image",
                                   .element = ENGINE_ELEMENT_F32,
                                   .rank = 3,
                                   .dims = {run->height, run->width, 3},
                                   .data = run->image});
}

/* Asks the safety checker, and makes the picture black where that is wanted. */
static int judge(const struct run *run, struct engine_picture *done, struct fault *f)
{
    struct engine_raster raster = {
        .pixels = run->bytes, .width = run->width, .height = run->height, .channels = 3};
    struct safety_result result = {0};

    if (run->request->safety == SAFETY_OFF)
        return 0;
    int r = safety_check(run->p->safety, &raster, run->cancel, &result, f);
    if (r < 0)
        return fault_prefix(f, r, "safety checker");
    done->is_checked = true;
    done->is_nsfw = result.is_nsfw;
    done->is_blackened = result.is_nsfw && run->request->safety == SAFETY_BLACK;
    done->score_count = result.special_count + result.concept_count;
    memcpy(done->scores, result.scores, done->score_count * sizeof *done->scores);
    if (done->is_blackened)
        memset(run->bytes, 0, (size_t)3 * run->width * run->height);
    return 0;
}

static int hand_over(const struct run *run, uint32_t picture, struct fault *f)
{
    uint32_t prompt = picture / run->request->count;
    struct engine_picture done = {.index = picture,
                                  .rgb = run->bytes,
                                  .width = run->width,
                                  .height = run->height,
                                  .seed = run->request->seed + picture,
                                  .prompt = run->prompts.positive[prompt].text,
                                  .negative_prompt = prompts_negative(&run->prompts, prompt)->text};
    int r = judge(run, &done, f);

    if (r < 0 || !run->observer->on_picture)
        return r;
    r = run->observer->on_picture(&done, run->userdata);
    return r < 0 ? fault_set(f, r, "picture %u: %s", picture, strerror(-r)) : 0;
}

static int decode(const struct run *run, uint32_t picture, struct fault *f)
{
    size_t pixels = (size_t)run->width * run->height;
    int r = decode_picture(run->p, run->image, run->cancel, f);

    if (r < 0)
        return r;
    report_image(run, picture);
    image_to_bytes(run->image, 3 * pixels, run->bytes);
    return hand_over(run, picture, f);
}

/* --- the run ---------------------------------------------------------------------------------- */

int pipeline_prepare(struct pipeline *p, const struct session_shape *shape, struct fault *f)
{
    if (p->session && session_shape_is_same(&p->session->layout.shape, shape))
        return 0;
    p->session = session_free(p->session);
    int r = session_new(p->model, p->weights, p->gpu, shape, &p->session, f);
    if (r == -ENOMEM && p->safety && safety_release(p->safety)) /* it loads itself again */
        r = session_new(p->model, p->weights, p->gpu, shape, &p->session, f);
    return r;
}

/* The run's size is the request's, or the given picture's. */
static int find_size(struct run *run, const struct request_context *context, struct fault *f)
{
    const struct request *q = run->request;
    struct request sized = {.width = q->width, .height = q->height};
    uint32_t multiple = q->compat == COMPAT_0_6 && context->multiple < 32 ? 32 : context->multiple;
    int r = 0;

    if (request_has_image(q) && !run->inputs->image.pixels)
        return fault_set(f, -EINVAL, "image: the picture is not there");
    if (request_has_mask(q) && !run->inputs->mask.pixels)
        return fault_set(f, -EINVAL, "mask: the picture is not there");
    if (!sized.width || !sized.height)
        r = image_size(&run->inputs->image, multiple, &sized.width, &sized.height, f);
    if (r >= 0 && request_check_size(&sized, context, f) < 0)
        r = fault_prefix(f, f->err, "image of %ux%u: give width and height",
                         run->inputs->image.width, run->inputs->image.height);
    run->width = sized.width;
    run->height = sized.height;
    return r;
}

static int prepare_session(struct run *run, struct fault *f)
{
    struct session_shape shape = {.width = run->width,
                                  .height = run->height,
                                  .batch = model_batch(run->p->model, run->request->guidance_scale),
                                  .chunks = run->prompts.chunks,
                                  .is_masked = request_has_mask(run->request) &&
                                               !run->p->model->is_inpainting};
    int r = pipeline_prepare(run->p, &shape, f);

    if (r >= 0)
        run->session = run->p->session;
    return r;
}

static int prepare(struct run *run, struct fault *f)
{
    int r = prepare_session(run, f);

    if (r < 0)
        return r;
    run->image = malloc(run->session->image_size);
    run->bytes = malloc((size_t)3 * run->width * run->height);
    if (!run->image || !run->bytes)
        return fault_set(f, -ENOMEM, "out of memory");
    r = denoise_prepare(run, f);
    return r < 0 ? r : start_prepare(run, f);
}

/* The safety checker may have taken the session's memory: the next picture needs it again. */
static int restore_session(struct run *run, struct fault *f)
{
    int r = prepare_session(run, f);

    return r < 0 ? r : denoise_upload(run, f);
}

/* Context, keys and values of the picture's prompt; told to the observer once a prompt. */
static int make_context(const struct run *run, uint32_t picture, struct fault *f)
{
    const struct context_job job = {
        .gpu = run->p->gpu,
        .model = run->p->model,
        .weights = run->p->weights,
        .session = run->session,
        .prompts = &run->prompts,
        .clip_skip = run->request->clip_skip,
        .cache = run->p->contexts,
        .encoder = run->p->encoder,
        .on_tensor = picture % run->request->count == 0 ? run->observer->on_tensor : NULL,
        .userdata = run->userdata,
        .cancel = run->cancel};

    return context_make(&job, picture / run->request->count, picture, f);
}

static int make_pictures(struct run *run, struct fault *f)
{
    int r = 0;

    for (uint32_t k = 0; k < run->pictures && r >= 0; k++) {
        bool is_lost = !run->p->session;
        if (is_lost)
            r = restore_session(run, f);
        if (r >= 0 && (is_lost || k % run->request->count == 0))
            r = make_context(run, k, f);
        if (r >= 0)
            r = start_picture(run, k, f);
        if (r >= 0)
            r = denoise_picture(run, k, f);
        if (r >= 0)
            r = decode(run, k, f);
    }
    return r;
}

static int merge_loras(struct pipeline *p, const struct request *request, const atomic_bool *cancel,
                       struct fault *f)
{
    if (!p->lora)
        return request->lora && *request->lora ? fault_set(f, -EINVAL, "lora: not possible here")
                                               : 0;
    int r = lora_apply(p->lora, request->lora, cancel, f);
    p->encoder = lora_id(p->lora);
    return r;
}

int pipeline_run(struct pipeline *p, const struct request *request,
                 const struct engine_inputs *inputs, const struct engine_observer *observer,
                 void *userdata, const atomic_bool *cancel, struct fault *f)
{
    static const struct engine_inputs none = {0};
    struct request_context context = model_request_context(p->model);
    _cleanup_(run_done) struct run run = {.p = p,
                                          .request = request,
                                          .inputs = inputs ? inputs : &none,
                                          .observer = observer,
                                          .userdata = userdata,
                                          .cancel = cancel,
                                          .pictures = request_picture_count(request)};
    int r = request_check(request, &context, f);

    if (r >= 0)
        r = find_size(&run, &context, f);
    if (r >= 0)
        r = prompts_read(p->model, request, observer, userdata, &run.prompts, f);
    if (r >= 0)
        r = merge_loras(p, request, cancel, f);
    if (r >= 0)
        r = prepare(&run, f);
    return r < 0 ? r : make_pictures(&run, f);
}

bool pipeline_make_room(struct pipeline *p)
{
    bool had = p->session != NULL;

    p->session = session_free(p->session);
    return had;
}

void pipeline_done(struct pipeline *p)
{
    p->session = session_free(p->session);
}
