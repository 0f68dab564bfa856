/* The loop: one replay of the U-Net's recording per row of the scheduler's table. */
#include <errno.h>

#include "vk/base/half.h"
#include "vk/pipeline/decode.h"
#include "vk/pipeline/run.h"
#include "vk/pipeline/step_row.h"
#include "vk/shaders/abi/step.h"

/* --- the table -------------------------------------------------------------------------------- */

/* The guidance as the U-Net of an LCM reads it. */
static int upload_condition(const struct run *run, struct fault *f)
{
    const struct session_layout *l = &run->session->layout;
    const struct unet_config *unet = &run->p->model->unet;
    uint32_t width = unet->condition_width;
    _cleanup_(freep) uint16_t *halves = calloc(pad8(width), sizeof *halves);
    _cleanup_(freep) float *values = calloc(width, sizeof *values);

    if (!halves || !values)
        return fault_set(f, -ENOMEM, "out of memory");
    unet_guidance_embedding(unet, run->request->guidance_scale, values);
    for (uint32_t i = 0; i < width; i++)
        halves[i] = half_from_float(values[i]);
    return gpu_upload(run->p->gpu, run->session->arena, l->condition.offset, halves,
                      pad8(width) * sizeof *halves, f);
}

/* One row and one timestep embedding per scheduler call. */
int denoise_upload(const struct run *run, struct fault *f)
{
    const struct session_layout *l = &run->session->layout;
    const struct unet_config *unet = &run->p->model->unet;
    uint32_t width = unet->channels[0], padded = pad8(width), n = run->table.count;
    _cleanup_(freep) float *rows = calloc((size_t)n * STEP_ROW_FLOATS, sizeof *rows);
    _cleanup_(freep) uint16_t *table = calloc((size_t)n * padded, sizeof *table);
    _cleanup_(freep) float *embedding = calloc(width, sizeof *embedding);

    if (n == 0)
        return 0;
    if (!rows || !table || !embedding)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n; i++) {
        step_row_fill(&run->table.rows[i], run->request->guidance_scale,
                      rows + i * STEP_ROW_FLOATS);
        unet_timestep_embedding(unet, run->table.rows[i].timestep, embedding);
        for (uint32_t c = 0; c < width; c++)
            table[(size_t)i * padded + c] = half_from_float(embedding[c]);
    }
    int r = gpu_upload(run->p->gpu, run->session->arena, l->rows.offset, rows,
                       (uint64_t)n * STEP_ROW_FLOATS * sizeof *rows, f);
    if (r >= 0)
        r = gpu_upload(run->p->gpu, run->session->arena, l->embedding.offset, table,
                       (uint64_t)n * padded * sizeof *table, f);
    if (r >= 0 && unet->condition_width)
        r = upload_condition(run, f);
    return r;
}

/* An inpainting U-Net of 0.6.0 begins with noise alone, whatever the strength. */
static struct sched_spec make_spec(const struct run *run)
{
    const struct request *q = run->request;
    bool is_compat = q->compat == COMPAT_0_6;

    return (struct sched_spec){
        .sched = q->scheduler,
        .steps = q->steps,
        .eta = q->eta,
        .sigmas = (enum sched_sigmas)q->sigmas,
        .spacing = (enum sched_spacing)q->timestep_spacing,
        .prediction = (enum sched_prediction)q->prediction,
        .compat = is_compat,
        .from_image = request_has_image(q) && !(is_compat && run->p->model->is_inpainting),
        .is_inpaint = request_has_mask(q) && !is_compat,
        .strength = q->strength,
    };
}

int denoise_prepare(struct run *run, struct fault *f)
{
    const struct request *q = run->request;
    const struct model *m = run->p->model;
    struct sched_spec spec = make_spec(run);
    int r = sched_make(&spec, &m->sched, &run->table, f);

    if (r < 0)
        return r;
    if (run->table.count > SESSION_CALLS_MAX)
        return fault_set(f, -EINVAL, "steps: %u scheduler calls; at most %u are possible",
                         run->table.count, SESSION_CALLS_MAX);
    if (m->is_scheduler_unknown && q->scheduler == m->scheduler)
        run_warn(run, "the model's scheduler is not known here; pndm was used");
    if (q->eta > 0 && q->scheduler != SCHEDULER_DDIM)
        run_warn(run, "eta: only ddim uses it");
    return denoise_upload(run, f);
}

/* --- the loop --------------------------------------------------------------------------------- */

static int report_step(const struct run *run, uint32_t picture, uint32_t i, struct fault *f)
{
    struct engine_step step = {.picture = picture,
                               .step = i + 1,
                               .steps = run->table.count,
                               .timestep = run->table.rows[i].timestep};
    char name[24];

    if (run->observer->on_tensor) {
        int r = run_read_state(run, STATE_X, run->latents, f);
        if (r < 0)
            return r;
        (void)snprintf(name, sizeof name, "latents.%03u", i);
        run_report_latents(run, picture, name, run->latents);
    }
    if (run->observer->on_step)
        run->observer->on_step(&step, run->userdata);
    return 0;
}

/* A preview that finds no room is left out: the picture itself may still fit. */
static int show_preview(struct run *run, uint32_t picture, uint32_t i, struct fault *f)
{
    uint32_t every = run->request->preview_steps;
    struct fault why = {0};

    if (!every || !run->observer->on_preview || (i + 1) % every != 0 || i + 1 == run->table.count)
        return 0;
    int r = run_read_state(run, STATE_CLEAN, run->latents, &why);
    if (r >= 0)
        r = decode_preview(run->p, run->latents, run->bytes, run->cancel, &why);
    if (r == -EFBIG || r == -ENOMEM)
        return 0;
    if (r < 0)
        return fault_set(f, r, "preview: %s", why.text);
    run->observer->on_preview(picture, i + 1, run->bytes, run->width, run->height, run->userdata);
    return 0;
}

int denoise_picture(struct run *run, uint32_t picture, struct fault *f)
{
    int r = 0;

    for (uint32_t i = 0; i < run->table.count && r >= 0; i++) {
        if (run->table.rows[i].noise_scale != 0) {
            start_draw(run, picture, run->latents);
            r = run_write_state(run, STATE_NOISE, run->latents, run_latents(run), f);
        }
        if (r >= 0)
            r = recording_run(run->session->recordings[SESSION_DENOISE], run->cancel, f);
        if (r >= 0)
            r = report_step(run, picture, i, f);
        if (r >= 0)
            r = show_preview(run, picture, i, f);
    }
    return r;
}
