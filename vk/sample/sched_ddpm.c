/* sched_ddpm — ancestral sampling of the diffusion process itself.
 *
 * The step before is the next one of the list (none: no noise left); diffusers 0.6.0 took t - 1
 * whatever the list, which `compat` does. Source: diffusers 0.31.0 scheduling_ddpm.py with custom
 * timesteps; 0.6.0's for compat. */
#include <math.h>

#include "vk/sample/sched_private.h"

#define VARIANCE_MIN 1e-20

/* 0.6.0: every (train_steps / steps)-th training step, without offset; maybe more than steps. */
static int compat_list(struct sched_run *run, struct fault *f)
{
    uint32_t train = run->config->train_steps, ratio = train / run->spec.steps;
    uint32_t count = (train + ratio - 1) / ratio;
    int r = sched_list_new(run, count, false, f);

    for (uint32_t i = 0; i < count && r >= 0; i++)
        run->timesteps[i] = (double)(count - 1 - i) * ratio;
    return r;
}

int sched_ddpm_list(struct sched_run *run, struct fault *f)
{
    return run->spec.compat ? compat_list(run, f)
                            : sched_list_whole(run, run->config->steps_offset, f);
}

/* x' = mean of the posterior given x and the bounded x0, + its deviation * fresh noise. */
void sched_ddpm_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    const struct sched_config *c = run->config;
    double t = run->timesteps[call],
           previous = call + 1 < run->count ? run->timesteps[call + 1] : -1;
    double a = sched_alpha(run, t, 1);
    double b = sched_alpha(run, run->spec.compat ? t - 1 : previous, 1);
    double beta = run->spec.compat ? (double)sched_beta(c, (uint32_t)t) : 1 - a / b;
    double variance = (1 - b) / (1 - a) * beta;
    struct sched_pair clean = sched_vp_clean(run, a);

    if (c->is_variance_large)
        variance = beta;
    row->conv_x = clean.x;
    row->conv_m = clean.m;
    row->clip = c->clip_sample ? c->clip_range : 0;
    row->e_scale[0] = sqrt(b) * beta / (1 - a);
    row->x_scale = sqrt(1 - beta) * (1 - b) / (1 - a);
    row->noise_scale = t > 0 ? sqrt(variance > VARIANCE_MIN ? variance : VARIANCE_MIN) : 0;
}
