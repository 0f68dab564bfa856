/* What time brings: deadlines, retention, a disk that is tried again, a board that is hot or
 * asleep, a configuration read again. One tick a second; times are the service's own uptime, so
 * that a board without a clock, or one whose clock jumps, keeps its promises. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/event.h"
#include "daemon/manager-internal.h"

#define TICK_USEC        UINT64_C(1000000)
#define HEAT_TICKS       5u
#define SAVE_UPTIME_USEC UINT64_C(300000000) /* what a power cut may take from the uptime */
#define FRESH_USEC       UINT64_C(60000000)  /* after its end want of space does not retire a job */
#define SPACE_SLACK      UINT64_C(1048576)   /* bytes over keep_free before intake opens again */

static uint64_t boottime(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_BOOTTIME, &t); /* cannot fail with a clock that exists */
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t manager_uptime(const struct manager *manager)
{
    return manager->uptime_base_usec + (boottime() - manager->started_boottime_usec);
}

/* --- space and retention ---------------------------------------------------------------------- */

static bool is_space_low(const struct manager *manager, uint64_t slack, uint64_t *ret_free)
{
    uint64_t keep = manager->config.keep_free_megabytes << 20;

    return spool_free_bytes(manager->spool, ret_free) == 0 && *ret_free < keep + slack;
}

int manager_check_space(struct manager *manager, struct fault *f)
{
    uint64_t left = 0;

    if (manager->disk_fails)
        return fault_set(f, -ENOSPC, "the spool cannot be written to: %.180s",
                         manager->facts.degraded_reason);
    if (!is_space_low(manager, 0, &left))
        return 0;
    return fault_set(f, -ENOSPC,
                     "the spool's disk has %" PRIu64 " MiB left, %" PRIu64
                     " are kept free: delete finished jobs",
                     left >> 20, manager->config.keep_free_megabytes);
}

static void watch_space(struct manager *manager)
{
    uint64_t left = 0;
    bool is_low = is_space_low(manager, manager->is_low ? SPACE_SLACK : 0, &left);
    char reason[192];

    if (is_low == manager->is_low)
        return;
    manager->is_low = is_low;
    (void)snprintf(reason, sizeof reason,
                   "the spool's disk has %" PRIu64 " MiB left of %" PRIu64
                   " to keep free: no job is taken in",
                   left >> 20, manager->config.keep_free_megabytes);
    if (is_low)
        event_log(EVENT_SPOOL_FULL, EVENT_OF_NONE, "%s", reason);
    manager_set_trouble(manager, TROUBLE_SPACE, is_low ? reason : "");
}

struct kept {
    uint64_t jobs, bytes;
    uint64_t lacking; /* bytes, of what is to be kept free */
};

static bool is_kept(const struct job *job)
{
    return job_state_is_final(job->state) && !job->is_moving && !job->is_unsaved;
}

static struct kept count_kept(const struct manager *manager)
{
    struct kept kept = {0};

    for (size_t i = 0; i < manager->jobs.count; i++) {
        if (!is_kept(manager->jobs.items[i]))
            continue;
        kept.jobs++;
        kept.bytes += job_bytes(manager->jobs.items[i]);
    }
    return kept;
}

/* For want of space nothing goes whose owner had no time yet to fetch it. */
static bool is_over(const struct config *c, const struct kept *kept, bool is_fresh)
{
    return (c->retain_jobs && kept->jobs > c->retain_jobs) ||
           (c->retain_megabytes && kept->bytes > c->retain_megabytes << 20) ||
           (kept->lacking > 0 && kept->bytes > 0 && !is_fresh);
}

/* The finished job that ended first; ids break ties. */
static struct job *find_oldest(const struct manager *manager)
{
    struct job *oldest = NULL;

    for (size_t i = 0; i < manager->jobs.count; i++) {
        struct job *job = manager->jobs.items[i];
        if (is_kept(job) && (!oldest || job->finished_uptime_usec < oldest->finished_uptime_usec))
            oldest = job;
    }
    return oldest;
}

/* Oldest first. Each is posted once; what the disk refuses is tried again at the next tick. */
void manager_retire(struct manager *manager)
{
    const struct config *c = &manager->config;
    uint64_t now = manager_uptime(manager), age = c->retain_minutes * 60000000;
    struct kept kept = count_kept(manager);
    uint64_t left = 0;
    struct job *job;

    if (manager->is_low && is_space_low(manager, SPACE_SLACK, &left))
        kept.lacking = (c->keep_free_megabytes << 20) + SPACE_SLACK - left;
    while (manager->spooler && !manager->disk_fails && (job = find_oldest(manager))) {
        uint64_t ended = job->finished_uptime_usec, bytes = job_bytes(job);
        uint64_t since = now > ended ? now - ended : 0;
        bool is_old = c->retain_minutes && since >= age;
        if (!is_old && !is_over(c, &kept, since < FRESH_USEC))
            return;
        kept.jobs--;
        kept.bytes -= bytes;
        kept.lacking -= bytes < kept.lacking ? bytes : kept.lacking;
        manager_count(manager, COUNTER_jobs_retired);
        manager_erase_job(manager, job, NULL, NULL);
        if (!job->is_moving) /* not even posted: out of memory */
            return;
    }
}

/* --- deadlines -------------------------------------------------------------------------------- */

static void end_late(struct manager *manager, struct job *job)
{
    if (job->state == JOB_STATE_QUEUED)
        manager_finish_job(manager, job, JOB_STATE_CANCELLED, -ETIME,
                           "its deadline has passed while it waited", NULL, NULL);
    else if (!job->is_cancelling)
        manager_cancel(manager, job, NULL, NULL);
}

static void watch_deadlines(struct manager *manager)
{
    uint64_t now = manager_uptime(manager);

    for (size_t i = 0; i < manager->jobs.count; i++) {
        struct job *job = manager->jobs.items[i];
        if (job->deadline_uptime_usec && job->deadline_uptime_usec <= now && !job->is_moving &&
            !job_state_is_final(job->state))
            end_late(manager, job);
    }
}

/* --- pause, sleep, heat ----------------------------------------------------------------------- */

void manager_pause(struct manager *manager)
{
    if (!manager->is_paused)
        event_log(EVENT_PAUSED, EVENT_OF_NONE, "paused: no further job is started");
    manager->is_paused = true;
    manager_update_state(manager);
}

void manager_resume(struct manager *manager)
{
    if (manager->is_paused)
        event_log(EVENT_RESUMED, EVENT_OF_NONE, "resumed");
    manager->is_paused = false;
    manager_update_state(manager);
    manager_plan_dispatch(manager);
}

static void hold_lanes(struct manager *manager)
{
    for (size_t i = 0; i < manager->lane_count; i++)
        worker_hold(manager->lanes[i].worker, manager->is_hot || manager->is_asleep);
}

static void set_hot(struct manager *manager, const struct thermal *zone, bool is_hot)
{
    uint64_t now = manager_uptime(manager), took = now - manager->hot_since_usec;

    manager->is_hot = is_hot;
    if (is_hot) {
        manager->hot_since_usec = now;
        manager_count(manager, COUNTER_hot_pauses);
        event_log(EVENT_BOARD_HOT, EVENT_OF_NONE, "%s; drawing pauses", manager->hot_reason);
    } else {
        manager->hot_usual_usec =
            manager->hot_usual_usec ? (manager->hot_usual_usec + took) / 2 : took;
        event_log(EVENT_BOARD_COOL, EVENT_OF_NONE, "%s is at %d C; drawing goes on", zone->name,
                  zone->temperature / 1000);
    }
    hold_lanes(manager);
    manager_update_state(manager);
    manager_plan_dispatch(manager);
}

static void watch_heat(struct manager *manager)
{
    struct thermal zone = {0};

    if (manager->thermal >= 0 && manager->config.pause_when_hot)
        (void)thermal_read(manager->thermal, &zone); /* what cannot be read is not hot */
    bool is_hot = thermal_is_hot(&zone, manager->is_hot);
    if (is_hot)
        (void)snprintf(manager->hot_reason, sizeof manager->hot_reason,
                       "the board is hot: %s is at %d C, the limit is %d C", zone.name,
                       zone.temperature / 1000, zone.limit / 1000);
    if (is_hot != manager->is_hot)
        set_hot(manager, &zone, is_hot);
    else if (is_hot)
        manager_update_state(manager);
}

uint64_t manager_hot_left(const struct manager *manager)
{
    uint64_t since = manager_uptime(manager) - manager->hot_since_usec;

    if (!manager->is_hot)
        return 0;
    return manager->hot_usual_usec > since ? manager->hot_usual_usec - since : since;
}

void manager_on_sleep(struct manager *manager, bool sleeping)
{
    manager->is_asleep = sleeping;
    for (size_t i = 0; !sleeping && i < manager->lane_count; i++)
        worker_check(manager->lanes[i].worker); /* first: before a held job goes on */
    hold_lanes(manager);
    manager_plan_dispatch(manager);
}

/* --- reload ----------------------------------------------------------------------------------- */

/* Workers with a model that is no longer configured, or not there any more, get the one that is. */
static void move_lanes(struct manager *manager)
{
    for (size_t i = 0; i < manager->lane_count; i++) {
        struct lane *lane = &manager->lanes[i];
        if (lane->fallback && lane->fallback->is_gone)
            lane->fallback = NULL;
        bool is_lost = !lane->model || lane->model->is_gone;
        if (!manager->selected && is_lost) {
            lane->model = NULL;
            lane->is_stale = true;
        } else if ((is_lost && !lane->is_unloaded) || lane->state == MANAGER_STATE_FAILED) {
            manager_switch_lane(lane, manager->selected);
        }
    }
}

/* Takes the new one over, but for what only a new start can change. */
static int take_config(struct manager *manager, struct config *config)
{
    struct config *old = &manager->config;
    char keys[256];

    for (size_t i = 0; i < config->warning_count; i++)
        event_log(EVENT_CONFIG_WARNING, EVENT_OF_NONE, "%s", config->warnings[i]);
    if (config_changes(old, config, CONFIG_WHEN_RESTART, keys, sizeof keys) > 0)
        event_log(EVENT_CONFIG_WARNING, EVENT_OF_NONE, "changed, but needs a restart: %s", keys);
    if (config_keep(config, old, CONFIG_WHEN_RESTART) < 0) {
        config_done(config);
        return -ENOMEM;
    }
    bool renew = config_changes(old, config, CONFIG_WHEN_WORKER, keys, sizeof keys) > 0;
    config_done(old);
    *old = *config;
    manager->queue.limit = config->limit_queue;
    if (manager_take_models(manager) < 0)
        log_error("the list of models stays as it was: out of memory");
    move_lanes(manager);
    if (renew)
        manager_renew_lanes(manager);
    manager_plan_dispatch(manager);
    manager_probe_models(manager);
    return 0;
}

int manager_reload(struct manager *manager, struct fault *f)
{
    struct config config = {0};

    if (!manager->options.read_config)
        return fault_set(f, -EOPNOTSUPP, "there is no configuration to read again");
    int r = manager->options.read_config(manager->options.userdata, &config, f);
    if (r < 0) {
        event_log(EVENT_RELOAD_REFUSED, EVENT_OF_NONE, "%s; the old configuration stays", f->text);
        return r;
    }
    r = take_config(manager, &config);
    if (r < 0)
        return fault_set(f, r, "out of memory; the old configuration stays");
    manager_count(manager, COUNTER_reloads);
    event_log(EVENT_RELOAD_DONE, EVENT_OF_NONE, "the configuration was read again");
    manager_tell(manager, MANAGER_CHANGE_CONFIG);
    return 0;
}

/* --- health and the tick ---------------------------------------------------------------------- */

bool manager_is_healthy(const struct manager *manager)
{
    for (size_t i = 0; i < manager->lane_count; i++)
        if (!worker_is_supervised(manager->lanes[i].worker))
            return false;
    return true;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct manager *manager = userdata;

    (void)usec;
    watch_deadlines(manager);
    watch_space(manager);
    if (manager->ticks++ % HEAT_TICKS == 0)
        watch_heat(manager);
    manager_retire(manager);
    if (manager->disk_fails || manager->unsaved > 0)
        manager_retry_disk(manager);
    manager_plan_dispatch(manager); /* of jobs whose start memory was missing for */
    if (manager_uptime(manager) - manager->saved_uptime_usec >= SAVE_UPTIME_USEC)
        manager_save_uptime(manager);
    (void)sd_event_source_set_time_relative(source, TICK_USEC);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int manager_open_care(struct manager *manager, struct fault *f)
{
    const char *thermal = manager->options.thermal ? manager->options.thermal : THERMAL_DIRECTORY;

    manager->started_boottime_usec = boottime();
    manager->thermal = open(thermal, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* -1: none, never hot */
    int r = sd_event_add_time_relative(manager->event, &manager->tick, CLOCK_MONOTONIC, TICK_USEC,
                                       TICK_USEC / 10, on_tick, manager);
    return r < 0 ? fault_set(f, r, "timer: %s", strerror(-r)) : 0;
}

void manager_close_care(struct manager *manager)
{
    manager->tick = sd_event_source_disable_unref(manager->tick);
    closep(&manager->thermal);
    manager->thermal = -1;
}
