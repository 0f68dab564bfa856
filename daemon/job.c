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
    for (uint32_t i = 0; i < REQUEST_PICTURES_MAX; i++)
        job->held[i] = -1;
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++)
        job->inputs[i].fd = -1;
    job->preview.fd = -1;
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
    for (uint32_t i = 0; i < REQUEST_PICTURES_MAX; i++)
        job_release_picture(job, i);
    job_release_inputs(job);
    job_drop_preview(job);
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
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++)
        to->inputs[i].fd = -1;
    to->preview = own.preview; /* of no interest to the disk */
}

static int copy_descriptor(int from, int *to)
{
    if (from < 0)
        return 0;
    *to = fcntl(from, F_DUPFD_CLOEXEC, 3);
    return *to < 0 ? -errno : 0;
}

static int copy_held(const struct job *from, struct job *to)
{
    int r = 0;

    for (uint32_t i = 0; i < REQUEST_PICTURES_MAX && r == 0; i++)
        r = copy_descriptor(from->held[i], &to->held[i]);
    for (unsigned i = 0; i < JOB_INPUT_COUNT && r == 0; i++)
        r = copy_descriptor(from->inputs[i].fd, &to->inputs[i].fd);
    return r;
}

int job_copy(const struct job *job, struct job **ret_copy)
{
    _cleanup_(job_freep) struct job *copy = job_new(job->id, job->owner);

    if (!copy)
        return -ENOMEM;
    copy_values(job, copy);
    int r = request_copy(&job->request, &copy->request);
    if (r >= 0)
        r = copy_held(job, copy);
    for (size_t i = 0; i < job->warnings.count && r >= 0; i++)
        r = job_add_warning(copy, job->warnings.items[i]);
    if (r < 0)
        return r;
    *ret_copy = TAKE_PTR(copy);
    return 0;
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

/* --- what it starts from, and looks at it ----------------------------------------------------- */

void job_release_inputs(struct job *job)
{
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        closep(&job->inputs[i].fd);
        job->inputs[i].fd = -1;
    }
}

void job_drop_preview(struct job *job)
{
    closep(&job->preview.fd);
    job->preview = (struct job_preview){.fd = -1};
}

void job_set_preview(struct job *job, const struct job_preview *preview)
{
    closep(&job->preview.fd);
    job->preview = *preview;
}

enum request_row_id job_input_row(enum job_input_kind kind)
{
    return kind == JOB_INPUT_IMAGE ? REQUEST_image : REQUEST_mask;
}

const char *job_input_name(enum job_input_kind kind, enum job_format format)
{
    static const char *const names[JOB_INPUT_COUNT][3] = {
        [JOB_INPUT_IMAGE] = {"", "input.png", "input.jpg"},
        [JOB_INPUT_MASK] = {"", "mask.png", "mask.jpg"},
    };

    return names[kind][format];
}

enum job_format job_input_format(const void *head, size_t size)
{
    static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff}; /* SOI, and the first byte of a marker */

    if (size >= sizeof png && memcmp(head, png, sizeof png) == 0)
        return JOB_FORMAT_PNG;
    return size >= sizeof png && memcmp(head, jpeg, sizeof jpeg) == 0 ? JOB_FORMAT_JPEG
                                                                      : JOB_FORMAT_NONE;
}

/* All names of a kind are equally long, so that one can give way to another without memory. */
int job_name_inputs(struct job *job)
{
    struct fault f = {0};
    int r = 0;

    for (unsigned i = 0; i < JOB_INPUT_COUNT && r == 0; i++) {
        char *given = i == JOB_INPUT_IMAGE ? job->request.image : job->request.mask;
        const char *name = job_input_name(i, job->inputs[i].format);
        if (*name && given && strlen(given) == strlen(name))
            memcpy(given, name, strlen(name));
        else if (*name)
            r = request_set_text(&job->request, &request_rows[job_input_row(i)], name, strlen(name),
                                 &f);
    }
    return r;
}

void job_count_pictures(struct job *job)
{
    uint32_t total = request_picture_count(&job->request);

    job->picture_total = total < REQUEST_PICTURES_MAX ? total : REQUEST_PICTURES_MAX;
}

uint32_t job_picture_total(const struct job *job)
{
    uint32_t total = job->picture_total ? job->picture_total : request_picture_count(&job->request);

    return total < REQUEST_PICTURES_MAX ? total : REQUEST_PICTURES_MAX;
}

bool job_row_is_told(const struct request *q, enum request_row_id row)
{
    bool is_open =
        (row == REQUEST_width && q->width == 0) || (row == REQUEST_height && q->height == 0);

    return request_is_set(q, row) && !is_open;
}

uint64_t job_bytes(const struct job *job)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < job->picture_count; i++)
        bytes += job->pictures[i].bytes;
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++)
        bytes += job->inputs[i].bytes;
    return bytes;
}

void job_rewind(struct job *job)
{
    for (uint32_t i = 0; i < REQUEST_PICTURES_MAX; i++)
        job_release_picture(job, i);
    job_drop_preview(job);
    job->picture = job->step = job->steps = 0;
    job->picture_count = 0;
    job->is_cancelling = false;
    drop_warnings(job);
}

uint32_t job_calls(const struct job *job)
{
    const struct request *q = &job->request;
    uint32_t steps = q->steps;

    if (job->steps)
        return job->steps;
    if (!request_is_set(q, REQUEST_steps))
        return 0;
    if (request_has_image(q) && request_is_set(q, REQUEST_strength))
        steps = (uint32_t)(steps * q->strength);
    if (q->scheduler == SCHEDULER_PNDM && steps > 1)
        return steps + 1;
    return q->scheduler == SCHEDULER_HEUN && steps > 1 ? 2 * steps - 1 : steps;
}

double job_progress(const struct job *job)
{
    uint32_t calls = job_calls(job);

    if (job->state == JOB_STATE_DONE)
        return 1;
    if (calls == 0 || job->request.count == 0)
        return 0;
    double done = (double)job->picture * calls + job->step;
    double all = (double)job_picture_total(job) * calls;
    return done < all ? done / all : 1;
}
