#include "daemon/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "daemon/process.h"
#include "vk/base/log.h"

#define CHECK_USEC UINT64_C(1000000) /* how often the heartbeat is looked at */
#define ARGV_MAX   16

struct worker {
    sd_event *event; /* not owned: outlives us */
    struct worker_listener listener;
    char *executable, *model, *device, *allow_cpu, *png_metadata, *cache;
    uint64_t beat_timeout_usec;

    enum worker_state state;
    pid_t pid; /* 0: none */
    int socket;
    sd_event_source *io, *child, *restart, *beat;
    uint64_t last_packet_usec, pause_usec;
    struct fault fault; /* what FAULT or our own judgement said last */
};

uint64_t worker_next_pause(uint64_t pause_usec)
{
    if (pause_usec == 0)
        return WORKER_PAUSE_MIN_USEC;
    return pause_usec * 2 > WORKER_PAUSE_MAX_USEC ? WORKER_PAUSE_MAX_USEC : pause_usec * 2;
}

enum worker_end worker_judge(int wait_status, int fault_err)
{
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
    if (worker->pid <= 0)
        return;
    if (!worker->fault.err)
        (void)fault_set(&worker->fault, err, "%s", why);
    worker->state = WORKER_STATE_PAUSED;
    worker->io = sd_event_source_disable_unref(worker->io);
    (void)kill(worker->pid, SIGKILL);
}

/* Takes in what lies in the socket. 0, or the reason why nothing more will come. */
static int drain(struct worker *worker)
{
    union ipc_packet packet;

    for (;;) {
        int attached = -1;
        int r = ipc_receive(worker->socket, &packet, &attached);
        if (r < 0)
            return r == -EAGAIN ? 0 : r;
        _cleanup_(closep) int owned = attached;
        worker->last_packet_usec = now(worker);
        if (packet.header.type == IPC_HELLO && worker->state == WORKER_STATE_LOADING)
            worker->state = WORKER_STATE_READY;
        if (packet.header.type == IPC_FAULT)
            (void)fault_set(&worker->fault, packet.done.err ? packet.done.err : -EINVAL, "%s",
                            packet.done.text);
        worker->listener.on_packet(&packet, owned, worker->listener.userdata);
    }
}

static int on_socket(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct worker *worker = userdata;

    (void)source, (void)fd, (void)events;
    int r = drain(worker);
    if (r == -ECONNRESET) { /* it ends by itself, or the heartbeat check ends it */
        worker->state = WORKER_STATE_PAUSED;
        worker->io = sd_event_source_disable_unref(worker->io);
    } else if (r < 0) {
        worker_kill(worker, -EPROTO, "it sent something that is no packet");
    }
    return 0;
}

static int on_beat_check(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct worker *worker = userdata;

    (void)usec;
    if (worker->pid > 0 && worker->io) {
        /* We may be late ourselves: packets that wait are signs of life. */
        (void)drain(worker);
        if (now(worker) - worker->last_packet_usec > worker->beat_timeout_usec)
            worker_kill(worker, -ETIMEDOUT, "its heartbeat stopped");
    } else if (worker->pid > 0) {
        worker_kill(worker, -ECONNRESET, "it closed its connection and stayed");
    }
    (void)sd_event_source_set_time_relative(source, CHECK_USEC);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int on_restart(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct worker *worker = userdata;
    struct fault f = {0};

    (void)source, (void)usec;
    worker->restart = sd_event_source_disable_unref(worker->restart);
    if (worker_start(worker, &f) < 0)
        worker->listener.on_end(WORKER_END_FAILED, f.text, worker->listener.userdata);
    return 0;
}

static void forget_process(struct worker *worker)
{
    worker->pid = 0;
    worker->io = sd_event_source_disable_unref(worker->io);
    worker->child = sd_event_source_disable_unref(worker->child);
    worker->beat = sd_event_source_disable_unref(worker->beat);
    closep(&worker->socket);
    worker->socket = -1;
}

static void plan_restart(struct worker *worker)
{
    worker->pause_usec = worker_next_pause(worker->pause_usec);
    int r = sd_event_add_time_relative(worker->event, &worker->restart, CLOCK_MONOTONIC,
                                       worker->pause_usec, 0, on_restart, worker);
    if (r < 0)
        log_error("worker: no timer for its restart: %s", strerror(-r));
}

static int wait_status_of(const siginfo_t *info)
{
    return info->si_code == CLD_EXITED ? W_EXITCODE(info->si_status, 0)
                                       : W_EXITCODE(0, info->si_status);
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
    struct worker *worker = userdata;
    char text[384], how[96];

    (void)source;
    worker->state = WORKER_STATE_PAUSED; /* nothing can be sent any more */
    if (worker->io)
        (void)drain(worker); /* its last words; the end of the connection is no news */
    int status = wait_status_of(info);
    enum worker_end end = worker_judge(status, worker->fault.err);
    process_explain(status, how, sizeof how);
    if (worker->fault.err)
        (void)snprintf(text, sizeof text, "%s", worker->fault.text);
    else
        (void)snprintf(text, sizeof text, "worker %s", how);
    log_warning("worker %d %s%s%s", (int)worker->pid, how, worker->fault.err ? ": " : "",
                worker->fault.text);
    forget_process(worker);
    worker->state = end == WORKER_END_FAILED ? WORKER_STATE_FAILED : WORKER_STATE_PAUSED;
    if (end != WORKER_END_FAILED)
        plan_restart(worker);
    worker->listener.on_end(end, text, worker->listener.userdata);
    return 0;
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
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (!texts[i].from)
            continue;
        *texts[i].to = strdup(texts[i].from);
        if (!*texts[i].to)
            return -ENOMEM;
    }
    worker->beat_timeout_usec =
        o->beat_timeout_usec ? o->beat_timeout_usec : WORKER_BEAT_TIMEOUT_USEC;
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
    if (pid > 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0); /* it is gone in either case */
    }
    free(worker->executable);
    free(worker->model);
    free(worker->device);
    free(worker->allow_cpu);
    free(worker->png_metadata);
    free(worker->cache);
    free(worker);
    return NULL;
}

static void build_argv(const struct worker *worker, char *argv[ARGV_MAX])
{
    const struct {
        const char *flag;
        char *value;
    } flags[] = {
        {"--model", worker->model},
        {"--device", worker->device},
        {"--allow-cpu", worker->allow_cpu},
        {"--cache", worker->cache},
        {"--png-metadata", worker->png_metadata},
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
    argv[n] = NULL;
}

static int watch_process(struct worker *worker)
{
    int r = sd_event_add_io(worker->event, &worker->io, worker->socket, EPOLLIN, on_socket, worker);

    if (r >= 0)
        r = sd_event_add_child(worker->event, &worker->child, worker->pid, WEXITED, on_child,
                               worker);
    if (r >= 0)
        r = sd_event_add_time_relative(worker->event, &worker->beat, CLOCK_MONOTONIC, CHECK_USEC, 0,
                                       on_beat_check, worker);
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

int worker_start(struct worker *worker, struct fault *f)
{
    worker->fault = (struct fault){0};
    worker->state = WORKER_STATE_FAILED;
    int r = spawn(worker, f);
    if (r < 0)
        return r;
    worker->last_packet_usec = now(worker);
    r = watch_process(worker);
    if (r < 0) {
        (void)kill(worker->pid, SIGKILL);
        (void)waitpid(worker->pid, NULL, 0);
        forget_process(worker);
        return fault_set(f, r, "worker: %s", strerror(-r));
    }
    worker->state = WORKER_STATE_LOADING;
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

static void send_packet(struct worker *worker, const union ipc_packet *packet)
{
    int r = worker->socket < 0 ? -EPIPE : ipc_send(worker->socket, packet, -1);

    if (r < 0)
        worker_kill(worker, r, "it does not take packets");
}

void worker_run(struct worker *worker, const struct request *request, uint64_t job)
{
    union ipc_packet packet = {0};

    ipc_run_from_request(request, job, &packet.run);
    send_packet(worker, &packet);
}

void worker_cancel(struct worker *worker, uint64_t job)
{
    const union ipc_packet packet = {
        .job.header = {.version = IPC_VERSION, .type = IPC_CANCEL, .job = job}};

    send_packet(worker, &packet);
}

void worker_on_success(struct worker *worker)
{
    worker->pause_usec = 0;
}
