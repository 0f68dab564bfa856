/* A worker that dies is replaced while the bus goes on answering; its job is run once more, and
 * only once. What is finished outlives the daemon. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"

static uint32_t queue_length(struct testbus *s)
{
    uint32_t length = 99;

    testbus_get_number(s->client, TESTBUS_PATH, "QueueLength", 'u', &length);
    return length;
}

/* kill -9 in mid-job, by hand. */
static void test_killed_worker(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], next[TESTBUS_PATH_SIZE];
    uint32_t results = 0;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "50", 1);
    testbus_start_daemon(s, "ready");
    pid_t worker = testbus_find_worker(s, 0);
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 20);
    testbus_submit(s->client, "y", next, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, job, "running");
    testbus_process(s->client, 200);
    assert_int_equal(kill(worker, SIGKILL), 0);
    (void)queue_length(s); /* answers at once, worker or no worker */
    pid_t second = testbus_find_worker(s, worker);
    assert_int_not_equal(second, worker);
    testbus_wait_state(s->client, job, "done");
    testbus_wait_state(s->client, next, "done");
    testbus_get_number(s->client, job, "ResultCount", 'u', &results);
    assert_int_equal(results, 1);
}

/* A job that kills every worker it meets is given up after the second, and the next one is
 * served. */
static void test_poisonous_job(void **state)
{
    struct testbus *s = *state;
    _cleanup_(freep) char *name = NULL;
    _cleanup_(freep) char *text = NULL;
    char job[TESTBUS_PATH_SIZE], next[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_CRASH_AT_STEP", "3", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 5);
    testbus_submit(s->client, "y", next, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, job, "failed");
    testbus_get_error(s->client, job, &name, &text);
    assert_string_equal(name, TESTBUS_ERROR "WorkerCrashed");
    testbus_wait_state(s->client, next, "done");
}

/* One crash, told by a marker file: the second run goes through. */
static void test_crash_once(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], marker[512];

    (void)snprintf(marker, sizeof marker, "%s/crashed", s->folder);
    (void)setenv("DIFFUSED_FAKE_CRASH_AT_STEP", "3", 1);
    (void)setenv("DIFFUSED_FAKE_CRASH_MARKER", marker, 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 5);
    testbus_wait_state(s->client, job, "done");
    assert_int_equal(access(marker, F_OK), 0);
}

/* Ids go on where they were, a finished picture is still there, what waited is done. */
static void test_restart(void **state)
{
    struct testbus *s = *state;
    char first[TESTBUS_PATH_SIZE], waiting[TESTBUS_PATH_SIZE], last[TESTBUS_PATH_SIZE];
    uint32_t results = 0;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "30", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", first, "");
    testbus_wait_state(s->client, first, "done");
    testbus_submit(s->client, "y", waiting, "a{sv}", 1, "steps", "u", 20);
    testbus_wait_state(s->client, waiting, "running");
    (void)testbus_stop_daemon(s, SIGKILL);
    testbus_start_daemon(s, "ready");
    testbus_get_number(s->client, first, "ResultCount", 'u', &results);
    assert_int_equal(results, 1);
    testbus_submit(s->client, "z", last, "");
    assert_string_equal(last, TESTBUS_PATH "/job/3");
    testbus_wait_state(s->client, waiting, "done");
    testbus_wait_state(s->client, last, "done");
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_killed_worker),
        BUS_TEST(test_poisonous_job),
        BUS_TEST(test_crash_once),
        BUS_TEST(test_restart),
    };

    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
