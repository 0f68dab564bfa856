/* diffusectl doctor over made-up installations: each thing that is broken gets its line, with a way
 * to mend it; what works gets none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "tests/support/service.h"
#include "vk/base/cleanup.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define MODEL     "tests/golden/models/two"

static int setup(void **state)
{
    static struct service service;

    *state = &service;
    return service_start(&service, NULL);
}

static int teardown(void **state)
{
    service_stop(*state);
    return 0;
}

static json_t *examine(const char *const *arguments, int *ret_status)
{
    struct command c = {.name = "diffusectl", .arguments = arguments};
    struct command_result r;

    assert_int_equal(command_start(&c), 0);
    command_finish(&c, &r);
    json_t *page = json_loads(r.out, 0, NULL);
    if (!page)
        fail_msg("status %d: %s%s", r.status, r.out, r.err);
    *ret_status = r.status;
    command_result_done(&r);
    return page;
}

/* Whether the page has a line of this check and level that holds `words`, and a way to mend it. */
static bool has_line(const json_t *page, const char *check, const char *level, const char *words)
{
    const json_t *line;
    size_t i;

    json_array_foreach(page, i, line)
    {
        const char *mend = json_string_value(json_object_get(line, "Mend"));
        if (strcmp(json_string_value(json_object_get(line, "Check")), check) == 0 &&
            strcmp(json_string_value(json_object_get(line, "Level")), level) == 0 &&
            strstr(json_string_value(json_object_get(line, "Text")), words))
            return strcmp(level, "FAIL") != 0 || *mend;
    }
    return false;
}

static void expect(const json_t *page, const char *check, const char *level, const char *words)
{
    char *text = NULL;

    if (!has_line(page, check, level, words)) {
        text = json_dumps(page, JSON_INDENT(1));
        print_error("%s\n", text);
        fail_msg("no line '%s' '%s' '%s'", check, level, words);
    }
    free(text);
}

/* A folder for --devel with a configuration made by a shell command that stands in it ($MODEL is
 * the small model); then the doctor's page. */
struct broken {
    const char *command, *check, *level, *words;
};

static void check_broken(const struct broken *b)
{
    char folder[] = "/tmp/diffused-doctor-XXXXXX", line[1024];
    int status;

    assert_non_null(mkdtemp(folder));
    (void)snprintf(line, sizeof line,
                   "MODEL=$PWD/" MODEL "; cd %s && printf \"[model]\\npath = $MODEL\\n\" "
                   ">diffused.conf && %s",
                   folder, b->command);
    assert_int_equal(system(line), 0);
    json_t *page = examine(ARGS("doctor", "--devel", folder, "--json"), &status);
    expect(page, b->check, b->level, b->words);
    if (strcmp(b->level, "FAIL") == 0)
        assert_int_equal(status, 1);
    json_decref(page);
    (void)snprintf(line, sizeof line, "rm -rf %s", folder);
    assert_int_equal(system(line), 0);
}

static void test_broken(void **state)
{
    static const struct broken rows[] = {
        {"echo 'queue = 7' >>diffused.conf", "configuration", "WARN", "diffused.conf:3"},
        {"printf '[limits]\\nqueue = many\\n' >>diffused.conf", "configuration", "FAIL",
         "diffused.conf:4"},
        {"rm diffused.conf", "configuration", "FAIL", "diffused.conf: No such file"},
        {": >diffused.conf", "model", "FAIL", "names none"},
        {"echo 'path = /nowhere' >diffused.conf; sed -i '1i[model]' diffused.conf", "model", "FAIL",
         "/nowhere"},
        {"cp -r $MODEL m && printf '[model]\\npath = m\\n' >diffused.conf && "
         "rm m/unet/*.safetensors && touch m/unet/x.bin",
         "model", "FAIL", "only pickles"},
        {"cp -r $MODEL m && printf '[model]\\npath = m\\n' >diffused.conf && "
         "(cd m && sha256sum */* *.json >SHA256SUMS && echo >>vae/config.json)",
         "hashes", "FAIL", "vae/config.json: damaged"},
        {"cp -r $MODEL m && printf '[model]\\npath = m\\n' >diffused.conf && "
         "(cd m && sha256sum */* *.json >SHA256SUMS)",
         "hashes", "OK", "SHA256SUMS"},
        {"cp -r $MODEL m && printf '[model]\\npath = m\\n' >diffused.conf && "
         "chmod o+w m/vae/config.json",
         "hashes", "WARN", "mode 0646"},
        {"touch spool", "spool", "FAIL", "not a directory"},
        {"mkdir -m 0777 spool", "spool", "WARN", "mode 0777"},
        {"mkdir -m 0700 spool; printf '[spool]\\nkeep_free_megabytes = 1073741824\\n' "
         ">>diffused.conf",
         "spool", "FAIL", "no job is taken in"},
        {"mkdir -m 0700 spool", "spool", "OK", "MiB free"},
    };

    (void)state;
    assert_int_equal(setenv("VK_ICD_FILENAMES", "/nonexistent", 1), 0);
    assert_int_equal(setenv("VK_DRIVER_FILES", "/nonexistent", 1), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        check_broken(&rows[i]);
}

/* A running daemon, then no device, then no bus. */
static void test_service(void **state)
{
    const struct service *s = *state;
    int status;

    json_t *page = examine(ARGS("doctor", "--devel", s->directory, "--json"), &status);
    expect(page, "configuration", "OK", "good");
    expect(page, "bus", "OK", "is owned");
    expect(page, "daemon", "OK", "ready");
    expect(page, "spool", "OK", "MiB free");
    expect(page, "device", "FAIL", "no Vulkan device"); /* of the test before */
    json_decref(page);

    char *address = strdup(getenv("DBUS_SYSTEM_BUS_ADDRESS"));
    assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere", 1), 0);
    page = examine(ARGS("doctor", "--devel", s->directory, "--json", "--quick"), &status);
    expect(page, "bus", "FAIL", "cannot be reached");
    expect(page, "daemon", "SKIP", "no daemon");
    assert_int_equal(status, 1);
    json_decref(page);
    assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1), 0);
    free(address);
}

/* The lines for people: a word, the check, the text, an arrow. */
static void test_text(void **state)
{
    struct command c = {.name = "diffusectl", .arguments = ARGS("doctor", "--devel", "/nowhere")};
    struct command_result r;

    (void)state;
    assert_int_equal(command_start(&c), 0);
    command_finish(&c, &r);
    assert_int_equal(r.status, 1);
    assert_memory_equal(r.out, "FAIL  configuration  ", 21);
    assert_non_null(strstr(r.out, " -> "));
    assert_null(strchr(r.out, '\033'));
    command_result_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_service),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests_name("doctor", tests, setup, teardown);
}
