/* matrix: every method and every property of the shipped XML, on every kind of object, as every
 * kind of user, on connections the daemon knows and on such it hears for the first time. What is
 * expected is in the small tables below; a member without a row there is a failure. Needs root. */
#include <inttypes.h>
#include <pwd.h>
#include <setjmp.h>
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

#define PROPERTIES "org.freedesktop.DBus.Properties"
#define LOG_PATH   "/org/freedesktop/LogControl1"
#define LOG        "org.freedesktop.LogControl1"
#define GROUP      60 /* games, the access group of these tests */

enum caller { OWNER, MEMBER, STRANGER, ROOT, CALLERS };

static const struct {
    const char *name;
    uid_t uid;
    gid_t gid;
} callers[CALLERS] = {
    [OWNER] = {"owner", 5, GROUP},                /* games */
    [MEMBER] = {"member of the group", 6, GROUP}, /* man */
    [STRANGER] = {"stranger", 65534, 65534},      /* nobody */
    [ROOT] = {"root", 0, 0},
};

enum object { MANAGER, DONE, WAITING, MISSING, LOGCONTROL, OBJECTS };

static const char *const object_names[OBJECTS] = {"manager", "done job", "waiting job",
                                                  "missing job", "log control"};

#define OK      NULL
#define DENIED  "org.freedesktop.DBus.Error.AccessDenied"
#define FIXED   "org.freedesktop.DBus.Error.PropertyReadOnly"
#define FOREIGN TESTBUS_ERROR "NotOwner"
#define EARLY   TESTBUS_ERROR "NotReady"
#define NONE    TESTBUS_ERROR "NotFound"

/* A method on an object, and what each caller gets. */
static const struct rule {
    enum object object;
    const char *member, *want[CALLERS];
} method_rules[] = {
    {MANAGER, "Submit", {OK, OK, DENIED, OK}},
    {MANAGER, "Cancel", {OK, FOREIGN, FOREIGN, OK}},
    {MANAGER, "ListJobs", {OK, OK, OK, OK}},
    {MANAGER, "ListModels", {OK, OK, OK, OK}},
    {MANAGER, "ListDevices", {OK, OK, OK, OK}},
    {MANAGER, "Watch", {OK, FOREIGN, FOREIGN, OK}},
    {MANAGER, "Unwatch", {OK, FOREIGN, FOREIGN, OK}},
    {MANAGER, "Pause", {DENIED, DENIED, DENIED, OK}},
    {MANAGER, "Resume", {DENIED, DENIED, DENIED, OK}},
    {MANAGER, "Reload", {DENIED, DENIED, DENIED, OK}},
    {MANAGER, "LoadModel", {DENIED, DENIED, DENIED, NONE}}, /* there is no model x */
    {MANAGER, "UnloadModel", {DENIED, DENIED, DENIED, OK}},
    {DONE, "GetRequest", {OK, FOREIGN, FOREIGN, OK}},
    {DONE, "Cancel", {OK, FOREIGN, FOREIGN, OK}},
    {DONE, "GetResult", {OK, FOREIGN, FOREIGN, OK}},
    {DONE, "GetResultPath", {DENIED, FOREIGN, FOREIGN, OK}},
    {DONE, "GetPreview", {NONE, FOREIGN, FOREIGN, NONE}},
    {DONE, "Delete", {OK, FOREIGN, FOREIGN, OK}},
    {WAITING, "GetRequest", {OK, FOREIGN, FOREIGN, OK}},
    {WAITING, "Cancel", {OK, FOREIGN, FOREIGN, OK}},
    {WAITING, "GetResult", {EARLY, FOREIGN, FOREIGN, EARLY}},
    {WAITING, "GetResultPath", {DENIED, FOREIGN, FOREIGN, EARLY}},
    {WAITING, "GetPreview", {NONE, FOREIGN, FOREIGN, NONE}}, /* preview_steps is 0 */
    {WAITING, "Delete", {EARLY, FOREIGN, FOREIGN, EARLY}},
    {MISSING, "GetRequest", {NONE, NONE, NONE, NONE}},
    {MISSING, "Cancel", {NONE, NONE, NONE, NONE}},
    {MISSING, "GetResult", {NONE, NONE, NONE, NONE}},
    {MISSING, "GetResultPath", {NONE, NONE, NONE, NONE}},
    {MISSING, "GetPreview", {NONE, NONE, NONE, NONE}},
    {MISSING, "Delete", {NONE, NONE, NONE, NONE}},
};

/* Properties: by object; those named here are everybody's. */
static const char *const public_job_properties[] = {"Id", "State", "OwnerUid"};

struct world {
    struct testbus *bus;
    sd_bus *warm[CALLERS];
    char done[8][TESTBUS_PATH_SIZE], waiting[TESTBUS_PATH_SIZE];
    size_t done_at;
    struct busxml xml;
    unsigned cells, bad;
};

/* --- objects ---------------------------------------------------------------------------------- */

static bool is_in_state(const struct world *w, const char *job, const char *state)
{
    char *now = NULL;

    bool is = sd_bus_get_property_string(w->warm[ROOT], TESTBUS_NAME, job, TESTBUS_JOB, "State",
                                         NULL, &now) >= 0 &&
              strcmp(now, state) == 0;
    free(now);
    return is;
}

/* A job of the owner's in that state; a new one where the last test used it up. */
static const char *path_of(struct world *w, enum object object)
{
    switch (object) {
    case MANAGER:
        return TESTBUS_PATH;
    case LOGCONTROL:
        return LOG_PATH;
    case DONE:
        while (!is_in_state(w, w->done[w->done_at], "done"))
            assert_true(++w->done_at < sizeof w->done / sizeof *w->done);
        return w->done[w->done_at];
    case WAITING:
        if (!is_in_state(w, w->waiting, "queued"))
            testbus_submit(w->warm[OWNER], "waits", w->waiting, "");
        return w->waiting;
    default:
        return TESTBUS_PATH "/job/999999";
    }
}

static uint64_t id_of(const char *job)
{
    return strtoull(strrchr(job, '/') + 1, NULL, 10);
}

/* --- calls ------------------------------------------------------------------------------------ */

/* Something legal for each type; ids and paths are the waiting job's. */
static void append_arguments(struct world *w, sd_bus_message *call, const char *types)
{
    const char *job = path_of(w, WAITING);
    int r = 0;

    for (const char *p = types; *p; p++) {
        if (strncmp(p, "a{sv}", 5) == 0) {
            r = sd_bus_message_append(call, "a{sv}", 0);
            p += 4;
        } else if (*p == 's') {
            r = sd_bus_message_append(call, "s", "x");
        } else if (*p == 'o') {
            r = sd_bus_message_append(call, "o", job);
        } else if (*p == 't') {
            r = sd_bus_message_append(call, "t", id_of(job));
        } else {
            assert_int_equal(*p, 'u');
            r = sd_bus_message_append(call, "u", 0);
        }
        assert_true(r >= 0);
    }
}

static sd_bus *take_connection(struct world *w, enum caller caller, bool is_cold)
{
    if (!is_cold)
        return sd_bus_ref(w->warm[caller]);
    return testbus_connect_as(w->bus, callers[caller].uid, callers[caller].gid);
}

/* Sends the call and compares. `what` for the message. */
static void judge(struct world *w, sd_bus *bus, sd_bus_message *call, const char *want,
                  const char *what, bool is_cold)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *reply = NULL;

    int r = sd_bus_call(bus, call, 0, &error, &reply);
    bool is_right = want ? r < 0 && error.name && strcmp(error.name, want) == 0 : r >= 0;
    w->cells++;
    w->bad += !is_right;
    if (!is_right)
        print_error("%s: want %s, got %s (%s)\n", what, want ? want : "success",
                    r < 0 && error.name ? error.name : "success",
                    error.message ? error.message : "");
    sd_bus_error_free(&error);
    sd_bus_message_unref(call);
    sd_bus_message_unref(reply);
    if (is_cold)
        sd_bus_flush_close_unref(bus);
    else
        sd_bus_unref(bus);
}

static const struct rule *find_rule(enum object object, const char *member)
{
    for (size_t i = 0; i < ARRAY_SIZE(method_rules); i++)
        if (method_rules[i].object == object && strcmp(method_rules[i].member, member) == 0)
            return &method_rules[i];
    fail_msg("no rule for %s of a %s: add one", member, object_names[object]);
    return NULL;
}

static void try_method(struct world *w, const struct busxml_member *m, enum object object,
                       enum caller caller, bool is_cold)
{
    const struct rule *rule = find_rule(object, m->name);
    sd_bus_message *call = NULL;
    char what[160];

    (void)snprintf(what, sizeof what, "%s of the %s as %s%s", m->name, object_names[object],
                   callers[caller].name, is_cold ? ", first call" : "");
    sd_bus *bus = take_connection(w, caller, is_cold);
    assert_true(sd_bus_message_new_method_call(bus, &call, TESTBUS_NAME, path_of(w, object),
                                               m->interface, m->name) >= 0);
    append_arguments(w, call, m->in);
    judge(w, bus, call, rule->want[caller], what, is_cold);
}

/* --- properties ------------------------------------------------------------------------------- */

static const char *want_get(const struct busxml_member *m, enum object object, enum caller caller)
{
    if (object == MISSING)
        return NONE;
    if (object == MANAGER || object == LOGCONTROL || caller == OWNER || caller == ROOT)
        return OK;
    for (size_t i = 0; i < ARRAY_SIZE(public_job_properties); i++)
        if (strcmp(public_job_properties[i], m->name) == 0)
            return OK;
    return FOREIGN;
}

static void try_property(struct world *w, const struct busxml_member *m, enum object object,
                         enum caller caller, bool is_cold)
{
    sd_bus_message *call = NULL;
    char what[160];

    (void)snprintf(what, sizeof what, "Get %s of the %s as %s%s", m->name, object_names[object],
                   callers[caller].name, is_cold ? ", first call" : "");
    sd_bus *bus = take_connection(w, caller, is_cold);
    assert_true(sd_bus_message_new_method_call(bus, &call, TESTBUS_NAME, path_of(w, object),
                                               PROPERTIES, "Get") >= 0);
    assert_true(sd_bus_message_append(call, "ss", m->interface, m->name) >= 0);
    judge(w, bus, call, want_get(m, object, caller), what, is_cold);
    if (object == MISSING)
        return;

    bool is_writable = strcmp(m->access, "readwrite") == 0;
    const char *want = !is_writable ? FIXED : caller == ROOT ? OK : DENIED;
    (void)snprintf(what, sizeof what, "Set %s of the %s as %s%s", m->name, object_names[object],
                   callers[caller].name, is_cold ? ", first call" : "");
    bus = take_connection(w, caller, is_cold);
    assert_true(sd_bus_message_new_method_call(bus, &call, TESTBUS_NAME, path_of(w, object),
                                               PROPERTIES, "Set") >= 0);
    assert_true(sd_bus_message_append(call, "ssv", m->interface, m->name, "s", "info") >= 0);
    judge(w, bus, call, want, what, is_cold);
}

/* --- all of it -------------------------------------------------------------------------------- */

static void read_live(struct world *w, const char *path)
{
    sd_bus_message *reply = NULL;
    const char *text;

    assert_true(sd_bus_call_method(w->warm[ROOT], TESTBUS_NAME, path,
                                   "org.freedesktop.DBus.Introspectable", "Introspect", NULL,
                                   &reply, "") >= 0);
    assert_true(sd_bus_message_read(reply, "s", &text) >= 0);
    assert_int_equal(busxml_parse(text, &w->xml), 0);
    sd_bus_message_unref(reply);
}

static void read_members(struct world *w)
{
    assert_int_equal(busxml_read("dbus/" TESTBUS_MANAGER ".xml", &w->xml), 0);
    assert_int_equal(busxml_read("dbus/" TESTBUS_JOB ".xml", &w->xml), 0);
    read_live(w, LOG_PATH); /* systemd ships that interface's file */
    assert_true(w->xml.count > 40);
}

static void build_world(struct world *w)
{
    char busy[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    testbus_configure(w->bus, "[access]\ngroup = games\n");
    testbus_start_daemon(w->bus, "ready");
    for (enum caller c = 0; c < CALLERS; c++)
        w->warm[c] = testbus_connect_as(w->bus, callers[c].uid, callers[c].gid);
    for (size_t i = 0; i < sizeof w->done / sizeof *w->done; i++)
        testbus_submit(w->warm[OWNER], "done", w->done[i], "a{sv}", 1, "steps", "u", 1);
    for (size_t i = 0; i < sizeof w->done / sizeof *w->done; i++)
        testbus_wait_state(w->warm[OWNER], w->done[i], "done");
    testbus_submit(w->warm[OWNER], "keeps the worker busy", busy, "a{sv}", 2, "steps", "u", 500,
                   "count", "u", 16);
    testbus_wait_state(w->warm[OWNER], busy, "running");
    testbus_submit(w->warm[OWNER], "waits", w->waiting, "");
}

static bool belongs(const struct busxml_member *m, enum object object)
{
    const char *interface = object == MANAGER      ? TESTBUS_MANAGER
                            : object == LOGCONTROL ? LOG
                                                   : TESTBUS_JOB;
    return strcmp(m->interface, interface) == 0;
}

static void try_member(struct world *w, const struct busxml_member *m, bool is_cold)
{
    for (enum object o = 0; o < OBJECTS; o++)
        for (enum caller c = 0; c < CALLERS && belongs(m, o); c++)
            if (m->kind == BUSXML_METHOD)
                try_method(w, m, o, c, is_cold);
            else if (m->kind == BUSXML_PROPERTY)
                try_property(w, m, o, c, is_cold);
}

static bool can_run(void)
{
    for (enum caller c = 0; c < CALLERS; c++)
        if (geteuid() != 0 || !getpwuid(callers[c].uid)) {
            print_message("becoming user %d needs root and that user\n", (int)callers[c].uid);
            return false;
        }
    return true;
}

static void test_matrix(void **state)
{
    struct world w = {.bus = *state};

    if (!can_run())
        skip();
    build_world(&w);
    read_members(&w);
    for (int is_cold = 0; is_cold < 2; is_cold++)
        for (size_t i = 0; i < w.xml.count; i++)
            try_member(&w, &w.xml.items[i], is_cold != 0);
    print_message("%u cells of %zu members\n", w.cells, w.xml.count);
    for (enum caller c = 0; c < CALLERS; c++)
        sd_bus_flush_close_unref(w.warm[c]);
    array_done(&w.xml);
    assert_true(w.cells > 500);
    assert_int_equal(w.bad, 0);
}

/* Everybody is listed his own; root all. */
static void test_lists(void **state)
{
    struct world w = {.bus = *state};
    const char *path, *job_state;
    uint64_t id;
    uint32_t uid;

    if (!can_run())
        skip();
    build_world(&w);
    testbus_submit(w.warm[MEMBER], "mine", w.waiting, "");
    for (enum caller c = 0; c < CALLERS; c++) {
        sd_bus_message *reply = NULL;
        unsigned n = 0;
        assert_true(sd_bus_call_method(w.warm[c], TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                       "ListJobs", NULL, &reply, "a{sv}", 0) >= 0);
        assert_true(sd_bus_message_enter_container(reply, 'a', "(tosu)") >= 0);
        for (; sd_bus_message_read(reply, "(tosu)", &id, &path, &job_state, &uid) > 0; n++)
            assert_true(c == ROOT || uid == callers[c].uid);
        assert_int_equal(n, c == OWNER ? 10 : c == MEMBER ? 1 : c == STRANGER ? 0 : 11);
        sd_bus_message_unref(reply);
        sd_bus_flush_close_unref(w.warm[c]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_matrix, testbus_setup, testbus_teardown),
        cmocka_unit_test_setup_teardown(test_lists, testbus_setup, testbus_teardown),
    };

    return cmocka_run_group_tests_name("matrix", tests, NULL, NULL);
}
