/* Rounds of a worker that is killed, hangs, or only stumbles, at random moments of a job, several
 * at a time under one event loop that must go on turning. ROUNDS=n of each kind (8), SEED=n (1). */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "daemon/worker.h"
#include "tests/support/build.h"
#include "tests/support/requests.h"

#define PARALLEL        8u
#define QUIET_USEC      UINT64_C(1500000)
#define STILL_USEC      UINT64_C(1500000)
#define SLACK_USEC      UINT64_C(2500000) /* looks, beats, and a machine with other work */
#define TICK_USEC       UINT64_C(10000)
#define TICK_LATE_USEC  UINT64_C(1000000)
#define PATIENCE_USEC   UINT64_C(30000000)
#define STEPS           40u /* of 10 ms */
#define FAULT_WITHIN_MS 400u

enum kind { KIND_KILL, KIND_STOP, KIND_STUMBLE, KIND_HANG };

struct batch;

struct round {
    struct batch *batch;
    struct worker *worker;
    sd_event_source *fault;
    uint64_t hurt_usec, end_usec; /* when the fault was, when its end was told */
    unsigned ends, pictures;
    bool is_over;
};

struct batch {
    sd_event *event;
    enum kind kind;
    struct round rounds[PARALLEL];
    unsigned open;
    uint64_t tick_usec, latest_usec; /* the event loop's worst delay */
};

static uint64_t now_usec(void)
{
    struct timespec t;

    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &t), 0);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static unsigned number(const char *name, unsigned fallback)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 10) : fallback;
}

static void finish(struct round *r)
{
    if (r->is_over)
        return;
    r->is_over = true;
    if (--r->batch->open == 0)
        (void)sd_event_exit(r->batch->event, 0);
}

static int on_stumbled(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct round *r = userdata;

    (void)source, (void)usec;
    assert_int_equal(kill(worker_get_pid(r->worker), SIGCONT), 0);
    return 0;
}

static int on_fault(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct round *r = userdata;
    enum kind kind = r->batch->kind;

    (void)source, (void)usec;
    r->hurt_usec = now_usec();
    if (kind == KIND_HANG || r->is_over)
        return 0;
    assert_int_equal(kill(worker_get_pid(r->worker), kind == KIND_KILL ? SIGKILL : SIGSTOP), 0);
    if (kind == KIND_STUMBLE)
        assert_true(sd_event_add_time_relative(r->batch->event, NULL, CLOCK_MONOTONIC,
                                               (uint64_t)(rand() % 700) * 1000, 1, on_stumbled,
                                               r) >= 0);
    return 0;
}

static void run(struct round *r)
{
    char prompt[] = "a fox";
    struct request q = {.prompt = prompt, .steps = STEPS, .count = 1, .seed = 5};

    requests_complete(&q);
    worker_run(r->worker, &q, 7, NULL);
}

static void on_packet(const union ipc_packet *packet, int attached, void *userdata)
{
    struct round *r = userdata;

    (void)attached;
    r->pictures += packet->header.type == IPC_PICTURE;
    if (packet->header.type == IPC_DONE)
        finish(r);
    if (packet->header.type != IPC_HELLO)
        return;
    run(r);
    if (!r->fault)
        assert_true(
            sd_event_add_time_relative(r->batch->event, &r->fault, CLOCK_MONOTONIC,
                                       (uint64_t)((unsigned)rand() % FAULT_WITHIN_MS) * 1000, 1,
                                       on_fault, r) >= 0);
}

static void on_end(enum worker_end end, const char *why, void *userdata)
{
    struct round *r = userdata;

    (void)end, (void)why;
    if (r->ends++ == 0)
        r->end_usec = now_usec();
    if (r->batch->kind == KIND_HANG)
        finish(r); /* the next one would hang as well */
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct batch *b = userdata;
    uint64_t now = now_usec(), late = now - b->tick_usec;

    (void)usec;
    if (b->tick_usec && late > TICK_USEC + b->latest_usec)
        b->latest_usec = late - TICK_USEC;
    b->tick_usec = now;
    assert_true(sd_event_source_set_time_relative(source, TICK_USEC) >= 0);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int on_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec, (void)userdata;
    return sd_event_exit(sd_event_source_get_event(source), 1);
}

static void start(struct batch *b, struct round *r, const char *path)
{
    const struct worker_listener listener = {on_packet, on_end, r};
    const struct worker_options options = {.executable = path,
                                           .model = "/some/model",
                                           .beat_timeout_usec = QUIET_USEC,
                                           .still_min_usec = STILL_USEC,
                                           .still_max_usec = STILL_USEC};
    struct fault f = {0};

    *r = (struct round){.batch = b};
    assert_int_equal(worker_new(b->event, &options, &listener, &r->worker), 0);
    assert_int_equal(worker_start(r->worker, &f), 0);
}

/* What each kind must come to: killed at once, or after its limit, or not at all; the job is done
 * either way, once. */
static void judge(const struct round *r, enum kind kind)
{
    static const uint64_t limits[] = {
        [KIND_KILL] = 0, [KIND_STOP] = QUIET_USEC, [KIND_STUMBLE] = 0, [KIND_HANG] = STILL_USEC};

    assert_int_equal(r->ends, kind != KIND_STUMBLE);
    assert_int_equal(r->pictures, kind != KIND_HANG);
    if (r->ends && kind != KIND_HANG)
        assert_true(r->end_usec >= r->hurt_usec);
    if (r->ends)
        assert_true(r->end_usec - r->hurt_usec <= limits[kind] + SLACK_USEC);
}

static void run_batch(enum kind kind, uint64_t *longest_usec, uint64_t *latest_usec)
{
    struct batch b = {.kind = kind, .open = PARALLEL};
    char path[4096];

    build_path("tests/fake-worker", path, sizeof path);
    assert_true(sd_event_new(&b.event) >= 0);
    assert_true(sd_event_add_time_relative(b.event, NULL, CLOCK_MONOTONIC, PATIENCE_USEC, 0,
                                           on_patience, NULL) >= 0);
    for (unsigned i = 0; i < PARALLEL; i++)
        start(&b, &b.rounds[i], path);
    assert_true(
        sd_event_add_time_relative(b.event, NULL, CLOCK_MONOTONIC, TICK_USEC, 1, on_tick, &b) >= 0);
    assert_int_equal(sd_event_loop(b.event), 0);
    for (unsigned i = 0; i < PARALLEL; i++) {
        struct round *r = &b.rounds[i];
        judge(r, kind);
        if (r->ends && r->end_usec - r->hurt_usec > *longest_usec)
            *longest_usec = r->end_usec - r->hurt_usec;
        sd_event_source_disable_unref(r->fault);
        worker_free(r->worker);
    }
    if (b.latest_usec > *latest_usec)
        *latest_usec = b.latest_usec;
    sd_event_unref(b.event);
}

static void run_rounds(enum kind kind, const char *name)
{
    unsigned rounds = number("ROUNDS", PARALLEL), done = 0;
    uint64_t longest_usec = 0, latest_usec = 0;

    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "10", 1);
    for (; done < rounds; done += PARALLEL)
        run_batch(kind, &longest_usec, &latest_usec);
    printf(
        "%s: %u rounds, 0 failures; told after %.2f s at most; event loop %.0f ms late at most\n",
        name, done, (double)longest_usec / 1e6, (double)latest_usec / 1e3);
    assert_true(latest_usec < TICK_LATE_USEC);
}

static void test_killed(void **state)
{
    (void)state;
    run_rounds(KIND_KILL, "killed");
}

static void test_stopped(void **state)
{
    (void)state;
    run_rounds(KIND_STOP, "stopped");
}

static void test_stumbling(void **state)
{
    (void)state;
    run_rounds(KIND_STUMBLE, "stopped for less than the limit");
}

static void test_hanging(void **state)
{
    char step[8];

    (void)state;
    (void)snprintf(step, sizeof step, "%d", 1 + rand() % 30);
    (void)setenv("DIFFUSED_FAKE_HANG_AT_STEP", step, 1);
    run_rounds(KIND_HANG, "hanging");
    (void)unsetenv("DIFFUSED_FAKE_HANG_AT_STEP");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_stumbling),
        cmocka_unit_test(test_hanging),
    };
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return 1;
    srand(number("SEED", 1));
    return cmocka_run_group_tests_name("hang", tests, NULL, NULL);
}
