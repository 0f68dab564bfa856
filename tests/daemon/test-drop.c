/* drop: files become jobs, jobs become files; refusals, waits, files that grow. The jobs are the
 * test's. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/dropbox.h"
#include "vk/base/cleanup.h"
#include "vk/base/json.h"

/* --- from ticket to picture ------------------------------------------------------------------- */

static void check_json(const struct dropbox *box, const char *name, const struct job *job,
                       const char *picture)
{
    _cleanup_(freep) char *text = dropbox_read(box, name);
    _cleanup_(json_freep) json_t *root = NULL;
    struct fault f = {0};

    assert_int_equal(json_parse(text, strlen(text), &root, &f), 0);
    assert_string_equal(json_string_value(json_object_get(root, "state")), "done");
    assert_int_equal(json_integer_value(json_object_get(root, "id")), job->id);
    assert_int_equal(json_integer_value(json_object_get(root, "duration_usec")), 2000);
    assert_string_equal(json_string_value(json_array_get(json_object_get(root, "warnings"), 0)),
                        "the prompt was cut");
    const json_t *one = json_array_get(json_object_get(root, "pictures"), 0);
    assert_string_equal(json_string_value(json_object_get(one, "sha256")), job->pictures[0].sha256);
    assert_string_equal(json_string_value(json_object_get(one, "file")), picture);
    assert_int_equal(json_integer_value(json_object_get(one, "width")), 64);
    const json_t *options = json_object_get(root, "options");
    assert_string_equal(json_string_value(json_object_get(options, "prompt")), job->request.prompt);
}

static void test_text(void **state)
{
    struct dropbox *box = *state;
    char content[128];

    dropbox_start(box);
    dropbox_put(box, "fox.txt",
                "\xef\xbb\xbf"
                "a red fox\r\n");
    dropbox_until(box, box->jobs.count == 1);
    struct job *job = dropbox_job(box);
    assert_string_equal(job->request.prompt, "a red fox");
    assert_int_equal(job->owner, getuid());
    dropbox_run(box, 30);
    assert_false(dropbox_has(box, "fox.txt"));
    assert_int_equal(dropbox_count(box, "working"), 1);
    dropbox_finish(box, job, JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "done/fox.d/fox.txt") && box->jobs.items[0].fetched == 1);
    (void)snprintf(content, sizeof content, "picture 0 of job 1, \"%s\"", job->origin);
    dropbox_assert_text(box, "done/fox.png", content);
    check_json(box, "done/fox.json", job, "fox.png");
    dropbox_assert_text(box, "done/fox.d/fox.txt",
                        "\xef\xbb\xbf"
                        "a red fox\r\n");
    assert_int_equal(dropbox_mode(box, "done/fox.png"), 0640);
    assert_int_equal(dropbox_mode(box, "done/fox.json"), 0640);
    assert_int_equal(dropbox_mode(box, "done/fox.d"), 02750);
    assert_int_equal(dropbox_mode(box, "done"), 02750);
    assert_int_equal(dropbox_mode(box, "failed"), 02750);
    assert_int_equal(dropbox_mode(box, "working"), 02700);
    assert_int_equal(dropbox_mode(box, ""), 03770);
    assert_int_equal(dropbox_count(box, ""), 3);
    assert_string_equal(box->health, "");
}

static void test_ini(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    dropbox_write(box, "fox.ini", "[job]\nprompt = a fox\nseed = 42\ncount = 3\nsteps = 7\n");
    dropbox_until(box, box->jobs.count == 1);
    struct job *job = dropbox_job(box);
    assert_string_equal(job->request.prompt, "a fox");
    assert_int_equal(job->request.seed, 42);
    assert_int_equal(job->request.steps, 7);
    dropbox_finish(box, job, JOB_STATE_DONE, 3);
    dropbox_until(box, box->jobs.items[0].fetched == 7);
    assert_true(dropbox_has(box, "done/fox.0.png") && dropbox_has(box, "done/fox.2.png"));
    check_json(box, "done/fox.json", job, "fox.0.png");
    assert_true(dropbox_has(box, "done/fox.d/fox.ini"));
    assert_int_equal(dropbox_count(box, ""), 5);
}

static void test_empty_ticket(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    dropbox_put(box, "nothing.txt", "");
    dropbox_until(box, box->jobs.count == 1);
    assert_string_equal(dropbox_job(box)->request.prompt, "");
}

static void test_collisions(void **state)
{
    struct dropbox *box = *state;

    box->ends_at_once = true;
    dropbox_start(box);
    for (unsigned i = 0; i < 3; i++) {
        dropbox_put(box, "fox.txt", "a fox");
        dropbox_until(box,
                      dropbox_count(box, "working") == 0 && dropbox_count(box, "") == 3 * i + 3);
    }
    assert_true(dropbox_has(box, "done/fox.png"));
    assert_true(dropbox_has(box, "done/fox~1.json"));
    assert_true(dropbox_has(box, "done/fox~2.d/fox.txt"));
    dropbox_put(box, "fox.ini", "[job]\nwidth = 7\n");
    dropbox_until(box, dropbox_has(box, "failed/fox.ini"));
    dropbox_put(box, "fox.ini", "[job]\nwidth = 9999\n");
    dropbox_until(box, dropbox_has(box, "failed/fox~1.ini"));
    dropbox_assert_says(box, "failed/fox.error.txt", "width: 7");
    dropbox_assert_says(box, "failed/fox~1.error.txt", "9999");
    /* names that would mix with those of pictures of several */
    dropbox_put(box, "bird.1.txt", "one");
    dropbox_until(box, dropbox_has(box, "done/bird.1.d"));
    dropbox_put(box, "bird.ini", "[job]\ncount = 2\n");
    dropbox_until(box, dropbox_has(box, "done/bird~1.d"));
    assert_true(dropbox_has(box, "done/bird~1.1.png"));
}

static void test_ended_jobs(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    dropbox_put(box, "a.txt", "a");
    dropbox_until(box, box->jobs.count == 1);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_FAILED, 0);
    dropbox_until(box, dropbox_has(box, "failed/a.txt"));
    dropbox_assert_says(box, "failed/a.error.txt",
                        "job 1 failed: WorkerCrashed: the worker died twice");
    dropbox_put(box, "b.txt", "b");
    dropbox_until(box, box->jobs.count == 2);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_CANCELLED, 0);
    dropbox_until(box, dropbox_has(box, "failed/b.txt"));
    dropbox_assert_says(box, "failed/b.error.txt", "job 2 cancelled: Cancelled");
    assert_int_equal(dropbox_mode(box, "failed/b.error.txt"), 0640);
    dropbox_until(box, dropbox_count(box, "") == 4);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void test_bad_tickets(void **state)
{
    static const struct {
        const char *name, *text, *error, *says;
    } rows[] = {
        {"a.ini", "[job]\nsteps = many\n", "failed/a.error.txt", "line 2: steps"},
        {"b.ini", "[job]\n\x1b[31mx = 1\n", "failed/b.error.txt", "\\x1b[31mx"},
        {"c.txt", "\xff\xfe", "failed/c.error.txt", "not UTF-8"},
        {"d.pdf", NULL, NULL, NULL}, /* not before its hour is over */
    };
    struct dropbox *box = *state;

    dropbox_start(box);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        dropbox_put(box, rows[i].name, rows[i].text ? rows[i].text : "x");
    for (size_t i = 0; i + 1 < ARRAY_SIZE(rows); i++) {
        char moved[64];
        (void)snprintf(moved, sizeof moved, "failed/%s", rows[i].name);
        dropbox_until(box, dropbox_has(box, moved));
        dropbox_assert_says(box, rows[i].error, rows[i].says);
    }
    assert_true(dropbox_has(box, "d.pdf"));
    assert_int_equal(box->jobs.count, 0);
}

static void test_too_long(void **state)
{
    struct dropbox *box = *state;
    char *text = malloc(70000);

    memset(text, 'a', 69999);
    text[69999] = '\0';
    dropbox_start(box);
    dropbox_put(box, "big.txt", text);
    text[20000] = '\0';
    dropbox_put(box, "long.txt", text);
    dropbox_until(box, dropbox_has(box, "failed/big.txt") && dropbox_has(box, "failed/long.txt"));
    dropbox_assert_says(box, "failed/big.error.txt", "69999 bytes");
    dropbox_assert_says(box, "failed/long.error.txt", "PromptTooLong");
    free(text);
}

static void test_picture_beside(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    dropbox_put(box, "cat.png", "the picture");
    dropbox_put(box, "cat.mask.png", "the mask");
    dropbox_run(box, 50);
    assert_true(dropbox_has(box, "cat.png"));
    dropbox_put(box, "cat.txt", "a cat");
    dropbox_until(box, box->submissions == 1);
    assert_int_equal(box->input_bytes[JOB_INPUT_IMAGE], strlen("the picture"));
    assert_int_equal(box->input_bytes[JOB_INPUT_MASK], strlen("the mask"));
    assert_int_equal(box->jobs.count, 1);
    dropbox_finish(box, box->jobs.items[0].job, JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "done/cat.d") && dropbox_count(box, "working") == 0);
    dropbox_assert_text(box, "done/cat.d/cat.txt", "a cat");
    dropbox_assert_text(box, "done/cat.d/cat.png", "the picture");
    dropbox_assert_text(box, "done/cat.d/cat.mask.png", "the mask");
    assert_true(dropbox_has(box, "done/cat.png") && dropbox_has(box, "done/cat.json"));
}

/* What cannot be what a ticket starts from: all of it goes to failed/. */
static void test_bad_pictures(void **state)
{
    static const struct {
        const char *files[3], *says;
    } rows[] = {
        {{"a.png", "a.jpg"}, "a.jpg: there were two such pictures for one ticket"},
        {{"a.mask.png"}, "a.mask.png: a mask, but there is no picture"},
        {{"a.jpeg"}, "a.jpeg: the file is empty"},
    };
    struct dropbox *box = *state;
    char name[64];

    dropbox_start(box);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        for (size_t k = 0; k < 3 && rows[i].files[k]; k++)
            dropbox_put(box, rows[i].files[k], i == 2 ? "" : "picture");
        dropbox_put(box, "a.txt", "a fox");
        (void)snprintf(name, sizeof name, "failed/a%s.txt", i == 0 ? "" : i == 1 ? "~1" : "~2");
        dropbox_until(box, dropbox_has(box, name) && dropbox_count(box, "working") == 0);
        (void)snprintf(name, sizeof name, "failed/a%s.error.txt",
                       i == 0   ? ""
                       : i == 1 ? "~1"
                                : "~2");
        dropbox_assert_says(box, name, rows[i].says);
    }
    assert_int_equal(box->submissions, 0);
}

static void test_both_tickets(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    dropbox_close(box);
    dropbox_put(box, "dog.txt", "a dog");
    dropbox_put(box, "dog.ini", "[job]\nprompt = a dog\n");
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "failed/dog.txt") && dropbox_has(box, "failed/dog.ini"));
    dropbox_assert_says(box, "failed/dog.error.txt", "a .txt and an .ini");
    assert_int_equal(box->submissions, 0);
    dropbox_until(box, dropbox_count(box, "") == 3);
}

static void test_orphans(void **state)
{
    struct dropbox *box = *state;

    box->options.orphan_usec = 600000;
    dropbox_start(box);
    dropbox_put(box, "lonely.jpg", "a picture");
    dropbox_put(box, "odd.pdf", "a document");
    dropbox_run(box, 300);
    assert_true(dropbox_has(box, "lonely.jpg") && dropbox_has(box, "odd.pdf"));
    dropbox_until(box, dropbox_has(box, "failed/lonely.jpg") && dropbox_has(box, "failed/odd.pdf"));
    dropbox_assert_says(box, "failed/lonely.error.txt", "no ticket came");
    dropbox_assert_says(box, "failed/odd.error.txt", "neither a ticket");
}

/* However late the picture is by then, its ticket takes it along. */
static void test_late_ticket(void **state)
{
    struct dropbox *box = *state;

    box->options.orphan_usec = 1;
    box->options.settle_usec = 1;
    dropbox_start(box);
    dropbox_close(box);
    dropbox_put(box, "fox.png", "picture");
    dropbox_run(box, 10); /* older than its ticket */
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_open(box);
    dropbox_until(box, box->submissions == 1);
    assert_int_equal(box->input_bytes[JOB_INPUT_IMAGE], strlen("picture"));
}

static void test_ignored(void **state)
{
    static const char *const names[] = {".fox.txt", "fox.txt.part", "fox.tmp", "fox.crdownload",
                                        "fox.txt~"};
    struct dropbox *box = *state;

    box->options.orphan_usec = 100000;
    dropbox_start(box);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        dropbox_put(box, names[i], "x");
    dropbox_run(box, 500);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_true(dropbox_has(box, names[i]));
}

static void test_denied(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    if (getuid() != 0) {
        print_message("needs root: gives a file to another user\n");
        skip();
    }
    box->denied_uid = 12345;
    dropbox_start(box);
    dropbox_close(box);
    dropbox_put(box, "x.txt", "let me in");
    (void)snprintf(path, sizeof path, "%s/x.txt", box->path);
    assert_int_equal(chown(path, 12345, 12345), 0);
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "failed/x.txt"));
    dropbox_assert_says(box, "failed/x.error.txt", "uid 12345, may not submit");
    assert_int_equal(box->submissions, 0);
}

/* Another user's picture is not taken along. */
static void test_foreign_picture(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    if (getuid() != 0) {
        print_message("needs root: gives a file to another user\n");
        skip();
    }
    dropbox_start(box);
    dropbox_put(box, "x.png", "not yours");
    (void)snprintf(path, sizeof path, "%s/x.png", box->path);
    assert_int_equal(chown(path, 12345, 12345), 0);
    dropbox_put(box, "x.txt", "mine");
    dropbox_until(box, box->jobs.count == 1);
    assert_true(dropbox_has(box, "x.png"));
}

/* --- waits ------------------------------------------------------------------------------------ */

static void test_waits(void **state)
{
    static const int waits[] = {-EBUSY, -ENOBUFS, -ENOSPC, -EDQUOT, -ENOTRECOVERABLE, -ENOMEM};
    struct dropbox *box = *state;

    dropbox_start(box);
    for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
        unsigned before = box->submissions;
        box->refuse = waits[i];
        dropbox_put(box, "fox.txt", "a fox");
        dropbox_until(box, box->submissions > before);
        dropbox_run(box, 20);
        assert_int_equal(dropbox_count(box, "working"), i + 1);
        box->refuse = 0;
        drop_on_queue_changed(box->drop);
        dropbox_until(box, box->jobs.count == i + 1);
    }
    assert_int_equal(dropbox_count(box, "failed"), 0);
}

static void test_waits_by_itself(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    box->refuse = -EBUSY;
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->submissions == 2);
    box->refuse = 0;
    dropbox_until(box, box->jobs.count == 1);
}

static void test_refused_submission(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    box->refuse = -EKEYREJECTED;
    box->refusal = "the word list says no";
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, dropbox_has(box, "failed/fox.txt"));
    dropbox_assert_says(box, "failed/fox.error.txt", "PromptRefused: the word list says no");
}

static void test_room(void **state)
{
    struct dropbox *box = *state;
    char name[32];

    box->room = 0;
    dropbox_start(box);
    for (unsigned i = 0; i < 60; i++) {
        (void)snprintf(name, sizeof name, "t%u.txt", i);
        dropbox_put(box, name, name);
    }
    dropbox_run(box, 300);
    assert_int_equal(dropbox_count(box, "working"), 0);
    box->room = 5;
    drop_on_queue_changed(box->drop);
    dropbox_until(box, box->jobs.count == 5);
    dropbox_run(box, 200);
    assert_int_equal(box->jobs.count, 5);
    assert_true(dropbox_count(box, "working") <= 10);
    box->room = 1000;
    drop_on_queue_changed(box->drop);
    dropbox_until(box, box->jobs.count == 60);
}

/* A user whose tickets wait does not keep others' out. */
static void test_one_user_waits(void **state)
{
    struct dropbox *box = *state;
    char name[32], path[PATH_MAX];

    if (getuid() != 0) {
        print_message("needs root: gives files to other users\n");
        skip();
    }
    dropbox_start(box);
    dropbox_close(box);
    for (unsigned i = 0; i < 60; i++) {
        (void)snprintf(name, sizeof name, "t%u.txt", i);
        dropbox_put(box, name, name);
        (void)snprintf(path, sizeof path, "%s/%s", box->path, name);
        assert_int_equal(chown(path, 1000 + (i == 59), 100), 0);
    }
    box->refuse = -EDQUOT;
    dropbox_open(box);
    dropbox_until(box, !dropbox_has(box, "t59.txt"));
    assert_true(dropbox_count(box, "working") < 40);
}

static void test_held_submission(void **state)
{
    struct dropbox *box = *state;

    box->is_held = true;
    dropbox_start(box);
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->held_done);
    dropbox_close(box);
    dropbox_release(box); /* after its end: only frees */
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    box->is_held = false;
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "done/fox.d/fox.txt"));
    assert_int_equal(box->submissions, 1);
}

/* --- growing files ---------------------------------------------------------------------------- */

static void test_growing(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    box->options.rescan_usec = 100000;
    dropbox_start(box);
    (void)snprintf(path, sizeof path, "%s/slow.txt", box->path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a slow ", 7), 7);
    dropbox_run(box, 700); /* longer than the settling time, and some rescans */
    assert_true(dropbox_has(box, "slow.txt"));
    assert_int_equal(write(fd, "fox", 3), 3);
    assert_int_equal(close(fd), 0);
    dropbox_until(box, box->jobs.count == 1);
    assert_string_equal(dropbox_job(box)->request.prompt, "a slow fox");
}

/* Nobody saw it being made: it must have been the same for a while. */
static void test_growing_at_start(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    dropbox_start(box);
    dropbox_close(box);
    (void)snprintf(path, sizeof path, "%s/slow.txt", box->path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    dropbox_open(box);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(write(fd, "x", 1), 1);
        dropbox_run(box, 60);
        assert_true(dropbox_has(box, "slow.txt"));
    }
    dropbox_until(box, box->jobs.count == 1); /* still open, but silent */
    assert_string_equal(dropbox_job(box)->request.prompt, "xxxxxxxxxx");
    assert_int_equal(close(fd), 0);
}

int main(void)
{
#define IN_BOX(test) cmocka_unit_test_setup_teardown(test, dropbox_setup, dropbox_teardown)
    const struct CMUnitTest tests[] = {
        IN_BOX(test_text),
        IN_BOX(test_ini),
        IN_BOX(test_empty_ticket),
        IN_BOX(test_collisions),
        IN_BOX(test_ended_jobs),
        IN_BOX(test_bad_tickets),
        IN_BOX(test_too_long),
        IN_BOX(test_picture_beside),
        IN_BOX(test_bad_pictures),
        IN_BOX(test_both_tickets),
        IN_BOX(test_orphans),
        IN_BOX(test_late_ticket),
        IN_BOX(test_ignored),
        IN_BOX(test_denied),
        IN_BOX(test_foreign_picture),
        IN_BOX(test_waits),
        IN_BOX(test_waits_by_itself),
        IN_BOX(test_refused_submission),
        IN_BOX(test_room),
        IN_BOX(test_one_user_waits),
        IN_BOX(test_held_submission),
        IN_BOX(test_growing),
        IN_BOX(test_growing_at_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
