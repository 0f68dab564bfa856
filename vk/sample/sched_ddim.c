/* sched_ddim — deterministic DDIM (eta 0). Source: diffusers 0.6.0 scheduling_ddim.py. */
#include <math.h>

#include "vk/sample/sched_private.h"

#define STEPS_OFFSET 1 /* whatever the file says, as the reference's pipeline forces */

const char *const sched_ddim_classes[] = {"DDIMScheduler", NULL};

int sched_ddim_make(const struct sched_config *c, const struct sched_spec *spec,
                    struct sched_table *ret_table, struct fault *f)
{
    uint32_t steps = spec->steps;
    _cleanup_(freep) float *alphas = NULL;
    int ratio = (int)(c->train_steps / steps);

    int r = sched_alphas_cumprod(c, &alphas, f);
    if (r >= 0)
        r = sched_table_new(steps, ret_table, f);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < steps; i++) {
        struct sched_row *row = &ret_table->rows[i];
        int t = (int)(steps - 1 - i) * ratio + STEPS_OFFSET, prev = t - ratio;
        double a = alphas[t];
        double b = prev >= 0 ? alphas[prev] : c->set_alpha_to_one ? 1 : alphas[0];
        /* x0 = (x - sqrt(1-a) e) / sqrt(a), x' = sqrt(b) x0 + sqrt(1-b) e */
        row->timestep = t;
        row->conv_x = 1 / sqrt(a);
        row->conv_m = -sqrt(1 - a) / sqrt(a);
        row->clip = c->clip_sample ? c->clip_range : 0;
        row->e_scale[0] = sqrt(b);
        row->m_scale = sqrt(1 - b);
    }
    return 0;
}
