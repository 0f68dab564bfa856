/* leave: who leaves the bus, and what goes with him: jobs that were not to outlive their submitter,
 * pictures that were to be fetched once; and the bus itself, which takes the daemon with it and
 * finds every job again after both have come back. */
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
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/testbus.h"

static void submit_bound(sd_bus *bus, const char *token, char ret_job[TESTBUS_PATH_SIZE])
{
    testbus_submit(bus, "x", ret_job, "a{sv}", 3, "cancel_on_disconnect", "b", 1, "token", "s",
                   token, "steps", "u", 400);
}

static void assert_still(sd_bus *client, const char *job, const char *state)
{
    testbus_process(client, 300);
    char *now = testbus_get_text(client, job, TESTBUS_JOB, "State");
    assert_string_equal(now, state);
    free(now);
}

static void start_slow(struct testbus *s)
{
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "30", 1);
    testbus_start_daemon(s, "ready");
}

static void test_submitter_leaves(void **state)
{
    struct testbus *s = *state;
    char running[TESTBUS_PATH_SIZE], queued[TESTBUS_PATH_SIZE], free_job[TESTBUS_PATH_SIZE];

    start_slow(s);
    sd_bus *bus = testbus_connect(s);
    submit_bound(bus, "one", running);
    submit_bound(bus, "two", queued);
    testbus_submit(bus, "not bound", free_job, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, running, "running");
    sd_bus_close_unref(bus);
    testbus_wait_state(s->client, running, "cancelled");
    testbus_wait_state(s->client, queued, "cancelled");
    testbus_wait_state(s->client, free_job, "done");
}

/* A watcher is no submitter; a submitter who does not want signals is one all the same. */
static void test_watcher_leaves(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    start_slow(s);
    sd_bus *owner = testbus_connect(s), *watcher = testbus_connect(s);
    submit_bound(owner, "one", job);
    assert_true(sd_bus_call_method(watcher, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Watch",
                                   NULL, NULL, "o", job) >= 0);
    sd_bus_close_unref(watcher);
    assert_still(s->client, job, "running");
    assert_true(sd_bus_call_method(owner, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Unwatch",
                                   NULL, NULL, "o", job) >= 0);
    assert_still(s->client, job, "running");
    sd_bus_close_unref(owner);
    testbus_wait_state(s->client, job, "cancelled");
}

/* The same job, submitted twice with its token, lasts as long as one of both. */
static void test_last_submitter_counts(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], again[TESTBUS_PATH_SIZE];

    start_slow(s);
    sd_bus *one = testbus_connect(s), *two = testbus_connect(s);
    submit_bound(one, "same", job);
    submit_bound(two, "same", again);
    assert_string_equal(job, again);
    sd_bus_close_unref(one);
    assert_still(s->client, job, "running");
    sd_bus_close_unref(two);
    testbus_wait_state(s->client, job, "cancelled");
}

/* Gone before the disk had the job: whatever comes of it must end. */
static void test_leaves_at_once(void **state)
{
    struct testbus *s = *state;
    uint32_t length = 1;

    start_slow(s);
    for (unsigned i = 0; i < 30; i++) {
        sd_bus_message *m = NULL;
        sd_bus *bus = testbus_connect(s);
        assert_true(sd_bus_message_new_method_call(bus, &m, TESTBUS_NAME, TESTBUS_PATH,
                                                   TESTBUS_MANAGER, "Submit") >= 0);
        assert_true(sd_bus_message_append(m, "sa{sv}", "x", 2, "cancel_on_disconnect", "b", 1,
                                          "steps", "u", 500) >= 0);
        assert_true(sd_bus_send(bus, m, NULL) >= 0 && sd_bus_flush(bus) >= 0);
        sd_bus_message_unref(m);
        sd_bus_close_unref(bus);
    }
    for (unsigned i = 0; i < 200 && length > 0; i++) {
        testbus_process(s->client, 20);
        testbus_get_number(s->client, TESTBUS_PATH, "QueueLength", 'u', &length);
    }
    assert_int_equal(length, 0);
    testbus_wait_state(s->client, TESTBUS_PATH, "ready");
}

static int get_result(sd_bus *bus, const char *job, uint32_t index, const char *format)
{
    return sd_bus_call_method(bus, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", NULL, NULL,
                              "ua{sv}", index, 1, "format", "s", format);
}

static bool exists(sd_bus *bus, const char *job)
{
    char *now = NULL;

    bool is =
        sd_bus_get_property_string(bus, TESTBUS_NAME, job, TESTBUS_JOB, "State", NULL, &now) >= 0;
    free(now);
    return is;
}

static void test_ephemeral(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "a{sv}", 2, "ephemeral", "b", 1, "count", "u", 2);
    testbus_wait_state(s->client, job, "done");
    assert_true(get_result(s->client, job, 5, "png") < 0);
    assert_true(get_result(s->client, job, 0, "rgb") >= 0);
    assert_true(get_result(s->client, job, 0, "png") >= 0); /* again: one is still missing */
    testbus_process(s->client, 100);
    assert_true(exists(s->client, job));
    assert_true(get_result(s->client, job, 1, "png") >= 0);
    for (unsigned i = 0; i < 200 && exists(s->client, job); i++)
        testbus_process(s->client, 20);
    assert_false(exists(s->client, job));
}

/* --- the bus itself --------------------------------------------------------------------------- */

static void test_bus_restarts(void **state)
{
    struct testbus *s = *state;
    char done[TESTBUS_PATH_SIZE], running[TESTBUS_PATH_SIZE], queued[TESTBUS_PATH_SIZE];
    const char *rounds = getenv("ROUNDS");
    unsigned count = rounds ? (unsigned)strtoul(rounds, NULL, 10) : 3;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    testbus_start_daemon(s, "ready");
    for (unsigned i = 0; i < count; i++) {
        testbus_submit(s->client, "one", done, "a{sv}", 1, "steps", "u", 1);
        testbus_wait_state(s->client, done, "done");
        testbus_submit(s->client, "two", running, "a{sv}", 1, "steps", "u", 30);
        testbus_submit(s->client, "three", queued, "");
        testbus_wait_state(s->client, running, "running");
        testbus_kill_bus(s);
        int status = testbus_stop_daemon(s, 0); /* it ends by itself, and not well: */
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1); /* systemd starts it again */
        sd_bus_close_unref(s->client);
        s->client = NULL;
        testbus_restart_bus(s);
        testbus_start_daemon(s, "busy");
        testbus_wait_state(s->client, queued, "done");
        testbus_wait_state(s->client, running, "done");
        testbus_wait_state(s->client, done, "done");
        assert_true(get_result(s->client, done, 0, "png") >= 0);
    }
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_submitter_leaves),
        BUS_TEST(test_watcher_leaves),
        BUS_TEST(test_last_submitter_counts),
        BUS_TEST(test_leaves_at_once),
        BUS_TEST(test_ephemeral),
        BUS_TEST(test_bus_restarts),
    };

    return cmocka_run_group_tests_name("leave", tests, NULL, NULL);
}
