#include "daemon/eta.h"

#define WEIGHT 0.2 /* of the newest measure in a moving average */

static double pixels_of(const struct job *job)
{
    return (double)job->request.width * job->request.height;
}

static double evaluations_of(const struct job *job)
{
    return pixels_of(job) * (job->request.guidance_scale > 1 ? 2 : 1);
}

static void average(double *value, double measure)
{
    *value = *value > 0 ? *value + WEIGHT * (measure - *value) : measure;
}

/* Time since the last event of this job; 0 when there was none. */
static double lap(struct eta *eta, const struct job *job, uint64_t now_usec)
{
    uint64_t since = eta->last_usec;

    eta->last_usec = now_usec;
    if (eta->job != job->id || since == 0 || now_usec < since)
        return 0;
    return (double)(now_usec - since);
}

void eta_on_start(struct eta *eta, const struct job *job, uint64_t now_usec)
{
    eta->job = job->id;
    eta->last_usec = now_usec;
    eta->step_usec = 0;
}

void eta_on_step(struct eta *eta, const struct job *job, uint64_t now_usec)
{
    double usec = lap(eta, job, now_usec);

    if (usec <= 0)
        return;
    average(&eta->step_usec, usec);
    if (evaluations_of(job) > 0) /* else as large as its picture, which is the worker's to know */
        average(&eta->step_cost, usec / evaluations_of(job));
}

void eta_on_picture(struct eta *eta, const struct job *job, uint64_t now_usec)
{
    double usec = lap(eta, job, now_usec);

    if (usec > 0 && pixels_of(job) > 0)
        average(&eta->finish_cost, usec / pixels_of(job));
}

uint64_t eta_left(const struct eta *eta, const struct job *job)
{
    bool own = eta->job == job->id && eta->step_usec > 0;
    double step = own ? eta->step_usec : eta->step_cost * evaluations_of(job);
    double all = (double)job_picture_total(job) * job_calls(job);
    double done = (double)job->picture * job_calls(job) + job->step;

    if (job_state_is_final(job->state))
        return 0;
    if (step <= 0 || all <= 0)
        return JOB_ETA_UNKNOWN;
    double pictures = (double)job_picture_total(job) - job->picture_count;
    double left = (all > done ? all - done : 0) * step;
    return (uint64_t)(left + pictures * eta->finish_cost * pixels_of(job));
}
