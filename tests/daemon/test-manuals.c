/* The manuals and etc/diffused.conf: their tables are the code's, nothing of a program or interface
 * is missing in them, and the formatters have no complaint. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/service.h"
#include "tests/support/tables.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define TEXT_MAX (1u << 20)

static char *slurp(const char *path)
{
    struct fault f = {0};
    char *text = NULL;
    size_t length;

    if (file_read(path, TEXT_MAX, &text, &length, &f) < 0)
        fail_msg("%s", f.text);
    return text;
}

static void test_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < tables_file_count; i++) {
        _cleanup_(freep) char *is = slurp(tables_files[i]), *want = NULL;
        struct fault f = {0};
        if (tables_render(tables_files[i], &want, &f) < 0)
            fail_msg("%s", f.text);
        if (strcmp(is, want) != 0)
            fail_msg("%s is not what the tables of the code say: run \"make tables\"",
                     tables_files[i]);
    }
}

/* --- nothing is missing ----------------------------------------------------------------------- */

/* Whether a manual has this flag: ".Fl -name" as a word of its own. */
static bool has_flag(const char *manual, const char *flag)
{
    char want[64];

    (void)snprintf(want, sizeof want, "-%s", flag);
    for (const char *p = strstr(manual, want); p; p = strstr(p + 1, want))
        if (strchr(" \n", p[-1]) && strchr(" \n", p[strlen(want)]) && p[strlen(want)])
            return true;
    return false;
}

/* Every "--flag" of a help text. */
static void check_flags(const char *help, const char *manual, const char *name)
{
    for (const char *p = strstr(help, "--"); p; p = strstr(p, "--")) {
        char flag[48];
        p += strlen("--");
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789-");
        if (n == 0 || n >= sizeof flag)
            continue;
        (void)snprintf(flag, sizeof flag, "%.*s", (int)n, p);
        if (!has_flag(manual, flag))
            fail_msg("%s says nothing about --%s", name, flag);
    }
}

static char *help_of(const char *program, const char *verb)
{
    const char *const arguments[] = {*verb ? verb : "--help", *verb ? "--help" : NULL, NULL};
    struct command c = {.name = program, .arguments = arguments};
    struct command_result result;

    assert_int_equal(command_start(&c), 0);
    command_finish(&c, &result);
    assert_int_equal(result.status, 0);
    free(result.err);
    return result.out;
}

static void test_daemon_flags(void **state)
{
    static const char path[] = "etc/man/diffused.8";
    _cleanup_(freep) char *manual = slurp(path), *help = help_of("diffused", "");

    (void)state;
    check_flags(help, manual, path);
}

/* The list of verbs: lines of two blanks, a name, blanks, a summary. */
static void test_verbs(void **state)
{
    static const char path[] = "etc/man/diffusectl.1";
    _cleanup_(freep) char *manual = slurp(path), *help = help_of("diffusectl", "");
    size_t verbs = 0;

    (void)state;
    for (const char *line = help; line; line = strchr(line, '\n')) {
        char verb[32], want[64];
        line += *line == '\n';
        if (strncmp(line, "  ", 2) != 0 || sscanf(line + 2, "%31[a-z]", verb) != 1)
            continue;
        (void)snprintf(want, sizeof want, "Cm %s", verb);
        if (!strstr(manual, want)) /* of two verbs in one item the second has a comma before it */
            (void)snprintf(want, sizeof want, " , %s", verb);
        if (!strstr(manual, want))
            fail_msg("%s says nothing about the verb %s", path, verb);
        _cleanup_(freep) char *text = help_of("diffusectl", verb);
        check_flags(text, manual, path);
        verbs++;
    }
    assert_true(verbs >= 10);
}

/* Members of the shipped interfaces: <method|property|signal name="…">. */
static size_t check_members(const char *xml, const char *kind, const char *manual)
{
    char head[32], name[64], function[80], variable[80];
    size_t count = 0;

    (void)snprintf(head, sizeof head, "<%s name=\"", kind);
    for (const char *p = strstr(xml, head); p; p = strstr(p + 1, head)) {
        (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(p + strlen(head), "\""),
                       p + strlen(head));
        (void)snprintf(function, sizeof function, "Fn %s", name);
        (void)snprintf(variable, sizeof variable, "Va %s", name);
        const char *want = strcmp(kind, "method") == 0 ? function : variable;
        const char *at = strstr(manual, want);
        while (at && !strchr(" \n", at[strlen(want)]))
            at = strstr(at + 1, want);
        if (!at)
            fail_msg("the manual org.diffused.Diffused1(5) says nothing about the %s %s", kind,
                     name);
        count++;
    }
    return count;
}

static void test_members(void **state)
{
    static const char *const kinds[] = {"method", "property", "signal"};
    _cleanup_(freep) char *manual = slurp("etc/man/org.diffused.Diffused1.5");
    _cleanup_(freep) char *manager = slurp("dbus/org.diffused.Diffused1.Manager.xml");
    _cleanup_(freep) char *job = slurp("dbus/org.diffused.Diffused1.Job.xml");

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        assert_true(check_members(manager, kinds[i], manual) > 0);
        assert_true(check_members(job, kinds[i], manual) > 0);
    }
}

/* --- formatters ------------------------------------------------------------------------------- */

/* Fails with what a formatter says about a manual. False when it is not installed. */
static bool format(const char *program, const char *command, const char *path)
{
    char line[PATH_MAX], said[1024] = "";

    (void)snprintf(line, sizeof line, "command -v %s >/dev/null", program);
    if (system(line) != 0)
        return false;
    (void)snprintf(line, sizeof line, command, path);
    FILE *from = popen(line, "r");
    assert_non_null(from);
    size_t n = fread(said, 1, sizeof said - 1, from);
    said[n] = '\0';
    int status = pclose(from);
    if (status != 0 || n > 0)
        fail_msg("%s: %s: %s", program, path, said);
    return true;
}

static void test_formatters(void **state)
{
    bool done = false;

    (void)state;
    for (size_t i = 0; i < tables_file_count; i++) {
        if (!strstr(tables_files[i], "/man/"))
            continue;
        done |= format("mandoc", "mandoc -Tlint -W warning %s 2>&1", tables_files[i]);
        done |= format("groff", "groff -man -mdoc -Kutf8 -Tutf8 -ww -z %s 2>&1", tables_files[i]);
    }
    if (!done) {
        print_message("neither mandoc nor groff is installed\n");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),     cmocka_unit_test(test_daemon_flags),
        cmocka_unit_test(test_verbs),      cmocka_unit_test(test_members),
        cmocka_unit_test(test_formatters),
    };

    return cmocka_run_group_tests_name("manuals", tests, NULL, NULL);
}
