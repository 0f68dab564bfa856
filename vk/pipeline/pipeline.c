#include "vk/pipeline/pipeline.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/base/half.h"
#include "vk/pipeline/image.h"
#include "vk/sample/rng.h"
#include "vk/shaders/abi/step.h"

/* What one run carries from stage to stage. */
struct run {
    struct pipeline *p;
    const struct request *request;
    const struct engine_observer *observer;
    void *userdata;
    const atomic_bool *cancel;
    struct session *session;
    struct prompts prompts;
    struct sched_table table;
    float *latents; /* [4, h, w] */
    float *image;   /* [H, W, 8], then [H, W, 3] */
    uint8_t *bytes; /* [H, W, 3] */
};

static void run_done(struct run *run)
{
    prompts_done(&run->prompts);
    sched_table_done(&run->table);
    free(run->latents);
    free(run->image);
    free(run->bytes);
}

static size_t latent_count(const struct run *run)
{
    const struct session_layout *l = &run->session->layout;

    return (size_t)run->p->model->unet.in_channels * l->latent_height * l->latent_width;
}

static size_t pixel_count(const struct run *run)
{
    return (size_t)run->request->width * run->request->height;
}

/* --- reports ---------------------------------------------------------------------------------- */

static void report_tensor(const struct run *run, uint32_t picture, const struct engine_tensor *t)
{
    if (run->observer->on_tensor)
        run->observer->on_tensor(picture, t, run->userdata);
}

static void report_latents(const struct run *run, uint32_t picture, const char *name)
{
    const struct session_layout *l = &run->session->layout;
    struct engine_tensor t = {
        .name = name,
        .element = ENGINE_ELEMENT_F32,
        .rank = 3,
        .dims = {run->p->model->unet.in_channels, l->latent_height, l->latent_width},
        .data = run->latents};

    report_tensor(run, picture, &t);
}

static void report_image(const struct run *run, uint32_t picture)
{
    struct engine_tensor t = {.name = "image",
                              .element = ENGINE_ELEMENT_F32,
                              .rank = 3,
                              .dims = {run->request->height, run->request->width, 3},
                              .data = run->image};

    report_tensor(run, picture, &t);
}

static void report_warning(const struct run *run, const char *text)
{
    if (run->observer->on_warning)
        run->observer->on_warning(text, run->userdata);
}

/* --- the step table --------------------------------------------------------------------------- */

static void fill_row(const struct sched_row *row, double guidance, float *ret)
{
    ret[STEP_TIMESTEP] = (float)row->timestep;
    ret[STEP_INPUT_SCALE] = (float)row->input_scale;
    ret[STEP_X_SCALE] = (float)row->x_scale;
    for (uint32_t k = 0; k <= SCHED_HISTORY; k++)
        ret[STEP_E_SCALE + k] = (float)row->e_scale[k];
    ret[STEP_USE_SAVED] = row->use_saved;
    ret[STEP_SAVE] = row->save;
    ret[STEP_PUSH] = row->push;
    ret[STEP_GUIDANCE] = (float)guidance;
    ret[STEP_CLIP] = row->clip;
    ret[STEP_CLIP_X] = (float)row->clip_x;
    ret[STEP_CLIP_E] = (float)row->clip_e;
    ret[STEP_CONV_X] = (float)row->conv_x;
    ret[STEP_CONV_E] = (float)row->conv_e;
    ret[STEP_PLAIN_X] = (float)row->plain_x;
    ret[STEP_NOISE_SCALE] = (float)row->noise_scale;
    ret[STEP_CLEAN_X] = (float)row->clean_x;
    ret[STEP_CLEAN_E] = (float)row->clean_e;
    ret[STEP_KEEP_IMAGE] = (float)row->keep_image;
    ret[STEP_KEEP_NOISE] = (float)row->keep_noise;
}

/* One row and one timestep embedding per scheduler call. */
static int upload_rows(const struct run *run, struct fault *f)
{
    const struct session_layout *l = &run->session->layout;
    const struct unet_config *unet = &run->p->model->unet;
    uint32_t width = unet->channels[0], padded = pad8(width), n = run->table.count;
    _cleanup_(freep) float *rows = calloc((size_t)n * STEP_ROW_FLOATS, sizeof *rows);
    _cleanup_(freep) uint16_t *table = calloc((size_t)n * padded, sizeof *table);
    _cleanup_(freep) float *embedding = calloc(width, sizeof *embedding);

    if (!rows || !table || !embedding)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n; i++) {
        fill_row(&run->table.rows[i], run->request->guidance_scale, rows + i * STEP_ROW_FLOATS);
        unet_timestep_embedding(unet, run->table.rows[i].timestep, embedding);
        for (uint32_t c = 0; c < width; c++)
            table[(size_t)i * padded + c] = half_from_float(embedding[c]);
    }
    int r = gpu_upload(run->p->gpu, run->session->arena, l->rows.offset, rows,
                       (uint64_t)n * STEP_ROW_FLOATS * sizeof *rows, f);
    if (r >= 0)
        r = gpu_upload(run->p->gpu, run->session->arena, l->embedding.offset, table,
                       (uint64_t)n * padded * sizeof *table, f);
    return r;
}

static int make_table(struct run *run, struct fault *f)
{
    const struct request *q = run->request;
    const struct model *m = run->p->model;
    struct sched_spec spec = {.sched = q->scheduler, .steps = q->steps};
    int r = sched_make(&spec, &m->sched, &run->table, f);

    if (r < 0)
        return r;
    if (run->table.count > SESSION_CALLS_MAX)
        return fault_set(f, -EINVAL, "steps: %u scheduler calls; at most %u are possible",
                         run->table.count, SESSION_CALLS_MAX);
    if (m->is_scheduler_unknown && q->scheduler == m->scheduler)
        report_warning(run, "the model's scheduler is not known here; pndm was used");
    return upload_rows(run, f);
}

/* --- one picture ------------------------------------------------------------------------------ */

/* Draws the noise and makes it the first latents; clears saved sample, history and step. */
static int start_picture(const struct run *run, uint32_t picture, struct fault *f)
{
    const struct session_layout *l = &run->session->layout;
    struct tensor_info state = {.element = ELEMENT_F32,
                                .n = l->state.n,
                                .h = l->state.h,
                                .w = l->state.w,
                                .layout = l->state.layout};
    size_t n = latent_count(run);
    struct rng rng;

    rng_init(&rng, run->request->seed + picture);
    rng_normal(&rng, run->latents, n);
    report_latents(run, picture, "noise");
    for (size_t i = 0; i < n; i++)
        run->latents[i] *= (float)run->table.init_noise_sigma;
    int r = gpu_clear(run->p->gpu, run->session->arena, l->state.offset, tensor_bytes(&state), f);
    if (r >= 0)
        r = gpu_clear(run->p->gpu, run->session->arena, l->step.offset, sizeof(uint32_t), f);
    if (r >= 0)
        r = gpu_upload(run->p->gpu, run->session->arena, l->state.offset, run->latents,
                       n * sizeof *run->latents, f);
    return r;
}

static int report_step(const struct run *run, uint32_t picture, uint32_t i, struct fault *f)
{
    struct engine_step step = {.picture = picture,
                               .step = i + 1,
                               .steps = run->table.count,
                               .timestep = run->table.rows[i].timestep};
    char name[24];

    if (run->observer->on_tensor) {
        int r = gpu_download(run->p->gpu, run->session->arena, run->session->layout.state.offset,
                             run->latents, latent_count(run) * sizeof *run->latents, f);
        if (r < 0)
            return r;
        (void)snprintf(name, sizeof name, "latents.%03u", i);
        report_latents(run, picture, name);
    }
    if (run->observer->on_step)
        run->observer->on_step(&step, run->userdata);
    return 0;
}

static int denoise(const struct run *run, uint32_t picture, struct fault *f)
{
    int r = start_picture(run, picture, f);

    for (uint32_t i = 0; i < run->table.count && r >= 0; i++) {
        r = recording_run(run->session->recordings[SESSION_DENOISE], run->cancel, f);
        if (r >= 0)
            r = report_step(run, picture, i, f);
    }
    return r;
}

static int decode(const struct run *run, uint32_t picture, struct fault *f)
{
    const struct session *s = run->session;
    size_t pixels = pixel_count(run);
    int r = recording_run(s->recordings[SESSION_DECODE], run->cancel, f);

    if (r >= 0)
        r = gpu_download(run->p->gpu, s->arena, s->image_offset, run->image, s->image_size, f);
    if (r < 0)
        return r;
    image_from_decoder(run->image, pixels, run->image);
    report_image(run, picture);
    image_to_bytes(run->image, 3 * pixels, run->bytes);
    if (!run->observer->on_picture)
        return 0;
    uint32_t prompt = picture / run->request->count;
    struct engine_picture done = {.index = picture,
                                  .rgb = run->bytes,
                                  .width = run->request->width,
                                  .height = run->request->height,
                                  .seed = run->request->seed + picture,
                                  .prompt = run->prompts.positive[prompt].text,
                                  .negative_prompt = prompts_negative(&run->prompts, prompt)->text};
    r = run->observer->on_picture(&done, run->userdata);
    return r < 0 ? fault_set(f, r, "picture %u: %s", picture, strerror(-r)) : 0;
}

/* --- the run ---------------------------------------------------------------------------------- */

int pipeline_prepare(struct pipeline *p, const struct session_shape *shape, struct fault *f)
{
    const struct session_shape *now = p->session ? &p->session->layout.shape : NULL;

    if (now && session_shape_is_same(now, shape))
        return 0;
    p->session = session_free(p->session);
    return session_new(p->model, p->weights, p->gpu, shape, &p->session, f);
}

static int allocate(struct run *run, struct fault *f)
{
    run->latents = malloc(latent_count(run) * sizeof *run->latents);
    run->image = malloc(run->session->image_size);
    run->bytes = malloc(3 * pixel_count(run));
    if (!run->latents || !run->image || !run->bytes)
        return fault_set(f, -ENOMEM, "out of memory");
    return 0;
}

/* Makes the context when a picture is the first of its prompt. */
static int make_context(const struct run *run, uint32_t picture, struct fault *f)
{
    const struct context_job job = {.gpu = run->p->gpu,
                                    .session = run->session,
                                    .prompts = &run->prompts,
                                    .cache = run->p->contexts,
                                    .encoder = run->p->encoder,
                                    .observer = run->observer,
                                    .userdata = run->userdata,
                                    .cancel = run->cancel};

    if (picture % run->request->count != 0)
        return 0;
    return context_make(&job, picture / run->request->count, picture, f);
}

static int prepare(struct run *run, struct fault *f)
{
    const struct request *q = run->request;
    struct request_context context = model_request_context(run->p->model);
    struct session_shape shape = {.width = q->width,
                                  .height = q->height,
                                  .batch = q->guidance_scale > 1 ? 2 : 1,
                                  .clip_skip = q->clip_skip};
    int r = request_check(q, &context, f);

    if (r >= 0)
        r = prompts_read(run->p->model, q, run->observer, run->userdata, &run->prompts, f);
    if (r < 0)
        return r;
    shape.chunks = run->prompts.chunks;
    r = pipeline_prepare(run->p, &shape, f);
    run->session = run->p->session;
    return r;
}

int pipeline_run(struct pipeline *p, const struct request *request,
                 const struct engine_inputs *inputs, const struct engine_observer *observer,
                 void *userdata, const atomic_bool *cancel, struct fault *f)
{
    _cleanup_(run_done) struct run run = {
        .p = p, .request = request, .observer = observer, .userdata = userdata, .cancel = cancel};
    int r = prepare(&run, f);

    (void)inputs;
    if (r >= 0)
        r = allocate(&run, f);
    if (r >= 0)
        r = make_table(&run, f);
    for (uint32_t k = 0; k < request_picture_count(request) && r >= 0; k++) {
        r = make_context(&run, k, f);
        if (r >= 0)
            r = denoise(&run, k, f);
        if (r >= 0)
            r = decode(&run, k, f);
    }
    return r;
}

void pipeline_done(struct pipeline *p)
{
    p->session = session_free(p->session);
}
