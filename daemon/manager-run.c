/* Lanes: one worker and its job each, all on one queue. Dispatch, what workers report, their
 * ends. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/event.h"
#include "daemon/manager-internal.h"

/* Workers in a row that never became ready, and for how long at least, until State says failed. */
#define DEATHS_UNTIL_FAILED 3u
#define DEATHS_USEC         UINT64_C(3000000)
#define SWITCH_DEATHS_MAX   2u /* the same for a model that replaces another */

/* Texts for the bus. */
static void take_text(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from);
    fault_mend(to);
}

static void set_lane(struct lane *lane, enum manager_state state, const char *reason)
{
    if (state == MANAGER_STATE_FAILED && lane->state != state)
        event_log(EVENT_SERVICE_FAILED, EVENT_OF_NONE, "%s; the daemon stays up without it",
                  reason);
    lane->state = state;
    take_text(lane->reason, sizeof lane->reason, reason);
    manager_update_state(lane->manager);
}

struct lane *manager_lane_of(struct manager *manager, const struct job *job)
{
    for (size_t i = 0; i < manager->lane_count; i++)
        if (manager->lanes[i].running == job)
            return &manager->lanes[i];
    return NULL;
}

void manager_clear_lane(struct manager *manager, struct job *job)
{
    struct lane *lane = manager_lane_of(manager, job);

    if (lane)
        lane->running = NULL;
}

/* --- facts of the model ----------------------------------------------------------------------- */

bool manager_settle_request(struct manager *manager, struct job *job)
{
    struct fault f = {0};

    if (job->is_resolved)
        return true;
    int r = manager_resolve(manager, &job->request, &job->is_resolved, &f);
    if (r < 0) {
        manager_finish_job(manager, job, JOB_STATE_FAILED, r, f.text, NULL, NULL);
    } else if (job->is_resolved) {
        job_count_pictures(job);
        manager_update_job(manager, job);
    }
    return r >= 0;
}

static void on_context(struct lane *lane, const union ipc_packet *packet, int attached)
{
    struct request_context context;

    (void)attached;
    ipc_model_to_context(&packet->context.model, &context);
    manager_on_context(lane->manager, lane->model, &context);
}

static void on_loading(struct lane *lane, const union ipc_packet *packet, int attached)
{
    double fraction = packet->loading.fraction;
    char text[128];

    (void)attached;
    if (!(fraction >= 0 && fraction <= 1) || worker_get_state(lane->worker) != WORKER_STATE_LOADING)
        return;
    (void)snprintf(text, sizeof text, "loading model %.80s: %d %%", lane->model->name,
                   (int)(fraction * 100));
    set_lane(lane, MANAGER_STATE_LOADING, text);
}

static void on_hello(struct lane *lane, const union ipc_packet *packet, int attached)
{
    const struct ipc_hello *h = &packet->hello;
    struct manager *manager = lane->manager;
    struct manager_facts *facts = &manager->facts;
    struct request_context context;

    (void)attached;
    lane->deaths_in_a_row = 0;
    if (lane == manager->lanes) {
        take_text(facts->device, sizeof facts->device, h->device);
        take_text(facts->device_node, sizeof facts->device_node, h->device_node);
        take_text(facts->driver, sizeof facts->driver, h->driver);
        take_text(facts->model, sizeof facts->model, lane->model->name);
        take_text(facts->model_hash, sizeof facts->model_hash, h->model_hash);
        facts->memory_used = h->memory_used;
        facts->memory_total = h->memory_total;
        manager_tell(manager, MANAGER_CHANGE_DEVICE);
    }
    ipc_model_to_context(&h->context, &context);
    manager_on_context(manager, lane->model, &context);
    manager_on_loaded(lane, h);
    event_log(EVENT_READY, EVENT_OF_NONE, "worker ready: model %s on %s", h->model, h->device);
    set_lane(lane, MANAGER_STATE_READY, "");
    manager_plan_dispatch(manager);
}

static void on_beat(struct lane *lane, const union ipc_packet *packet, int attached)
{
    (void)attached;
    if (lane == lane->manager->lanes)
        lane->manager->facts.memory_used = packet->beat.memory_used;
}

/* --- packets of the running job --------------------------------------------------------------- */

static void on_step(struct lane *lane, const union ipc_packet *packet, int attached)
{
    const struct ipc_step *s = &packet->step;
    struct manager *manager = lane->manager;
    struct job *job = lane->running;

    (void)attached;
    if (s->picture >= job_picture_total(job) || s->step > s->steps)
        return;
    job->picture = s->picture;
    job->step = s->step;
    job->steps = s->steps;
    eta_on_step(&lane->eta, job, manager_now(manager, CLOCK_MONOTONIC));
    MANAGER_NOTIFY(manager, on_job_step, job, s->timestep);
}

static void on_warning(struct lane *lane, const union ipc_packet *packet, int attached)
{
    (void)attached;
    if (job_add_warning(lane->running, packet->text.text) < 0)
        log_error("job %" PRIu64 ": a warning is lost: out of memory", lane->running->id);
}

/* The last picture goes to the disk with the result. */
static void on_picture(struct lane *lane, const union ipc_packet *packet, int attached)
{
    const struct ipc_picture *p = &packet->picture;
    struct manager *manager = lane->manager;
    struct job *job = lane->running;
    uint32_t index = p->picture;

    if (index != job->picture_count || index >= job_picture_total(job) || attached < 0) {
        worker_kill(lane->worker, -EPROTO, "it sent a picture nobody asked for");
        return;
    }
    job->held[index] = fcntl(attached, F_DUPFD_CLOEXEC, 3);
    if (job->held[index] < 0) {
        worker_kill(lane->worker, -errno, "its picture cannot be kept: too many open files");
        return;
    }
    struct job_picture *kept = &job->pictures[job->picture_count++];
    *kept = (struct job_picture){.width = p->width,
                                 .height = p->height,
                                 .seed = p->seed,
                                 .bytes = p->size,
                                 .prompt = p->prompt,
                                 .is_checked = p->is_checked,
                                 .is_nsfw = p->is_nsfw,
                                 .is_blackened = p->is_blackened,
                                 .score_count = p->score_count};
    memcpy(kept->scores, p->scores, p->score_count * sizeof *p->scores);
    take_text(kept->sha256, sizeof kept->sha256, p->sha256);
    eta_on_picture(&lane->eta, job, manager_now(manager, CLOCK_MONOTONIC));
    manager_count(manager, COUNTER_pictures);
    if (job->picture_count < job_picture_total(job))
        manager_store_picture(manager, job, index);
}

/* The newest one only; what cannot be kept is not missed. */
static void on_preview(struct lane *lane, const union ipc_packet *packet, int attached)
{
    const struct ipc_preview *p = &packet->preview;
    struct manager *manager = lane->manager;
    struct job *job = lane->running;
    struct job_preview preview = {.picture = p->picture,
                                  .step = p->step,
                                  .width = p->width,
                                  .height = p->height,
                                  .bytes = p->size};

    preview.fd = fcntl(attached, F_DUPFD_CLOEXEC, 3);
    if (preview.fd < 0)
        return;
    job_set_preview(job, &preview);
    MANAGER_NOTIFY(manager, on_job_preview, job);
}

static void finish_cancelled(struct manager *manager, struct job *job)
{
    uint64_t deadline = job->deadline_uptime_usec;
    bool late = deadline && manager_uptime(manager) >= deadline;

    manager_finish_job(manager, job, JOB_STATE_CANCELLED, late ? -ETIME : -ECANCELED,
                       late ? "its deadline has passed while it ran" : "cancelled while running",
                       NULL, NULL);
}

static void on_done(struct lane *lane, const union ipc_packet *packet, int attached)
{
    const struct ipc_done *d = &packet->done;
    struct manager *manager = lane->manager;
    struct job *job = lane->running;
    bool complete = job->picture_count == job_picture_total(job);

    (void)attached;
    if (d->err == -EIO) { /* the job is run again by a new worker */
        worker_kill(lane->worker, -EIO, d->text);
        return;
    }
    if (d->err == 0 && complete)
        manager_finish_job(manager, job, JOB_STATE_DONE, 0, "", NULL, NULL);
    else if (d->err == 0)
        manager_finish_job(manager, job, JOB_STATE_FAILED, -EPROTO, "the worker left out pictures",
                           NULL, NULL);
    else if (d->err == -ECANCELED && job->is_cancelling)
        finish_cancelled(manager, job);
    else
        manager_finish_job(manager, job, JOB_STATE_FAILED, d->err, d->text, NULL, NULL);
    if (d->err == 0)
        worker_on_success(lane->worker);
}

typedef void packet_handler_t(struct lane *lane, const union ipc_packet *packet, int attached);

static const struct {
    packet_handler_t *handler;
    bool needs_job; /* only for the job that runs; of others it is a late word and dropped */
} handlers[] = {
    [IPC_CONTEXT] = {on_context, false}, [IPC_LOADING] = {on_loading, false},
    [IPC_HELLO] = {on_hello, false},     [IPC_BEAT] = {on_beat, false},
    [IPC_STEP] = {on_step, true},        [IPC_WARNING] = {on_warning, true},
    [IPC_PICTURE] = {on_picture, true},  [IPC_DONE] = {on_done, true},
    [IPC_PREVIEW] = {on_preview, true},
};

static bool is_running(const struct lane *lane, uint64_t id)
{
    const struct job *job = lane->running;

    return job && job->id == id && job->state == JOB_STATE_RUNNING;
}

static void on_packet(const union ipc_packet *packet, int attached, void *userdata)
{
    uint32_t type = packet->header.type;
    struct lane *lane = userdata;

    if (type >= ARRAY_SIZE(handlers) || !handlers[type].handler)
        return;
    if (!handlers[type].needs_job || is_running(lane, packet->header.job))
        handlers[type].handler(lane, packet, attached);
    if (type != IPC_DONE || worker_get_state(lane->worker) != WORKER_STATE_READY)
        return;
    set_lane(lane, MANAGER_STATE_READY, "");
    manager_plan_dispatch(lane->manager);
}

/* --- the worker's end ------------------------------------------------------------------------- */

static void on_death_under(struct manager *manager, struct job *job, enum worker_end end,
                           const char *why)
{
    char text[256];

    job->deaths++;
    (void)snprintf(text, sizeof text, "the worker died %" PRIu32 " times under this job: %.160s",
                   job->deaths, why);
    if (job->is_cancelling) {
        finish_cancelled(manager, job);
        return;
    }
    if (job->deaths >= JOB_DEATHS_MAX) {
        manager_finish_job(manager, job, JOB_STATE_FAILED,
                           end == WORKER_END_DEVICE_LOST ? -EIO : -ECONNRESET, text, NULL, NULL);
        return;
    }
    event_log(EVENT_JOB_REQUEUED, event_of_step(job->id, job->owner, job->step),
              "job %" PRIu64 ": its worker died; it is run again", job->id);
    manager_count(manager, COUNTER_jobs_requeued);
    manager_requeue_job(manager, job);
}

static void log_death(struct lane *lane, enum worker_end end, const char *why)
{
    int err = lane->worker ? worker_get_error(lane->worker) : 0;
    enum event_kind kind = end == WORKER_END_DEVICE_LOST ? EVENT_DEVICE_LOST
                           : err == -ETIMEDOUT           ? EVENT_WORKER_HUNG
                           : err == -EBADMSG             ? EVENT_PICTURE_WRONG
                                                         : EVENT_WORKER_DIED;

    manager_count(lane->manager, COUNTER_worker_deaths);
    if (end == WORKER_END_DEVICE_LOST)
        manager_count(lane->manager, COUNTER_devices_lost);
    event_log(kind, EVENT_OF_NONE, "worker: %s", why);
}

static bool is_given_up(const struct lane *lane)
{
    uint64_t now = manager_now(lane->manager, CLOCK_MONOTONIC);

    return lane->deaths_in_a_row >= DEATHS_UNTIL_FAILED &&
           now - lane->failing_since_usec >= DEATHS_USEC;
}

/* Whether a model that cannot be loaded gives way to the one that was there before. One that kills
 * its worker again and again cannot be loaded, either. */
static bool goes_back(struct lane *lane, enum worker_end end, const char *why)
{
    bool is_hopeless =
        end == WORKER_END_FAILED || (lane->fallback && lane->deaths_in_a_row >= SWITCH_DEATHS_MAX);
    int err = lane->worker ? worker_get_error(lane->worker) : 0;
    const struct model *failed = lane->model;
    char text[384];

    if (!is_hopeless || lane->state != MANAGER_STATE_LOADING)
        return false;
    if (!manager_on_load_failed(lane, err, why))
        return false;
    (void)snprintf(text, sizeof text, "model %.64s cannot be loaded: %.160s; loading %.64s again",
                   failed->name, why, lane->model->name);
    event_log(EVENT_MODEL_REFUSED, EVENT_OF_NONE, "%s", text);
    lane->is_stale = true; /* not here: the worker is telling us this */
    set_lane(lane, MANAGER_STATE_LOADING, text);
    manager_plan_dispatch(lane->manager);
    return true;
}

static void on_worker_end(enum worker_end end, const char *why, void *userdata)
{
    struct lane *lane = userdata;
    struct job *job = lane->running;
    char text[384];

    log_death(lane, end, why);
    if (job && !job->is_moving) /* one that is on its way to this lane finds it empty */
        on_death_under(lane->manager, job, end, why);
    if (lane->state == MANAGER_STATE_LOADING && lane->deaths_in_a_row++ == 0)
        lane->failing_since_usec = manager_now(lane->manager, CLOCK_MONOTONIC);
    if (goes_back(lane, end, why))
        return;
    if (end == WORKER_END_FAILED) {
        set_lane(lane, MANAGER_STATE_FAILED, why);
        return;
    }
    (void)snprintf(text, sizeof text, "%.320s; it is started again", why);
    set_lane(lane, is_given_up(lane) ? MANAGER_STATE_FAILED : MANAGER_STATE_LOADING, text);
}

/* --- starting workers ------------------------------------------------------------------------- */

static const char *device_of(const struct lane *lane)
{
    const struct config *config = &lane->manager->config;

    return config->device_node_count ? config->device_nodes[lane - lane->manager->lanes] : NULL;
}

static int make_worker(struct lane *lane)
{
    const struct manager *manager = lane->manager;
    const struct config *config = &manager->config;
    const struct worker_listener listener = {
        .on_packet = on_packet, .on_end = on_worker_end, .userdata = lane};
    char allow_cpu[16], metadata[16];
    const struct worker_options w = {
        .executable = manager->options.worker,
        .model = lane->model ? lane->model->path : "",
        .device = device_of(lane),
        .allow_cpu =
            config_word("device", "allow_cpu", config->allow_cpu, allow_cpu, sizeof allow_cpu),
        .png_metadata =
            config_word("png", "metadata", config->png_metadata, metadata, sizeof metadata),
        .cache = manager->options.cache,
        .loras = config->loras_path,
        .strict_weights = manager->options.strict_weights,
    };

    return worker_new(manager->event, &w, &listener, &lane->worker);
}

static void start_lane(struct lane *lane)
{
    struct fault f = {0};

    lane->is_unloaded = false;
    if (!lane->model) {
        set_lane(lane, MANAGER_STATE_FAILED,
                 "no model: set path in section [model] of the configuration");
        return;
    }
    set_lane(lane, MANAGER_STATE_LOADING, "starting the worker");
    if (worker_start(lane->worker, &f) < 0)
        on_worker_end(WORKER_END_FAILED, f.text, lane);
}

void manager_switch_lane(struct lane *lane, struct model *model)
{
    lane->next = model;
    lane->has_next = true;
}

/* Nothing is resident; the next job loads what it needs. */
static void unload_lane(struct lane *lane)
{
    struct manager *manager = lane->manager;
    struct manager_facts *facts = &manager->facts;

    lane->is_unloaded = true;
    lane->fallback = NULL;
    if (lane == manager->lanes) {
        facts->model[0] = facts->model_hash[0] = '\0';
        facts->memory_used = 0;
        manager_tell(manager, MANAGER_CHANGE_DEVICE);
    }
    set_lane(lane, MANAGER_STATE_READY, "no model is loaded; the next job loads the one it needs");
    manager_tell_unloaded(manager);
}

/* What the lane is to have from now on. True when it is nothing. */
static bool take_next(struct lane *lane)
{
    bool could_draw = lane->state == MANAGER_STATE_READY && !lane->is_unloaded;

    if (!lane->has_next)
        return lane->is_unloaded;
    lane->has_next = false;
    if (!lane->next)
        return true;
    if (could_draw && lane->model != lane->next)
        lane->fallback = lane->model;
    lane->model = lane->next;
    if (lane->fallback == lane->model)
        lane->fallback = NULL;
    lane->next = NULL;
    return false;
}

/* The old process is gone before the new one needs its device memory. */
static void renew_lane(struct lane *lane)
{
    struct worker *old = lane->worker;
    struct model *model = lane->model;
    bool unloads = take_next(lane);

    lane->is_stale = false;
    lane->deaths_in_a_row = 0;
    if (make_worker(lane) < 0) {
        log_error("a worker cannot be replaced: out of memory; the old one stays");
        lane->worker = old;
        lane->model = model;
        return;
    }
    worker_free(old);
    worker_hold(lane->worker, lane->manager->is_hot || lane->manager->is_asleep);
    if (unloads)
        unload_lane(lane);
    else
        start_lane(lane);
}

void manager_renew_lanes(struct manager *manager)
{
    for (size_t i = 0; i < manager->lane_count; i++)
        manager->lanes[i].is_stale = true;
    manager_plan_dispatch(manager);
}

/* --- dispatch --------------------------------------------------------------------------------- */

static bool may_start(const struct manager *manager)
{
    return !manager->is_paused && !manager->is_hot && !manager->is_asleep && !manager->disk_fails &&
           manager->unsaved == 0;
}

static bool is_ready(const struct lane *lane)
{
    return lane->state == MANAGER_STATE_READY &&
           worker_get_state(lane->worker) == WORKER_STATE_READY;
}

static void renew_lanes(struct manager *manager)
{
    for (size_t i = 0; i < manager->lane_count; i++) {
        struct lane *lane = &manager->lanes[i];
        if ((lane->is_stale || lane->has_next) && !lane->running)
            renew_lane(lane);
    }
}

static int on_dispatch(sd_event_source *source, void *userdata)
{
    struct manager *manager = userdata;

    (void)source;
    renew_lanes(manager);
    for (size_t i = 0; i < manager->lane_count && may_start(manager); i++) {
        struct lane *lane = &manager->lanes[i];
        bool is_idle = !lane->running && (is_ready(lane) || lane->is_unloaded);
        struct job *job = is_idle ? manager_choose_job(lane) : NULL;
        if (job)
            manager_start_job(manager, lane, job);
    }
    renew_lanes(manager); /* which a job has asked for */
    return 0;
}

void manager_plan_dispatch(struct manager *manager)
{
    int r =
        manager->dispatch ? sd_event_source_set_enabled(manager->dispatch, SD_EVENT_ONESHOT) : 0;

    if (r < 0)
        log_error("no dispatch: %s", strerror(-r));
}

static void close_inputs(int inputs[JOB_INPUT_COUNT])
{
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++)
        closep(&inputs[i]);
}

/* The pictures that the job starts from, as they are in the spool. Without them it fails. */
static bool open_inputs(struct manager *manager, struct job *job, int inputs[JOB_INPUT_COUNT])
{
    struct fault f = {0};

    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        if (job->inputs[i].format == JOB_FORMAT_NONE)
            continue;
        inputs[i] = spool_open_input(manager->spool, job, i, &f);
        if (inputs[i] >= 0)
            continue;
        close_inputs(inputs);
        manager_finish_job(manager, job, JOB_STATE_FAILED, f.err, f.text, NULL, NULL);
        return false;
    }
    return true;
}

/* Between the decision and the disk's answer the job may have been cancelled, or the worker may
 * have died: then this start does not count. */
void manager_launch(struct manager *manager, struct lane *lane, struct job *job)
{
    int inputs[JOB_INPUT_COUNT] = {-1, -1};

    if (job->is_cancelling) {
        manager_finish_job(manager, job, JOB_STATE_CANCELLED, -ECANCELED, "cancelled while queued",
                           NULL, NULL);
        manager_plan_dispatch(manager);
        return;
    }
    if (!lane->worker || !is_ready(lane)) {
        job->starts--;
        manager_requeue_job(manager, job);
        return;
    }
    if (!open_inputs(manager, job, inputs)) {
        manager_plan_dispatch(manager);
        return;
    }
    job->started_usec = manager_now(manager, CLOCK_REALTIME);
    eta_on_start(&lane->eta, job, manager_now(manager, CLOCK_MONOTONIC));
    event_log(EVENT_JOB_RUNNING, event_of_job(job->id, job->owner), "job %" PRIu64 ": running",
              job->id);
    manager_change_job(manager, job, JOB_STATE_RUNNING);
    set_lane(lane, MANAGER_STATE_BUSY, "");
    worker_run(lane->worker, &job->request, job->id, inputs);
    close_inputs(inputs);
}

/* --- life of the lanes ------------------------------------------------------------------------ */

int manager_open_lanes(struct manager *manager, struct fault *f)
{
    const struct config *config = &manager->config;

    if (manager_take_models(manager) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    manager->lane_count = config->device_node_count ? config->device_node_count : 1;
    for (size_t i = 0; i < manager->lane_count; i++) {
        struct lane *lane = &manager->lanes[i];
        *lane = (struct lane){
            .manager = manager, .model = manager->selected, .state = MANAGER_STATE_LOADING};
        int r = make_worker(lane);
        if (r < 0)
            return fault_set(f, r, "worker: %s", strerror(-r));
    }
    int r = sd_event_add_defer(manager->event, &manager->dispatch, on_dispatch, manager);
    if (r >= 0)
        r = sd_event_source_set_enabled(manager->dispatch, SD_EVENT_OFF);
    return r < 0 ? fault_set(f, r, "dispatch: %s", strerror(-r)) : 0;
}

void manager_start_lanes(struct manager *manager)
{
    for (size_t i = 0; i < manager->lane_count; i++)
        start_lane(&manager->lanes[i]);
}

/* Jobs that run go back to the queue, and this start of theirs does not count. */
void manager_close_lanes(struct manager *manager)
{
    manager->dispatch = sd_event_source_disable_unref(manager->dispatch);
    for (size_t i = 0; i < manager->lane_count; i++) {
        struct lane *lane = &manager->lanes[i];
        lane->worker = worker_free(lane->worker);
        if (!lane->running || lane->running->is_moving)
            continue;
        lane->running->starts--;
        manager_requeue_job(manager, lane->running);
    }
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
    char *argv[] = {(char *)(uintptr_t)manager->options.worker, probe, json, NULL};
    struct fault f = {0};

    if (helper_start(manager->event, argv, -1, on_probe, manager, &manager->probe, &f) < 0)
        log_warning("list of devices: %s, ignoring", f.text);
}
