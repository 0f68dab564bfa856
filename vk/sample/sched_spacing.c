/* sched_spacing — which training steps are visited, and the noise levels of those that lie between
 * two. Rounding follows numpy, whose halves matter: linspace is i * step, arange start + i * delta.
 * Source: set_timesteps, _convert_to_karras, _sigma_to_t of diffusers 0.31.0's schedulers. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "vk/sample/sched_private.h"

#define KARRAS_RHO 7

double sched_spaced(const struct sched_run *run, uint32_t n, uint32_t offset, uint32_t i)
{
    uint32_t train = run->config->train_steps, from_low = n - 1 - i;

    switch (run->spec.spacing) {
    case SCHED_SPACING_TRAILING: {
        double ratio = (double)train / n, delta = (train - ratio) - train;
        return rint(train + i * delta) - 1;
    }
    case SCHED_SPACING_LINSPACE:
        if (n == 1)
            return 0;
        return i == 0 ? train - 1 : from_low * ((double)(train - 1) / (n - 1));
    default:
        return (double)from_low * (train / n) + offset;
    }
}

int sched_list_new(struct sched_run *run, uint32_t count, bool with_sigmas, struct fault *f)
{
    free(run->timesteps);
    free(run->sigmas);
    run->count = count;
    run->timesteps = calloc((size_t)count + 1, sizeof *run->timesteps);
    run->sigmas = with_sigmas ? calloc((size_t)count + 1, sizeof *run->sigmas) : NULL;
    if (!run->timesteps || (with_sigmas && !run->sigmas))
        return fault_set(f, -ENOMEM, "out of memory");
    return 0;
}

int sched_list_whole(struct sched_run *run, uint32_t offset, struct fault *f)
{
    uint32_t n = run->spec.steps;
    int r = sched_list_new(run, n, false, f);

    for (uint32_t i = 0; i < n && r >= 0; i++)
        run->timesteps[i] = rint(sched_spaced(run, n, offset, i));
    return r;
}

/* --- sigmas ----------------------------------------------------------------------------------- */

static double sigma_at(const struct sched_run *run, double t)
{
    uint32_t last = run->config->train_steps - 1, low = t > 0 ? (uint32_t)t : 0;

    if (low >= last)
        return sqrt((1 - (double)run->alphas[last]) / run->alphas[last]);
    double a = run->alphas[low], b = run->alphas[low + 1];
    double from = sqrt((1 - a) / a), to = sqrt((1 - b) / b);
    return t > low ? from + (t - low) * (to - from) : from;
}

/* The reference's table of logarithms is f32, and its rounding is seen in Karras' timesteps. */
static double log_sigma(const struct sched_run *run, uint32_t i)
{
    float a = run->alphas[i];

    return (float)log((double)sqrtf((1 - a) / a));
}

/* The training step, fractional, whose sigma this is: linear in the logarithm. */
static double timestep_of(const struct sched_run *run, double sigma)
{
    double wanted = log(sigma > 1e-10 ? sigma : 1e-10);
    uint32_t low = 0, high = run->config->train_steps - 1;

    while (high - low > 1) { /* sigmas rise with the training step */
        uint32_t middle = low + (high - low) / 2;
        if (log_sigma(run, middle) <= wanted)
            low = middle;
        else
            high = middle;
    }
    double from = log_sigma(run, low), to = log_sigma(run, high), w = (from - wanted) / (from - to);
    w = w < 0 ? 0 : w > 1 ? 1 : w;
    return (1 - w) * low + w * high;
}

/* From the highest sigma to the lowest, evenly in their seventh root. */
static void karras(struct sched_run *run, double highest, double lowest)
{
    uint32_t n = run->count;
    double from = pow(highest, 1. / KARRAS_RHO), to = pow(lowest, 1. / KARRAS_RHO);

    for (uint32_t i = 0; i < n; i++) {
        double ramp = n > 1 ? (double)i / (n - 1) : 0;
        run->sigmas[i] = pow(from + ramp * (to - from), KARRAS_RHO);
        run->timesteps[i] = timestep_of(run, run->sigmas[i]);
    }
}

int sched_list_sigmas(struct sched_run *run, struct fault *f)
{
    uint32_t n = run->count, last = run->config->train_steps - 1;

    free(run->sigmas);
    run->sigmas = calloc((size_t)n + 1, sizeof *run->sigmas);
    if (!run->sigmas)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n; i++)
        run->sigmas[i] = sigma_at(run, run->timesteps[i]);
    if (run->spec.sigmas != SCHED_SIGMAS_KARRAS)
        return 0;
    if (run->spec.sched != SCHED_DPMPP_2M) {
        karras(run, run->sigmas[0], run->sigmas[n - 1]);
        return 0;
    }
    karras(run, sigma_at(run, last), sigma_at(run, 0)); /* whole timesteps, of the whole range */
    for (uint32_t i = 0; i < n; i++)
        run->timesteps[i] = rint(run->timesteps[i]);
    return 0;
}

int sched_list_sigma_steps(struct sched_run *run, bool is_f32, struct fault *f)
{
    uint32_t n = run->spec.steps;
    int r = sched_list_new(run, n, false, f);

    for (uint32_t i = 0; i < n && r >= 0; i++) {
        double t = sched_spaced(run, n, run->config->steps_offset, i);
        run->timesteps[i] = is_f32 ? (float)t : t;
    }
    return r < 0 ? r : sched_list_sigmas(run, f);
}
