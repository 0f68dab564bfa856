/* The n-th request for memory fails in the running daemon during one call: submit, list, look,
 * get, cancel, delete, reload, a dropped ticket. The shim is preloaded and armed for that call
 * alone, for what the program itself and its small libraries ask for. Every trial: the call
 * succeeds or is answered OutOfMemory, the daemon lives and answers, the same call succeeds with
 * memory, and the list on the bus is what is on the disk.
 *
 * Most of a trial is waiting until the daemon tries again what failed, so SHARDS daemons are tried
 * side by side, each by a child of its own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/ipc.h"
#include "daemon/png.h"
#include "tests/oom/control.h"
#include "tests/support/build.h"
#include "tests/support/testbus.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define TRIALS_MAX   5000u
#define CALL_USEC    UINT64_C(10000000)
#define SETTLE_TRIES 1000u /* of 10 ms */
#define SHARDS       8u

struct rig {
    int picture; /* what jobs may start from */
    struct testbus *bus;
    struct oom_control *control;
    char job[TESTBUS_PATH_SIZE];  /* a finished one that stays */
    char next[TESTBUS_PATH_SIZE]; /* of this trial; "" without */
    unsigned dropped;             /* tickets so far */
};

/* The child's share of the trials: every SHARDS-th. The counts are shared with the parent. */
static unsigned shard;
static unsigned *trial_counts;

struct operation {
    const char *name;
    /* With all memory: brings about what the call needs. May be NULL. */
    void (*prepare)(struct rig *rig);
    /* Armed. 0, or the call's negative error with its name. */
    int (*call)(struct rig *rig, sd_bus_error *error);
    /* With all memory again: is all well? `r` is what the call gave. May be NULL. */
    void (*check)(struct rig *rig, int r);
};

/* --- the daemon ------------------------------------------------------------------------------- */

static void show(const struct rig *rig)
{
    const struct oom_control *c = rig->control;

    print_error("refused: number %" PRIu64 "%s; addr2line -fpe BUILD/diffused", c->fail_at,
                c->sticky ? " and all after it" : "");
    for (uint32_t i = 0; i < c->frame_count; i++)
        if (c->frames[i])
            print_error(" %#" PRIx64, c->frames[i]);
    print_error("\n");
}

static bool is_alive(const struct rig *rig)
{
    siginfo_t end = {0};

    (void)waitid(P_PID, (id_t)rig->bus->daemon, &end, WEXITED | WNOHANG | WNOWAIT);
    return end.si_pid == 0;
}

static void arm(struct rig *rig, uint64_t n, bool sticky, uint32_t parties)
{
    struct oom_control *c = rig->control;

    c->parties = parties;
    c->sticky = sticky;
    c->fail_at = n;
    c->count = c->failed = 0;
    c->frame_count = 0;
    __atomic_store_n(&c->armed, 1, __ATOMIC_RELEASE);
}

static void disarm(struct rig *rig)
{
    __atomic_store_n(&rig->control->armed, 0, __ATOMIC_RELEASE);
}

static void preload(struct rig *rig)
{
    char path[256], shim[4096];

    (void)snprintf(path, sizeof path, "%s/control", rig->bus->folder);
    _cleanup_(closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && ftruncate(fd, sizeof *rig->control) == 0);
    rig->control = mmap(NULL, sizeof *rig->control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(rig->control != MAP_FAILED);
    build_path("tests/oom.so", shim, sizeof shim);
    const char *options = getenv("ASAN_OPTIONS");
    char joined[512];
    (void)snprintf(joined, sizeof joined, "%s%sverify_asan_link_order=0", options ? options : "",
                   options ? ":" : "");
    (void)setenv("ASAN_OPTIONS", joined, 1);
    (void)setenv("LD_PRELOAD", shim, 1);
    (void)setenv(OOM_ENVIRONMENT, path, 1);
    (void)setenv(OOM_PROGRAM, "diffused", 1);
    testbus_spawn_daemon(rig->bus);
    (void)unsetenv("LD_PRELOAD");
    rig->bus->client = testbus_connect(rig->bus);
    assert_true(sd_bus_set_method_call_timeout(rig->bus->client, CALL_USEC) >= 0);
}

static void wait_ready(struct rig *rig)
{
    for (unsigned i = 0; sd_bus_get_name_creds(rig->bus->client, TESTBUS_NAME, 0, NULL) < 0; i++) {
        assert_true(i < SETTLE_TRIES);
        (void)usleep(10000);
    }
    testbus_wait_state(rig->bus->client, TESTBUS_PATH, "ready");
}

/* --- what is there ---------------------------------------------------------------------------- */

static unsigned count_on_disk(const struct rig *rig)
{
    static const char *const states[] = {"queued", "running", "done", "failed", "cancelled"};
    unsigned count = 0;
    char path[256];

    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        (void)snprintf(path, sizeof path, "%s/spool/%s", rig->bus->folder, states[i]);
        _cleanup_(closedirp) DIR *directory = opendir(path);
        const struct dirent *entry;
        assert_non_null(directory);
        while ((entry = readdir(directory)))
            count += entry->d_name[0] != '.';
    }
    return count;
}

static int list_jobs(struct rig *rig, sd_bus_error *error, unsigned *ret_count)
{
    sd_bus_message *reply = NULL;
    unsigned count = 0;

    int r = sd_bus_call_method(rig->bus->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                               "ListJobs", error, &reply, "a{sv}", 0);
    if (r >= 0)
        assert_true(sd_bus_message_enter_container(reply, 'a', "(tosu)") >= 0);
    while (r >= 0 && sd_bus_message_skip(reply, "(tosu)") > 0)
        count++;
    sd_bus_message_unref(reply);
    *ret_count = count;
    return r;
}

static void check_list(struct rig *rig)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    unsigned listed = 0;

    for (unsigned i = 0; i < SETTLE_TRIES; i++) {
        if (list_jobs(rig, &error, &listed) < 0)
            fail_msg("ListJobs: %s: %s", error.name, error.message);
        if (listed == count_on_disk(rig))
            return;
        (void)usleep(10000);
    }
    show(rig);
    fail_msg("%u jobs on the bus, %u on the disk", listed, count_on_disk(rig));
}

/* --- operations ------------------------------------------------------------------------------- */

static int call(struct rig *rig, const char *path, const char *interface, const char *member,
                sd_bus_error *error, const char *types, ...)
{
    sd_bus_message *message = NULL, *reply = NULL;
    const char *job;
    va_list args;

    assert_true(sd_bus_message_new_method_call(rig->bus->client, &message, TESTBUS_NAME, path,
                                               interface, member) >= 0);
    va_start(args, types);
    if (*types)
        assert_true(sd_bus_message_appendv(message, types, args) >= 0);
    va_end(args);
    int r = sd_bus_call(rig->bus->client, message, 0, error, &reply);
    if (r >= 0 && strcmp(member, "Submit") == 0) {
        assert_true(sd_bus_message_read(reply, "o", &job) >= 0);
        (void)snprintf(rig->next, sizeof rig->next, "%s", job);
    }
    sd_bus_message_unref(message);
    sd_bus_message_unref(reply);
    return r;
}

static int call_manager(struct rig *rig, const char *member, sd_bus_error *error)
{
    return call(rig, TESTBUS_PATH, TESTBUS_MANAGER, member, error, "");
}

static void must(struct rig *rig, int r, const char *what, sd_bus_error *error)
{
    if (r < 0) {
        show(rig);
        fail_msg("%s: %s: %s", what, error->name, error->message);
    }
}

/* The state of a job, "" when there is none. */
static void get_state(struct rig *rig, const char *job, char ret_state[32])
{
    char *state = NULL;

    ret_state[0] = '\0';
    if (sd_bus_get_property_string(rig->bus->client, TESTBUS_NAME, job, TESTBUS_JOB, "State", NULL,
                                   &state) >= 0)
        (void)snprintf(ret_state, 32, "%s", state);
    free(state);
}

static bool is_final(const char *state)
{
    return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 ||
           strcmp(state, "cancelled") == 0;
}

/* A job whose end could not be saved at once is deleted when it is. */
static void delete_next(struct rig *rig)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    for (unsigned i = 0; i < SETTLE_TRIES; i++) {
        sd_bus_error_free(&error);
        if (call(rig, rig->next, TESTBUS_JOB, "Delete", &error, "") >= 0) {
            rig->next[0] = '\0';
            return;
        }
        if (strcmp(error.name, TESTBUS_ERROR "NotReady") != 0)
            break;
        (void)usleep(10000);
    }
    must(rig, -1, "Delete", &error);
}

/* Waits for the end of this trial's job, and deletes it. */
static void end_next(struct rig *rig)
{
    char state[32] = "";

    if (!rig->next[0])
        return;
    for (unsigned i = 0; i < SETTLE_TRIES && !is_final(state); i++) {
        get_state(rig, rig->next, state);
        if (!is_final(state))
            (void)usleep(5000);
    }
    if (!is_final(state)) {
        show(rig);
        fail_msg("%s does not end: \"%s\"", rig->next, state);
    }
    delete_next(rig);
}

static int call_submit(struct rig *rig, sd_bus_error *error)
{
    return call(rig, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", error, "sa{sv}", "fox", 3, "steps",
                "u", 1, "negative_prompt", "s", "rain", "preset", "s", "fast");
}

static int call_submit_pictures(struct rig *rig, sd_bus_error *error)
{
    return call(rig, TESTBUS_PATH, TESTBUS_MANAGER, "Submit", error, "sa{sv}", "fox", 3, "image",
                "h", rig->picture, "mask", "h", rig->picture, "steps", "u", 1);
}

static void check_submit(struct rig *rig, int r)
{
    assert_int_equal(r >= 0, rig->next[0] != '\0');
    end_next(rig);
}

/* Armed until the job has ended. */
static int call_run(struct rig *rig, sd_bus_error *error)
{
    char state[32] = "";

    disarm(rig);
    must(rig, call_submit(rig, error), "Submit", error);
    __atomic_store_n(&rig->control->armed, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < 200 && !is_final(state); i++) {
        get_state(rig, rig->next, state);
        (void)usleep(1000);
    }
    return 0;
}

static int call_list(struct rig *rig, sd_bus_error *error)
{
    unsigned count;

    int r = list_jobs(rig, error, &count);
    if (r >= 0)
        assert_int_equal(count, 1);
    return r;
}

static int call_request(struct rig *rig, sd_bus_error *error)
{
    return call(rig, rig->job, TESTBUS_JOB, "GetRequest", error, "");
}

static int call_properties(struct rig *rig, sd_bus_error *error)
{
    return call(rig, rig->job, "org.freedesktop.DBus.Properties", "GetAll", error, "s",
                TESTBUS_JOB);
}

static int call_result(struct rig *rig, sd_bus_error *error)
{
    return call(rig, rig->job, TESTBUS_JOB, "GetResult", error, "ua{sv}", 0, 0);
}

static int call_pixels(struct rig *rig, sd_bus_error *error)
{
    return call(rig, rig->job, TESTBUS_JOB, "GetResult", error, "ua{sv}", 0, 1, "format", "s",
                "rgb");
}

static int call_path(struct rig *rig, sd_bus_error *error)
{
    return call(rig, rig->job, TESTBUS_JOB, "GetResultPath", error, "u", 0);
}

static int call_devices(struct rig *rig, sd_bus_error *error)
{
    return call_manager(rig, "ListDevices", error);
}

static int call_models(struct rig *rig, sd_bus_error *error)
{
    return call_manager(rig, "ListModels", error);
}

static int call_watch(struct rig *rig, sd_bus_error *error)
{
    return call(rig, TESTBUS_PATH, TESTBUS_MANAGER, "Watch", error, "o", rig->job);
}

static void check_watch(struct rig *rig, int r)
{
    (void)r;
    (void)call(rig, TESTBUS_PATH, TESTBUS_MANAGER, "Unwatch", NULL, "o", rig->job);
}

static int call_reload(struct rig *rig, sd_bus_error *error)
{
    return call_manager(rig, "Reload", error);
}

/* A job that waits. */
static void prepare_queued(struct rig *rig)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    must(rig, call_manager(rig, "Pause", &error), "Pause", &error);
    must(rig, call_submit(rig, &error), "Submit", &error);
}

static int call_cancel(struct rig *rig, sd_bus_error *error)
{
    return call(rig, rig->next, TESTBUS_JOB, "Cancel", error, "");
}

static void check_cancel(struct rig *rig, int r)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char state[32];

    if (r < 0)
        must(rig, call_cancel(rig, &error), "the second Cancel", &error);
    for (unsigned i = 0; i < SETTLE_TRIES; i++) {
        get_state(rig, rig->next, state);
        if (is_final(state))
            break;
        (void)usleep(5000);
    }
    assert_string_equal(state, "cancelled");
    end_next(rig);
    must(rig, call_manager(rig, "Resume", &error), "Resume", &error);
}

static void prepare_done(struct rig *rig)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    must(rig, call_submit(rig, &error), "Submit", &error);
    testbus_wait_state(rig->bus->client, rig->next, "done");
}

static int call_delete(struct rig *rig, sd_bus_error *error)
{
    return call(rig, rig->next, TESTBUS_JOB, "Delete", error, "");
}

static void check_delete(struct rig *rig, int r)
{
    if (r < 0)
        delete_next(rig);
    rig->next[0] = '\0';
}

/* --- a dropped ticket ------------------------------------------------------------------------- */

static bool is_there(const struct rig *rig, const char *place, const char *ending)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/drop/%st%u%s", rig->bus->folder, place, rig->dropped,
                   ending);
    return access(path, F_OK) == 0;
}

/* Armed until picture or error are there. */
static int call_drop(struct rig *rig, sd_bus_error *error)
{
    char from[256], to[256];

    (void)error;
    rig->dropped++;
    (void)snprintf(from, sizeof from, "%s/t%u.ini", rig->bus->folder, rig->dropped);
    (void)snprintf(to, sizeof to, "%s/drop/t%u.ini", rig->bus->folder, rig->dropped);
    static const char text[] = "[job]\nprompt = fox\nsteps = 1\n";
    assert_int_equal(file_write_atomic(from, text, strlen(text), NULL), 0);
    assert_int_equal(rename(from, to), 0);
    for (unsigned i = 0; i < 150; i++) {
        if (is_there(rig, "done/", ".png") || is_there(rig, "failed/", ".error.txt"))
            break;
        (void)usleep(2000);
    }
    return 0;
}

static void check_drop(struct rig *rig, int r)
{
    (void)r;
    for (unsigned i = 0; i < SETTLE_TRIES; i++) {
        if (is_there(rig, "done/", ".json") && is_there(rig, "done/", ".png"))
            return;
        if (is_there(rig, "failed/", ".error.txt") && is_there(rig, "failed/", ".ini"))
            return;
        (void)usleep(10000);
    }
    show(rig);
    fail_msg("ticket %u is neither in done/ nor in failed/", rig->dropped);
}

/* --- trials ----------------------------------------------------------------------------------- */

static const struct operation operations[] = {
    {"Submit", NULL, call_submit, check_submit},
    {"Submit with pictures", NULL, call_submit_pictures, check_submit},
    {"ListJobs", NULL, call_list, NULL},
    {"GetRequest", NULL, call_request, NULL},
    {"Properties.GetAll", NULL, call_properties, NULL},
    {"GetResult", NULL, call_result, NULL},
    {"GetResult rgb", NULL, call_pixels, NULL},
    {"GetResultPath", NULL, call_path, NULL},
    {"ListDevices", NULL, call_devices, NULL},
    {"ListModels", NULL, call_models, NULL},
    {"Watch", NULL, call_watch, check_watch},
    {"Reload", NULL, call_reload, NULL},
    {"Cancel", prepare_queued, call_cancel, check_cancel},
    {"Delete", prepare_done, call_delete, check_delete},
    {"run to the end", NULL, call_run, check_submit},
};

static const struct operation drop_operation = {"drop", NULL, call_drop, check_drop};

static bool is_word_for_no_memory(const char *name)
{
    return name && (strcmp(name, TESTBUS_ERROR "OutOfMemory") == 0 ||
                    strcmp(name, "org.freedesktop.DBus.Error.NoMemory") == 0);
}

/* True when memory was refused. */
static bool try_once(struct rig *rig, const struct operation *o, uint64_t n, bool sticky)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    if (o->prepare)
        o->prepare(rig);
    arm(rig, n, sticky, 1u << OOM_PARTY_OURS);
    int r = o->call(rig, &error);
    disarm(rig);
    bool refused = rig->control->failed > 0;
    if (!is_alive(rig)) {
        show(rig);
        fail_msg("%s: the daemon has ended", o->name);
    }
    if (r < 0 && (!refused || !is_word_for_no_memory(error.name))) {
        show(rig);
        fail_msg("%s: %s: %s", o->name, error.name, error.message);
    }
    sd_bus_error_free(&error);
    if (o->check)
        o->check(rig, r);
    check_list(rig);
    return refused;
}

static void exhaust(struct rig *rig, const struct operation *o, uint64_t stride,
                    unsigned *ret_trials)
{
    (void)try_once(rig, o, 0, false);
    for (int sticky = 0; sticky <= 1; sticky++)
        for (uint64_t n = 1 + shard * stride; try_once(rig, o, n, sticky); n += SHARDS * stride) {
            assert_true(n < TRIALS_MAX);
            (void)__atomic_add_fetch(ret_trials, 1, __ATOMIC_RELAXED);
        }
}

/* A sealed memfd with a small PNG. */
static int make_picture(void)
{
    static const uint8_t rgb[16 * 16 * 3] = {0};
    static const struct png_facts facts = {0};
    _cleanup_(freep) uint8_t *png = NULL;
    size_t size;

    int r = png_encode(rgb, 16, 16, &facts, PNG_METADATA_NONE, &png, &size, NULL);
    return r < 0 ? r : ipc_memfd("picture", png, size);
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    void *bus = NULL;
    sd_bus_error error = SD_BUS_ERROR_NULL;

    if (!rig || testbus_setup(&bus) < 0)
        return -1;
    rig->bus = bus;
    testbus_configure(rig->bus, "[preset fast]\nsteps = 1\n[limits]\ncalls_per_second = 0\n"
                                "user_jobs = 0\nuser_descriptors = 16\n");
    rig->picture = make_picture();
    assert_true(rig->picture >= 0);
    preload(rig);
    wait_ready(rig);
    assert_int_equal(rig->control->is_loaded, 1);
    must(rig, call_submit(rig, &error), "Submit", &error);
    (void)snprintf(rig->job, sizeof rig->job, "%s", rig->next);
    rig->next[0] = '\0';
    testbus_wait_state(rig->bus->client, rig->job, "done");
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    void *bus = rig->bus;

    disarm(rig);
    (void)close(rig->picture);
    (void)munmap(rig->control, sizeof *rig->control);
    free(rig);
    return testbus_teardown(&bus);
}

static void try_calls(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
        exhaust(*state, &operations[i], 1, &trial_counts[i]);
}

static void try_tickets(void **state)
{
    /* a ticket takes a second: OOM_ALL=1 tries every n, make check one in five */
    exhaust(*state, &drop_operation, getenv("OOM_ALL") ? 1 : 5, &trial_counts[0]);
}

/* --- side by side ----------------------------------------------------------------------------- */

/* Never returns. What it says is the parent's to show. */
static void run_shard(const struct CMUnitTest *test, FILE *out)
{
    const struct CMUnitTest tests[] = {*test};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(fileno(out), STDOUT_FILENO) < 0 || dup2(fileno(out), STDERR_FILENO) < 0)
        _exit(126);
    int failed = cmocka_run_group_tests_name("shard", tests, NULL, NULL);
    (void)fflush(NULL);
    _exit(failed != 0);
}

/* cmocka's own lines would be counted as another test's. */
static void show_shard(FILE *out)
{
    char line[1024];

    rewind(out);
    while (fgets(line, sizeof line, out))
        if (line[0] != '[')
            print_error("shard: %s", line);
}

static void run_shards(const struct CMUnitTest test)
{
    FILE *outs[SHARDS];
    pid_t children[SHARDS];
    unsigned failed = 0;

    trial_counts = mmap(NULL, ARRAY_SIZE(operations) * sizeof *trial_counts, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(trial_counts != MAP_FAILED);
    (void)fflush(NULL);
    for (shard = 0; shard < SHARDS; shard++) {
        outs[shard] = tmpfile();
        assert_non_null(outs[shard]);
        children[shard] = fork();
        assert_true(children[shard] >= 0);
        if (children[shard] == 0)
            run_shard(&test, outs[shard]);
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        if (status != 0)
            show_shard(outs[i]);
        failed += status != 0;
        (void)fclose(outs[i]);
    }
    assert_int_equal(failed, 0);
}

static void test_calls(void **state)
{
    (void)state;
    run_shards((struct CMUnitTest)cmocka_unit_test_setup_teardown(try_calls, setup, teardown));
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
        print_message("%s: %u trials\n", operations[i].name, trial_counts[i]);
}

static void test_dropped_tickets(void **state)
{
    (void)state;
    run_shards((struct CMUnitTest)cmocka_unit_test_setup_teardown(try_tickets, setup, teardown));
    print_message("drop: %u trials\n", trial_counts[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_dropped_tickets),
    };

    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0); /* where fsync costs nothing */
    return cmocka_run_group_tests_name("daemon without memory", tests, NULL, NULL);
}
