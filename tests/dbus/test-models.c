/* models — several of them, one in the worker: which one a job gets, when it is switched, and what
 * happens when one cannot be loaded. The fake engine's models are as their directories are
 * called. */
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

#define DENIED "org.freedesktop.DBus.Error.AccessDenied"

/* [model] is plain (64 x 64), [model wide] another (128 x 64), and so on. */
static void configure(struct testbus *s)
{
    char lines[1024];

    (void)snprintf(lines, sizeof lines,
                   "[model]\npath = %s/plain\n[model wide]\npath = %s/wide\n"
                   "[model guard]\npath = %s/safe\n[model broken]\npath = %s/bad\n"
                   "[model large]\npath = %s/huge\n[model strange]\npath = %s/odd\n"
                   "[model killer]\npath = %s/deadly\n",
                   s->folder, s->folder, s->folder, s->folder, s->folder, s->folder, s->folder);
    testbus_configure(s, lines);
    (void)setenv("DIFFUSED_FAKE_TELL", "1", 1);
}

/* The fact of a model of ListModels, "" when there is none; type s. */
static void get_fact(sd_bus *client, const char *model, const char *fact, char ret[256])
{
    sd_bus_message *m = NULL;
    const char *name, *key, *contents, *text;

    ret[0] = '\0';
    assert_true(sd_bus_call_method(client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                   "ListModels", NULL, &m, "") >= 0);
    assert_true(sd_bus_message_enter_container(m, 'a', "{sa{sv}}") >= 0);
    while (sd_bus_message_enter_container(m, 'e', "sa{sv}") > 0) {
        assert_true(sd_bus_message_read(m, "s", &name) >= 0);
        assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") >= 0);
        while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
            assert_true(sd_bus_message_read(m, "s", &key) >= 0);
            assert_true(sd_bus_message_peek_type(m, NULL, &contents) >= 0);
            bool is_it = strcmp(name, model) == 0 && strcmp(key, fact) == 0 && *contents == 's';
            if (is_it) {
                assert_true(sd_bus_message_read(m, "v", "s", &text) >= 0);
                (void)snprintf(ret, 256, "%s", text);
            } else {
                assert_true(sd_bus_message_skip(m, "v") >= 0);
            }
            assert_true(sd_bus_message_exit_container(m) >= 0);
        }
        assert_true(sd_bus_message_exit_container(m) >= 0);
        assert_true(sd_bus_message_exit_container(m) >= 0);
    }
    sd_bus_message_unref(m);
}

static void wait_fact(sd_bus *client, const char *model, const char *fact, const char *want)
{
    char text[256] = "";

    for (unsigned waited = 0; waited < TESTBUS_PATIENCE; waited += 20) {
        get_fact(client, model, fact, text);
        if (strcmp(text, want) == 0)
            return;
        testbus_process(client, 20);
    }
    fail_msg("%s of model %s is \"%s\", want \"%s\"", fact, model, text, want);
}

/* Calls LoadModel; `want`: full name of the error, NULL: none. */
static void load(sd_bus *client, const char *name, const char *want, const char *says)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    (void)sd_bus_call_method(client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "LoadModel",
                             &error, NULL, "s", name);
    bool is_right = want ? error.name && strcmp(error.name, want) == 0 && error.message &&
                               strstr(error.message, says)
                         : !error.name;
    if (!is_right)
        fail_msg("LoadModel %s: %s: %s", name, error.name ? error.name : "success",
                 error.message ? error.message : "");
    sd_bus_error_free(&error);
}

/* What the fake engine of this job's run was called. */
static void assert_drawn_by(sd_bus *client, const char *job, const char *model)
{
    sd_bus_message *m = NULL;
    const char *text = "";
    char want[64];

    testbus_wait_state(client, job, "done");
    (void)snprintf(want, sizeof want, "fake: model %s,", model);
    assert_true(sd_bus_get_property(client, TESTBUS_NAME, job, TESTBUS_JOB, "Warnings", NULL, &m,
                                    "as") >= 0);
    assert_true(sd_bus_message_enter_container(m, 'a', "s") >= 0);
    assert_true(sd_bus_message_read(m, "s", &text) > 0);
    if (strncmp(text, want, strlen(want)) != 0)
        fail_msg("%s: %s, want %s", job, text, want);
    sd_bus_message_unref(m);
}

static uint32_t width_of(sd_bus *client, const char *job)
{
    sd_bus_message *m = NULL;
    const char *key;
    uint32_t width = 0;

    assert_true(sd_bus_call_method(client, TESTBUS_NAME, job, TESTBUS_JOB, "GetRequest", NULL, &m,
                                   "") >= 0);
    assert_true(sd_bus_message_skip(m, "s") >= 0);
    assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") >= 0);
    while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
        assert_true(sd_bus_message_read(m, "s", &key) >= 0);
        if (strcmp(key, "width") == 0)
            assert_true(sd_bus_message_read(m, "v", "u", &width) >= 0);
        else
            assert_true(sd_bus_message_skip(m, "v") >= 0);
        assert_true(sd_bus_message_exit_container(m) >= 0);
    }
    sd_bus_message_unref(m);
    return width;
}

static void submit_for(sd_bus *client, const char *model, char job[TESTBUS_PATH_SIZE])
{
    testbus_submit(client, "x", job, "a{sv}", 2, "model", "s", model, "steps", "u", 2);
}

static void expect_refused(sd_bus *client, const char *model, const char *want, const char *says)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    assert_true(sd_bus_call_method(client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Submit",
                                   &error, NULL, "sa{sv}", "x", 1, "model", "s", model) < 0);
    if (strcmp(error.name, want) != 0 || !strstr(error.message, says))
        fail_msg("%s: %s", error.name, error.message);
    sd_bus_error_free(&error);
}

/* A job names a model: it is loaded for it, and the default one again for the next. */
static void test_by_request(void **state)
{
    struct testbus *s = *state;
    char first[TESTBUS_PATH_SIZE], second[TESTBUS_PATH_SIZE], text[256];

    configure(s);
    testbus_start_daemon(s, "ready");
    get_fact(s->client, "plain", "state", text);
    assert_string_equal(text, "ready");
    get_fact(s->client, "wide", "state", text);
    assert_string_equal(text, "available");
    wait_fact(s->client, "strange", "state", "failed"); /* its configuration was looked at */
    submit_for(s->client, "wide", first);
    testbus_submit(s->client, "y", second, "");
    assert_int_equal(width_of(s->client, first), 128); /* known before it was loaded */
    assert_int_equal(width_of(s->client, second), 64);
    assert_drawn_by(s->client, first, "wide");
    assert_drawn_by(s->client, second, "plain");
    submit_for(s->client, "plain", first); /* the default one has a name, too */
    assert_drawn_by(s->client, first, "plain");
    expect_refused(s->client, "nowhere", TESTBUS_ERROR "InvalidArgument",
                   "\"nowhere\" is not configured; there are: plain, wide, guard");
    expect_refused(s->client, "strange", TESTBUS_ERROR "ModelInvalid", "what is this?");
}

static void test_load(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];
    uint64_t memory = 1;

    configure(s);
    testbus_start_daemon(s, "ready");
    pid_t plain = testbus_find_worker(s, 0);
    load(s->client, "wide", NULL, "");
    wait_fact(s->client, "wide", "state", "ready");
    wait_fact(s->client, "plain", "state", "available");
    char *name = testbus_get_text(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Model");
    assert_string_equal(name, "wide");
    free(name);
    testbus_submit(s->client, "x", job, "");
    assert_int_equal(width_of(s->client, job), 128);
    assert_drawn_by(s->client, job, "wide");
    pid_t wide = testbus_find_worker(s, plain);
    load(s->client, "wide", NULL, ""); /* is there */
    assert_int_equal(testbus_find_worker(s, 0), wide);
    load(s->client, "", NULL, "");
    testbus_submit(s->client, "x", job, "");
    assert_drawn_by(s->client, job, "plain");
    load(s->client, "nowhere", TESTBUS_ERROR "NotFound", "there are: plain, wide");

    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "UnloadModel", NULL);
    wait_fact(s->client, "plain", "state", "available");
    testbus_get_number(s->client, TESTBUS_PATH, "MemoryUsed", 't', &memory);
    assert_int_equal(memory, 0);
    testbus_submit(s->client, "x", job, ""); /* loads it again */
    assert_drawn_by(s->client, job, "plain");
    wait_fact(s->client, "plain", "state", "ready");
}

/* One that cannot be loaded: its jobs fail, the one before is back, others go on. */
static void test_bad_ones(void **state)
{
    static const struct {
        const char *model, *error, *says;
    } rows[] = {
        {"broken", TESTBUS_ERROR "ModelInvalid", "conv_in.weight"},
        {"large", TESTBUS_ERROR "OutOfMemory", "9 GiB of device memory"},
        {"killer", TESTBUS_ERROR "ModelInvalid", "killed by signal 6"},
    };
    struct testbus *s = *state;
    char bad[TESTBUS_PATH_SIZE], good[TESTBUS_PATH_SIZE], *name, *why;

    configure(s);
    testbus_start_daemon(s, "ready");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        submit_for(s->client, rows[i].model, bad);
        testbus_submit(s->client, "y", good, "");
        testbus_wait_state(s->client, bad, "failed");
        testbus_get_error(s->client, bad, &name, &why);
        assert_string_equal(name, rows[i].error);
        if (!strstr(why, rows[i].says))
            fail_msg("%s", why);
        free(name);
        free(why);
        assert_drawn_by(s->client, good, "plain");
        wait_fact(s->client, rows[i].model, "state", "failed");
        expect_refused(s->client, rows[i].model, rows[i].error, rows[i].says); /* for a minute */
        load(s->client, rows[i].model, rows[i].error, rows[i].says); /* is tried all the same */
        testbus_submit(s->client, "y", good, "");
        assert_drawn_by(s->client, good, "plain");
    }
}

/* The default one is bad: State says so, and another can be loaded. */
static void test_bad_default(void **state)
{
    struct testbus *s = *state;
    char lines[256], job[TESTBUS_PATH_SIZE];

    (void)snprintf(lines, sizeof lines, "[model]\npath = %s/bad\n[model good]\npath = %s/good\n",
                   s->folder, s->folder);
    testbus_configure(s, lines);
    (void)setenv("DIFFUSED_FAKE_TELL", "1", 1);
    testbus_start_daemon(s, "failed");
    expect_refused(s->client, "good", TESTBUS_ERROR "NotReady", "conv_in.weight");
    load(s->client, "good", NULL, "");
    testbus_submit(s->client, "x", job, "");
    assert_drawn_by(s->client, job, "good");
}

/* Jobs of two models, mixed: those of the resident one go first, but only some of them. */
static void test_turns(void **state)
{
    struct testbus *s = *state;
    char wide[TESTBUS_PATH_SIZE], last[TESTBUS_PATH_SIZE], job[TESTBUS_PATH_SIZE];
    uint64_t started = 0, finished = 0;
    unsigned before = 0;

    configure(s);
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "10", 1);
    testbus_start_daemon(s, "ready");
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Pause", NULL);
    submit_for(s->client, "wide", wide);
    for (unsigned i = 0; i < 20; i++)
        testbus_submit(s->client, "y", i == 19 ? last : job, "a{sv}", 1, "steps", "u", 2);
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Resume", NULL);
    assert_drawn_by(s->client, wide, "wide");
    assert_drawn_by(s->client, last, "plain");
    testbus_get_number(s->client, wide, "StartedUsec", 't', &started);
    for (unsigned i = 2; i <= 21; i++) {
        (void)snprintf(job, sizeof job, TESTBUS_PATH "/job/%u", i);
        testbus_get_number(s->client, job, "FinishedUsec", 't', &finished);
        before += finished > 0 && finished <= started;
    }
    assert_int_equal(before, 8); /* and no more before the one that waits for its model */
}

/* A reload brings a model and takes one: jobs of the latter fail, saying so. */
static void test_reload(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], lines[256], *name, *why;

    (void)snprintf(lines, sizeof lines, "[model]\npath = %s/plain\n[model old]\npath = %s/old\n",
                   s->folder, s->folder);
    testbus_configure(s, lines);
    testbus_start_daemon(s, "ready");
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Pause", NULL);
    submit_for(s->client, "old", job);
    (void)snprintf(lines, sizeof lines, "sed -i 's/model old/model new/' %s/diffused.conf",
                   s->folder);
    assert_int_equal(system(lines), 0);
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Reload", NULL);
    wait_fact(s->client, "new", "state", "available");
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Resume", NULL);
    testbus_wait_state(s->client, job, "failed");
    testbus_get_error(s->client, job, &name, &why);
    assert_non_null(strstr(why, "\"old\" is not configured; there are: plain, new"));
    free(name);
    free(why);
    submit_for(s->client, "new", job);
    testbus_wait_state(s->client, job, "done");
}

/* The keeper's verbs. */
static void test_rights(void **state)
{
    struct testbus *s = *state;

    if (geteuid() != 0)
        skip();
    testbus_configure(s, "[access]\ngroup = games\n");
    testbus_start_daemon(s, "ready");
    sd_bus *bus = testbus_connect_as(s, 5, 60);
    load(bus, "x", DENIED, "");
    sd_bus_flush_close_unref(bus);
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_by_request),  BUS_TEST(test_load),  BUS_TEST(test_bad_ones),
        BUS_TEST(test_bad_default), BUS_TEST(test_turns), BUS_TEST(test_reload),
        BUS_TEST(test_rights),
    };

    return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
