/* Every change of a spool replayed as a disk might hold it after the power went, and the fsyncs
 * that make it right, one after the other left out. build/tests/power-cut does more of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/folder.h"
#include "tests/support/powercut.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

static int setup(void **state)
{
    const char *why;

    *state = NULL;
    if (!inject_is_possible(&why)) {
        print_message("%s\n", why);
        return 0;
    }
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1); /* the disk is a model: nothing waits for one */
    return folder_setup(state);
}

static int teardown(void **state)
{
    return *state ? folder_teardown(state) : 0;
}

static void begin(void **state, struct powercut *p)
{
    if (!*state)
        skip();
    *p = (struct powercut){.folder = *state, .out = stdout, .random = 1, .shuffles = 1};
    p->shared = steps_share();
    assert_non_null(p->shared);
}

static void test_every_prefix(void **state)
{
    struct powercut p;

    begin(state, &p);
    for (size_t i = 0; i < scenario_count; i++)
        assert_int_equal(powercut_run(&p, &scenarios[i]), 0);
    print_message("%u prefixes, %u disks, %u violations\n", p.calls, p.replays, p.violations);
    steps_unshare(p.shared);
    assert_true(p.replays > 500);
    assert_int_equal(p.violations, 0);
}

/* How many may be missing unseen: each directory of a rename stands for the other in the model, and
 * the last fsync of a directory for those before it. */
static void test_fsyncs_are_needed(void **state)
{
    static const struct {
        const char *scenario;
        unsigned needless;
    } rows[] = {{"submit", 0}, {"delete", 0}, {"start", 2}, {"finish", 3}};
    struct powercut p;

    begin(state, &p);
    p.out = fopen("/dev/null", "w");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        for (size_t k = 0; k < scenario_count; k++) {
            if (strcmp(scenarios[k].name, rows[i].scenario) != 0)
                continue;
            p.syncs = p.needless = 0;
            assert_int_equal(powercut_without_syncs(&p, &scenarios[k]), 0);
        }
        print_message("%s: %u fsyncs, %u without a trace\n", rows[i].scenario, p.syncs, p.needless);
        assert_true(p.syncs > rows[i].needless);
        assert_true(p.needless <= rows[i].needless);
    }
    (void)fclose(p.out);
    steps_unshare(p.shared);
}

#define CUT_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CUT_TEST(test_every_prefix),
        CUT_TEST(test_fsyncs_are_needed),
    };

    return cmocka_run_group_tests_name("power-cut", tests, NULL, NULL);
}
