/* 200 rounds of build/tests/crash: random kills of manager and worker under mixed load.
 * `make check-crash ROUNDS=2000 SEED=n` does more. */
#include <limits.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/build.h"

static void test_kills(void **state)
{
    char program[PATH_MAX], rounds[] = "--rounds", count[] = "200";
    char *argv[] = {program, rounds, count, NULL};
    int status = 0;
    pid_t pid;

    (void)state;
    build_path("tests/crash", program, sizeof program);
    if (access("/usr/bin/dbus-daemon", X_OK) != 0) {
        print_message("no dbus-daemon here\n");
        skip();
    }
    assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kills)};

    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
