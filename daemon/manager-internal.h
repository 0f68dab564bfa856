/* manager-internal — shared by manager.c (verbs) and manager-run.c (what the worker reports). */
#pragma once

#include "daemon/eta.h"
#include "daemon/manager.h"
#include "daemon/queue.h"
#include "daemon/spool.h"
#include "daemon/worker.h"

struct manager {
    sd_event *event; /* not owned: outlives us */
    const struct config *config;
    char *worker_path;
    struct manager_facts facts;
    struct manager_observer *observers;
    struct ARRAY(struct job *) jobs; /* owned, by id */
    struct queue queue;
    struct spool *spool;
    struct worker *worker;
    struct job *running; /* one of jobs, or NULL */
    struct eta eta;
    struct request_context context;
    bool has_context;
    unsigned deaths_in_a_row; /* of workers that never became ready */
    sd_event_source *dispatch;
    struct helper *probe;
    struct device_list devices;
};

uint64_t manager_now(const struct manager *manager, clockid_t clock);
void manager_tell(struct manager *manager, unsigned changes);
void manager_set_state(struct manager *manager, enum manager_state state, const char *reason);
void manager_set_degraded(struct manager *manager, const char *reason);

/* job->state = state, told to observers. The spool has it already. */
void manager_change_job(struct manager *manager, struct job *job, enum job_state state);
/* Ends a job, on disk and in memory. err 0 for done; text is what its owner reads. */
void manager_finish_job(struct manager *manager, struct job *job, enum job_state state, int err,
                        const char *text);
/* Fills in and checks a request; -EINVAL or -EFBIG. Does nothing while no model has been read. */
int manager_resolve(const struct manager *manager, struct request *request, bool *ret_resolved,
                    struct fault *f);
/* Soon, from the event loop: the next job goes to the worker. */
void manager_plan_dispatch(struct manager *manager);

/* manager-run.c */
void manager_on_packet(const union ipc_packet *packet, int attached, void *userdata);
void manager_on_worker_end(enum worker_end end, const char *why, void *userdata);
int manager_on_dispatch(sd_event_source *source, void *userdata);
void manager_start_probe(struct manager *manager);
