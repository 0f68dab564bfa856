/* sched — samplers as coefficient tables.
 *
 * Every scheduler here is linear, but for one optional bound: a call maps the current latents x, a
 * saved copy of x, the newest noise estimate e0 and up to three older ones to the next latents. So
 * a scheduler is a table with one row a call, made on the CPU in double precision; one kernel walks
 * it:
 *
 *     model input  = x * input_scale            (before the U-Net, at `timestep`)
 *     e0           = U-Net output (guided)
 *     base         = use_saved ? saved : x      (PNDM's second call starts over from the first
 *     sample)
 *     if (clip) base = clamp(clip_x * base + clip_e * e0, -1, 1)      (DDIM's bounded estimate of
 *     x0)
 *     if (save) saved = x
 *     next x       = x_scale * base + sum over k of e_scale[k] * e_k     (e_k: k-th newest
 *     estimate)
 *     if (push) the history becomes e0, e1, e2, …
 *
 * Betas and 1-beta are f32; the cumulative product is accumulated in double, each entry rounded to
 * f32. Source: diffusers 0.6.0 scheduling_{pndm,ddim,lms_discrete}.py, 0.31.0 for Euler. Pure CPU,
 * no state. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/fault.h"

#define SCHED_HISTORY   3u /* older estimates a row may use */
#define SCHED_TRAIN_MAX 10000u

enum sched_beta_schedule {
    SCHED_BETA_LINEAR,
    SCHED_BETA_SCALED_LINEAR,
    SCHED_BETA_SQUAREDCOS_CAP_V2,
};

/* The keys of scheduler_config.json that the schedulers know; sched_config_default() fills in
 * SD's. */
struct sched_config {
    uint32_t train_steps; /* 1000 */
    double beta_start;    /* 0.00085 */
    double beta_end;      /* 0.012 */
    enum sched_beta_schedule beta_schedule;
    bool set_alpha_to_one;      /* false */
    bool clip_sample;           /* false; DDIM bounds its estimate of the picture with it */
    bool skip_prk_steps;        /* true; the Runge-Kutta start is not built yet */
    const float *trained_betas; /* NULL, or train_steps values; not owned */
};

struct sched_row {
    double timestep;    /* what the U-Net is told; fractional for LMS and Euler */
    double input_scale; /* of x before the U-Net */
    double x_scale;
    double e_scale[SCHED_HISTORY + 1]; /* newest first; [0] is this call's own estimate */
    bool use_saved, save, push, clip;
    double clip_x, clip_e; /* with clip */
};

struct sched_table {
    struct sched_row *rows;
    uint32_t count; /* scheduler calls: steps + 1 for PNDM (1 when steps = 1), else steps */
    double init_noise_sigma; /* the raw draw is multiplied by it */
};

struct sched {
    const char *name; /* as in request.def */
    const char *const
        *class_names; /* _class_name values of scheduler_config.json, NULL-terminated */
    int (*make)(const struct sched_config *config, uint32_t steps, struct sched_table *ret_table,
                struct fault *f);
};

/* In the order of enum scheduler_kind; SCHED_COUNT entries. */
#define SCHED_COUNT 4u
extern const struct sched scheds[SCHED_COUNT];

struct sched_config sched_config_default(void);

/* Reads scheduler_config.json's text: keys it knows, others are ignored. *ret_sched is the index in
 * scheds[] of its _class_name, -1 when we do not have that class (the caller warns and takes pndm).
 * Keys that change every picture and are not built yet (prediction_type other than epsilon …) are
 * refused. trained_betas given as a list is stored in *ret_betas (malloc'd, caller frees; NULL
 * without). -EINVAL + fault naming the key for a wrong type or value. */
int sched_config_parse(const char *json, size_t length, struct sched_config *ret_config,
                       int *ret_sched, float **ret_betas, struct fault *f);

/* alphas_cumprod, train_steps entries, malloc'd. -ENOMEM, -EINVAL. */
int sched_alphas_cumprod(const struct sched_config *config, float **ret_alphas, struct fault *f);

/* steps is 1…train_steps-1 (-EINVAL else). sched_table_done() frees the rows. */
int sched_make(uint32_t sched, const struct sched_config *config, uint32_t steps,
               struct sched_table *ret_table, struct fault *f);
void sched_table_done(struct sched_table *table);
