#include "daemon/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "daemon/process.h"
#include "daemon/pulse.h"
#include "vk/base/log.h"

#define LOOK_USEC UINT64_C(1000000) /* how often the heartbeat is looked at, at least */
#define DRAIN_MAX 256               /* packets at a time: others have their turn between */
#define ARGV_MAX  20

struct worker {
    sd_event *event; /* not owned: outlives us */
    struct worker_listener listener;
    char *executable, *model, *device, *allow_cpu, *png_metadata, *cache, *loras;
    bool strict_weights;
    struct pulse_limits limits;
    uint64_t dying_usec;

    enum worker_state state;
    bool is_held; /* as the manager wants it */
    uint64_t pause_usec;
    unsigned wrong; /* wrong known-answer pictures in a row */
    sd_event_source *restart;

    /* of the process */
    pid_t pid; /* 0: none */
    int socket;
    sd_event_source *io, *child, *beat;
    struct pulse pulse;
    uint32_t phase;     /* enum ipc_phase, as of the last beat */
    uint64_t job;       /* sent to it and not done, 0: none */
    uint64_t cancelled; /* the job that was last cancelled */
    bool is_checking;   /* CHECK was sent and not answered */
    bool is_reported;   /* its end was told before it came */
    uint64_t looked_usec, hello_usec, killed_usec;
    struct fault fault; /* what FAULT or our own judgement said last */
};

uint64_t worker_next_pause(uint64_t pause_usec)
{
    if (pause_usec == 0)
        return WORKER_PAUSE_FIRST_USEC;
    return pause_usec * 2 > WORKER_PAUSE_MAX_USEC ? WORKER_PAUSE_MAX_USEC : pause_usec * 2;
}

enum worker_end worker_judge(int wait_status, int fault_err, unsigned wrong)
{
    if (fault_err == -EBADMSG)
        return wrong < WORKER_WRONG_MAX ? WORKER_END_CRASHED : WORKER_END_FAILED;
    if (fault_err == -EIO)
        return WORKER_END_DEVICE_LOST;
    if (!WIFEXITED(wait_status))
        return WORKER_END_CRASHED;
    if (WEXITSTATUS(wait_status) == IPC_EXIT_DEVICE_LOST)
        return WORKER_END_DEVICE_LOST;
    if (WEXITSTATUS(wait_status) == IPC_EXIT_USAGE)
        return WORKER_END_FAILED;
    return WEXITSTATUS(wait_status) == IPC_EXIT_FAILED && fault_err ? WORKER_END_FAILED
                                                                    : WORKER_END_CRASHED;
}

static uint64_t now(const struct worker *worker)
{
    uint64_t usec = 0;

    (void)sd_event_now(worker->event, CLOCK_MONOTONIC, &usec); /* the loop is ours: cannot fail */
    return usec;
}

/* Its end is reported by the child source, as any other end. */
void worker_kill(struct worker *worker, int err, const char *why)
{
    if (worker->pid <= 0 || worker->killed_usec)
        return;
    if (!worker->fault.err)
        (void)fault_set(&worker->fault, err, "%s", why);
    worker->state = WORKER_STATE_PAUSED;
    worker->io = sd_event_source_disable_unref(worker->io);
    worker->killed_usec = now(worker);
    (void)kill(worker->pid, SIGKILL);
}

static void note_packet(struct worker *worker, const union ipc_packet *packet)
{
    pulse_on_packet(&worker->pulse);
    switch (packet->header.type) {
    case IPC_BEAT:
        worker->phase = packet->beat.phase;
        pulse_on_beat(&worker->pulse, packet->beat.progress);
        break;
    case IPC_HELLO:
        if (worker->state != WORKER_STATE_LOADING)
            break;
        worker->state = WORKER_STATE_READY;
        worker->hello_usec = now(worker);
        worker->wrong = 0; /* no HELLO without a right picture */
        break;
    case IPC_DONE:
        worker->pulse.is_proven |= packet->done.err == 0;
        if (packet->header.job == worker->job)
            worker->job = 0;
        break;
    case IPC_CHECKED:
        worker->is_checking = false;
        break;
    case IPC_FAULT:
        (void)fault_set(&worker->fault, packet->done.err ? packet->done.err : -EINVAL, "%s",
                        packet->done.text);
        break;
    default:
        break;
    }
}

/* Takes in what lies in the socket, `max` packets at most. 0, or the reason why nothing more will
 * come. */
static int drain(struct worker *worker, unsigned max)
{
    union ipc_packet packet;

    for (unsigned i = 0; i < max && !worker->killed_usec; i++) {
        int attached = -1;
        int r = ipc_receive(worker->socket, &packet, &attached);
        if (r < 0)
            return r == -EAGAIN ? 0 : r;
        _cleanup_(closep) int owned = attached;
        note_packet(worker, &packet);
        worker->listener.on_packet(&packet, owned, worker->listener.userdata);
    }
    return 0;
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct worker *worker = userdata;

    (void)source, (void)fd, (void)events;
    int r = drain(worker, DRAIN_MAX);
    if (r == -ECONNRESET) { /* it ends by itself, or the heartbeat check ends it */
        worker->state = WORKER_STATE_PAUSED;
        worker->io = sd_event_source_disable_unref(worker->io);
    } else if (r < 0) {
        worker_kill(worker, -EPROTO, "it sent something that is no packet");
    }
    return 0;
}

/* Whether beats without progress speak against it. A worker may only call itself held when we hold
 * it, and may not call itself idle while it owes us something. */
static bool must_advance(const struct worker *worker)
{
    if (worker->is_held && worker->phase == IPC_PHASE_HELD)
        return false;
    return worker->state == WORKER_STATE_LOADING || worker->job != 0 || worker->is_checking ||
           worker->phase == IPC_PHASE_RUNNING || worker->phase == IPC_PHASE_CHECKING;
}

static void look(struct worker *worker, uint64_t elapsed_usec)
{
    char why[96];

    pulse_on_look(&worker->pulse, &worker->limits, elapsed_usec, must_advance(worker));
    (void)drain(worker, DRAIN_MAX); /* packets that wait are signs of life */
    if (pulse_is_stuck(&worker->pulse, &worker->limits, why, sizeof why))
        worker_kill(worker, -ETIMEDOUT, why);
}

/* The kernel may keep a killed process for as long as a driver hangs. Its job need not wait for
 * that. */
static void report_undead(struct worker *worker)
{
    char text[384];

    (void)snprintf(text, sizeof text, "%s; it was killed and does not end", worker->fault.text);
    log_error("worker %d: %s; no other is started before it is gone", (int)worker->pid, text);
    worker->is_reported = true;
    worker->listener.on_end(WORKER_END_CRASHED, text, worker->listener.userdata);
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct worker *worker = userdata;
    uint64_t at = now(worker), elapsed = at - worker->looked_usec;

    (void)usec;
    worker->looked_usec = at;
    if (worker->killed_usec) {
        if (!worker->is_reported && at - worker->killed_usec > worker->dying_usec)
            report_undead(worker);
    } else if (worker->io) {
        look(worker, elapsed);
    } else {
        worker_kill(worker, -ECONNRESET, "it closed its connection and stayed");
    }
    (void)sd_event_source_set_time_relative(source, worker->limits.look_usec);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void forget_process(struct worker *worker)
{
    worker->pid = 0;
    worker->io = sd_event_source_disable_unref(worker->io);
    worker->child = sd_event_source_disable_unref(worker->child);
    worker->beat = sd_event_source_disable_unref(worker->beat);
    closep(&worker->socket);
    worker->socket = -1;
    worker->pulse = (struct pulse){0};
    worker->phase = IPC_PHASE_LOADING;
    worker->job = worker->cancelled = 0;
    worker->is_checking = worker->is_reported = false;
    worker->hello_usec = worker->killed_usec = 0;
}

/* The timer has been there from the start: asking it cannot fail for want of memory. */
static void plan_restart(struct worker *worker)
{
    worker->state = WORKER_STATE_PAUSED;
    worker->pause_usec = worker_next_pause(worker->pause_usec);
    int r = sd_event_source_set_time_relative(worker->restart, worker->pause_usec);
    if (r >= 0)
        r = sd_event_source_set_enabled(worker->restart, SD_EVENT_ONESHOT);
    if (r < 0)
        log_error("worker: no timer for its restart: %s", strerror(-r));
}

/* What the machine lacks now it may have later. */
static bool is_passing(int err)
{
    return err == -EAGAIN || err == -ENOMEM || err == -EMFILE || err == -ENFILE;
}

static int on_restart(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct worker *worker = userdata;
    struct fault f = {0};

    (void)source, (void)usec;
    int r = worker_start(worker, &f);
    if (r >= 0)
        return 0;
    if (is_passing(r))
        plan_restart(worker);
    worker->listener.on_end(is_passing(r) ? WORKER_END_CRASHED : WORKER_END_FAILED, f.text,
                            worker->listener.userdata);
    return 0;
}

static int wait_status_of(const siginfo_t *info)
{
    return info->si_code == CLD_EXITED ? W_EXITCODE(info->si_status, 0)
                                       : W_EXITCODE(0, info->si_status);
}

/* What the end was; a good life makes the next pause the shortest. */
static enum worker_end judge(struct worker *worker, int status)
{
    if (worker->fault.err == -EBADMSG)
        worker->wrong++;
    if (worker->hello_usec && now(worker) - worker->hello_usec >= WORKER_GOOD_LIFE_USEC)
        worker->pause_usec = 0;
    return worker_judge(status, worker->fault.err, worker->wrong);
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
    struct worker *worker = userdata;
    char text[384], how[96];

    (void)source;
    worker->state = WORKER_STATE_PAUSED; /* nothing can be sent any more */
    if (worker->io)
        (void)drain(worker, UINT_MAX); /* its last words; the end of the connection is no news */
    int status = wait_status_of(info);
    enum worker_end end = judge(worker, status);
    process_explain(status, how, sizeof how);
    if (worker->fault.err)
        (void)snprintf(text, sizeof text, "%s", worker->fault.text);
    else
        (void)snprintf(text, sizeof text, "worker %s", how);
    log_warning("worker %d %s%s%s", (int)worker->pid, how, worker->fault.err ? ": " : "",
                worker->fault.text);
    bool is_news = !worker->is_reported;
    forget_process(worker);
    if (end == WORKER_END_FAILED)
        worker->state = WORKER_STATE_FAILED;
    else
        plan_restart(worker);
    if (is_news)
        worker->listener.on_end(end, text, worker->listener.userdata);
    return 0;
}

static void set_limits(struct worker *worker, const struct worker_options *o)
{
    struct pulse_limits *l = &worker->limits;

    l->quiet_usec = o->beat_timeout_usec ? o->beat_timeout_usec : WORKER_BEAT_TIMEOUT_USEC;
    l->still_min_usec = o->still_min_usec ? o->still_min_usec : WORKER_STILL_MIN_USEC;
    l->still_max_usec = o->still_max_usec ? o->still_max_usec : WORKER_STILL_MAX_USEC;
    l->look_usec = l->quiet_usec / 8 < LOOK_USEC ? l->quiet_usec / 8 : LOOK_USEC;
    worker->dying_usec = o->dying_usec ? o->dying_usec : WORKER_DYING_USEC;
}

static int copy_options(struct worker *worker, const struct worker_options *o)
{
    const struct {
        char **to;
        const char *from;
    } texts[] = {
        {&worker->executable, o->executable},
        {&worker->model, o->model},
        {&worker->device, o->device},
        {&worker->allow_cpu, o->allow_cpu},
        {&worker->png_metadata, o->png_metadata},
        {&worker->cache, o->cache},
        {&worker->loras, o->loras},
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (!texts[i].from)
            continue;
        *texts[i].to = strdup(texts[i].from);
        if (!*texts[i].to)
            return -ENOMEM;
    }
    worker->strict_weights = o->strict_weights;
    set_limits(worker, o);
    return 0;
}

int worker_new(sd_event *event, const struct worker_options *options,
               const struct worker_listener *listener, struct worker **ret_worker)
{
    _cleanup_(worker_freep) struct worker *worker = calloc(1, sizeof *worker);

    if (!worker)
        return -ENOMEM;
    worker->event = event;
    worker->listener = *listener;
    worker->socket = -1;
    int r = copy_options(worker, options);
    if (r >= 0)
        r = sd_event_add_time_relative(event, &worker->restart, CLOCK_MONOTONIC, 0, 0, on_restart,
                                       worker);
    if (r >= 0)
        r = sd_event_source_set_enabled(worker->restart, SD_EVENT_OFF);
    if (r < 0)
        return r;
    *ret_worker = TAKE_PTR(worker);
    return 0;
}

struct worker *worker_free(struct worker *worker)
{
    if (!worker)
        return NULL;
    pid_t pid = worker->pid;
    forget_process(worker);
    sd_event_source_disable_unref(worker->restart);
    if (pid > 0 && process_end(pid) < 0)
        log_error("worker %d was killed and does not end; leaving it behind", (int)pid);
    free(worker->executable);
    free(worker->model);
    free(worker->device);
    free(worker->allow_cpu);
    free(worker->png_metadata);
    free(worker->cache);
    free(worker->loras);
    free(worker);
    return NULL;
}

static void build_argv(const struct worker *worker, char *argv[ARGV_MAX])
{
    const struct {
        const char *flag;
        char *value;
    } flags[] = {
        {"--model", worker->model},         {"--device", worker->device},
        {"--allow-cpu", worker->allow_cpu}, {"--cache", worker->cache},
        {"--loras", worker->loras},         {"--png-metadata", worker->png_metadata},
    };
    size_t n = 0;

    argv[n++] = worker->executable;
    argv[n++] = (char *)"--serve";
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        if (!flags[i].value)
            continue;
        argv[n++] = (char *)flags[i].flag;
        argv[n++] = flags[i].value;
    }
    if (worker->strict_weights)
        argv[n++] = (char *)"--strict-weights";
    argv[n] = NULL;
}

static int watch_process(struct worker *worker)
{
    int r = sd_event_add_io(worker->event, &worker->io, worker->socket, EPOLLIN, on_socket, worker);

    if (r >= 0)
        r = sd_event_add_child(worker->event, &worker->child, worker->pid, WEXITED, on_child,
                               worker);
    if (r >= 0)
        r = sd_event_add_time_relative(worker->event, &worker->beat, CLOCK_MONOTONIC,
                                       worker->limits.look_usec, 0, on_look, worker);
    return r;
}

static int spawn(struct worker *worker, struct fault *f)
{
    char *argv[ARGV_MAX];
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fault_set(f, -errno, "socketpair: %s", strerror(errno));
    _cleanup_(closep) int ours = pair[0], theirs = pair[1];
    if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0) /* theirs stays blocking: it may wait for us */
        return fault_set(f, -errno, "socket: %s", strerror(errno));
    build_argv(worker, argv);
    const struct process_files files = {.in = -1, .out = -1, .ipc = theirs};
    int r = process_spawn(argv, &files, &worker->pid, f);
    if (r < 0)
        return r;
    worker->socket = TAKE_FD(ours);
    return 0;
}

static void send_packet(struct worker *worker, const union ipc_packet *packet)
{
    int r = worker->socket < 0 ? -EPIPE : ipc_send(worker->socket, packet, -1);

    if (r < 0)
        worker_kill(worker, r, "it does not take packets");
}

static void send_control(struct worker *worker, enum ipc_type type, uint64_t job)
{
    const union ipc_packet packet = {
        .job.header = {.version = IPC_VERSION, .type = type, .job = job}};

    send_packet(worker, &packet);
}

int worker_start(struct worker *worker, struct fault *f)
{
    worker->fault = (struct fault){0};
    worker->state = WORKER_STATE_FAILED;
    int r = spawn(worker, f);
    if (r < 0)
        return r;
    worker->looked_usec = now(worker);
    r = watch_process(worker);
    if (r < 0) {
        (void)process_end(worker->pid); /* just started: it hangs in no driver */
        forget_process(worker);
        return fault_set(f, r, "worker: %s", strerror(-r));
    }
    worker->state = WORKER_STATE_LOADING;
    if (worker->is_held)
        send_control(worker, IPC_HOLD, 0);
    return 0;
}

enum worker_state worker_get_state(const struct worker *worker)
{
    return worker->state;
}

pid_t worker_get_pid(const struct worker *worker)
{
    return worker->pid;
}

int worker_get_error(const struct worker *worker)
{
    return worker->fault.err;
}

bool worker_is_supervised(const struct worker *worker)
{
    uint64_t limit = 2 * (worker->limits.quiet_usec + worker->dying_usec);

    if (worker->pid <= 0 || worker->is_reported)
        return true;
    return now(worker) - worker->looked_usec < limit &&
           (!worker->killed_usec || now(worker) - worker->killed_usec < limit);
}

void worker_run(struct worker *worker, const struct request *request, uint64_t job,
                const int inputs[IPC_INPUT_COUNT])
{
    worker->job = job;
    pulse_on_work(&worker->pulse);
    int r = worker->socket < 0 ? -EPIPE : ipc_send_run(worker->socket, request, job, inputs);
    if (r < 0)
        worker_kill(worker, r, "it does not take packets");
}

/* Once a job is enough: a worker that is slow to read need not find a heap of them. */
void worker_cancel(struct worker *worker, uint64_t job)
{
    if (worker->cancelled == job)
        return;
    worker->cancelled = job;
    send_control(worker, IPC_CANCEL, job);
}

void worker_hold(struct worker *worker, bool hold)
{
    if (worker->is_held == hold)
        return;
    worker->is_held = hold;
    pulse_on_work(&worker->pulse);
    if (worker->socket >= 0)
        send_control(worker, hold ? IPC_HOLD : IPC_GO, 0);
}

/* While it loads the picture of its start may be drawn already, before whatever made us ask. */
void worker_check(struct worker *worker)
{
    if (worker->state != WORKER_STATE_READY && worker->state != WORKER_STATE_LOADING)
        return;
    worker->is_checking = true;
    if (worker->job == 0)
        pulse_on_work(&worker->pulse);
    send_control(worker, IPC_CHECK, 0);
}

void worker_on_success(struct worker *worker)
{
    worker->pause_usec = 0;
}
