/* canary: what a user writes (prompt, negative prompt, token) is seen by himself and root alone. A
 * third user listens to all broadcasts and reads all he may; a monitor of root's sees every message
 * on the bus; the log is at debug level. */
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/busxml.h"
#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define USER       5 /* games: the owner */
#define GROUP      60
#define NOBODY     65534
#define CANARY     "c4n4ry"
#define PROPERTIES "org.freedesktop.DBus.Properties"

static bool can_run(void)
{
    if (geteuid() == 0 && getpwuid(USER) && getpwuid(NOBODY))
        return true;
    print_message("becoming users %d and %d needs root and those users\n", USER, NOBODY);
    return false;
}

static bool holds_canary(sd_bus_message *m)
{
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_true(sd_bus_message_rewind(m, true) >= 0);
    assert_true(sd_bus_message_dump(m, out, 0) >= 0);
    assert_int_equal(fclose(out), 0);
    assert_true(sd_bus_message_rewind(m, true) >= 0);
    return memmem(text, size, CANARY, strlen(CANARY)) != NULL;
}

struct ear {
    unsigned messages, leaks;
    const char *owner; /* unique name: may read it */
};

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct ear *ear = userdata;
    const char *to = sd_bus_message_get_destination(m);
    bool is_submit = sd_bus_message_is_method_call(m, TESTBUS_MANAGER, "Submit") > 0;
    bool is_his = ear->owner && to && strcmp(to, ear->owner) == 0;

    (void)error;
    ear->messages++;
    if (!holds_canary(m) || is_submit || is_his)
        return 1;
    ear->leaks++;
    print_error("the canary sings in %s.%s to %s\n", sd_bus_message_get_interface(m),
                sd_bus_message_get_member(m), to ? to : "all");
    return 1;
}

static sd_bus *listen_as(struct testbus *s, uid_t uid, struct ear *ear)
{
    sd_bus *bus = testbus_connect_as(s, uid, uid);

    assert_true(sd_bus_add_filter(bus, NULL, on_message, ear) >= 0);
    assert_true(sd_bus_add_match(bus, NULL, "sender='" TESTBUS_NAME "'", NULL, NULL) >= 0);
    return bus;
}

static sd_bus *monitor(struct testbus *s, struct ear *ear)
{
    sd_bus *bus = NULL;

    assert_true(sd_bus_new(&bus) >= 0 && sd_bus_set_address(bus, s->address) >= 0 &&
                sd_bus_set_bus_client(bus, true) >= 0 && sd_bus_set_monitor(bus, true) >= 0 &&
                sd_bus_start(bus) >= 0);
    assert_true(sd_bus_call_method(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                   "org.freedesktop.DBus.Monitoring", "BecomeMonitor", NULL, NULL,
                                   "asu", 0, 0) >= 0);
    assert_true(sd_bus_add_filter(bus, NULL, on_message, ear) >= 0);
    return bus;
}

/* --- what the owner does ---------------------------------------------------------------------- */

static void submit_in_vain(sd_bus *bus, const char *key, const char *value)
{
    assert_true(sd_bus_call_method(bus, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", NULL,
                                   NULL, "sa{sv}", "a " CANARY, 1, key, "s", value) < 0);
}

static void submit_too_long(sd_bus *bus)
{
    _cleanup_(freep) char *text = calloc(1, 20001);

    for (size_t i = 0; i + sizeof CANARY < 20000; i += sizeof CANARY)
        memcpy(text + i, CANARY " ", sizeof CANARY);
    memset(text + strlen(text), 'x', 20000 - strlen(text));
    assert_true(sd_bus_call_method(bus, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", NULL,
                                   NULL, "sa{sv}", text, 0) < 0);
}

/* Jobs to every end there is, and refusals. */
static void work(struct testbus *s, sd_bus *bus)
{
    char job[TESTBUS_PATH_SIZE];

    submit_in_vain(bus, "scheduler", CANARY);
    submit_in_vain(bus, "steps", CANARY);
    submit_in_vain(bus, "preset", CANARY);
    submit_in_vain(bus, CANARY, CANARY);
    submit_too_long(bus);
    testbus_submit(bus, "a " CANARY, job, "a{sv}", 3, "negative_prompt", "s", "no " CANARY, "token",
                   "s", CANARY, "steps", "u", 3);
    testbus_wait_state(bus, job, "done");
    assert_true(
        sd_bus_call_method(bus, TESTBUS_NAME, job, TESTBUS_JOB, "GetRequest", NULL, NULL, "") >= 0);
    assert_true(sd_bus_call_method(bus, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", NULL, NULL,
                                   "ua{sv}", 0, 0) >= 0);
    testbus_submit(bus, "another " CANARY, job, "a{sv}", 1, "steps", "u", 400);
    testbus_wait_state(bus, job, "running");
    testbus_call(bus, job, TESTBUS_JOB, "Cancel", NULL);
    testbus_wait_state(bus, job, "cancelled");
    testbus_submit(bus, "a third " CANARY, job, "a{sv}", 1, "steps", "u", 400);
    testbus_wait_state(bus, job, "running");
    for (int i = 0; i < 2; i++) { /* the second death ends the job */
        pid_t worker = testbus_find_worker(s, 0);
        assert_int_equal(kill(worker, SIGKILL), 0);
        assert_true(testbus_find_worker(s, worker) > 0);
        testbus_wait_state(bus, job, i == 0 ? "running" : "failed");
    }
    testbus_submit(bus, "a fourth " CANARY, job, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(bus, job, "done");
    testbus_call(bus, job, TESTBUS_JOB, "Delete", NULL);
}

/* --- what the third one reads ----------------------------------------------------------------- */

static void read_it(sd_bus *bus, struct ear *ear, const char *path, const char *interface,
                    const char *member, const char *types, const char *a, const char *b)
{
    sd_bus_message *call = NULL, *reply = NULL;
    sd_bus_error error = SD_BUS_ERROR_NULL;

    assert_true(sd_bus_message_new_method_call(bus, &call, TESTBUS_NAME, path, interface, member) >=
                0);
    if (strcmp(types, "a{sv}") == 0)
        assert_true(sd_bus_message_append(call, types, 0) >= 0);
    else
        assert_true(sd_bus_message_append(call, types, a, b) >= 0);
    if (sd_bus_call(bus, call, 0, &error, &reply) >= 0)
        ear->leaks += holds_canary(reply);
    else
        ear->leaks += strstr(error.message, CANARY) != NULL;
    ear->messages++;
    sd_bus_error_free(&error);
    sd_bus_message_unref(call);
    sd_bus_message_unref(reply);
}

static void read_object(sd_bus *bus, struct ear *ear, const char *path, const struct busxml *xml)
{
    read_it(bus, ear, path, PROPERTIES, "GetAll", "s", TESTBUS_JOB, NULL);
    read_it(bus, ear, path, PROPERTIES, "GetAll", "s", TESTBUS_MANAGER, NULL);
    read_it(bus, ear, path, PROPERTIES, "GetAll", "s", "", NULL);
    read_it(bus, ear, path, "org.freedesktop.DBus.Introspectable", "Introspect", "", NULL, NULL);
    read_it(bus, ear, path, TESTBUS_JOB, "GetRequest", "", NULL, NULL);
    for (size_t i = 0; i < xml->count; i++)
        if (xml->items[i].kind == BUSXML_PROPERTY)
            read_it(bus, ear, path, PROPERTIES, "Get", "ss", xml->items[i].interface,
                    xml->items[i].name);
}

static void read_all(sd_bus *bus, struct ear *ear)
{
    struct busxml xml = {0};
    char path[TESTBUS_PATH_SIZE];

    assert_int_equal(busxml_read("dbus/" TESTBUS_MANAGER ".xml", &xml), 0);
    assert_int_equal(busxml_read("dbus/" TESTBUS_JOB ".xml", &xml), 0);
    read_it(bus, ear, TESTBUS_PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "",
            NULL, NULL);
    read_it(bus, ear, TESTBUS_PATH, TESTBUS_MANAGER, "ListJobs", "a{sv}", NULL, NULL);
    read_object(bus, ear, TESTBUS_PATH, &xml);
    for (unsigned i = 1; i <= 4; i++) {
        (void)snprintf(path, sizeof path, TESTBUS_PATH "/job/%u", i);
        read_object(bus, ear, path, &xml);
    }
    array_done(&xml);
}

static void test_canary(void **state)
{
    struct testbus *s = *state;
    struct ear third = {0}, every = {0}, reader = {0};
    _cleanup_(freep) char *log = NULL;
    char path[512];
    size_t size;

    if (!can_run())
        skip();
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "10", 1);
    testbus_configure(s, "[access]\ngroup = games\n[limits]\ncalls_per_second = 0\n");
    testbus_start_daemon(s, "ready");
    assert_true(sd_bus_set_property(s->client, TESTBUS_NAME, "/org/freedesktop/LogControl1",
                                    "org.freedesktop.LogControl1", "LogLevel", NULL, "s",
                                    "debug") >= 0);
    sd_bus *owner = testbus_connect_as(s, USER, GROUP), *nosy = listen_as(s, NOBODY, &third);
    sd_bus *all = monitor(s, &every);
    assert_true(sd_bus_get_unique_name(owner, &every.owner) >= 0);
    work(s, owner);
    sd_bus *asker = testbus_connect_as(s, NOBODY, NOBODY);
    read_all(asker, &reader);
    testbus_process(nosy, 100);
    testbus_process(all, 300);
    print_message("%u broadcasts, %u answers to a stranger, %u messages in all\n", third.messages,
                  reader.messages, every.messages);
    assert_true(third.messages > 20 && reader.messages > 100 && every.messages > 200);
    assert_int_equal(third.leaks + reader.leaks + every.leaks, 0);
    (void)snprintf(path, sizeof path, "%s/log", s->folder);
    assert_int_equal(file_read(path, 1 << 24, &log, &size, NULL), 0);
    assert_non_null(strstr(log, "job 3:"));
    assert_null(memmem(log, size, CANARY, strlen(CANARY)));
    sd_bus *const clients[] = {owner, nosy, all, asker};
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
        sd_bus_flush_close_unref(clients[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_canary, testbus_setup, testbus_teardown),
    };

    return cmocka_run_group_tests_name("canary", tests, NULL, NULL);
}
