/* sched_lcm — latent consistency: every call jumps to an estimate of the finished latents, and all
 * but the last put noise on it again.
 *
 * Timesteps are picked evenly from the list the model was distilled with. Source: diffusers 0.31.0
 * scheduling_lcm.py. */
#include <errno.h>
#include <math.h>

#include "vk/sample/sched_private.h"

#define SIGMA_DATA 0.5

int sched_lcm_list(struct sched_run *run, struct fault *f)
{
    uint32_t train = run->config->train_steps, n = run->spec.steps;
    uint64_t original = run->spec.original_steps;

    if (original < 1 || original > train)
        return fault_set(f, -EINVAL, "original_inference_steps: %llu is outside 1…%u",
                         (unsigned long long)original, train);
    if (n > original)
        return fault_set(f, -EINVAL, "steps: lcm takes at most %llu for this model, not %u",
                         (unsigned long long)original, n);
    int r = sched_list_new(run, n, false, f);
    for (uint32_t i = 0; i < n && r >= 0; i++) {
        uint64_t index = (uint64_t)floor(i * ((double)original / n)); /* from the highest */
        run->timesteps[i] = (double)((original - index) * (train / original)) - 1;
    }
    return r;
}

void sched_lcm_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    const struct sched_config *c = run->config;
    double t = run->timesteps[call], scaled = t * c->timestep_scaling;
    double a = sched_alpha(run, t, 1), b = 1;
    double square = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
    struct sched_pair clean = sched_vp_clean(run, a);

    if (call + 1 < run->count)
        b = sched_alpha(run, run->timesteps[call + 1], 1);
    row->conv_x = clean.x;
    row->conv_m = clean.m;
    row->clip = c->clip_sample ? c->clip_range : 0;
    row->x_scale = sqrt(b) * SIGMA_DATA * SIGMA_DATA / square;
    row->e_scale[0] = sqrt(b) * scaled / sqrt(square);
    row->noise_scale = sqrt(1 - b);
}
