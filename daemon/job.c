#include "daemon/job.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const char *const state_names[JOB_STATE_COUNT] = {
    [JOB_STATE_QUEUED] = "queued", [JOB_STATE_RUNNING] = "running",     [JOB_STATE_DONE] = "done",
    [JOB_STATE_FAILED] = "failed", [JOB_STATE_CANCELLED] = "cancelled",
};

#define TO(state) (1u << JOB_STATE_##state)

/* Row: from; bits: the states that may follow. Running goes back to queued when its worker died. */
static const unsigned transitions[JOB_STATE_COUNT] = {
    [JOB_STATE_QUEUED] = TO(RUNNING) | TO(FAILED) | TO(CANCELLED),
    [JOB_STATE_RUNNING] = TO(QUEUED) | TO(DONE) | TO(FAILED) | TO(CANCELLED),
};

struct job *job_new(uint64_t id, uint32_t owner)
{
    struct job *job = calloc(1, sizeof *job);

    if (!job)
        return NULL;
    job->id = id;
    job->owner = owner;
    return job;
}

static void drop_warnings(struct job *job)
{
    for (size_t i = 0; i < job->warnings.count; i++)
        free(job->warnings.items[i]);
    array_done(&job->warnings);
}

struct job *job_free(struct job *job)
{
    if (!job)
        return NULL;
    request_done(&job->request);
    drop_warnings(job);
    free(job);
    return NULL;
}

const char *job_state_to_string(enum job_state state)
{
    return state_names[state];
}

int job_state_from_string(const char *text, enum job_state *ret_state)
{
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
        if (strcmp(state_names[i], text) != 0)
            continue;
        *ret_state = (enum job_state)i;
        return 0;
    }
    return -EINVAL;
}

bool job_state_is_final(enum job_state state)
{
    return transitions[state] == 0;
}

bool job_state_may_follow(enum job_state from, enum job_state to)
{
    return transitions[from] >> to & 1;
}

void job_set_state(struct job *job, enum job_state state)
{
    assert(job_state_may_follow(job->state, state));
    job->state = state;
}

int job_add_warning(struct job *job, const char *text)
{
    for (size_t i = 0; i < job->warnings.count; i++)
        if (strcmp(job->warnings.items[i], text) == 0)
            return 0;
    if (job->warnings.count >= JOB_WARNINGS_MAX)
        return 0;
    _cleanup_(freep) char *copy = strdup(text);
    char **slot = copy ? array_push(&job->warnings) : NULL;
    if (!slot)
        return -ENOMEM;
    *slot = TAKE_PTR(copy);
    return 0;
}

void job_rewind(struct job *job)
{
    job->picture = job->step = job->steps = 0;
    job->picture_count = 0;
    job->is_cancelling = false;
    drop_warnings(job);
}

uint32_t job_calls(const struct job *job)
{
    const struct request *q = &job->request;

    if (job->steps)
        return job->steps;
    if (!request_is_set(q, REQUEST_steps))
        return 0;
    if (q->scheduler == SCHEDULER_PNDM && q->steps > 1)
        return q->steps + 1;
    return q->steps;
}

double job_progress(const struct job *job)
{
    uint32_t calls = job_calls(job);

    if (job->state == JOB_STATE_DONE)
        return 1;
    if (calls == 0 || job->request.count == 0)
        return 0;
    double done = (double)job->picture * calls + job->step;
    double all = (double)job->request.count * calls;
    return done < all ? done / all : 1;
}
