/* keeper: the verbs of the machine's keeper: pause, resume, reload, log level, sleep; who may
 * use them, with a polkit of our own on the bus; and calls that come in before it is known who
 * calls. */
#include <errno.h>
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

#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define USER     5 /* games */
#define GROUP    60
#define POLKIT   "org.freedesktop.PolicyKit1"
#define LOG_PATH "/org/freedesktop/LogControl1"
#define LOG      "org.freedesktop.LogControl1"
#define DENIED   "org.freedesktop.DBus.Error.AccessDenied"

static bool can_run(void)
{
    if (geteuid() == 0 && getpwuid(USER))
        return true;
    print_message("becoming user %d needs root and that user\n", USER);
    return false;
}

/* Fails unless the call's error has this name (NULL: none) and its text this part. */
static void expect(sd_bus *bus, const char *member, const char *want, const char *part)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    int r = sd_bus_call_method(bus, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, member, &error,
                               NULL, "");
    if ((want == NULL) != (r >= 0) || (want && strcmp(error.name, want) != 0))
        fail_msg("%s: want %s, got %s (%s)", member, want ? want : "success",
                 error.name ? error.name : "success", error.message ? error.message : "");
    if (want && !strstr(error.message, part))
        fail_msg("%s: \"%s\" says nothing of \"%s\"", member, error.message, part);
    sd_bus_error_free(&error);
}

/* --- pause, resume, reload -------------------------------------------------------------------- */

static void test_pause_and_resume(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    testbus_start_daemon(s, "ready");
    expect(s->client, "Pause", NULL, "");
    testbus_wait_state(s->client, TESTBUS_PATH, "paused");
    testbus_submit(s->client, "x", job, "");
    testbus_process(s->client, 300);
    testbus_wait_state(s->client, job, "queued"); /* taken in, not started */
    expect(s->client, "Pause", NULL, "");         /* twice is once */
    expect(s->client, "Resume", NULL, "");
    testbus_wait_state(s->client, job, "done");
    testbus_wait_state(s->client, TESTBUS_PATH, "ready");
}

struct changes {
    bool limit, options;
};

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct changes *changes = userdata;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)error;
    assert_true(sd_bus_message_dump(m, out, 0) >= 0);
    assert_int_equal(fclose(out), 0);
    changes->limit |= strstr(text, "QueueLimit") != NULL;
    changes->options |= strstr(text, "Options") != NULL;
    free(text);
    return 0;
}

static void test_reload(void **state)
{
    struct testbus *s = *state;
    struct changes changes = {0};
    uint32_t limit;

    testbus_start_daemon(s, "ready");
    assert_true(sd_bus_match_signal(s->client, NULL, TESTBUS_NAME, TESTBUS_PATH,
                                    "org.freedesktop.DBus.Properties", "PropertiesChanged",
                                    on_changed, &changes) >= 0);
    testbus_configure(s, "[limits]\nqueue = 7\n");
    expect(s->client, "Reload", NULL, "");
    testbus_get_number(s->client, TESTBUS_PATH, "QueueLimit", 'u', &limit);
    assert_int_equal(limit, 7);
    testbus_process(s->client, 100);
    assert_true(changes.limit && changes.options);
    testbus_configure(s, "[limits]\nqueue = none\n");
    expect(s->client, "Reload", TESTBUS_ERROR "InvalidArgument", "diffused.conf:");
    testbus_get_number(s->client, TESTBUS_PATH, "QueueLimit", 'u', &limit);
    assert_int_equal(limit, 7); /* the old one stays */
}

static void test_counters(void **state)
{
    struct testbus *s = *state;
    sd_bus_message *reply = NULL;
    char job[TESTBUS_PATH_SIZE];
    const char *name;
    uint64_t value, sum = 0;
    unsigned n = 0;

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "");
    testbus_wait_state(s->client, job, "done");
    assert_true(sd_bus_get_property(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                    "Counters", NULL, &reply, "a{st}") >= 0);
    assert_true(sd_bus_message_enter_container(reply, 'a', "{st}") >= 0);
    for (; sd_bus_message_read(reply, "{st}", &name, &value) > 0; n++)
        sum += value;
    sd_bus_message_unref(reply);
    assert_true(n > 3);
    assert_true(sum >= 2); /* taken in, done */
}

/* --- the log ---------------------------------------------------------------------------------- */

static int set_level(sd_bus *bus, const char *level, sd_bus_error *error)
{
    return sd_bus_set_property(bus, TESTBUS_NAME, LOG_PATH, LOG, "LogLevel", error, "s", level);
}

static void assert_log_text(sd_bus *bus, const char *property, const char *want)
{
    char *text = testbus_get_text(bus, LOG_PATH, LOG, property);

    assert_string_equal(text, want);
    free(text);
}

static void test_log_level(void **state)
{
    struct testbus *s = *state;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char job[TESTBUS_PATH_SIZE], path[512];
    _cleanup_(freep) char *log = NULL;
    size_t size;

    testbus_start_daemon(s, "ready");
    assert_log_text(s->client, "LogLevel", "info");
    assert_log_text(s->client, "LogTarget", "console");
    assert_log_text(s->client, "SyslogIdentifier", "diffused");
    assert_true(set_level(s->client, "err", NULL) >= 0);
    assert_log_text(s->client, "LogLevel", "err");
    testbus_submit(s->client, "x", job, "");
    testbus_wait_state(s->client, job, "done");
    assert_true(set_level(s->client, "loud", &error) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "InvalidArgument");
    sd_bus_error_free(&error);
    assert_true(set_level(s->client, "debug", NULL) >= 0);
    assert_log_text(s->client, "LogLevel", "debug");
    testbus_submit(s->client, "x", job, "");
    testbus_wait_state(s->client, job, "done");
    (void)snprintf(path, sizeof path, "%s/log", s->folder);
    assert_int_equal(file_read(path, 1 << 20, &log, &size, NULL), 0);
    assert_null(strstr(log, "job 1:"));
    assert_non_null(strstr(log, "job 2:"));
}

/* --- polkit ----------------------------------------------------------------------------------- */

struct polkit {
    sd_bus *bus;
    enum { SAY_YES, SAY_NO, WOULD_ASK, SAY_NOTHING } verdict;
    unsigned asked;
    char subject[64], action[64];
    uint32_t flags;
    sd_bus_message *kept; /* not answered yet */
};

static int on_check(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct polkit *p = userdata;
    const char *kind, *key, *name, *action;

    (void)error;
    assert_true(sd_bus_message_enter_container(m, 'r', "sa{sv}") > 0);
    assert_true(sd_bus_message_read(m, "s", &kind) > 0);
    assert_string_equal(kind, "system-bus-name");
    assert_true(sd_bus_message_read(m, "a{sv}", 1, &key, "s", &name) > 0);
    assert_string_equal(key, "name");
    assert_true(sd_bus_message_exit_container(m) >= 0);
    assert_true(sd_bus_message_read(m, "s", &action) > 0);
    assert_true(sd_bus_message_skip(m, "a{ss}") >= 0);
    assert_true(sd_bus_message_read(m, "u", &p->flags) > 0);
    (void)snprintf(p->subject, sizeof p->subject, "%s", name);
    (void)snprintf(p->action, sizeof p->action, "%s", action);
    p->asked++;
    if (p->verdict == SAY_NOTHING) {
        sd_bus_message_unref(p->kept); /* the last one is enough */
        p->kept = sd_bus_message_ref(m);
        return 1;
    }
    return sd_bus_reply_method_return(m, "(bba{ss})", p->verdict == SAY_YES,
                                      p->verdict == WOULD_ASK, 0);
}

static const sd_bus_vtable polkit_vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("CheckAuthorization", "(sa{sv})sa{ss}us", "(bba{ss})", on_check,
                  SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_VTABLE_END,
};

static void start_polkit(struct testbus *s, struct polkit *p)
{
    p->bus = testbus_connect(s);
    assert_true(sd_bus_add_object_vtable(p->bus, NULL, "/org/freedesktop/PolicyKit1/Authority",
                                         POLKIT ".Authority", polkit_vtable, p) >= 0);
    assert_true(sd_bus_request_name(p->bus, POLKIT, 0) >= 0);
}

struct answer {
    bool is_there;
    char name[96];
};

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct answer *answer = userdata;
    const sd_bus_error *e = sd_bus_message_get_error(m);

    (void)error;
    answer->is_there = true;
    (void)snprintf(answer->name, sizeof answer->name, "%s", e ? e->name : "");
    return 0;
}

static void call_async(sd_bus *bus, const char *member, bool may_ask, struct answer *answer)
{
    sd_bus_message *m = NULL;

    assert_true(sd_bus_message_new_method_call(bus, &m, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                               member) >= 0);
    assert_true(sd_bus_message_set_allow_interactive_authorization(m, may_ask) >= 0);
    assert_true(sd_bus_call_async(bus, NULL, m, on_answer, answer, 0) >= 0);
    sd_bus_message_unref(m);
}

/* Both sides, until the answer is there or the time is over. */
static void turn(struct polkit *p, sd_bus *bus, const struct answer *answer, unsigned msec)
{
    for (unsigned gone = 0; gone < msec && !answer->is_there; gone += 10) {
        testbus_process(bus, 5);
        testbus_process(p->bus, 5);
    }
}

static void test_polkit(void **state)
{
    static const char *const wants[] = {[SAY_YES] = "", [SAY_NO] = DENIED, [WOULD_ASK] = DENIED};
    struct testbus *s = *state;
    struct polkit p = {0};
    const char *name;

    if (!can_run())
        skip();
    testbus_start_daemon(s, "ready");
    sd_bus *bus = testbus_connect_as(s, USER, GROUP);
    expect(bus, "Pause", DENIED, "only root");
    start_polkit(s, &p);
    for (unsigned i = SAY_YES; i <= WOULD_ASK; i++) {
        struct answer answer = {0};
        p.verdict = i;
        call_async(bus, "Pause", i == SAY_YES, &answer);
        turn(&p, bus, &answer, TESTBUS_PATIENCE);
        assert_true(answer.is_there);
        assert_string_equal(answer.name, wants[i]);
        assert_int_equal(p.flags, i == SAY_YES ? 1 : 0);
        testbus_wait_state(s->client, TESTBUS_PATH, i == SAY_YES ? "paused" : "ready");
        expect(s->client, "Resume", NULL, ""); /* root is not asked about */
        testbus_wait_state(s->client, TESTBUS_PATH, "ready");
    }
    assert_int_equal(p.asked, 3);
    assert_true(sd_bus_get_unique_name(bus, &name) >= 0);
    assert_string_equal(p.subject, name);
    assert_string_equal(p.action, "org.diffused.Diffused1.pause");
    sd_bus_flush_close_unref(bus);
    sd_bus_flush_close_unref(p.bus);
}

/* While polkit thinks the daemon goes on; who left meanwhile gets nothing done. */
static void test_silent_polkit(void **state)
{
    struct testbus *s = *state;
    struct polkit p = {.verdict = SAY_NOTHING};
    struct answer answers[3] = {0};

    if (!can_run())
        skip();
    testbus_start_daemon(s, "ready");
    start_polkit(s, &p);
    sd_bus *bus = testbus_connect_as(s, USER, GROUP);
    for (unsigned i = 0; i < 3; i++)
        call_async(bus, "Pause", false, &answers[i]);
    turn(&p, bus, &answers[2], TESTBUS_PATIENCE);
    assert_string_equal(answers[2].name, TESTBUS_ERROR "QuotaExceeded"); /* two wait already */
    assert_false(answers[0].is_there || answers[1].is_there);
    testbus_wait_state(s->client, TESTBUS_PATH, "ready");
    assert_non_null(p.kept);
    sd_bus_close_unref(bus);
    testbus_process(s->client, 100);
    assert_true(sd_bus_reply_method_return(p.kept, "(bba{ss})", 1, 0, 0) >= 0); /* too late */
    testbus_process(p.bus, 200);
    testbus_wait_state(s->client, TESTBUS_PATH, "ready");
    sd_bus_message_unref(p.kept);
    sd_bus_flush_close_unref(p.bus);
}

/* --- sleep ------------------------------------------------------------------------------------ */

static void send_sleep(sd_bus *bus, const char *destination, int is_sleeping)
{
    sd_bus_message *m = NULL;

    assert_true(sd_bus_message_new_signal(bus, &m, "/org/freedesktop/login1",
                                          "org.freedesktop.login1.Manager",
                                          "PrepareForSleep") >= 0);
    if (destination)
        assert_true(sd_bus_message_set_destination(m, destination) >= 0);
    assert_true(sd_bus_message_append(m, "b", is_sleeping) >= 0);
    assert_true(sd_bus_send(bus, m, NULL) >= 0 && sd_bus_flush(bus) >= 0);
    sd_bus_message_unref(m);
}

/* The job gets on with its steps. */
static bool is_getting_on(struct testbus *s, const char *job)
{
    uint32_t before, after;

    testbus_process(s->client, 300); /* a step under way ends */
    testbus_get_number(s->client, job, "Step", 'u', &before);
    testbus_process(s->client, 300);
    testbus_get_number(s->client, job, "Step", 'u', &after);
    return after != before;
}

static void test_sleep(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    if (!can_run())
        skip();
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    testbus_start_daemon(s, "ready");
    sd_bus *login = testbus_connect(s), *forger = testbus_connect_as(s, USER, GROUP);
    assert_true(sd_bus_request_name(login, "org.freedesktop.login1", 0) >= 0);
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 500);
    testbus_wait_state(s->client, job, "running");
    send_sleep(forger, TESTBUS_NAME, 1); /* to us alone: nobody checked whose it is */
    send_sleep(forger, NULL, 1);         /* to all: not from login1 */
    assert_true(is_getting_on(s, job));
    send_sleep(login, NULL, 1);
    assert_false(is_getting_on(s, job));
    send_sleep(login, NULL, 0);
    assert_true(is_getting_on(s, job));
    sd_bus_flush_close_unref(login);
    sd_bus_flush_close_unref(forger);
}

/* --- first calls ------------------------------------------------------------------------------ */

static void queue_call(sd_bus *bus, struct answer *answer, const char *path, const char *interface,
                       const char *member, const char *types, ...)
{
    sd_bus_message *m = NULL;
    va_list args;

    assert_true(sd_bus_message_new_method_call(bus, &m, TESTBUS_NAME, path, interface, member) >=
                0);
    va_start(args, types);
    if (*types)
        assert_true(sd_bus_message_appendv(m, types, args) >= 0);
    va_end(args);
    assert_true(sd_bus_call_async(bus, NULL, m, on_answer, answer, 0) >= 0);
    sd_bus_message_unref(m);
}

/* All sent at once by somebody never heard before: they wait, and are carried out in their
 * order. */
static void test_first_calls_in_a_row(void **state)
{
    static const char *const wants[] = {
        "",
        "",
        "",
        "",
        "org.freedesktop.DBus.Error.UnknownMethod",
        "org.freedesktop.DBus.Error.InvalidArgs",
        "org.freedesktop.DBus.Error.UnknownObject",
        "org.freedesktop.DBus.Error.UnknownMethod",
        TESTBUS_ERROR "NotFound",
        DENIED,
        "org.freedesktop.DBus.Error.PropertyReadOnly",
        "",
    };
    struct testbus *s = *state;
    struct answer answers[ARRAY_SIZE(wants)] = {0}, *a = answers;
    const char *job = TESTBUS_PATH "/job/1", *properties = "org.freedesktop.DBus.Properties";

    if (!can_run())
        skip();
    testbus_configure(s, "[access]\ngroup = games\n");
    testbus_start_daemon(s, "ready");
    expect(s->client, "Pause", NULL, "");
    sd_bus *bus = testbus_connect_as(s, USER, GROUP);
    queue_call(bus, a++, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", "sa{sv}", "x", 0);
    queue_call(bus, a++, TESTBUS_PATH, NULL, "ListJobs", "a{sv}", 0);
    queue_call(bus, a++, TESTBUS_PATH, TESTBUS_MANAGER, "ListModels", "");
    queue_call(bus, a++, TESTBUS_PATH, "org.freedesktop.DBus.Peer", "Ping", "");
    queue_call(bus, a++, TESTBUS_PATH, TESTBUS_MANAGER, "Explode", "");
    queue_call(bus, a++, TESTBUS_PATH, TESTBUS_MANAGER, "Cancel", "s", "1");
    queue_call(bus, a++, "/somewhere", TESTBUS_MANAGER, "ListModels", "");
    queue_call(bus, a++, TESTBUS_PATH, TESTBUS_JOB, "Delete", "");
    queue_call(bus, a++, TESTBUS_PATH "/job/77", TESTBUS_JOB, "Delete", "");
    queue_call(bus, a++, LOG_PATH, properties, "Set", "ssv", LOG, "LogLevel", "s", "debug");
    queue_call(bus, a++, TESTBUS_PATH, properties, "Set", "ssv", TESTBUS_MANAGER, "State", "s", "");
    queue_call(bus, a++, TESTBUS_PATH, properties, "Get", "ss", TESTBUS_MANAGER, "State");
    for (unsigned waited = 0; !answers[0].is_there && waited < TESTBUS_PATIENCE; waited += 20)
        testbus_process(bus, 20);
    testbus_process(bus, 200);
    for (size_t i = 0; i < ARRAY_SIZE(wants); i++) {
        assert_true(answers[i].is_there);
        assert_string_equal(answers[i].name, wants[i]);
    }
    testbus_wait_state(bus, job, "queued");
    assert_log_text(s->client, "LogLevel", "info");
    sd_bus_flush_close_unref(bus);
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_pause_and_resume),
        BUS_TEST(test_reload),
        BUS_TEST(test_counters),
        BUS_TEST(test_log_level),
        BUS_TEST(test_polkit),
        BUS_TEST(test_silent_polkit),
        BUS_TEST(test_sleep),
        BUS_TEST(test_first_calls_in_a_row),
    };

    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
