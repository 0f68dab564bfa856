/* worker: the decisions as tables; a stopped and a killed process with the fake engine. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/process.h"
#include "daemon/worker.h"
#include "tests/support/build.h"
#include "tests/support/knobs.h"
#include "tests/support/requests.h"

#define PATIENCE_USEC UINT64_C(15000000)

static void test_pauses(void **state)
{
    static const uint64_t msec[] = {125, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000};
    uint64_t pause = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(msec); i++) {
        pause = worker_next_pause(pause);
        assert_int_equal(pause, msec[i] * 1000);
    }
}

static void test_judgement(void **state)
{
    static const struct {
        int status, fault_err;
        enum worker_end end;
        unsigned wrong;
    } rows[] = {
        {W_EXITCODE(0, SIGKILL), 0, WORKER_END_CRASHED, 0},
        {W_EXITCODE(0, SIGSEGV), -ETIMEDOUT, WORKER_END_CRASHED, 0},
        {W_EXITCODE(0, SIGKILL), -EIO, WORKER_END_DEVICE_LOST, 0},
        {W_EXITCODE(IPC_EXIT_OK, 0), 0, WORKER_END_CRASHED, 0},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), -EINVAL, WORKER_END_FAILED, 0},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), -ENODEV, WORKER_END_FAILED, 0},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), -EIO, WORKER_END_DEVICE_LOST, 0},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), 0, WORKER_END_CRASHED, 0}, /* it did not say why */
        {W_EXITCODE(IPC_EXIT_USAGE, 0), 0, WORKER_END_FAILED, 0},
        {W_EXITCODE(IPC_EXIT_DEVICE_LOST, 0), 0, WORKER_END_DEVICE_LOST, 0},
        {W_EXITCODE(IPC_EXIT_PROTOCOL, 0), 0, WORKER_END_CRASHED, 0},
        {W_EXITCODE(IPC_EXIT_DEVICE_LOST, 0), -ENOMEM, WORKER_END_DEVICE_LOST, 0},
        {W_EXITCODE(IPC_EXIT_WRONG, 0), 0, WORKER_END_CRASHED, 0},
        {W_EXITCODE(IPC_EXIT_WRONG, 0), -EBADMSG, WORKER_END_CRASHED, 1},
        {W_EXITCODE(0, SIGKILL), -EBADMSG, WORKER_END_CRASHED, 1},
        {W_EXITCODE(IPC_EXIT_WRONG, 0), -EBADMSG, WORKER_END_FAILED, 2},
        {W_EXITCODE(0, SIGKILL), -EBADMSG, WORKER_END_FAILED, 2},
        {W_EXITCODE(0, SIGKILL), -EIO, WORKER_END_DEVICE_LOST, 2},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(worker_judge(rows[i].status, rows[i].fault_err, rows[i].wrong),
                         rows[i].end);
}

/* What a test wants: `act` is called for every packet and every end, and leaves by sd_event_exit().
 * Nothing may take longer than PATIENCE_USEC. */
struct seen {
    sd_event *event;
    struct worker *worker;
    void (*act)(struct seen *seen, const union ipc_packet *packet); /* NULL: an end */
    unsigned contexts, hellos, ends, steps, pictures, beats, held, checked, dones;
    int err; /* of the last DONE */
    enum worker_end end;
    char why[256];
    uint64_t usec; /* the whole took */
    int signal;
};

static uint64_t now_usec(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &t), 0);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void on_packet(const union ipc_packet *packet, int attached, void *userdata)
{
    struct seen *seen = userdata;

    (void)attached;
    switch (packet->header.type) {
    case IPC_CONTEXT:
        seen->contexts++;
        break;
    case IPC_HELLO:
        assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_READY);
        assert_true(seen->contexts > seen->hellos++); /* CONTEXT comes before, each time */
        break;
    case IPC_DONE:
        seen->dones++;
        seen->err = packet->done.err;
        break;
    case IPC_BEAT:
        seen->beats++;
        seen->held += packet->beat.phase == IPC_PHASE_HELD;
        break;
    default:
        seen->steps += packet->header.type == IPC_STEP;
        seen->pictures += packet->header.type == IPC_PICTURE;
        seen->checked += packet->header.type == IPC_CHECKED;
        break;
    }
    seen->act(seen, packet);
}

static void on_end(enum worker_end end, const char *why, void *userdata)
{
    struct seen *seen = userdata;

    seen->ends++;
    seen->end = end;
    (void)snprintf(seen->why, sizeof seen->why, "%s", why);
    seen->act(seen, NULL);
}

static int on_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec, (void)userdata;
    return sd_event_exit(sd_event_source_get_event(source), 1);
}

static void leave(struct seen *seen)
{
    (void)sd_event_exit(seen->event, 0);
}

static void run(struct seen *seen, uint64_t job, uint32_t steps, uint32_t count)
{
    char prompt[] = "a fox";
    struct request q = {.prompt = prompt, .steps = steps, .count = count, .seed = 5};

    requests_complete(&q);
    worker_run(seen->worker, &q, job, NULL);
}

static bool is_type(const union ipc_packet *packet, enum ipc_type type)
{
    return packet && packet->header.type == type;
}

/* Supervises the fake worker until `act` leaves. Limits are short enough for a test. */
static void supervise(struct seen *seen)
{
    const struct worker_listener listener = {on_packet, on_end, seen};
    char path[4096];
    const struct worker_options options = {.executable = path,
                                           .model = "/some/model",
                                           .beat_timeout_usec = 1500000,
                                           .still_min_usec = 1000000,
                                           .still_max_usec = 2000000,
                                           .dying_usec = 500000};
    struct fault f = {0};
    sigset_t set;

    build_path("tests/fake-worker", path, sizeof path);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    assert_int_equal(sigprocmask(SIG_BLOCK, &set, NULL), 0);
    assert_true(sd_event_new(&seen->event) >= 0);
    assert_true(sd_event_add_time_relative(seen->event, NULL, CLOCK_MONOTONIC, PATIENCE_USEC, 0,
                                           on_patience, NULL) >= 0);
    assert_int_equal(worker_new(seen->event, &options, &listener, &seen->worker), 0);
    uint64_t begin = now_usec();
    assert_int_equal(worker_start(seen->worker, &f), 0);
    assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_LOADING);
    assert_int_equal(sd_event_loop(seen->event), 0);
    seen->usec = now_usec() - begin;
}

static void seen_done(struct seen *seen)
{
    worker_free(seen->worker);
    sd_event_unref(seen->event);
}

static int teardown_environment(void **state)
{
    (void)state;
    knobs_clear();
    return 0;
}

/* --- death and silence ------------------------------------------------------------------------ */

/* A signal at the first HELLO; the second HELLO is the end. */
static void act_signal(struct seen *seen, const union ipc_packet *packet)
{
    if (!is_type(packet, IPC_HELLO))
        return;
    if (seen->hellos == 1)
        assert_int_equal(kill(worker_get_pid(seen->worker), seen->signal), 0);
    else
        leave(seen);
}

static void test_killed_worker_is_replaced(void **state)
{
    struct seen seen = {.act = act_signal, .signal = SIGKILL};

    (void)state;
    supervise(&seen);
    assert_int_equal(seen.hellos, 2);
    assert_int_equal(seen.ends, 1);
    assert_int_equal(seen.end, WORKER_END_CRASHED);
    assert_non_null(strstr(seen.why, "signal 9"));
    assert_in_range(seen.usec, WORKER_PAUSE_FIRST_USEC, 1000000);
    seen_done(&seen);
}

static void test_stopped_heart(void **state)
{
    struct seen seen = {.act = act_signal, .signal = SIGSTOP};

    (void)state;
    supervise(&seen);
    assert_int_equal(seen.hellos, 2);
    assert_non_null(strstr(seen.why, "heartbeat"));
    assert_in_range(seen.usec, 1500000, 3500000);
    seen_done(&seen);
}

static void act_leave_at_end(struct seen *seen, const union ipc_packet *packet)
{
    if (!packet && seen->end == WORKER_END_FAILED)
        leave(seen);
}

static void test_bad_model_is_not_tried_again(void **state)
{
    struct seen seen = {.act = act_leave_at_end};

    (void)state;
    (void)setenv("DIFFUSED_FAKE_FAIL_OPEN", "vae: no such file", 1);
    supervise(&seen);
    assert_int_equal(seen.ends, 1);
    assert_int_equal(worker_get_state(seen.worker), WORKER_STATE_FAILED);
    assert_string_equal(seen.why, "vae: no such file");
    seen_done(&seen);
}

/* --- standstill ------------------------------------------------------------------------------- */

/* A run at the first HELLO, its repetition at every later one. */
static void act_run(struct seen *seen, const union ipc_packet *packet)
{
    if (is_type(packet, IPC_HELLO))
        run(seen, 7, 3, 1);
    if (is_type(packet, IPC_DONE))
        leave(seen);
}

/* Beats go on, progress does not: killed, and the job done by the next one. */
static void test_hung_job(void **state)
{
    char marker[] = "/tmp/diffused-worker-XXXXXX";
    int fd = mkstemp(marker);
    struct seen seen = {.act = act_run};

    (void)state;
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(unlink(marker), 0);
    (void)setenv("DIFFUSED_FAKE_CRASH_MARKER", marker, 1);
    (void)setenv("DIFFUSED_FAKE_HANG_AT_STEP", "2", 1);
    supervise(&seen);
    assert_int_equal(unlink(marker), 0);
    assert_int_equal(seen.ends, 1);
    assert_int_equal(seen.end, WORKER_END_CRASHED);
    assert_non_null(strstr(seen.why, "no progress for 2 s"));
    assert_true(seen.beats >= 4);
    assert_int_equal(seen.err, 0);
    assert_int_equal(seen.pictures, 1);
    assert_in_range(seen.usec, 2000000, 5000000);
    seen_done(&seen);
}

static void act_leave_at_any_end(struct seen *seen, const union ipc_packet *packet)
{
    if (!packet)
        leave(seen);
}

static void test_hung_load(void **state)
{
    struct seen seen = {.act = act_leave_at_any_end};

    (void)state;
    (void)setenv("DIFFUSED_FAKE_HANG_LOAD", "yes", 1);
    supervise(&seen);
    assert_int_equal(seen.end, WORKER_END_CRASHED);
    assert_int_equal(worker_get_state(seen.worker), WORKER_STATE_PAUSED);
    assert_non_null(strstr(seen.why, "no progress"));
    assert_int_equal(seen.hellos, 0);
    seen_done(&seen);
}

/* A worker that is slow but gets on, and one that loads for longer than the limit, are left alone;
 * so is an idle one. */
static void act_slow(struct seen *seen, const union ipc_packet *packet)
{
    assert_non_null(packet);
    if (is_type(packet, IPC_HELLO))
        run(seen, 7, 4, 1);
    if (is_type(packet, IPC_DONE))
        seen->beats = 0; /* now idle for longer than the limit */
    if (seen->dones && seen->beats == 5)
        leave(seen);
}

static void test_slow_is_not_stuck(void **state)
{
    struct seen seen = {.act = act_slow};

    (void)state;
    (void)setenv("DIFFUSED_FAKE_LOAD_MSEC", "2500", 1);
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "500", 1);
    supervise(&seen);
    assert_int_equal(seen.ends, 0);
    assert_int_equal(seen.err, 0);
    seen_done(&seen);
}

/* --- a manager that is slow itself ------------------------------------------------------------ */

/* Stops this whole process for `seconds`, longer than the worker's limits. */
static void stop_self(unsigned seconds)
{
    int status;
    pid_t waker = fork();

    assert_true(waker >= 0);
    if (waker == 0) {
        (void)sleep(seconds);
        _exit(kill(getppid(), SIGCONT) < 0);
    }
    assert_int_equal(raise(SIGSTOP), 0);
    assert_int_equal(waitpid(waker, &status, 0), waker);
    assert_int_equal(status, 0);
}

static void act_stop_self(struct seen *seen, const union ipc_packet *packet)
{
    assert_non_null(packet);
    if (is_type(packet, IPC_HELLO))
        run(seen, 7, 499, 4);
    if (is_type(packet, IPC_STEP) && seen->steps == 1)
        stop_self(4);
    if (is_type(packet, IPC_DONE)) {
        seen->beats = 0;
        worker_check(seen->worker);
    }
    if (seen->dones && seen->beats == 5)
        leave(seen);
}

/* More steps than the socket holds meanwhile: the worker waits, nothing is lost, nobody is killed.
 */
static void test_stopped_manager(void **state)
{
    struct seen seen = {.act = act_stop_self};

    (void)state;
    supervise(&seen);
    assert_int_equal(seen.ends, 0);
    assert_int_equal(seen.err, 0);
    assert_int_equal(seen.steps, 4 * 500);
    assert_int_equal(seen.pictures, 4);
    assert_int_equal(seen.checked, 1);
    seen_done(&seen);
}

/* A worker that reads nothing: the manager is not held up by it, and it is ended. */
static void act_flood(struct seen *seen, const union ipc_packet *packet)
{
    if (is_type(packet, IPC_HELLO)) {
        uint64_t begin = now_usec();
        assert_int_equal(kill(worker_get_pid(seen->worker), SIGSTOP), 0);
        for (uint64_t job = 1; job < 1000; job++)
            worker_cancel(seen->worker, 1); /* says the same: sent once */
        assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_READY);
        for (uint64_t job = 2; job < 100000; job++) { /* it may read some before it has stopped */
            worker_cancel(seen->worker, job);
            if (worker_get_state(seen->worker) == WORKER_STATE_PAUSED)
                break;
        }
        assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_PAUSED);
        assert_true(now_usec() - begin < 500000);
    }
    if (!packet)
        leave(seen);
}

static void test_worker_that_does_not_read(void **state)
{
    struct seen seen = {.act = act_flood};

    (void)state;
    supervise(&seen);
    assert_int_equal(seen.end, WORKER_END_CRASHED);
    assert_non_null(strstr(seen.why, "does not take packets"));
    assert_true(seen.usec < 1500000);
    seen_done(&seen);
}

/* --- hold and check --------------------------------------------------------------------------- */

static void act_hold(struct seen *seen, const union ipc_packet *packet)
{
    assert_non_null(packet);
    if (is_type(packet, IPC_CONTEXT))
        worker_hold(seen->worker, true);
    if (is_type(packet, IPC_HELLO))
        run(seen, 7, 3, 1);
    if (is_type(packet, IPC_BEAT) && seen->held == 8) { /* for longer than the limit */
        assert_int_equal(seen->steps, 0);
        worker_hold(seen->worker, false);
    }
    if (is_type(packet, IPC_DONE))
        leave(seen);
}

static void test_held_is_not_stuck(void **state)
{
    struct seen seen = {.act = act_hold};

    (void)state;
    supervise(&seen);
    assert_int_equal(seen.ends, 0);
    assert_int_equal(seen.err, 0);
    assert_int_equal(seen.steps, 4);
    assert_in_range(seen.held, 8, 9);
    seen_done(&seen);
}

/* The wish outlives the process. */
static void act_hold_over_death(struct seen *seen, const union ipc_packet *packet)
{
    if (is_type(packet, IPC_HELLO) && seen->hellos == 1) {
        worker_hold(seen->worker, true);
        worker_kill(seen->worker, -EPROTO, "a test");
    } else if (is_type(packet, IPC_HELLO)) {
        run(seen, 7, 3, 1);
    }
    if (seen->held == 2)
        leave(seen);
}

static void test_hold_outlives_worker(void **state)
{
    struct seen seen = {.act = act_hold_over_death};

    (void)state;
    supervise(&seen);
    assert_int_equal(seen.ends, 1);
    assert_string_equal(seen.why, "a test");
    assert_int_equal(seen.steps, 0);
    seen_done(&seen);
}

/* CHECK at every HELLO; the end when one was answered well, or the worker is given up. */
static void act_check(struct seen *seen, const union ipc_packet *packet)
{
    if (is_type(packet, IPC_HELLO))
        worker_check(seen->worker);
    if (is_type(packet, IPC_CHECKED) || worker_get_state(seen->worker) == WORKER_STATE_FAILED)
        leave(seen);
}

static void test_wrong_pictures(void **state)
{
    static const struct {
        const char *at; /* the known-answer picture of each process that is wrong */
        bool once;      /* only in the first process */
        unsigned hellos, ends, checked;
        enum worker_state state;
    } rows[] = {
        {"1", false, 0, 2, 0, WORKER_STATE_FAILED}, /* twice in a row at the start: for a person */
        {"1", true, 1, 1, 1, WORKER_STATE_READY},   /* once: tried again with fresh weights */
        {"2", true, 2, 1, 1, WORKER_STATE_READY},   /* after a sleep: likewise */
    };
    char marker[] = "/tmp/diffused-worker-XXXXXX";
    int fd = mkstemp(marker);

    (void)state;
    assert_true(fd >= 0);
    (void)close(fd);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct seen seen = {.act = act_check};
        assert_int_equal(unlink(marker), 0);
        (void)setenv("DIFFUSED_FAKE_WRONG_CHECK", rows[i].at, 1);
        if (rows[i].once)
            (void)setenv("DIFFUSED_FAKE_CRASH_MARKER", marker, 1);
        supervise(&seen);
        assert_int_equal(seen.hellos, rows[i].hellos);
        assert_int_equal(seen.ends, rows[i].ends);
        assert_int_equal(seen.checked, rows[i].checked);
        assert_int_equal(worker_get_state(seen.worker), rows[i].state);
        assert_non_null(strstr(seen.why, "came out wrong"));
        seen_done(&seen);
        fd = open(marker, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        (void)close(fd);
    }
    (void)unlink(marker);
}

static void act_run_until_end(struct seen *seen, const union ipc_packet *packet)
{
    if (is_type(packet, IPC_HELLO))
        run(seen, 7, 3, 1);
    if (!packet)
        leave(seen);
}

static void test_lost_device(void **state)
{
    struct seen seen = {.act = act_run_until_end};

    (void)state;
    (void)setenv("DIFFUSED_FAKE_LOST_AT_STEP", "2", 1);
    supervise(&seen);
    assert_int_equal(seen.end, WORKER_END_DEVICE_LOST);
    assert_int_equal(seen.err, -EIO);
    seen_done(&seen);
}

/* --- what the kernel does not let go ---------------------------------------------------------- */

#define FREEZER "/sys/fs/cgroup/freezer"

static bool put_text(const char *path, const char *text)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* A frozen group of its own (cgroup v1) keeps a process from hearing even SIGKILL. */
static bool freeze(pid_t pid)
{
    char path[96], text[24];

    (void)snprintf(path, sizeof path, FREEZER "/diffused-test-%d", (int)getpid());
    if (mkdir(path, 0755) < 0)
        return false;
    (void)snprintf(text, sizeof text, "%d", (int)pid);
    (void)snprintf(path, sizeof path, FREEZER "/diffused-test-%d/cgroup.procs", (int)getpid());
    if (!put_text(path, text))
        return false;
    (void)snprintf(path, sizeof path, FREEZER "/diffused-test-%d/freezer.state", (int)getpid());
    return put_text(path, "FROZEN");
}

static void thaw(void)
{
    char path[96];

    (void)snprintf(path, sizeof path, FREEZER "/diffused-test-%d/freezer.state", (int)getpid());
    (void)put_text(path, "THAWED");
}

static void remove_group(void)
{
    char path[96];

    (void)snprintf(path, sizeof path, FREEZER "/diffused-test-%d", (int)getpid());
    for (int i = 0; i < 100 && rmdir(path) < 0 && errno == EBUSY; i++)
        (void)usleep(10000);
}

static void act_freeze(struct seen *seen, const union ipc_packet *packet)
{
    if (is_type(packet, IPC_HELLO) && seen->hellos == 1) {
        if (!freeze(worker_get_pid(seen->worker))) {
            seen->signal = -1;
            leave(seen);
        }
        run(seen, 7, 3, 1);
    }
    if (!packet) { /* told although the process is still there; then it goes, and a new one comes */
        assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_PAUSED);
        assert_true(worker_get_pid(seen->worker) > 0);
        thaw();
    }
    if (is_type(packet, IPC_HELLO) && seen->hellos == 2)
        leave(seen);
}

static void test_undead_worker(void **state)
{
    struct seen seen = {.act = act_freeze};

    (void)state;
    supervise(&seen);
    bool is_possible = seen.signal == 0;
    if (!is_possible)
        thaw();
    unsigned hellos = seen.hellos, ends = seen.ends;
    uint64_t usec = seen.usec;
    char why[256];
    memcpy(why, seen.why, sizeof why);
    seen_done(&seen);
    remove_group();
    if (!is_possible) {
        printf("no cgroup v1 freezer that we may use\n");
        skip();
    }
    assert_int_equal(hellos, 2);
    assert_int_equal(ends, 1); /* told once */
    assert_non_null(strstr(why, "does not end"));
    assert_in_range(usec, 2000000, 5000000);
}

/* Freeing one does not wait for ever. */
static void act_freeze_and_leave(struct seen *seen, const union ipc_packet *packet)
{
    if (is_type(packet, IPC_HELLO)) {
        seen->signal = freeze(worker_get_pid(seen->worker)) ? 0 : -1;
        leave(seen);
    }
}

static void test_free_undead_worker(void **state)
{
    struct seen seen = {.act = act_freeze_and_leave};

    (void)state;
    supervise(&seen);
    pid_t pid = worker_get_pid(seen.worker);
    uint64_t begin = now_usec();
    seen_done(&seen);
    uint64_t took = now_usec() - begin;
    thaw();
    if (seen.signal == 0)
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    remove_group();
    if (seen.signal < 0) {
        printf("no cgroup v1 freezer that we may use\n");
        skip();
    }
    assert_in_range(took, PROCESS_REAP_MSEC * 900, PROCESS_REAP_MSEC * 3000);
}

/* No descriptors left at the restart: tried again until there are. */
static void act_starve(struct seen *seen, const union ipc_packet *packet)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (is_type(packet, IPC_HELLO) && seen->hellos == 1) {
        worker_kill(seen->worker, -EPROTO, "a test");
        seen->signal = (int)limit.rlim_cur;
    }
    if (!packet && seen->ends == 1)
        limit.rlim_cur = 4; /* two for the event loop, none for a pair of sockets */
    else if (!packet && seen->ends == 2)
        limit.rlim_cur = (rlim_t)seen->signal;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (!packet)
        assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_PAUSED);
    if (seen->hellos == 2)
        leave(seen);
}

static void test_start_is_tried_again(void **state)
{
    struct seen seen = {.act = act_starve};

    (void)state;
    supervise(&seen);
    assert_int_equal(seen.hellos, 2);
    assert_int_equal(seen.ends, 2);
    assert_non_null(strstr(seen.why, "socketpair"));
    seen_done(&seen);
}

static void test_no_program(void **state)
{
    const struct worker_listener listener = {on_packet, on_end, NULL};
    const struct worker_options options = {.executable = "/no/such/program"};
    struct worker *worker = NULL;
    sd_event *event = NULL;
    struct fault f = {0};

    (void)state;
    assert_true(sd_event_new(&event) >= 0);
    assert_int_equal(worker_new(event, &options, &listener, &worker), 0);
    assert_int_equal(worker_start(worker, &f), -ENOENT);
    assert_int_equal(worker_get_state(worker), WORKER_STATE_FAILED);
    assert_non_null(strstr(f.text, "/no/such/program"));
    worker_free(worker);
    sd_event_unref(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pauses),
        cmocka_unit_test(test_judgement),
        cmocka_unit_test_teardown(test_killed_worker_is_replaced, teardown_environment),
        cmocka_unit_test_teardown(test_stopped_heart, teardown_environment),
        cmocka_unit_test_teardown(test_bad_model_is_not_tried_again, teardown_environment),
        cmocka_unit_test_teardown(test_hung_job, teardown_environment),
        cmocka_unit_test_teardown(test_hung_load, teardown_environment),
        cmocka_unit_test_teardown(test_slow_is_not_stuck, teardown_environment),
        cmocka_unit_test_teardown(test_stopped_manager, teardown_environment),
        cmocka_unit_test_teardown(test_worker_that_does_not_read, teardown_environment),
        cmocka_unit_test_teardown(test_held_is_not_stuck, teardown_environment),
        cmocka_unit_test_teardown(test_hold_outlives_worker, teardown_environment),
        cmocka_unit_test_teardown(test_wrong_pictures, teardown_environment),
        cmocka_unit_test_teardown(test_lost_device, teardown_environment),
        cmocka_unit_test_teardown(test_undead_worker, teardown_environment),
        cmocka_unit_test_teardown(test_free_undead_worker, teardown_environment),
        cmocka_unit_test_teardown(test_start_is_tried_again, teardown_environment),
        cmocka_unit_test(test_no_program),
    };

    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
