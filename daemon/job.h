/* job — one request on its way from Submit to Delete: its states, and what is known about it.
 *
 * A job is a plain value without I/O: manager.c changes it, spool.c keeps it on disk, dbus/ shows
 * it. The state changes only along the transition table. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/pipeline/request.h"

#define JOB_WARNINGS_MAX      32u
#define JOB_DEATHS_MAX        2u /* workers that may die under one job */
#define JOB_INTERRUPTIONS_MAX 5u /* starts that ended with the manager, not with the worker */
#define JOB_ETA_UNKNOWN       UINT64_MAX
#define JOB_ORIGIN_MAX        63u /* bytes */

enum job_state {
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_DONE,
    JOB_STATE_FAILED,
    JOB_STATE_CANCELLED,
    JOB_STATE_COUNT,
};

struct job_picture {
    uint32_t width, height;
    uint64_t seed, bytes; /* bytes: of the PNG */
    char sha256[72];      /* of the PNG, hex */
};

struct job {
    uint64_t id;
    uint32_t owner; /* uid */
    enum job_state state;
    struct request request;
    bool is_resolved;   /* every row has its value and was checked against the model */
    bool is_cancelling; /* running, and asked to stop */
    bool is_moving;     /* a change of it is on its way to the disk */
    bool is_unsaved;    /* ended, but the disk does not have it yet */
    uint64_t created_usec, started_usec,
        finished_usec; /* wall clock, for display only; 0: not yet */
    /* In the service's own uptime, which no clock change moves and restarts go on with. */
    uint64_t deadline_uptime_usec, finished_uptime_usec; /* 0: none, not yet */
    char origin[JOB_ORIGIN_MAX + 1];                     /* "": the bus; "drop:KEY" */
    uint32_t starts, deaths;       /* times started; workers that died under it */
    uint32_t picture, step, steps; /* of the current picture; steps 0 until the first one */
    struct job_picture pictures[REQUEST_COUNT_MAX];
    uint32_t picture_count;      /* complete: 0 … picture_count-1 */
    int held[REQUEST_COUNT_MAX]; /* memfds of pictures the spool does not have yet, owned; -1 */
    uint32_t fetched;            /* bit k: picture k was handed over */
    struct fault error;          /* err 0 while all is well */
    struct ARRAY(char *) warnings;
};

/* NULL when out of memory. */
struct job *job_new(uint64_t id, uint32_t owner);
/* A deep copy with descriptors of its own, for another thread; NULL when out of either. */
struct job *job_copy(const struct job *job);
struct job *job_free(struct job *job);
DEFINE_FREEP(struct job *, job_free)

const char *job_state_to_string(enum job_state state);
/* -EINVAL when unknown. */
int job_state_from_string(const char *text, enum job_state *ret_state);
bool job_state_is_final(enum job_state state);
bool job_state_may_follow(enum job_state from, enum job_state to);

/* Asserts that the transition is legal: callers ask first where they cannot know. */
void job_set_state(struct job *job, enum job_state state);

/* Keeps a copy; the same text once, at most JOB_WARNINGS_MAX. 0 or -ENOMEM. */
int job_add_warning(struct job *job, const char *text);

/* Closes the memfd of a picture that the spool has now. */
void job_release_picture(struct job *job, uint32_t index);

/* Bytes of its pictures. */
uint64_t job_bytes(const struct job *job);

/* Forgets what a run left behind: progress, pictures, warnings. For a job that is run again. */
void job_rewind(struct job *job);

/* Scheduler calls one picture needs: as reported, else what the request implies (PNDM: steps + 1,
 * and 1 when steps is 1). */
uint32_t job_calls(const struct job *job);

/* 0 … 1 over all pictures. */
double job_progress(const struct job *job);
