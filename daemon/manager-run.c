/* What the worker reports, and what follows: jobs go to it one at a time, in order of arrival. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/manager-internal.h"
#include "vk/base/log.h"

#define DEATHS_UNTIL_FAILED 3u /* workers in a row that never became ready: State says failed */

static void take_text(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from);
}

static void on_context_known(struct manager *manager, const struct request_context *context)
{
    manager->context = *context;
    manager->context.max_pixels = manager->config->limit_pixels;
    manager->has_context = true;
    for (size_t i = 0; i < manager->queue.jobs.count;) {
        struct job *job = manager->queue.jobs.items[i];
        struct fault f = {0};
        int r = 0;
        if (!job->is_resolved) {
            r = manager_resolve(manager, &job->request, &job->is_resolved, &f);
            if (r == 0)
                r = spool_update(manager->spool, job, &f);
        }
        if (r < 0)
            manager_finish_job(manager, job, JOB_STATE_FAILED, r, f.text);
        else
            i++;
    }
}

static void on_context(struct manager *manager, const union ipc_packet *packet, int attached)
{
    const struct ipc_context *c = &packet->context;

    (void)attached;
    on_context_known(manager, &(struct request_context){.width = c->width,
                                                        .height = c->height,
                                                        .multiple = c->multiple,
                                                        .train_steps = c->train_steps,
                                                        .scheduler = c->scheduler});
}

static void on_loading(struct manager *manager, const union ipc_packet *packet, int attached)
{
    double fraction = packet->loading.fraction;
    char text[64];

    (void)attached;
    if (!(fraction >= 0 && fraction <= 1) ||
        worker_get_state(manager->worker) != WORKER_STATE_LOADING)
        return;
    (void)snprintf(text, sizeof text, "loading the model: %d %%", (int)(fraction * 100));
    manager_set_state(manager, MANAGER_STATE_LOADING, text);
}

static void on_hello(struct manager *manager, const union ipc_packet *packet, int attached)
{
    const struct ipc_hello *h = &packet->hello;
    struct manager_facts *facts = &manager->facts;

    (void)attached;
    take_text(facts->device, sizeof facts->device, h->device);
    take_text(facts->device_node, sizeof facts->device_node, h->device_node);
    take_text(facts->driver, sizeof facts->driver, h->driver);
    take_text(facts->model, sizeof facts->model, h->model);
    take_text(facts->model_hash, sizeof facts->model_hash, h->model_hash);
    facts->memory_used = h->memory_used;
    facts->memory_total = h->memory_total;
    manager->deaths_in_a_row = 0;
    on_context_known(manager, &(struct request_context){.width = h->width,
                                                        .height = h->height,
                                                        .multiple = h->multiple,
                                                        .train_steps = h->train_steps,
                                                        .scheduler = h->scheduler});
    log_info("worker ready: model %s on %s", facts->model, facts->device);
    manager_tell(manager, MANAGER_CHANGE_DEVICE);
    manager_set_state(manager, MANAGER_STATE_READY, "");
    manager_plan_dispatch(manager);
}

static void on_beat(struct manager *manager, const union ipc_packet *packet, int attached)
{
    (void)attached;
    manager->facts.memory_used = packet->beat.memory_used;
}

/* --- packets of the running job --------------------------------------------------------------- */

static void on_step(struct manager *manager, const union ipc_packet *packet, int attached)
{
    const struct ipc_step *s = &packet->step;
    struct job *job = manager->running;

    (void)attached;
    if (s->picture >= job->request.count || s->step > s->steps)
        return;
    job->picture = s->picture;
    job->step = s->step;
    job->steps = s->steps;
    eta_on_step(&manager->eta, job, manager_now(manager, CLOCK_MONOTONIC));
    for (struct manager_observer *o = manager->observers; o; o = o->next)
        if (o->on_job_step)
            o->on_job_step(job, s->timestep, o->userdata);
}

static void on_warning(struct manager *manager, const union ipc_packet *packet, int attached)
{
    (void)attached;
    if (job_add_warning(manager->running, packet->text.text) < 0)
        log_error("job %" PRIu64 ": a warning is lost: out of memory", manager->running->id);
}

/* A job that cannot go on although the worker could: it is cancelled there and failed here. */
static void abandon(struct manager *manager, const struct fault *f)
{
    struct job *job = manager->running;

    worker_cancel(manager->worker, job->id);
    manager_finish_job(manager, job, JOB_STATE_FAILED, f->err, f->text);
}

static void on_picture(struct manager *manager, const union ipc_packet *packet, int attached)
{
    const struct ipc_picture *p = &packet->picture;
    struct job *job = manager->running;
    struct fault f = {0};

    if (p->picture != job->picture_count || p->picture >= job->request.count || attached < 0) {
        worker_kill(manager->worker, -EPROTO, "it sent a picture nobody asked for");
        return;
    }
    int r = spool_store_picture(manager->spool, job, p->picture, attached, p->size, &f);
    if (r < 0) {
        log_error("%s; the job is given up", f.text);
        abandon(manager, &f);
        return;
    }
    struct job_picture *kept = &job->pictures[job->picture_count++];
    *kept = (struct job_picture){.width = p->width, .height = p->height, .seed = p->seed};
    take_text(kept->sha256, sizeof kept->sha256, p->sha256);
    eta_on_picture(&manager->eta, job, manager_now(manager, CLOCK_MONOTONIC));
}

static void on_done(struct manager *manager, const union ipc_packet *packet, int attached)
{
    const struct ipc_done *d = &packet->done;
    struct job *job = manager->running;
    bool complete = job->picture_count == job->request.count;

    (void)attached;
    if (d->err == -EIO) { /* the job is run again by a new worker */
        worker_kill(manager->worker, -EIO, d->text);
        return;
    }
    if (d->err == 0 && complete)
        manager_finish_job(manager, job, JOB_STATE_DONE, 0, "");
    else if (d->err == 0)
        manager_finish_job(manager, job, JOB_STATE_FAILED, -EPROTO, "the worker left out pictures");
    else if (d->err == -ECANCELED && job->is_cancelling)
        manager_finish_job(manager, job, JOB_STATE_CANCELLED, d->err, "cancelled while running");
    else
        manager_finish_job(manager, job, JOB_STATE_FAILED, d->err, d->text);
    if (d->err == 0)
        worker_on_success(manager->worker);
}

/* After an abandoned job the worker still owes its DONE: only then it is free again. */
static void on_free(struct manager *manager)
{
    if (worker_get_state(manager->worker) != WORKER_STATE_READY)
        return;
    manager_set_state(manager, MANAGER_STATE_READY, "");
    manager_plan_dispatch(manager);
}

typedef void packet_handler_t(struct manager *manager, const union ipc_packet *packet,
                              int attached);

static const struct {
    packet_handler_t *handler;
    bool needs_job; /* only for the job that runs; of others it is a late word and dropped */
} handlers[] = {
    [IPC_CONTEXT] = {on_context, false}, [IPC_LOADING] = {on_loading, false},
    [IPC_HELLO] = {on_hello, false},     [IPC_BEAT] = {on_beat, false},
    [IPC_STEP] = {on_step, true},        [IPC_WARNING] = {on_warning, true},
    [IPC_PICTURE] = {on_picture, true},  [IPC_DONE] = {on_done, true},
};

void manager_on_packet(const union ipc_packet *packet, int attached, void *userdata)
{
    struct manager *manager = userdata;
    uint32_t type = packet->header.type;
    const struct job *job = manager->running;

    if (type >= ARRAY_SIZE(handlers) || !handlers[type].handler)
        return;
    if (!handlers[type].needs_job || (job && job->id == packet->header.job))
        handlers[type].handler(manager, packet, attached);
    if (type == IPC_DONE)
        on_free(manager);
}

/* --- the worker's end ------------------------------------------------------------------------- */

static void run_again(struct manager *manager, struct job *job)
{
    struct fault f = {0};

    int r = spool_requeue(manager->spool, job, &f);
    if (r == 0)
        r = queue_insert(&manager->queue, job);
    if (r < 0) {
        manager_finish_job(manager, job, JOB_STATE_FAILED, r, f.err ? f.text : "out of memory");
        return;
    }
    job_rewind(job);
    manager->running = NULL;
    log_notice("job %" PRIu64 ": its worker died; it is run again", job->id);
    manager_change_job(manager, job, JOB_STATE_QUEUED);
}

static void on_death_under(struct manager *manager, struct job *job, enum worker_end end,
                           const char *why)
{
    char text[256];

    job->deaths++;
    (void)snprintf(text, sizeof text, "the worker died %" PRIu32 " times under this job: %.160s",
                   job->deaths, why);
    if (job->is_cancelling)
        manager_finish_job(manager, job, JOB_STATE_CANCELLED, -ECANCELED,
                           "cancelled while running");
    else if (job->deaths >= JOB_DEATHS_MAX)
        manager_finish_job(manager, job, JOB_STATE_FAILED,
                           end == WORKER_END_DEVICE_LOST ? -EIO : -ECONNRESET, text);
    else
        run_again(manager, job);
}

void manager_on_worker_end(enum worker_end end, const char *why, void *userdata)
{
    struct manager *manager = userdata;
    char text[384];

    if (manager->running)
        on_death_under(manager, manager->running, end, why);
    if (manager->facts.state == MANAGER_STATE_LOADING)
        manager->deaths_in_a_row++;
    if (end == WORKER_END_FAILED) {
        log_error("the worker cannot work: %s; the daemon stays up without it", why);
        manager_set_state(manager, MANAGER_STATE_FAILED, why);
        return;
    }
    (void)snprintf(text, sizeof text, "%.320s; it is started again", why);
    manager_set_state(manager,
                      manager->deaths_in_a_row >= DEATHS_UNTIL_FAILED ? MANAGER_STATE_FAILED
                                                                      : MANAGER_STATE_LOADING,
                      text);
}

/* --- dispatch --------------------------------------------------------------------------------- */

int manager_on_dispatch(sd_event_source *source, void *userdata)
{
    struct manager *manager = userdata;
    struct job *job = queue_first(&manager->queue);
    struct fault f = {0};

    (void)source;
    if (!job || manager->running || manager->facts.state != MANAGER_STATE_READY ||
        worker_get_state(manager->worker) != WORKER_STATE_READY)
        return 0;
    int r = spool_start(manager->spool, job, &f);
    if (r < 0) {
        log_error("%s; the job is given up", f.text);
        manager_finish_job(manager, job, JOB_STATE_FAILED, r, f.text);
        manager_plan_dispatch(manager);
        return 0;
    }
    queue_remove(&manager->queue, job);
    manager->running = job;
    job->starts++;
    job->started_usec = manager_now(manager, CLOCK_REALTIME);
    eta_on_start(&manager->eta, job, manager_now(manager, CLOCK_MONOTONIC));
    log_info("job %" PRIu64 ": running", job->id);
    manager_change_job(manager, job, JOB_STATE_RUNNING);
    manager_set_state(manager, MANAGER_STATE_BUSY, "");
    worker_run(manager->worker, &job->request, job->id);
    return 0;
}

/* --- devices ---------------------------------------------------------------------------------- */

static int read_all(int fd, char **ret_text, size_t *ret_length)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size > DEVICES_TEXT_MAX)
        return -EFBIG;
    _cleanup_(freep) char *text = malloc((size_t)st.st_size + 1);
    if (!text)
        return -ENOMEM;
    ssize_t n = pread(fd, text, (size_t)st.st_size, 0);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    *ret_length = (size_t)n;
    *ret_text = TAKE_PTR(text);
    return 0;
}

static void on_probe(int r, int output, const char *why, void *userdata)
{
    struct manager *manager = userdata;
    _cleanup_(freep) char *text = NULL;
    struct fault f = {0};
    size_t length = 0;

    if (r < 0)
        (void)fault_set(&f, r, "%s", why);
    else if ((r = read_all(output, &text, &length)) < 0)
        (void)fault_set(&f, r, "%s", strerror(-r));
    else
        r = devices_parse(text, length, &manager->devices, &f);
    if (r < 0)
        log_warning("list of devices: %s, ignoring", f.text);
    manager->probe = helper_free(manager->probe);
}

void manager_start_probe(struct manager *manager)
{
    char probe[] = "--probe", json[] = "--json";
    char *argv[] = {manager->worker_path, probe, json, NULL};
    struct fault f = {0};

    if (helper_start(manager->event, argv, -1, on_probe, manager, &manager->probe, &f) < 0)
        log_warning("list of devices: %s, ignoring", f.text);
}
