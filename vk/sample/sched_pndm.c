/* sched_pndm — pseudo numerical methods: linear multi-step, with or without a Runge-Kutta start.
 *
 * Without (skip_prk_steps): n + 1 calls for n steps; the second timestep is visited twice, its
 * second visit starting over from the first sample with the mean of both estimates. One call when
 * n = 1. With: three steps of four calls each, then n - 3 calls. What a call does depends on how
 * many were made, not on its place in the list: a run started inside it begins the same way, at
 * other timesteps. Source: diffusers 0.6.0 scheduling_pndm.py; 0.31.0 for v-prediction, which it
 * turns into noise after the estimates were combined, and for spacings. */
#include <errno.h>
#include <math.h>

#include "vk/sample/sched_private.h"

#define PRK_CALLS 12u
#define PRK_STEPS 4u /* timesteps the start touches: fewer steps cannot have it */

/* Adams-Bashforth weights by the number of estimates at hand, newest first. */
static const double adams[5][4] = {
    {0},
    {1},
    {3 / 2., -1 / 2.},
    {23 / 12., -16 / 12., 5 / 12.},
    {55 / 24., -59 / 24., 37 / 24., -9 / 24.},
};

/* 0.31.0's inpainting skips the start whatever the file says. */
static bool has_prk(const struct sched_run *run)
{
    if (run->spec.is_inpaint && !run->spec.compat)
        return false;
    return !run->config->skip_prk_steps || run->config->lacks_skip_prk;
}

static double spaced(const struct sched_run *run, uint32_t i)
{
    return rint(sched_spaced(run, run->spec.steps, run->config->steps_offset, i));
}

static uint32_t ratio(const struct sched_run *run)
{
    return run->config->train_steps / run->spec.steps;
}

/* t0, t0 - h, t0 - h, t1, t1, t1 - h, t1 - h, t2 …, h half a step; then t3, t4 … */
static int prk_list(struct sched_run *run, struct fault *f)
{
    uint32_t n = run->spec.steps, half = ratio(run) / 2;

    if (n < PRK_STEPS)
        return fault_set(f, -EINVAL,
                         "steps: pndm with the Runge-Kutta start of this model takes at least %u",
                         PRK_STEPS);
    int r = sched_list_new(run, PRK_CALLS + n - 3, false, f);
    for (uint32_t i = 0; i < run->count && r >= 0; i++) {
        uint32_t pair = (i + 1) / 2; /* of t0, t1 + h, t1, t2 + h … */
        run->timesteps[i] = i < PRK_CALLS ? spaced(run, (pair + 1) / 2) + (pair % 2 ? half : 0)
                                          : spaced(run, i - PRK_CALLS + 3);
    }
    return r;
}

int sched_pndm_list(struct sched_run *run, struct fault *f)
{
    uint32_t n = run->spec.steps;

    if (has_prk(run))
        return prk_list(run, f);
    int r = sched_list_new(run, n == 1 ? 1 : n + 1, false, f);
    for (uint32_t i = 0; i < run->count && r >= 0; i++) /* t0, t1, t1, t2 … */
        run->timesteps[i] = spaced(run, i < 2 ? i : i - 1);
    return r;
}

/* From `from` to `to`: the row's x_scale; returns the weight of the (combined) model's output. */
static double transfer(const struct sched_run *run, double from, double to, struct sched_row *row)
{
    double final = run->config->set_alpha_to_one ? 1 : (double)run->alphas[0];
    double a = sched_alpha(run, from, final), b = sched_alpha(run, to, final);
    double scale = -(b - a) / (a * sqrt(1 - b) + sqrt(a * (1 - a) * b));
    struct sched_pair noise = sched_vp_noise(run, a);

    row->x_scale = sqrt(b / a) + scale * noise.x;
    return scale * noise.m;
}

static void fill_plms(const struct sched_run *run, uint32_t made, double t, struct sched_row *row)
{
    uint32_t step = ratio(run), known = made == 0 ? 1 : made < 4 ? made : 4;

    if (made == 1) { /* the repeated timestep: from the one before it, anew */
        double scale = transfer(run, t + step, t, row);
        row->use_saved = true;
        row->e_scale[0] = row->e_scale[1] = scale / 2;
        return;
    }
    double scale = transfer(run, t, t - step, row);
    row->save = made == 0;
    row->push = true;
    for (uint32_t k = 0; k < known; k++)
        row->e_scale[k] = scale * adams[known][k];
}

/* The estimates of a group of four weigh 1, 2, 2, 1 sixths. Each goes a half or a whole step from
 * the group's first sample. */
static void fill_prk(const struct sched_run *run, uint32_t made, double t, struct sched_row *row)
{
    uint32_t place = made % 4;
    double to = t - (made % 2 ? 0 : ratio(run) / 2);
    double scale = transfer(run, run->timesteps[made - place], to, row);

    row->save = row->push = place == 0;
    row->use_saved = place != 0;
    row->e_scale[0] = place == 3 ? scale / 6 : scale;
    row->sum_scale = place == 3 ? scale : 0;
    row->sum_keep = place == 1 || place == 2;
    row->sum_e = place == 0 ? 1 / 6. : place == 3 ? 0 : 1 / 3.;
}

void sched_pndm_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    uint32_t made = call - run->begin;

    if (has_prk(run) && made < PRK_CALLS)
        fill_prk(run, made, run->timesteps[call], row);
    else
        fill_plms(run, made, run->timesteps[call], row);
}
