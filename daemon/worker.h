/* worker — supervision of one diffused-worker: start, packets, heartbeat, end, start again.
 *
 * The worker is one process on one socket (daemon/ipc.h). When it dies it is started again, after a
 * pause that doubles from WORKER_PAUSE_FIRST_USEC to WORKER_PAUSE_MAX_USEC and is forgotten once a
 * job has succeeded or the worker has served for WORKER_GOOD_LIFE_USEC. One that is silent, or
 * makes no progress although it has work (daemon/pulse.h), is killed. A worker that says it cannot
 * work at all (bad model, no device), or draws the known-answer picture wrong twice in a row, is
 * not started again: that needs a person.
 *
 * Nothing here waits for the process: what cannot be sent at once ends it, and one that the kernel
 * does not let die is reported all the same (a new one is started when it is gone at last). Workers
 * die with the thread that started them: call everything from the process's main thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/ipc.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define WORKER_BEAT_TIMEOUT_USEC UINT64_C(10000000)
#define WORKER_STILL_MIN_USEC    UINT64_C(60000000)
#define WORKER_STILL_MAX_USEC    UINT64_C(600000000)
#define WORKER_PAUSE_FIRST_USEC  UINT64_C(125000)
#define WORKER_PAUSE_MAX_USEC    UINT64_C(30000000)
#define WORKER_GOOD_LIFE_USEC    UINT64_C(60000000)
#define WORKER_DYING_USEC        UINT64_C(10000000) /* from SIGKILL to being given up */
#define WORKER_WRONG_MAX         2u                 /* wrong known-answer pictures in a row */

struct worker_options {
    const char *executable, *model, *device, *allow_cpu, *png_metadata, *cache,
        *loras; /* NULL: not given */
    bool strict_weights;
    /* 0: the constants above. Beats come every IPC_BEAT_MSEC: keep the first well above that. */
    uint64_t beat_timeout_usec, still_min_usec, still_max_usec, dying_usec;
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
    /* A well-formed packet of the worker; `attached` is closed after the call. Neither call may
     * free the worker. */
    void (*on_packet)(const union ipc_packet *packet, int attached, void *userdata);
    /* The process is gone, or cannot be got rid of; the state is PAUSED or FAILED already. `why` is
     * for people. */
    void (*on_end)(enum worker_end end, const char *why, void *userdata);
    void *userdata;
};

struct worker;

/* Copies the options. Nothing runs before worker_start(). */
int worker_new(sd_event *event, const struct worker_options *options,
               const struct worker_listener *listener, struct worker **ret_worker);
/* Kills the process and waits for its end, PROCESS_REAP_MSEC at most. */
struct worker *worker_free(struct worker *worker);
DEFINE_FREEP(struct worker *, worker_free)

/* Starts the process. On failure the state is FAILED and f says why. */
int worker_start(struct worker *worker, struct fault *f);

enum worker_state worker_get_state(const struct worker *worker);
pid_t worker_get_pid(const struct worker *worker); /* 0: none */
/* False once nobody has looked at a running process, or a killed one was not given up, for longer
 * than that can take: supervision itself fails. */
/* In on_end: what the process said, or we held against it; 0: nothing. -ETIMEDOUT: it hung. */
int worker_get_error(const struct worker *worker);
bool worker_is_supervised(const struct worker *worker);

/* Sends; a failure to send kills the worker, which is then reported through on_end. inputs: as of
 * ipc_send_run(). */
void worker_run(struct worker *worker, const struct request *request, uint64_t job,
                const int inputs[IPC_INPUT_COUNT]);
void worker_cancel(struct worker *worker, uint64_t job);

/* Makes the worker wait before its next step, and lets it go on. Holds for later processes too. */
void worker_hold(struct worker *worker, bool hold);
/* Has the known-answer picture drawn, now or before the next step: CHECKED, or the worker's end.
 * Where no process runs the next one does that anyway at its start. After a sleep ask for it before
 * worker_hold(worker, false), so that no step comes between. */
void worker_check(struct worker *worker);

/* Ends a worker that has gone wrong; on_end follows. err: as of a FAULT packet. */
void worker_kill(struct worker *worker, int err, const char *why);

/* A job has succeeded: the next pause is the shortest again. */
void worker_on_success(struct worker *worker);

/* The decisions, free of I/O. */
uint64_t worker_next_pause(uint64_t pause_usec);
/* wait_status as of waitpid(); fault_err: of a FAULT packet, 0 when there was none; wrong: wrong
 * known-answer pictures in a row, this one included. */
enum worker_end worker_judge(int wait_status, int fault_err, unsigned wrong);
