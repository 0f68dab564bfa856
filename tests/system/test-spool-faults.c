/* A short campaign of tests/support/faults.h for every run of the tests: each call of submit,
 * start, picture and finish is killed, the rest at a stride. `make check-spool-faults` does all of
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/check.h"
#include "tests/support/faults.h"
#include "tests/support/folder.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#if defined __SANITIZE_ADDRESS__
#define STRIDE 30 /* a fork of a sanitized process takes its time */
#else
#define STRIDE 3
#endif

static int setup(void **state)
{
    const char *why;

    if (!inject_is_possible(&why)) {
        *state = NULL;
        print_message("%s\n", why);
        return 0;
    }
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1); /* kills do not care, and nothing waits for a disk */
    return folder_setup(state);
}

static int teardown(void **state)
{
    return *state ? folder_teardown(state) : 0;
}

static void begin(void **state, struct faults *c)
{
    if (!*state)
        skip();
    assert_int_equal(faults_init(c, *state, stdout), 0);
}

static void end(struct faults *c)
{
    print_message("%u points, %u trials, %u kills, %u refusals, %u violations\n", c->points,
                  c->trials, c->kills, c->refusals, c->violations);
    faults_done(c);
    assert_true(c->points > 0);
    assert_int_equal(c->violations, 0);
}

static bool is_one_of(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void test_kill_everywhere(void **state)
{
    static const char *const all[] = {"submit", "start", "picture", "finish"};
    static const char *const part[] = {"life"}; /* made of the others */
    struct faults c;

    begin(state, &c);
    for (size_t i = 0; i < scenario_count; i++) {
        const char *name = scenarios[i].name;
        c.stride = is_one_of(name, all, ARRAY_SIZE(all))     ? 1
                   : is_one_of(name, part, ARRAY_SIZE(part)) ? 4 * STRIDE
                                                             : STRIDE;
        faults_kill(&c, &scenarios[i]);
    }
    end(&c);
    assert_true(c.points > 80);
    assert_int_equal(c.kills, c.points);
}

static void test_errors(void **state)
{
    struct faults c;

    begin(state, &c);
    for (size_t i = 0; i < scenario_count; i++) {
        c.stride = strcmp(scenarios[i].name, "life") == 0 ? 4 * STRIDE : (STRIDE + 2) / 5;
        faults_fail(&c, &scenarios[i], &faults_errors[i % 3]); /* full, over quota, broken */
        faults_fail(&c, &scenarios[i], &faults_errors[3 + i % 3]);
    }
    end(&c);
    assert_true(c.refusals > 50);
}

static void test_twice(void **state)
{
    struct faults c;

    begin(state, &c);
    for (size_t i = 0; i < scenario_count; i++) {
        faults_kill_twice(&c, &scenarios[i], 4);
        faults_kill_and_fail(&c, &scenarios[i], 4);
    }
    end(&c);
}

/* A checker that finds nothing, or faults that are none, would let all of the above pass. */
static int lie(const struct inject_call *call, void *userdata)
{
    (void)userdata; /* what is to be written or renamed is not, and that is no error */
    return strncmp(call->name, "rename", 6) == 0 ? INJECT_SKIP : INJECT_GO;
}

static void test_lies_are_found(void **state)
{
    struct faults c;
    char spool[512];
    int status = 0;

    begin(state, &c);
    (void)snprintf(spool, sizeof spool, "%s/spool", (char *)*state);
    assert_int_equal(steps_run(&scenarios[0], spool, c.shared, lie, NULL, &status), 0);
    assert_int_equal(status, 0);
    assert_non_null(strstr(c.shared->history, "SUBMITTED 1 "));
    FILE *out = fopen("/dev/null", "w");
    assert_true(check_spool(&(struct check_options){.spool = spool,
                                                    .history = c.shared->history,
                                                    .flags = CHECK_RUNNING,
                                                    .uid = -1,
                                                    .out = out}) > 0);
    (void)fclose(out);
    faults_done(&c);
}

#define FAULTS_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULTS_TEST(test_kill_everywhere),
        FAULTS_TEST(test_errors),
        FAULTS_TEST(test_twice),
        FAULTS_TEST(test_lies_are_found),
    };

    return cmocka_run_group_tests_name("spool-faults", tests, NULL, NULL);
}
