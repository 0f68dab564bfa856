/* worker — supervision of one diffused-worker: start, packets, heartbeat, end, start again.
 *
 * The worker is one process on one socket (daemon/ipc.h). When it dies it is started again after a
 * pause that doubles from 1 s to 30 s and is forgotten once a job has succeeded. A worker that says
 * it cannot work at all (bad model, no device) is not started again: that needs a person. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "daemon/ipc.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define WORKER_BEAT_TIMEOUT_USEC UINT64_C(10000000)
#define WORKER_PAUSE_MIN_USEC    UINT64_C(1000000)
#define WORKER_PAUSE_MAX_USEC    UINT64_C(30000000)

struct worker_options {
    const char *executable, *model, *device, *allow_cpu, *png_metadata,
        *cache;                 /* NULL: not given */
    uint64_t beat_timeout_usec; /* 0: WORKER_BEAT_TIMEOUT_USEC */
};

enum worker_state {
    WORKER_STATE_PAUSED, /* died, will be started again */
    WORKER_STATE_LOADING,
    WORKER_STATE_READY,  /* HELLO was received; whether it has a job is the manager's to know */
    WORKER_STATE_FAILED, /* said why, is not started again */
};

enum worker_end {
    WORKER_END_CRASHED,
    WORKER_END_DEVICE_LOST,
    WORKER_END_FAILED,
};

struct worker_listener {
    /* A well-formed packet of the worker; `attached` is closed after the call. */
    void (*on_packet)(const union ipc_packet *packet, int attached, void *userdata);
    /* The process is gone; the state is PAUSED or FAILED already. `why` is for people. */
    void (*on_end)(enum worker_end end, const char *why, void *userdata);
    void *userdata;
};

struct worker;

/* Copies the options. Nothing runs before worker_start(). */
int worker_new(sd_event *event, const struct worker_options *options,
               const struct worker_listener *listener, struct worker **ret_worker);
/* Kills the process and waits for its end. */
struct worker *worker_free(struct worker *worker);
DEFINE_FREEP(struct worker *, worker_free)

/* Starts the process. On failure the state is FAILED and f says why. */
int worker_start(struct worker *worker, struct fault *f);

enum worker_state worker_get_state(const struct worker *worker);
pid_t worker_get_pid(const struct worker *worker); /* 0: none */

/* Sends; a failure to send kills the worker, which is then reported through on_end. */
void worker_run(struct worker *worker, const struct request *request, uint64_t job);
void worker_cancel(struct worker *worker, uint64_t job);

/* Ends a worker that has gone wrong; on_end follows. err: as of a FAULT packet. */
void worker_kill(struct worker *worker, int err, const char *why);

/* A job has succeeded: the next pause is the shortest again. */
void worker_on_success(struct worker *worker);

/* The decisions, free of I/O. */
uint64_t worker_next_pause(uint64_t pause_usec);
/* wait_status as of waitpid(); fault_err: of a FAULT packet, 0 when there was none. */
enum worker_end worker_judge(int wait_status, int fault_err);
