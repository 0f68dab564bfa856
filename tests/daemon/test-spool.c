/* spool: every change on a real directory, seen again by a second opening; damage is set aside. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/ipc.h"
#include "daemon/record.h"
#include "daemon/spool.h"
#include "tests/support/folder.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"

struct found {
    struct ARRAY(struct job *) jobs;
    unsigned corrupt;
    char why[256];
};

static void on_job(struct job *job, void *userdata)
{
    struct found *found = userdata;
    struct job **slot = array_push(&found->jobs);

    assert_non_null(slot);
    *slot = job;
}

static void on_corrupt(const char *state, const char *name, const char *why, void *userdata)
{
    struct found *found = userdata;

    (void)state, (void)name;
    found->corrupt++;
    (void)snprintf(found->why, sizeof found->why, "%s", why);
}

static struct spool *open_and_recover(const char *folder, struct found *found)
{
    struct spool_finder finder = {on_job, on_corrupt, NULL, found};
    struct spool *spool = NULL;
    struct fault f = {0};

    *found = (struct found){0};
    assert_int_equal(spool_open(folder, &spool, &f), 0);
    assert_int_equal(spool_recover(spool, &finder, &f), 0);
    return spool;
}

static void found_done(struct found *found)
{
    for (size_t i = 0; i < found->jobs.count; i++)
        job_free(found->jobs.items[i]);
    array_done(&found->jobs);
}

static struct job *make_job(struct spool *spool)
{
    struct job *job = job_new(spool_next_id(spool), 1234);
    struct fault f = {0};
    static const char prompt[] = "a \"fox\"\n\x01 \xf0\x9f\xa6\x8a";

    assert_int_equal(
        request_set_text(&job->request, &request_rows[REQUEST_prompt], prompt, strlen(prompt), &f),
        0);
    assert_int_equal(request_set_uint(&job->request, &request_rows[REQUEST_seed], INT64_MAX, &f),
                     0);
    assert_int_equal(
        request_set_double(&job->request, &request_rows[REQUEST_guidance_scale], 0.1, &f), 0);
    job->request.scheduler = SCHEDULER_LMS;
    job->request.set |= 1u << REQUEST_scheduler;
    job->created_usec = 1700000000000000;
    job->is_resolved = true;
    return job;
}

static bool exists(const char *folder, const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), 0);
}

static void make_folder(const char *folder, const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void store_picture(struct spool *spool, struct job *job, const char *bytes)
{
    uint32_t index = job->picture_count++;
    struct fault f = {0};

    job->held[index] = ipc_memfd("picture", bytes, strlen(bytes));
    assert_true(job->held[index] >= 0);
    job->pictures[index] = (struct job_picture){
        .width = 64, .height = 32, .seed = INT64_MAX, .bytes = 9, .sha256 = "0123abcd"};
    if (index == 0) {
        assert_int_equal(spool_store_picture(spool, job, index, &f), 0);
        job_release_picture(job, index);
    } /* later ones stay held: they go to the disk with the result */
}

/* --- the tests -------------------------------------------------------------------------------- */

static void test_life_of_a_job(void **state)
{
    const char *folder = *state;
    struct found found;
    struct fault f = {0};
    char bytes[16] = "";

    struct spool *spool = open_and_recover(folder, &found);
    assert_int_equal(found.jobs.count, 0);
    struct job *job = make_job(spool);
    assert_int_equal(job->id, 1);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    assert_true(exists(folder, "queued/1/request.json"));
    assert_int_equal(spool_start(spool, job, &f), 0);
    job_set_state(job, JOB_STATE_RUNNING);
    job->starts++;
    assert_true(exists(folder, "running/1/starts"));
    store_picture(spool, job, "not a png");
    assert_true(exists(folder, "running/1/0.png"));
    store_picture(spool, job, "a second one");
    assert_false(exists(folder, "running/1/1.png"));
    job->finished_usec = 5;
    (void)job_add_warning(job, "dropped: \"tail\"");
    assert_int_equal(spool_finish(spool, job, JOB_STATE_DONE, &f), 0);
    job_set_state(job, JOB_STATE_DONE);
    assert_true(exists(folder, "done/1/result.json"));
    assert_false(exists(folder, "running/1"));
    job_free(job);
    spool_close(spool);

    spool = open_and_recover(folder, &found);
    assert_int_equal(found.jobs.count, 1);
    job = found.jobs.items[0];
    assert_int_equal(job->state, JOB_STATE_DONE);
    assert_int_equal(job->owner, 1234);
    assert_string_equal(job->request.prompt, "a \"fox\"\n\x01 \xf0\x9f\xa6\x8a");
    assert_true(job->request.seed == INT64_MAX);
    assert_true(job->request.guidance_scale == 0.1);
    assert_int_equal(job->request.scheduler, SCHEDULER_LMS);
    assert_false(request_is_set(&job->request, REQUEST_steps));
    assert_int_equal(job->created_usec, 1700000000000000);
    assert_int_equal(job->finished_usec, 5);
    assert_int_equal(job->warnings.count, 1);
    assert_string_equal(job->warnings.items[0], "dropped: \"tail\"");
    assert_int_equal(job->picture_count, 2);
    assert_int_equal(job_bytes(job), 18);
    assert_true(job->pictures[0].seed == INT64_MAX);
    assert_string_equal(job->pictures[0].sha256, "0123abcd");
    int fd = spool_open_picture(spool, job, 0, &f);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, bytes, sizeof bytes), 9);
    assert_string_equal(bytes, "not a png");
    (void)close(fd);
    fd = spool_open_picture(spool, job, 1, &f);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_true(spool_open_picture(spool, job, 2, &f) < 0);
    assert_int_equal(spool_delete(spool, job, &f), 0);
    assert_false(exists(folder, "done/1"));
    assert_int_equal(spool_next_id(spool), 2);
    found_done(&found);
    spool_close(spool);
}

static int make_input(const char *bytes, size_t size)
{
    int fd = ipc_memfd("input", bytes, size);

    assert_true(fd >= 0);
    return fd;
}

static const char a_png[] = "\x89PNG\r\n\x1a\nand so on", a_jpeg[] = "\xff\xd8\xff\xe0 and so on";

/* Pictures that a job starts from are there before the job is, and as long as it. */
static void test_inputs(void **state)
{
    const char *folder = *state;
    struct found found;
    struct fault f = {0};
    char sum[72];

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    job->inputs[JOB_INPUT_IMAGE].fd = make_input(a_jpeg, sizeof a_jpeg);
    job->inputs[JOB_INPUT_MASK].fd = make_input(a_png, sizeof a_png);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    assert_string_equal(job->request.image, "input.jpg");
    assert_string_equal(job->request.mask, "mask.png");
    assert_true(exists(folder, "queued/1/input.jpg") && exists(folder, "queued/1/mask.png"));
    assert_int_equal(spool_start(spool, job, &f), 0);
    job_set_state(job, JOB_STATE_RUNNING);
    job->starts++;
    store_picture(spool, job, "half of it");
    assert_int_equal(spool_requeue(spool, job, &f), 0);
    assert_false(exists(folder, "queued/1/0.png")); /* made, and to be made again */
    assert_true(exists(folder, "queued/1/input.jpg") && exists(folder, "queued/1/mask.png"));
    job_free(job);
    spool_close(spool);

    spool = open_and_recover(folder, &found);
    assert_int_equal(found.jobs.count, 1);
    job = found.jobs.items[0];
    sha256_hex(a_jpeg, sizeof a_jpeg, sum);
    assert_string_equal(job->inputs[JOB_INPUT_IMAGE].sha256, sum);
    assert_int_equal(job->inputs[JOB_INPUT_IMAGE].format, JOB_FORMAT_JPEG);
    assert_int_equal(job->inputs[JOB_INPUT_MASK].format, JOB_FORMAT_PNG);
    assert_int_equal(job_bytes(job), sizeof a_jpeg + sizeof a_png);
    int fd = spool_open_input(spool, job, JOB_INPUT_MASK, &f);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    (void)close(fd);
    assert_int_equal(spool_finish(spool, job, JOB_STATE_CANCELLED, &f), 0);
    job_set_state(job, JOB_STATE_CANCELLED);
    assert_true(exists(folder, "cancelled/1/input.jpg"));
    assert_int_equal(spool_delete(spool, job, &f), 0);
    assert_false(exists(folder, "cancelled/1"));
    found_done(&found);
    spool_close(spool);
}

/* A picture that is none, or changes under the copy, is its owner's fault; nothing is left. */
static void test_bad_inputs(void **state)
{
    const char *folder = *state;
    struct found found;
    int pipes[2];

    struct spool *spool = open_and_recover(folder, &found);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    const struct {
        int fd;
        const char *says;
    } rows[] = {
        {make_input("no picture at all", 17), "image: neither a PNG nor a JPEG file"},
        {make_input("\x89PN", 3), "image: neither a PNG"},
        {make_input("", 0), "image: neither a PNG"},
        {pipes[0], "image: no regular file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct job *job = make_job(spool);
        struct fault f = {0};
        char name[64];
        job->inputs[JOB_INPUT_IMAGE].fd = rows[i].fd;
        assert_int_equal(spool_submit(spool, job, &f), -EINVAL);
        if (!strstr(f.text, rows[i].says))
            fail_msg("%s", f.text);
        (void)snprintf(name, sizeof name, "queued/%u", (unsigned)job->id);
        assert_false(exists(folder, name));
        (void)snprintf(name, sizeof name, "tmp/%u", (unsigned)job->id);
        assert_false(exists(folder, name));
        job_free(job);
    }
    (void)close(pipes[1]);
    spool_close(spool);
}

/* A job that waits and has lost its picture cannot be run: it is set aside. */
static void test_lost_input(void **state)
{
    const char *folder = *state;
    struct found found;
    struct fault f = {0};
    char path[512];

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    job->inputs[JOB_INPUT_IMAGE].fd = make_input(a_png, sizeof a_png);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    job_free(job);
    spool_close(spool);
    (void)snprintf(path, sizeof path, "%s/queued/1/input.png", folder);
    assert_int_equal(truncate(path, 3), 0);
    spool = open_and_recover(folder, &found);
    assert_int_equal(found.jobs.count, 0);
    assert_true(exists(folder, "corrupt/1/request.json"));
    found_done(&found);
    spool_close(spool);
}

static void test_running_becomes_queued(void **state)
{
    const char *folder = *state;
    struct found found;
    struct fault f = {0};

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    assert_int_equal(spool_start(spool, job, &f), 0);
    job_set_state(job, JOB_STATE_RUNNING);
    job->starts++;
    store_picture(spool, job, "half of it");
    job->deaths++;
    assert_int_equal(spool_requeue(spool, job, &f), 0);
    job_set_state(job, JOB_STATE_QUEUED);
    assert_false(exists(folder, "queued/1/0.png"));
    assert_int_equal(spool_start(spool, job, &f), 0);
    job_free(job);
    spool_close(spool); /* and nobody finishes it */

    spool = open_and_recover(folder, &found);
    assert_int_equal(found.jobs.count, 1);
    job = found.jobs.items[0];
    assert_int_equal(job->state, JOB_STATE_QUEUED);
    assert_int_equal(job->starts, 2);
    assert_int_equal(job->deaths, 1);
    assert_true(exists(folder, "queued/1/request.json"));
    found_done(&found);
    spool_close(spool);
}

static void test_failed_keeps_its_error(void **state)
{
    const char *folder = *state;
    struct found found;
    struct fault f = {0};

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    (void)fault_set(&job->error, -ECONNRESET, "the worker died 2 times");
    assert_int_equal(spool_finish(spool, job, JOB_STATE_FAILED, &f), 0);
    job_free(job);
    spool_close(spool);

    spool = open_and_recover(folder, &found);
    assert_int_equal(found.jobs.items[0]->state, JOB_STATE_FAILED);
    assert_int_equal(found.jobs.items[0]->error.err, -ECONNRESET);
    assert_string_equal(found.jobs.items[0]->error.text, "the worker died 2 times");
    found_done(&found);
    spool_close(spool);
}

static void test_ids_only_grow(void **state)
{
    const char *folder = *state;
    struct found found;
    struct fault f = {0};

    struct spool *spool = open_and_recover(folder, &found);
    for (int i = 0; i < 3; i++) {
        struct job *job = make_job(spool);
        assert_int_equal(spool_submit(spool, job, &f), 0);
        assert_int_equal(spool_finish(spool, job, JOB_STATE_CANCELLED, &f), 0);
        job_set_state(job, JOB_STATE_CANCELLED);
        assert_int_equal(spool_delete(spool, job, &f), 0);
        job_free(job);
    }
    spool_close(spool);
    spool = open_and_recover(folder, &found); /* by the file alone */
    assert_int_equal(spool_next_id(spool), 4);
    spool_close(spool);

    write_text(folder, "last-id", "garbage");
    make_folder(folder, "done/41");
    make_folder(folder, "corrupt/77~1");
    spool = open_and_recover(folder, &found); /* by what lies there alone */
    assert_int_equal(spool_next_id(spool), 78);
    assert_int_equal(found.corrupt, 1);
    spool_close(spool);
}

/* The text of a record with a right sum, malloc'd. */
static char *sealed(const char *body)
{
    char sum[SHA256_HEX_SIZE], *text;

    sha256_hex(body, strlen(body), sum);
    assert_true(asprintf(&text, "{\"sha256\": \"%s\",\n%s", sum, body) > 0);
    return text;
}

static void test_damage_is_set_aside(void **state)
{
    static const struct {
        const char *path, *name, *text;
        bool is_sealed;
        const char *why;
    } rows[] = {
        {"queued/10", "queued/10/request.json", "", false, "no checksum"},
        {"queued/11", "queued/11/request.json", "\"format\": 1}", true, "format 1"},
        {"queued/12", "queued/12/request.json", "\"format\": 2, \"id\": 13, \"request\": {}}", true,
         "id 13 in the folder of 12"},
        {"queued/13", "queued/13/request.json",
         "\"format\": 2, \"id\": 13, \"request\": {\"steps\": 501}}", true, "steps"},
        {"queued/14", "queued/14/request.json",
         "\"format\": 2, \"id\": 14, \"request\": {\"colour\": 1}}", true, "colour"},
        {"done/15", "done/15/request.json", "\"format\": 2, \"id\": 15, \"request\": {}}", true,
         "result.json"},
        {"queued/016", "queued/016/request.json", "", false, "no id"},
        {"failed/x", "failed/x/a", "a", false, "no id"},
        {"queued/17", "queued/17/other", "no record", false, "request.json"},
    };
    const char *folder = *state;
    struct found found;

    spool_close(open_and_recover(folder, &found));
    make_folder(folder, "corrupt/10"); /* the name is taken */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char *text = rows[i].is_sealed ? sealed(rows[i].text) : strdup(rows[i].text);
        make_folder(folder, rows[i].path);
        write_text(folder, rows[i].name, text);
        free(text);
        spool_close(open_and_recover(folder, &found));
        assert_int_equal(found.corrupt, 1);
        if (!strstr(found.why, rows[i].why))
            fail_msg("%s: \"%s\" does not say \"%s\"", rows[i].path, found.why, rows[i].why);
    }
    assert_true(exists(folder, "corrupt/10~1/request.json"));
    assert_true(exists(folder, "corrupt/15/request.json"));
}

/* Every single byte of a record is under its sum. */
static void test_flipped_bits(void **state)
{
    const char *folder = *state;
    _cleanup_(freep) char *path = NULL, *text = NULL;
    struct fault f = {0};
    struct found found;
    size_t length;

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    spool_close(spool);
    assert_true(asprintf(&path, "%s/queued/1/request.json", folder) > 0);
    assert_int_equal(file_read(path, 1 << 20, &text, &length, &f), 0);
    for (size_t i = 0; i < length; i++) {
        text[i] ^= 1;
        assert_int_equal(record_parse_request(text, length, job, &f), -EINVAL);
        text[i] ^= 1;
    }
    request_done(&job->request);
    assert_int_equal(record_parse_request(text, length, job, &f), 0);
    job_free(job);
}

/* What a failed change left elsewhere is found there, and the change can be made again. */
static void test_changes_can_be_repeated(void **state)
{
    const char *folder = *state;
    struct fault f = {0};
    struct found found;

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    assert_int_equal(spool_start(spool, job, &f), 0);
    assert_int_equal(spool_start(spool, job, &f), 0); /* for all it knows the job is queued */
    assert_int_equal(spool_finish(spool, job, JOB_STATE_DONE, &f), 0);
    assert_int_equal(spool_finish(spool, job, JOB_STATE_DONE, &f), 0);
    assert_true(exists(folder, "done/1/result.json"));
    assert_int_equal(spool_delete(spool, job, &f), 0);
    assert_int_equal(spool_delete(spool, job, &f), 0);
    assert_true(spool_start(spool, job, &f) < 0);
    job_free(job);
    spool_close(spool);
}

/* Pictures, and the way to them; nothing else. */
static void test_shared_pictures(void **state)
{
    static const struct {
        const char *name;
        unsigned mode;
    } rows[] = {{".", 0710},
                {"done", 0710},
                {"done/1", 0710},
                {"done/1/0.png", 0640},
                {"done/1/request.json", 0600},
                {"done/1/result.json", 0600},
                {"failed", 0700},
                {"queued", 0700},
                {"tmp", 0700}};
    const char *folder = *state;
    struct fault f = {0};
    struct found found;
    struct stat st;
    char path[512];

    struct spool *spool = open_and_recover(folder, &found);
    assert_int_equal(spool_share_pictures(spool, getgid(), &f), 0);
    struct job *job = make_job(spool);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    assert_int_equal(spool_start(spool, job, &f), 0);
    job_set_state(job, JOB_STATE_RUNNING);
    store_picture(spool, job, "not a png");
    assert_int_equal(spool_finish(spool, job, JOB_STATE_DONE, &f), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, rows[i].name);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, rows[i].mode);
    }
    job_free(job);
    spool_close(spool);
}

static void test_uptime(void **state)
{
    const char *folder = *state;
    struct fault f = {0};
    struct found found;

    struct spool *spool = open_and_recover(folder, &found);
    assert_int_equal(spool_uptime(spool), 0);
    assert_int_equal(spool_write_uptime(spool, 86400, &f), 0);
    assert_int_equal(spool_probe(spool, &f), 0);
    spool_close(spool);
    spool = open_and_recover(folder, &found);
    assert_int_equal(spool_uptime(spool), 86400);
    spool_close(spool);
}

static void test_one_daemon_a_spool(void **state)
{
    const char *folder = *state;
    struct spool *second = NULL;
    struct fault f = {0};
    struct found found;

    struct spool *spool = open_and_recover(folder, &found);
    assert_true(spool_open(folder, &second, &f) < 0);
    assert_null(second);
    assert_non_null(strstr(f.text, "another daemon"));
    spool_close(spool);
}

static void test_failures_leave_no_trace(void **state)
{
    const char *folder = *state;
    struct fault f = {0};
    struct found found;
    char path[512];

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    (void)snprintf(path, sizeof path, "%s/queued/%d/x", folder, (int)job->id);
    make_folder(folder, "queued/1");
    make_folder(folder, "queued/1/x"); /* in the way, not empty */
    assert_true(spool_submit(spool, job, &f) < 0);
    assert_false(exists(folder, "tmp/1"));
    assert_true(f.text[0] != '\0');
    job_free(job);
    spool_close(spool);
}

static void test_modes(void **state)
{
    const char *folder = *state;
    struct fault f = {0};
    struct found found;
    struct stat st;
    char path[512];

    struct spool *spool = open_and_recover(folder, &found);
    struct job *job = make_job(spool);
    assert_int_equal(spool_submit(spool, job, &f), 0);
    (void)snprintf(path, sizeof path, "%s/queued/1", folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    (void)snprintf(path, sizeof path, "%s/queued/1/request.json", folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    job_free(job);
    spool_close(spool);
}

#define SPOOL_TEST(function)                                                                       \
    cmocka_unit_test_setup_teardown(function, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(test_life_of_a_job),
        SPOOL_TEST(test_inputs),
        SPOOL_TEST(test_bad_inputs),
        SPOOL_TEST(test_lost_input),
        SPOOL_TEST(test_running_becomes_queued),
        SPOOL_TEST(test_failed_keeps_its_error),
        SPOOL_TEST(test_ids_only_grow),
        SPOOL_TEST(test_damage_is_set_aside),
        SPOOL_TEST(test_one_daemon_a_spool),
        SPOOL_TEST(test_failures_leave_no_trace),
        SPOOL_TEST(test_modes),
        SPOOL_TEST(test_flipped_bits),
        SPOOL_TEST(test_changes_can_be_repeated),
        SPOOL_TEST(test_uptime),
        SPOOL_TEST(test_shared_pictures),
    };

    return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
