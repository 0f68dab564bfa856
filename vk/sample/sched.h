/* sched — samplers as coefficient tables.
 *
 * Every scheduler here is linear, but for one optional bound: a call maps the current latents x, a
 * saved copy of x, the model's output, up to three older estimates, a running sum of estimates and
 * perhaps fresh noise to the next latents. So a scheduler is a table with one row a call, made on
 * the CPU in double precision; one kernel walks it:
 *
 *     model input = x * input_scale              (before the U-Net, at `timestep`)
 *     m           = U-Net output (guided)
 *     clean       = clean_x * x + clean_m * m    (the estimate of the finished latents: previews)
 *     e0          = conv_x * x + conv_m * m      (what the history keeps: noise, x0 or derivative)
 *     e0          = clamp(e0, -clip, clip)       (unless clip is 0)
 *     base        = use_saved ? saved : x        (PNDM's second call, Heun's second: over again)
 *     next x      = x_scale * base + plain_x * x + m_scale * m + sum_k e_scale[k] * e_k
 *                   + sum_scale * sum + noise_scale * noise
 *                                                (e_k: k-th newest; noise: one draw, torch-like)
 *     sum         = sum_keep * sum + sum_e * e0
 *     saved       = x                            (if save)
 *     e1, e2, e3  = e0, e1, e2                   (if push)
 *     masked inpainting: where the mask keeps, next x = keep_image * original + keep_noise * noise0
 *
 * A product with a zero weight counts as zero whatever the other factor holds.
 *
 * Betas and 1-beta are f32; the cumulative product is accumulated in double, each entry rounded to
 * f32. Source: diffusers 0.6.0 scheduling_{pndm,ddim,lms_discrete,ddpm}.py; 0.31.0 for the others,
 * for v-prediction, for spacings and for Karras sigmas. Pure CPU, no state. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/fault.h"

#define SCHED_HISTORY   3u /* older estimates a row may use */
#define SCHED_TRAIN_MAX 10000u
#define SCHED_CALLS_MAX 1024u /* Heun has 2 * steps - 1 calls */

enum sched_beta_schedule {
    SCHED_BETA_LINEAR,
    SCHED_BETA_SCALED_LINEAR,
    SCHED_BETA_SQUAREDCOS_CAP_V2,
};

/* The words of the request's rows of the same names, in their order. _MODEL: as
 * scheduler_config.json says; a key it lacks, as the scheduler's class has it. */
enum sched_sigmas {
    SCHED_SIGMAS_MODEL,
    SCHED_SIGMAS_DEFAULT,
    SCHED_SIGMAS_KARRAS,
};

enum sched_spacing {
    SCHED_SPACING_MODEL,
    SCHED_SPACING_LEADING,
    SCHED_SPACING_LINSPACE,
    SCHED_SPACING_TRAILING,
};

enum sched_prediction {
    SCHED_PREDICTION_MODEL,
    SCHED_PREDICTION_EPSILON,
    SCHED_PREDICTION_V,
};

/* The keys of scheduler_config.json that the schedulers know; sched_config_default() fills in
 * SD's. */
struct sched_config {
    uint32_t train_steps; /* 1000 */
    double beta_start;    /* 0.00085 */
    double beta_end;      /* 0.012 */
    enum sched_beta_schedule beta_schedule;
    bool set_alpha_to_one; /* false */
    bool clip_sample;      /* false; DDIM, DDPM and LCM bound their estimate of x0 */
    double clip_range;     /* 1 */
    bool skip_prk_steps;   /* true; false: PNDM starts with Runge-Kutta */
    bool lacks_alpha_to_one, lacks_skip_prk; /* a file without the key: as the scheduler's class */
    bool is_zero_snr;                        /* false; rescale_betas_zero_snr */
    bool is_variance_large;                  /* false; variance_type fixed_large of DDPM */
    bool is_karras;                          /* false; use_karras_sigmas */
    bool is_final_sigma_min;    /* false; final_sigmas_type sigma_min; Euler, DPM++ 2M */
    bool lower_order_final;     /* true; DPM++ 2M */
    uint32_t steps_offset;      /* 1 whatever the file says, as the reference's pipelines force */
    uint32_t original_steps;    /* 50; original_inference_steps of LCM */
    double timestep_scaling;    /* 10; LCM */
    enum sched_spacing spacing; /* SCHED_SPACING_MODEL: the file has none */
    enum sched_prediction prediction; /* never SCHED_PREDICTION_MODEL */
    const float *trained_betas;       /* NULL, or train_steps values; not owned */
};

/* What a run asks of a scheduler. All-zero but sched and steps is a plain txt2img run. */
struct sched_spec {
    uint32_t sched; /* index in scheds[] */
    uint32_t steps; /* 1…train_steps, if the list leaves no training step out of range */
    double eta;     /* DDIM: 0 deterministic … 1 as noisy as DDPM; others ignore it */
    enum sched_sigmas sigmas;
    enum sched_spacing spacing;
    enum sched_prediction prediction;
    uint64_t original_steps; /* LCM; 0: the model's */
    bool compat;             /* as diffusers 0.6.0 where it differs: DDPM, starts, kept areas */
    bool from_image;         /* start inside the list, as `strength` says */
    bool is_inpaint;         /* with from_image: strength 1 starts from noise alone */
    double strength;         /* 0…1, with from_image; 0: no calls, the picture as it is */
};

struct sched_row {
    double timestep;    /* what the U-Net is told; may be fractional */
    double input_scale; /* of x before the U-Net */
    double conv_x, conv_m, clip;
    double x_scale, plain_x, m_scale;
    double e_scale[SCHED_HISTORY + 1]; /* newest first; [0] is this call's own estimate */
    double sum_scale, sum_keep, sum_e;
    double noise_scale; /* 0: draws none */
    bool use_saved, save, push;
    double clean_x, clean_m;
    double keep_image, keep_noise; /* masked inpainting, after this call */
};

struct sched_table {
    struct sched_row *rows;
    uint32_t count;          /* scheduler calls */
    double init_noise_sigma; /* without from_image: first latents = init_noise_sigma * noise */
    double start_image, start_noise; /* with it: start_image * original + start_noise * noise */
};

/* In the order of the request's row `scheduler`. */
enum sched_id {
    SCHED_PNDM,
    SCHED_DDIM,
    SCHED_LMS,
    SCHED_EULER,
    SCHED_DDPM,
    SCHED_EULER_A,
    SCHED_DPMPP_2M,
    SCHED_HEUN,
    SCHED_LCM,
    SCHED_COUNT,
};

struct sched_run;

/* What a scheduler is; sched_make() does what is common to all. */
struct sched {
    const char *name;           /* as in request.def */
    const char *class_names;    /* _class_name values of scheduler_config.json, blank separated */
    enum sched_spacing spacing; /* where the file has none */
    uint32_t order;             /* list entries a step: where a strength may start */
    bool is_sigma;              /* x = original + sigma * noise; else of variance one */
    bool has_own_list;          /* spacing is not known */
    bool has_karras, has_zero_snr;
    int compat_offset; /* of 0.6.0's strength rule: its steps_offset; -1: as today */
    /* makes run->timesteps, run->count and, unless noise levels follow from the timesteps,
     * run->sigmas */
    int (*list)(struct sched_run *run, struct fault *f);
    /* fills a fresh row (input_scale, conv_m 1) for list entry `call` >= run->begin */
    void (*fill)(const struct sched_run *run, uint32_t call, struct sched_row *row);
};

extern const struct sched scheds[SCHED_COUNT];

struct sched_config sched_config_default(void);

/* Reads scheduler_config.json's text: keys it knows, others are ignored. *ret_sched is the index in
 * scheds[] of its _class_name, -1 when we do not have that class (the caller warns and takes pndm).
 * Keys that change every picture and are not built are refused. trained_betas given as a list is
 * stored in *ret_betas (malloc'd, caller frees; NULL without). -EINVAL + fault naming the key for a
 * wrong type or value. */
int sched_config_parse(const char *json, size_t length, struct sched_config *ret_config,
                       int *ret_sched, float **ret_betas, struct fault *f);

/* alphas_cumprod, train_steps entries, malloc'd, before is_zero_snr. -ENOMEM, -EINVAL. */
int sched_alphas_cumprod(const struct sched_config *config, float **ret_alphas, struct fault *f);

/* -EINVAL + fault naming the row of the request for what the scheduler cannot do.
 * sched_table_done() frees the rows. */
int sched_make(const struct sched_spec *spec, const struct sched_config *config,
               struct sched_table *ret_table, struct fault *f);
void sched_table_done(struct sched_table *table);
