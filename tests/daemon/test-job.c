/* job: states and their transitions, warnings, progress; eta and the error words beside it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/error.h"
#include "daemon/eta.h"
#include "daemon/job.h"

static void test_states(void **state)
{
    (void)state;
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
        enum job_state back = JOB_STATE_COUNT;
        assert_int_equal(job_state_from_string(job_state_to_string(i), &back), 0);
        assert_int_equal(back, i);
    }
    enum job_state untouched = JOB_STATE_DONE;
    assert_int_equal(job_state_from_string("asleep", &untouched), -EINVAL);
    assert_int_equal(untouched, JOB_STATE_DONE);
}

static void test_transitions(void **state)
{
    static const char *const legal[JOB_STATE_COUNT] = {
        /* to: q r d f c */
        [JOB_STATE_QUEUED] = ".r.fc", [JOB_STATE_RUNNING] = "q.dfc",   [JOB_STATE_DONE] = ".....",
        [JOB_STATE_FAILED] = ".....", [JOB_STATE_CANCELLED] = ".....",
    };

    (void)state;
    for (unsigned from = 0; from < JOB_STATE_COUNT; from++) {
        for (unsigned to = 0; to < JOB_STATE_COUNT; to++)
            assert_int_equal(job_state_may_follow(from, to), legal[from][to] != '.');
        assert_int_equal(job_state_is_final(from), strcmp(legal[from], ".....") == 0);
    }
}

static void test_warnings(void **state)
{
    _cleanup_(job_freep) struct job *job = job_new(1, 0);
    char text[32];

    (void)state;
    assert_int_equal(job_add_warning(job, "once"), 0);
    assert_int_equal(job_add_warning(job, "once"), 0);
    assert_int_equal(job->warnings.count, 1);
    for (unsigned i = 0; i < 2 * JOB_WARNINGS_MAX; i++) {
        (void)snprintf(text, sizeof text, "%u", i);
        assert_int_equal(job_add_warning(job, text), 0);
    }
    assert_int_equal(job->warnings.count, JOB_WARNINGS_MAX);
    job_rewind(job);
    assert_int_equal(job->warnings.count, 0);
}

static struct job *make_job(enum scheduler_kind scheduler, uint32_t steps, uint32_t count)
{
    struct job *job = job_new(7, 0);

    job->request = (struct request){.width = 64,
                                    .height = 32,
                                    .steps = steps,
                                    .count = count,
                                    .guidance_scale = 7.5,
                                    .scheduler = scheduler,
                                    .set = (1ull << REQUEST_ROW_COUNT) - 1};
    return job;
}

static void test_calls(void **state)
{
    static const struct {
        enum scheduler_kind scheduler;
        uint32_t steps, calls;
    } rows[] = {{SCHEDULER_PNDM, 1, 1},   {SCHEDULER_PNDM, 2, 3},  {SCHEDULER_PNDM, 50, 51},
                {SCHEDULER_DDIM, 50, 50}, {SCHEDULER_EULER, 1, 1}, {SCHEDULER_LMS, 4, 4}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(job_freep) struct job *job = make_job(rows[i].scheduler, rows[i].steps, 1);
        assert_int_equal(job_calls(job), rows[i].calls);
    }
    _cleanup_(job_freep) struct job *empty = job_new(1, 0);
    assert_int_equal(job_calls(empty), 0);
    assert_true(job_progress(empty) == 0);
}

static void test_progress(void **state)
{
    _cleanup_(job_freep) struct job *job = make_job(SCHEDULER_DDIM, 10, 2);

    (void)state;
    assert_true(job_progress(job) == 0);
    job->step = job->steps = 10;
    assert_true(job_progress(job) == 0.5);
    job->picture = 1;
    job->step = 5;
    assert_true(job_progress(job) == 0.75);
    job->state = JOB_STATE_DONE;
    assert_true(job_progress(job) == 1);
}

static void test_eta(void **state)
{
    _cleanup_(job_freep) struct job *job = make_job(SCHEDULER_DDIM, 10, 1);
    struct eta eta = {0};

    (void)state;
    job->state = JOB_STATE_RUNNING;
    assert_true(eta_left(&eta, job) == JOB_ETA_UNKNOWN);
    eta_on_start(&eta, job, 1000000);
    assert_true(eta_left(&eta, job) == JOB_ETA_UNKNOWN);
    for (job->step = 1; job->step <= 4; job->step++)
        eta_on_step(&eta, job, 1000000 + job->step * 100000);
    job->step = 4;
    assert_in_range(eta_left(&eta, job), 599000, 601000); /* six steps of 0.1 s */

    /* Another job of twice the pixels, not started: ten steps of 0.2 s. */
    _cleanup_(job_freep) struct job *other = make_job(SCHEDULER_DDIM, 10, 1);
    other->id = 8;
    other->request.height = 64;
    assert_in_range(eta_left(&eta, other), 1999000, 2001000);
    other->request.guidance_scale = 1; /* one evaluation a step instead of two */
    assert_in_range(eta_left(&eta, other), 999000, 1001000);
    other->state = JOB_STATE_DONE;
    assert_true(eta_left(&eta, other) == 0);
}

static void test_error_words(void **state)
{
    static const int errors[] = {-EINVAL, -E2BIG,  -EFBIG, -ENOBUFS,    -ENOENT, -EPERM,
                                 -EBUSY,  -ENOMEM, -EIO,   -ECONNRESET, -ENOSPC, -ECANCELED};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
        assert_int_equal(error_from_word(error_to_word(errors[i])), errors[i]);
    assert_string_equal(error_to_word(-ECONNRESET), "WorkerCrashed");
    assert_string_equal(error_to_word(-EXDEV), "Failed");
    assert_string_equal(error_to_word(error_from_word("Failed")), "Failed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),      cmocka_unit_test(test_transitions),
        cmocka_unit_test(test_warnings),    cmocka_unit_test(test_calls),
        cmocka_unit_test(test_progress),    cmocka_unit_test(test_eta),
        cmocka_unit_test(test_error_words),
    };

    return cmocka_run_group_tests_name("job", tests, NULL, NULL);
}
