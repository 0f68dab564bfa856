/* worker: the decisions as tables; a stopped and a killed process with the fake engine. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "daemon/process.h"
#include "daemon/worker.h"
#include "tests/support/build.h"

#define PATIENCE_USEC UINT64_C(15000000)

static void test_pauses(void **state)
{
    static const uint64_t seconds[] = {1, 2, 4, 8, 16, 30, 30};
    uint64_t pause = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(seconds); i++) {
        pause = worker_next_pause(pause);
        assert_int_equal(pause, seconds[i] * 1000000);
    }
}

static void test_judgement(void **state)
{
    static const struct {
        int status, fault_err;
        enum worker_end end;
    } rows[] = {
        {W_EXITCODE(0, SIGKILL), 0, WORKER_END_CRASHED},
        {W_EXITCODE(0, SIGSEGV), -ETIMEDOUT, WORKER_END_CRASHED},
        {W_EXITCODE(0, SIGKILL), -EIO, WORKER_END_DEVICE_LOST},
        {W_EXITCODE(IPC_EXIT_OK, 0), 0, WORKER_END_CRASHED},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), -EINVAL, WORKER_END_FAILED},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), -ENODEV, WORKER_END_FAILED},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), -EIO, WORKER_END_DEVICE_LOST},
        {W_EXITCODE(IPC_EXIT_FAILED, 0), 0, WORKER_END_CRASHED}, /* it did not say why */
        {W_EXITCODE(IPC_EXIT_USAGE, 0), 0, WORKER_END_FAILED},
        {W_EXITCODE(IPC_EXIT_DEVICE_LOST, 0), 0, WORKER_END_DEVICE_LOST},
        {W_EXITCODE(IPC_EXIT_PROTOCOL, 0), 0, WORKER_END_CRASHED},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(worker_judge(rows[i].status, rows[i].fault_err), rows[i].end);
}

struct seen {
    sd_event *event;
    struct worker *worker;
    unsigned contexts, hellos, ends;
    enum worker_end end;
    char why[256];
    int signal; /* sent to the process at the first HELLO */
};

static void on_packet(const union ipc_packet *packet, int attached, void *userdata)
{
    struct seen *seen = userdata;

    (void)attached;
    if (packet->header.type == IPC_CONTEXT) {
        assert_int_equal(seen->hellos, seen->contexts); /* before HELLO, each time */
        seen->contexts++;
    }
    if (packet->header.type != IPC_HELLO)
        return;
    assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_READY);
    if (++seen->hellos == 1)
        assert_int_equal(kill(worker_get_pid(seen->worker), seen->signal), 0);
    else
        (void)sd_event_exit(seen->event, 0);
}

static void on_end(enum worker_end end, const char *why, void *userdata)
{
    struct seen *seen = userdata;

    seen->ends++;
    seen->end = end;
    (void)snprintf(seen->why, sizeof seen->why, "%s", why);
    if (end == WORKER_END_FAILED)
        (void)sd_event_exit(seen->event, 0);
}

static int on_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec, (void)userdata;
    return sd_event_exit(sd_event_source_get_event(source), 1);
}

/* Runs until the second HELLO, or until the worker is given up. */
static void supervise(struct seen *seen, const char *executable)
{
    const struct worker_listener listener = {on_packet, on_end, seen};
    const struct worker_options options = {
        .executable = executable, .model = "/some/model", .beat_timeout_usec = 1500000};
    struct fault f = {0};
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    assert_int_equal(sigprocmask(SIG_BLOCK, &set, NULL), 0);
    assert_true(sd_event_new(&seen->event) >= 0);
    assert_true(sd_event_add_time_relative(seen->event, NULL, CLOCK_MONOTONIC, PATIENCE_USEC, 0,
                                           on_patience, NULL) >= 0);
    assert_int_equal(worker_new(seen->event, &options, &listener, &seen->worker), 0);
    assert_int_equal(worker_start(seen->worker, &f), 0);
    assert_int_equal(worker_get_state(seen->worker), WORKER_STATE_LOADING);
    assert_int_equal(sd_event_loop(seen->event), 0);
}

static void seen_done(struct seen *seen)
{
    worker_free(seen->worker);
    sd_event_unref(seen->event);
}

static void test_killed_worker_is_replaced(void **state)
{
    struct seen seen = {.signal = SIGKILL};
    char path[4096];

    (void)state;
    build_path("tests/fake-worker", path, sizeof path);
    supervise(&seen, path);
    assert_int_equal(seen.hellos, 2);
    assert_int_equal(seen.ends, 1);
    assert_int_equal(seen.end, WORKER_END_CRASHED);
    assert_non_null(strstr(seen.why, "signal 9"));
    seen_done(&seen);
}

static void test_stopped_heart(void **state)
{
    struct seen seen = {.signal = SIGSTOP};
    char path[4096];

    (void)state;
    build_path("tests/fake-worker", path, sizeof path);
    supervise(&seen, path);
    assert_int_equal(seen.hellos, 2);
    assert_non_null(strstr(seen.why, "heartbeat"));
    seen_done(&seen);
}

static void test_bad_model_is_not_tried_again(void **state)
{
    struct seen seen = {0};
    char path[4096];

    (void)state;
    build_path("tests/fake-worker", path, sizeof path);
    (void)setenv("DIFFUSED_FAKE_FAIL_OPEN", "vae: no such file", 1);
    supervise(&seen, path);
    (void)unsetenv("DIFFUSED_FAKE_FAIL_OPEN");
    assert_int_equal(seen.end, WORKER_END_FAILED);
    assert_int_equal(worker_get_state(seen.worker), WORKER_STATE_FAILED);
    assert_string_equal(seen.why, "vae: no such file");
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
        cmocka_unit_test(test_killed_worker_is_replaced),
        cmocka_unit_test(test_stopped_heart),
        cmocka_unit_test(test_bad_model_is_not_tried_again),
        cmocka_unit_test(test_no_program),
    };

    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
