#include "daemon/job.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
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
    for (uint32_t i = 0; i < REQUEST_COUNT_MAX; i++)
        job->held[i] = -1;
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
    for (uint32_t i = 0; i < REQUEST_COUNT_MAX; i++)
        job_release_picture(job, i);
    request_done(&job->request);
    drop_warnings(job);
    free(job);
    return NULL;
}

/* What job_new() made stays its own: lists, descriptors, the request. */
static void copy_values(const struct job *from, struct job *to)
{
    struct job own = *to;

    *to = *from;
    to->request = own.request;
    to->warnings.items = NULL;
    to->warnings.count = to->warnings.capacity = 0;
    memcpy(to->held, own.held, sizeof own.held);
}

static int copy_held(const struct job *from, struct job *to)
{
    for (uint32_t i = 0; i < REQUEST_COUNT_MAX; i++) {
        if (from->held[i] < 0)
            continue;
        to->held[i] = fcntl(from->held[i], F_DUPFD_CLOEXEC, 3);
        if (to->held[i] < 0)
            return -errno;
    }
    return 0;
}

struct job *job_copy(const struct job *job)
{
    _cleanup_(job_freep) struct job *copy = job_new(job->id, job->owner);

    if (!copy)
        return NULL;
    copy_values(job, copy);
    if (request_copy(&job->request, &copy->request) < 0 || copy_held(job, copy) < 0)
        return NULL;
    for (size_t i = 0; i < job->warnings.count; i++)
        if (job_add_warning(copy, job->warnings.items[i]) < 0)
            return NULL;
    return TAKE_PTR(copy);
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

void job_release_picture(struct job *job, uint32_t index)
{
    closep(&job->held[index]);
    job->held[index] = -1;
}

uint64_t job_bytes(const struct job *job)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < job->picture_count; i++)
        bytes += job->pictures[i].bytes;
    return bytes;
}

void job_rewind(struct job *job)
{
    for (uint32_t i = 0; i < REQUEST_COUNT_MAX; i++)
        job_release_picture(job, i);
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
