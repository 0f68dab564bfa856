/* queue — the jobs that wait: order of arrival and the limit. No I/O, owns no job.
 *
 * Ids are given in order of arrival, so order by id is order of arrival, also for a job that comes
 * back after its worker died and for those found at start. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/job.h"

struct queue {
    struct ARRAY(struct job *) jobs; /* by id */
    size_t limit;
};

void queue_init(struct queue *queue, size_t limit);
void queue_done(struct queue *queue);

/* May one more be taken in? 0, or -ENOBUFS and a fault that names the limit. */
int queue_admit(const struct queue *queue, struct fault *f);

/* Puts a job where its id belongs. Takes jobs over the limit too: they were admitted once. 0 or
 * -ENOMEM. */
int queue_insert(struct queue *queue, struct job *job);

/* Takes the job out; nothing happens when it is not in. */
void queue_remove(struct queue *queue, const struct job *job);

/* The next one, still in the queue; NULL when empty. */
struct job *queue_first(const struct queue *queue);

/* How many are before it; the queue's length when it is not in. */
size_t queue_position(const struct queue *queue, const struct job *job);
