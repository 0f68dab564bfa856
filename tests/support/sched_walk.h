/* sched_walk — a scheduler's table walked in double precision, on the made-up model of the goldens:
 * it returns in * t / (t + 1) of its (scaled) input. The sample, or the picture to start from, is
 * arange(768)/768 laid out (3,8,8,4) and permuted to (4,3,8,8). */
#pragma once

#include "vk/sample/sched.h"

#define WALK_SAMPLE 768u

struct walk {
    double x[WALK_SAMPLE], saved[WALK_SAMPLE], sum[WALK_SAMPLE];
    double history[SCHED_HISTORY][WALK_SAMPLE];
    double original[WALK_SAMPLE], original_noise[WALK_SAMPLE];
    double clean[WALK_SAMPLE];
    float noise[WALK_SAMPLE]; /* of this call */
    bool is_masked;           /* by pixel: painted, kept, half kept */
    bool is_fed_scaled;       /* the scaled sample goes on, as in diffusers' own tests */
};

/* x = the sample * init_noise_sigma; all else zero. */
void walk_start(struct walk *w, double init_noise_sigma);

/* x = start_image * the sample + start_noise * original_noise. */
void walk_start_from(struct walk *w, const struct sched_table *table);

/* One scheduler call. */
void walk_call(struct walk *w, const struct sched_row *row);

double walk_sum(const struct walk *w); /* of |x| */
