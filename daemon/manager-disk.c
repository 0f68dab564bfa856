/* Changes on their way to the disk. Each is posted to the spooler; what follows from its answer is
 * the after_* function beside it. The order is always: disk, memory, observers; so that nobody is
 * told of what a crash could take back.
 *
 * When the disk fails, the service says Degraded and goes on with what it can: submissions are
 * refused, jobs wait instead of starting, and one that has ended is told of and keeps its pictures
 * in memory until the disk has taken it. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/access.h"
#include "daemon/error.h"
#include "daemon/event.h"
#include "daemon/manager-internal.h"

/* Somebody who waits for the answer. */
struct waiter {
    struct waiter *next;
    manager_submitted_t *submitted; /* of SUBMIT */
    manager_done_t *done;           /* of the others */
    void *userdata;
};

/* Posted and not answered yet. */
struct change {
    struct change *next;
    struct manager *manager;
    enum spool_change kind;
    struct job *job; /* SUBMIT: owned; NULL for some */
    struct lane *lane;
    uint64_t argument;
    struct waiter *waiters;
};

typedef void after_t(struct change *change, int r, const struct fault *f);

static struct change *change_free(struct change *change)
{
    struct waiter *waiter;

    if (!change)
        return NULL;
    while ((waiter = change->waiters)) {
        change->waiters = waiter->next;
        free(waiter);
    }
    free(change);
    return NULL;
}

static int add_waiter(struct change *change, manager_submitted_t *submitted, manager_done_t *done,
                      void *userdata)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);

    if (!waiter)
        return -ENOMEM;
    *waiter = (struct waiter){change->waiters, submitted, done, userdata};
    change->waiters = waiter;
    return 0;
}

static void answer(struct change *change, int r, struct job *job, const struct fault *f)
{
    for (struct waiter *w = change->waiters; w; w = w->next) {
        if (w->submitted)
            w->submitted(r, job, f, w->userdata);
        if (w->done)
            w->done(r, f, w->userdata);
    }
}

/* --- the disk's health ------------------------------------------------------------------------ */

void manager_set_trouble(struct manager *manager, enum manager_trouble trouble, const char *reason)
{
    struct manager_facts *facts = &manager->facts;

    (void)snprintf(manager->troubles[trouble], sizeof manager->troubles[trouble], "%s", reason);
    fault_mend(manager->troubles[trouble]);
    reason = "";
    for (unsigned i = 0; i < TROUBLE_COUNT && !*reason; i++)
        reason = manager->troubles[i];
    if (strcmp(facts->degraded_reason, reason) == 0)
        return;
    (void)snprintf(facts->degraded_reason, sizeof facts->degraded_reason, "%s", reason);
    manager_tell(manager, MANAGER_CHANGE_DEGRADED);
}

void manager_set_drop_trouble(struct manager *manager, const char *reason)
{
    manager_set_trouble(manager, TROUBLE_DROP, reason);
}

static void on_disk_failure(struct manager *manager, const struct fault *f)
{
    manager_count(manager, COUNTER_spool_errors);
    if (!manager->disk_fails)
        event_log(EVENT_SPOOL_DEGRADED, EVENT_OF_NONE, "%s; jobs wait until the disk is well",
                  f->text);
    manager->disk_fails = true;
    manager_set_trouble(manager, TROUBLE_DISK, f->text);
}

static void on_disk_success(struct manager *manager)
{
    if (!manager->disk_fails)
        return;
    manager->disk_fails = false;
    event_log(EVENT_SPOOL_RECOVERED, EVENT_OF_NONE, "spool: the disk takes changes again");
    manager_set_trouble(manager, TROUBLE_DISK, "");
    manager_retry_disk(manager);
    manager_plan_dispatch(manager);
}

/* --- what follows ----------------------------------------------------------------------------- */

static void after_submit(struct change *change, int r, const struct fault *f)
{
    struct manager *manager = change->manager;
    struct job *job = TAKE_PTR(change->job);

    manager->coming--;
    if (r == 0 && job_name_inputs(job) < 0)
        r = -ENOMEM;
    if (r == 0)
        r = manager_adopt(manager, job); /* room was made before it was posted */
    if (r < 0) {
        manager_count(manager, COUNTER_jobs_refused);
        answer(change, r, NULL, f);
        job_free(job);
        return;
    }
    manager_count(manager, COUNTER_jobs_submitted);
    event_log(EVENT_JOB_QUEUED, event_of_job(job->id, job->owner),
              "job %" PRIu64 ": queued for uid %" PRIu32, job->id, job->owner);
    MANAGER_NOTIFY(manager, on_job_added, job);
    manager_tell(manager, MANAGER_CHANGE_QUEUE);
    answer(change, 0, job, f);
    (void)manager_settle_request(manager, job); /* the model may have become known meanwhile */
    manager_plan_dispatch(manager);
}

static void after_start(struct change *change, int r, const struct fault *f)
{
    struct manager *manager = change->manager;
    struct job *job = change->job;

    (void)f;
    job->is_moving = false;
    if (r == 0) {
        job->starts++;
        manager_launch(manager, change->lane, job);
        return;
    }
    manager_clear_lane(manager, job);
    (void)queue_insert(&manager->queue, job); /* there is room: it came from there */
    manager_update_state(manager);
}

static void after_requeue(struct change *change, int r, const struct fault *f)
{
    struct manager *manager = change->manager;
    struct job *job = change->job;

    (void)r, (void)f; /* where it lies on disk it is found as well */
    job->is_moving = false;
    if (job->is_cancelling) {
        manager_finish_job(manager, job, JOB_STATE_CANCELLED, -ECANCELED, "cancelled", NULL, NULL);
        return;
    }
    (void)queue_insert(&manager->queue, job); /* there is room: see manager_adopt() */
    if (job->state != JOB_STATE_QUEUED)
        manager_change_job(manager, job, JOB_STATE_QUEUED);
    manager_plan_dispatch(manager);
}

static void after_store(struct change *change, int r, const struct fault *f)
{
    (void)f;
    if (r == 0)
        job_release_picture(change->job, (uint32_t)change->argument);
}

static void log_end(const struct job *job, enum job_state state)
{
    static const enum event_kind kinds[JOB_STATE_COUNT] = {
        [JOB_STATE_DONE] = EVENT_JOB_DONE,
        [JOB_STATE_FAILED] = EVENT_JOB_FAILED,
        [JOB_STATE_CANCELLED] = EVENT_JOB_CANCELLED,
    };

    event_log(kinds[state], event_of_job(job->id, job->owner), "job %" PRIu64 ": %s%s%s", job->id,
              job_state_to_string(state), job->error.err ? ": " : "",
              job->error.err ? error_to_word(job->error.err) : "");
}

static void end_job(struct manager *manager, struct job *job, enum job_state state)
{
    static const enum manager_counter_id counters[JOB_STATE_COUNT] = {
        [JOB_STATE_DONE] = COUNTER_jobs_done,
        [JOB_STATE_FAILED] = COUNTER_jobs_failed,
        [JOB_STATE_CANCELLED] = COUNTER_jobs_cancelled,
    };

    log_end(job, state);
    manager_count(manager, counters[state]);
    manager_change_job(manager, job, state);
}

static void set_unsaved(struct manager *manager, struct job *job, bool is_unsaved)
{
    if (job->is_unsaved == is_unsaved)
        return;
    job->is_unsaved = is_unsaved;
    manager->unsaved += is_unsaved ? 1 : (size_t)-1;
}

static void after_finish(struct change *change, int r, const struct fault *f)
{
    struct manager *manager = change->manager;
    enum job_state state = (enum job_state)change->argument;
    struct job *job = change->job;
    bool is_news = job->state != state;

    job->is_moving = false;
    set_unsaved(manager, job, r < 0);
    for (uint32_t i = 0; r == 0 && i < REQUEST_PICTURES_MAX; i++)
        job_release_picture(job, i);
    if (is_news)
        end_job(manager, job, state);
    answer(change, r, job, f);
    manager_plan_dispatch(manager);
    manager_retire(manager);
}

static void after_delete(struct change *change, int r, const struct fault *f)
{
    struct manager *manager = change->manager;
    struct job *job = change->job;

    job->is_moving = false;
    if (r == 0) {
        event_log(EVENT_JOB_REMOVED, event_of_job(job->id, job->owner), "job %" PRIu64 ": deleted",
                  job->id);
        manager_count(manager, COUNTER_jobs_deleted);
        manager_remove_job(manager, job);
    }
    answer(change, r, NULL, f);
}

static void after_nothing(struct change *change, int r, const struct fault *f)
{
    (void)change, (void)r, (void)f;
}

static after_t *const afters[] = {
    [SPOOL_CHANGE_SUBMIT] = after_submit, [SPOOL_CHANGE_UPDATE] = after_nothing,
    [SPOOL_CHANGE_START] = after_start,   [SPOOL_CHANGE_REQUEUE] = after_requeue,
    [SPOOL_CHANGE_STORE] = after_store,   [SPOOL_CHANGE_FINISH] = after_finish,
    [SPOOL_CHANGE_DELETE] = after_delete, [SPOOL_CHANGE_UPTIME] = after_nothing,
    [SPOOL_CHANGE_PROBE] = after_nothing,
};

/* --- posting ---------------------------------------------------------------------------------- */

static void unlink_change(struct change *change)
{
    struct change **at = &change->manager->changes;

    while (*at != change)
        at = &(*at)->next;
    *at = change->next;
}

/* What the spool has found out about the inputs, which it has now. */
static void take_inputs(struct job *job, const struct job *copy)
{
    job_release_inputs(job);
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        job->inputs[i] = copy->inputs[i];
        job->inputs[i].fd = -1;
    }
}

static void on_answer(int r, const struct job *copy, const struct fault *f, void *userdata)
{
    struct change *change = userdata;

    unlink_change(change);
    if (r == 0)
        on_disk_success(change->manager);
    else if (r != -ENOMEM && r != -EINVAL) /* -EINVAL: a picture that was handed in is bad */
        on_disk_failure(change->manager, f);
    if (r == 0 && change->kind == SPOOL_CHANGE_SUBMIT)
        take_inputs(change->job, copy);
    afters[change->kind](change, r, f);
    change_free(change);
}

static struct change *new_change(struct manager *manager, enum spool_change kind, struct job *job,
                                 uint64_t argument)
{
    struct change *change = calloc(1, sizeof *change);

    if (change)
        *change =
            (struct change){.manager = manager, .kind = kind, .job = job, .argument = argument};
    return change;
}

/* Takes the change over. What cannot even be posted is answered like what the disk refuses. */
static void post(struct change *change)
{
    struct manager *manager = change->manager;
    struct fault f = {0};

    change->next = manager->changes;
    manager->changes = change;
    int r = spooler_post(manager->spooler, change->kind, change->job, change->argument, on_answer,
                         change);
    if (r < 0) {
        (void)fault_set(&f, r, "%s", r == -ENOMEM ? "out of memory" : strerror(-r));
        on_answer(r, NULL, &f, change);
    }
}

/* Posts a change nobody waits for. Out of memory it is answered at once, without being posted. */
static void post_plain(struct manager *manager, enum spool_change kind, struct job *job,
                       struct lane *lane, uint64_t argument)
{
    struct change *change = new_change(manager, kind, job, argument);
    struct change spare = {.manager = manager, .kind = kind, .job = job, .argument = argument};
    struct fault f = {0};

    if (!change) {
        spare.lane = lane;
        (void)fault_set(&f, -ENOMEM, "out of memory");
        afters[kind](&spare, -ENOMEM, &f);
        return;
    }
    change->lane = lane;
    post(change);
}

/* With somebody who waits; out of memory they are told so and nothing happens. */
static int post_for(struct manager *manager, enum spool_change kind, struct job *job,
                    uint64_t argument, manager_done_t *done, void *userdata)
{
    struct change *change = new_change(manager, kind, job, argument);

    if (!change || add_waiter(change, NULL, done, userdata) < 0) {
        change_free(change);
        return -ENOMEM;
    }
    post(change);
    return 0;
}

/* --- one function a change -------------------------------------------------------------------- */

void manager_keep_job(struct manager *manager, struct job *job, manager_submitted_t *done,
                      void *userdata)
{
    struct change *change = new_change(manager, SPOOL_CHANGE_SUBMIT, job, 0);
    struct fault f = {0};

    if (change && add_waiter(change, done, NULL, userdata) == 0) {
        manager->coming++;
        post(change);
        return;
    }
    change_free(change);
    job_free(job);
    (void)fault_set(&f, -ENOMEM, "out of memory");
    done(-ENOMEM, NULL, &f, userdata);
}

static bool is_same_submission(const struct job *job, uint32_t owner, const char *token,
                               const char *origin)
{
    if (origin)
        return strcmp(job->origin, origin) == 0;
    return token && *token && job->owner == owner && job->request.token &&
           strcmp(job->request.token, token) == 0;
}

bool manager_join_submission(struct manager *manager, uint32_t owner, const char *token,
                             const char *origin, manager_submitted_t *done, void *userdata)
{
    for (struct change *c = manager->changes; c; c = c->next) {
        if (c->kind != SPOOL_CHANGE_SUBMIT || !is_same_submission(c->job, owner, token, origin))
            continue;
        if (add_waiter(c, done, NULL, userdata) < 0) {
            struct fault f = {0};
            (void)fault_set(&f, -ENOMEM, "out of memory");
            done(-ENOMEM, NULL, &f, userdata);
        }
        return true;
    }
    return false;
}

struct usage manager_coming_of(const struct manager *manager, uint32_t owner)
{
    struct usage usage = {0};

    for (const struct change *c = manager->changes; c; c = c->next) {
        if (c->kind != SPOOL_CHANGE_SUBMIT || c->job->owner != owner)
            continue;
        usage.jobs++;
        usage.bytes += job_bytes(c->job);
    }
    return usage;
}

static void tell_no_memory(manager_done_t *done, void *userdata)
{
    struct fault f = {0};

    (void)fault_set(&f, -ENOMEM, "out of memory");
    done(-ENOMEM, &f, userdata);
}

void manager_update_job(struct manager *manager, struct job *job)
{
    post_plain(manager, SPOOL_CHANGE_UPDATE, job, NULL, 0);
}

void manager_start_job(struct manager *manager, struct lane *lane, struct job *job)
{
    job->is_moving = true;
    lane->running = job;
    post_plain(manager, SPOOL_CHANGE_START, job, lane, 0);
}

void manager_requeue_job(struct manager *manager, struct job *job)
{
    manager_clear_lane(manager, job);
    job_rewind(job);
    job->is_moving = true;
    post_plain(manager, SPOOL_CHANGE_REQUEUE, job, NULL, 0);
}

void manager_store_picture(struct manager *manager, struct job *job, uint32_t index)
{
    post_plain(manager, SPOOL_CHANGE_STORE, job, NULL, index);
}

void manager_finish_job(struct manager *manager, struct job *job, enum job_state state, int err,
                        const char *text, manager_done_t *done, void *userdata)
{
    assert(!job->is_moving);
    queue_remove(&manager->queue, job);
    manager_clear_lane(manager, job);
    job->finished_usec = manager_now(manager, CLOCK_REALTIME);
    job->finished_uptime_usec = manager_uptime(manager);
    job_drop_preview(job);
    job->is_cancelling = false;
    job->is_moving = true;
    if (err)
        (void)fault_set(&job->error, err, "%s", text);
    if (done && post_for(manager, SPOOL_CHANGE_FINISH, job, state, done, userdata) == 0)
        return;
    post_plain(manager, SPOOL_CHANGE_FINISH, job, NULL, state);
    if (done)
        tell_no_memory(done, userdata);
}

void manager_erase_job(struct manager *manager, struct job *job, manager_done_t *done,
                       void *userdata)
{
    job->is_moving = true;
    if (!done) {
        post_plain(manager, SPOOL_CHANGE_DELETE, job, NULL, 0);
    } else if (post_for(manager, SPOOL_CHANGE_DELETE, job, 0, done, userdata) < 0) {
        job->is_moving = false;
        tell_no_memory(done, userdata);
    }
}

void manager_save_uptime(struct manager *manager)
{
    manager->saved_uptime_usec = manager_uptime(manager);
    post_plain(manager, SPOOL_CHANGE_UPTIME, NULL, NULL, manager->saved_uptime_usec / 1000000);
}

void manager_retry_disk(struct manager *manager)
{
    bool tried = false;

    for (size_t i = 0; manager->unsaved > 0 && i < manager->jobs.count; i++) {
        struct job *job = manager->jobs.items[i];
        if (!job->is_unsaved || job->is_moving)
            continue;
        job->is_moving = tried = true;
        post_plain(manager, SPOOL_CHANGE_FINISH, job, NULL, job->state);
    }
    if (manager->disk_fails && !tried)
        post_plain(manager, SPOOL_CHANGE_PROBE, NULL, NULL, 0);
}

/* --- opening and closing ---------------------------------------------------------------------- */

static void judge_found(struct manager *manager, struct job *job)
{
    uint32_t interruptions = job->starts > job->deaths ? job->starts - job->deaths : 0;

    if (job->deaths >= JOB_DEATHS_MAX)
        manager_finish_job(manager, job, JOB_STATE_FAILED, -ECONNRESET,
                           "the worker died twice under this job", NULL, NULL);
    else if (interruptions >= JOB_INTERRUPTIONS_MAX)
        manager_finish_job(manager, job, JOB_STATE_FAILED, -ECONNRESET,
                           "interrupted by the daemon's end too often", NULL, NULL);
    else
        event_log(EVENT_JOB_RECOVERED, event_of_job(job->id, job->owner),
                  "job %" PRIu64 ": found in the spool, queued", job->id);
}

static void on_found(struct job *job, void *userdata)
{
    struct manager *manager = userdata;

    if (manager_adopt(manager, job) == 0)
        return;
    log_error("job %" PRIu64 ": out of memory, left in the spool for the next start", job->id);
    job_free(job);
}

static void on_corrupt(const char *state, const char *name, const char *why, void *userdata)
{
    manager_count(userdata, COUNTER_records_damaged);
    event_log(EVENT_RECORD_CORRUPT, EVENT_OF_NONE, "spool: %s/%.64s: %s; moved to corrupt/", state,
              name, why);
}

static void on_trouble(const char *why, void *userdata)
{
    struct fault f = {0};

    (void)fault_set(&f, -ENOTRECOVERABLE, "%s", why);
    on_disk_failure(userdata, &f);
}

/* Not worth a failed start: pictures are then had through the bus, as ever. */
static void share_pictures(struct manager *manager)
{
    const char *group = manager->config.access_group;
    struct fault f = {0};
    gid_t gid;

    if (!manager->config.spool_group_readable)
        return;
    if (!group || !access_find_group(group, &gid))
        (void)fault_set(&f, -ENOENT, "there is no group %.64s", group ? group : "");
    else
        (void)spool_share_pictures(manager->spool, gid, &f);
    if (f.err)
        event_log(EVENT_CONFIG_WARNING, EVENT_OF_NONE, "[spool] group_readable: %s", f.text);
}

/* The file is written now and then only: what has ended later says how late it was at least. */
static void find_uptime(struct manager *manager)
{
    uint64_t usec = spool_uptime(manager->spool) * 1000000;

    for (size_t i = 0; i < manager->jobs.count; i++)
        if (manager->jobs.items[i]->finished_uptime_usec > usec)
            usec = manager->jobs.items[i]->finished_uptime_usec;
    manager->uptime_base_usec = usec;
}

int manager_open_disk(struct manager *manager, struct fault *f)
{
    const struct spool_finder finder = {.on_job = on_found,
                                        .on_corrupt = on_corrupt,
                                        .on_trouble = on_trouble,
                                        .userdata = manager};

    int r = spool_open(manager->config.spool_path, &manager->spool, f);
    if (r < 0 || (r = spool_recover(manager->spool, &finder, f)) < 0)
        return r;
    share_pictures(manager);
    r = spooler_new(manager->event, manager->spool, &manager->spooler);
    if (r < 0)
        return fault_set(f, r, "spool: %s", strerror(-r));
    find_uptime(manager);
    for (size_t i = 0; i < manager->jobs.count; i++)
        if (manager->jobs.items[i]->state == JOB_STATE_QUEUED)
            judge_found(manager, manager->jobs.items[i]);
    return 0;
}

void manager_close_disk(struct manager *manager)
{
    if (!manager->spooler)
        return;
    spooler_drain(manager->spooler);
    manager_retry_disk(manager);
    manager_save_uptime(manager);
    spooler_drain(manager->spooler);
    manager->spooler = spooler_free(manager->spooler);
}
