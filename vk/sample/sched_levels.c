/* sched_levels — how much noise a training step holds. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "vk/sample/sched_private.h"

/* What Euler, Euler-a and DPM++ 2M put for the zero of a schedule without signal at its end: half
 * precision's smallest number. */
#define ZERO_SNR_ALPHA 0x1p-24f

/* torch.linspace in f32, bit for bit: symmetric from both ends, each a fused multiply-add. */
static float linspace(float first, float last, uint32_t n, uint32_t i)
{
    double step = (double)((last - first) / (float)(n - 1));

    return (float)(i < n / 2 ? (double)first + step * i : (double)last - step * (n - 1 - i));
}

static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);

    return c * c;
}

float sched_beta(const struct sched_config *c, uint32_t i)
{
    uint32_t n = c->train_steps;

    if (c->trained_betas)
        return c->trained_betas[i];
    if (c->beta_schedule == SCHED_BETA_LINEAR)
        return linspace((float)c->beta_start, (float)c->beta_end, n, i);
    if (c->beta_schedule == SCHED_BETA_SCALED_LINEAR) {
        float root = linspace((float)sqrt(c->beta_start), (float)sqrt(c->beta_end), n, i);
        return root * root;
    }
    double beta = 1 - cosine_alpha_bar((i + 1.0) / n) / cosine_alpha_bar((double)i / n);
    return (float)(beta < 0.999 ? beta : 0.999);
}

int sched_alphas_cumprod(const struct sched_config *c, float **ret_alphas, struct fault *f)
{
    double product = 1;

    if (c->train_steps < 2 || c->train_steps > SCHED_TRAIN_MAX)
        return fault_set(f, -EINVAL, "num_train_timesteps: %u is outside 2…%u", c->train_steps,
                         SCHED_TRAIN_MAX);
    _cleanup_(freep) float *alphas = calloc(c->train_steps, sizeof *alphas);
    if (!alphas)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < c->train_steps; i++) {
        product *= 1 - sched_beta(c, i); /* the factor is f32, the product double */
        alphas[i] = (float)product;
        if (!(alphas[i] > 0 && alphas[i] < 1))
            return fault_set(f, -EINVAL, "scheduler: the betas leave no %s at training step %u",
                             alphas[i] > 0 ? "noise" : "signal", i);
    }
    *ret_alphas = TAKE_PTR(alphas);
    return 0;
}

/* In place: shifted and scaled so that the last step has no signal and the first stays, with f32
 * rounding where the reference has it. Source: rescale_zero_terminal_snr of diffusers 0.31.0. */
static void rescale(float *alphas, uint32_t n, bool is_sigma)
{
    float first = sqrtf(alphas[0]), last = sqrtf(alphas[n - 1]), before = 1;
    double product = 1;

    for (uint32_t i = 0; i < n; i++) {
        float root = (sqrtf(alphas[i]) - last) * (first / (first - last)), bar = root * root;
        float beta = 1 - bar / before;
        product *= 1 - beta;
        alphas[i] = (float)product;
        before = bar;
    }
    if (is_sigma)
        alphas[n - 1] = ZERO_SNR_ALPHA;
}

int sched_run_alphas(struct sched_run *run, struct fault *f)
{
    const struct sched_config *c = run->config;
    int r = sched_alphas_cumprod(c, &run->alphas, f);

    if (r < 0)
        return r;
    if (c->is_zero_snr && run->sched->has_zero_snr)
        rescale(run->alphas, c->train_steps,
                run->sched->is_sigma || run->spec.sched == SCHED_DPMPP_2M);
    return 0;
}

double sched_alpha(const struct sched_run *run, double t, double final)
{
    uint32_t last = run->config->train_steps - 1;

    if (t < 0)
        return final;
    return run->alphas[t < last ? (uint32_t)t : last];
}

void sched_level(const struct sched_run *run, uint32_t call, double *ret_image, double *ret_noise)
{
    *ret_image = 1;
    *ret_noise = 0;
    if (call >= run->count)
        return;
    if (run->sigmas) {
        double s = run->sigmas[call], root = sqrt(s * s + 1);
        *ret_image = run->sched->is_sigma ? 1 : 1 / root;
        *ret_noise = run->sched->is_sigma ? s : s / root;
        return;
    }
    double a = sched_alpha(run, run->timesteps[call], 1);
    *ret_image = sqrt(a);
    *ret_noise = sqrt(1 - a);
}

/* --- what the model's output means ------------------------------------------------------------ */

struct sched_pair sched_vp_clean(const struct sched_run *run, double a)
{
    if (run->spec.prediction == SCHED_PREDICTION_V)
        return (struct sched_pair){sqrt(a), -sqrt(1 - a)};
    return (struct sched_pair){1 / sqrt(a), -sqrt(1 - a) / sqrt(a)};
}

struct sched_pair sched_vp_noise(const struct sched_run *run, double a)
{
    if (run->spec.prediction == SCHED_PREDICTION_V)
        return (struct sched_pair){sqrt(1 - a), sqrt(a)};
    return (struct sched_pair){0, 1};
}

struct sched_pair sched_ve_clean(const struct sched_run *run, double sigma)
{
    double square = sigma * sigma + 1;

    if (run->spec.prediction == SCHED_PREDICTION_V)
        return (struct sched_pair){1 / square, -sigma / sqrt(square)};
    return (struct sched_pair){1, -sigma};
}

struct sched_pair sched_ve_noise(const struct sched_run *run, double sigma)
{
    double square = sigma * sigma + 1;

    if (run->spec.prediction == SCHED_PREDICTION_V)
        return (struct sched_pair){sigma / square, 1 / sqrt(square)};
    return (struct sched_pair){0, 1};
}
