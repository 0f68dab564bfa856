/* manager: the service in this process, without its bus: the fake worker, a real spool. Owners are
 * just numbers here. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
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

#include "daemon/manager.h"
#include "tests/support/build.h"
#include "tests/support/folder.h"
#include "tests/support/knobs.h"
#include "vk/base/file.h"

#define PATIENCE_MSEC 15000u

struct service {
    const char *folder;
    char spool[256], worker[4096];
    sd_event *event;
    struct manager *manager;
    const char *next_config; /* what a reload reads */
};

static void parse_config(const struct service *s, const char *lines, struct config *ret)
{
    char text[1024];
    struct fault f = {0};

    (void)snprintf(text, sizeof text, "[model]\npath = model\n[spool]\npath = %s\n%s", s->spool,
                   lines);
    if (config_parse(text, strlen(text), "test.conf", s->folder, ret, &f) < 0)
        fail_msg("%s", f.text);
}

static int read_config(void *userdata, struct config *ret_config, struct fault *f)
{
    struct service *s = userdata;

    if (!s->next_config)
        return fault_set(f, -EINVAL, "test.conf:7: no good");
    parse_config(s, s->next_config, ret_config);
    return 0;
}

static void start(struct service *s, const char *lines)
{
    struct config config = {0};
    struct fault f = {0};

    parse_config(s, lines, &config);
    const struct manager_options options = {
        .config = &config, .worker = s->worker, .read_config = read_config, .userdata = s};
    if (manager_new(s->event, &options, &s->manager, &f) < 0)
        fail_msg("%s", f.text);
    manager_start(s->manager);
}

static void stop(struct service *s)
{
    s->manager = manager_free(s->manager);
}

static int setup(void **state)
{
    struct service *s = calloc(1, sizeof *s);
    void *folder = NULL;
    sigset_t set;

    assert_non_null(s);
    assert_int_equal(folder_setup(&folder), 0);
    s->folder = folder;
    (void)snprintf(s->spool, sizeof s->spool, "%s/spool", s->folder);
    build_path("tests/fake-worker", s->worker, sizeof s->worker);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    assert_true(sd_event_new(&s->event) >= 0);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct service *s = *state;
    void *folder = (void *)(uintptr_t)s->folder;

    stop(s);
    sd_event_unref(s->event);
    (void)umount2(s->spool, MNT_DETACH); /* of the tests that mount there */
    knobs_clear();
    free(s);
    return folder_teardown(&folder);
}

/* --- what the tests wait for ------------------------------------------------------------------ */

static uint64_t now_msec(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#define WAIT_FOR(service, condition)                                                               \
    do {                                                                                           \
        uint64_t end_ = now_msec() + PATIENCE_MSEC;                                                \
        while (!(condition)) {                                                                     \
            assert_true(sd_event_run((service)->event, 10000) >= 0);                               \
            if (now_msec() > end_)                                                                 \
                fail_msg("waited in vain for: %s", #condition);                                    \
        }                                                                                          \
    } while (0)

struct answer {
    bool came;
    int r;
    uint64_t job;
    struct fault fault;
};

static void on_submitted(int r, struct job *job, const struct fault *f, void *userdata)
{
    *(struct answer *)userdata =
        (struct answer){.came = true, .r = r, .job = job ? job->id : 0, .fault = *f};
}

static void on_done(int r, const struct fault *f, void *userdata)
{
    *(struct answer *)userdata = (struct answer){.came = true, .r = r, .fault = *f};
}

/* Rows as pairs of name and text, NULL at the end. */
static void post(struct service *s, uint32_t owner, struct answer *answer, ...)
{
    struct request request = {0};
    struct fault f = {0};
    const char *name;
    va_list args;

    va_start(args, answer);
    while ((name = va_arg(args, const char *))) {
        const char *text = va_arg(args, const char *);
        assert_int_equal(request_set_text(&request, request_row_find(name), text, strlen(text), &f),
                         0);
    }
    va_end(args);
    *answer = (struct answer){0};
    const struct manager_submission submission = {.owner = owner, .request = &request};
    manager_submit(s->manager, &submission, on_submitted, answer);
}

#define SUBMIT(service, owner, answer, ...)                                                        \
    do {                                                                                           \
        post(service, owner, answer, __VA_ARGS__, (char *)NULL);                                   \
        WAIT_FOR(service, (answer)->came);                                                         \
    } while (0)

static enum job_state state_of(const struct service *s, uint64_t id)
{
    const struct job *job = manager_find(s->manager, id);

    return job ? job->state : JOB_STATE_COUNT;
}

static void wait_ready(struct service *s)
{
    WAIT_FOR(s, manager_get_facts(s->manager)->state == MANAGER_STATE_READY);
}

static void check_refused(const struct answer *a, int r, const char *says)
{
    assert_int_equal(a->r, r);
    if (!strstr(a->fault.text, says))
        fail_msg("\"%s\" does not say \"%s\"", a->fault.text, says);
}

/* --- the tests -------------------------------------------------------------------------------- */

static void test_token(void **state)
{
    struct service *s = *state;
    struct answer a, b, other;

    start(s, "");
    wait_ready(s);
    post(s, 7, &a, "prompt", "fox", "token", "t1", (char *)NULL);
    post(s, 7, &b, "prompt", "something else", "token", "t1", (char *)NULL); /* before it is kept */
    assert_false(a.came); /* the disk comes first */
    WAIT_FOR(s, a.came && b.came);
    assert_int_equal(a.r, 0);
    assert_int_equal(a.job, b.job);
    SUBMIT(s, 8, &other, "token", "t1"); /* another user's token is another token */
    assert_int_not_equal(other.job, a.job);
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE && state_of(s, other.job) == JOB_STATE_DONE);
    SUBMIT(s, 7, &b, "token", "t1");
    assert_int_equal(b.job, a.job);
    stop(s);
    start(s, "");
    SUBMIT(s, 7, &b, "prompt", "again", "token", "t1"); /* after a restart */
    assert_int_equal(b.job, a.job);
    assert_string_equal(manager_find(s->manager, b.job)->request.prompt, "fox");
}

static void test_origin(void **state)
{
    struct request request = {0};
    struct service *s = *state;
    struct answer a = {0}, b = {0};
    struct manager_submission submission = {.owner = 7, .request = &request, .origin = "drop:k1"};

    start(s, "");
    manager_submit(s->manager, &submission, on_submitted, &a);
    manager_submit(s->manager, &submission, on_submitted, &b);
    WAIT_FOR(s, a.came && b.came);
    assert_int_equal(a.job, b.job);
    stop(s);
    start(s, "");
    assert_int_equal(manager_find_origin(s->manager, "drop:k1")->id, a.job);
    assert_null(manager_find_origin(s->manager, "drop:k2"));
}

static void test_quota(void **state)
{
    struct service *s = *state;
    struct answer a, b;

    (void)setenv("DIFFUSED_FAKE_HANG", "1", 1);
    start(s, "[limits]\nuser_jobs = 2\n");
    SUBMIT(s, 7, &a, "prompt", "x");
    post(s, 7, &a, "prompt", "x", (char *)NULL);
    post(s, 7, &b, "prompt", "x", (char *)NULL); /* the second one is not on disk yet, and counts */
    WAIT_FOR(s, a.came && b.came);
    assert_int_equal(a.r, 0);
    check_refused(&b, -EDQUOT, "the limit is 2");
    SUBMIT(s, 8, &b, "prompt", "x"); /* others are not concerned */
    assert_int_equal(b.r, 0);
}

static void test_bytes_of_a_user(void **state)
{
    struct service *s = *state;
    struct answer a;

    start(s, "[limits]\nuser_megabytes = 1\n");
    wait_ready(s);
    SUBMIT(s, 7, &a, "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
    struct job *job = manager_find(s->manager, a.job);
    assert_true(job_bytes(job) > 0);
    SUBMIT(s, 7, &a, "steps", "1");
    assert_int_equal(a.r, 0);
    job->pictures[0].bytes = 1 << 20; /* a larger one than is worth the time */
    SUBMIT(s, 7, &a, "prompt", "x");
    check_refused(&a, -EDQUOT, "delete finished jobs");
}

static void test_owners_take_turns(void **state)
{
    uint64_t first[4], second = 0;
    struct service *s = *state;
    struct answer a;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "5", 1);
    start(s, "");
    manager_pause(s->manager);
    for (int i = 0; i < 4; i++) {
        SUBMIT(s, 7, &a, "steps", "2");
        first[i] = a.job;
    }
    SUBMIT(s, 8, &a, "steps", "2");
    second = a.job;
    WAIT_FOR(s, manager_get_facts(s->manager)->state == MANAGER_STATE_PAUSED);
    assert_int_equal(manager_queue_position(s->manager, manager_find(s->manager, second)), 1);
    assert_int_equal(state_of(s, first[0]), JOB_STATE_QUEUED); /* paused is paused */
    manager_resume(s->manager);
    WAIT_FOR(s, state_of(s, second) == JOB_STATE_DONE);
    assert_int_equal(state_of(s, first[0]), JOB_STATE_DONE);
    assert_int_equal(state_of(s, first[2]), JOB_STATE_QUEUED);
}

static void test_deadline(void **state)
{
    struct service *s = *state;
    struct answer waits, runs;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "50", 1);
    start(s, "");
    wait_ready(s);
    SUBMIT(s, 7, &runs, "steps", "499", "deadline", "500000");
    SUBMIT(s, 7, &waits, "steps", "1", "deadline", "1");
    WAIT_FOR(s, state_of(s, waits.job) == JOB_STATE_CANCELLED);
    WAIT_FOR(s, state_of(s, runs.job) == JOB_STATE_CANCELLED);
    assert_int_equal(manager_find(s->manager, waits.job)->error.err, -ETIME);
    assert_int_equal(manager_find(s->manager, runs.job)->error.err, -ETIME);
    stop(s);
    start(s, ""); /* it is the record that says so */
    assert_int_equal(manager_find(s->manager, runs.job)->error.err, -ETIME);
}

static void test_preset(void **state)
{
    struct service *s = *state;
    struct answer a;

    start(s, "[preset quick]\nsteps = 3\nwidth = 32\n[defaults]\nsteps = 9\nheight = 16\n");
    wait_ready(s);
    SUBMIT(s, 7, &a, "preset", "quick", "width", "8");
    const struct request *q = &manager_find(s->manager, a.job)->request;
    assert_int_equal(q->steps, 3);   /* the preset, over [defaults] */
    assert_int_equal(q->width, 8);   /* what was given, over the preset */
    assert_int_equal(q->height, 16); /* [defaults] */
    SUBMIT(s, 7, &a, "preset", "slow");
    check_refused(&a, -EINVAL, "\"slow\"");
}

static void test_ephemeral(void **state)
{
    struct service *s = *state;
    struct answer a;

    start(s, "");
    SUBMIT(s, 7, &a, "ephemeral", "yes", "count", "2", "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
    manager_fetched(s->manager, manager_find(s->manager, a.job), 1);
    manager_fetched(s->manager, manager_find(s->manager, a.job), 1);
    assert_int_equal(state_of(s, a.job), JOB_STATE_DONE);
    manager_fetched(s->manager, manager_find(s->manager, a.job), 0);
    WAIT_FOR(s, !manager_find(s->manager, a.job));
}

static size_t count_jobs(const struct service *s)
{
    size_t count;

    (void)manager_jobs(s->manager, &count);
    return count;
}

static void test_retention(void **state)
{
    struct service *s = *state;
    struct answer a = {0};

    start(s, "retain_jobs = 3\n");
    for (int i = 0; i < 6; i++)
        SUBMIT(s, 7, &a, "steps", "1");
    WAIT_FOR(s, state_of(s, 6) == JOB_STATE_DONE && count_jobs(s) == 3);
    assert_null(manager_find(s->manager, 3)); /* the oldest went */
    assert_non_null(manager_find(s->manager, 4));
    stop(s);
    start(s, "retain_jobs = 3\n");
    SUBMIT(s, 7, &a, "steps", "1");
    assert_int_equal(a.job, 7);
}

/* The service's own clock may lie behind after a power cut: what has just ended is not old. */
static void test_retention_of_the_future(void **state)
{
    struct service *s = *state;
    char path[512];
    struct answer a;

    start(s, "");
    SUBMIT(s, 7, &a, "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
    manager_find(s->manager, a.job)->finished_uptime_usec += UINT64_C(1000000000000);
    for (uint64_t end = now_msec() + 2500; now_msec() < end;)
        assert_true(sd_event_run(s->event, 10000) >= 0);
    assert_non_null(manager_find(s->manager, a.job));
    uint64_t ended = manager_find(s->manager, a.job)->finished_uptime_usec - 1000000000000;
    stop(s);
    (void)snprintf(path, sizeof path, "%s/uptime", s->spool);
    assert_int_equal(unlink(path), 0);
    start(s, "");
    SUBMIT(s, 7, &a, "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
    assert_true(manager_find(s->manager, a.job)->finished_uptime_usec > ended);
}

static void test_ids_outlive_their_jobs(void **state)
{
    struct service *s = *state;
    struct answer a, d;

    start(s, "");
    SUBMIT(s, 7, &a, "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
    d = (struct answer){0};
    manager_delete(s->manager, manager_find(s->manager, a.job), on_done, &d);
    WAIT_FOR(s, d.came);
    assert_int_equal(d.r, 0);
    stop(s);
    start(s, "");
    SUBMIT(s, 7, &d, "steps", "1");
    assert_int_equal(d.job, a.job + 1);
}

static void test_keep_free(void **state)
{
    struct service *s = *state;
    struct answer a;

    start(s, "keep_free_megabytes = 1000000\n");
    WAIT_FOR(s, *manager_get_facts(s->manager)->degraded_reason);
    SUBMIT(s, 7, &a, "steps", "1");
    check_refused(&a, -ENOSPC, "are kept free");
}

/* A reason is cut where there is no more room, and still is text for the bus. */
static void test_long_reason(void **state)
{
    struct service *s = *state;
    char reason[600] = "", kept[256];

    start(s, "");
    for (size_t n = 0; n < 4; n++) {
        for (size_t i = n; i + 3 < sizeof reason; i += 2)
            memcpy(reason + i, "\xc3\xa9", 3);
        manager_set_drop_trouble(s->manager, reason);
        (void)snprintf(kept, sizeof kept, "%s", manager_get_facts(s->manager)->degraded_reason);
        assert_true(strlen(kept) >= sizeof kept - 2);
        fault_mend(kept);
        assert_string_equal(kept, manager_get_facts(s->manager)->degraded_reason);
        reason[n] = 'x';
    }
}

static void test_reload(void **state)
{
    struct service *s = *state;
    struct fault f = {0};
    struct answer a;

    start(s, "");
    s->next_config = NULL;
    assert_int_equal(manager_reload(s->manager, &f), -EINVAL);
    assert_non_null(strstr(f.text, "test.conf:7"));
    s->next_config = "[preset late]\nsteps = 2\n[limits]\nqueue = 1\n[drop]\npath = /other\n";
    assert_int_equal(manager_reload(s->manager, &f), 0);
    const struct config *config = manager_get_config(s->manager);
    assert_int_equal(config->limit_queue, 1);
    assert_string_not_equal(config->drop_path, "/other"); /* what needs a restart stays */
    manager_pause(s->manager);
    SUBMIT(s, 7, &a, "preset", "late");
    assert_int_equal(a.r, 0);
    SUBMIT(s, 7, &a, "preset", "late");
    check_refused(&a, -ENOBUFS, "the limit is 1");
}

static void count_devices(unsigned changes, void *userdata)
{
    *(unsigned *)userdata += (changes & MANAGER_CHANGE_DEVICE) != 0;
}

/* A key of the worker's: it is replaced, and not under a job. */
static void test_reload_renews_the_worker(void **state)
{
    struct service *s = *state;
    unsigned devices = 0;
    struct manager_observer observer = {.on_changed = count_devices, .userdata = &devices};
    struct fault f = {0};
    struct answer a;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "50", 1);
    start(s, "");
    wait_ready(s);
    manager_add_observer(s->manager, &observer);
    SUBMIT(s, 7, &a, "steps", "10");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_RUNNING);
    s->next_config = "[png]\nmetadata = none\n";
    assert_int_equal(manager_reload(s->manager, &f), 0);
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
    assert_int_equal(manager_find(s->manager, a.job)->starts, 1);
    WAIT_FOR(s, devices == 1); /* another worker has said hello */
    manager_remove_observer(s->manager, &observer);
    SUBMIT(s, 7, &a, "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
}

static void test_several_workers(void **state)
{
    struct service *s = *state;
    struct answer a, b, c;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "100", 1);
    start(s, "[device]\nnode = 0 1\n");
    wait_ready(s);
    SUBMIT(s, 7, &a, "steps", "10");
    SUBMIT(s, 7, &b, "steps", "10");
    SUBMIT(s, 7, &c, "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_RUNNING && state_of(s, b.job) == JOB_STATE_RUNNING);
    assert_int_equal(state_of(s, c.job), JOB_STATE_QUEUED);
    WAIT_FOR(s, state_of(s, c.job) == JOB_STATE_DONE);
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE && state_of(s, b.job) == JOB_STATE_DONE);
}

/* A restart in the middle costs a job nothing of its five interruptions. */
static void test_stop_gives_back(void **state)
{
    struct service *s = *state;
    struct answer a;

    (void)setenv("DIFFUSED_FAKE_HANG", "1", 1);
    start(s, "");
    SUBMIT(s, 7, &a, "steps", "3");
    for (int i = 0; i < 7; i++) {
        WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_RUNNING);
        stop(s);
        start(s, "");
        assert_int_equal(state_of(s, a.job), JOB_STATE_QUEUED);
    }
}

static void test_read_only(void **state)
{
    struct service *s = *state;
    struct answer a, b, d;
    struct fault f = {0};

    if (mkdir(s->spool, 0700) < 0 || mount("tmpfs", s->spool, "tmpfs", 0, "size=64m") < 0) {
        print_message("cannot mount a file system here: %s\n", strerror(errno));
        skip();
    }
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "100", 1);
    start(s, "keep_free_megabytes = 1\n");
    wait_ready(s);
    SUBMIT(s, 7, &a, "steps", "10");
    SUBMIT(s, 7, &b, "steps", "1");
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_RUNNING);
    assert_int_equal(mount(NULL, s->spool, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    WAIT_FOR(s, state_of(s, a.job) == JOB_STATE_DONE);
    assert_non_null(strstr(manager_get_facts(s->manager)->degraded_reason, "Read-only"));
    int fd = manager_open_picture(s->manager, manager_find(s->manager, a.job), 0, &f);
    assert_true(fd >= 0); /* from memory */
    (void)close(fd);
    assert_int_equal(state_of(s, b.job), JOB_STATE_QUEUED);
    SUBMIT(s, 7, &d, "steps", "1");
    check_refused(&d, -ENOSPC, "cannot be written to");
    d = (struct answer){0};
    manager_delete(s->manager, manager_find(s->manager, a.job), on_done, &d);
    assert_int_equal(d.r, -EBUSY);

    assert_int_equal(mount(NULL, s->spool, NULL, MS_REMOUNT, "size=64m"), 0);
    WAIT_FOR(s, state_of(s, b.job) == JOB_STATE_DONE);
    assert_string_equal(manager_get_facts(s->manager)->degraded_reason, "");
    stop(s);
    start(s, "");
    assert_int_equal(state_of(s, a.job), JOB_STATE_DONE); /* the disk caught up */
    stop(s);                                              /* it holds the mount */
}

#define MANAGER_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MANAGER_TEST(test_token),
        MANAGER_TEST(test_origin),
        MANAGER_TEST(test_quota),
        MANAGER_TEST(test_bytes_of_a_user),
        MANAGER_TEST(test_owners_take_turns),
        MANAGER_TEST(test_deadline),
        MANAGER_TEST(test_preset),
        MANAGER_TEST(test_ephemeral),
        MANAGER_TEST(test_retention),
        MANAGER_TEST(test_retention_of_the_future),
        MANAGER_TEST(test_ids_outlive_their_jobs),
        MANAGER_TEST(test_keep_free),
        MANAGER_TEST(test_long_reason),
        MANAGER_TEST(test_reload),
        MANAGER_TEST(test_reload_renews_the_worker),
        MANAGER_TEST(test_several_workers),
        MANAGER_TEST(test_stop_gives_back),
        MANAGER_TEST(test_read_only),
    };

    return cmocka_run_group_tests_name("manager", tests, NULL, NULL);
}
