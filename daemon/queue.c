#include "daemon/queue.h"

#include <errno.h>
#include <string.h>

void queue_init(struct queue *queue, size_t limit)
{
    *queue = (struct queue){.limit = limit};
}

void queue_done(struct queue *queue)
{
    array_done(&queue->jobs);
}

int queue_admit(const struct queue *queue, struct fault *f)
{
    if (queue->jobs.count < queue->limit)
        return 0;
    return fault_set(f, -ENOBUFS, "%zu jobs wait already, the limit is %zu: try again later",
                     queue->jobs.count, queue->limit);
}

int queue_insert(struct queue *queue, struct job *job)
{
    if (!array_push(&queue->jobs))
        return -ENOMEM;
    size_t i = queue->jobs.count - 1;
    for (; i > 0 && queue->jobs.items[i - 1]->id > job->id; i--)
        queue->jobs.items[i] = queue->jobs.items[i - 1];
    queue->jobs.items[i] = job;
    return 0;
}

size_t queue_position(const struct queue *queue, const struct job *job)
{
    size_t i = 0;

    while (i < queue->jobs.count && queue->jobs.items[i] != job)
        i++;
    return i;
}

void queue_remove(struct queue *queue, const struct job *job)
{
    size_t i = queue_position(queue, job);

    if (i == queue->jobs.count)
        return;
    struct job **at = &queue->jobs.items[i];
    memmove(at, at + 1, (queue->jobs.count - i - 1) * sizeof *at);
    queue->jobs.count--;
}

struct job *queue_first(const struct queue *queue)
{
    return queue->jobs.count ? queue->jobs.items[0] : NULL;
}
