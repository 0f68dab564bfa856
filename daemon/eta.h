/* eta — how long jobs take, from steps measured on this device. Pure.
 *
 * Cost is counted in pixel evaluations: width * height * U-Net evaluations (two a step with
 * guidance). Attention grows faster than that, so a job's own steps replace the estimate as soon as
 * it has some. */
#pragma once

#include <stdint.h>

#include "daemon/job.h"

/* All-zero: nothing measured yet. */
struct eta {
    double step_cost;   /* usec per pixel evaluation, moving average over jobs */
    double finish_cost; /* usec per pixel from a picture's last step to its arrival */
    uint64_t job;       /* the job `last_usec` and `step_usec` belong to */
    uint64_t last_usec; /* CLOCK_MONOTONIC of its start, last step or picture; 0: none */
    double step_usec;   /* its own moving average, 0 until the first step */
};

void eta_on_start(struct eta *eta, const struct job *job, uint64_t now_usec);
/* After job->step was set. */
void eta_on_step(struct eta *eta, const struct job *job, uint64_t now_usec);
void eta_on_picture(struct eta *eta, const struct job *job, uint64_t now_usec);

/* Left for this job alone once it runs; 0 when ended, JOB_ETA_UNKNOWN while nothing is known. */
uint64_t eta_left(const struct eta *eta, const struct job *job);
