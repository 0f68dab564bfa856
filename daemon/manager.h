/* manager — submit, cancel, list, delete: the service without its bus.
 *
 * Owns the jobs, the queue, the spool and the worker. Everything happens on the event loop's
 * thread; what happens is told to observers. Verbs return 0 or an errno that error.h has a word
 * for, and a fault that says what to change: -EBUSY NotReady · -ENOENT NotFound · -ENOBUFS
 * QueueFull · -ENOSPC SpoolFull · -EINVAL, -EFBIG request Who may use which verb is the business of
 * the caller. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "daemon/config.h"
#include "daemon/devices.h"
#include "daemon/helper.h"
#include "daemon/job.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

struct manager;

enum manager_state {
    MANAGER_STATE_LOADING,
    MANAGER_STATE_READY,
    MANAGER_STATE_BUSY,
    MANAGER_STATE_PAUSED,
    MANAGER_STATE_FAILED,
    MANAGER_STATE_COUNT,
};

/* Which facts have changed, or'ed. */
enum manager_change {
    MANAGER_CHANGE_STATE = 1,   /* state, state_reason */
    MANAGER_CHANGE_DEVICE = 2,  /* device … model_hash, memory_total */
    MANAGER_CHANGE_QUEUE = 4,   /* queue_length */
    MANAGER_CHANGE_DEGRADED = 8 /* degraded_reason */
};

/* Valid as long as the manager; texts are "" where not known. */
struct manager_facts {
    char device[128], device_node[64], driver[128], model[128], model_hash[72];
    uint64_t memory_used, memory_total;
    enum manager_state state;
    char state_reason[384], degraded_reason[256]; /* degraded: the reason is not empty */
};

struct manager_options {
    const struct config *config; /* outlives the manager */
    const char *worker;          /* path of the worker's program */
    const char *cache;           /* directory of its pipeline cache, or NULL */
};

/* Any member may be NULL. A job is valid during the call; after on_job_removed, in which it can
 * still be found, it is gone. */
struct manager_observer {
    void (*on_job_added)(struct job *job, void *userdata);
    void (*on_job_changed)(struct job *job, void *userdata); /* its state */
    void (*on_job_step)(struct job *job, double timestep, void *userdata);
    void (*on_job_finished)(struct job *job, void *userdata); /* after on_job_changed */
    void (*on_job_removed)(struct job *job, void *userdata);
    void (*on_changed)(unsigned changes, void *userdata); /* enum manager_change */
    void *userdata;
    struct manager_observer *next; /* the manager's */
};

/* Opens the spool and takes up the jobs in it; the worker is started by manager_start(). */
int manager_new(sd_event *event, const struct manager_options *options,
                struct manager **ret_manager, struct fault *f);
struct manager *manager_free(struct manager *manager);
DEFINE_FREEP(struct manager *, manager_free)

/* Starts worker and probe. What goes wrong with them is state, not an error. */
void manager_start(struct manager *manager);

/* The observer is the caller's and must stay until it is removed or the manager is freed. Removing
 * one that was never added does nothing. */
void manager_add_observer(struct manager *manager, struct manager_observer *observer);
void manager_remove_observer(struct manager *manager, struct manager_observer *observer);

/* Takes the request over (it is zeroed) when it succeeds. Rows not set are filled in from the
 * configuration and the model; while no model has been read that waits, and the job fails later
 * when the whole does not fit. */
int manager_submit(struct manager *manager, uint32_t owner, struct request *request,
                   struct job **ret_job, struct fault *f);
/* Queued: at once; running: within a step; ended: nothing happens. */
int manager_cancel(struct manager *manager, struct job *job, struct fault *f);
/* The job is freed. -EBUSY before its end. */
int manager_delete(struct manager *manager, struct job *job, struct fault *f);

/* NULL when there is none. */
struct job *manager_find(const struct manager *manager, uint64_t id);
/* All jobs by id; valid until one is added or removed. */
struct job *const *manager_jobs(const struct manager *manager, size_t *ret_count);

/* A read-only descriptor of a finished job's picture; -EBUSY before the end, -ENOENT past the last.
 */
int manager_open_picture(struct manager *manager, const struct job *job, uint32_t index,
                         struct fault *f);
/* Its path, malloc'd. The same errors. */
int manager_picture_path(struct manager *manager, const struct job *job, uint32_t index,
                         char **ret_path, struct fault *f);
/* Runs the worker's program to turn a PNG into rows of RGB; see helper_start(). */
int manager_decode(struct manager *manager, int png, helper_done_t *on_done, void *userdata,
                   struct helper **ret_helper, struct fault *f);

const struct manager_facts *manager_get_facts(const struct manager *manager);
const struct config *manager_get_config(const struct manager *manager);
const struct device_list *manager_get_devices(const struct manager *manager);
uint32_t manager_queue_length(const struct manager *manager);
/* Jobs that start before this one; 0 when it runs or has ended. */
uint32_t manager_queue_position(const struct manager *manager, const struct job *job);
/* Until its end, with those before it; JOB_ETA_UNKNOWN, 0 when ended. */
uint64_t manager_eta(const struct manager *manager, const struct job *job);

const char *manager_state_to_string(enum manager_state state);
