/* sched_private — what the schedulers' files share. Included by vk/sample only. */
#pragma once

#include "vk/base/cleanup.h"
#include "vk/sample/sched.h"

/* A run while its table is made. Lists cover all calls from pure noise on. */
struct sched_run {
    const struct sched *sched;
    const struct sched_config *config;
    struct sched_spec spec; /* resolved: nothing is _MODEL */
    float *alphas;          /* [train_steps] cumulative product */
    double *timesteps;      /* [count] */
    double *sigmas; /* [count + 1] noise over signal, the last after the last call; or NULL */
    uint32_t count, begin; /* calls; the first one made */
};

/* coefficients of x and of the model's output */
struct sched_pair {
    double x, m;
};

/* --- sched_levels.c --------------------------------------------------------------------------- */

/* beta of training step i, f32 as the reference's. */
float sched_beta(const struct sched_config *c, uint32_t i);

/* run->alphas, rescaled to no signal at the last step where the file and the scheduler have it. */
int sched_run_alphas(struct sched_run *run, struct fault *f);

/* Cumulative alpha before training step t: `final` for t < 0. */
double sched_alpha(const struct sched_run *run, double t, double final);

/* What x holds before list entry `call`; (1, 0) after the last. */
void sched_level(const struct sched_run *run, uint32_t call, double *ret_image, double *ret_noise);

/* Estimates from x and the model's output: of the finished latents (clean), of the noise in them.
 * vp: x = sqrt(a) clean + sqrt(1-a) noise; ve: x = clean + sigma * noise. */
struct sched_pair sched_vp_clean(const struct sched_run *run, double a);
struct sched_pair sched_vp_noise(const struct sched_run *run, double a);
struct sched_pair sched_ve_clean(const struct sched_run *run, double sigma);
struct sched_pair sched_ve_noise(const struct sched_run *run, double sigma);

/* --- sched_spacing.c -------------------------------------------------------------------------- */

/* The i-th of n timesteps, highest first, over the training steps as run->spec.spacing says. Whole
 * numbers but for linspace. n >= 1. */
double sched_spaced(const struct sched_run *run, uint32_t n, uint32_t offset, uint32_t i);

/* Room for `count` timesteps (and, with_sigmas, count + 1 sigmas, zero) in run. */
int sched_list_new(struct sched_run *run, uint32_t count, bool with_sigmas, struct fault *f);

/* steps whole timesteps. */
int sched_list_whole(struct sched_run *run, uint32_t offset, struct fault *f);

/* run->sigmas from run->timesteps; with Karras' both anew. */
int sched_list_sigmas(struct sched_run *run, struct fault *f);

/* `steps` timesteps (f32 as the reference's when `is_f32`) and their sigmas. */
int sched_list_sigma_steps(struct sched_run *run, bool is_f32, struct fault *f);

/* --- lists and rows of the schedulers --------------------------------------------------------- */

int sched_pndm_list(struct sched_run *run, struct fault *f);
int sched_ddim_list(struct sched_run *run, struct fault *f);
int sched_ddpm_list(struct sched_run *run, struct fault *f);
int sched_lms_list(struct sched_run *run, struct fault *f);
int sched_euler_list(struct sched_run *run, struct fault *f);
int sched_dpmpp_2m_list(struct sched_run *run, struct fault *f);
int sched_heun_list(struct sched_run *run, struct fault *f);
int sched_lcm_list(struct sched_run *run, struct fault *f);

void sched_pndm_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_ddim_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_ddpm_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_lms_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_euler_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_euler_a_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_dpmpp_2m_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_heun_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
void sched_lcm_fill(const struct sched_run *run, uint32_t call, struct sched_row *row);
