/* sched_euler — Euler steps in sigma, linspace timesteps. Source: diffusers 0.31.0
 * scheduling_euler_discrete.py with its defaults: the first noise level is that of the first
 * timestep. */
#include <math.h>

#include "vk/sample/sched_private.h"

const char *const sched_euler_classes[] = {"EulerDiscreteScheduler", NULL};

int sched_euler_make(const struct sched_config *c, const struct sched_spec *spec,
                     struct sched_table *ret_table, struct fault *f)
{
    uint32_t steps = spec->steps;
    _cleanup_(freep) double *all = NULL;
    int r = sched_sigmas(c, &all, f);

    if (r >= 0)
        r = sched_table_new(steps, ret_table, f);
    if (r < 0)
        return r;
    double sigma = 0; /* the level the last step ends at */
    for (uint32_t i = steps; i-- > 0;) {
        struct sched_row *row = &ret_table->rows[i];
        double end = sigma;
        /* the reference's timesteps are f32 */
        row->timestep =
            steps > 1 ? (float)((double)(c->train_steps - 1) * (steps - 1 - i) / (steps - 1)) : 0;
        sigma = sched_interpolate(all, c->train_steps, row->timestep);
        row->input_scale = 1 / sqrt(sigma * sigma + 1);
        row->x_scale = 1;
        row->e_scale[0] = end - sigma;
    }
    ret_table->init_noise_sigma = sigma;
    return 0;
}
