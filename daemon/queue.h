/* queue — the jobs that wait: whose turn it is, and the limit. No I/O, owns no job.
 *
 * Owners take turns: the next job is the first one of the owner who was served longest ago; within
 * an owner jobs go by id, which is the order of arrival, also for a job that comes back after its
 * worker died and for those found at start. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/job.h"

#define QUEUE_OWNERS_MAX 256u /* whose turns are remembered; beyond, who was served longest ago */

struct queue_owner {
    uint32_t uid;
    uint64_t turn; /* when served last; 0: never, as far as is known */
};

struct queue {
    struct ARRAY(struct job *) jobs; /* by id */
    size_t limit;
    struct queue_owner owners[QUEUE_OWNERS_MAX];
    size_t owner_count;
    uint64_t turns; /* served so far */
};

void queue_init(struct queue *queue, size_t limit);
void queue_done(struct queue *queue);

/* May one more be taken in, with `coming` ones on their way already? 0, or -ENOBUFS and a fault
 * that names the limit. */
int queue_admit(const struct queue *queue, size_t coming, struct fault *f);

/* Makes room for `count` more, so that as many calls of queue_insert() cannot fail. 0 or
 * -ENOMEM. */
int queue_reserve(struct queue *queue, size_t count);

/* Puts a job where its id belongs. Takes jobs over the limit too: they were admitted once. 0 or
 * -ENOMEM. */
int queue_insert(struct queue *queue, struct job *job);

/* Takes the job out; nothing happens when it is not in. */
void queue_remove(struct queue *queue, const struct job *job);

/* The next one of those that match (NULL: of all), which stays in. NULL: none. */
struct job *queue_next(const struct queue *queue,
                       bool (*does_match)(const struct job *job, void *userdata), void *userdata);
/* Takes this one out; its owner has had a turn. */
void queue_serve(struct queue *queue, struct job *job);

/* Calls back with every job that starts before this one, were nothing to change. */
void queue_each_before(const struct queue *queue, const struct job *job,
                       void (*on_job)(const struct job *before, void *userdata), void *userdata);

/* How many are before it; the queue's length when it is not in. */
size_t queue_position(const struct queue *queue, const struct job *job);
