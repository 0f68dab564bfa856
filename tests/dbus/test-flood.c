/* flood: one user calls without end, one never reads, one sends descriptors nobody wants, one
 * leaves in the middle of everything. Others are served as before, and the daemon holds no more
 * afterwards. The users are games (in the access group here) and nobody; needs root. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/proc.h"
#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"

#define USER         5 /* games */
#define GROUP        60
#define NOBODY       65534
#define PROPERTIES   "org.freedesktop.DBus.Properties"
#define SAMPLES      400
#define P99_USEC     50000
#define SLOWER       10  /* times what is measured without a flood, on a machine that is busy */
#define ATTEMPTS     3   /* of a measurement: the machine has other things to do, too */
#define CHILD_SETTLE 200 /* msec */

/* What the allocator may keep; AddressSanitizer's keeps much of what was freed. */
#if defined __SANITIZE_ADDRESS__
#define GROWTH_KIB (512 * 1024)
#else
#define GROWTH_KIB 8192
#endif

static bool can_run(void)
{
    if (geteuid() == 0 && getpwuid(USER) && getpwuid(NOBODY))
        return true;
    print_message("becoming users %d and %d needs root and those users\n", USER, NOBODY);
    return false;
}

static void start(struct testbus *s, const char *limits)
{
    testbus_configure(s, "[access]\ngroup = games\n");
    testbus_configure(s, limits);
    testbus_start_daemon(s, "ready");
}

static void drain(sd_bus *bus)
{
    while (sd_bus_process(bus, NULL) > 0)
        continue;
}

/* --- calls without end ------------------------------------------------------------------------ */

/* As nobody, until killed: what costs the daemon most, with and without waiting for the reply. */
static void flood(void)
{
    static const char *const calls[][2] = {
        {"org.freedesktop.DBus.Peer", "Ping"},
        {"org.freedesktop.DBus.ObjectManager", "GetManagedObjects"},
        {"org.freedesktop.DBus.Introspectable", "Introspect"},
        {TESTBUS_MANAGER, "ListModels"},
        {TESTBUS_MANAGER, "Pause"},
    };
    sd_bus *bus = NULL;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0 || sd_bus_open_system(&bus) < 0)
        _exit(99);
    for (unsigned i = 0;; i++) {
        sd_bus_message *m = NULL;
        const char *const *call = calls[i % ARRAY_SIZE(calls)];
        if (sd_bus_message_new_method_call(bus, &m, TESTBUS_NAME, TESTBUS_PATH, call[0], call[1]) <
            0)
            _exit(98);
        uint64_t cookie; /* who takes it gets a reply */
        if (sd_bus_send(bus, m, i % 2 ? NULL : &cookie) < 0 || i % 64 == 0)
            (void)sd_bus_flush(bus);
        sd_bus_message_unref(m);
        drain(bus);
    }
}

static int compare_usec(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Usec below which 99 of 100 calls of this connection are answered. */
static uint64_t measure_p99(sd_bus *bus, uint64_t *ret_median)
{
    uint64_t usec[SAMPLES];

    for (size_t i = 0; i < SAMPLES; i++) {
        uint64_t start = proc_now_usec();
        free(testbus_get_text(bus, TESTBUS_PATH, TESTBUS_MANAGER, "State"));
        usec[i] = proc_now_usec() - start;
    }
    qsort(usec, SAMPLES, sizeof *usec, compare_usec);
    *ret_median = usec[SAMPLES / 2];
    return usec[SAMPLES * 99 / 100];
}

static pid_t start_flood(void)
{
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        flood();
    return child;
}

static void end_child(pid_t child)
{
    int status;

    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status)); /* it was at it until now */
}

static void test_flood(void **state)
{
    struct testbus *s = *state;
    uint64_t quiet = 0, quiet_median = 0, loud = UINT64_MAX, median = 0, limit = 0;

    if (!can_run())
        skip();
    start(s, "[limits]\ncalls_per_second = 1000\ncalls_burst = 1000\n");
    sd_bus *other = testbus_connect_as(s, USER, GROUP);
    long before = proc_rss_kib(s->daemon);
    for (unsigned i = 0; i < ATTEMPTS && loud >= limit; i++) {
        quiet = measure_p99(other, &quiet_median);
        limit = quiet * SLOWER > P99_USEC ? quiet * SLOWER : P99_USEC;
        pid_t child = start_flood();
        testbus_process(other, CHILD_SETTLE);
        loud = measure_p99(other, &median);
        end_child(child);
    }
    long after = proc_rss_kib(s->daemon);
    print_message("another user's calls: median %lu us, p99 %lu us; while one floods: median %lu "
                  "us, p99 %lu us, at most %lu; RSS %ld -> %ld KiB\n",
                  quiet_median, quiet, median, loud, limit, before, after);
    sd_bus_flush_close_unref(other);
    assert_true(loud < limit);
    assert_true(after < before + GROWTH_KIB);
}

/* Calls of both kinds: what the sender is for, and what everybody sees. */
static unsigned count_refusals(sd_bus *bus, unsigned calls, const char *member)
{
    unsigned refused = 0;

    for (unsigned i = 0; i < calls; i++) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        int r = sd_bus_call_method(bus, TESTBUS_NAME, TESTBUS_PATH,
                                   strcmp(member, "Ping") == 0 ? "org.freedesktop.DBus.Peer"
                                                               : TESTBUS_MANAGER,
                                   member, &error, NULL, "");
        if (r < 0)
            assert_string_equal(error.name, TESTBUS_ERROR "QuotaExceeded");
        refused += r < 0;
        sd_bus_error_free(&error);
    }
    return refused;
}

static void test_call_limit(void **state)
{
    struct testbus *s = *state;

    if (!can_run())
        skip();
    start(s, "[limits]\ncalls_per_second = 1\ncalls_burst = 20\n");
    sd_bus *one = testbus_connect_as(s, NOBODY, NOBODY);
    sd_bus *two = testbus_connect_as(s, NOBODY, NOBODY);
    sd_bus *other = testbus_connect_as(s, USER, GROUP);
    assert_int_equal(count_refusals(one, 15, "ListModels"), 0);
    assert_in_range(count_refusals(two, 15, "Ping"), 7, 10); /* one user's, whatever connection */
    assert_int_equal(count_refusals(other, 15, "ListModels"), 0);
    assert_int_equal(count_refusals(s->client, 200, "ListModels"), 0); /* root */
    sd_bus_flush_close_unref(two); /* leaving and coming back is no way out */
    two = testbus_connect_as(s, NOBODY, NOBODY);
    assert_in_range(count_refusals(two, 10, "ListModels"), 6, 10);
    testbus_process(one, 3100);
    assert_in_range(count_refusals(one, 6, "ListModels"), 1, 4); /* three more by now */
    sd_bus *all[] = {one, two, other};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        sd_bus_flush_close_unref(all[i]);
}

/* --- never reading ---------------------------------------------------------------------------- */

static void send_call(sd_bus *bus, const char *path, const char *interface, const char *member,
                      const char *types, ...)
{
    sd_bus_message *m = NULL;
    uint64_t cookie; /* who does not take it gets no reply */
    va_list args;

    assert_true(sd_bus_message_new_method_call(bus, &m, TESTBUS_NAME, path, interface, member) >=
                0);
    va_start(args, types);
    if (*types)
        assert_true(sd_bus_message_appendv(m, types, args) >= 0);
    va_end(args);
    assert_true(sd_bus_send(bus, m, &cookie) >= 0);
    sd_bus_message_unref(m);
    (void)sd_bus_flush(bus);
}

/* Fetches the picture and gives it back at once. */
static int fetch(sd_bus *bus, const char *job)
{
    sd_bus_message *reply = NULL;
    int r = sd_bus_call_method(bus, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", NULL, &reply,
                               "ua{sv}", 0, 0);

    sd_bus_message_unref(reply);
    return r;
}

/* It submits, watches, fetches pictures and asks for long answers, and reads none of it: neither
 * its pictures nor its answers may fill up what the bus daemon takes from us. */
static void test_never_reads(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE], next[TESTBUS_PATH_SIZE];
    uint64_t median;

    if (!can_run())
        skip();
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "1", 1);
    start(s, "[limits]\ncalls_per_second = 1000\ncalls_burst = 1000\n");
    sd_bus *other = testbus_connect_as(s, NOBODY, NOBODY);
    sd_bus *hole = testbus_connect_as(s, USER, GROUP);
    testbus_submit(hole, "x", job, "a{sv}", 1, "steps", "u", 300);
    testbus_wait_state(other, job, "done");
    long before = proc_rss_kib(s->daemon);
    int descriptors = proc_count_descriptors(s->daemon);
    send_call(hole, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", "sa{sv}", "y", 1, "steps", "u", 400);
    for (unsigned i = 0; i < 150; i++) {
        send_call(hole, job, TESTBUS_JOB, "GetResult", "ua{sv}", 0, 0);
        send_call(hole, TESTBUS_PATH, PROPERTIES, "GetAll", "s", TESTBUS_MANAGER);
    }
    uint64_t p99 = measure_p99(other, &median);
    assert_true(fetch(s->client, job) >= 0); /* others get their pictures */
    testbus_submit(s->client, "z", next, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, next, "done");
    int held = proc_count_descriptors(s->daemon) - descriptors;
    long after = proc_rss_kib(s->daemon);
    print_message("beside one that never reads: median %lu us, p99 %lu us; RSS %ld -> %ld KiB; %d "
                  "pictures lent\n",
                  median, p99, before, after, held);
    assert_in_range(held, 16, 17); /* as many as one may hold, not 150 */
    assert_true(after < before + GROWTH_KIB);
    sd_bus_close_unref(hole);
    sd_bus_flush_close_unref(other);
    testbus_process(s->client, 2500);
    assert_in_range(proc_count_descriptors(s->daemon), descriptors - 1, descriptors);
}

/* What waits in the bus daemon for one that never reads may be all it lets us have: then it takes
 * nothing from us any more, for anybody. The daemon notices, ends, and is there again. */
static void test_stalled_bus(void **state)
{
    struct testbus *s = *state;
    char job[TESTBUS_PATH_SIZE];

    if (!can_run())
        skip();
    start(s, "[limits]\ncalls_per_second = 0\n");
    sd_bus *hole = testbus_connect_as(s, USER, GROUP);
    testbus_submit(s->client, "x", job, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, job, "done");
    uint64_t start_usec = proc_now_usec();
    for (unsigned i = 0; i < 1000; i++)
        send_call(hole, TESTBUS_PATH, PROPERTIES, "GetAll", "s", TESTBUS_MANAGER);
    print_message("all sent after %lu ms\n", (proc_now_usec() - start_usec) / 1000);
    int status = 0; /* it ends by itself */
    for (unsigned i = 0; i < 450 && waitpid(s->daemon, &status, WNOHANG) == 0; i++)
        if (i % 10 == 0) /* others go on asking, in vain */
            send_call(s->client, TESTBUS_PATH, PROPERTIES, "GetAll", "s", TESTBUS_JOB);
        else
            testbus_process(s->client, 100);
    s->daemon = 0;
    uint64_t seconds = (proc_now_usec() - start_usec) / 1000000;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    print_message("ended after %lu s\n", seconds);
    assert_in_range(seconds, 15, 40);
    for (unsigned i = 0; i < 200; i++) { /* the bus daemon notices with the next message */
        if (sd_bus_get_name_creds(s->client, TESTBUS_NAME, 0, NULL) < 0)
            break;
        send_call(s->client, TESTBUS_PATH, PROPERTIES, "GetAll", "s", TESTBUS_JOB);
        testbus_process(s->client, 50);
    }
    testbus_start_daemon(s, "ready");
    testbus_wait_state(s->client, job, "done"); /* the hole is still there */
    sd_bus_close_unref(hole);
}

/* Less than one may have waiting (127 MB by default, both). */
static int setup_small_bus(void **state)
{
    return testbus_setup_limited(state,
                                 "<limit name=\"max_incoming_bytes\">300000</limit>\n"
                                 "<limit name=\"max_replies_per_connection\">5000</limit>\n");
}

/* Pictures held open count; closed ones do not, mapped ones do. */
static void test_pictures_held_open(void **state)
{
    struct testbus *s = *state;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *replies[4] = {0};
    char job[TESTBUS_PATH_SIZE];
    int fd;

    if (!can_run())
        skip();
    start(s, "[limits]\nuser_descriptors = 3\n");
    sd_bus *bus = testbus_connect_as(s, USER, GROUP);
    testbus_submit(bus, "x", job, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(bus, job, "done");
    for (unsigned i = 0; i < 3; i++)
        assert_true(sd_bus_call_method(bus, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", NULL,
                                       &replies[i], "ua{sv}", 0, 0) >= 0);
    assert_true(sd_bus_call_method(bus, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", &error, NULL,
                                   "ua{sv}", 0, 0) < 0);
    assert_string_equal(error.name, TESTBUS_ERROR "QuotaExceeded");
    assert_non_null(strstr(error.message, "hold 3 pictures open"));
    sd_bus_error_free(&error);
    assert_true(fetch(s->client, job) >= 0); /* root has his own */
    assert_true(sd_bus_message_read(replies[0], "h", &fd) >= 0);
    void *pixels = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(pixels != MAP_FAILED);
    sd_bus_message_unref(replies[0]);
    assert_true(fetch(bus, job) < 0); /* still mapped */
    assert_int_equal(munmap(pixels, 16), 0);
    assert_true(fetch(bus, job) >= 0);
    for (unsigned i = 0; i < 50; i++) /* a well-behaved one has no limit */
        assert_true(fetch(bus, job) >= 0);
    sd_bus_message_unref(replies[1]);
    sd_bus_message_unref(replies[2]);
    sd_bus_flush_close_unref(bus);
}

/* --- descriptors nobody wants ----------------------------------------------------------------- */

static int open_odd(unsigned kind)
{
    int pair[2] = {-1, -1};

    switch (kind % 6) {
    case 0:
        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        break;
    case 1:
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        break;
    case 2: /* not sealed */
        return memfd_create("odd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    case 3:
        return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    case 4:
        return open("/dev/zero", O_RDONLY | O_CLOEXEC);
    default:
        return open("/proc/self/exe", O_PATH | O_CLOEXEC);
    }
    (void)close(pair[1]);
    return pair[0];
}

/* A Submit with an array of 15 descriptors as option `image`. */
static void send_descriptors(sd_bus *bus, unsigned kind, sd_bus_error *ret_error)
{
    sd_bus_message *m = NULL;

    assert_true(sd_bus_message_new_method_call(bus, &m, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                                               "Submit") >= 0);
    assert_true(sd_bus_message_append(m, "s", "x") >= 0);
    assert_true(sd_bus_message_open_container(m, 'a', "{sv}") >= 0);
    assert_true(sd_bus_message_open_container(m, 'e', "sv") >= 0);
    assert_true(sd_bus_message_append(m, "s", kind % 2 ? "image" : "steps") >= 0);
    assert_true(sd_bus_message_open_container(m, 'v', "ah") >= 0);
    assert_true(sd_bus_message_open_container(m, 'a', "h") >= 0);
    for (unsigned i = 0; i < 15; i++) {
        _cleanup_(closep) int fd = open_odd(kind);
        assert_true(fd >= 0 && sd_bus_message_append(m, "h", fd) >= 0);
    }
    for (int i = 0; i < 4; i++)
        assert_true(sd_bus_message_close_container(m) >= 0);
    if (ret_error)
        assert_true(sd_bus_call(bus, m, 0, ret_error, NULL) < 0);
    else
        assert_true(sd_bus_send(bus, m, NULL) >= 0 && sd_bus_flush(bus) >= 0);
    sd_bus_message_unref(m);
}

/* A message is freed after its answer was sent: another round trip sees to that. */
static int count_settled(struct testbus *s)
{
    free(testbus_get_text(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "State"));
    free(testbus_get_text(s->client, TESTBUS_PATH, TESTBUS_MANAGER, "State"));
    return proc_count_descriptors(s->daemon);
}

static void test_descriptor_storm(void **state)
{
    struct testbus *s = *state;

    if (!can_run())
        skip();
    start(s, "[limits]\ncalls_per_second = 0\n");
    sd_bus *bus = testbus_connect_as(s, USER, GROUP);
    drain(bus);
    int descriptors = proc_count_descriptors(s->daemon);
    for (unsigned i = 0; i < 300; i++) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        send_descriptors(bus, i, &error);
        assert_string_equal(error.name, TESTBUS_ERROR "InvalidArgument");
        sd_bus_error_free(&error);
    }
    assert_int_equal(count_settled(s), descriptors);
    for (unsigned i = 0; i < 60; i++) { /* held until it is known who sends, and dropped */
        sd_bus *once = testbus_connect_as(s, i % 2 ? USER : NOBODY, i % 2 ? GROUP : NOBODY);
        for (unsigned j = 0; j < 3; j++)
            send_descriptors(once, i + j, NULL);
        sd_bus_close_unref(once);
    }
    testbus_process(s->client, 300);
    assert_int_equal(count_settled(s), descriptors);
    sd_bus_flush_close_unref(bus);
}

/* --- leaving in the middle -------------------------------------------------------------------- */

enum step {
    STEP_CONNECT,
    STEP_GET,
    STEP_SUBMIT,
    STEP_SUBMITTED,
    STEP_WATCH,
    STEP_GET_RESULT,
    STEP_GET_RGB,
    STEP_CANCEL,
    STEP_PAUSE,
    STEP_DELETE,
    STEPS,
};

static void go_as_far_as(struct testbus *s, enum step step, const char *done)
{
    sd_bus *bus = testbus_connect_as(s, USER, GROUP);
    char job[TESTBUS_PATH_SIZE];

    if (step == STEP_CONNECT)
        (void)sd_bus_flush(bus);
    if (step == STEP_GET)
        send_call(bus, done, PROPERTIES, "Get", "ss", TESTBUS_JOB, "Error");
    if (step == STEP_SUBMIT)
        send_call(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", "sa{sv}", "x", 1, "steps", "u", 2);
    if (step == STEP_SUBMITTED || step == STEP_CANCEL || step == STEP_DELETE)
        testbus_submit(bus, "x", job, "a{sv}", 1, "steps", "u", 2);
    if (step == STEP_WATCH)
        send_call(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Watch", "o", done);
    if (step == STEP_GET_RESULT)
        send_call(bus, done, TESTBUS_JOB, "GetResult", "ua{sv}", 0, 0);
    if (step == STEP_GET_RGB)
        send_call(bus, done, TESTBUS_JOB, "GetResult", "ua{sv}", 0, 1, "format", "s", "rgb");
    if (step == STEP_CANCEL)
        send_call(bus, job, TESTBUS_JOB, "Cancel", "");
    if (step == STEP_PAUSE)
        send_call(bus, TESTBUS_PATH, TESTBUS_MANAGER, "Pause", "");
    if (step == STEP_DELETE)
        send_call(bus, job, TESTBUS_JOB, "Delete", "");
    sd_bus_close_unref(bus);
}

/* Jobs that nobody deletes go on to their end: wait for it. */
static void wait_until_idle(struct testbus *s)
{
    uint32_t length = 1;

    for (unsigned i = 0; i < 500 && length > 0; i++) {
        testbus_get_number(s->client, TESTBUS_PATH, "QueueLength", 'u', &length);
        testbus_process(s->client, 20);
    }
    testbus_wait_state(s->client, TESTBUS_PATH, "ready");
    testbus_process(s->client, 2500);
}

static void test_leaving_at_each_step(void **state)
{
    struct testbus *s = *state;
    const char *rounds = getenv("ROUNDS");
    unsigned count = rounds ? (unsigned)strtoul(rounds, NULL, 10) : 12;
    char done[TESTBUS_PATH_SIZE];

    if (!can_run())
        skip();
    start(s, "[limits]\ncalls_per_second = 0\nqueue = 100000\nuser_jobs = 0\n");
    sd_bus *bus = testbus_connect_as(s, USER, GROUP);
    testbus_submit(bus, "x", done, "a{sv}", 1, "steps", "u", 1);
    testbus_wait_state(s->client, done, "done");
    for (enum step step = 0; step < STEPS; step++)
        go_as_far_as(s, step, done);
    wait_until_idle(s);
    int descriptors = proc_count_descriptors(s->daemon);
    for (unsigned i = 0; i < count; i++)
        for (enum step step = 0; step < STEPS; step++)
            go_as_far_as(s, step, done);
    wait_until_idle(s);
    print_message("%u clients left\n", count * STEPS);
    assert_int_equal(proc_count_descriptors(s->daemon), descriptors);
    assert_true(fetch(bus, done) >= 0);
    sd_bus_flush_close_unref(bus);
}

#define BUS_TEST(function)                                                                         \
    cmocka_unit_test_setup_teardown(function, testbus_setup, testbus_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BUS_TEST(test_flood),
        BUS_TEST(test_call_limit),
        BUS_TEST(test_never_reads),
        cmocka_unit_test_setup_teardown(test_stalled_bus, setup_small_bus, testbus_teardown),
        BUS_TEST(test_pictures_held_open),
        BUS_TEST(test_descriptor_storm),
        BUS_TEST(test_leaving_at_each_step),
    };

    proc_stand_out();
    return cmocka_run_group_tests_name("flood", tests, NULL, NULL);
}
