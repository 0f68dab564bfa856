/* Where a picture begins: noise, a given picture, or both; and what a mask keeps.
 *
 * Draws come in the reference's order. diffusers 0.31.0: the picture's latents from their moments
 * (not for an inpainting U-Net at full strength), noise, the masked picture's latents (with any
 * mask, also where they are not used). 0.6.0: picture and noise, or for an inpainting U-Net noise
 * and masked picture. Moments are drawn from once for all pictures of a stream, noise for each. */
#include <errno.h>
#include <math.h>

#include "vk/pipeline/encode.h"
#include "vk/pipeline/image.h"
#include "vk/pipeline/run.h"
#include "vk/shaders/abi/step.h"

/* --- once a run: pictures to moments ---------------------------------------------------------- */

static struct image_target target(const struct run *run)
{
    return (struct image_target){
        .width = run->width, .height = run->height, .fit = (enum request_fit)run->request->fit};
}

static int allocate(float **ret, size_t count, struct fault *f)
{
    *ret = malloc(count * sizeof **ret);
    return *ret ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

/* Does the reference encode the picture itself? */
static bool uses_original(const struct run *run)
{
    const struct request *q = run->request;

    if (!run->p->model->is_inpainting)
        return request_has_image(q);
    return q->compat == COMPAT_NONE && q->strength < 1;
}

static bool uses_masked(const struct run *run)
{
    bool is_legacy = run->request->compat == COMPAT_0_6 && !run->p->model->is_inpainting;

    return request_has_mask(run->request) && !is_legacy;
}

/* The mask at the latents' size to run->mask, at the pixels' to ret_pixels. */
static int prepare_mask(struct run *run, float *ret_pixels, struct fault *f)
{
    bool is_legacy = run->request->compat == COMPAT_0_6 && !run->p->model->is_inpainting;
    struct image_target to = target(run);
    int r = allocate(&run->mask, run_plane(run), f);

    if (r >= 0)
        r = mask_prepare(&run->inputs->mask, &to, vae_factor(&run->p->model->vae),
                         is_legacy ? MASK_LEGACY : MASK_BINARY, ret_pixels, run->mask, f);
    return r < 0 ? fault_prefix(f, r, "mask") : 0;
}

static int encode_moments(struct run *run, const float *pixels, float **ret_moments,
                          struct fault *f)
{
    int r = allocate(ret_moments, 2 * run_latents(run), f);

    return r < 0 ? r : encode_image(run->p, pixels, *ret_moments, run->cancel, f);
}

int start_prepare(struct run *run, struct fault *f)
{
    size_t count = (size_t)run->width * run->height;
    struct image_target to = target(run);
    _cleanup_(freep) float *pixels = NULL, *blank = NULL;
    int r = allocate(&run->latents, run_latents(run), f);

    if (r < 0 || !request_has_image(run->request))
        return r;
    r = allocate(&pixels, 3 * count, f);
    if (r >= 0)
        r = allocate(&run->original, run_latents(run), f);
    if (r >= 0) {
        r = image_prepare(&run->inputs->image, &to, pixels, f);
        if (r < 0)
            return fault_prefix(f, r, "image");
    }
    if (r >= 0 && uses_original(run))
        r = encode_moments(run, pixels, &run->moments, f);
    if (r < 0 || !request_has_mask(run->request))
        return r;
    r = allocate(&blank, count, f);
    if (r >= 0)
        r = prepare_mask(run, blank, f);
    if (r < 0 || !uses_masked(run))
        return r;
    image_blank(pixels, blank, count);
    return encode_moments(run, pixels, &run->masked, f);
}

/* --- draws ------------------------------------------------------------------------------------ */

void start_draw(struct run *run, uint32_t picture, float *ret_values)
{
    size_t n = run_latents(run);

    if (run->request->batch_seed == BATCH_SEED_STREAM)
        noise_part(&run->noise, run->pictures * n, picture * n, ret_values, n);
    else
        noise_normal(&run->noise, ret_values, n);
}

/* scaling_factor * (mean + deviation * draw), the draw taken from ret_latents and replaced. Source:
 * vae.py, DiagonalGaussianDistribution. */
static void draw_moments(struct run *run, const float *moments, float *ret_latents)
{
    float scale = (float)run->p->model->vae.scaling_factor;
    size_t n = run_latents(run);

    noise_normal(&run->noise, ret_latents, n);
    for (size_t i = 0; i < n; i++) {
        float variance = fminf(fmaxf(moments[n + i], -30), 20);
        ret_latents[i] = scale * (moments[i] + expf(0.5f * variance) * ret_latents[i]);
    }
}

/* --- the first latents ------------------------------------------------------------------------ */

/* noise in run->latents becomes the first latents. */
static void mix(const struct run *run)
{
    const struct sched_table *t = &run->table;
    bool from_image = run->moments != NULL;
    float noise = (float)(from_image ? t->start_noise : t->init_noise_sigma);

    for (size_t i = 0; i < run_latents(run); i++)
        run->latents[i] =
            noise * run->latents[i] + (from_image ? (float)t->start_image * run->original[i] : 0);
}

static int write_mask(const struct run *run, struct fault *f)
{
    bool is_extended = run->p->model->is_inpainting;
    int r =
        run_write_state(run, is_extended ? STATE_EXTRA : STATE_MASK, run->mask, run_plane(run), f);

    if (r < 0 || is_extended)
        return r;
    r = run_write_state(run, STATE_ORIGINAL, run->original, run_latents(run), f);
    return r < 0 ? r
                 : run_write_state(run, STATE_ORIGINAL_NOISE, run->latents, run_latents(run), f);
}

/* The masked picture's latents, behind the mask's plane. Drawn also where they are not used. */
static int write_masked(struct run *run, struct fault *f)
{
    const struct session_layout *l = &run->session->layout;
    size_t n = run_latents(run), mask = run_plane(run);
    _cleanup_(freep) float *values = NULL;
    int r = allocate(&values, n, f);

    if (r < 0)
        return r;
    draw_moments(run, run->masked, values);
    if (!run->p->model->is_inpainting)
        return 0;
    return gpu_upload(run->p->gpu, run->session->arena,
                      l->state.offset + (STATE_EXTRA * n + mask) * sizeof *values, values,
                      n * sizeof *values, f);
}

static int clear_state(const struct run *run, struct fault *f)
{
    const struct session_layout *l = &run->session->layout;
    int r =
        gpu_clear(run->p->gpu, run->session->arena, l->state.offset, pinned_bytes(&l->state), f);

    return r < 0 ? r
                 : gpu_clear(run->p->gpu, run->session->arena, l->step.offset, sizeof(uint32_t), f);
}

int start_picture(struct run *run, uint32_t picture, struct fault *f)
{
    const struct request *q = run->request;
    int r = clear_state(run, f);

    if (r < 0)
        return r;
    noise_init(&run->noise, (enum noise_kind)q->rng,
               q->seed + (q->batch_seed == BATCH_SEED_STREAM ? 0 : picture));
    if (run->moments) {
        draw_moments(run, run->moments, run->original);
        run_report_latents(run, picture, "original", run->original);
    }
    start_draw(run, picture, run->latents);
    run_report_latents(run, picture, "noise", run->latents);
    if (run->mask)
        r = write_mask(run, f);
    if (r >= 0 && run->masked)
        r = write_masked(run, f);
    if (r < 0)
        return r;
    mix(run);
    return run_write_state(run, STATE_X, run->latents, run_latents(run), f);
}
