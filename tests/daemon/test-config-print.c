/* config: what is printed reads back the same, and what differs is named. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/config.h"

static void parse(const char *text, const char *directory, struct config *config)
{
    struct fault f = {0};

    if (config_parse(text, strlen(text), "x.conf", directory, config, &f) < 0)
        fail_msg("%s", f.text);
}

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);

    assert_non_null(to);
    assert_int_equal(config_print(config, to), 0);
    assert_int_equal(fclose(to), 0);
    return text;
}

static size_t count_changes(const struct config *a, const struct config *b)
{
    return config_changes(a, b, CONFIG_WHEN_LIVE, NULL, 0) +
           config_changes(a, b, CONFIG_WHEN_WORKER, NULL, 0) +
           config_changes(a, b, CONFIG_WHEN_RESTART, NULL, 0);
}

static void test_round_trip(void **state)
{
    static const char *const texts[] = {
        "",
        "[model]\npath = m\n[device]\nnode = 0 0000:01:00.0\nallow_cpu = no\npause_when_hot = no\n"
        "[spool]\npath = ; odd # one\nretain_minutes = 1\ngroup_readable = yes\n"
        "[drop]\npath =\n[limits]\nqueue = 3\n[png]\nmetadata = none\n[access]\ngroup =\n"
        "[defaults]\nsteps = 50\nguidance_scale = 0.1\nnegative_prompt = ünlovely = : [x]\n"
        "seed = 9223372036854775807\nephemeral = yes\n"
        "[model b]\npath = b\n[model c]\npath = /c\n"
        "[preset a]\nscheduler = ddim\n[preset b.c-d]\nnegative_prompt =\n[preset none]\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct config one, two, built_in;
        parse(texts[i], "/here", &one);
        _cleanup_(freep) char *text = print(&one);
        parse(text, "/elsewhere", &two);
        assert_int_equal(two.warning_count, 0);
        assert_int_equal(count_changes(&one, &two), 0);
        assert_int_equal(config_init(&built_in), 0);
        assert_int_equal(count_changes(&one, &built_in) == 0, i == 0);
        config_done(&one);
        config_done(&two);
        config_done(&built_in);
    }
}

/* A value the caller put there (--devel) is no comment either. */
static void test_overridden(void **state)
{
    struct config c;

    (void)state;
    parse("", "/", &c);
    free(c.spool_path);
    c.spool_path = strdup("/devel/spool");
    _cleanup_(freep) char *text = print(&c);
    assert_non_null(strstr(text, "\npath = /devel/spool\n"));
    config_done(&c);
}

static void test_origin_and_help(void **state)
{
    struct config c;

    (void)state;
    parse("[limits]\n\nqueue = 100\n[defaults]\nsteps = 20\n[preset p]\nwidth = 64\n", "/", &c);
    _cleanup_(freep) char *text = print(&c);
    assert_non_null(strstr(text, "# Jobs that may wait. (1 to 100000)\n# set in x.conf:3\n"
                                 "queue = 100\n"));
    assert_non_null(strstr(text, "\n#pixels = 0\n"));
    assert_non_null(strstr(text, "# set in x.conf:5\nsteps = 20\n"));
    assert_non_null(strstr(text, "[preset p]\n# set in x.conf:7\nwidth = 64\n"));
    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        assert_true(strcspn(line, "\n") <= 100);
    config_done(&c);
}

static void test_changes(void **state)
{
    static const char was[] =
        "[model]\npath = /a\n[limits]\nqueue = 3\n[defaults]\nsteps = 5\n"
        "[preset gone]\n[preset same]\nsteps = 4\n[preset other]\nsteps = 4\n";
    static const char is[] = "[model]\npath = /b\n[spool]\npath = /s\n[device]\nnode = 1\n"
                             "[limits]\nqueue = 3\nuser_jobs = 1\n[defaults]\nwidth = 64\n"
                             "[preset new]\n[preset same]\nsteps = 4\n[preset other]\nsteps = 5\n";
    struct config a, b;
    char names[256];

    (void)state;
    parse(was, "/", &a);
    parse(is, "/", &b);
    assert_int_equal(config_changes(&a, &b, CONFIG_WHEN_RESTART, names, sizeof names), 2);
    assert_string_equal(names, "[device] node, [spool] path");
    assert_int_equal(config_changes(&a, &b, CONFIG_WHEN_WORKER, names, sizeof names), 1);
    assert_string_equal(names, "[model] path");
    assert_int_equal(config_changes(&a, &b, CONFIG_WHEN_LIVE, names, sizeof names), 6);
    assert_string_equal(names, "[limits] user_jobs, [defaults] width, [defaults] steps, "
                               "[preset gone], [preset other], [preset new]");
    assert_int_equal(config_changes(&a, &b, CONFIG_WHEN_RESTART, names, 20), 2);
    assert_string_equal(names, "[device] node, …");
    assert_int_equal(config_changes(&a, &b, CONFIG_WHEN_RESTART, names, 5), 2);
    assert_string_equal(names, "…");
    assert_int_equal(config_changes(&a, &a, CONFIG_WHEN_LIVE, names, sizeof names), 0);
    assert_string_equal(names, "");
    config_done(&a);
    config_done(&b);
}

static void test_keep(void **state)
{
    struct config a, b;

    (void)state;
    parse("[spool]\npath = /old\n[device]\nnode = 0 1\n[drop]\npath =\n", "/", &a);
    parse("[spool]\npath = /new\n[device]\nnode = 2\n[limits]\nqueue = 7\n", "/", &b);
    assert_int_equal(config_keep(&b, &a, CONFIG_WHEN_RESTART), 0);
    assert_string_equal(b.spool_path, "/old");
    assert_null(b.drop_path);
    assert_int_equal(b.device_node_count, 2);
    assert_string_equal(b.device_nodes[1], "1");
    assert_int_equal(b.limit_queue, 7);
    assert_int_equal(config_changes(&a, &b, CONFIG_WHEN_RESTART, NULL, 0), 0);
    config_done(&a);
    config_done(&b);
}

static void test_write_errors(void **state)
{
    struct config c;
    FILE *full = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(full);
    parse("", "/", &c);
    assert_int_equal(config_print(&c, full), -EIO);
    (void)fclose(full);
    config_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_overridden),
        cmocka_unit_test(test_origin_and_help),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_write_errors),
    };

    return cmocka_run_group_tests_name("config-print", tests, NULL, NULL);
}
