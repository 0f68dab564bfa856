/* diffusectl against the daemon with the fake worker on a private bus: exit codes, words, files. */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "daemon/picture.h"
#include "tests/support/build.h"
#include "tests/support/service.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static int setup(void **state)
{
    static struct service service;

    *state = &service;
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "5", 1);
    (void)setenv("DIFFUSED_FAKE_TELL", "1", 1);
    return service_start(&service, "[model wide]\npath = wide\n[defaults]\nsteps = 4\n");
}

static int teardown(void **state)
{
    service_stop(*state);
    return 0;
}

static void run(const struct service *s, const char *const *arguments, const char *input,
                struct command_result *ret)
{
    struct command c = {
        .name = "diffusectl", .arguments = arguments, .input = input, .directory = s->directory};

    assert_int_equal(command_start(&c), 0);
    command_finish(&c, ret);
}

/* Expects an exit status and, in order, words on standard error. */
static void expect(const struct service *s, const char *const *arguments, const char *input,
                   int status, const char *words)
{
    struct command_result r;

    run(s, arguments, input, &r);
    if (r.status != status || (words && !strstr(r.err, words)))
        print_error("%s %s: status %d, want %d\n%s%swant: %s\n", arguments[0],
                    arguments[1] ? arguments[1] : "", r.status, status, r.out, r.err,
                    words ? words : "");
    assert_int_equal(r.status, status);
    if (words)
        assert_non_null(strstr(r.err, words));
    command_result_done(&r);
}

static json_t *run_json(const struct service *s, const char *const *arguments)
{
    struct command_result r;
    json_error_t error;

    run(s, arguments, NULL, &r);
    assert_int_equal(r.status, 0);
    json_t *json = json_loads(r.out, 0, &error);
    if (!json)
        print_error("%s: %s\n", error.text, r.out);
    assert_non_null(json);
    command_result_done(&r);
    return json;
}

static void check_png(const struct service *s, const char *name, uint32_t width, uint32_t height)
{
    _cleanup_(freep) char *data = NULL;
    _cleanup_(picture_done) struct picture picture = {0};
    char path[256];
    size_t size;

    (void)snprintf(path, sizeof path, "%s/%s", s->directory, name);
    assert_int_equal(file_read(path, 1 << 24, &data, &size, NULL), 0);
    assert_int_equal(picture_decode(name, data, size, &picture, NULL), 0);
    assert_int_equal(picture.width, width);
    assert_int_equal(picture.height, height);
}

/* Queues a job and returns its number as text. */
static void queue(const struct service *s, const char *steps, char id[24])
{
    struct command_result r;

    run(s, ARGS("generate", "slow", "--steps", steps, "--no-wait"), NULL, &r);
    assert_int_equal(r.status, 0);
    (void)snprintf(id, 24, "%.*s", (int)strcspn(r.out, "\n"), r.out);
    assert_true(strtoull(id, NULL, 10) > 0);
    command_result_done(&r);
}

static void test_usage(void **state)
{
    static const struct {
        const char *arguments[6];
        const char *words;
    } rows[] = {
        {{"conjure"}, "no verb 'conjure'"},
        {{"generate"}, "PROMPT is missing"},
        {{"generate", "a", "b"}, "quotes"},
        {{"generate", "a", "--prompt-file", "b"}, "two prompts"},
        {{"generate", "a", "--bogus"}, "--bogus"},
        {{"generate", "a", "--steps", "many"}, "steps 'many': want a whole number"},
        {{"generate", "a", "--steps", "-1"}, "steps '-1'"},
        {{"generate", "a", "--seed", "18446744073709551616"}, "seed '18446744073709551616'"},
        {{"generate", "a", "--guidance-scale", "nan"}, "guidance_scale 'nan': want a number"},
        {{"generate", "a", "--size", "64"}, "WIDTHxHEIGHT"},
        {{"generate", "\xff"}, "UTF-8"},
        {{"show"}, "ID is missing"},
        {{"show", "x"}, "'x' is no job number"},
        {{"show", "1", "2"}, "one ID"},
        {{"cancel"}, "ID is missing"},
        {{"cancel", "--all", "1"}, "not both"},
        {{"wait", "1", "--timeout", "soon"}, "want a time, like 90s"},
        {{"generate", "a", "--deadline", "-5s"}, "deadline '-5s': want a time"},
        {{"generate", "a", "--deadline", "5 parsecs"}, "want a time"},
        {{"generate", "a", "--deadline", "nan"}, "want a time"},
        {{"generate", "a", "--ephemeral=maybe"}, "want yes or no"},
        {{"pause", "now"}, "what is 'now'?"},
        {{"status", "now"}, "what is 'now'?"},
        {{"explain", "--model", "m", "--size", "big"}, "WIDTHxHEIGHT"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        expect(*state, rows[i].arguments, NULL, 2, rows[i].words);
}

static void test_help(void **state)
{
    static const char *const verbs[] = {"generate", "list",  "show",   "cancel", "wait",    "get",
                                        "delete",   "watch", "status", "models", "devices", "bench",
                                        "explain",  "pause", "resume", "reload", NULL};
    struct command_result general, r;

    run(*state, ARGS("--help"), NULL, &general);
    assert_int_equal(general.status, 0);
    for (size_t i = 0; verbs[i]; i++) {
        assert_non_null(strstr(general.out, verbs[i]));
        run(*state, ARGS(verbs[i], "--help"), NULL, &r);
        assert_int_equal(r.status, 0);
        assert_non_null(strstr(r.out, verbs[i]));
        command_result_done(&r);
    }
    command_result_done(&general);
}

static void test_generate(void **state)
{
    const struct service *s = *state;
    struct command_result r;
    char name[64];

    run(s, ARGS("generate", "a fox", "--seed", "1", "--size", "72x104"), NULL, &r);
    assert_int_equal(r.status, 0);
    assert_int_equal(sscanf(r.out, "./diffused-%63s", name), 1);
    assert_non_null(strstr(r.err, "step 5/5"));
    assert_null(strchr(r.err, '\r'));
    r.out[strcspn(r.out, "\n")] = '\0';
    check_png(s, r.out, 72, 104);
    command_result_done(&r);

    run(s, ARGS("generate", "--prompt-file", "-", "-o", "out.png", "--count", "2"), "a\nfox\n", &r);
    assert_int_equal(r.status, 0);
    assert_string_equal(r.out, "out-0.png\nout-1.png\n");
    assert_non_null(strstr(r.err, "picture 2/2"));
    check_png(s, "out-0.png", 64, 64);
    check_png(s, "out-1.png", 64, 64);
    command_result_done(&r);

    run(s, ARGS("generate", "fox", "-o", "one.png"), NULL, &r);
    assert_string_equal(r.out, "one.png\n");
    command_result_done(&r);
    run(s, ARGS("generate", "fox", "-o", "-"), NULL, &r);
    assert_memory_equal(r.out, "\x89PNG\r\n\x1a\n", 8);
    command_result_done(&r);
    expect(s, ARGS("generate", "fox", "-o", "/nowhere/x.png"), NULL, 1, "/nowhere/x.png");
    expect(s, ARGS("generate", "fox", "-o", "/dev/null"), NULL, 0, NULL);
    struct stat st;
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
}

static void test_refused(void **state)
{
    static const struct {
        const char *arguments[6];
        const char *words;
    } rows[] = {
        {{"generate", "a", "--steps", "0"}, "steps"},
        {{"generate", "a", "--steps", "501"}, "steps"},
        {{"generate", "a", "--size", "7x7"}, "width"},
        {{"generate", "a", "--size", "100000x100000"}, "width"},
        {{"generate", "a", "--size", "68x64"}, "multiple"},
        {{"generate", "a", "--scheduler", "\x1b[31m\xe2\x80\xae"}, "\\x1b[31m\\u202e"},
        {{"list", "--state", "sleeping"}, "sleeping"},
    };
    char *huge = malloc((10 << 20) + 1);

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        expect(*state, rows[i].arguments, NULL, 4, rows[i].words);
    memset(huge, 'a', 10 << 20);
    huge[10 << 20] = '\0';
    expect(*state, ARGS("generate", "--prompt-file", "-"), huge, 4, "16384");
    free(huge);
}

static void test_not_found(void **state)
{
    static const char *const verbs[] = {"show", "cancel", "wait", "get", "delete", "watch", NULL};

    for (size_t i = 0; verbs[i]; i++)
        expect(*state, ARGS(verbs[i], "999999"), NULL, 10, "999999");
}

static void test_unreachable(void **state)
{
    char *address = strdup(getenv("DBUS_SYSTEM_BUS_ADDRESS"));

    assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere", 1), 0);
    expect(*state, ARGS("status"), NULL, 8, "DBUS_SYSTEM_BUS_ADDRESS");
    expect(*state, ARGS("generate", "fox"), NULL, 8, "bus");
    assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1), 0);
    free(address);
}

static void test_life(void **state)
{
    const struct service *s = *state;
    char running[24], waiting[24];

    queue(s, "400", running);
    queue(s, "400", waiting);
    expect(s, ARGS("wait", waiting, "--timeout", "200ms"), NULL, 3, "is still queued");
    expect(s, ARGS("get", running), NULL, 4, NULL);
    expect(s, ARGS("delete", running), NULL, 4, NULL);
    expect(s, ARGS("cancel", waiting), NULL, 0, NULL);
    expect(s, ARGS("wait", waiting), NULL, 1, "was cancelled");
    expect(s, ARGS("cancel", "--all"), NULL, 0, NULL);
    expect(s, ARGS("wait", running), NULL, 1, "was cancelled");
    expect(s, ARGS("cancel", running), NULL, 0, NULL);
    expect(s, ARGS("delete", running, waiting), NULL, 0, NULL);
    expect(s, ARGS("show", running), NULL, 10, NULL);
}

static void test_json(void **state)
{
    const struct service *s = *state;
    struct command_result r;
    char id[24], *line;
    json_t *job, *list, *status, *models;

    run(s, ARGS("generate", "\"fox\" \\ \xe2\x80\xae", "--no-wait", "--seed", "7"), NULL, &r);
    (void)snprintf(id, sizeof id, "%.*s", (int)strcspn(r.out, "\n"), r.out);
    command_result_done(&r);
    job = run_json(s, ARGS("wait", id, "--json"));
    assert_string_equal(json_string_value(json_object_get(job, "State")), "done");
    assert_int_equal(json_integer_value(json_object_get(job, "ResultCount")), 1);
    json_t *request = json_object_get(job, "Request");
    assert_string_equal(json_string_value(json_object_get(request, "prompt")),
                        "\"fox\" \\ \xe2\x80\xae");
    assert_int_equal(json_integer_value(json_object_get(request, "seed")), 7);
    json_decref(job);

    list = run_json(s, ARGS("list", "--json", "--state", "done", "--limit", "1"));
    assert_int_equal(json_array_size(list), 1);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "Id")), atoi(id));
    json_decref(list);

    status = run_json(s, ARGS("status", "--json"));
    assert_string_equal(json_string_value(json_object_get(status, "State")), "ready");
    assert_true(json_is_array(json_object_get(status, "Options")));
    json_decref(status);
    models = run_json(s, ARGS("models", "--json"));
    assert_non_null(json_object_get(models, "model"));
    json_decref(models);

    run(s, ARGS("watch", id, "--json"), NULL, &r);
    assert_int_equal(r.status, 0);
    line = r.out;
    line[strcspn(line, "\n")] = '\0';
    json_t *event = json_loads(line, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(event, "State")), "done");
    json_decref(event);
    command_result_done(&r);
}

/* Rows with a notation of their own: what arrives at the daemon. */
static void test_rows(void **state)
{
    static const struct {
        const char *arguments[3];
        const char *key;
        json_int_t want;
    } rows[] = {
        {{"--deadline", "90"}, "deadline", 90000000},
        {{"--deadline=1h 30min"}, "deadline", 5400000000},
        {{"--deadline", "1.5s"}, "deadline", 1500000},
        {{"--deadline", "2d"}, "deadline", 172800000000},
    };
    const struct service *s = *state;
    struct command_result r;
    char id[24];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        run(s, ARGS("generate", "fox", "--no-wait", rows[i].arguments[0], rows[i].arguments[1]),
            NULL, &r);
        assert_int_equal(r.status, 0);
        (void)snprintf(id, sizeof id, "%.*s", (int)strcspn(r.out, "\n"), r.out);
        command_result_done(&r);
        json_t *job = run_json(s, ARGS("wait", id, "--json"));
        json_t *request = json_object_get(job, "Request");
        assert_int_equal(json_integer_value(json_object_get(request, rows[i].key)), rows[i].want);
        json_decref(job);
    }
    run(s, ARGS("generate", "fox", "--no-wait", "--ephemeral", "--token", "t1"), NULL, &r);
    assert_int_equal(r.status, 0);
    (void)snprintf(id, sizeof id, "%.*s", (int)strcspn(r.out, "\n"), r.out);
    command_result_done(&r);
    json_t *job = run_json(s, ARGS("wait", id, "--json"));
    json_t *request = json_object_get(job, "Request");
    assert_true(json_is_true(json_object_get(request, "ephemeral")));
    json_decref(job);
    expect(s, ARGS("generate", "fox", "--deadline", "1ms", "--steps", "400"), NULL, 1, "cancelled");
}

/* Whether the text of `diffusectl status` has this line. */
static bool status_says(const struct service *s, const char *line)
{
    struct command_result r;

    run(s, ARGS("status"), NULL, &r);
    assert_int_equal(r.status, 0);
    bool found = strstr(r.out, line) != NULL;
    if (!found)
        print_message("%s", r.out);
    command_result_done(&r);
    return found;
}

static bool exists(const struct service *s, const char *name)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", s->directory, name);
    return access(path, F_OK) == 0;
}

/* Pictures go in as descriptors; the fake engine says, as a warning, what reached it. */
static void test_pictures(void **state)
{
    const struct service *s = *state;
    char path[256];

    expect(s, ARGS("generate", "fox", "-o", "first.png", "--size", "72x40"), NULL, 0, NULL);
    expect(s,
           ARGS("generate", "dog", "--image", "first.png", "--mask", "first.png", "--strength",
                "0.25", "-o", "second.png"),
           NULL, 0, "image 72x40, mask 72x40, strength 0.25");
    check_png(s, "second.png", 72, 40);
    expect(s, ARGS("generate", "dog", "--image", "none.png"), NULL, 1, "none.png: No such file");
    expect(s, ARGS("generate", "dog", "--image", "."), NULL, 1, ".: Is a directory");
    expect(s, ARGS("generate", "dog", "--image", "-"), "", 1, "standard input: the file is empty");
    expect(s, ARGS("generate", "dog", "--image", "-"), "not a picture", 4, "neither a PNG");
    expect(s, ARGS("generate", "dog", "--image", "diffused.conf"), NULL, 4, "neither a PNG");
    expect(s, ARGS("generate", "dog", "--mask", "first.png"), NULL, 4, "mask: there is no image");
    expect(s, ARGS("generate", "dog", "--image", "first.png", "--image", "first.png"), NULL, 2,
           "image: two pictures are given");

    (void)snprintf(path, sizeof path, "%s/strip", s->directory);
    assert_int_equal(mkdir(path, 0755), 0);
    expect(s, ARGS("generate", "fox", "--steps", "20", "--preview", "strip", "-o", "a.png"), NULL,
           0, NULL);
    assert_true(exists(s, "strip/preview-0-005.png") || exists(s, "strip/preview-0-010.png"));
    expect(s,
           ARGS("generate", "fox", "--steps", "20", "--preview", "look.png", "--preview-steps", "2",
                "-o", "a.png"),
           NULL, 0, NULL);
    check_png(s, "look.png", 8, 8);
    expect(s, ARGS("generate", "fox", "--preview", "look.png", "--no-wait"), NULL, 2,
           "--preview goes with waiting");
}

static void test_prompts(void **state)
{
    const struct service *s = *state;

    expect(s, ARGS("generate", "--prompts", "a fox", "--prompts", "a | dog", "-o", "p.png"), NULL,
           0, "prompts 2");
    assert_true(exists(s, "p-0.png") && exists(s, "p-1.png") && !exists(s, "p-2.png"));
    expect(s, ARGS("generate", "--prompts", "a|b|c", "-o", "q.png"), NULL, 0, "prompts 3");
    expect(s, ARGS("generate", "--prompts-file", "-", "-o", "r.png"), "one\r\n\ntwo|2\n", 0,
           "prompts 2");
    assert_true(exists(s, "r-1.png") && !exists(s, "r-2.png"));
    expect(s, ARGS("generate", "x", "--prompts", "a"), NULL, 2, "two prompts are given");
    expect(s, ARGS("generate", "--prompts", "\xff"), NULL, 2, "UTF-8");
}

static void test_models(void **state)
{
    const struct service *s = *state;
    struct command_result r;

    run(s, ARGS("models"), NULL, &r);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "model\n"));
    assert_non_null(strstr(r.out, "wide\n"));
    command_result_done(&r);
    expect(s, ARGS("generate", "fox", "--model", "wide", "-o", "w.png"), NULL, 0, "model wide,");
    check_png(s, "w.png", 128, 64);
    expect(s, ARGS("generate", "fox", "--model", "tall"), NULL, 4, "there are: model, wide");
    expect(s, ARGS("model", "load", "wide"), NULL, 0, NULL);
    assert_true(status_says(s, "Model            wide\n"));
    expect(s, ARGS("model", "unload"), NULL, 0, NULL);
    expect(s, ARGS("model", "load", "tall"), NULL, 10, "\"tall\" is not configured");
    expect(s, ARGS("model", "load", "a", "b"), NULL, 2, "one NAME");
    expect(s, ARGS("model", "load"), NULL, 0, NULL);
    assert_true(status_says(s, "Model            model\n"));
}

static void test_orders(void **state)
{
    const struct service *s = *state;
    char id[24], path[128];
    _cleanup_(freep) char *config = NULL;
    size_t size;

    expect(s, ARGS("pause"), NULL, 0, NULL);
    assert_true(status_says(s, "State            paused\n"));
    queue(s, "4", id);
    expect(s, ARGS("wait", id, "--timeout", "300ms"), NULL, 3, "is still queued");
    expect(s, ARGS("resume"), NULL, 0, NULL);
    expect(s, ARGS("wait", id), NULL, 0, NULL);
    assert_true(status_says(s, "Degraded         no\n"));
    assert_true(status_says(s, "\nDropDirectory    "));
    assert_true(status_says(s, "\nCounters\n"));
    json_t *status = run_json(s, ARGS("status", "--json"));
    assert_true(json_object_size(json_object_get(status, "Counters")) > 3);
    json_decref(status);

    expect(s, ARGS("reload"), NULL, 0, NULL);
    (void)snprintf(path, sizeof path, "%s/diffused.conf", s->directory);
    assert_int_equal(file_read(path, 1 << 16, &config, &size, NULL), 0);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    assert_true(fputs("[limits]\nqueue = many\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    expect(s, ARGS("reload"), NULL, 4, "diffused.conf:");
    assert_int_equal(file_write_atomic(path, config, size, NULL), 0);
    expect(s, ARGS("reload"), NULL, 0, NULL);
}

static void test_text(void **state)
{
    const struct service *s = *state;
    struct command_result r;
    char id[24];

    run(s, ARGS("generate", "red \x1b[31m\xe2\x80\xaetxt", "--no-wait"), NULL, &r);
    (void)snprintf(id, sizeof id, "%.*s", (int)strcspn(r.out, "\n"), r.out);
    command_result_done(&r);
    expect(s, ARGS("wait", id), NULL, 0, NULL);
    run(s, ARGS("show", id), NULL, &r);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "red \\x1b[31m\\u202etxt\n"));
    assert_null(strchr(r.out, '\x1b'));
    command_result_done(&r);
}

static void test_watch(void **state)
{
    const struct service *s = *state;
    struct command_result r;
    char id[24];

    queue(s, "60", id);
    run(s, ARGS("watch", id), NULL, &r);
    assert_int_equal(r.status, 0);
    assert_non_null(strstr(r.out, "step 61/61"));
    assert_non_null(strstr(r.out, "  done\n"));
    command_result_done(&r);
}

/* Waits until a running program's standard error holds `words`. */
static void await_words(const struct command *c, const char *words)
{
    char text[8192];

    for (int i = 0; i < 1000; i++) {
        ssize_t n = pread(c->err, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        if (strstr(text, words))
            return;
        (void)usleep(10000);
    }
    fail_msg("'%s' does not come: %s", words, text);
}

static void test_interrupt(void **state)
{
    const struct service *s = *state;
    struct command c = {.name = "diffusectl",
                        .directory = s->directory,
                        .arguments = ARGS("generate", "slow", "--steps", "400")};
    struct command_result r;
    unsigned long long id;

    assert_int_equal(command_start(&c), 0);
    await_words(&c, "  step ");
    assert_int_equal(kill(c.pid, SIGINT), 0);
    command_finish(&c, &r);
    assert_int_equal(r.status, 1);
    assert_string_equal(r.out, "");
    char *words = strstr(r.err, "cancelling job ");
    assert_non_null(words);
    assert_int_equal(sscanf(words, "cancelling job %llu", &id), 1);
    assert_non_null(strstr(words, "was cancelled"));
    command_result_done(&r);
}

/* What the program writes to a terminal of 80 columns; malloc'd. */
static char *run_on_terminal(const struct service *s, const char *const *arguments, int *ret_status)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    char path[4096], *argv[16] = {(char *)"diffusectl"}, *text = calloc(1, 1 << 16);
    size_t n = 0;
    ssize_t got;
    int master;

    build_path("diffusectl", path, sizeof path);
    for (size_t i = 0; arguments[i]; i++)
        argv[i + 1] = (char *)arguments[i];
    pid_t pid = forkpty(&master, NULL, NULL, &size);
    if (pid < 0) {
        (void)printf("no pseudo terminals here: %s\n", strerror(errno));
        skip();
    }
    if (pid == 0) {
        if (chdir(s->directory) == 0)
            (void)execv(path, argv);
        _exit(127);
    }
    while (n < (1 << 16) - 1 && (got = read(master, text + n, (1 << 16) - 1 - n)) > 0)
        n += (size_t)got;
    (void)close(master);
    assert_int_equal(waitpid(pid, ret_status, 0), pid);
    return text;
}

static void test_terminal(void **state)
{
    const struct service *s = *state;
    int status;

    (void)setenv("TERM", "xterm", 1);
    (void)unsetenv("NO_COLOR");
    char *text = run_on_terminal(s, ARGS("generate", "fox", "-o", "tty.png"), &status);
    assert_int_equal(status, 0);
    assert_non_null(strstr(text, "\r\033[Kjob "));
    assert_non_null(strstr(text, "\033[32m="));
    assert_non_null(strstr(text, "step 5/5"));
    assert_non_null(strstr(text, "100 %"));
    assert_non_null(strstr(text, "\r\033[Kdiffusectl: warning")); /* the bar is gone before that */
    assert_non_null(strstr(text, "\ntty.png\r\n"));
    free(text);

    (void)setenv("NO_COLOR", "1", 1);
    text = run_on_terminal(s, ARGS("generate", "fox", "-o", "tty.png"), &status);
    assert_non_null(strstr(text, "step 5/5"));
    assert_null(strstr(text, "\033[3"));
    free(text);
    (void)unsetenv("NO_COLOR");

    (void)setenv("TERM", "dumb", 1);
    text = run_on_terminal(s, ARGS("generate", "fox", "-o", "tty.png"), &status);
    assert_null(strchr(text, '\033'));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),     cmocka_unit_test(test_help),
        cmocka_unit_test(test_generate),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_found), cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_life),      cmocka_unit_test(test_json),
        cmocka_unit_test(test_rows),      cmocka_unit_test(test_orders),
        cmocka_unit_test(test_text),      cmocka_unit_test(test_watch),
        cmocka_unit_test(test_interrupt), cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_pictures),  cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_models),
    };

    return cmocka_run_group_tests_name("diffusectl", tests, setup, teardown);
}
