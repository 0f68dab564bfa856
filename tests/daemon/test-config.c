/* config: built-in values, every type of row, warnings, and the line an error names. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/config.h"

static int parse(const char *text, struct config *config, struct fault *f)
{
    *f = (struct fault){0};
    return config_parse(text, strlen(text), "x.conf", "/here", config, f);
}

static void test_built_in(void **state)
{
    struct config c;
    struct fault f;

    (void)state;
    assert_int_equal(parse("", &c, &f), 0);
    assert_null(c.model_path);
    assert_null(c.device_node);
    assert_int_equal(c.allow_cpu, ENGINE_ALLOW_CPU_AUTO);
    assert_string_equal(c.spool_path, "/var/spool/diffused");
    assert_int_equal(c.limit_queue, 100);
    assert_int_equal(c.limit_pixels, 0);
    assert_int_equal(c.png_metadata, CONFIG_PNG_METADATA_FULL);
    assert_string_equal(c.access_group, "diffused");
    assert_null(c.word_list);
    assert_string_equal(c.drop_path, "/var/lib/diffused/drop");
    assert_int_equal(c.retain_minutes, 7 * 24 * 60);
    assert_int_equal(c.retain_jobs, 1000);
    assert_int_equal(c.retain_megabytes, 1024);
    assert_int_equal(c.keep_free_megabytes, 64);
    assert_false(c.spool_group_readable);
    assert_true(c.pause_when_hot);
    assert_int_equal(c.limit_user_jobs, 50);
    assert_int_equal(c.limit_user_megabytes, 0);
    assert_int_equal(c.limit_user_descriptors, 16);
    assert_int_equal(c.limit_calls_per_second, 200);
    assert_int_equal(c.limit_calls_burst, 500);
    assert_int_equal(c.device_node_count, 0);
    assert_int_equal(c.preset_count, 0);
    assert_int_equal(c.defaults.set, 0);
    assert_int_equal(c.warning_count, 0);
    config_done(&c);
}

static void test_every_row(void **state)
{
    static const char text[] = "# comment\n"
                               "[model]\npath = models/emoji\n"
                               "[device]\nnode=/dev/dri/renderD129\nallow_cpu = no\n"
                               "[spool]\npath = /s ; not a comment\n"
                               "[limits]\nqueue = 3\npixels = 65536\n"
                               "[png]\nmetadata = provenance\n"
                               "[access]\ngroup =\n"
                               "[defaults]\nsteps = 20\nguidance_scale = 2.5\nscheduler = euler\n";
    struct config c;
    struct fault f;

    (void)state;
    assert_int_equal(parse(text, &c, &f), 0);
    assert_string_equal(c.model_path, "/here/models/emoji");
    assert_string_equal(c.device_node, "/dev/dri/renderD129");
    assert_int_equal(c.allow_cpu, ENGINE_ALLOW_CPU_NO);
    assert_string_equal(c.spool_path, "/s ; not a comment");
    assert_int_equal(c.limit_queue, 3);
    assert_int_equal(c.limit_pixels, 65536);
    assert_int_equal(c.png_metadata, CONFIG_PNG_METADATA_PROVENANCE);
    assert_null(c.access_group);
    assert_int_equal(c.defaults.steps, 20);
    assert_true(c.defaults.guidance_scale == 2.5);
    assert_int_equal(c.defaults.scheduler, SCHEDULER_EULER);
    assert_false(request_is_set(&c.defaults, REQUEST_seed));
    config_done(&c);
}

static void test_errors_name_the_line(void **state)
{
    static const struct {
        const char *text, *want; /* beginning of the message */
    } rows[] = {
        {"[limits]\nqueue = many\n",
         "x.conf:2: [limits] queue = \"many\": want a number from 1 to"},
        {"[limits]\n\nqueue = 0\n", "x.conf:3: [limits] queue"},
        {"[limits]\nqueue = 100001\n", "x.conf:2: [limits] queue"},
        {"[limits]\nqueue = -1\n", "x.conf:2: [limits] queue"},
        {"[limits]\nqueue = 99999999999999999999999\n", "x.conf:2: [limits] queue"},
        {"[device]\nallow_cpu = maybe\n", "x.conf:2: [device] allow_cpu = \"maybe\": want one of"},
        {"[defaults]\nsteps = 501\n", "x.conf:2: [defaults] steps"},
        {"[defaults]\nscheduler = magic\n", "x.conf:2: [defaults] scheduler"},
        {"[model]\nno equals sign\n", "x.conf:2: want [section], key = value"},
        {"[model\n", "x.conf:1: want [section], key = value"},
        {"[spool]\npath =\n", "x.conf:2: [spool] path: must not be empty"},
        {"[access]\nword_list = no/such\n", "x.conf:2: [access] word_list: /here/no/such: No such"},
        {"[limits]\nqueue = 1\n  more\n", "x.conf:3: want [section], key = value"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct config c;
        struct fault f;
        assert_int_equal(parse(rows[i].text, &c, &f), -EINVAL);
        assert_int_equal(strncmp(f.text, rows[i].want, strlen(rows[i].want)), 0);
    }
}

static void test_nul_is_refused(void **state)
{
    struct config c;
    struct fault f = {0};

    (void)state;
    assert_int_equal(config_parse("[a]\0\n", 5, "x.conf", "/", &c, &f), -EINVAL);
    assert_non_null(strstr(f.text, "NUL"));
}

static void test_warnings(void **state)
{
    static const char text[] = "lost = 1\n"
                               "[model]\ncolour = red\n"
                               "[zoo]\nlion = 1\ntiger = 2\n"
                               "[defaults]\nprompt = a fox\nprumpt = x\nsteps = 3\n"
                               "[limits]\nqueue = 7\n"
                               "[defaults]\nsteps = 4\n"
                               "[limits]\nqueue = 8\n";
    static const char *const want[] = {
        "x.conf:1: \"lost\" stands before any [section], ignoring",
        "x.conf:3: unknown key \"colour\" in [model], ignoring",
        "x.conf:4: unknown section [zoo], ignoring",
        "x.conf:8: [defaults] prompt: belongs to one job alone, ignoring",
        "x.conf:9: unknown key \"prumpt\" in [defaults], ignoring",
        "x.conf:14: [defaults] steps was set in line 10 already; this one counts",
        "x.conf:16: [limits] queue was set in line 12 already; this one counts",
    };
    struct config c;
    struct fault f;

    (void)state;
    assert_int_equal(parse(text, &c, &f), 0);
    assert_int_equal(c.warning_count, ARRAY_SIZE(want));
    for (size_t i = 0; i < ARRAY_SIZE(want); i++)
        assert_string_equal(c.warnings[i], want[i]);
    assert_int_equal(c.limit_queue, 8);
    assert_int_equal(c.defaults.steps, 4);
    config_done(&c);
}

static void test_warnings_are_bounded(void **state)
{
    char text[4096];
    struct config c;
    struct fault f;
    int n = 0;

    (void)state;
    for (int i = 0; i < 40; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "[zoo%d]\n", i);
    assert_int_equal(parse(text, &c, &f), 0);
    assert_int_equal(c.warning_count, CONFIG_WARNINGS_MAX);
    config_done(&c);
}

static void test_devices(void **state)
{
    struct config c;
    struct fault f;

    (void)state;
    assert_int_equal(parse("[device]\nnode = /dev/dri/renderD128  0000:01:00.0 2\n", &c, &f), 0);
    assert_int_equal(c.device_node_count, 3);
    assert_string_equal(c.device_nodes[0], "/dev/dri/renderD128");
    assert_string_equal(c.device_nodes[1], "0000:01:00.0");
    assert_string_equal(c.device_nodes[2], "2");
    config_done(&c);
    assert_int_equal(parse("[device]\nnode = 0 1 2 3 4 5 6 7 8\n", &c, &f), -EINVAL);
    assert_string_equal(f.text, "x.conf:2: [device] node: more than 8 devices");
}

static void test_presets(void **state)
{
    static const char text[] = "\xef\xbb\xbf[preset fast]\nsteps = 8\nscheduler = euler\n"
                               "[preset big.2]\nwidth = 768\ntoken = x\n"
                               "  [preset empty]\n"
                               "[defaults]\nseed = 7\n";
    struct config c;
    struct fault f;

    (void)state;
    assert_int_equal(parse(text, &c, &f), 0);
    assert_int_equal(c.preset_count, 3);
    const struct request *fast = config_find_preset(&c, "fast");
    assert_non_null(fast);
    assert_int_equal(fast->steps, 8);
    assert_int_equal(fast->scheduler, SCHEDULER_EULER);
    assert_false(request_is_set(fast, REQUEST_width));
    assert_false(request_is_set(fast, REQUEST_seed));
    assert_int_equal(config_find_preset(&c, "big.2")->width, 768);
    assert_int_equal(config_find_preset(&c, "empty")->set, 0);
    assert_null(config_find_preset(&c, "none"));
    assert_null(config_find_preset(&c, ""));
    assert_int_equal(c.warning_count, 1);
    assert_string_equal(c.warnings[0],
                        "x.conf:6: [preset big.2] token: belongs to one job alone, ignoring");
    config_done(&c);
}

static void test_bad_presets(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"[preset a b]\nsteps = 8\n", "x.conf:1: [preset a b]: want a name"},
        {"[preset ]\n", "x.conf:1: [preset ]: want a name"},
        {"\n[preset .hidden]\n", "x.conf:2: [preset .hidden]: want a name"},
        {"[preset über]\n", "x.conf:1: [preset über]: want a name"},
        {"[preset 12345678901234567890123456789012345678901]\n", "x.conf:1: [preset 1234567890"},
        {"[preset x]\nsteps = 0\n", "x.conf:2: [preset x] steps: 0 is outside"},
        {"[preset x]\nsteps = 8\n\n[preset x]\n", "x.conf:4: [preset x] was begun in line 1"},
    };
    char many[CONFIG_PRESETS_MAX * 16 + 16];
    struct config c;
    struct fault f;
    int n = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(parse(rows[i].text, &c, &f), -EINVAL);
        if (strncmp(f.text, rows[i].want, strlen(rows[i].want)) != 0)
            fail_msg("\"%s\", want \"%s\"", f.text, rows[i].want);
    }
    for (unsigned i = 0; i < CONFIG_PRESETS_MAX; i++)
        n += snprintf(many + n, sizeof many - (size_t)n, "[preset p%u]\n", i);
    assert_int_equal(parse(many, &c, &f), 0);
    config_done(&c);
    (void)snprintf(many + n, sizeof many - (size_t)n, "[preset more]\n");
    assert_int_equal(parse(many, &c, &f), -EINVAL);
    assert_string_equal(f.text, "x.conf:65: [preset more]: more than 64 presets");
}

static void test_models(void **state)
{
    static const char text[] = "[model]\npath = models/sd15/\nloras = l\n[model wide.2]\npath = w\n"
                               "[model other]\npath = /o\nkind = x\n";
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"[model x]\n", "x.conf:1: [model x]: path is missing"},
        {"[model x]\npath =\n", "x.conf:1: [model x]: path is missing"},
        {"[model x]\npath = a\n[model x]\npath = b\n", "x.conf:3: [model x] was begun in line 1"},
        {"[model a/b]\npath = a\n", "x.conf:1: [model a/b]: want a name"},
        {"[model]\npath = d/same\n[model same]\npath = b\n",
         "x.conf:3: [model same]: the default model's directory has this name"},
    };
    char name[CONFIG_NAME_MAX + 1];
    struct config c;
    struct fault f;

    (void)state;
    assert_int_equal(parse(text, &c, &f), 0);
    assert_int_equal(c.model_count, 2);
    assert_string_equal(c.models[0].name, "wide.2");
    assert_non_null(strstr(c.models[0].path, "/w")); /* from the file's directory */
    assert_string_equal(c.models[1].path, "/o");
    assert_int_equal(c.warning_count, 1);
    assert_string_equal(c.warnings[0], "x.conf:8: unknown key \"kind\" in [model other], ignoring");
    config_default_model(&c, name, sizeof name);
    assert_string_equal(name, "sd15");
    config_done(&c);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(parse(rows[i].text, &c, &f), -EINVAL);
        if (strncmp(f.text, rows[i].want, strlen(rows[i].want)) != 0)
            fail_msg("\"%s\", want \"%s\"", f.text, rows[i].want);
    }
}

/* inih alone cuts lines at 200 bytes without a word. */
static void test_long_lines(void **state)
{
    static char text[70000];
    struct config c;
    struct fault f;

    (void)state;
    int n = snprintf(text, sizeof text, "[defaults]\nnegative_prompt = ");
    memset(text + n, 'x', 16384);
    assert_int_equal(parse(text, &c, &f), 0);
    assert_int_equal(strlen(c.defaults.negative_prompt), 16384);
    config_done(&c);
    memset(text + n, 'x', 68000);
    assert_int_equal(parse(text, &c, &f), -EINVAL);
    assert_non_null(strstr(f.text, "x.conf:2: line longer"));
    n = snprintf(text, sizeof text, "[model]\npath = /");
    memset(text + n, 'x', 5000);
    text[n + 5000] = '\0';
    assert_int_equal(parse(text, &c, &f), -EINVAL);
    assert_string_equal(f.text, "x.conf:2: [model] path: path too long");
}

static void test_words(void **state)
{
    char word[16];

    (void)state;
    assert_string_equal(config_word("device", "allow_cpu", 2, word, sizeof word), "no");
    assert_string_equal(config_word("png", "metadata", 0, word, sizeof word), "full");
    assert_string_equal(config_word("png", "metadata", 9, word, sizeof word), "");
}

static void test_shipped_file(void **state)
{
    struct config c, built_in;
    struct fault f = {0};

    (void)state;
    assert_int_equal(config_read("etc/diffused.conf", &c, &f), 0);
    assert_int_equal(config_init(&built_in), 0);
    assert_int_equal(c.warning_count, 0);
    for (int when = CONFIG_WHEN_LIVE; when <= CONFIG_WHEN_RESTART; when++)
        assert_int_equal(config_changes(&built_in, &c, (enum config_when)when, NULL, 0), 0);
    config_done(&built_in);
    config_done(&c);
    assert_int_equal(config_read("etc/no-such.conf", &c, &f), -ENOENT);
    assert_non_null(strstr(f.text, "etc/no-such.conf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_built_in),
        cmocka_unit_test(test_every_row),
        cmocka_unit_test(test_errors_name_the_line),
        cmocka_unit_test(test_nul_is_refused),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_warnings_are_bounded),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_bad_presets),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_shipped_file),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
