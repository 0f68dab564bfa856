/* Verbs and their bookkeeping. The order is always: disk, memory, observers; so that nobody is told
 * of what a crash could take back. */
#include "daemon/manager.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/error.h"
#include "daemon/manager-internal.h"
#include "vk/base/file.h"
#include "vk/base/log.h"

static const char *const state_names[MANAGER_STATE_COUNT] = {
    [MANAGER_STATE_LOADING] = "loading", [MANAGER_STATE_READY] = "ready",
    [MANAGER_STATE_BUSY] = "busy",       [MANAGER_STATE_PAUSED] = "paused",
    [MANAGER_STATE_FAILED] = "failed",
};

#define NOTIFY(manager, member, ...)                                                               \
    do {                                                                                           \
        for (struct manager_observer *o_ = (manager)->observers; o_; o_ = o_->next)                \
            if (o_->member)                                                                        \
                o_->member(__VA_ARGS__ o_->userdata);                                              \
    } while (0)
#define WITH(...) __VA_ARGS__,

/* --- shared with manager-run.c ---------------------------------------------------------------- */

uint64_t manager_now(const struct manager *manager, clockid_t clock)
{
    uint64_t usec = 0;

    (void)sd_event_now(manager->event, clock, &usec); /* the loop is ours: cannot fail */
    return usec;
}

void manager_tell(struct manager *manager, unsigned changes)
{
    NOTIFY(manager, on_changed, WITH(changes));
}

void manager_set_state(struct manager *manager, enum manager_state state, const char *reason)
{
    struct manager_facts *facts = &manager->facts;

    if (facts->state == state && strcmp(facts->state_reason, reason) == 0)
        return;
    facts->state = state;
    (void)snprintf(facts->state_reason, sizeof facts->state_reason, "%s", reason);
    manager_tell(manager, MANAGER_CHANGE_STATE);
}

void manager_set_degraded(struct manager *manager, const char *reason)
{
    struct manager_facts *facts = &manager->facts;

    (void)snprintf(facts->degraded_reason, sizeof facts->degraded_reason, "%s", reason);
    manager_tell(manager, MANAGER_CHANGE_DEGRADED);
}

void manager_change_job(struct manager *manager, struct job *job, enum job_state state)
{
    bool moved = job->state == JOB_STATE_QUEUED || state == JOB_STATE_QUEUED;

    job_set_state(job, state);
    NOTIFY(manager, on_job_changed, WITH(job));
    if (job_state_is_final(state))
        NOTIFY(manager, on_job_finished, WITH(job));
    if (moved)
        manager_tell(manager, MANAGER_CHANGE_QUEUE);
}

void manager_finish_job(struct manager *manager, struct job *job, enum job_state state, int err,
                        const char *text)
{
    struct fault f = {0};

    job->finished_usec = manager_now(manager, CLOCK_REALTIME);
    job->is_cancelling = false;
    if (err)
        (void)fault_set(&job->error, err, "%s", text);
    int r = spool_finish(manager->spool, job, state, &f);
    if (r < 0) { /* it lies where it was and is run again after the next start */
        log_error("%s; it counts as failed until the next start", f.text);
        manager_set_degraded(manager, f.text);
        job->error = f;
        state = JOB_STATE_FAILED;
    }
    log_info("job %" PRIu64 ": %s%s%s", job->id, job_state_to_string(state),
             job->error.err ? ": " : "", job->error.err ? error_to_word(job->error.err) : "");
    queue_remove(&manager->queue, job);
    if (manager->running == job)
        manager->running = NULL;
    manager_change_job(manager, job, state);
}

int manager_resolve(const struct manager *manager, struct request *request, bool *ret_resolved,
                    struct fault *f)
{
    if (!manager->has_context)
        return 0;
    int r = request_complete(request, &manager->config->defaults, &manager->context, f);
    if (r < 0)
        return r;
    r = request_check(request, &manager->context, f);
    if (r < 0)
        return r;
    *ret_resolved = true;
    return 0;
}

void manager_plan_dispatch(struct manager *manager)
{
    int r = sd_event_source_set_enabled(manager->dispatch, SD_EVENT_ONESHOT);

    if (r < 0)
        log_error("no dispatch: %s", strerror(-r));
}

/* --- life ------------------------------------------------------------------------------------- */

static int adopt(struct manager *manager, struct job *job)
{
    struct job **slot;

    if (job->state == JOB_STATE_QUEUED && queue_insert(&manager->queue, job) < 0)
        return -ENOMEM;
    slot = array_push(&manager->jobs);
    if (!slot) {
        queue_remove(&manager->queue, job);
        return -ENOMEM;
    }
    *slot = job;
    return 0;
}

static void on_found(struct job *job, void *userdata)
{
    struct manager *manager = userdata;
    uint32_t interruptions = job->starts > job->deaths ? job->starts - job->deaths : 0;

    if (adopt(manager, job) < 0) {
        log_error("job %" PRIu64 ": out of memory, left in the spool for the next start", job->id);
        job_free(job);
        return;
    }
    if (job->state != JOB_STATE_QUEUED)
        return;
    if (job->deaths >= JOB_DEATHS_MAX)
        manager_finish_job(manager, job, JOB_STATE_FAILED, -ECONNRESET,
                           "the worker died twice under this job");
    else if (interruptions >= JOB_INTERRUPTIONS_MAX)
        manager_finish_job(manager, job, JOB_STATE_FAILED, -ECONNRESET,
                           "interrupted by the daemon's end too often");
    else
        log_info("job %" PRIu64 ": found in the spool, queued", job->id);
}

static void on_corrupt(const char *state, const char *name, const char *why, void *userdata)
{
    (void)userdata;
    log_warning("spool: %s/%.64s: %s; moved to corrupt/", state, name, why);
}

static int open_spool(struct manager *manager, struct fault *f)
{
    const struct spool_finder finder = {
        .on_job = on_found, .on_corrupt = on_corrupt, .userdata = manager};

    int r = spool_open(manager->config->spool_path, &manager->spool, f);
    if (r < 0)
        return r;
    return spool_recover(manager->spool, &finder, f);
}

static int make_worker(struct manager *manager, const struct manager_options *options)
{
    const struct config *config = options->config;
    const struct worker_listener listener = {
        .on_packet = manager_on_packet, .on_end = manager_on_worker_end, .userdata = manager};
    char allow_cpu[16], metadata[16];
    const struct worker_options w = {
        .executable = options->worker,
        .model = config->model_path,
        .device = config->device_node,
        .allow_cpu =
            config_word("device", "allow_cpu", config->allow_cpu, allow_cpu, sizeof allow_cpu),
        .png_metadata =
            config_word("png", "metadata", config->png_metadata, metadata, sizeof metadata),
        .cache = options->cache,
    };

    return worker_new(manager->event, &w, &listener, &manager->worker);
}

int manager_new(sd_event *event, const struct manager_options *options,
                struct manager **ret_manager, struct fault *f)
{
    _cleanup_(manager_freep) struct manager *manager = calloc(1, sizeof *manager);

    if (!manager)
        return fault_set(f, -ENOMEM, "out of memory");
    manager->event = event;
    manager->config = options->config;
    queue_init(&manager->queue, options->config->limit_queue);
    manager->worker_path = strdup(options->worker);
    int r = manager->worker_path ? make_worker(manager, options) : -ENOMEM;
    if (r >= 0)
        r = sd_event_add_defer(event, &manager->dispatch, manager_on_dispatch, manager);
    if (r >= 0)
        r = sd_event_source_set_enabled(manager->dispatch, SD_EVENT_OFF);
    if (r < 0)
        return fault_set(f, r, "manager: %s", strerror(-r));
    r = open_spool(manager, f);
    if (r < 0)
        return r;
    *ret_manager = TAKE_PTR(manager);
    return 0;
}

struct manager *manager_free(struct manager *manager)
{
    if (!manager)
        return NULL;
    worker_free(manager->worker);
    helper_free(manager->probe);
    sd_event_source_disable_unref(manager->dispatch);
    for (size_t i = 0; i < manager->jobs.count; i++)
        job_free(manager->jobs.items[i]);
    array_done(&manager->jobs);
    array_done(&manager->devices);
    queue_done(&manager->queue);
    spool_close(manager->spool);
    free(manager->worker_path);
    free(manager);
    return NULL;
}

void manager_start(struct manager *manager)
{
    struct fault f = {0};

    manager_start_probe(manager);
    if (!manager->config->model_path) {
        manager_set_state(manager, MANAGER_STATE_FAILED,
                          "no model: set path in section [model] of the configuration");
        return;
    }
    manager_set_state(manager, MANAGER_STATE_LOADING, "starting the worker");
    if (worker_start(manager->worker, &f) < 0)
        manager_on_worker_end(WORKER_END_FAILED, f.text, manager);
}

void manager_add_observer(struct manager *manager, struct manager_observer *observer)
{
    observer->next = manager->observers;
    manager->observers = observer;
}

void manager_remove_observer(struct manager *manager, struct manager_observer *observer)
{
    for (struct manager_observer **at = &manager->observers; *at; at = &(*at)->next) {
        if (*at != observer)
            continue;
        *at = observer->next;
        return;
    }
}

/* --- verbs ------------------------------------------------------------------------------------ */

static int keep_job(struct manager *manager, struct job *job, struct fault *f)
{
    if (adopt(manager, job) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = spool_submit(manager->spool, job, f);
    if (r < 0) {
        queue_remove(&manager->queue, job);
        manager->jobs.count--;
    }
    return r;
}

int manager_submit(struct manager *manager, uint32_t owner, struct request *request,
                   struct job **ret_job, struct fault *f)
{
    bool resolved = false;

    if (manager->facts.state == MANAGER_STATE_FAILED)
        return fault_set(f, -EBUSY, "not ready: %.200s", manager->facts.state_reason);
    int r = manager_resolve(manager, request, &resolved, f);
    if (r < 0)
        return r;
    r = queue_admit(&manager->queue, f);
    if (r < 0)
        return r;
    _cleanup_(job_freep) struct job *job = job_new(spool_next_id(manager->spool), owner);
    if (!job)
        return fault_set(f, -ENOMEM, "out of memory");
    job->is_resolved = resolved;
    job->created_usec = manager_now(manager, CLOCK_REALTIME);
    job->request = *request; /* lent until the spool has it */
    r = keep_job(manager, job, f);
    if (r < 0) {
        job->request = (struct request){0};
        return r;
    }
    *request = (struct request){0};
    log_info("job %" PRIu64 ": queued for uid %" PRIu32, job->id, owner);
    NOTIFY(manager, on_job_added, WITH(job));
    manager_tell(manager, MANAGER_CHANGE_QUEUE);
    manager_plan_dispatch(manager);
    *ret_job = TAKE_PTR(job);
    return 0;
}

int manager_cancel(struct manager *manager, struct job *job, struct fault *f)
{
    (void)f;
    if (job_state_is_final(job->state))
        return 0;
    if (job->state == JOB_STATE_QUEUED) {
        manager_finish_job(manager, job, JOB_STATE_CANCELLED, -ECANCELED, "cancelled while queued");
        return 0;
    }
    if (!job->is_cancelling)
        worker_cancel(manager->worker, job->id);
    job->is_cancelling = true;
    return 0;
}

static size_t find_index(const struct manager *manager, uint64_t id)
{
    size_t low = 0, high = manager->jobs.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (manager->jobs.items[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int manager_delete(struct manager *manager, struct job *job, struct fault *f)
{
    if (!job_state_is_final(job->state))
        return fault_set(f, -EBUSY, "job %" PRIu64 " is %s: cancel it first, or wait for its end",
                         job->id, job_state_to_string(job->state));
    int r = spool_delete(manager->spool, job, f);
    if (r < 0)
        return r;
    log_info("job %" PRIu64 ": deleted", job->id);
    NOTIFY(manager, on_job_removed, WITH(job));
    size_t i = find_index(manager, job->id);
    struct job **at = &manager->jobs.items[i];
    assert(i < manager->jobs.count && *at == job);
    memmove(at, at + 1, (manager->jobs.count - i - 1) * sizeof *at);
    manager->jobs.count--;
    job_free(job);
    return 0;
}

struct job *manager_find(const struct manager *manager, uint64_t id)
{
    size_t i = find_index(manager, id);

    if (i == manager->jobs.count || manager->jobs.items[i]->id != id)
        return NULL;
    return manager->jobs.items[i];
}

struct job *const *manager_jobs(const struct manager *manager, size_t *ret_count)
{
    *ret_count = manager->jobs.count;
    return manager->jobs.items;
}

static int check_picture(const struct job *job, uint32_t index, struct fault *f)
{
    if (!job_state_is_final(job->state))
        return fault_set(f, -EBUSY, "job %" PRIu64 " is %s: wait for its end", job->id,
                         job_state_to_string(job->state));
    if (index >= job->picture_count)
        return fault_set(f, -ENOENT,
                         "job %" PRIu64 " has %" PRIu32 " pictures, none has index %" PRIu32,
                         job->id, job->picture_count, index);
    return 0;
}

int manager_open_picture(struct manager *manager, const struct job *job, uint32_t index,
                         struct fault *f)
{
    int r = check_picture(job, index, f);

    return r < 0 ? r : spool_open_picture(manager->spool, job, index, f);
}

int manager_picture_path(struct manager *manager, const struct job *job, uint32_t index,
                         char **ret_path, struct fault *f)
{
    char below[96];

    int r = check_picture(job, index, f);
    if (r < 0)
        return r;
    spool_picture_path(job, index, below, sizeof below);
    if (asprintf(ret_path, "%s/%s", manager->config->spool_path, below) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    return 0;
}

int manager_decode(struct manager *manager, int png, helper_done_t *on_done, void *userdata,
                   struct helper **ret_helper, struct fault *f)
{
    char decode[] = "--decode";
    char *argv[] = {manager->worker_path, decode, NULL};

    return helper_start(manager->event, argv, png, on_done, userdata, ret_helper, f);
}

/* --- facts ------------------------------------------------------------------------------------ */

const struct manager_facts *manager_get_facts(const struct manager *manager)
{
    return &manager->facts;
}

const struct config *manager_get_config(const struct manager *manager)
{
    return manager->config;
}

const struct device_list *manager_get_devices(const struct manager *manager)
{
    return &manager->devices;
}

uint32_t manager_queue_length(const struct manager *manager)
{
    return (uint32_t)manager->queue.jobs.count;
}

uint32_t manager_queue_position(const struct manager *manager, const struct job *job)
{
    if (job->state != JOB_STATE_QUEUED)
        return 0;
    return (uint32_t)queue_position(&manager->queue, job) + (manager->running != NULL);
}

uint64_t manager_eta(const struct manager *manager, const struct job *job)
{
    uint64_t left = eta_left(&manager->eta, job);

    if (job->state != JOB_STATE_QUEUED || left == JOB_ETA_UNKNOWN)
        return left;
    size_t before = queue_position(&manager->queue, job);
    for (size_t i = 0; i <= before; i++) {
        const struct job *other = i < before ? manager->queue.jobs.items[i] : manager->running;
        uint64_t usec = other ? eta_left(&manager->eta, other) : 0;
        if (usec == JOB_ETA_UNKNOWN)
            return usec;
        left += usec;
    }
    return left;
}

const char *manager_state_to_string(enum manager_state state)
{
    return state_names[state];
}
