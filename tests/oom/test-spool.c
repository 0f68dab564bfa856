/* The n-th request for memory fails in every change of the spool, in its opening and recovery, in
 * the word list. A change that fails with -ENOMEM leaves the job whole in the old or the new
 * state: tried again it succeeds, and a new opening finds the job once, in the state of the
 * change. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/ipc.h"
#include "daemon/spool.h"
#include "daemon/words.h"
#include "tests/oom/oom.h"
#include "tests/support/folder.h"

/* --- looking ---------------------------------------------------------------------------------- */

struct found {
    struct job *job;
    unsigned count, troubles;
};

static void on_job(struct job *job, void *userdata)
{
    struct found *found = userdata;

    found->count++;
    (void)job_free(found->job);
    found->job = job;
}

static void on_corrupt(const char *state, const char *name, const char *why, void *userdata)
{
    (void)userdata;
    oom_disarm();
    fail_msg("%s/%s: %s", state, name, why);
}

static void on_trouble(const char *why, void *userdata)
{
    struct found *found = userdata;

    (void)why;
    found->troubles++;
}

static int open_spool(const char *folder, struct spool **ret_spool, struct found *found,
                      struct fault *f)
{
    struct spool_finder finder = {on_job, on_corrupt, on_trouble, found};

    *found = (struct found){0};
    int r = spool_open(folder, ret_spool, f);
    return r < 0 ? r : spool_recover(*ret_spool, &finder, f);
}

/* --- changes ---------------------------------------------------------------------------------- */

static int do_submit(struct spool *s, struct job *job, struct fault *f)
{
    return spool_submit(s, job, f);
}

static int do_update(struct spool *s, struct job *job, struct fault *f)
{
    return spool_update(s, job, f);
}

static int do_start(struct spool *s, struct job *job, struct fault *f)
{
    return spool_start(s, job, f);
}

static int do_requeue(struct spool *s, struct job *job, struct fault *f)
{
    return spool_requeue(s, job, f);
}

static int do_store(struct spool *s, struct job *job, struct fault *f)
{
    return spool_store_picture(s, job, 0, f);
}

static int do_finish(struct spool *s, struct job *job, struct fault *f)
{
    return spool_finish(s, job, JOB_STATE_DONE, f);
}

static int do_cancel(struct spool *s, struct job *job, struct fault *f)
{
    return spool_finish(s, job, JOB_STATE_CANCELLED, f);
}

static int do_delete(struct spool *s, struct job *job, struct fault *f)
{
    return spool_delete(s, job, f);
}

static const struct change {
    const char *name;
    int (*run)(struct spool *s, struct job *job, struct fault *f);
    enum job_state before; /* JOB_STATE_COUNT: not there yet */
    enum job_state after;  /* as a new opening finds it; JOB_STATE_COUNT: no longer there */
} changes[] = {
    {"submit", do_submit, JOB_STATE_COUNT, JOB_STATE_QUEUED},
    {"update", do_update, JOB_STATE_QUEUED, JOB_STATE_QUEUED},
    {"start", do_start, JOB_STATE_QUEUED, JOB_STATE_QUEUED},
    {"requeue", do_requeue, JOB_STATE_RUNNING, JOB_STATE_QUEUED},
    {"store", do_store, JOB_STATE_RUNNING, JOB_STATE_QUEUED},
    {"finish", do_finish, JOB_STATE_RUNNING, JOB_STATE_DONE},
    {"cancel", do_cancel, JOB_STATE_QUEUED, JOB_STATE_CANCELLED},
    {"delete", do_delete, JOB_STATE_DONE, JOB_STATE_COUNT},
};

static struct job *make_job(struct spool *s)
{
    struct job *job = job_new(spool_next_id(s), 1000);

    assert_non_null(job);
    assert_int_equal(request_set_text(&job->request, &request_rows[REQUEST_prompt], "fox", 3, NULL),
                     0);
    return job;
}

static void add_picture(struct job *job)
{
    job->held[0] = ipc_memfd("picture", "0123456", 7);
    assert_true(job->held[0] >= 0);
    job->pictures[0] = (struct job_picture){.width = 8, .height = 8, .bytes = 7, .sha256 = "0123"};
    job->picture_count = 1;
}

/* Brings a new job to the state a change begins in. */
static void prepare(struct spool *s, struct job *job, enum job_state state)
{
    if (state == JOB_STATE_COUNT)
        return;
    assert_int_equal(spool_submit(s, job, NULL), 0);
    if (state == JOB_STATE_QUEUED)
        return;
    assert_int_equal(spool_start(s, job, NULL), 0);
    job_set_state(job, JOB_STATE_RUNNING);
    job->starts = 1;
    add_picture(job);
    if (state == JOB_STATE_RUNNING)
        return;
    assert_int_equal(spool_finish(s, job, state, NULL), 0);
    job_set_state(job, state);
}

/* A new opening finds what should be there, which is then removed. */
static void check_disk(const char *folder, const struct change *change, uint64_t id)
{
    struct found found;
    struct spool *s = NULL;
    struct fault f = {0};

    assert_int_equal(open_spool(folder, &s, &found, &f), 0);
    assert_int_equal(found.troubles, 0);
    assert_int_equal(found.count, change->after == JOB_STATE_COUNT ? 0 : 1);
    if (found.job) {
        assert_int_equal(found.job->id, id);
        assert_int_equal(found.job->state, change->after);
        if (change->run == do_finish)
            assert_int_equal(found.job->picture_count, 1);
        if (!job_state_is_final(found.job->state)) {
            assert_int_equal(spool_finish(s, found.job, JOB_STATE_CANCELLED, &f), 0);
            job_set_state(found.job, JOB_STATE_CANCELLED);
        }
        assert_int_equal(spool_delete(s, found.job, &f), 0);
    }
    (void)job_free(found.job);
    (void)spool_close(s);
}

struct trial {
    const char *folder;
    const struct change *change;
};

static int make_change(void *userdata, struct fault *f)
{
    const struct trial *trial = userdata;
    struct spool *s = NULL;
    struct found found;

    oom_disarm();
    assert_int_equal(open_spool(trial->folder, &s, &found, f), 0);
    struct job *job = make_job(s);
    prepare(s, job, trial->change->before);
    oom_rearm();
    int r = trial->change->run(s, job, f);
    oom_disarm();
    if (r == -ENOMEM) {
        struct fault second = {0};
        if (trial->change->run(s, job, &second) < 0)
            fail_msg("%s: the second try fails: %s", trial->change->name, second.text);
    }
    uint64_t id = job->id;
    (void)job_free(job);
    (void)spool_close(s);
    check_disk(trial->folder, trial->change, id);
    return r;
}

static void test_changes(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        struct trial trial = {*state, &changes[i]};
        (void)oom_exhaust(changes[i].name, make_change, &trial);
    }
}

/* --- recovery --------------------------------------------------------------------------------- */

/* Two jobs, a queued and a finished one, are there. Either all is found, or the opening fails, or
 * what could not be read stays on the disk and is told. */
static int recover(void *userdata, struct fault *f)
{
    struct spool *s = NULL;
    struct found found;

    int r = open_spool(userdata, &s, &found, f);
    oom_disarm();
    if (r >= 0)
        assert_true(found.count + found.troubles >= 2);
    (void)job_free(found.job);
    (void)spool_close(s);
    return r;
}

static void test_recovery(void **state)
{
    struct spool *s = NULL;
    struct found found;

    assert_int_equal(open_spool(*state, &s, &found, NULL), 0);
    for (int i = 0; i < 2; i++) {
        struct job *job = make_job(s);
        prepare(s, job, i ? JOB_STATE_DONE : JOB_STATE_QUEUED);
        (void)job_free(job);
    }
    (void)spool_close(s);
    (void)oom_exhaust("recovery", recover, *state);
    assert_int_equal(open_spool(*state, &s, &found, NULL), 0);
    assert_int_equal(found.count, 2);
    (void)job_free(found.job);
    (void)spool_close(s);
}

/* --- word list -------------------------------------------------------------------------------- */

static int read_words(void *userdata, struct fault *f)
{
    static const char list[] = "fox\nred stra\xc3\x9f"
                               "e\n# comment\n";
    struct words *words = NULL;
    const char *place = NULL;

    (void)userdata;
    int r = words_parse(list, strlen(list), "w", &words, f);
    if (r >= 0) {
        r = words_find(words,
                       "a Red-Stra\xc3\x9f"
                       "e",
                       &place);
        oom_disarm();
        if (r >= 0) {
            assert_int_equal(r, 1);
            assert_string_equal(place, "w:2");
        }
    }
    (void)words_free(words);
    return r;
}

static void test_words(void **state)
{
    (void)state;
    (void)oom_exhaust("word list", read_words, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_changes, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(test_recovery, folder_setup, folder_teardown),
        cmocka_unit_test(test_words),
    };

    (void)argc;
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0); /* where fsync costs nothing */
    if (!oom_begin(argv))
        return 1;
    return cmocka_run_group_tests_name("spool without memory", tests, NULL, NULL);
}
