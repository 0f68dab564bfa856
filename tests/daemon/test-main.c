/* diffused's command line, as far as it needs no bus: configuration checked and printed. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/config.h"
#include "tests/support/folder.h"
#include "tests/support/service.h"
#include "vk/base/file.h"

#define EXIT_USAGE  2
#define EXIT_CONFIG 78

static void put(const char *directory, const char *name, const char *text)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), 0);
}

static void run(const char *const *arguments, struct command_result *result)
{
    struct command c = {.name = "diffused", .arguments = arguments};

    assert_int_equal(command_start(&c), 0);
    command_finish(&c, result);
}

static void test_check_config(void **state)
{
    const char *const arguments[] = {"--devel", *state, "--check-config", NULL};
    struct command_result result;

    put(*state, "diffused.conf", "[model]\ncolour = red\n");
    run(arguments, &result);
    assert_int_equal(result.status, 0);
    assert_non_null(strstr(result.out, "/diffused.conf: good\n"));
    assert_non_null(strstr(result.err, "/diffused.conf:2: unknown key \"colour\""));
    command_result_done(&result);
    put(*state, "diffused.conf", "[limits]\nqueue = 0\n");
    run(arguments, &result);
    assert_int_equal(result.status, EXIT_CONFIG);
    assert_string_equal(result.out, "");
    assert_non_null(strstr(result.err, "error: "));
    assert_non_null(strstr(result.err, "/diffused.conf:2: [limits] queue = \"0\""));
    command_result_done(&result);
}

static void test_print_config(void **state)
{
    const char *const arguments[] = {"--devel", *state, "--print-config", NULL};
    struct command_result result;
    struct config c;
    struct fault f = {0};
    char spool[PATH_MAX];

    put(*state, "diffused.conf", "[limits]\nqueue = 7\n");
    run(arguments, &result);
    assert_int_equal(result.status, 0);
    assert_string_equal(result.err, "");
    assert_int_equal(config_parse(result.out, strlen(result.out), "printed", "/", &c, &f), 0);
    assert_int_equal(c.limit_queue, 7);
    (void)snprintf(spool, sizeof spool, "%s/spool", (const char *)*state);
    assert_string_equal(c.spool_path, spool);
    config_done(&c);
    command_result_done(&result);
    put(*state, "diffused.conf", "[limits]\nqueue = 0\n");
    run(arguments, &result);
    assert_int_equal(result.status, EXIT_CONFIG);
    assert_string_equal(result.out, "");
    command_result_done(&result);
}

static void test_usage(void **state)
{
    static const struct {
        const char *arguments[4];
        int status;
    } rows[] = {
        {{"--help"}, 0},
        {{"--version"}, 0},
        {{"--nonsense"}, EXIT_USAGE},
        {{"more"}, EXIT_USAGE},
        {{"-c", "/no/such/file", "--check-config"}, EXIT_CONFIG},
        {{"--devel", "/no/such/folder", "--print-config"}, EXIT_CONFIG},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct command_result result;
        run(rows[i].arguments, &result);
        assert_int_equal(result.status, rows[i].status);
        assert_true(*result.out || *result.err);
        command_result_done(&result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_check_config, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_print_config, folder_setup, folder_teardown),
        cmocka_unit_test(test_usage),
    };

    return cmocka_run_group_tests_name("main", tests, NULL, NULL);
}
