/* The drop folder of the real daemon, with the fake engine: tickets, refusals, several pictures,
 * cancel, the same folder and spool after SIGKILL in the middle of it. */
#include <dirent.h>
#include <limits.h>
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
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/base/sha256.h"

#define TICK_MSEC 20

static void path_of(const struct testbus *s, const char *name, char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "%s/drop/%s", s->folder, name);
}

static bool has(const struct testbus *s, const char *name)
{
    char path[PATH_MAX];

    path_of(s, name, path);
    return access(path, F_OK) == 0;
}

static void put(const struct testbus *s, const char *name, const char *text)
{
    char path[PATH_MAX], aside[PATH_MAX];

    (void)snprintf(aside, sizeof aside, "%s/aside", s->folder);
    assert_int_equal(file_write_atomic(aside, text, strlen(text), NULL), 0);
    path_of(s, name, path);
    assert_int_equal(rename(aside, path), 0);
}

static void wait_for(const struct testbus *s, const char *name)
{
    for (unsigned waited = 0; !has(s, name); waited += TICK_MSEC) {
        if (waited > TESTBUS_PATIENCE)
            fail_msg("no %s", name);
        (void)usleep(TICK_MSEC * 1000);
    }
}

static char *read_text(const struct testbus *s, const char *name, size_t *ret_size)
{
    char path[PATH_MAX], *text = NULL;
    struct fault f = {0};

    path_of(s, name, path);
    if (file_read(path, 1 << 24, &text, ret_size, &f) < 0)
        fail_msg("%s", f.text);
    return text;
}

static void assert_says(const struct testbus *s, const char *name, const char *part)
{
    size_t size;
    _cleanup_(freep) char *text = read_text(s, name, &size);

    if (!strstr(text, part))
        fail_msg("%s says \"%s\", not \"%s\"", name, text, part);
}

/* JSON and pictures of one ticket agree. */
static void check_done(const struct testbus *s, const char *json, unsigned pictures)
{
    size_t size;
    _cleanup_(freep) char *text = read_text(s, json, &size);
    _cleanup_(json_freep) json_t *root = NULL;
    char name[PATH_MAX], sum[SHA256_HEX_SIZE];

    assert_int_equal(json_parse(text, size, &root, NULL), 0);
    const json_t *list = json_object_get(root, "pictures");
    assert_int_equal(json_array_size(list), pictures);
    for (unsigned i = 0; i < pictures; i++) {
        const json_t *one = json_array_get(list, i);
        (void)snprintf(name, sizeof name, "done/%s",
                       json_string_value(json_object_get(one, "file")));
        size_t bytes;
        _cleanup_(freep) char *png = read_text(s, name, &bytes);
        assert_memory_equal(png, "\x89PNG\r\n\x1a\n", 8);
        assert_memory_equal(png + bytes - 8, "IEND", 4);
        sha256_hex(png, bytes, sum);
        assert_string_equal(sum, json_string_value(json_object_get(one, "sha256")));
    }
}

static void test_tickets(void **state)
{
    struct testbus *s = *state;

    testbus_start_daemon(s, "ready");
    wait_for(s, "failed");
    char *drop = testbus_get_text(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "DropDirectory");
    assert_non_null(strstr(drop, "/drop"));
    free(drop);
    put(s, "fox.txt", "a fox\n");
    wait_for(s, "done/fox.d/fox.txt");
    check_done(s, "done/fox.json", 1);
    put(s, "two.ini", "[job]\nprompt = two foxes\ncount = 2\nseed = 5\nephemeral = yes\n");
    wait_for(s, "done/two.d/two.ini");
    check_done(s, "done/two.json", 2);
    assert_true(has(s, "done/two.0.png") && has(s, "done/two.1.png"));
    assert_says(s, "done/two.json", "\"seed\": 5");
    put(s, "cat.jpg", "no picture at all");
    put(s, "cat.txt", "a cat");
    wait_for(s, "failed/cat.txt");
    assert_says(s, "failed/cat.error.txt", "image: neither a PNG nor a JPEG file");
    assert_true(has(s, "failed/cat.jpg"));
    put(s, "path.ini", "[job]\nprompt = x\nimage = /etc/passwd\n");
    wait_for(s, "failed/path.ini");
    assert_says(s, "failed/path.error.txt", "put NAME.png beside the ticket");
    put(s, "bad.ini", "[job]\nwidth = 100\n");
    wait_for(s, "failed/bad.ini");
    assert_says(s, "failed/bad.error.txt", "multiple of 8");
}

static void test_cancelled(void **state)
{
    struct testbus *s = *state;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "200", 1);
    testbus_start_daemon(s, "ready");
    wait_for(s, "failed");
    put(s, "slow.ini", "[job]\nprompt = slow\nsteps = 400\n");
    testbus_wait_state(s->client, TESTBUS_PATH, "busy");
    testbus_call(s->client, TESTBUS_PATH "/job/1", TESTBUS_JOB, "Cancel", NULL);
    wait_for(s, "failed/slow.ini");
    assert_says(s, "failed/slow.error.txt", "Cancelled");
}

/* How many of the tickets 0 … count-1 have all of their files where they belong. */
static unsigned count_done(const struct testbus *s, unsigned count)
{
    char name[64];
    unsigned done = 0;

    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "done/t%u.d/t%u.txt", i, i);
        done += has(s, name);
    }
    return done;
}

static void check_once(const struct testbus *s, unsigned count)
{
    char name[64], again[64];

    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "done/t%u.json", i);
        check_done(s, name, 1);
        (void)snprintf(again, sizeof again, "done/t%u~1.json", i);
        assert_false(has(s, again));
        (void)snprintf(again, sizeof again, "done/t%u~1.png", i);
        assert_false(has(s, again));
        (void)snprintf(again, sizeof again, "t%u.txt", i);
        assert_false(has(s, again));
    }
}

static void wait_done(const struct testbus *s, unsigned count, unsigned done)
{
    for (unsigned waited = 0; count_done(s, count) < done; waited += TICK_MSEC) {
        if (waited > 2 * TESTBUS_PATIENCE)
            fail_msg("%u of %u tickets done, want %u", count_done(s, count), count, done);
        (void)usleep(TICK_MSEC * 1000);
    }
}

/* Killed again and again while tickets come and pictures go. At least one is done in between: a job
 * that is interrupted five times in a row would be given up, as it should. */
static void test_killed(void **state)
{
    enum { TICKETS = 60, KILLS = 12 };
    struct testbus *s = *state;
    char name[64];

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "2", 1);
    testbus_start_daemon(s, "ready");
    wait_for(s, "failed");
    for (unsigned i = 0; i < TICKETS; i++) {
        (void)snprintf(name, sizeof name, "t%u.txt", i);
        put(s, name, name);
        if (i % (TICKETS / KILLS) != TICKETS / KILLS - 1)
            continue;
        unsigned done = count_done(s, TICKETS);
        wait_done(s, TICKETS, done > i ? done : done + 1);
        (void)usleep(1000 * (i * 7 % 50));
        (void)testbus_stop_daemon(s, SIGKILL);
        testbus_spawn_daemon(s);
    }
    wait_done(s, TICKETS, TICKETS);
    check_once(s, TICKETS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tickets, testbus_setup, testbus_teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, testbus_setup, testbus_teardown),
        cmocka_unit_test_setup_teardown(test_killed, testbus_setup, testbus_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
