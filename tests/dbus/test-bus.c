/* bus: a private bus, the daemon with the fake worker: from Submit to the picture, and every
 * refusal with the words a user reads. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"
#include "vk/pipeline/request.h"

#define ALL_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct picture {
    uint8_t *data;
    size_t size;
    char path[512], sha256[72];
    uint64_t seed;
    uint32_t width, height, stride, prompt_index;
    int checked, nsfw, blackened;
    unsigned scores;
};

static void read_scores(sd_bus_message *reply, struct picture *p)
{
    const void *scores;
    size_t bytes;

    assert_true(sd_bus_message_enter_container(reply, 'v', "ad") >= 0);
    assert_true(sd_bus_message_read_array(reply, 'd', &scores, &bytes) >= 0);
    p->scores = (unsigned)(bytes / sizeof(double));
    assert_true(sd_bus_message_exit_container(reply) >= 0);
}

static void read_info(sd_bus_message *reply, struct picture *p)
{
    const char *key, *text;

    assert_true(sd_bus_message_enter_container(reply, 'a', "{sv}") >= 0);
    while (sd_bus_message_enter_container(reply, 'e', "sv") > 0) {
        assert_true(sd_bus_message_read(reply, "s", &key) >= 0);
        if (strcmp(key, "path") == 0 || strcmp(key, "sha256") == 0) {
            assert_true(sd_bus_message_read(reply, "v", "s", &text) >= 0);
            (void)snprintf(*key == 'p' ? p->path : p->sha256,
                           *key == 'p' ? sizeof p->path : sizeof p->sha256, "%s", text);
        } else if (strcmp(key, "seed") == 0) {
            assert_true(sd_bus_message_read(reply, "v", "t", &p->seed) >= 0);
        } else if (strcmp(key, "safety_scores") == 0) {
            read_scores(reply, p);
        } else if (strchr("cnb", *key)) {
            int *to = *key == 'c' ? &p->checked : *key == 'n' ? &p->nsfw : &p->blackened;
            assert_true(sd_bus_message_read(reply, "v", "b", to) >= 0);
        } else {
            uint32_t *to = *key == 'w'   ? &p->width
                           : *key == 'h' ? &p->height
                           : *key == 'p' ? &p->prompt_index
                                         : &p->stride;
            assert_true(sd_bus_message_read(reply, "v", "u", to) >= 0);
        }
        assert_true(sd_bus_message_exit_container(reply) >= 0);
    }
}

static struct picture get_result(sd_bus *client, const char *path, uint32_t index,
                                 const char *format)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *reply = NULL;
    struct picture p = {0};
    struct stat st;
    int fd;

    int r = sd_bus_call_method(client, TESTBUS_NAME, path, TESTBUS_JOB, "GetResult", &error, &reply,
                               "ua{sv}", index, 1, "format", "s", format);
    if (r < 0)
        fail_msg("GetResult: %s: %s", error.name, error.message);
    assert_true(sd_bus_message_read(reply, "h", &fd) >= 0);
    assert_int_equal(fcntl(fd, F_GET_SEALS), ALL_SEALS);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
    assert_int_equal(fstat(fd, &st), 0);
    p.size = (size_t)st.st_size;
    p.data = malloc(p.size + 1);
    assert_int_equal(read(fd, p.data, p.size + 1), p.size);
    read_info(reply, &p);
    sd_bus_message_unref(reply);
    return p;
}

static void assert_sha256(const struct picture *p)
{
    char hex[SHA256_HEX_SIZE];

    sha256_hex(p->data, p->size, hex);
    assert_string_equal(hex, p->sha256);
}

/* --- from Submit to the picture
 * ------------------------------------------------------------------- */

static void check_private_properties(sd_bus *client, const char *path)
{
    uint64_t created, started, finished, eta;
    uint32_t step, steps, count, position;
    double progress;
    char *name, *text;

    testbus_get_number(client, path, "CreatedUsec", 't', &created);
    testbus_get_number(client, path, "StartedUsec", 't', &started);
    testbus_get_number(client, path, "FinishedUsec", 't', &finished);
    testbus_get_number(client, path, "EtaUsec", 't', &eta);
    testbus_get_number(client, path, "Step", 'u', &step);
    testbus_get_number(client, path, "Steps", 'u', &steps);
    testbus_get_number(client, path, "ResultCount", 'u', &count);
    testbus_get_number(client, path, "QueuePosition", 'u', &position);
    testbus_get_number(client, path, "Progress", 'd', &progress);
    assert_true(created > 0 && created <= started && started <= finished);
    assert_true(eta == 0 && progress == 1);
    assert_int_equal(steps, 6);
    assert_int_equal(step, 6);
    assert_int_equal(count, 2);
    assert_int_equal(position, 0);
    testbus_get_error(client, path, &name, &text);
    assert_string_equal(name, "");
    assert_string_equal(text, "");
    free(name);
    free(text);
}

static void check_path(sd_bus *client, const char *job, const struct picture *p)
{
    _cleanup_(freep) char *data = NULL;
    sd_bus_message *reply = NULL;
    const char *path;
    size_t size;

    assert_true(sd_bus_call_method(client, TESTBUS_NAME, job, TESTBUS_JOB, "GetResultPath", NULL,
                                   &reply, "u", 1) >= 0);
    assert_true(sd_bus_message_read(reply, "s", &path) >= 0);
    assert_string_equal(path, p->path);
    assert_int_equal(file_read(path, 1 << 20, &data, &size, NULL), 0);
    assert_int_equal(size, p->size);
    assert_memory_equal(data, p->data, size);
    sd_bus_message_unref(reply);
}

static void test_submit_to_picture(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "a fox", job, "a{sv}", 5, "seed", "t", UINT64_C(42), "count", "u", 2,
                   "width", "u", 72, "height", "u", 40, "steps", "u", 5);
    assert_string_equal(job, TESTBUS_PATH "/job/1");
    testbus_wait_state(s->client, job, "done");
    struct picture png = get_result(s->client, job, 1, "png");
    assert_memory_equal(png.data, "\x89PNG\r\n\x1a\n", 8);
    assert_int_equal(png.seed, 43);
    assert_int_equal(png.width, 72);
    assert_int_equal(png.height, 40);
    assert_sha256(&png);
    check_path(s->client, job, &png);
    struct picture rgb = get_result(s->client, job, 1, "rgb");
    assert_int_equal(rgb.stride, 72 * 3);
    assert_int_equal(rgb.size, 72 * 40 * 3);
    assert_int_equal(rgb.data[71 * 3], 71 * 255 / 72); /* the fake's gradient */
    check_private_properties(s->client, job);
    free(png.data);
    free(rgb.data);
}

static void test_get_request_is_resolved(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];
    sd_bus_message *reply = NULL;
    const char *prompt, *key, *contents;
    unsigned rows = 0;

    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "un renard \xf0\x9f\xa6\x8a", job, "");
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, job, TESTBUS_JOB, "GetRequest", NULL,
                                   &reply, "") >= 0);
    assert_true(sd_bus_message_read(reply, "s", &prompt) >= 0);
    assert_string_equal(prompt, "un renard \xf0\x9f\xa6\x8a");
    assert_true(sd_bus_message_enter_container(reply, 'a', "{sv}") >= 0);
    while (sd_bus_message_enter_container(reply, 'e', "sv") > 0) {
        assert_true(sd_bus_message_read(reply, "s", &key) >= 0);
        assert_true(sd_bus_message_peek_type(reply, NULL, &contents) >= 0);
        if (strcmp(key, "steps") == 0) {
            uint32_t steps = 0;
            assert_true(sd_bus_message_read(reply, "v", "u", &steps) >= 0);
            assert_int_equal(steps, 4); /* [defaults] of the configuration */
        } else {
            assert_true(sd_bus_message_skip(reply, "v") >= 0);
        }
        assert_true(sd_bus_message_exit_container(reply) >= 0);
        rows++;
    }
    /* all but prompt and the pictures, the drawn seed among them */
    assert_int_equal(rows, REQUEST_ROW_COUNT - 3);
    sd_bus_message_unref(reply);
}

static void test_submit_while_loading(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_LOAD_MSEC", "1000", 1);
    testbus_start_daemon(s, "loading");
    testbus_submit(s->client, "early", job, "");
    testbus_wait_state(s->client, job, "queued");
    testbus_wait_state(s->client, TESTBUS_PATH, "loading");
    testbus_wait_state(s->client, job, "done");
}

static void test_bad_model_is_a_state(void **state)
{
    struct testbus *s = *state;
    sd_bus_error error = SD_BUS_ERROR_NULL;

    (void)setenv("DIFFUSED_FAKE_FAIL_OPEN", "unet/config.json: what a mess", 1);
    testbus_start_daemon(s, "failed");
    char *reason = testbus_get_text(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "StateReason");
    assert_string_equal(reason, "unet/config.json: what a mess");
    free(reason);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Submit",
                                   &error, NULL, "sa{sv}", "x", 0) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "NotReady");
    assert_non_null(strstr(error.message, "what a mess"));
    sd_bus_error_free(&error);
}

static void test_failed_run(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], *name, *text;

    (void)setenv("DIFFUSED_FAKE_FAIL_RUN", "1 MiB would fit", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "too much", job, "");
    testbus_wait_state(s->client, job, "failed");
    testbus_get_error(s->client, job, &name, &text);
    assert_string_equal(name, TESTBUS_ERROR "OutOfMemory");
    assert_string_equal(text, "1 MiB would fit");
    free(name);
    free(text);
    testbus_wait_state(s->client, TESTBUS_PATH, "ready");
}

static void test_warnings(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];
    char **warnings = NULL;

    (void)setenv("DIFFUSED_FAKE_WARNING", "the tail was dropped", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "long", job, "");
    testbus_wait_state(s->client, job, "done");
    assert_true(sd_bus_get_property_strv(s->client, TESTBUS_NAME, job, TESTBUS_JOB, "Warnings",
                                         NULL, &warnings) >= 0);
    assert_string_equal(warnings[0], "the tail was dropped");
    assert_null(warnings[1]);
    free(warnings[0]);
    free(warnings);
}

/* --- refusals
 * --------------------------------------------------------------------------------------- */

/* One option of any basic type; the message must name it. */
static void assert_refused(sd_bus *client, const char *key, const char *type, const char *word,
                           const char *part, ...)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *call = NULL;
    char want[96];
    va_list args;

    assert_true(sd_bus_message_new_method_call(client, &call, TESTBUS_NAME, TESTBUS_PATH,
                                               TESTBUS_MANAGER, "Submit") >= 0);
    assert_true(sd_bus_message_append(call, "s", "x") >= 0);
    assert_true(sd_bus_message_open_container(call, 'a', "{sv}") >= 0);
    assert_true(sd_bus_message_open_container(call, 'e', "sv") >= 0);
    assert_true(sd_bus_message_append(call, "s", key) >= 0);
    assert_true(sd_bus_message_open_container(call, 'v', type) >= 0);
    va_start(args, part);
    assert_true(sd_bus_message_appendv(call, type, args) >= 0);
    va_end(args);
    for (int i = 0; i < 3; i++)
        assert_true(sd_bus_message_close_container(call) >= 0);
    assert_true(sd_bus_call(client, call, 0, &error, NULL) < 0);
    (void)snprintf(want, sizeof want, TESTBUS_ERROR "%s", word);
    assert_string_equal(error.name, want);
    bool is_named = strstr(error.message, key) || strcmp(word, "TooLarge") == 0;
    if (!is_named || !strstr(error.message, part))
        fail_msg("%s: \"%s\" says nothing of \"%s\"", key, error.message, part);
    sd_bus_error_free(&error);
    sd_bus_message_unref(call);
}

static void test_bad_options(void **state)
{
    struct testbus *s = *state;
    sd_bus *c;

    testbus_configure(s, "[limits]\npixels = 16384\n");
    testbus_start_daemon(s, "ready");
    c = s->client;
    assert_refused(c, "colour", "s", "InvalidArgument", "unknown option", "red");
    assert_refused(c, "guidance-scale", "d", "InvalidArgument", "unknown option", 7.5);
    assert_refused(c, "prompt", "s", "InvalidArgument", "first argument", "again");
    assert_refused(c, "steps", "s", "InvalidArgument", "want \"u\"", "20");
    assert_refused(c, "seed", "u", "InvalidArgument", "want \"t\"", 1);
    assert_refused(c, "guidance_scale", "u", "InvalidArgument", "want \"d\"", 7);
    assert_refused(c, "scheduler", "u", "InvalidArgument", "want \"s\"", 1);
    assert_refused(c, "negative_prompt", "as", "InvalidArgument", "want \"s\"", 1, "x");
    assert_refused(c, "steps", "u", "InvalidArgument", "500", 0);
    assert_refused(c, "steps", "u", "InvalidArgument", "500", 501);
    assert_refused(c, "width", "u", "InvalidArgument", "2048", 7);
    assert_refused(c, "width", "u", "InvalidArgument", "multiple", 60);
    assert_refused(c, "height", "u", "InvalidArgument", "2048", 100000);
    assert_refused(c, "guidance_scale", "d", "InvalidArgument", "100", 100.5);
    assert_refused(c, "guidance_scale", "d", "InvalidArgument", "100", (double)NAN);
    assert_refused(c, "seed", "t", "InvalidArgument", "9223372036854775807", UINT64_MAX);
    assert_refused(c, "count", "u", "InvalidArgument", "16", 17);
    assert_refused(c, "scheduler", "s", "InvalidArgument", "pndm ddim lms euler", "magic");
    assert_refused(c, "width", "u", "TooLarge", "16384 pixels", 512);
    uint32_t length = 1;
    testbus_get_number(c, TESTBUS_PATH, "QueueLength", 'u', &length);
    assert_int_equal(length, 0);
}

static void test_repeated_option(void **state)
{
    struct testbus *s = *state;
    sd_bus_error error = SD_BUS_ERROR_NULL;

    testbus_start_daemon(s, "ready");
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Submit",
                                   &error, NULL, "sa{sv}", "x", 2, "steps", "u", 3, "steps", "u",
                                   4) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "InvalidArgument");
    assert_string_equal(error.message, "steps: given twice");
    sd_bus_error_free(&error);
}

static void test_long_prompts(void **state)
{
    static const size_t sizes[] = {16385, 10000000};
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    testbus_start_daemon(s, "ready");
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(freep) char *prompt = calloc(1, sizes[i] + 1);
        memset(prompt, 'x', sizes[i]);
        assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                       "Submit", &error, NULL, "sa{sv}", prompt, 0) < 0);
        assert_string_equal(error.name, TESTBUS_ERROR "PromptTooLong");
        assert_non_null(strstr(error.message, "16384"));
        sd_bus_error_free(&error);
        if (i == 0) { /* one byte less is legal */
            prompt[16384] = '\0';
            testbus_submit(s->client, prompt, job, "");
            testbus_wait_state(s->client, job, "done");
        }
    }
}

static void test_queue_full(void **state)
{
    struct testbus *s = *state;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char jobs[3][TESTBUS_PATH_SIZE];
    uint32_t n;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "100", 1);
    testbus_configure(s, "[limits]\nqueue = 2\n");
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "runs", jobs[0], "a{sv}", 1, "steps", "u", 100);
    testbus_wait_state(s->client, jobs[0], "running");
    testbus_submit(s->client, "waits", jobs[1], "");
    testbus_submit(s->client, "waits, too", jobs[2], "");
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Submit",
                                   &error, NULL, "sa{sv}", "x", 0) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "QueueFull");
    assert_non_null(strstr(error.message, "limit is 2"));
    sd_bus_error_free(&error);
    testbus_get_number(s->client, TESTBUS_PATH, "QueueLength", 'u', &n);
    assert_int_equal(n, 2);
    testbus_get_number(s->client, TESTBUS_PATH, "QueueLimit", 'u', &n);
    assert_int_equal(n, 2);
    testbus_get_number(s->client, jobs[2], "QueuePosition", 'u', &n);
    assert_int_equal(n, 2);
    testbus_get_number(s->client, jobs[1], "QueuePosition", 'u', &n);
    assert_int_equal(n, 1);
}

static void test_before_and_after_the_end(void **state)
{
    struct testbus *s = *state;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char job[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "50", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 100);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", &error,
                                   NULL, "ua{sv}", 0, 0) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "NotReady");
    sd_bus_error_free(&error);
    testbus_call(s->client, job, TESTBUS_JOB, "Delete", "NotReady");
    testbus_call(s->client, TESTBUS_PATH "/job/99", TESTBUS_JOB, "Cancel", "NotFound");
    testbus_call(s->client, TESTBUS_PATH "/job/01", TESTBUS_JOB, "Cancel", "NotFound");
    testbus_call(s->client, job, TESTBUS_JOB, "Cancel", NULL);
    testbus_wait_state(s->client, job, "cancelled");
    testbus_call(s->client, job, TESTBUS_JOB, "Cancel", NULL); /* after the end: no error */
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", &error,
                                   NULL, "ua{sv}", 0, 0) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "NotFound");
    sd_bus_error_free(&error);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", &error,
                                   NULL, "ua{sv}", 0, 1, "format", "s", "gif") < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "InvalidArgument");
    sd_bus_error_free(&error);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Cancel",
                                   &error, NULL, "t", UINT64_C(99)) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "NotFound");
    sd_bus_error_free(&error);
    testbus_call(s->client, job, TESTBUS_JOB, "Delete", NULL);
    testbus_call(s->client, job, TESTBUS_JOB, "Cancel", "NotFound");
}

/* --- cancel, list
 * ------------------------------------------------------------------------------------ */

static void test_cancel(void **state)
{
    struct testbus *s = *state;
    char running[TESTBUS_PATH_SIZE], queued[TESTBUS_PATH_SIZE], *name, *text;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "50", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "runs", running, "a{sv}", 1, "steps", "u", 400);
    testbus_submit(s->client, "waits", queued, "");
    testbus_wait_state(s->client, running, "running");
    testbus_call(s->client, queued, TESTBUS_JOB, "Cancel", NULL);
    char *now = testbus_get_text(s->client, queued, TESTBUS_JOB, "State");
    assert_string_equal(now, "cancelled"); /* at once */
    free(now);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Cancel",
                                   NULL, NULL, "t", UINT64_C(1)) >= 0);
    testbus_wait_state(s->client, running, "cancelled");
    testbus_get_error(s->client, running, &name, &text);
    assert_string_equal(name, TESTBUS_ERROR "Cancelled");
    free(name);
    free(text);
    testbus_submit(s->client, "next", queued, "");
    testbus_wait_state(s->client, queued, "done");
}

/* Ids of the jobs listed, as text. */
static void list(sd_bus *client, char *ret_ids, size_t size, const char *types, ...)
{
    sd_bus_message *call = NULL, *reply = NULL;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    const char *path, *state;
    uint64_t id;
    uint32_t uid;
    va_list args;
    size_t n = 0;

    assert_true(sd_bus_message_new_method_call(client, &call, TESTBUS_NAME, TESTBUS_PATH,
                                               TESTBUS_MANAGER, "ListJobs") >= 0);
    va_start(args, types);
    assert_true(sd_bus_message_appendv(call, types, args) >= 0);
    va_end(args);
    int r = sd_bus_call(client, call, 0, &error, &reply);
    if (r < 0) {
        (void)snprintf(ret_ids, size, "%s", error.name);
        sd_bus_error_free(&error);
        sd_bus_message_unref(call);
        return;
    }
    ret_ids[0] = '\0';
    assert_true(sd_bus_message_enter_container(reply, 'a', "(tosu)") >= 0);
    while (sd_bus_message_read(reply, "(tosu)", &id, &path, &state, &uid) > 0) {
        assert_int_equal(uid, getuid());
        n += (size_t)snprintf(ret_ids + n, size - n, "%d%c", (int)id, state[0]);
    }
    sd_bus_message_unref(call);
    sd_bus_message_unref(reply);
}

static void test_list(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], ids[96];

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "50", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "one", job, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, job, "done");
    testbus_submit(s->client, "two", job, "a{sv}", 1, "steps", "u", 400);
    testbus_wait_state(s->client, job, "running");
    testbus_submit(s->client, "three", job, "");
    list(s->client, ids, sizeof ids, "a{sv}", 0);
    assert_string_equal(ids, "1d2r3q");
    list(s->client, ids, sizeof ids, "a{sv}", 1, "state", "s", "queued");
    assert_string_equal(ids, "3q");
    list(s->client, ids, sizeof ids, "a{sv}", 1, "limit", "u", 2);
    assert_string_equal(ids, "2r3q");
    list(s->client, ids, sizeof ids, "a{sv}", 2, "limit", "u", 1, "state", "s", "done");
    assert_string_equal(ids, "1d");
    list(s->client, ids, sizeof ids, "a{sv}", 1, "owner", "u", 4711);
    assert_string_equal(ids, "");
    list(s->client, ids, sizeof ids, "a{sv}", 1, "owner", "u", getuid());
    assert_string_equal(ids, "1d2r3q");
    list(s->client, ids, sizeof ids, "a{sv}", 1, "state", "s", "asleep");
    assert_string_equal(ids, TESTBUS_ERROR "InvalidArgument");
    list(s->client, ids, sizeof ids, "a{sv}", 1, "colour", "s", "red");
    assert_string_equal(ids, TESTBUS_ERROR "InvalidArgument");
    list(s->client, ids, sizeof ids, "a{sv}", 1, "limit", "s", "2");
    assert_string_equal(ids, TESTBUS_ERROR "InvalidArgument");
}

/* --- models, devices, options
 * --------------------------------------------------------------------------- */

static unsigned count_entries(sd_bus *client, const char *method, const char *want)
{
    sd_bus_message *reply = NULL;
    const char *name = "";
    unsigned n = 0;

    assert_true(sd_bus_call_method(client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, method,
                                   NULL, &reply, "") >= 0);
    assert_true(sd_bus_message_enter_container(reply, 'a', "{sa{sv}}") >= 0);
    while (sd_bus_message_enter_container(reply, 'e', "sa{sv}") > 0) {
        assert_true(sd_bus_message_read(reply, "s", &name) >= 0);
        assert_string_equal(name, want);
        assert_true(sd_bus_message_skip(reply, "a{sv}") >= 0);
        assert_true(sd_bus_message_exit_container(reply) >= 0);
        n++;
    }
    sd_bus_message_unref(reply);
    return n;
}

static void test_models_and_devices(void **state)
{
    struct testbus *s = *state;
    unsigned n = 0;

    testbus_start_daemon(s, "ready");
    assert_int_equal(count_entries(s->client, "ListModels", "model"), 1);
    for (unsigned tries = 0; n == 0 && tries < 500; tries++) { /* the probe runs beside */
        n = count_entries(s->client, "ListDevices", "Fake device");
        testbus_process(s->client, 20);
    }
    assert_int_equal(n, 1);
    char *device = testbus_get_text(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Device");
    assert_string_equal(device, "Fake device");
    free(device);
}

/* --- signals
 * ---------------------------------------------------------------------------------------------- */

struct heard {
    unsigned steps, finished, others;
    bool canary; /* the prompt was in something */
};

static bool holds_canary(sd_bus_message *m)
{
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_true(sd_bus_message_dump(m, out, 0) >= 0);
    assert_int_equal(fclose(out), 0);
    (void)sd_bus_message_rewind(m, 1);
    return memmem(text, size, "canary", 6) != NULL;
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct heard *heard = userdata;

    (void)error;
    heard->canary |= holds_canary(m);
    if (sd_bus_message_is_signal(m, TESTBUS_JOB, "Step"))
        heard->steps++;
    else if (sd_bus_message_is_signal(m, TESTBUS_JOB, "Finished"))
        heard->finished++;
    else
        heard->others++;
    return 0;
}

static void test_unicast_and_watch(void **state)
{
    struct testbus *s = *state;
    struct heard own = {0}, watching = {0}, left = {0}, broad = {0};
    char job[TESTBUS_PATH_SIZE];

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "40", 1);
    testbus_start_daemon(s, "ready");
    sd_bus *watcher = testbus_connect(s), *leaver = testbus_connect(s), *other = testbus_connect(s);
    assert_true(sd_bus_add_filter(s->client, NULL, on_message, &own) >= 0);
    assert_true(sd_bus_add_filter(watcher, NULL, on_message, &watching) >= 0);
    assert_true(sd_bus_add_filter(leaver, NULL, on_message, &left) >= 0);
    assert_true(sd_bus_add_filter(other, NULL, on_message, &broad) >= 0);
    assert_true(sd_bus_add_match(other, NULL, "sender='" TESTBUS_NAME "'", NULL, NULL) >= 0);
    testbus_submit(s->client, "canary in a mine", job, "a{sv}", 2, "steps", "u", 10, "scheduler",
                   "s", "ddim");
    sd_bus *const both[] = {watcher, leaver};
    for (size_t i = 0; i < ARRAY_SIZE(both); i++)
        assert_true(sd_bus_call_method(both[i], TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                       "Watch", NULL, NULL, "o", job) >= 0);
    assert_true(sd_bus_call_method(leaver, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Unwatch",
                                   NULL, NULL, "o", job) >= 0);
    testbus_wait_state(other, job, "done");
    testbus_process(s->client, 100);
    testbus_process(watcher, 50);
    testbus_process(leaver, 50);
    testbus_process(other, 50);
    assert_int_equal(own.steps, 10);
    assert_int_equal(own.finished, 1);
    assert_in_range(watching.steps, 5, 10);
    assert_int_equal(watching.finished, 1);
    assert_in_range(left.steps, 0, 2);
    assert_int_equal(left.finished, 0);
    assert_int_equal(broad.steps + broad.finished, 0);
    assert_true(broad.others >= 5); /* added, state twice, interfaces, queue length … */
    assert_false(broad.canary);
    assert_true(sd_bus_call_method(watcher, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER, "Watch",
                                   NULL, NULL, "o", TESTBUS_PATH "/job/9") < 0);
    sd_bus_flush_close_unref(watcher);
    sd_bus_flush_close_unref(leaver);
    sd_bus_flush_close_unref(other);
}

/* This process and what it starts see no machine id. True: by a mount, to be undone. */
static bool hide_machine_id(void)
{
    if (access("/etc/machine-id", F_OK) < 0)
        return false;
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0)
        skip();
    assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    assert_int_equal(mount("/dev/null", "/etc/machine-id", NULL, MS_BIND, NULL), 0);
    return true;
}

static void test_machine_without_id(void **state)
{
    static const char *const peer = "org.freedesktop.DBus.Peer";
    struct testbus *s = *state;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    bool hidden = hide_machine_id();

    testbus_start_daemon(s, "ready");
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, TESTBUS_PATH, peer, "GetMachineId",
                                   &error, NULL, "") < 0);
    assert_string_equal(error.name, SD_BUS_ERROR_FILE_NOT_FOUND);
    sd_bus_error_free(&error);
    testbus_call(s->client, TESTBUS_PATH, peer, "Ping", NULL);
    if (hidden)
        assert_int_equal(umount("/etc/machine-id"), 0);
}

static void test_prompts_are_not_logged(void **state)
{
    struct testbus *s = *state;
    _cleanup_(freep) char *log = NULL;
    char job[TESTBUS_PATH_SIZE], path[512];
    size_t size;

    (void)setenv("DIFFUSED_FAKE_FAIL_RUN", "no", 1);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "canary", job, "");
    testbus_wait_state(s->client, job, "failed");
    assert_int_equal(testbus_stop_daemon(s, SIGTERM), 0);
    (void)snprintf(path, sizeof path, "%s/log", s->folder);
    assert_int_equal(file_read(path, 1 << 20, &log, &size, NULL), 0);
    assert_non_null(strstr(log, "job 1: failed"));
    assert_null(strstr(log, "canary"));
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_submit_to_picture),
        BUS_TEST(test_get_request_is_resolved),
        BUS_TEST(test_submit_while_loading),
        BUS_TEST(test_bad_model_is_a_state),
        BUS_TEST(test_failed_run),
        BUS_TEST(test_warnings),
        BUS_TEST(test_bad_options),
        BUS_TEST(test_repeated_option),
        BUS_TEST(test_long_prompts),
        BUS_TEST(test_queue_full),
        BUS_TEST(test_before_and_after_the_end),
        BUS_TEST(test_cancel),
        BUS_TEST(test_list),
        BUS_TEST(test_models_and_devices),
        BUS_TEST(test_unicast_and_watch),
        BUS_TEST(test_prompts_are_not_logged),
        BUS_TEST(test_machine_without_id),
    };

    return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
