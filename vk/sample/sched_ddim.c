/* sched_ddim — DDIM; eta adds noise. Source: diffusers 0.6.0 scheduling_ddim.py; 0.31.0 for
 * v-prediction, spacings and the range of the bound. */
#include <math.h>

#include "vk/sample/sched_private.h"

int sched_ddim_list(struct sched_run *run, struct fault *f)
{
    return sched_list_whole(run, run->config->steps_offset, f);
}

/* x' = sqrt(b) x0 + sqrt(1 - b - s^2) noise estimate + s fresh noise, s = eta sqrt(variance). */
void sched_ddim_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    const struct sched_config *c = run->config;
    bool is_one = c->set_alpha_to_one || c->lacks_alpha_to_one;
    double t = run->timesteps[call], a = sched_alpha(run, t, 1);
    double b =
        sched_alpha(run, t - c->train_steps / run->spec.steps, is_one ? 1 : (double)run->alphas[0]);
    double variance = (1 - b) / (1 - a) * (1 - a / b);
    double deviation = run->spec.eta > 0 ? run->spec.eta * sqrt(variance > 0 ? variance : 0) : 0;
    struct sched_pair clean = sched_vp_clean(run, a), noise = sched_vp_noise(run, a);
    double rest = 1 - b - deviation * deviation; /* 0 without signal and eta 1, or rounded below */
    double direction = sqrt(rest > 0 ? rest : 0);

    row->conv_x = clean.x;
    row->conv_m = clean.m;
    row->clip = c->clip_sample ? c->clip_range : 0;
    row->e_scale[0] = sqrt(b);
    row->x_scale = direction * noise.x;
    row->m_scale = direction * noise.m;
    row->noise_scale = deviation;
}
