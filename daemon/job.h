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
#define JOB_ORIGIN_MAX        63u                  /* bytes */
#define JOB_INPUT_BYTES_MAX   (UINT64_C(32) << 20) /* of one picture that is handed in */

enum job_state {
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_DONE,
    JOB_STATE_FAILED,
    JOB_STATE_CANCELLED,
    JOB_STATE_COUNT,
};

#define JOB_SCORES_MAX 32u /* of a safety checker, for one picture */

struct job_picture {
    uint32_t width, height;
    uint64_t seed, bytes; /* bytes: of the PNG */
    char sha256[72];      /* of the PNG, hex */
    uint32_t prompt;      /* which of the request's prompts */
    bool is_checked;      /* by the safety checker: then what follows counts */
    bool is_nsfw, is_blackened;
    uint32_t score_count;
    double scores[JOB_SCORES_MAX]; /* 3 of special care, then 17 concepts */
};

/* The pictures a job starts from, named by the request's rows of type F. */
enum job_input_kind {
    JOB_INPUT_IMAGE,
    JOB_INPUT_MASK,
    JOB_INPUT_COUNT,
};

enum job_format {
    JOB_FORMAT_NONE, /* there is no such picture */
    JOB_FORMAT_PNG,
    JOB_FORMAT_JPEG,
};

struct job_input {
    enum job_format format;
    uint64_t bytes;
    char sha256[72]; /* hex; "" until the spool has it */
    int fd;          /* a regular file or memfd, owned, until the spool has it; -1 */
};

/* The newest look at a picture that is being made. */
struct job_preview {
    int fd; /* sealed memfd with a PNG, owned; -1: none */
    uint32_t picture, step, width, height;
    uint64_t bytes;
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
    struct job_picture pictures[REQUEST_PICTURES_MAX];
    uint32_t picture_total;         /* of a resolved request; 0: not counted yet */
    uint32_t picture_count;         /* complete: 0 … picture_count-1 */
    int held[REQUEST_PICTURES_MAX]; /* memfds of pictures the spool does not have yet, owned; -1 */
    uint64_t fetched;               /* bit k: picture k was handed over */
    struct job_input inputs[JOB_INPUT_COUNT];
    struct job_preview preview;
    uint32_t passed;      /* times a job of the resident model went before it, it being the next */
    uint64_t passed_usec; /* CLOCK_MONOTONIC, since when; 0: never */
    struct fault error;   /* err 0 while all is well */
    struct ARRAY(char *) warnings;
};

/* NULL when out of memory. */
struct job *job_new(uint64_t id, uint32_t owner);
/* A deep copy with descriptors of its own, for another thread. -ENOMEM, -EMFILE, -ENFILE. */
int job_copy(const struct job *job, struct job **ret_copy);
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

/* Closes the descriptors of the inputs, which the spool has now. */
void job_release_inputs(struct job *job);

/* The preview goes, or gives way to a newer one; fd becomes the job's. */
void job_drop_preview(struct job *job);
void job_set_preview(struct job *job, const struct job_preview *preview);

/* The row that names an input; its name in the spool, "" when there is none: "input.png",
 * "input.jpg", "mask.png", "mask.jpg". */
enum request_row_id job_input_row(enum job_input_kind kind);
const char *job_input_name(enum job_input_kind kind, enum job_format format);
/* What a file begins with: at least 8 bytes of it. JOB_FORMAT_NONE when it is neither. */
enum job_format job_input_format(const void *head, size_t size);

/* Puts the inputs' names into the request's rows, so that they count as given. 0; -ENOMEM, but not
 * where the rows have such names already. */
int job_name_inputs(struct job *job);

/* Whether a row has a value to be told: a size that is left to the picture (0) has none. */
bool job_row_is_told(const struct request *q, enum request_row_id row);

/* Pictures it is to make, as far as is known. Counted once the request has all its rows: prompts
 * may be a long list. */
uint32_t job_picture_total(const struct job *job);
void job_count_pictures(struct job *job);

/* Bytes of its pictures and inputs. */
uint64_t job_bytes(const struct job *job);

/* Forgets what a run left behind: progress, pictures, warnings. For a job that is run again. */
void job_rewind(struct job *job);

/* Scheduler calls one picture needs: as reported, else about what the request implies (PNDM: steps
 * + 1, and 1 when steps is 1; from a picture: strength's part of them). */
uint32_t job_calls(const struct job *job);

/* 0 … 1 over all pictures. */
double job_progress(const struct job *job);
