/* pictures — what comes in as a descriptor, what is told of what comes out, and looks at it before
 * it is done: over a private bus, with the fake engine, which says what reached it. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/ipc.h"
#include "daemon/picture.h"
#include "daemon/png.h"
#include "tests/support/proc.h"
#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"

#define SIDE  24 /* pixels of the picture that is sent */
#define RED   200
#define GREEN 100

/* A PNG of one colour. */
static uint8_t *make_png(uint8_t red, uint8_t green, size_t *ret_size)
{
    static const struct png_facts facts = {0};
    uint8_t rgb[SIDE * SIDE * 3], *png = NULL;
    struct fault f = {0};

    for (size_t i = 0; i < sizeof rgb; i += 3) {
        rgb[i] = red;
        rgb[i + 1] = green;
        rgb[i + 2] = 0;
    }
    assert_int_equal(png_encode(rgb, SIDE, SIDE, &facts, PNG_METADATA_NONE, &png, ret_size, &f), 0);
    return png;
}

static int sealed_png(uint8_t red, uint8_t green)
{
    size_t size;
    _cleanup_(freep) uint8_t *png = make_png(red, green, &size);
    int fd = ipc_memfd("picture", png, size);

    assert_true(fd >= 0);
    return fd;
}

static sd_bus_message *submit(sd_bus *client, const char *prompt, const char *options, ...)
{
    sd_bus_message *m = NULL;
    va_list args;

    assert_true(sd_bus_message_new_method_call(client, &m, TESTBUS_NAME, TESTBUS_PATH,
                                               TESTBUS_MANAGER, "Submit") >= 0);
    assert_true(sd_bus_message_append(m, "s", prompt) >= 0);
    va_start(args, options);
    assert_true(sd_bus_message_appendv(m, options, args) >= 0);
    va_end(args);
    return m;
}

/* Sends it; `want` is the short name of an error, "": the job's path is given. */
static void expect(sd_bus *client, sd_bus_message *m, const char *want, const char *says,
                   char ret_path[TESTBUS_PATH_SIZE])
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *reply = NULL;
    const char *path = "";
    char name[128] = "";

    int r = sd_bus_call(client, m, 0, &error, &reply);
    if (*want)
        (void)snprintf(name, sizeof name, TESTBUS_ERROR "%s", want);
    if (error.name && (!*want || strcmp(error.name, name) != 0 || !strstr(error.message, says)))
        fail_msg("%s: %s", error.name, error.message);
    assert_int_equal(r < 0, *want != 0);
    if (r >= 0) {
        assert_true(sd_bus_message_read(reply, "o", &path) >= 0);
        (void)snprintf(ret_path, TESTBUS_PATH_SIZE, "%s", path);
    }
    sd_bus_error_free(&error);
    sd_bus_message_unref(reply);
    sd_bus_message_unref(m);
}

static void assert_warned(sd_bus *client, const char *job, const char *part)
{
    sd_bus_message *reply = NULL;
    const char *text;
    bool found = false;

    assert_true(sd_bus_get_property(client, TESTBUS_NAME, job, TESTBUS_JOB, "Warnings", NULL,
                                    &reply, "as") >= 0);
    assert_true(sd_bus_message_enter_container(reply, 'a', "s") >= 0);
    while (sd_bus_message_read(reply, "s", &text) > 0) {
        found |= strstr(text, part) != NULL;
        if (!found)
            print_message("%s\n", text);
    }
    assert_true(found);
    sd_bus_message_unref(reply);
}

struct result {
    uint32_t width, height, prompt_index;
    uint64_t seed;
    int checked, nsfw, blackened;
    double scores[32];
    size_t score_count;
    uint8_t first[3], last[3]; /* pixels */
};

static void read_member(sd_bus_message *m, const char *key, struct result *ret)
{
    const struct {
        const char *key, *type;
        void *to;
    } rows[] = {{"width", "u", &ret->width},        {"height", "u", &ret->height},
                {"seed", "t", &ret->seed},          {"prompt_index", "u", &ret->prompt_index},
                {"checked", "b", &ret->checked},    {"nsfw", "b", &ret->nsfw},
                {"blackened", "b", &ret->blackened}};
    const void *scores;
    size_t bytes;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (strcmp(rows[i].key, key) != 0)
            continue;
        assert_true(sd_bus_message_read(m, "v", rows[i].type, rows[i].to) >= 0);
        return;
    }
    if (strcmp(key, "safety_scores") != 0) {
        assert_true(sd_bus_message_skip(m, "v") >= 0);
        return;
    }
    assert_true(sd_bus_message_enter_container(m, 'v', "ad") >= 0);
    assert_true(sd_bus_message_read_array(m, 'd', &scores, &bytes) >= 0);
    assert_true(bytes <= sizeof ret->scores);
    memcpy(ret->scores, scores, bytes);
    ret->score_count = bytes / sizeof(double);
    assert_true(sd_bus_message_exit_container(m) >= 0);
}

static void get_result(sd_bus *client, const char *job, uint32_t index, struct result *ret)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *m = NULL;
    const char *key;
    int fd;

    *ret = (struct result){.prompt_index = UINT32_MAX};
    if (sd_bus_call_method(client, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", &error, &m,
                           "ua{sv}", index, 1, "format", "s", "rgb") < 0)
        fail_msg("%s: %s", error.name, error.message);
    assert_true(sd_bus_message_read(m, "h", &fd) >= 0);
    assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") >= 0);
    while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
        assert_true(sd_bus_message_read(m, "s", &key) >= 0);
        read_member(m, key, ret);
        assert_true(sd_bus_message_exit_container(m) >= 0);
    }
    off_t last = (off_t)ret->width * ret->height * 3 - 3;
    assert_int_equal(pread(fd, ret->first, 3, 0), 3);
    assert_int_equal(pread(fd, ret->last, 3, last), 3);
    sd_bus_message_unref(m);
}

/* --- pictures in ------------------------------------------------------------------------------ */

static void spool_file(const struct testbus *s, const char *job, const char *name, char path[256])
{
    (void)snprintf(path, 256, "%s/spool/done%s/%s", s->folder, strrchr(job, '/'), name);
}

static void test_image_and_mask(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], path[256], sum[72], want[72];
    _cleanup_(freep) char *kept = NULL, *record = NULL;
    _cleanup_(freep) uint8_t *png = NULL;
    struct result r;
    size_t size, bytes;

    (void)setenv("DIFFUSED_FAKE_TELL", "1", 1);
    testbus_start_daemon(s, "ready");
    _cleanup_(closep) int image = sealed_png(RED, GREEN), mask = sealed_png(255, 255);
    expect(s->client,
           submit(s->client, "a fox", "a{sv}", 3, "image", "h", image, "mask", "h", mask,
                  "strength", "d", 0.5),
           "", "", job);
    testbus_wait_state(s->client, job, "done");
    assert_warned(s->client, job, "image 24x24, mask 24x24, strength 0.5");
    get_result(s->client, job, 0, &r);
    assert_int_equal(r.width, SIDE); /* the picture's */
    assert_int_equal(r.height, SIDE);
    assert_int_equal(r.first[0], RED);
    assert_int_equal(r.first[1], GREEN);
    assert_int_equal(r.last[0], 255);

    png = make_png(RED, GREEN, &size);
    spool_file(s, job, "input.png", path);
    assert_int_equal(file_read(path, 1 << 20, &kept, &bytes, NULL), 0);
    assert_int_equal(bytes, size);
    assert_memory_equal(kept, png, size);
    sha256_hex(kept, bytes, sum);
    spool_file(s, job, "request.json", path);
    assert_int_equal(file_read(path, 1 << 20, &record, &bytes, NULL), 0);
    (void)snprintf(want, sizeof want, "%s", sum);
    assert_non_null(strstr(record, want));
    assert_non_null(strstr(record, "mask.png"));
    spool_file(s, job, "mask.png", path);
    assert_int_equal(access(path, F_OK), 0);
    testbus_call(s->client, job, TESTBUS_JOB, "Delete", NULL);
    assert_int_equal(access(path, F_OK), -1);
}

/* Any regular file will do; what happens to it later does not matter. */
static void test_plain_file(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], path[256];
    struct result r;
    size_t size;
    _cleanup_(freep) uint8_t *png = make_png(7, 9, &size);

    testbus_start_daemon(s, "ready");
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Pause", NULL);
    (void)snprintf(path, sizeof path, "%s/mine.png", s->folder);
    assert_int_equal(file_write_atomic(path, png, size, NULL), 0);
    _cleanup_(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(lseek(fd, 0, SEEK_END), (off_t)size); /* the offset is nobody's business */
    expect(s->client, submit(s->client, "a fox", "a{sv}", 1, "image", "h", fd), "", "", job);
    assert_int_equal(ftruncate(fd, 3), 0);
    assert_int_equal(unlink(path), 0);
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Resume", NULL);
    testbus_wait_state(s->client, job, "done");
    get_result(s->client, job, 0, &r);
    assert_int_equal(r.first[0], 7);
}

/* Answered is on disk: the daemon dies before it was run. */
static void test_survives(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], again[TESTBUS_PATH_SIZE];
    struct result r;

    testbus_start_daemon(s, "ready");
    testbus_call(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "Pause", NULL);
    int image = sealed_png(RED, GREEN), other = sealed_png(1, 2);
    expect(s->client,
           submit(s->client, "a fox", "a{sv}", 2, "image", "h", image, "token", "s", "once"), "",
           "", job);
    (void)close(image);
    (void)testbus_stop_daemon(s, SIGKILL);
    testbus_start_daemon(s, "ready");
    /* the same token: the same job, and the second picture is nobody's */
    expect(s->client,
           submit(s->client, "a fox", "a{sv}", 2, "image", "h", other, "token", "s", "once"), "",
           "", again);
    (void)close(other);
    assert_string_equal(job, again);
    testbus_wait_state(s->client, job, "done");
    get_result(s->client, job, 0, &r);
    assert_int_equal(r.first[0], RED);
}

/* --- what is refused -------------------------------------------------------------------------- */

static int write_only(const struct testbus *s)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/w", s->folder);
    return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static int sparse(const struct testbus *s, off_t size)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/sparse", s->folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, size), 0);
    return fd;
}

static void test_bad_descriptors(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];
    int pipes[2], sockets[2];

    testbus_start_daemon(s, "ready");
    int before = proc_count_descriptors(s->daemon);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    const struct {
        int fd;
        const char *error, *says;
    } rows[] = {
        {pipes[0], "InvalidArgument", "not of a pipe"},
        {sockets[0], "InvalidArgument", "not of a socket"},
        {open("/", O_RDONLY | O_CLOEXEC), "InvalidArgument", "not of a directory"},
        {open("/dev/zero", O_RDONLY | O_CLOEXEC), "InvalidArgument", "not of a device"},
        {open("/etc/passwd", O_PATH | O_CLOEXEC), "InvalidArgument", "cannot be read from"},
        {write_only(s), "InvalidArgument", "cannot be read from"},
        {open("/etc/passwd", O_RDONLY | O_CLOEXEC), "InvalidArgument", "neither a PNG nor"},
        {memfd_create("empty", MFD_CLOEXEC), "InvalidArgument", "the file is empty"},
        {sparse(s, (32 << 20) + 1), "TooLarge", "at most 32 MiB"},
        {sparse(s, INT64_C(1) << 40), "TooLarge", "at most 32 MiB"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_true(rows[i].fd >= 0);
        expect(s->client, submit(s->client, "x", "a{sv}", 1, "image", "h", rows[i].fd),
               rows[i].error, rows[i].says, job);
        expect(s->client, submit(s->client, "x", "a{sv}", 1, "steps", "h", rows[i].fd),
               "InvalidArgument", "steps: type is", job);
        expect(s->client, submit(s->client, "x", "a{sv}", 1, "nothing", "h", rows[i].fd),
               "InvalidArgument", "unknown option", job);
        (void)close(rows[i].fd);
    }
    expect(s->client, submit(s->client, "x", "a{sv}", 1, "image", "s", "/etc/passwd"),
           "InvalidArgument", "image: type is \"s\", want \"h\"", job);
    int mask = sealed_png(1, 1);
    expect(s->client, submit(s->client, "x", "a{sv}", 1, "mask", "h", mask), "InvalidArgument",
           "mask: there is no image", job);
    expect(s->client, submit(s->client, "x", "a{sv}", 2, "image", "h", mask, "image", "h", mask),
           "InvalidArgument", "image: given twice", job);
    (void)close(mask);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    (void)close(sockets[0]);
    (void)close(sockets[1]);
    testbus_process(s->client, 50);
    assert_true(proc_count_descriptors(s->daemon) <= before); /* the start's own may be gone */
}

/* It begins like a picture, but is none: the job fails with the decoder's words. */
static void test_undecodable(void **state)
{
    static const char text[] = "\x89PNG\r\n\x1a\nand then something else";
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], next[TESTBUS_PATH_SIZE], *name, *why;

    testbus_start_daemon(s, "ready");
    _cleanup_(closep) int fd = ipc_memfd("bad", text, sizeof text - 1);
    expect(s->client, submit(s->client, "x", "a{sv}", 1, "image", "h", fd), "", "", job);
    testbus_wait_state(s->client, job, "failed");
    testbus_get_error(s->client, job, &name, &why);
    assert_string_equal(name, TESTBUS_ERROR "InvalidArgument");
    if (strncmp(why, "image", 5) != 0)
        fail_msg("%s", why);
    free(name);
    free(why);
    testbus_submit(s->client, "the worker lives", next, "");
    testbus_wait_state(s->client, next, "done");
}

/* Counted against what a user may have in the spool. */
static void test_quota(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    if (geteuid() != 0)
        skip();
    testbus_configure(s, "[access]\ngroup = games\n[limits]\nuser_megabytes = 1\n");
    testbus_start_daemon(s, "ready");
    sd_bus *bus = testbus_connect_as(s, 5, 60);
    _cleanup_(closep) int image = sealed_png(1, 1), big = memfd_create("big", MFD_CLOEXEC);
    assert_int_equal(ftruncate(big, 2 << 20), 0);
    expect(bus, submit(bus, "x", "a{sv}", 1, "image", "h", big), "QuotaExceeded",
           "your pictures take 2 MiB, the limit is 1", job);
    expect(bus, submit(bus, "x", "a{sv}", 1, "image", "h", image), "", "", job);
    testbus_wait_state(bus, job, "done");
    sd_bus_flush_close_unref(bus);
}

/* --- what is told of pictures ----------------------------------------------------------------- */

static void test_prompts(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];
    struct result a, b;
    uint32_t count = 0;

    testbus_start_daemon(s, "ready");
    expect(s->client,
           submit(s->client, "", "a{sv}", 3, "prompts", "as", 2, "a fox", "a dog", "count", "u", 2,
                  "seed", "t", UINT64_C(40)),
           "", "", job);
    testbus_wait_state(s->client, job, "done");
    testbus_get_number(s->client, job, "ResultCount", 'u', &count);
    assert_int_equal(count, 4);
    get_result(s->client, job, 1, &a);
    get_result(s->client, job, 2, &b);
    assert_int_equal(a.prompt_index, 0);
    assert_int_equal(b.prompt_index, 1);
    assert_int_equal(a.seed, 41);
    assert_int_equal(b.seed, 42);
    assert_false(a.checked || a.nsfw || a.score_count); /* this model has no checker */
    expect(s->client,
           submit(s->client, "", "a{sv}", 2, "prompts", "as", 5, "a", "b", "c", "d", "e", "count",
                  "u", 16),
           "InvalidArgument", "make 80; at most 64", job);
}

static void test_safety(void **state)
{
    static const struct {
        const char *prompt, *safety;
        bool checked, nsfw, black;
    } rows[] = {
        {"a fox", NULL, true, false, false},
        {"a forbidden fox", NULL, true, true, true},
        {"a forbidden fox", "flag", true, true, false},
        {"a forbidden fox", "off", false, false, false},
    };
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], lines[256];
    struct result r;

    (void)snprintf(lines, sizeof lines, "[model]\npath = %s/safe\n", s->folder);
    testbus_configure(s, lines);
    testbus_start_daemon(s, "ready");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].safety)
            testbus_submit(s->client, rows[i].prompt, job, "a{sv}", 1, "safety", "s",
                           rows[i].safety);
        else
            testbus_submit(s->client, rows[i].prompt, job, "");
        testbus_wait_state(s->client, job, "done");
        get_result(s->client, job, 0, &r);
        assert_int_equal(r.checked, rows[i].checked);
        assert_int_equal(r.nsfw, rows[i].nsfw);
        assert_int_equal(r.blackened, rows[i].black);
        assert_int_equal(r.score_count, rows[i].checked ? 20 : 0);
        assert_true(!r.nsfw || r.scores[5] == 0.031);
        assert_int_equal(r.last[0] == 0, rows[i].black);
    }
    /* told again after a restart: it is in the record */
    testbus_submit(s->client, "forbidden", job, "");
    testbus_wait_state(s->client, job, "done");
    (void)testbus_stop_daemon(s, SIGTERM);
    testbus_start_daemon(s, "ready");
    get_result(s->client, job, 0, &r);
    assert_true(r.checked && r.nsfw && r.blackened && r.score_count == 20);
    assert_true(r.scores[0] == -0.1 && r.scores[5] == 0.031);
}

/* [defaults] safety stands for jobs that do not say; a LoRA is named, not given by path. */
static void test_defaults_and_loras(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], lines[512], path[256];
    struct result r;

    (void)setenv("DIFFUSED_FAKE_TELL", "1", 1);
    (void)snprintf(path, sizeof path, "%s/loras", s->folder);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/loras/ink.safetensors", s->folder);
    assert_int_equal(file_write_atomic(path, "x", 1, NULL), 0);
    (void)snprintf(lines, sizeof lines,
                   "[model]\npath = %s/safe\nloras = %s/loras\n[defaults]\nsafety = flag\n"
                   "[preset inked]\nlora = ink:0.5\npreview_steps = 2\n",
                   s->folder, s->folder);
    testbus_configure(s, lines);
    testbus_start_daemon(s, "ready");
    testbus_submit(s->client, "forbidden", job, "a{sv}", 1, "preset", "s", "inked");
    testbus_wait_state(s->client, job, "done");
    (void)snprintf(lines, sizeof lines, "lora ink:0.5 of %s/loras", s->folder);
    assert_warned(s->client, job, lines);
    get_result(s->client, job, 0, &r);
    assert_true(r.nsfw && !r.blackened);
    static const char *const bad[][2] = {
        {"../loras/ink", "want a name"}, {"/etc/passwd", "want a name"},
        {".ink", "want a name"},         {"ink:much", "want NAME:weight"},
        {"ink:0.5,", "an empty name"},   {"chalk", "there is none of this name"}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        expect(s->client, submit(s->client, "x", "a{sv}", 1, "lora", "s", bad[i][0]),
               "InvalidArgument", bad[i][1], job);
}

/* --- looks ------------------------------------------------------------------------------------ */

struct heard {
    unsigned steps, previews;
    uint32_t last_step, preview_picture, preview_step;
};

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct heard *h = userdata;
    uint32_t picture, step;

    (void)error;
    if (sd_bus_message_is_signal(m, TESTBUS_JOB, "Preview")) {
        assert_true(sd_bus_message_read(m, "uu", &h->preview_picture, &h->preview_step) >= 0);
        h->previews++;
    } else if (sd_bus_message_is_signal(m, TESTBUS_JOB, "Step")) {
        assert_true(sd_bus_message_read(m, "uu", &picture, &step) >= 0);
        assert_int_equal((step - 1) % 3, 0); /* callback_steps = 3: 1, 4, 7, … */
        h->last_step = step;
        h->steps++;
    }
    return 0;
}

static void read_place(sd_bus_message *m, uint32_t *picture, uint32_t *step, uint32_t *width,
                       uint32_t *height)
{
    const char *key;

    assert_true(sd_bus_message_enter_container(m, 'a', "{sv}") >= 0);
    while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
        assert_true(sd_bus_message_read(m, "s", &key) >= 0);
        uint32_t *to = *key == 'p' ? picture : *key == 's' ? step : *key == 'w' ? width : height;
        assert_true(sd_bus_message_read(m, "v", "u", to) >= 0);
        assert_true(sd_bus_message_exit_container(m) >= 0);
    }
}

static void test_previews(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];
    sd_bus_message *reply = NULL;
    struct heard heard = {0};
    uint32_t picture = 9, step = 0, width = 0, height = 0;
    _cleanup_(picture_done) struct picture back = {0};
    char png[4096];
    int fd;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "30", 1);
    testbus_start_daemon(s, "ready");
    assert_true(sd_bus_add_filter(s->client, NULL, on_signal, &heard) >= 0);
    testbus_submit(s->client, "a fox", job, "a{sv}", 4, "steps", "u", 20, "preview_steps", "u", 5,
                   "callback_steps", "u", 3, "scheduler", "s", "euler");
    testbus_call(s->client, job, TESTBUS_JOB, "GetPreview", "NotReady");
    for (unsigned i = 0; i < 300 && heard.previews < 2; i++)
        testbus_process(s->client, 10);
    assert_true(heard.previews >= 2);
    assert_true(sd_bus_call_method(s->client, TESTBUS_NAME, job, TESTBUS_JOB, "GetPreview", NULL,
                                   &reply, "") >= 0);
    assert_true(sd_bus_message_read(reply, "h", &fd) >= 0);
    read_place(reply, &picture, &step, &width, &height);
    assert_int_equal(picture, 0);
    assert_true(step >= 10 && step % 5 == 0);
    assert_int_equal(fcntl(fd, F_GET_SEALS),
                     F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    ssize_t n = pread(fd, png, sizeof png, 0);
    assert_true(n > 0);
    assert_int_equal(picture_decode("preview", png, (size_t)n, &back, NULL), 0);
    assert_int_equal(back.width, width);
    assert_int_equal(back.pixels[0], step * 255 / 20);
    sd_bus_message_unref(reply);
    testbus_wait_state(s->client, job, "done");
    testbus_process(s->client, 50);
    assert_int_equal(heard.previews, 4);
    assert_int_equal(heard.preview_step, 20);
    assert_int_equal(heard.steps, 7); /* 1, 4, … 19 */
    assert_int_equal(heard.last_step, 19);
    testbus_call(s->client, job, TESTBUS_JOB, "GetPreview", "NotFound");
    testbus_submit(s->client, "none", job, "a{sv}", 1, "steps", "u", 100);
    testbus_wait_state(s->client, job, "running");
    testbus_call(s->client, job, TESTBUS_JOB, "GetPreview", "NotFound");
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_image_and_mask),
        BUS_TEST(test_plain_file),
        BUS_TEST(test_survives),
        BUS_TEST(test_bad_descriptors),
        BUS_TEST(test_undecodable),
        BUS_TEST(test_quota),
        BUS_TEST(test_prompts),
        BUS_TEST(test_safety),
        BUS_TEST(test_defaults_and_loras),
        BUS_TEST(test_previews),
    };

    return cmocka_run_group_tests_name("pictures", tests, NULL, NULL);
}
