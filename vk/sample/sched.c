#include "vk/sample/sched.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "vk/sample/sched_private.h"

const struct sched scheds[SCHED_COUNT] = {
    [SCHED_PNDM] = {.name = "pndm",
                    .class_names = "PNDMScheduler",
                    .spacing = SCHED_SPACING_LEADING,
                    .order = 1,
                    .compat_offset = 1,
                    .list = sched_pndm_list,
                    .fill = sched_pndm_fill},
    [SCHED_DDIM] = {.name = "ddim",
                    .class_names = "DDIMScheduler",
                    .spacing = SCHED_SPACING_LEADING,
                    .order = 1,
                    .has_zero_snr = true,
                    .compat_offset = 1,
                    .list = sched_ddim_list,
                    .fill = sched_ddim_fill},
    [SCHED_LMS] = {.name = "lms",
                   .class_names = "LMSDiscreteScheduler",
                   .spacing = SCHED_SPACING_LINSPACE,
                   .order = 1,
                   .is_sigma = true,
                   .has_karras = true,
                   .list = sched_lms_list,
                   .fill = sched_lms_fill},
    [SCHED_EULER] = {.name = "euler",
                     .class_names = "EulerDiscreteScheduler",
                     .spacing = SCHED_SPACING_LINSPACE,
                     .order = 1,
                     .is_sigma = true,
                     .has_karras = true,
                     .has_zero_snr = true,
                     .compat_offset = -1,
                     .list = sched_euler_list,
                     .fill = sched_euler_fill},
    [SCHED_DDPM] = {.name = "ddpm",
                    .class_names = "DDPMScheduler",
                    .spacing = SCHED_SPACING_LEADING,
                    .order = 1,
                    .has_zero_snr = true,
                    .list = sched_ddpm_list,
                    .fill = sched_ddpm_fill},
    [SCHED_EULER_A] = {.name = "euler-a",
                       .class_names = "EulerAncestralDiscreteScheduler",
                       .spacing = SCHED_SPACING_LINSPACE,
                       .order = 1,
                       .is_sigma = true,
                       .has_zero_snr = true,
                       .compat_offset = -1,
                       .list = sched_euler_list,
                       .fill = sched_euler_a_fill},
    [SCHED_DPMPP_2M] = {.name = "dpmpp-2m",
                        .class_names = "DPMSolverMultistepScheduler",
                        .spacing = SCHED_SPACING_LINSPACE,
                        .order = 1,
                        .has_karras = true,
                        .has_zero_snr = true,
                        .compat_offset = -1,
                        .list = sched_dpmpp_2m_list,
                        .fill = sched_dpmpp_2m_fill},
    [SCHED_HEUN] = {.name = "heun",
                    .class_names = "HeunDiscreteScheduler",
                    .spacing = SCHED_SPACING_LINSPACE,
                    .order = 2,
                    .is_sigma = true,
                    .has_karras = true,
                    .compat_offset = -1,
                    .list = sched_heun_list,
                    .fill = sched_heun_fill},
    [SCHED_LCM] = {.name = "lcm",
                   .class_names = "LCMScheduler",
                   .spacing = SCHED_SPACING_LEADING,
                   .order = 1,
                   .has_own_list = true,
                   .has_zero_snr = true,
                   .compat_offset = -1,
                   .list = sched_lcm_list,
                   .fill = sched_lcm_fill},
};

static void run_done(struct sched_run *run)
{
    free(run->alphas);
    free(run->timesteps);
    free(run->sigmas);
}

/* --- what the run is asked for ---------------------------------------------------------------- */

static int resolve_sigmas(struct sched_run *run, struct fault *f)
{
    struct sched_spec *q = &run->spec;

    if (q->sigmas == SCHED_SIGMAS_KARRAS && !run->sched->has_karras)
        return fault_set(f, -EINVAL, "sigmas: %s has no karras; lms, euler, dpmpp-2m and heun have",
                         run->sched->name);
    if (q->sigmas == SCHED_SIGMAS_MODEL)
        q->sigmas = run->config->is_karras && run->sched->has_karras ? SCHED_SIGMAS_KARRAS
                                                                     : SCHED_SIGMAS_DEFAULT;
    return 0;
}

static int resolve_spacing(struct sched_run *run, struct fault *f)
{
    struct sched_spec *q = &run->spec;

    if (q->spacing != SCHED_SPACING_MODEL && run->sched->has_own_list)
        return fault_set(f, -EINVAL, "timestep_spacing: %s has timesteps of its own",
                         run->sched->name);
    if (q->spacing == SCHED_SPACING_MODEL)
        q->spacing = run->config->spacing;
    if (q->spacing == SCHED_SPACING_MODEL)
        q->spacing = run->sched->spacing;
    return 0;
}

static int resolve(const struct sched_spec *spec, const struct sched_config *config,
                   struct sched_run *run, struct fault *f)
{
    if (spec->sched >= SCHED_COUNT)
        return fault_set(f, -EINVAL, "scheduler: number %u is unknown", spec->sched);
    if (spec->steps < 1 || spec->steps > config->train_steps)
        return fault_set(f, -EINVAL, "steps: %u is outside 1…%u for this model", spec->steps,
                         config->train_steps);
    if (!(spec->eta >= 0 && spec->eta <= 1))
        return fault_set(f, -EINVAL, "eta: %g is outside 0…1", spec->eta);
    if (spec->from_image && !(spec->strength >= 0 && spec->strength <= 1))
        return fault_set(f, -EINVAL, "strength: %g is outside 0…1", spec->strength);
    run->spec = *spec;
    run->config = config;
    run->sched = &scheds[spec->sched];
    if (run->spec.prediction == SCHED_PREDICTION_MODEL)
        run->spec.prediction = config->prediction;
    if (!run->spec.original_steps)
        run->spec.original_steps = config->original_steps;
    int r = resolve_sigmas(run, f);
    return r < 0 ? r : resolve_spacing(run, f);
}

static int check_list(const struct sched_run *run, struct fault *f)
{
    uint32_t last = run->config->train_steps - 1;

    for (uint32_t i = 0; i < run->count; i++) {
        double t = run->timesteps[i];
        if (!(t >= 0 && t <= last))
            return fault_set(f, -EINVAL,
                             "steps: %u lead %s to training step %g of 0…%u; ask for fewer",
                             run->spec.steps, run->sched->name, t, last);
    }
    return 0;
}

/* --- where it starts -------------------------------------------------------------------------- */

/* Standard deviation of the latents that are pure noise. */
static double init_noise_sigma(const struct sched_run *run)
{
    double highest = 0, a = run->alphas[run->config->train_steps - 1];

    if (!run->sched->is_sigma)
        return 1;
    for (uint32_t i = 0; i < run->count; i++)
        highest = fmax(highest, run->sigmas[i]);
    if (run->spec.spacing == SCHED_SPACING_LEADING)
        return sqrt(highest * highest + 1);
    if (run->spec.sched == SCHED_LMS && run->spec.spacing == SCHED_SPACING_LINSPACE &&
        run->spec.sigmas != SCHED_SIGMAS_KARRAS)
        return sqrt((1 - a) / a); /* of all training steps, as 0.6.0; another one for one step */
    return highest;
}

/* 0.6.0: noise of the list's `made`-th last entry, calls from somewhere behind it. */
static void start_compat(struct sched_run *run, uint32_t made, struct sched_table *ret_table)
{
    uint32_t n = run->spec.steps, offset = (uint32_t)run->sched->compat_offset;

    made = made + offset < n ? made + offset : n;
    run->begin = n - made + offset;
    if (made == 0)
        return;
    sched_level(run, run->count - made, &ret_table->start_image, &ret_table->start_noise);
}

/* Sets run->begin and the table's start_… */
static void start(struct sched_run *run, struct sched_table *ret_table)
{
    uint32_t n = run->spec.steps, made = (uint32_t)(n * run->spec.strength);

    ret_table->start_image = 1; /* strength 0: the picture as it is */
    ret_table->start_noise = 0;
    if (made > n)
        made = n;
    if (run->spec.strength == 0)
        run->begin = run->count;
    else if (run->spec.compat && run->sched->compat_offset >= 0)
        start_compat(run, made, ret_table);
    else { /* too little for a step: pndm has one entry more than steps, and makes that call */
        run->begin = (n - made) * run->sched->order;
        sched_level(run, run->begin, &ret_table->start_image, &ret_table->start_noise);
    }
    if (run->begin > run->count)
        run->begin = run->count;
    if (run->spec.is_inpaint && run->spec.strength == 1 && !run->spec.compat) {
        ret_table->start_image = 0;
        ret_table->start_noise = ret_table->init_noise_sigma;
    }
}

/* --- rows ------------------------------------------------------------------------------------- */

static void fill_row(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    double sigma = run->sched->is_sigma ? run->sigmas[call] : 0;
    double level = run->sigmas ? run->sigmas[call] : 0, a = 1 / (level * level + 1);
    struct sched_pair clean;

    if (!run->sigmas)
        a = sched_alpha(run, run->timesteps[call], 1);
    clean = run->sched->is_sigma ? sched_ve_clean(run, sigma) : sched_vp_clean(run, a);
    *row = (struct sched_row){.timestep = run->timesteps[call],
                              .input_scale = 1 / sqrt(sigma * sigma + 1),
                              .conv_m = 1,
                              .clean_x = clean.x,
                              .clean_m = clean.m};
    sched_level(run, call + (run->spec.compat ? 0 : 1), &row->keep_image, &row->keep_noise);
    run->sched->fill(run, call, row);
}

/* Odd but legal betas must not put an infinity on the device. */
static int check_finite(const struct sched_row *row, uint32_t call, struct fault *f)
{
    const double values[] = {row->input_scale, row->conv_x,    row->conv_m,  row->clip,
                             row->x_scale,     row->plain_x,   row->m_scale, row->sum_scale,
                             row->sum_e,       row->clean_x,   row->clean_m, row->noise_scale,
                             row->keep_image,  row->keep_noise};
    double sum = 0;

    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        sum += fabs(values[i]);
    for (uint32_t k = 0; k <= SCHED_HISTORY; k++)
        sum += fabs(row->e_scale[k]);
    if (!isfinite((float)sum))
        return fault_set(f, -EINVAL, "scheduler: call %u has no finite coefficients", call);
    return 0;
}

static int make_rows(const struct sched_run *run, struct sched_table *table, struct fault *f)
{
    int r = 0;

    table->count = run->count - run->begin;
    table->rows = calloc((size_t)table->count + 1, sizeof *table->rows);
    if (!table->rows)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < table->count && r >= 0; i++) {
        fill_row(run, run->begin + i, &table->rows[i]);
        r = check_finite(&table->rows[i], i, f);
    }
    return r;
}

int sched_make(const struct sched_spec *spec, const struct sched_config *config,
               struct sched_table *ret_table, struct fault *f)
{
    _cleanup_(run_done) struct sched_run run = {0};
    _cleanup_(sched_table_done) struct sched_table table = {0};
    int r = resolve(spec, config, &run, f);

    if (r >= 0)
        r = sched_run_alphas(&run, f);
    if (r >= 0)
        r = run.sched->list(&run, f);
    if (r >= 0)
        r = check_list(&run, f);
    if (r < 0)
        return r;
    table.init_noise_sigma = init_noise_sigma(&run);
    if (spec->from_image)
        start(&run, &table);
    r = make_rows(&run, &table, f);
    if (r < 0)
        return r;
    *ret_table = table;
    table.rows = NULL;
    return 0;
}

void sched_table_done(struct sched_table *table)
{
    free(table->rows);
    table->rows = NULL;
    table->count = 0;
}
