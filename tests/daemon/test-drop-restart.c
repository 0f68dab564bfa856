/* drop: begun again at every stage of an earlier run; jobs that go wrong; folders that are full,
 * read-only, squatted, replaced or gone. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/dropbox.h"

#define KEY_A "0123456789abcdef0123456789abcdef"
#define KEY_B "ffffffffffffffffffffffffffffffff"

/* --- earlier runs ----------------------------------------------------------------------------- */

/* A folder as an earlier run may have left it. */
static void prepare(struct dropbox *box)
{
    dropbox_start(box);
    dropbox_close(box);
    dropbox_mkdir(box, "working/" KEY_A);
}

static void test_restart_while_taking(void **state)
{
    struct dropbox *box = *state;

    prepare(box);
    dropbox_mkdir(box, "working/" KEY_A "/new");
    dropbox_put(box, "working/" KEY_A "/new/fox.png", "picture");
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_mkdir(box, "working/" KEY_B); /* and one that had only just begun */
    box->options.orphan_usec = 1;
    box->options.settle_usec = 400000;
    dropbox_open(box);
    dropbox_until(box, box->submissions == 1);
    assert_int_equal(box->input_bytes[JOB_INPUT_IMAGE], strlen("picture")); /* together again */
    dropbox_until(box, !dropbox_has(box, "working/" KEY_A) && !dropbox_has(box, "working/" KEY_B));
}

static void test_restart_name_in_use(void **state)
{
    struct dropbox *box = *state;

    prepare(box);
    dropbox_mkdir(box, "working/" KEY_A "/new");
    dropbox_put(box, "working/" KEY_A "/new/fox.txt", "the old fox");
    dropbox_put(box, "fox.txt", "the new fox");
    box->ends_at_once = true;
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "done/fox.d") && dropbox_has(box, "done/fox~1.d"));
    assert_int_equal(box->jobs.count, 2);
    assert_int_equal(dropbox_count_text(box, "the old fox"), 1 + 1); /* input and JSON */
    assert_int_equal(dropbox_count_text(box, "the new fox"), 1 + 1);
}

static void put_taken(struct dropbox *box)
{
    prepare(box);
    dropbox_mkdir(box, "working/" KEY_A "/d");
    dropbox_put(box, "working/" KEY_A "/d/fox.txt", "a fox");
}

static void add_job_of(struct dropbox *box, enum job_state state)
{
    struct dropbox_job *slot = array_push(&box->jobs);

    slot->job = job_new(77, 0);
    (void)snprintf(slot->origin, sizeof slot->origin, "drop:" KEY_A);
    (void)snprintf(slot->job->origin, sizeof slot->job->origin, "drop:" KEY_A);
    assert_int_equal(
        request_set_text(&slot->job->request, &request_rows[REQUEST_prompt], "a fox", 5, NULL), 0);
    if (job_state_is_final(state))
        dropbox_finish(box, slot->job, state, 2);
}

static void test_restart_not_submitted(void **state)
{
    struct dropbox *box = *state;

    put_taken(box);
    box->room = 0; /* it has left the folder before, and is offered all the same */
    dropbox_open(box);
    dropbox_until(box, box->submissions > 0);
    box->room = 1;
    drop_on_queue_changed(box->drop);
    dropbox_until(box, box->jobs.count == 1);
    assert_string_equal(box->jobs.items[0].origin, "drop:" KEY_A);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "done/fox.d/fox.txt"));
}

static void test_restart_running(void **state)
{
    struct dropbox *box = *state;

    put_taken(box);
    add_job_of(box, JOB_STATE_QUEUED);
    dropbox_open(box);
    dropbox_run(box, 100);
    assert_int_equal(box->submissions, 0);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 2);
    dropbox_until(box, dropbox_has(box, "done/fox.d/fox.txt"));
}

/* At every step of a publication: cut off there, begun again. */
static void restart_publishing(struct dropbox *box, const char *target, const char *expect)
{
    char name[64];

    put_taken(box);
    add_job_of(box, JOB_STATE_DONE);
    if (target)
        dropbox_put(box, "working/" KEY_A "/target", target);
    if (target && strstr(target, "base"))
        dropbox_put(box, "done/base.0.png", "picture 0 of job 77, \"drop:" KEY_A "\"");
    dropbox_put(box, "done/." KEY_A ".tmp", "half a pict");
    dropbox_open(box);
    (void)snprintf(name, sizeof name, "done/%s.d/fox.txt", expect);
    dropbox_until(box, dropbox_has(box, name) && !dropbox_has(box, "working/" KEY_A));
    (void)snprintf(name, sizeof name, "done/%s.1.png", expect);
    assert_true(dropbox_has(box, name));
    assert_false(dropbox_has(box, "done/." KEY_A ".tmp"));
    assert_int_equal(dropbox_count_text(box, "picture 0 of job 77"), 1);
    assert_int_equal(dropbox_count_text(box, "picture 1 of job 77"), 1);
    assert_int_equal(box->submissions, 0);
    assert_int_equal(dropbox_count(box, ""), 4);
}

static void test_restart_ended(void **state)
{
    restart_publishing(*state, NULL, "fox");
}

static void test_restart_target_written(void **state)
{
    restart_publishing(*state, "diffused drop target 1\ndone 5\nfox~4\n", "fox~4");
}

static void test_restart_picture_written(void **state)
{
    restart_publishing(*state, "diffused drop target 1\ndone 4\nbase\n", "base");
}

static void test_restart_target_damaged(void **state)
{
    restart_publishing(*state, "diffused drop target 1\ndone 999\nfox", "fox");
}

/* Someone else's file has the name that was decided on: nothing is overwritten. */
static void test_restart_name_taken(void **state)
{
    struct dropbox *box = *state;

    put_taken(box);
    add_job_of(box, JOB_STATE_DONE);
    dropbox_put(box, "working/" KEY_A "/target", "diffused drop target 1\ndone 3\nfox\n");
    dropbox_put(box, "done/fox.1.png", "made by hand");
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "done/fox~1.d/fox.txt"));
    dropbox_assert_text(box, "done/fox.1.png", "made by hand");
    assert_true(dropbox_has(box, "done/fox~1.1.png"));
}

static void test_restart_json_written(void **state)
{
    struct dropbox *box = *state;

    put_taken(box); /* and the job is gone already */
    dropbox_put(box, "working/" KEY_A "/target", "diffused drop target 1\ndone 3\nfox\n");
    dropbox_put(box, "done/fox.png", "the picture");
    dropbox_put(box, "done/fox.json", "{\"key\": \"" KEY_A "\"}");
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "done/fox.d/fox.txt"));
    assert_int_equal(box->submissions, 0);
    dropbox_until(box, !dropbox_has(box, "working/" KEY_A));
}

static void test_restart_results_lost(void **state)
{
    struct dropbox *box = *state;

    put_taken(box); /* the job is gone, and its pictures had not been written */
    dropbox_put(box, "working/" KEY_A "/target", "diffused drop target 1\ndone 3\nfox\n");
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "failed/fox.txt"));
    dropbox_assert_says(box, "failed/fox.error.txt", "deleted");
    assert_int_equal(box->submissions, 0);
}

static void test_restart_failing(void **state)
{
    struct dropbox *box = *state;

    put_taken(box); /* one input has gone to failed/ already */
    dropbox_put(box, "working/" KEY_A "/target",
                "diffused drop target 1\nfailed 5\nfox~7\nthe reason");
    dropbox_put(box, "failed/fox~7.error.txt", "the reason\n");
    dropbox_put(box, "failed/fox~7.png", "picture");
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "failed/fox~7.txt") && !dropbox_has(box, "working/" KEY_A));
    assert_int_equal(dropbox_count(box, ""), 3);
    assert_int_equal(box->submissions, 0);
}

static void test_restart_through(void **state)
{
    struct dropbox *box = *state;

    prepare(box); /* all moved, only the KEY is left */
    dropbox_put(box, "working/" KEY_A "/target", "diffused drop target 1\ndone 3\nfox\n");
    dropbox_open(box);
    dropbox_until(box, !dropbox_has(box, "working/" KEY_A));
    assert_int_equal(dropbox_count(box, ""), 0);
}

/* --- jobs that go wrong ----------------------------------------------------------------------- */

static void test_deleted_job(void **state)
{
    struct dropbox *box = *state;
    char origin[64];

    dropbox_start(box);
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    (void)snprintf(origin, sizeof origin, "%s", dropbox_job(box)->origin);
    dropbox_forget(box, dropbox_job(box));
    drop_on_job_finished(box->drop, origin);
    dropbox_until(box, dropbox_has(box, "failed/fox.txt"));
    dropbox_assert_says(box, "failed/fox.error.txt", "deleted");
}

static void test_damaged_picture(void **state)
{
    struct dropbox *box = *state;

    box->breaks_pictures = true;
    dropbox_start(box);
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "failed/fox.txt"));
    dropbox_assert_says(box, "failed/fox.error.txt", "damaged");
    assert_int_equal(dropbox_count(box, "done"), 0);
    box->breaks_pictures = false; /* and it goes on */
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 2);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "done/fox.d"));
}

static void test_no_descriptors(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    box->open_error = -EMFILE;
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "done/fox.d"));
}

/* --- folders that go wrong -------------------------------------------------------------------- */

static void test_squatters(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    assert_int_equal(mkdir(box->path, 0770), 0);
    (void)snprintf(path, sizeof path, "%s/working", box->path);
    assert_int_equal(symlink("/tmp", path), 0);
    (void)snprintf(path, sizeof path, "%s/done", box->path);
    assert_int_equal(symlink("nowhere", path), 0);
    dropbox_write(box, "failed", "a file");
    box->options.orphan_usec = 1;
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "failed/working~1") && dropbox_has(box, "failed/done~1") &&
                           dropbox_has(box, "failed/failed~1"));
    dropbox_assert_says(box, "failed/working~1.error.txt", "a symbolic link");
    assert_int_equal(dropbox_mode(box, "working"), 02700);
}

static void remove_tree(const char *path)
{
    char command[PATH_MAX + 16];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static void test_folder_deleted(void **state)
{
    struct dropbox *box = *state;

    dropbox_start(box);
    remove_tree(box->path);
    dropbox_until(box, dropbox_has(box, "failed")); /* made again */
    dropbox_run(box, 100);
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "done/fox.d"));
}

static void test_folder_replaced(void **state)
{
    struct dropbox *box = *state;
    char aside[PATH_MAX];

    dropbox_start(box);
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    (void)snprintf(aside, sizeof aside, "%s/aside", box->root);
    assert_int_equal(rename(box->path, aside), 0);
    dropbox_until(box, dropbox_has(box, "failed"));
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1); /* of a ticket that is not here */
    dropbox_run(box, 200);
    dropbox_put(box, "cat.txt", "a cat");
    dropbox_until(box, box->jobs.count == 2);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    dropbox_until(box, dropbox_has(box, "done/cat.d"));
    remove_tree(box->path); /* the first one comes back */
    assert_int_equal(rename(aside, box->path), 0);
    dropbox_until(box, dropbox_has(box, "done/fox.d"));
    assert_int_equal(box->submissions, 2);
}

/* A small file system of its own; skips where it cannot be had. */
static void mount_small(struct dropbox *box)
{
    assert_int_equal(mkdir(box->path, 0770), 0);
    if (mount("none", box->path, "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,nr_inodes=64") == 0)
        return;
    print_message("no small file system: %s\n", strerror(errno));
    skip();
}

static int unmount_teardown(void **state)
{
    struct dropbox *box = *state;

    dropbox_close(box);
    (void)umount2(box->path, MNT_DETACH);
    return dropbox_teardown(state);
}

static void fill(struct dropbox *box, const char *name)
{
    static const char block[4096];
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", box->path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, block, sizeof block) > 0)
        continue;
    assert_int_equal(errno, ENOSPC);
    (void)close(fd);
}

static void empty(struct dropbox *box, const char *name)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", box->path, name);
    assert_int_equal(unlink(path), 0);
}

static void test_folder_full(void **state)
{
    struct dropbox *box = *state;

    mount_small(box);
    dropbox_start(box);
    dropbox_write(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    fill(box, ".filler");
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 2);
    dropbox_until(box, strstr(box->health, "No space left"));
    assert_int_equal(dropbox_count_text(box, "a fox"), 1);
    assert_false(dropbox_has(box, "done/fox.0.png"));
    empty(box, ".filler");
    dropbox_until(box, dropbox_has(box, "done/fox.d/fox.txt") && !*box->health);
}

static void test_folder_read_only(void **state)
{
    struct dropbox *box = *state;
    unsigned long flags = MS_REMOUNT | MS_NOSUID | MS_NODEV;

    mount_small(box);
    dropbox_start(box);
    dropbox_write(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    box->room = 0;
    drop_on_queue_changed(box->drop);
    dropbox_run(box, 20);
    dropbox_write(box, "cat.txt", "a cat");
    assert_int_equal(mount("none", box->path, "tmpfs", flags | MS_RDONLY, "size=256k"), 0);
    box->room = 100;
    drop_on_queue_changed(box->drop);
    dropbox_finish(box, dropbox_job(box), JOB_STATE_DONE, 1);
    dropbox_until(box, strstr(box->health, "Read-only"));
    dropbox_close(box);
    dropbox_open(box); /* a start on it waits as well */
    dropbox_run(box, 200);
    assert_true(*box->health != '\0');
    assert_int_equal(mount("none", box->path, "tmpfs", flags, "size=256k"), 0);
    dropbox_until(box, dropbox_has(box, "done/fox.d/fox.txt") && !*box->health);
    dropbox_until(box, box->jobs.count == 2);
    assert_int_equal(dropbox_count_text(box, "a cat"), 1);
}

/* No folder, and none can be made: said, and tried again. */
static void test_no_folder(void **state)
{
    struct dropbox *box = *state;
    char parent[600], path[640];

    (void)snprintf(parent, sizeof parent, "%s/later", box->root);
    (void)snprintf(path, sizeof path, "%s/drop", parent);
    box->options.path = path;
    dropbox_open(box);
    dropbox_until(box, strstr(box->health, "No such file"));
    assert_int_equal(mkdir(parent, 0755), 0);
    dropbox_until(box, !*box->health);
}

int main(void)
{
#define IN_BOX(test)   cmocka_unit_test_setup_teardown(test, dropbox_setup, dropbox_teardown)
#define IN_MOUNT(test) cmocka_unit_test_setup_teardown(test, dropbox_setup, unmount_teardown)
    const struct CMUnitTest tests[] = {
        IN_BOX(test_restart_while_taking),
        IN_BOX(test_restart_name_in_use),
        IN_BOX(test_restart_not_submitted),
        IN_BOX(test_restart_running),
        IN_BOX(test_restart_ended),
        IN_BOX(test_restart_target_written),
        IN_BOX(test_restart_picture_written),
        IN_BOX(test_restart_target_damaged),
        IN_BOX(test_restart_name_taken),
        IN_BOX(test_restart_json_written),
        IN_BOX(test_restart_results_lost),
        IN_BOX(test_restart_failing),
        IN_BOX(test_restart_through),
        IN_BOX(test_deleted_job),
        IN_BOX(test_damaged_picture),
        IN_BOX(test_no_descriptors),
        IN_BOX(test_squatters),
        IN_BOX(test_folder_deleted),
        IN_BOX(test_folder_replaced),
        IN_MOUNT(test_folder_full),
        IN_MOUNT(test_folder_read_only),
        IN_BOX(test_no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
