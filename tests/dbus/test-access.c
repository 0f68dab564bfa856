/* Who may: another user sees the public properties of a job and nothing else, and changes nothing.
 * The other user is uid 65534, in a child; needs root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"

#define NOBODY 65534

/* Calls as somebody else, after the fork; the error's name must end in `want`, NULL: no error. */
static int expect(sd_bus *bus, const char *path, const char *interface, const char *member,
                  const char *want, const char *types, ...)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *call = NULL;
    va_list args;

    if (sd_bus_message_new_method_call(bus, &call, TESTBUS_NAME, path, interface, member) < 0)
        return 1;
    va_start(args, types);
    int r = sd_bus_message_appendv(call, types, args);
    va_end(args);
    if (r >= 0)
        r = sd_bus_call(bus, call, 0, &error, NULL);
    bool is_right = want ? r < 0 && error.name && strlen(error.name) > strlen(want) &&
                               strcmp(error.name + strlen(error.name) - strlen(want), want) == 0
                         : r >= 0;
    if (!is_right)
        (void)printf("%s: want %s, got %s (%s)\n", member, want ? want : "no error",
                     error.name ? error.name : "none", error.message ? error.message : "");
    sd_bus_error_free(&error);
    (void)sd_bus_message_unref(call);
    return !is_right;
}

/* How many jobs are listed to the caller; -1 when none may be listed. */
static int count_jobs(sd_bus *bus)
{
    sd_bus_message *reply = NULL;
    int n = -1;

    if (sd_bus_call_method(bus, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "ListJobs", NULL,
                           &reply, "a{sv}", 0) >= 0 &&
        sd_bus_message_enter_container(reply, 'a', "(tosu)") >= 0)
        for (n = 0; sd_bus_message_skip(reply, "(tosu)") > 0 && n < 100;)
            n++;
    (void)sd_bus_message_unref(reply);
    return n;
}

#define PROPERTIES "org.freedesktop.DBus.Properties"

static int look_as_nobody(const char *job, unsigned id)
{
    static const char *const hidden[] = {
        "QueuePosition", "Step",         "Steps",       "Progress", "EtaUsec", "CreatedUsec",
        "StartedUsec",   "FinishedUsec", "ResultCount", "Error",    "Warnings"};
    static const char *const open[] = {"Id", "State", "OwnerUid"};
    sd_bus *bus = NULL;
    int bad = 0;

    if (sd_bus_open_system(&bus) < 0)
        return 100;
    for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
        bad += expect(bus, job, PROPERTIES, "Get", "NotOwner", "ss", TESTBUS_JOB, hidden[i]);
    for (size_t i = 0; i < ARRAY_SIZE(open); i++)
        bad += expect(bus, job, PROPERTIES, "Get", NULL, "ss", TESTBUS_JOB, open[i]);
    bad += expect(bus, job, TESTBUS_JOB, "GetRequest", "NotOwner", "");
    bad += expect(bus, job, TESTBUS_JOB, "Cancel", "NotOwner", "");
    bad += expect(bus, job, TESTBUS_JOB, "Delete", "NotOwner", "");
    bad += expect(bus, job, TESTBUS_JOB, "GetResult", "NotOwner", "ua{sv}", 0, 0);
    bad += expect(bus, job, TESTBUS_JOB, "GetResultPath", "NotOwner", "u", 0);
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Cancel", "NotOwner", "t", (uint64_t)id);
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Watch", "NotOwner", "o", job);
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Unwatch", "NotOwner", "o", job);
    bad += count_jobs(bus) != 0;
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", "AccessDenied", "sa{sv}", "x", 0);
    sd_bus_flush_close_unref(bus);
    return bad;
}

/* A member of the access group: submits, sees its own job, fetches the picture. */
static int work_as_nobody(const char *unused, unsigned id)
{
    sd_bus *bus = NULL;
    char job[TESTBUS_PATH_SIZE];
    int bad = 0;

    (void)unused;
    if (sd_bus_open_system(&bus) < 0)
        return 100;
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", NULL, "sa{sv}", "x", 0);
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "ListJobs", NULL, "a{sv}", 0);
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "ListModels", NULL, "");
    bad += expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "ListDevices", NULL, "");
    (void)snprintf(job, sizeof job, TESTBUS_PATH "/job/%u", id);
    testbus_wait_state(bus, job, "done");
    bad += expect(bus, job, TESTBUS_JOB, "GetRequest", NULL, "");
    bad += expect(bus, job, TESTBUS_JOB, "GetResult", NULL, "ua{sv}", 0, 0);
    bad += expect(bus, job, TESTBUS_JOB, "GetResultPath", "AccessDenied", "u", 0);
    bad += expect(bus, job, TESTBUS_JOB, "Cancel", NULL, "");
    bad += expect(bus, job, TESTBUS_JOB, "Delete", NULL, "");
    sd_bus_flush_close_unref(bus);
    return bad;
}

static void run_as_nobody(int (*function)(const char *, unsigned), const char *job)
{
    int status = 0;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
            _exit(99);
        int bad = function(job, 1);
        (void)fflush(stdout);
        _exit(bad);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_another_user(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    if (geteuid() != 0) {
        (void)printf("becoming another user needs root\n");
        skip();
    }
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "50", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 10);
    testbus_wait_state(s->client, job, "running");
    run_as_nobody(look_as_nobody, job); /* a job under way … */
    testbus_wait_state(s->client, job, "done");
    run_as_nobody(look_as_nobody, job); /* … and a finished one */
}

static void test_member_of_the_group(void **state)
{
    struct testbus *s = *state;

    if (geteuid() != 0 || !getgrnam("nogroup")) {
        (void)printf("becoming a member of nogroup needs root and that group\n");
        skip();
    }
    testbus_configure(s, "[access]\ngroup = nogroup\n");
    testbus_start_daemon(s, "ready");
    run_as_nobody(work_as_nobody, NULL);
}

static int submit_in_vain(const char *unused, unsigned id)
{
    sd_bus *bus = NULL;

    (void)unused, (void)id;
    if (sd_bus_open_system(&bus) < 0)
        return 100;
    int bad =
        expect(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", "AccessDenied", "sa{sv}", "x", 0);
    sd_bus_flush_close_unref(bus);
    return bad;
}

/* A group that does not exist, and one without this user: nobody but root. */
static void test_no_group(void **state)
{
    static const char *const lines[] = {"[access]\ngroup = no-such-group-here\n",
                                        "[access]\ngroup = root\n", "[access]\ngroup =\n"};
    struct testbus *s = *state;

    if (geteuid() != 0) {
        (void)printf("becoming another user needs root\n");
        skip();
    }
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        testbus_configure(s, lines[i]); /* the last one counts */
        testbus_start_daemon(s, "ready");
        run_as_nobody(submit_in_vain, NULL);
        (void)testbus_stop_daemon(s, SIGTERM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_another_user, testbus_setup, testbus_teardown),
        cmocka_unit_test_setup_teardown(test_no_group, testbus_setup, testbus_teardown),
        cmocka_unit_test_setup_teardown(test_member_of_the_group, testbus_setup, testbus_teardown),
    };

    return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
