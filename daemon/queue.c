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

int queue_admit(const struct queue *queue, size_t coming, struct fault *f)
{
    size_t waiting = queue->jobs.count + coming;

    if (waiting < queue->limit)
        return 0;
    return fault_set(f, -ENOBUFS, "%zu jobs wait already, the limit is %zu: try again later",
                     waiting, queue->limit);
}

int queue_reserve(struct queue *queue, size_t count)
{
    return array_reserve(&queue->jobs, count) < 0 ? -ENOMEM : 0;
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

static size_t find_index(const struct queue *queue, const struct job *job)
{
    size_t i = 0;

    while (i < queue->jobs.count && queue->jobs.items[i] != job)
        i++;
    return i;
}

void queue_remove(struct queue *queue, const struct job *job)
{
    size_t i = find_index(queue, job);

    if (i == queue->jobs.count)
        return;
    struct job **at = &queue->jobs.items[i];
    memmove(at, at + 1, (queue->jobs.count - i - 1) * sizeof *at);
    queue->jobs.count--;
}

/* --- turns ------------------------------------------------------------------------------------ */

static uint64_t turn_of(const struct queue *queue, uint32_t uid)
{
    for (size_t i = 0; i < queue->owner_count; i++)
        if (queue->owners[i].uid == uid)
            return queue->owners[i].turn;
    return 0;
}

/* The owner's row; a new one in place of the one served longest ago when all are taken. */
static struct queue_owner *row_of(struct queue *queue, uint32_t uid)
{
    struct queue_owner *oldest = queue->owners;

    for (size_t i = 0; i < queue->owner_count; i++) {
        if (queue->owners[i].uid == uid)
            return &queue->owners[i];
        if (queue->owners[i].turn < oldest->turn)
            oldest = &queue->owners[i];
    }
    if (queue->owner_count < QUEUE_OWNERS_MAX)
        oldest = &queue->owners[queue->owner_count++];
    *oldest = (struct queue_owner){.uid = uid};
    return oldest;
}

struct job *queue_next(const struct queue *queue,
                       bool (*does_match)(const struct job *job, void *userdata), void *userdata)
{
    struct job *next = NULL;
    uint64_t best = UINT64_MAX;

    for (size_t i = 0; i < queue->jobs.count; i++) {
        struct job *job = queue->jobs.items[i];
        uint64_t turn = turn_of(queue, job->owner);
        if (turn >= best || (does_match && !does_match(job, userdata)))
            continue;
        best = turn;
        next = job;
    }
    return next;
}

void queue_serve(struct queue *queue, struct job *job)
{
    queue_remove(queue, job);
    row_of(queue, job->owner)->turn = ++queue->turns;
}

/* How many jobs of each owner a walk has met. */
struct rounds {
    struct {
        uint32_t uid;
        size_t met;
    } rows[QUEUE_OWNERS_MAX];
    size_t count;
};

/* The round in which this job, the next one of the walk, is served: its place among its owner's. */
static size_t next_round(struct rounds *rounds, uint32_t uid)
{
    for (size_t i = 0; i < rounds->count; i++)
        if (rounds->rows[i].uid == uid)
            return rounds->rows[i].met++;
    if (rounds->count == QUEUE_OWNERS_MAX)
        return 0;
    rounds->rows[rounds->count].uid = uid;
    rounds->rows[rounds->count++].met = 1;
    return 0;
}

/* Within a round owners go by turn, then by id of their first job, as queue_next() picks. */
void queue_each_before(const struct queue *queue, const struct job *job,
                       void (*on_job)(const struct job *before, void *userdata), void *userdata)
{
    size_t index = find_index(queue, job), round = 0;
    struct rounds rounds = {.count = 0};

    if (index == queue->jobs.count)
        return;
    for (size_t i = 0; i < index; i++)
        round += queue->jobs.items[i]->owner == job->owner;
    uint64_t turn = turn_of(queue, job->owner);
    for (size_t i = 0; i < queue->jobs.count; i++) {
        const struct job *other = queue->jobs.items[i];
        size_t other_round = next_round(&rounds, other->owner);
        uint64_t other_turn = turn_of(queue, other->owner);
        bool first = other_turn < turn || (other_turn == turn && i < index);
        if (other != job && (other_round < round || (other_round == round && first)))
            on_job(other, userdata);
    }
}

static void count_one(const struct job *before, void *userdata)
{
    (void)before;
    ++*(size_t *)userdata;
}

size_t queue_position(const struct queue *queue, const struct job *job)
{
    size_t before = 0;

    if (find_index(queue, job) == queue->jobs.count)
        return queue->jobs.count;
    queue_each_before(queue, job, count_one, &before);
    return before;
}
