/* sched_pndm — pseudo linear multi-step, without the Runge-Kutta start (skip_prk_steps).
 *
 * n + 1 calls for n steps: the second timestep is visited twice, its second visit starting over
 * from the first sample with the mean of both estimates. One call when n = 1. Source: diffusers
 * 0.6.0 scheduling_pndm.py set_timesteps, step_plms, _get_prev_sample. */
#include <errno.h>
#include <math.h>

#include "vk/sample/sched_private.h"

#define STEPS_OFFSET 1 /* whatever the file says, as the reference's pipeline forces */

const char *const sched_pndm_classes[] = {"PNDMScheduler", NULL};

/* Adams-Bashforth weights by the number of estimates at hand, newest first. */
static const double adams[5][4] = {
    {0},
    {1},
    {3 / 2., -1 / 2.},
    {23 / 12., -16 / 12., 5 / 12.},
    {55 / 24., -59 / 24., 37 / 24., -9 / 24.},
};

struct plms {
    const float *alphas;
    double final_alpha; /* before the first training step */
};

/* x' = x_scale * x + e_scale * e from timestep t to prev. */
static void transfer(const struct plms *p, int t, int prev, double *ret_x_scale,
                     double *ret_e_scale)
{
    double a = p->alphas[t], b = prev >= 0 ? p->alphas[prev] : p->final_alpha;

    *ret_x_scale = sqrt(b / a);
    *ret_e_scale = -(b - a) / (a * sqrt(1 - b) + sqrt(a * (1 - a) * b));
}

/* One call: `t` as told to the U-Net, counted from 0. */
static void fill_row(const struct plms *p, struct sched_row *row, int t, int ratio, uint32_t call)
{
    double e_scale;
    int from = t, to = t - ratio;

    if (call == 1) { /* the repeated timestep: from the one before it, anew */
        from = t + ratio;
        to = t;
    }
    transfer(p, from, to, &row->x_scale, &e_scale);
    row->timestep = t;
    row->save = call == 0;
    row->use_saved = call == 1;
    row->push = call != 1;
    if (call == 1) {
        row->e_scale[0] = row->e_scale[1] = e_scale / 2;
        return;
    }
    uint32_t known = call == 0 ? 1 : call < 4 ? call : 4;
    for (uint32_t k = 0; k < known; k++)
        row->e_scale[k] = e_scale * adams[known][k];
}

int sched_pndm_make(const struct sched_config *c, const struct sched_spec *spec,
                    struct sched_table *ret_table, struct fault *f)
{
    uint32_t steps = spec->steps;
    _cleanup_(freep) float *alphas = NULL;
    int ratio = (int)(c->train_steps / steps);

    if (!c->skip_prk_steps)
        return fault_set(f, -EINVAL,
                         "scheduler pndm: skip_prk_steps false is not supported yet; choose "
                         "another scheduler");
    int r = sched_alphas_cumprod(c, &alphas, f);
    if (r >= 0)
        r = sched_table_new(steps == 1 ? 1 : steps + 1, ret_table, f);
    if (r < 0)
        return r;
    struct plms p = {.alphas = alphas, .final_alpha = c->set_alpha_to_one ? 1 : alphas[0]};
    for (uint32_t call = 0; call < ret_table->count; call++) {
        /* t(n-1), t(n-2), t(n-2), t(n-3) … t0 */
        uint32_t index = call < 2 ? steps - 1 - call : steps - call;
        int t = (int)index * ratio + STEPS_OFFSET;
        fill_row(&p, &ret_table->rows[call], t, ratio, call);
    }
    return 0;
}
