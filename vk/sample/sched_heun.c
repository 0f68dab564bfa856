/* sched_heun — Heun's method in sigma: an Euler step, then the same step over again with the mean
 * of the derivatives at both ends. The last step, to zero, is an Euler step.
 *
 * The list has the first timestep once and every other twice: even entries begin a step, odd ones
 * finish it. The history keeps estimates of x0, because a file may bound them. Source: diffusers
 * 0.31.0 scheduling_heun_discrete.py. */
#include <math.h>
#include <stdlib.h>

#include "vk/sample/sched_private.h"

int sched_heun_list(struct sched_run *run, struct fault *f)
{
    int r = sched_list_sigma_steps(run, true, f);

    if (r < 0)
        return r;
    _cleanup_(freep) double *timesteps = TAKE_PTR(run->timesteps);
    _cleanup_(freep) double *sigmas = TAKE_PTR(run->sigmas);
    r = sched_list_new(run, 2 * run->count - 1, true, f);
    for (uint32_t i = 0; i < run->count && r >= 0; i++) {
        run->timesteps[i] = timesteps[(i + 1) / 2];
        run->sigmas[i] = sigmas[(i + 1) / 2];
    }
    return r;
}

void sched_heun_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    const double *sigmas = run->sigmas;
    bool is_second = call % 2;
    double sigma = sigmas[call - is_second], next = sigmas[call + 1 - is_second];
    struct sched_pair clean = sched_ve_clean(run, sigmas[call]);
    double slope = (next - sigma) / sigma; /* of (x - x0) */

    row->conv_x = clean.x;
    row->conv_m = clean.m;
    row->clip = run->config->clip_sample ? run->config->clip_range : 0;
    if (!is_second) {
        row->save = row->push = true;
        row->x_scale = 1 + slope;
        row->e_scale[0] = -slope;
        return;
    }
    row->use_saved = true;
    row->x_scale = 1 + slope / 2;
    row->e_scale[1] = -slope / 2;
    row->plain_x = (next - sigma) / next / 2;
    row->e_scale[0] = -row->plain_x;
}
