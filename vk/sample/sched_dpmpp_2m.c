/* sched_dpmpp_2m — DPM-Solver++, second order multi-step, midpoint.
 *
 * In half logarithms of the signal to noise ratio, l; x keeps variance one. The last step is of
 * first order when it goes to zero, and always in short runs. Source: diffusers 0.31.0
 * scheduling_dpmsolver_multistep.py, algorithm_type dpmsolver++, solver_type midpoint. */
#include <math.h>

#include "vk/sample/sched_private.h"

#define SHORT_RUN 15u

/* One timestep more than steps is spread, the lowest left out; trailing leaves out none. */
int sched_dpmpp_2m_list(struct sched_run *run, struct fault *f)
{
    const struct sched_config *c = run->config;
    uint32_t n = run->spec.steps, spread = run->spec.spacing == SCHED_SPACING_TRAILING ? n : n + 1;
    int r = sched_list_new(run, n, false, f);

    for (uint32_t i = 0; i < n && r >= 0; i++)
        run->timesteps[i] = rint(sched_spaced(run, spread, c->steps_offset, i));
    if (r >= 0)
        r = sched_list_sigmas(run, f);
    if (r >= 0 && c->is_final_sigma_min)
        run->sigmas[n] = sqrt((1 - (double)run->alphas[0]) / run->alphas[0]);
    return r;
}

static bool is_first_order(const struct sched_run *run, uint32_t call)
{
    const struct sched_config *c = run->config;

    if (call == run->begin)
        return true;
    return call + 1 == run->count &&
           (!c->is_final_sigma_min || (c->lower_order_final && run->count < SHORT_RUN));
}

void sched_dpmpp_2m_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    double s = run->sigmas[call], t = run->sigmas[call + 1]; /* exp(-l) */
    double alpha_s = 1 / sqrt(s * s + 1), alpha_t = 1 / sqrt(t * t + 1);
    struct sched_pair clean = sched_vp_clean(run, alpha_s * alpha_s);
    double gain = alpha_t * (1 - t / s);

    row->conv_x = clean.x;
    row->conv_m = clean.m;
    row->push = true;
    row->x_scale = t * alpha_t / (s * alpha_s);
    row->e_scale[0] = gain;
    if (is_first_order(run, call))
        return;
    double h = log(s / t), before = log(run->sigmas[call - 1] / s);
    row->e_scale[1] = -gain / 2 * h / before;
    row->e_scale[0] -= row->e_scale[1];
}
