/* Workers that die, and daemons that end: jobs are run again once, ids grow, results stay. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "tests/support/testbus.h"

static void assert_error(sd_bus *client, const char *job, const char *word, const char *part)
{
    char *name, *text, want[96];

    testbus_get_error(client, job, &name, &text);
    (void)snprintf(want, sizeof want, TESTBUS_ERROR "%s", word);
    assert_string_equal(name, want);
    if (!strstr(text, part))
        fail_msg("\"%s\" says nothing of \"%s\"", text, part);
    free(name);
    free(text);
}

static void test_killed_worker(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], next[TESTBUS_PATH_SIZE];
    uint32_t step = 0, pictures = 0;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    (void)setenv("DIFFUSED_FAKE_LOAD_MSEC", "2000", 1); /* so that what is between is seen */
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 20);
    testbus_submit(s->client, "y", next, "");
    for (unsigned tries = 0; step < 3 && tries < 500; tries++) {
        testbus_get_number(s->client, job, "Step", 'u', &step);
        testbus_process(s->client, 10);
    }
    pid_t worker = testbus_find_worker(s, 0);
    assert_int_equal(kill(worker, SIGKILL), 0);
    testbus_wait_state(s->client, job, "queued"); /* the bus goes on answering */
    testbus_wait_state(s->client, TESTBUS_PATH, "loading");
    char *reason = testbus_get_text(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "StateReason");
    assert_non_null(strstr(reason, "signal 9"));
    free(reason);
    testbus_get_number(s->client, job, "Step", 'u', &step);
    assert_int_equal(step, 0);
    assert_true(testbus_find_worker(s, worker) != worker);
    testbus_wait_state(s->client, job, "done");
    testbus_get_number(s->client, job, "ResultCount", 'u', &pictures);
    assert_int_equal(pictures, 1);
    testbus_wait_state(s->client, next, "done");
}

static void test_second_death_fails_the_job(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], next[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_CRASH_AT_STEP", "3", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "poison", job, "a{sv}", 1, "steps", "u", 3);
    testbus_submit(s->client, "good", next, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, job, "failed");
    assert_error(s->client, job, "WorkerCrashed", "died 2 times");
    testbus_wait_state(s->client, next, "done");
}

static void test_lost_device(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], marker[512];

    (void)snprintf(marker, sizeof marker, "%s/marker", s->folder);
    (void)setenv("DIFFUSED_FAKE_CRASH_MARKER", marker, 1);
    (void)setenv("DIFFUSED_FAKE_LOST_AT_STEP", "2", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    testbus_wait_state(s->client, job, "done");
    struct stat st;
    assert_int_equal(stat(marker, &st), 0); /* it was lost once */
}

static void test_device_lost_twice(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_LOST_AT_STEP", "2", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    testbus_wait_state(s->client, job, "failed");
    assert_error(s->client, job, "DeviceLost", "died 2 times");
}

static void test_cancelled_job_is_not_run_again(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_HANG", "1", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    testbus_wait_state(s->client, job, "running");
    testbus_call(s->client, job, TESTBUS_JOB, "Cancel", NULL);
    assert_int_equal(kill(testbus_find_worker(s, 0), SIGKILL), 0);
    testbus_wait_state(s->client, job, "cancelled");
}

static void test_restart_keeps_everything(void **state)
{
    struct testbus *s = *state;
    char done[TESTBUS_PATH_SIZE], running[TESTBUS_PATH_SIZE], job[TESTBUS_PATH_SIZE];

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "one", done, "");
    testbus_wait_state(s->client, done, "done");
    testbus_submit(s->client, "two", job, "");
    testbus_wait_state(s->client, job, "done");
    testbus_call(s->client, job, TESTBUS_JOB, "Delete", NULL);
    assert_int_equal(testbus_stop_daemon(s, SIGTERM), 0);

    (void)setenv("DIFFUSED_FAKE_HANG", "1", 1);
    testbus_start_daemon(s, "ready");
    testbus_wait_state(s->client, done, "done");
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, done, TESTBUS_JOB, "GetResult", NULL,
                                   NULL, "ua{sv}", 0, 0) >= 0);
    testbus_submit(s->client, "three", running, "");
    assert_string_equal(running, TESTBUS_PATH "/job/3"); /* 2 was deleted, and stays given */
    testbus_wait_state(s->client, running, "running");
    (void)testbus_stop_daemon(s, SIGKILL);

    (void)unsetenv("DIFFUSED_FAKE_HANG");
    testbus_start_daemon(s, "ready");
    testbus_wait_state(s->client, running, "done"); /* ran again by itself */
    testbus_submit(s->client, "four", job, "");
    assert_string_equal(job, TESTBUS_PATH "/job/4");
}

static void test_poison_does_not_restart_for_ever(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_HANG", "1", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    for (int i = 0; i < 5; i++) {
        testbus_wait_state(s->client, job, "running");
        (void)testbus_stop_daemon(s, SIGKILL);
        testbus_start_daemon(s, i < 4 ? "busy" : "ready");
    }
    testbus_wait_state(s->client, job, "failed");
    assert_error(s->client, job, "WorkerCrashed", "too often");
}

static void test_name_is_taken_once(void **state)
{
    struct testbus *s = *state;

    testbus_start_daemon(s, "ready");
    pid_t first = s->daemon;
    struct testbus second = *s;
    testbus_spawn_daemon(&second); /* the same folder, the same bus */
    int status = testbus_stop_daemon(&second, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_int_equal(kill(first, 0), 0);
}

static void test_bad_configuration(void **state)
{
    struct testbus *s = *state;

    testbus_configure(s, "[limits]\nqueue = none\n");
    testbus_spawn_daemon(s);
    int status = testbus_stop_daemon(s, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 78);
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_killed_worker),
        BUS_TEST(test_second_death_fails_the_job),
        BUS_TEST(test_lost_device),
        BUS_TEST(test_device_lost_twice),
        BUS_TEST(test_cancelled_job_is_not_run_again),
        BUS_TEST(test_restart_keeps_everything),
        BUS_TEST(test_poison_does_not_restart_for_ever),
        BUS_TEST(test_name_is_taken_once),
        BUS_TEST(test_bad_configuration),
    };

    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
