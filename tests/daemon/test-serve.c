/* serve: the worker process with the fake engine, from the manager's end of the socket. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/ipc.h"
#include "daemon/picture.h"
#include "daemon/serve.h"
#include "tests/support/build.h"
#include "tests/support/knobs.h"
#include "tests/support/requests.h"
#include "vk/base/sha256.h"

#define PATIENCE_MSEC 10000

struct worker {
    int socket;
    pid_t pid;
};

static int teardown_environment(void **state)
{
    (void)state;
    knobs_clear();
    return 0;
}

static struct worker start_worker(void)
{
    struct worker w;
    char path[4096];
    int fds[2];

    build_path("tests/fake-worker", path, sizeof path);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    w.pid = fork();
    assert_true(w.pid >= 0);
    if (w.pid == 0) {
        if (fds[1] == IPC_WORKER_FD)
            (void)fcntl(IPC_WORKER_FD, F_SETFD, 0);
        else
            (void)dup2(fds[1], IPC_WORKER_FD);
        (void)execl(path, "diffused-worker", "--serve", "--model", "/some/where/emoji",
                    "--png-metadata", "full", (char *)NULL);
        _exit(127);
    }
    (void)close(fds[1]);
    w.socket = fds[0];
    return w;
}

/* The next packet that is no beat and no LOADING; its type, or a negative errno. */
static int next_packet(const struct worker *w, union ipc_packet *p, int *attached)
{
    for (;;) {
        struct pollfd fd = {.fd = w->socket, .events = POLLIN};
        assert_int_equal(poll(&fd, 1, PATIENCE_MSEC), 1);
        int r = ipc_receive(w->socket, p, attached);
        if (r < 0)
            return r;
        if (p->header.type != IPC_BEAT && p->header.type != IPC_LOADING)
            return (int)p->header.type;
    }
}

static void expect_hello(const struct worker *w)
{
    union ipc_packet p;
    int attached;

    assert_int_equal(next_packet(w, &p, &attached), IPC_CONTEXT);
    assert_int_equal(p.context.model.width, 64);
    assert_int_equal(p.context.model.train_steps, 1000);
    assert_int_equal(next_packet(w, &p, &attached), IPC_HELLO);
    assert_string_equal(p.hello.model, "emoji");
    assert_string_equal(p.hello.device, "Fake device");
    assert_int_equal(p.hello.context.multiple, 8);
}

static void send_run(const struct worker *w, uint64_t job, uint32_t steps, uint32_t count)
{
    char prompt[] = "a fox";
    struct request q = {.prompt = prompt,
                        .width = 64,
                        .height = 72,
                        .steps = steps,
                        .guidance_scale = 2.5,
                        .seed = 5,
                        .count = count};

    requests_complete(&q);
    assert_int_equal(ipc_send_run(w->socket, &q, job, NULL), 0);
}

static void send_control(const struct worker *w, enum ipc_type type, uint64_t job)
{
    union ipc_packet p = {.job = {{IPC_VERSION, type, job}}};

    assert_int_equal(ipc_send(w->socket, &p, -1), 0);
}

static void send_cancel(const struct worker *w, uint64_t job)
{
    send_control(w, IPC_CANCEL, job);
}

/* Reads up to the job's DONE and returns its err; counts what came before. */
static int run_to_done(const struct worker *w, uint64_t job, unsigned *steps, unsigned *pictures)
{
    union ipc_packet p;
    int attached, type;

    *steps = *pictures = 0;
    while ((type = next_packet(w, &p, &attached)) != IPC_DONE) {
        assert_true(type > 0);
        assert_int_equal(p.header.job, job);
        *steps += type == IPC_STEP;
        *pictures += type == IPC_PICTURE;
        if (attached >= 0)
            (void)close(attached);
    }
    assert_int_equal(p.header.job, job);
    return p.done.err;
}

/* Waits for the end and returns the exit status, or 1000 + signal. */
static int end_worker(struct worker *w)
{
    int status;

    if (w->socket >= 0)
        (void)close(w->socket);
    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void check_picture(const union ipc_packet *p, int fd)
{
    uint8_t *file = mmap(NULL, p->picture.size, PROT_READ, MAP_PRIVATE, fd, 0);
    char hex[SHA256_HEX_SIZE];
    struct picture picture;

    assert_true(file != MAP_FAILED);
    sha256_hex(file, p->picture.size, hex);
    assert_string_equal(p->picture.sha256, hex);
    assert_int_equal(picture_decode("png", file, p->picture.size, &picture, NULL), 0);
    assert_int_equal(picture.width, 64);
    assert_int_equal(picture.height, 72);
    assert_int_equal(picture.pixels[3 * 32], 127);
    assert_non_null(memmem(file, p->picture.size, "Model: emoji", 12));
    picture_done(&picture);
    (void)munmap(file, p->picture.size);
    (void)close(fd);
}

static void test_job(void **state)
{
    struct worker w = start_worker();
    union ipc_packet p;
    int attached;

    (void)state;
    expect_hello(&w);
    send_run(&w, 7, 3, 2);
    for (uint32_t picture = 0; picture < 2; picture++) {
        for (uint32_t step = 1; step <= 4; step++) {
            assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
            assert_int_equal(p.step.picture, picture);
            assert_int_equal(p.step.step, step);
            assert_int_equal(p.step.steps, 4);
        }
        assert_int_equal(next_packet(&w, &p, &attached), IPC_PICTURE);
        assert_int_equal(p.picture.picture, picture);
        assert_int_equal(p.picture.seed, 5 + picture);
        check_picture(&p, attached);
    }
    assert_int_equal(next_packet(&w, &p, &attached), IPC_DONE);
    assert_int_equal(p.done.err, 0);
    assert_int_equal(p.header.job, 7);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);
}

static void test_beats(void **state)
{
    struct worker w;
    union ipc_packet p;
    int attached;
    unsigned beats = 0, loads = 0;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_LOAD_MSEC", "1300", 1);
    w = start_worker();
    do {
        assert_int_equal(ipc_receive(w.socket, &p, &attached), 0);
        if (p.header.type == IPC_BEAT && loads < 11)
            assert_int_equal(p.beat.phase, IPC_PHASE_LOADING);
        beats += p.header.type == IPC_BEAT;
        loads += p.header.type == IPC_LOADING;
    } while (p.header.type != IPC_HELLO);
    assert_in_range(beats, 2, 5);
    assert_int_equal(loads, 11);
    do
        assert_int_equal(ipc_receive(w.socket, &p, &attached), 0);
    while (p.header.type != IPC_BEAT);
    assert_int_equal(p.beat.progress, 12); /* 11 reports of the loader, the known-answer picture */
    assert_int_equal(p.beat.phase, IPC_PHASE_IDLE);
    assert_true(p.beat.memory_used > 0);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);
}

static void test_cancel(void **state)
{
    struct worker w;
    union ipc_packet p;
    int attached;
    unsigned steps, pictures;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    w = start_worker();
    expect_hello(&w);
    send_run(&w, 1, 400, 1);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    send_cancel(&w, 99); /* another job's: nothing happens */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    send_cancel(&w, 1);
    assert_int_equal(run_to_done(&w, 1, &steps, &pictures), -ECANCELED);
    assert_in_range(steps, 0, 10);
    assert_int_equal(pictures, 0);
    send_cancel(&w, 1); /* late: the next job must not feel it */
    send_run(&w, 2, 1, 1);
    assert_int_equal(run_to_done(&w, 2, &steps, &pictures), 0);
    assert_int_equal(pictures, 1);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);
}

static void test_failures(void **state)
{
    static const struct {
        const char *knob, *text;
    } rows[] = {
        {"DIFFUSED_FAKE_FAIL_OPEN", "no usable device"},
        {"DIFFUSED_FAKE_FAIL_CONTEXT", "config.json: not JSON \xff here"},
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        union ipc_packet p;
        int attached, type;
        (void)setenv(rows[i].knob, rows[i].text, 1);
        struct worker w = start_worker();
        while ((type = next_packet(&w, &p, &attached)) == IPC_CONTEXT)
            continue;
        assert_int_equal(type, IPC_FAULT);
        assert_int_equal(p.done.err, -EINVAL);
        assert_memory_equal(p.done.text, rows[i].text, 14);
        assert_null(strchr(p.done.text, '\xff'));
        assert_int_equal(end_worker(&w), IPC_EXIT_FAILED);
        (void)unsetenv(rows[i].knob);
    }
}

static void test_deaths(void **state)
{
    static const struct {
        const char *knob;
        int want;
    } rows[] = {
        {"DIFFUSED_FAKE_LOST_AT_STEP", IPC_EXIT_DEVICE_LOST},
        {"DIFFUSED_FAKE_CRASH_AT_STEP", 1000 + SIGABRT},
    };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        (void)setenv(rows[i].knob, "2", 1);
        struct worker w = start_worker();
        union ipc_packet p;
        int attached, type;
        expect_hello(&w);
        send_run(&w, 1, 5, 1);
        while ((type = next_packet(&w, &p, &attached)) == IPC_STEP)
            continue;
        if (type == IPC_DONE)
            assert_int_equal(p.done.err, -EIO);
        assert_int_equal(end_worker(&w), rows[i].want);
        (void)unsetenv(rows[i].knob);
    }
}

static void test_ends(void **state)
{
    struct worker w;
    union ipc_packet p;
    int attached, type;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    w = start_worker(); /* SIGTERM in the middle of a job */
    expect_hello(&w);
    send_run(&w, 1, 400, 1);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    assert_int_equal(kill(w.pid, SIGTERM), 0);
    while ((type = next_packet(&w, &p, &attached)) > 0)
        continue;
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);

    w = start_worker(); /* the manager gone in the middle of a job */
    expect_hello(&w);
    send_run(&w, 1, 400, 1);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);

    (void)setenv("DIFFUSED_FAKE_LOAD_MSEC", "60000", 1);
    w = start_worker(); /* the manager gone while loading */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_CONTEXT);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);
}

static void test_protocol(void **state)
{
    struct worker w;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    w = start_worker();
    expect_hello(&w);
    send_run(&w, 1, 400, 1);
    send_run(&w, 2, 400, 1);
    union ipc_packet p;
    int attached;
    while (next_packet(&w, &p, &attached) > 0)
        continue;
    assert_int_equal(end_worker(&w), IPC_EXIT_PROTOCOL);

    w = start_worker();
    expect_hello(&w);
    assert_int_equal(send(w.socket, "?", 1, 0), 1);
    assert_int_equal(next_packet(&w, &p, &attached), -ECONNRESET);
    assert_int_equal(end_worker(&w), IPC_EXIT_PROTOCOL);
}

/* Reads until a beat says `phase`; the steps on the way. */
static unsigned await_phase(const struct worker *w, enum ipc_phase phase)
{
    unsigned steps = 0;

    for (int beats = 0;;) {
        struct pollfd fd = {.fd = w->socket, .events = POLLIN};
        union ipc_packet p;
        int attached;
        assert_int_equal(poll(&fd, 1, PATIENCE_MSEC), 1);
        assert_int_equal(ipc_receive(w->socket, &p, &attached), 0);
        steps += p.header.type == IPC_STEP;
        if (p.header.type == IPC_BEAT && p.beat.phase == phase)
            return steps;
        beats += p.header.type == IPC_BEAT;
        assert_in_range(beats, 0, PATIENCE_MSEC / IPC_BEAT_MSEC);
    }
}

static void test_hold(void **state)
{
    struct worker w;
    union ipc_packet p;
    int attached;
    unsigned steps, pictures;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "5", 1);
    w = start_worker();
    send_control(&w, IPC_HOLD, 0); /* while it loads */
    expect_hello(&w);
    send_run(&w, 1, 50, 1);
    for (int beat = 0; beat < 3; beat++)
        assert_int_equal(await_phase(&w, IPC_PHASE_HELD), 0);
    send_control(&w, IPC_GO, 0);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    send_control(&w, IPC_HOLD, 0); /* between two steps */
    steps = 1 + await_phase(&w, IPC_PHASE_HELD);
    assert_in_range(steps, 1, 20);
    for (int beat = 0; beat < 3; beat++)
        assert_int_equal(await_phase(&w, IPC_PHASE_HELD), 0);
    send_control(&w, IPC_GO, 0);
    unsigned rest;
    assert_int_equal(run_to_done(&w, 1, &rest, &pictures), 0);
    assert_int_equal(steps + rest, 51);
    assert_int_equal(pictures, 1);

    send_control(&w, IPC_HOLD, 0);
    send_run(&w, 2, 5, 1);
    assert_int_equal(await_phase(&w, IPC_PHASE_HELD), 0);
    send_cancel(&w, 2); /* a held job can be cancelled */
    assert_int_equal(run_to_done(&w, 2, &steps, &pictures), -ECANCELED);
    assert_int_equal(steps, 0);
    send_run(&w, 3, 5, 1); /* and the worker ended */
    assert_int_equal(await_phase(&w, IPC_PHASE_HELD), 0);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);
}

static void test_check(void **state)
{
    struct worker w;
    union ipc_packet p;
    int attached;
    unsigned steps, pictures;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_CHECK_MSEC", "700", 1);
    w = start_worker();
    assert_int_equal(await_phase(&w, IPC_PHASE_CHECKING), 0); /* before HELLO */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_HELLO);
    send_control(&w, IPC_CHECK, 0);
    assert_int_equal(await_phase(&w, IPC_PHASE_CHECKING), 0);
    send_run(&w, 1, 3, 1); /* behind the check */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_CHECKED);
    assert_int_equal(run_to_done(&w, 1, &steps, &pictures), 0);
    assert_int_equal(steps, 4);
    send_control(&w, IPC_CHECK, 0);
    send_run(&w, 2, 3, 1);
    send_cancel(&w, 2); /* behind the check, and gone before its turn */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_CHECKED);
    assert_int_equal(run_to_done(&w, 2, &steps, &pictures), -ECANCELED);
    assert_int_equal(steps, 0);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    (void)setenv("DIFFUSED_FAKE_CHECK_MSEC", "0", 1);
    w = start_worker();
    expect_hello(&w);
    send_run(&w, 3, 20, 1);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    send_control(&w, IPC_HOLD, 0);
    (void)await_phase(&w, IPC_PHASE_HELD);
    send_control(&w, IPC_CHECK, 0); /* between two steps, held or not */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_CHECKED);
    assert_int_equal(await_phase(&w, IPC_PHASE_HELD), 0);
    send_control(&w, IPC_CHECK, 0);
    send_control(&w, IPC_GO, 0); /* and before the next */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_CHECKED);
    assert_int_equal(run_to_done(&w, 3, &steps, &pictures), 0);
    assert_int_equal(pictures, 1);
    send_run(&w, 4, 1, 1);
    assert_int_equal(run_to_done(&w, 4, &steps, &pictures), 0);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);
}

static void test_bad_checks(void **state)
{
    static const struct {
        const char *knob, *value;
        int err, want;
    } rows[] = {
        {"DIFFUSED_FAKE_WRONG_CHECK", "1", -EBADMSG, IPC_EXIT_WRONG},
        {"DIFFUSED_FAKE_WRONG_CHECK", "2", -EBADMSG, IPC_EXIT_WRONG},
        {"DIFFUSED_FAKE_LOST_CHECK", "1", -EIO, IPC_EXIT_DEVICE_LOST},
        {"DIFFUSED_FAKE_LOST_CHECK", "2", -EIO, IPC_EXIT_DEVICE_LOST},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        union ipc_packet p;
        int attached;
        (void)setenv(rows[i].knob, rows[i].value, 1);
        struct worker w = start_worker();
        if (*rows[i].value == '2') {
            expect_hello(&w);
            send_control(&w, IPC_CHECK, 0);
        } else {
            assert_int_equal(next_packet(&w, &p, &attached), IPC_CONTEXT);
        }
        assert_int_equal(next_packet(&w, &p, &attached), IPC_FAULT);
        assert_int_equal(p.done.err, rows[i].err);
        assert_true(strlen(p.done.text) > 5);
        assert_int_equal(end_worker(&w), rows[i].want);
        (void)unsetenv(rows[i].knob);
    }
}

/* The engine itself finds that it cannot go on: no DONE, for the job is not to blame. */
static void test_unsound_weights(void **state)
{
    union ipc_packet p;
    int attached;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_WRONG_AT_STEP", "2", 1);
    struct worker w = start_worker();
    expect_hello(&w);
    send_run(&w, 1, 5, 1);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_FAULT);
    assert_int_equal(p.done.err, -EBADMSG);
    assert_string_equal(p.done.text, "the weights are not what they were");
    assert_int_equal(end_worker(&w), IPC_EXIT_WRONG);
}

/* A board that woke up in the middle of a job with another memory. */
static void test_bad_check_in_job(void **state)
{
    union ipc_packet p, go = {.job = {{IPC_VERSION, IPC_GO, 0}}};
    int attached;

    (void)state;
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    (void)setenv("DIFFUSED_FAKE_WRONG_CHECK", "2", 1);
    struct worker w = start_worker();
    expect_hello(&w);
    send_run(&w, 1, 400, 1);
    assert_int_equal(next_packet(&w, &p, &attached), IPC_STEP);
    send_control(&w, IPC_HOLD, 0);
    (void)await_phase(&w, IPC_PHASE_HELD);
    send_control(&w, IPC_CHECK, 0);
    (void)ipc_send(w.socket, &go, -1); /* which may come too late already */
    assert_int_equal(next_packet(&w, &p, &attached), IPC_FAULT); /* no step, no DONE before */
    assert_int_equal(p.done.err, -EBADMSG);
    assert_int_equal(end_worker(&w), IPC_EXIT_WRONG);
}

/* A manager that reads nothing for a while finds everything when it does. */
static void test_slow_manager(void **state)
{
    struct worker w = start_worker();
    unsigned steps, pictures;

    (void)state;
    expect_hello(&w);
    send_run(&w, 1, 499, 4);
    (void)poll(NULL, 0, 1500);
    assert_int_equal(run_to_done(&w, 1, &steps, &pictures), 0);
    assert_int_equal(steps, 4 * 500);
    assert_int_equal(pictures, 4);
    assert_int_equal(end_worker(&w), IPC_EXIT_OK);
}

/* What holds the engine fast does not hold the process: neither the device nor a full socket. */
static void test_ends_although_stuck(void **state)
{
    struct worker hung[2], full;
    struct timespec begin, end;
    union ipc_packet p;
    int attached;

    (void)state;
    full = start_worker();
    expect_hello(&full);
    send_run(&full, 1, 499, 16);
    (void)setenv("DIFFUSED_FAKE_HANG", "yes", 1);
    for (int i = 0; i < 2; i++) {
        hung[i] = start_worker();
        expect_hello(&hung[i]);
        send_run(&hung[i], 1, 5, 1);
        assert_int_equal(await_phase(&hung[i], IPC_PHASE_RUNNING), 0);
    }
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &begin), 0);
    assert_int_equal(kill(full.pid, SIGTERM), 0);
    assert_int_equal(kill(hung[0].pid, SIGTERM), 0);
    assert_int_equal(close(hung[1].socket), 0);
    hung[1].socket = -1;
    assert_int_equal(end_worker(&hung[1]), IPC_EXIT_OK);
    while (next_packet(&hung[0], &p, &attached) > 0)
        continue;
    assert_int_equal(end_worker(&hung[0]), IPC_EXIT_OK);
    int status;
    assert_int_equal(waitpid(full.pid, &status, 0), full.pid); /* its socket stays full and open */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == IPC_EXIT_OK);
    (void)close(full.socket);
    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &end), 0);
    assert_in_range(end.tv_sec - begin.tv_sec, 0, SERVE_GRACE_SEC + 2);
}

/* The manager dies of SIGKILL while the device hangs: the worker is gone at once. */
static void test_dies_with_manager(void **state)
{
    struct worker w;
    int report[2], status;

    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* orphans come to us */
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    (void)setenv("DIFFUSED_FAKE_HANG", "yes", 1);
    pid_t manager = fork();
    assert_true(manager >= 0);
    if (manager == 0) {
        w = start_worker();
        expect_hello(&w);
        send_run(&w, 1, 5, 1);
        (void)await_phase(&w, IPC_PHASE_RUNNING);
        _exit(write(report[1], &w.pid, sizeof w.pid) < 0 || pause());
    }
    assert_int_equal(read(report[0], &w.pid, sizeof w.pid), sizeof w.pid);
    assert_int_equal(kill(manager, SIGKILL), 0);
    assert_int_equal(waitpid(manager, &status, 0), manager);
    int waited = 0;
    while (waitpid(w.pid, &status, WNOHANG) == 0 && waited++ < 100)
        (void)poll(NULL, 0, 20);
    assert_in_range(waited, 0, 100);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    (void)close(report[0]);
    (void)close(report[1]);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_job, teardown_environment),
        cmocka_unit_test_teardown(test_beats, teardown_environment),
        cmocka_unit_test_teardown(test_cancel, teardown_environment),
        cmocka_unit_test_teardown(test_failures, teardown_environment),
        cmocka_unit_test_teardown(test_deaths, teardown_environment),
        cmocka_unit_test_teardown(test_ends, teardown_environment),
        cmocka_unit_test_teardown(test_protocol, teardown_environment),
        cmocka_unit_test_teardown(test_hold, teardown_environment),
        cmocka_unit_test_teardown(test_check, teardown_environment),
        cmocka_unit_test_teardown(test_bad_checks, teardown_environment),
        cmocka_unit_test_teardown(test_unsound_weights, teardown_environment),
        cmocka_unit_test_teardown(test_bad_check_in_job, teardown_environment),
        cmocka_unit_test_teardown(test_slow_manager, teardown_environment),
        cmocka_unit_test_teardown(test_ends_although_stuck, teardown_environment),
        cmocka_unit_test_teardown(test_dies_with_manager, teardown_environment),
    };

    return cmocka_run_group_tests_name("serve", tests, NULL, NULL);
}
