/* sched_euler — Euler steps in sigma, plain and ancestral. Source: diffusers 0.31.0
 * scheduling_euler_discrete.py and scheduling_euler_ancestral_discrete.py. */
#include <math.h>

#include "vk/sample/sched_private.h"

int sched_euler_list(struct sched_run *run, struct fault *f)
{
    int r = sched_list_sigma_steps(run, true, f);

    if (r >= 0 && run->config->is_final_sigma_min && run->spec.sched == SCHED_EULER)
        run->sigmas[run->count] = sqrt((1 - (double)run->alphas[0]) / run->alphas[0]);
    return r;
}

/* x' = x + derivative * (to - sigma). */
static void step_to(const struct sched_run *run, double sigma, double to, struct sched_row *row)
{
    struct sched_pair derivative = sched_ve_noise(run, sigma);

    row->x_scale = 1 + (to - sigma) * derivative.x;
    row->m_scale = (to - sigma) * derivative.m;
}

void sched_euler_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    step_to(run, run->sigmas[call], run->sigmas[call + 1], row);
}

/* Further down than the next level, and up to it with fresh noise. */
void sched_euler_a_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    double sigma = run->sigmas[call], next = run->sigmas[call + 1];
    double fall = 1 - (next / sigma) * (next / sigma);
    double up = next * sqrt(fall > 0 ? fall : 0);

    step_to(run, sigma, sqrt(next * next - up * up), row);
    row->noise_scale = up;
}
