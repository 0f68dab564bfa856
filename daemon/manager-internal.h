/* manager-internal — shared by the files of the manager:
 *
 *     manager.c          life, observers, verbs, looking
 *     manager-disk.c     changes on their way to the disk, and what follows; a failing disk
 *     manager-run.c      lanes: dispatch, what workers report, their ends
 *     manager-models.c   the configured models: which one a job wants, a lane gets
 *     manager-care.c     time: deadlines, retention, heat, sleep, reload */
#pragma once

#include "daemon/eta.h"
#include "daemon/manager.h"
#include "daemon/queue.h"
#include "daemon/spooler.h"
#include "daemon/thermal.h"
#include "daemon/worker.h"

#define MANAGER_LANES_MAX CONFIG_DEVICES_MAX

#define MODEL_NAME_SIZE 80u

/* A configured model. Stays where it is until no lane has it and the configuration neither. */
struct model {
    char name[MODEL_NAME_SIZE];
    char *path;
    struct request_context context;
    bool has_context, is_probed; /* probed: the worker's program was asked, or need not be */
    bool is_gone;                /* not configured any more */
    char hash[72];
    uint64_t memory; /* device bytes with it loaded; 0: not known */
    int err;         /* why it cannot be used, and: */
    char reason[256];
    uint64_t failed_usec; /* CLOCK_MONOTONIC, when a worker could not load it; 0: it never tried */
};

/* Somebody who waits for a model, or (model NULL) for none. */
struct model_waiter {
    struct model_waiter *next;
    struct model *model;
    manager_done_t *done;
    void *userdata;
};

/* One worker and its job. */
struct lane {
    struct manager *manager;
    struct worker *worker;
    struct model *model;    /* what its worker has or loads; NULL: there is none */
    struct model *fallback; /* while it loads another: what it had before, and could draw with */
    struct model *next;     /* with has_next: what it gets once it has no job; NULL: nothing */
    bool has_next;
    bool is_unloaded;    /* its worker was ended to free the device */
    struct job *running; /* one of the manager's jobs, or NULL */
    struct eta eta;
    uint64_t failing_since_usec; /* the first of these: */
    unsigned deaths_in_a_row;    /* of workers that never became ready */
    bool is_stale;               /* to be replaced once it has no job */
    enum manager_state state;    /* LOADING, READY, BUSY or FAILED */
    char reason[384];
};

#define MANAGER_COUNTERS(X)                                                                        \
    X(jobs_submitted)                                                                              \
    X(jobs_repeated)                                                                               \
    X(jobs_refused)                                                                                \
    X(jobs_done)                                                                                   \
    X(jobs_failed)                                                                                 \
    X(jobs_cancelled)                                                                              \
    X(jobs_requeued)                                                                               \
    X(jobs_deleted)                                                                                \
    X(jobs_retired)                                                                                \
    X(pictures)                                                                                    \
    X(worker_deaths)                                                                               \
    X(devices_lost)                                                                                \
    X(spool_errors)                                                                                \
    X(records_damaged)                                                                             \
    X(reloads)                                                                                     \
    X(hot_pauses)

enum manager_counter_id {
#define COUNTER_ID(name) COUNTER_##name,
    MANAGER_COUNTERS(COUNTER_ID)
#undef COUNTER_ID
        COUNTER_COUNT,
};

/* What can keep the service from being whole, the worst first. */
enum manager_trouble {
    TROUBLE_DISK,
    TROUBLE_SPACE,
    TROUBLE_DROP,
    TROUBLE_COUNT,
};

struct manager {
    sd_event *event; /* not owned: outlives us */
    struct config config;
    struct manager_options options; /* worker, cache: owned copies; config NULL */
    struct manager_facts facts;
    struct manager_counter counters[COUNTER_COUNT];
    struct manager_observer *observers;
    struct ARRAY(struct job *) jobs; /* owned, by id */
    struct queue queue;
    struct spool *spool;
    struct spooler *spooler;
    struct change *changes;            /* posted and not answered */
    size_t coming;                     /* submissions among them */
    size_t unsaved;                    /* jobs that have ended without the disk knowing */
    uint64_t limit_told_usec;          /* when a user's limit was last worth a line */
    bool disk_fails;                   /* the last change failed, and none has succeeded since */
    bool is_low;                       /* less than keep_free is left */
    char troubles[TROUBLE_COUNT][256]; /* "": none */
    bool is_paused, is_hot, is_asleep;
    uint64_t hot_since_usec; /* of is_hot, uptime */
    uint64_t hot_usual_usec; /* how long the last pauses took, moving average; 0: none yet */
    char hot_reason[128];
    struct lane lanes[MANAGER_LANES_MAX];
    size_t lane_count;
    struct ARRAY(struct model *) models; /* owned; the first is the default one */
    struct model *selected;              /* of jobs that name none; NULL: there are no models */
    struct model *probed;                /* whose context is being read */
    struct helper *model_probe;
    struct model_waiter *model_waiters;
    uint64_t uptime_base_usec, started_boottime_usec, saved_uptime_usec;
    sd_event_source *dispatch, *tick;
    int thermal;    /* THERMAL_DIRECTORY, or -1 */
    unsigned ticks; /* so far */
    struct helper *probe;
    struct device_list devices;
};

#define MANAGER_NOTIFY(manager, member, ...)                                                       \
    do {                                                                                           \
        for (struct manager_observer *o_ = (manager)->observers, *n_; o_; o_ = n_) {               \
            n_ = o_->next;                                                                         \
            if (o_->member)                                                                        \
                o_->member(__VA_ARGS__, o_->userdata);                                             \
        }                                                                                          \
    } while (0)

/* manager.c */
uint64_t manager_now(const struct manager *manager, clockid_t clock);
void manager_tell(struct manager *manager, unsigned changes);
/* Facts' state from the lanes, told when it has changed. */
void manager_update_state(struct manager *manager);
void manager_count(struct manager *manager, enum manager_counter_id counter);
/* job->state = state, told to observers. The disk has it already, or cannot. */
void manager_change_job(struct manager *manager, struct job *job, enum job_state state);
/* Out of memory and, told to observers, out of sight. */
void manager_remove_job(struct manager *manager, struct job *job);
int manager_adopt(struct manager *manager, struct job *job);
/* Fills in and checks a request; -EINVAL or -EFBIG. Does nothing while no model has been read. */
int manager_resolve(const struct manager *manager, struct request *request, bool *ret_resolved,
                    struct fault *f);

/* manager-disk.c. Each posts one change; what follows is written there. */
int manager_open_disk(struct manager *manager, struct fault *f);
/* Gives running jobs back, waits for the disk, answers who waits with -ECANCELED. */
void manager_close_disk(struct manager *manager);
void manager_keep_job(struct manager *manager, struct job *job, manager_submitted_t *done,
                      void *userdata);
/* Whether a submission of this owner with this token, or of this origin, is on its way; `done` is
 * then called with it. */
bool manager_join_submission(struct manager *manager, uint32_t owner, const char *token,
                             const char *origin, manager_submitted_t *done, void *userdata);
/* What a user takes of the service, or what of it is on its way to the disk. */
struct usage {
    uint64_t jobs, bytes;
};
struct usage manager_coming_of(const struct manager *manager, uint32_t owner);
void manager_update_job(struct manager *manager, struct job *job);
void manager_start_job(struct manager *manager, struct lane *lane, struct job *job);
void manager_requeue_job(struct manager *manager, struct job *job);
void manager_store_picture(struct manager *manager, struct job *job, uint32_t index);
/* Ends a job, on disk and in memory. err 0 for done; text is what its owner reads. */
void manager_finish_job(struct manager *manager, struct job *job, enum job_state state, int err,
                        const char *text, manager_done_t *done, void *userdata);
void manager_erase_job(struct manager *manager, struct job *job, manager_done_t *done,
                       void *userdata);
void manager_save_uptime(struct manager *manager);
/* Tries again what the disk has refused. */
void manager_retry_disk(struct manager *manager);
/* Degraded, or no longer ("" ends it): of several reasons the first kind is told. */
void manager_set_trouble(struct manager *manager, enum manager_trouble trouble, const char *reason);

/* manager-run.c */
int manager_open_lanes(struct manager *manager, struct fault *f);
void manager_close_lanes(struct manager *manager);
void manager_start_lanes(struct manager *manager);
/* The lane's worker gives way to one with this model, when it has no job. */
void manager_switch_lane(struct lane *lane, struct model *model);
/* Every worker is replaced, as the configuration is now, as soon as it has no job. */
void manager_renew_lanes(struct manager *manager);
struct lane *manager_lane_of(struct manager *manager, const struct job *job);
/* Fills in what a job left to the model, once that is known. False when it does not fit: the job
 * then fails and has left the queue. */
bool manager_settle_request(struct manager *manager, struct job *job);
/* Soon, from the event loop: jobs go to workers that are free. */
void manager_plan_dispatch(struct manager *manager);
/* The disk has the job in running/: off it goes. */
void manager_launch(struct manager *manager, struct lane *lane, struct job *job);
/* The lane's job has gone. */
void manager_clear_lane(struct manager *manager, struct job *job);
void manager_start_probe(struct manager *manager);

/* manager-models.c */
/* The list as the configuration has it now; what is known of those that stay, stays. 0 or
 * -ENOMEM. */
int manager_take_models(struct manager *manager);
void manager_close_models(struct manager *manager);
/* The model a request wants; NULL: no such one. */
struct model *manager_model_of(const struct manager *manager, const struct request *request);
/* The same for a submission: -EINVAL and the names there are, or why it cannot be used now. */
int manager_check_model(const struct manager *manager, const struct request *request,
                        struct fault *f);
/* Its configuration was read: jobs that waited for it are filled in. */
void manager_on_context(struct manager *manager, struct model *model,
                        const struct request_context *context);
/* A lane has it loaded. */
void manager_on_loaded(struct lane *lane, const struct ipc_hello *hello);
/* A lane cannot load it. Its jobs fail; true when the lane goes back to the model before. */
bool manager_on_load_failed(struct lane *lane, int err, const char *why);
/* Asks the worker's program for contexts not known yet, one after the other. */
void manager_probe_models(struct manager *manager);
/* The job this lane shall do next, out of the queue; NULL: none, or the lane gets another model. */
struct job *manager_choose_job(struct lane *lane);
/* Nothing is resident any more: who waits for that is told. */
void manager_tell_unloaded(struct manager *manager);

/* manager-care.c */
int manager_open_care(struct manager *manager, struct fault *f);
void manager_close_care(struct manager *manager);
/* Service time in usec: no clock change moves it, sleep counts, restarts go on. */
uint64_t manager_uptime(const struct manager *manager);
/* Deletes what is too old or too much. */
void manager_retire(struct manager *manager);
/* -ENOSPC and a fault when the disk has less than keep_free left. */
int manager_check_space(struct manager *manager, struct fault *f);
/* Until the board is cool enough to go on, as far as can be told; 0: it runs. */
uint64_t manager_hot_left(const struct manager *manager);
