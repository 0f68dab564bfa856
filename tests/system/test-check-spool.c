/* check-spool finds each violation that is planted into a sound spool, a sound history and a sound
 * drop folder, and nothing in the sound ones. The spool is written here, byte by byte. */
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

#include "tests/support/check.h"
#include "tests/support/folder.h"
#include "vk/base/cleanup.h"
#include "vk/base/sha256.h"

static int root = -1; /* the temporary folder of the running test */

/* --- writing ---------------------------------------------------------------------------------- */

static void put(const char *path, const void *data, size_t size)
{
    _cleanup_(closep) int fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), (ssize_t)size);
}

static void put_text(const char *path, const char *text)
{
    put(path, text, strlen(text));
}

static void put_record(const char *path, const char *members)
{
    char rest[1024], sum[SHA256_HEX_SIZE], text[1200];

    (void)snprintf(rest, sizeof rest, " \"format\": 2,\n %s}\n", members);
    sha256_hex(rest, strlen(rest), sum);
    (void)snprintf(text, sizeof text, "{\"sha256\": \"%s\",\n%s", sum, rest);
    put_text(path, text);
}

static size_t add_chunk(uint8_t *to, const char *type, const uint8_t *data, uint32_t size)
{
    uint32_t crc = UINT32_MAX;
    uint8_t *body = to + 4;

    memcpy(body, type, 4);
    memcpy(body + 4, data, size);
    for (uint32_t i = 0; i < size + 4; i++) {
        crc ^= body[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    crc = ~crc;
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(size >> (24 - 8 * i));
        body[4 + size + (uint32_t)i] = (uint8_t)(crc >> (24 - 8 * i));
    }
    return size + 12;
}

/* 64 x 64; the pixels are none of the checker's business. */
static void put_png(const char *path, char ret_sum[SHA256_HEX_SIZE])
{
    uint8_t png[128] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    const uint8_t header[13] = {0, 0, 0, 64, 0, 0, 0, 64, 8, 2};
    size_t n = 8;

    n += add_chunk(png + n, "IHDR", header, 13);
    n += add_chunk(png + n, "IDAT", (const uint8_t *)"pixels", 6);
    n += add_chunk(png + n, "IEND", header, 0);
    put(path, png, n);
    sha256_hex(png, n, ret_sum);
}

static void put_request(const char *path, unsigned id, const char *origin, const char *rows)
{
    char members[512];

    (void)snprintf(members, sizeof members,
                   "\"id\": %u, \"owner\": 1000, \"created_usec\": 1, \"resolved\": true, "
                   "\"origin\": \"%s\", \"request\": {\"prompt\": \"x\"%s}",
                   id, origin, rows);
    put_record(path, members);
}

static void put_result(const char *path, const char *state, const char *error, const char *pictures)
{
    char members[512];

    (void)snprintf(members, sizeof members,
                   "\"state\": \"%s\", \"started_usec\": 1, \"finished_usec\": 2, "
                   "\"finished_uptime_usec\": 2, \"error\": [\"%s\", \"\"], \"warnings\": [], "
                   "\"pictures\": [%s]",
                   state, error, pictures);
    put_record(path, members);
}

/* 1 queued, 2 running, 3 done with one picture, 4 failed, 5 cancelled; 6 was deleted. */
static int setup(void **state)
{
    static const char *const folders[] = {
        "spool",
        "spool/tmp",
        "spool/queued",
        "spool/running",
        "spool/done",
        "spool/failed",
        "spool/corrupt",
        "spool/cancelled",
        "spool/queued/1",
        "spool/running/2",
        "spool/done/3",
        "spool/failed/4",
        "spool/cancelled/5",
        "drop",
        "drop/working",
        "drop/working/k",
        "drop/done",
        "drop/done/b.d",
        "drop/failed",
    };
    char sum[SHA256_HEX_SIZE], picture[256];

    assert_int_equal(folder_setup(state), 0);
    root = open(*state, O_RDONLY | O_DIRECTORY);
    assert_true(root >= 0);
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
        assert_int_equal(mkdirat(root, folders[i], 0700), 0);
    put_text("spool/last-id", "6\n");
    put_request("spool/queued/1/request.json", 1, "drop:a", ", \"token\": \"t1\"");
    put_request("spool/running/2/request.json", 2, "", ", \"token\": \"t2\"");
    put_text("spool/running/2/starts", "1 0\n");
    put_request("spool/done/3/request.json", 3, "drop:b", ", \"seed\": 7");
    put_text("spool/done/3/starts", "2 1\n");
    put_png("spool/done/3/0.png", sum);
    (void)snprintf(picture, sizeof picture,
                   "{\"width\": 64, \"height\": 64, \"seed\": 7, \"sha256\": \"%s\"}", sum);
    put_result("spool/done/3/result.json", "done", "", picture);
    put_request("spool/failed/4/request.json", 4, "", "");
    put_text("spool/failed/4/starts", "2 2\n");
    put_result("spool/failed/4/result.json", "failed", "WorkerCrashed", "");
    put_request("spool/cancelled/5/request.json", 5, "", "");
    put_result("spool/cancelled/5/result.json", "cancelled", "Cancelled", "");
    put_text("drop/a.txt", "a");
    put_text("drop/working/k/c.ini", "c");
    put_text("drop/done/b.d/b.txt", "b");
    put_text("drop/failed/d~1.txt", "d");
    return 0;
}

static int teardown(void **state)
{
    (void)close(root);
    return folder_teardown(state);
}

static const char sound_history[] = "# what clients saw\n"
                                    "SUBMITTED 1 t1 - 1000\n"
                                    "SUBMITTED 2 t2 - 1000\n"
                                    "REFUSED SpoolFull\n"
                                    "SUBMITTED 3 - 7 1000\n"
                                    "SUBMITTED 4 - -\n"
                                    "SUBMITTED 5 - - 1000\n"
                                    "SUBMITTED 6 t6 - 1000\n"
                                    "REPEATED 2 t2 - 1000\n"
                                    "STATE 3 running\nSTATE 3 done\nSTATE 3 done\n"
                                    "CANCELLED 5\n"
                                    "DELETED 6\n"
                                    "DROPPED a.txt\nDROPPED b.txt\nDROPPED c.ini\nDROPPED d.txt\n";

/* The text is malloc'd; *ret_count: as check_spool() has it. */
static char *run(const char *folder, const char *history, unsigned flags, uint64_t user_jobs,
                 int *ret_count)
{
    char spool[512], drop[512], *text = NULL;
    size_t size = 0;

    (void)snprintf(spool, sizeof spool, "%s/spool", folder);
    (void)snprintf(drop, sizeof drop, "%s/drop", folder);
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    *ret_count = check_spool(&(struct check_options){.spool = spool,
                                                     .drop = drop,
                                                     .history = history,
                                                     .flags = flags,
                                                     .user_jobs = user_jobs,
                                                     .uid = -1,
                                                     .out = out});
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_sound(void **state)
{
    int count;
    char *text = run(*state, sound_history, 0, 0, &count);

    assert_string_equal(text, "");
    assert_int_equal(count, 0);
    free(text);
}

/* --- planted on disk -------------------------------------------------------------------------- */

enum act { REMOVE, RENAME, CHMOD, CHOWN, FLIP, CUT, GROW, WRITE, FOLDER, COPY };

struct planted {
    enum act act;
    const char *path, *to; /* to: the other name, the text */
    long number;           /* offset, size, mode */
    const char *finding;
};

static void copy_job(const char *from, const char *to)
{
    static const char *const files[] = {"request.json", "starts", "result.json", "0.png"};
    char a[256], b[256], data[4096];

    assert_int_equal(mkdirat(root, to, 0700), 0);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        (void)snprintf(a, sizeof a, "%s/%s", from, files[i]);
        (void)snprintf(b, sizeof b, "%s/%s", to, files[i]);
        _cleanup_(closep) int fd = openat(root, a, O_RDONLY);
        ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof data);
        if (n >= 0)
            put(b, data, (size_t)n);
    }
}

static void plant(const struct planted *p)
{
    _cleanup_(closep) int fd = openat(root, p->path, p->act == GROW ? O_RDWR | O_APPEND : O_RDWR);
    char byte;

    switch (p->act) {
    case REMOVE:
        assert_int_equal(unlinkat(root, p->path, 0), 0);
        break;
    case RENAME:
        assert_int_equal(renameat(root, p->path, root, p->to), 0);
        break;
    case CHMOD:
        assert_int_equal(fchmodat(root, p->path, (mode_t)p->number, 0), 0);
        break;
    case CHOWN:
        if (fchownat(root, p->path, (uid_t)p->number, (gid_t)-1, 0) < 0)
            skip();
        break;
    case FLIP:
        assert_int_equal(pread(fd, &byte, 1, p->number), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, p->number), 1);
        break;
    case CUT:
        assert_int_equal(ftruncate(fd, p->number), 0);
        break;
    case GROW:
        assert_int_equal(write(fd, p->to, strlen(p->to)), (ssize_t)strlen(p->to));
        break;
    case WRITE:
        put_text(p->path, p->to);
        break;
    case FOLDER:
        assert_int_equal(mkdirat(root, p->path, 0700), 0);
        break;
    case COPY:
        copy_job(p->path, p->to);
        break;
    }
}

static const struct planted planted[] = {
    {RENAME, "spool/queued/1", "spool/tmp/1", 0, "job 1: lost"},
    {RENAME, "spool/done/3", "lost", 0, "job 3: lost"},
    {RENAME, "spool/done/3", "spool/corrupt/3", 0, "job 3: set aside"},
    {RENAME, "spool/done/3", "spool/corrupt/3~1", 0, "job 3: set aside"},
    {RENAME, "spool/failed/4", "spool/done/4", 0, "done/4/result.json: says \"failed\""},
    {RENAME, "spool/cancelled/5", "spool/failed/6", 0, "job 6: was deleted, and is in failed/"},
    {RENAME, "spool/queued/1", "spool/queued/01", 0, "queued/01: the name is no id"},
    {RENAME, "spool/done/3", "spool/queued/3", 0, "job 3: was seen done, and is in queued/"},
    {COPY, "spool/queued/1", "spool/done/1", 0, "job 1: in queued/ and in done/"},
    {COPY, "spool/queued/1", "spool/queued/6", 0, "jobs 1 and 6: one token \"t1\""},
    {COPY, "spool/done/3", "spool/done/6", 0, "jobs 3 and 6: one origin \"drop:b\""},
    {REMOVE, "spool/queued/1/request.json", NULL, 0, "queued/1/request.json: No such file"},
    {FLIP, "spool/queued/1/request.json", NULL, 130, "queued/1/request.json: its sum is wrong"},
    {FLIP, "spool/queued/1/request.json", NULL, 14, "queued/1/request.json: its sum is wrong"},
    {CUT, "spool/queued/1/request.json", NULL, 60, "queued/1/request.json: no JSON"},
    {CUT, "spool/queued/1/request.json", NULL, 0, "queued/1/request.json: no JSON"},
    {WRITE, "spool/queued/1/request.json", "{\"format\": 1}", 0, "format 1, want 2"},
    {WRITE, "spool/queued/1/request.json", "{\"format\": 2, \"id\": 1}", 0,
     "does not begin with its sum"},
    {REMOVE, "spool/running/2/starts", NULL, 0, "running/2: was started without a count"},
    {WRITE, "spool/running/2/starts", "1\n", 0, "running/2/starts: \"1"},
    {WRITE, "spool/running/2/starts", "1 2\n", 0, "running/2/starts: \"1 2"},
    {REMOVE, "spool/done/3/result.json", NULL, 0, "done/3/result.json: No such file"},
    {REMOVE, "spool/done/3/0.png", NULL, 0, "1 pictures in result.json, files 0"},
    {CUT, "spool/done/3/0.png", NULL, 0, "0.png: no PNG"},
    {CUT, "spool/done/3/0.png", NULL, 50, "0.png: cut off"},
    {CUT, "spool/done/3/0.png", NULL, 51, "IEND is not where it belongs"},
    {FLIP, "spool/done/3/0.png", NULL, 20, "CRC of IHDR is wrong"},
    {GROW, "spool/done/3/0.png", "x", 0, "IEND is not where it belongs"},
    {RENAME, "spool/done/3/0.png", "spool/done/3/1.png", 0, "1 pictures in result.json, files 0x2"},
    {WRITE, "spool/running/2/0.png", "half", 0, "running/2/0.png: no PNG"},
    {WRITE, "spool/done/3/new", "", 0, "done/3/new: has no business there"},
    {WRITE, "spool/other", "", 0, "other: has no business in the spool"},
    {WRITE, "spool/tmp/new", "", 0, "tmp/new: left over"},
    {WRITE, "spool/last-id", "5\n", 0, "job 6: may be given again, the disk knows 5 only"},
    {WRITE, "spool/last-id", "six", 0, "last-id: \"six\""},
    {REMOVE, "spool/last-id", NULL, 0, "job 6: may be given again"},
    {CHMOD, "spool/done", NULL, 0755, "done: mode 0755, want 0700"},
    {CHMOD, "spool/done/3", NULL, 0750, "done/3: mode 0750, want 0700"},
    {CHMOD, "spool/done/3/0.png", NULL, 0644, "done/3/0.png: mode 0644, want 0600"},
    {REMOVE, "drop/a.txt", NULL, 0, "dropped a.txt: lost"},
    {WRITE, "drop/failed/b.txt", "b", 0, "dropped b.txt: at "},
    {WRITE, "drop/working/k/c~3.ini", "c", 0, "dropped c.ini: at "},
    {CHOWN, "spool/done/3/0.png", NULL, 65534, "done/3/0.png: owned by uid 65534"},
};

static void test_planted_on_disk(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(planted); i++) {
        int count = 0;
        if (i > 0)
            assert_int_equal(setup(state), 0);
        plant(&planted[i]);
        char *text = run(*state, sound_history, 0, 0, &count);
        if (count < 1 || !strstr(text, planted[i].finding))
            fail_msg("row %zu: %d found, want \"%s\":\n%s", i, count, planted[i].finding, text);
        free(text);
        if (i + 1 < ARRAY_SIZE(planted))
            assert_int_equal(teardown(state), 0);
    }
}

/* --- planted in the history, and rules that are asked for ------------------------------------- */

static void test_planted_in_history(void **state)
{
    static const struct {
        const char *lines, *finding;
    } rows[] = {
        {"SUBMITTED 1 - - 1000\nSUBMITTED 1 - - 1000\n", "job 1 was given twice"},
        {"SUBMITTED 1 t1 - 1000\nSUBMITTED 1 t1 - 1001\n", "job 1 was given twice"},
        {"SUBMITTED 1 t1 - 1000\nSUBMITTED 2 t1 - 1000\n", "token t1 of uid 1000: job 1 and job 2"},
        {"SUBMITTED 1 t1 - 1000\nREPEATED 2 t1 - 1000\n", "token t1 of uid 1000: job 1 and job 2"},
        {"STARTS 3 2\nSTARTS 2 2\n", "job 2: was started 2 times, counts 1"},
        {"WRONG 3 is not in my list\n", "job 3: is not in"},
        {"SUBMITTED 4 - - 1000\nSUBMITTED 3 - - 1000\n", "job 3 was given after job 4"},
        {"SUBMITTED 1 other - 1000\n", "job 1: asked with token other"},
        {"SUBMITTED 3 - 8 1000\n", "job 3: asked with seed 8"},
        {"SUBMITTED 3 - 7 1001\n", "job 3: of uid 1001, has owner 1000"},
        {"SUBMITTED 60 - -\n", "job 60: lost"},
        {"STATE 3 failed\nSTATE 3 done\n", "job 3 was failed, and is done"},
        {"STATE 4 done\n", "job 4: was seen done, and is in failed/"},
        {"DELETED 3\n", "job 3: was deleted, and is in done/"},
        {"DELETED 6\nSTATE 6 done\n", "job 6 was deleted, and is done"},
        {"DELETED 6\nSUBMITTED 6 - -\n", "job 6 was deleted before"},
        {"DROPPED e.txt\n", "dropped e.txt: lost"},
        {"STATE 3 finished\n", "no state \"finished\""},
        {"SUBMITTED one - -\n", "\"one\" is no id"},
        {"LOST 3\n", "history, line 1: \"LOST\""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int count = 0;
        char *text = run(*state, rows[i].lines, 0, 0, &count);
        if (count < 1 || !strstr(text, rows[i].finding))
            fail_msg("row %zu: %d found, want \"%s\":\n%s", i, count, rows[i].finding, text);
        free(text);
    }
}

static void test_allowances(void **state)
{
    int count = 0;

    assert_int_equal(renameat(root, "spool/done/3", root, "spool/corrupt/3"), 0);
    put_text("spool/tmp/new", "");
    char *text = run(*state, "DAMAGED 3\nSUBMITTED 6 - -\nDELETING 6\nEXPIRED 6\n", CHECK_RUNNING,
                     2, &count);
    assert_string_equal(text, "");
    free(text);
    text = run(*state, "CANCELLED 1\n", CHECK_RUNNING | CHECK_DRAINED, 1, &count);
    assert_non_null(strstr(text, "job 1: still queued"));
    assert_non_null(strstr(text, "job 2: still running"));
    assert_non_null(strstr(text, "job 1: was cancelled, and is queued"));
    assert_non_null(strstr(text, "uid 1000: 2 jobs, at most 1"));
    assert_int_equal(count, 4);
    free(text);
    text = run(*state, "", CHECK_RUNNING | CHECK_IDLE, 0, &count);
    assert_non_null(strstr(text, "job 2: in running/ while nothing runs"));
    assert_int_equal(count, 1);
    free(text);
    text = run("/nonexistent", "", 0, 0, &count);
    assert_int_equal(count, -ENOENT);
    free(text);
}

static void test_canary(void **state)
{
    char path[512];

    put_text("log", "job 1: queued\nplum pudding\n");
    (void)snprintf(path, sizeof path, "%s/log", (char *)*state);
    FILE *out = fopen("/dev/null", "w");
    assert_int_equal(check_file_for_text(path, "plum", out), 1);
    assert_int_equal(check_file_for_text(path, "pear", out), 0);
    assert_int_equal(check_file_for_text("/nonexistent", "pear", out), -ENOENT);
    (void)fclose(out);
}

#define CHECK_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHECK_TEST(test_sound),
        CHECK_TEST(test_planted_on_disk),
        CHECK_TEST(test_planted_in_history),
        CHECK_TEST(test_allowances),
        CHECK_TEST(test_canary),
    };

    return cmocka_run_group_tests_name("check-spool", tests, NULL, NULL);
}
