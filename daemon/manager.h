/* manager — submit, cancel, list, delete: the service without its bus.
 *
 * Owns the configuration, the jobs, the queue, the spool and the workers. Everything happens on the
 * event loop's thread but the spool's I/O, which has a thread of its own; so verbs that change the
 * disk answer through a callback, when the disk has it. What happens is told to observers. Verbs
 * give 0 or an errno that error.h has a word for, and a fault that says what to change: -EBUSY
 * NotReady · -ENOENT NotFound · -ENOBUFS QueueFull · -EDQUOT QuotaExceeded · -ENOSPC SpoolFull ·
 * -EKEYREJECTED PromptRefused · -EINVAL, -EFBIG request. Who may use which verb is the business of
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
    MANAGER_CHANGE_STATE = 1,    /* state, state_reason */
    MANAGER_CHANGE_DEVICE = 2,   /* device … model_hash, memory_total */
    MANAGER_CHANGE_QUEUE = 4,    /* queue_length */
    MANAGER_CHANGE_DEGRADED = 8, /* degraded_reason */
    MANAGER_CHANGE_CONFIG = 16,  /* the configuration was read again */
};

/* Of the first worker where there are several. Valid as long as the manager; texts are "" where not
 * known. */
struct manager_facts {
    char device[128], device_node[64], driver[128], model[128], model_hash[72];
    uint64_t memory_used, memory_total;
    enum manager_state state;
    char state_reason[384], degraded_reason[256]; /* degraded: the reason is not empty */
};

struct manager_options {
    struct config *config; /* taken over, left empty */
    const char *worker;    /* path of the worker's program */
    const char *cache;     /* directory of its pipeline cache, or NULL */
    bool strict_weights;   /* weights that others may write are an error */
    const char *thermal;   /* another directory than the kernel's thermal zones; NULL: that */
    /* Reads the configuration again, for manager_reload(); NULL: cannot. */
    int (*read_config)(void *userdata, struct config *ret_config, struct fault *f);
    void *userdata;
};

/* Any member may be NULL. A job is valid during the call; after on_job_removed, in which it can
 * still be found, it is gone. */
struct manager_observer {
    void (*on_job_added)(struct job *job, void *userdata);
    void (*on_job_changed)(struct job *job, void *userdata); /* its state */
    void (*on_job_step)(struct job *job, double timestep, void *userdata);
    void (*on_job_preview)(struct job *job, void *userdata);  /* there is a newer one */
    void (*on_job_finished)(struct job *job, void *userdata); /* after on_job_changed */
    void (*on_job_removed)(struct job *job, void *userdata);
    void (*on_changed)(unsigned changes, void *userdata); /* enum manager_change */
    void *userdata;
    struct manager_observer *next; /* the manager's */
};

/* Opens the spool and takes up the jobs in it; the workers are started by manager_start(). */
int manager_new(sd_event *event, const struct manager_options *options,
                struct manager **ret_manager, struct fault *f);
/* Ends the workers, gives their jobs back to the queue and waits for the disk, so that every verb
 * is answered. Nothing is started any more. */
void manager_stop(struct manager *manager);
/* Stops first, if that was not done. */
struct manager *manager_free(struct manager *manager);
DEFINE_FREEP(struct manager *, manager_free)

/* Starts workers and probe. What goes wrong with them is state, not an error. */
void manager_start(struct manager *manager);

/* The observer is the caller's and must stay until it is removed or the manager is freed. Removing
 * one that was never added does nothing. */
void manager_add_observer(struct manager *manager, struct manager_observer *observer);
void manager_remove_observer(struct manager *manager, struct manager_observer *observer);

/* --- verbs --- *
 * Each calls `done` exactly once: later, when the change is on disk, or before it returns when it
 * is refused or there is nothing to do. `done` may be NULL where no job is returned. */
typedef void manager_done_t(int r, const struct fault *f, void *userdata);
typedef void manager_submitted_t(int r, struct job *job, const struct fault *f, void *userdata);

struct manager_submission {
    uint32_t owner;
    struct request *request; /* always taken over, left empty */
    const char *origin;      /* NULL: the bus; else at most JOB_ORIGIN_MAX bytes */
    /* JOB_INPUT_COUNT of them, by kind, each with a descriptor of a regular file or memfd (-1:
     * none) and its size; the descriptors are always taken over. NULL: none. The request's rows
     * of type F are set from them; one that names a file itself is refused. */
    struct job_input *inputs;
};

/* Rows not set are filled in from the preset, the configuration and the model; while no model has
 * been read that waits, and the job fails later when the whole does not fit. A submission with the
 * token of one of the owner's jobs, or the origin of a job, gives that job; its pictures are not
 * looked at. The others' are on disk when `done` is told. */
void manager_submit(struct manager *manager, const struct manager_submission *submission,
                    manager_submitted_t *done, void *userdata);
/* Queued: done when it is on disk; running: asked to stop within a step, done at once; ended:
 * nothing happens. */
void manager_cancel(struct manager *manager, struct job *job, manager_done_t *done, void *userdata);
/* The job is freed. -EBUSY before its end. */
void manager_delete(struct manager *manager, struct job *job, manager_done_t *done, void *userdata);

/* A picture was handed over: an ephemeral job is deleted when all of them were. */
void manager_fetched(struct manager *manager, struct job *job, uint32_t index);

/* Dispatch, not intake. */
void manager_pause(struct manager *manager);
void manager_resume(struct manager *manager);

/* Makes a model that of jobs which name none, and loads it into every worker as soon as it has no
 * job; `done` is told when the first one has it. One that cannot be loaded changes nothing: the
 * model before is loaded again. -ENOENT: no such model; -ENOEXEC, -ENOMEM, … and the worker's
 * words: it cannot be loaded. "" is the default model. */
void manager_load_model(struct manager *manager, const char *name, manager_done_t *done,
                        void *userdata);
/* The weights leave the devices as soon as they have no job; the next job loads its model again.
 * `done` is told when they have, or at once while a job runs. */
void manager_unload_model(struct manager *manager, manager_done_t *done, void *userdata);

/* Reads the configuration again. A bad one changes nothing and is told with file and line; keys
 * that only a new start can change are named in a warning. */
int manager_reload(struct manager *manager, struct fault *f);

/* What keeps the drop folder from working, "" when nothing does: a reason to be degraded, if there
 * is no other. */
void manager_set_drop_trouble(struct manager *manager, const char *reason);

/* The machine goes to sleep, or has woken: then every device must draw the known picture again. */
void manager_on_sleep(struct manager *manager, bool sleeping);

/* --- looking ---------------------------------------------------------------------------------- */

/* NULL when there is none. */
struct job *manager_find(const struct manager *manager, uint64_t id);
struct job *manager_find_origin(const struct manager *manager, const char *origin);
/* All jobs by id; valid until one is added or removed. */
struct job *const *manager_jobs(const struct manager *manager, size_t *ret_count);

/* A read-only descriptor of a finished job's picture; -EBUSY before the end, -ENOENT past the last.
 */
int manager_open_picture(struct manager *manager, const struct job *job, uint32_t index,
                         struct fault *f);
/* A descriptor of the newest preview that is the caller's, a sealed memfd; -EBUSY while there is
 * none yet, -ENOENT where none is to come. */
int manager_open_preview(const struct job *job, struct job_preview *ret_preview, struct fault *f);
/* Its path, malloc'd. The same errors. */
int manager_picture_path(struct manager *manager, const struct job *job, uint32_t index,
                         char **ret_path, struct fault *f);
/* Runs the worker's program to turn a PNG into rows of RGB; see helper_start(). */
int manager_decode(struct manager *manager, int png, helper_done_t *on_done, void *userdata,
                   struct helper **ret_helper, struct fault *f);

/* What is known of a configured model. Valid as long as nothing changes. */
struct manager_model {
    const char *name, *path;
    const char *hash;   /* "": not loaded yet */
    const char *state;  /* ready, loading: in a worker; available: not in any; failed */
    const char *reason; /* of failed */
    uint64_t memory;    /* bytes on the device when it was last seen there */
    bool is_default;    /* of jobs that name none */
    bool is_inpainting, has_safety;
};
/* The index-th; the first is that of [model]. False past the last. */
bool manager_get_model(const struct manager *manager, size_t index,
                       struct manager_model *ret_model);

const struct manager_facts *manager_get_facts(const struct manager *manager);
const struct config *manager_get_config(const struct manager *manager);
const struct device_list *manager_get_devices(const struct manager *manager);
uint32_t manager_queue_length(const struct manager *manager);
/* Jobs that start before this one; 0 when it runs or has ended. */
uint32_t manager_queue_position(const struct manager *manager, const struct job *job);
/* Until its end, with those before it; JOB_ETA_UNKNOWN, 0 when ended. */
uint64_t manager_eta(const struct manager *manager, const struct job *job);

/* Since the start of this process, in a fixed order. */
struct manager_counter {
    const char *name;
    uint64_t value;
};
const struct manager_counter *manager_counters(const struct manager *manager, size_t *ret_count);

/* Whether the service manager may be told that all is well: no worker has been silent for longer
 * than it takes to replace it. */
bool manager_is_healthy(const struct manager *manager);

const char *manager_state_to_string(enum manager_state state);
