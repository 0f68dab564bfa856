/* event — what happened, for people and for programs that read the journal.
 *
 * Each kind of event is a row of events.def with a level and a MESSAGE_ID that never changes. When
 * standard error is the journal (JOURNAL_STREAM), an event goes there with the fields MESSAGE_ID,
 * DIFFUSED_EVENT and, where known, DIFFUSED_JOB_ID, DIFFUSED_UID and DIFFUSED_STEP; anywhere else
 * it is the plain line of vk/base/log.h. What is no event of its own (details, debugging) stays a
 * log_line(). No prompt, no word of a prompt, ever:
 *
 *     event_log(EVENT_JOB_QUEUED, event_of_job(job->id, job->owner), "job %" PRIu64 ": queued", …);
 *     event_log(EVENT_BOARD_HOT, EVENT_OF_NONE, "%s is at %d °C", zone, degrees); */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vk/base/log.h"

enum event_kind {
#define EVENT_ROW(name, ...) EVENT_##name,
#include "daemon/events.def"
#undef EVENT_ROW
    EVENT_KIND_COUNT,
};

struct event_row {
    const char *name; /* as DIFFUSED_EVENT says it */
    enum log_level level;
    const char *message_id; /* 32 hexadecimal digits */
    const char *what;
};

/* What an event is about; nothing is sent of what it does not have. */
struct event_fields {
    bool has_job, has_uid, has_step;
    uint64_t job;
    uint32_t uid, step;
};

#define EVENT_OF_NONE ((struct event_fields){0})

static inline struct event_fields event_of_job(uint64_t job, uint32_t owner)
{
    return (struct event_fields){.has_job = true, .job = job, .has_uid = true, .uid = owner};
}

static inline struct event_fields event_of_step(uint64_t job, uint32_t owner, uint32_t step)
{
    struct event_fields fields = event_of_job(job, owner);

    fields.has_step = true;
    fields.step = step;
    return fields;
}

static inline struct event_fields event_of_user(uint32_t uid)
{
    return (struct event_fields){.has_uid = true, .uid = uid};
}

extern const struct event_row event_rows[EVENT_KIND_COUNT];

/* Lines over 1023 bytes are cut. Never fails: what the journal does not take goes to stderr. */
void event_log(enum event_kind kind, struct event_fields fields, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
