/* A dropped ticket on its way from the intake to done/: the daemon is killed at each file system
 * call on the drop folder, or the call fails; afterwards the ticket has its end, once, and is in
 * one place, after an error without another start. STRIDE=n takes every n-th call only, ERRORS=1
 * puts errors in at each call as well: see `make check-drop-faults`. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/build.h"
#include "tests/support/check.h"
#include "tests/support/faults.h"
#include "tests/support/inject.h"
#include "tests/support/testbus.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define PATIENCE_MSEC 90000
#define STICKY_MSEC   300
#define ERROR_MSEC    20000 /* an error delays a ticket, no more */

static const char ticket[] = "[job]\nprompt = fox\nseed = 7\ncount = 2\nsteps = 1\n";

/* Shared by the watcher, and the operator that drops the ticket. */
struct shared {
    atomic_bool is_armed, is_killed, is_over;
};

struct trial {
    struct testbus *bus;
    struct shared *shared;
    pid_t daemon;
    unsigned at;                      /* 1…: the call on the drop folder */
    const char *only;                 /* calls of this name count; NULL: all */
    const struct faults_error *error; /* NULL: a kill */
    bool sticky;
    unsigned seen;
    bool hit;
    char name[24], drop[PATH_MAX], spool[PATH_MAX];
};

static void sleep_msec(unsigned msec)
{
    (void)nanosleep(&(struct timespec){msec / 1000, (long)(msec % 1000) * 1000000}, NULL);
}

static bool exists(const struct trial *t, const char *name)
{
    char path[2 * PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", t->drop, name);
    return access(path, F_OK) == 0;
}

/* Whether a name of the directory has this end; "" any. */
static bool has_name(const struct trial *t, const char *directory, const char *end)
{
    char path[2 * PATH_MAX];
    const struct dirent *entry;
    bool found = false;

    (void)snprintf(path, sizeof path, "%s/%s", t->drop, directory);
    _cleanup_(closedirp) DIR *dir = opendir(path);
    while (dir && !found && (entry = readdir(dir))) {
        size_t n = strlen(entry->d_name), k = strlen(end);
        found = entry->d_name[0] != '.' && n >= k && strcmp(entry->d_name + n - k, end) == 0;
    }
    return found;
}

static bool has_ended(const struct trial *t)
{
    return (has_name(t, "done", ".json") || has_name(t, "failed", ".error.txt")) &&
           !has_name(t, "working", "");
}

/* --- the watcher ------------------------------------------------------------------------------ */

/* Whether a thread is the daemon's own: its workers and helpers are watched, too. */
static bool is_daemon(const struct trial *t, pid_t thread)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/%d/task/%d", (int)t->daemon, (int)thread);
    return access(path, F_OK) == 0;
}

/* Whether the first argument is a descriptor on the drop folder; all calls there have one. */
static bool is_on_folder(const struct trial *t, const struct inject_call *call)
{
    char link[64], path[PATH_MAX];

    (void)snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)t->daemon, (int)call->args[0]);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strncmp(path, t->drop, strlen(t->drop)) == 0;
}

static int decide(const struct inject_call *call, void *userdata)
{
    struct trial *t = userdata;

    if (!t->shared->is_armed || t->shared->is_over || t->shared->is_killed ||
        !is_daemon(t, call->pid) || !is_on_folder(t, call) ||
        (t->only && strcmp(t->only, call->name) != 0))
        return INJECT_GO;
    t->seen++;
    if (t->at == 0 || t->seen < t->at || (t->hit && !t->sticky))
        return INJECT_GO;
    if (t->error && !(call->classes & t->error->classes))
        return INJECT_GO;
    if (!t->hit)
        (void)snprintf(t->name, sizeof t->name, "%s", call->name);
    t->hit = true;
    if (t->error)
        return -t->error->number;
    t->shared->is_killed = true;
    return INJECT_KILL;
}

static int become_daemon(int socket, void *userdata)
{
    const struct trial *t = userdata;
    char program[PATH_MAX], worker[PATH_MAX], log[PATH_MAX];

    build_path("diffused", program, sizeof program);
    build_path("tests/fake-worker", worker, sizeof worker);
    (void)snprintf(log, sizeof log, "%s/log", t->bus->folder);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || inject_arm(socket) < 0)
        return 126;
    (void)execl(program, program, "--devel", t->bus->folder, "--worker", worker, NULL);
    return 127;
}

/* --- the operator ----------------------------------------------------------------------------- */

static bool wait_for_name(const struct trial *t)
{
    sd_bus *bus = NULL;
    bool found = false;

    if (sd_bus_open_system(&bus) < 0)
        return false;
    for (unsigned waited = 0; !found && waited < PATIENCE_MSEC; waited += 2) {
        found = sd_bus_get_name_creds(bus, TESTBUS_NAME, 0, NULL) >= 0;
        sleep_msec(2);
    }
    (void)t;
    sd_bus_flush_close_unref(bus);
    return found;
}

static bool drop_ticket(const struct trial *t)
{
    char part[2 * PATH_MAX], name[2 * PATH_MAX];

    (void)snprintf(part, sizeof part, "%s/a.part", t->drop);
    (void)snprintf(name, sizeof name, "%s/a.ini", t->drop);
    _cleanup_(closep) int fd = open(part, O_WRONLY | O_CREAT | O_EXCL, 0644);
    return fd >= 0 && write(fd, ticket, strlen(ticket)) == (ssize_t)strlen(ticket) &&
           rename(part, name) == 0;
}

/* The folder is made and watched after the name is there. */
static void wait_for_folder(const struct trial *t)
{
    for (unsigned waited = 0; !exists(t, "failed") && waited < PATIENCE_MSEC; waited += 2)
        sleep_msec(2);
    sleep_msec(30);
}

/* The exit status: 0 when the ticket had its end, or the daemon was killed. */
static int operate(const struct trial *t)
{
    int status = wait_for_name(t) ? 0 : 1;

    wait_for_folder(t);
    t->shared->is_armed = true;
    if (status == 0 && !drop_ticket(t))
        status = 2;
    for (unsigned waited = 0; status == 0 && !t->shared->is_killed && !has_ended(t); waited += 5) {
        if (waited >= STICKY_MSEC && t->sticky)
            t->shared->is_over = true;
        if (waited >= (t->error ? ERROR_MSEC : PATIENCE_MSEC))
            status = 3;
        sleep_msec(5);
    }
    t->shared->is_over = true;
    (void)kill(t->daemon,
               SIGTERM); /* killed already: it is not waited for yet, the number is its */
    return status;
}

/* --- trials ----------------------------------------------------------------------------------- */

static const char *fault_name(const struct trial *t)
{
    return t->error ? t->error->name : "SIGKILL";
}

static void check(const struct trial *t, unsigned flags)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    int found = check_spool(&(struct check_options){.spool = t->spool,
                                                    .drop = t->drop,
                                                    .history = "DROPPED a.ini\n",
                                                    .flags = flags,
                                                    .uid = -1,
                                                    .out = out});
    (void)fclose(out);
    if (found != 0)
        fail_msg("call %u (%s), %s: %s", t->at, t->name, fault_name(t), text);
    free(text);
}

static void run(struct trial *t)
{
    struct inject inject;
    int status = 0, operator_status = 0;

    assert_int_equal(inject_fork(become_daemon, t, &inject), 0);
    t->daemon = inject.pid;
    pid_t operator= fork();
    assert_true(operator>= 0);
    if (operator== 0)
        _exit(operate(t));
    assert_int_equal(inject_watch(&inject, decide, t, &status), 0);
    assert_int_equal(waitpid(operator, & operator_status, 0), operator);
    if (operator_status != 0)
        fail_msg("call %u (%s), %s%s: the ticket has no end (%d)", t->at, t->name, fault_name(t),
                 t->sticky ? ", sticky" : "", operator_status);
    if (t->shared->is_killed)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    else
        assert_int_equal(status, 0);
}

/* Another start, undisturbed, until the ticket has its end. */
static void run_on(struct trial *t)
{
    unsigned waited = 0;

    testbus_start_daemon(t->bus, "ready");
    for (; !has_ended(t) && waited < PATIENCE_MSEC; waited += 10)
        sleep_msec(10);
    assert_int_equal(testbus_stop_daemon(t->bus, SIGTERM), 0);
    if (waited >= PATIENCE_MSEC)
        fail_msg("call %u (%s): the ticket has no end after the next start", t->at, t->name);
}

/* One trial in folders of its own; whether the fault was met. */
static bool try_trial(struct trial t)
{
    void *state = NULL;

    assert_int_equal(testbus_setup(&state), 0);
    t.bus = state;
    t.shared =
        mmap(NULL, sizeof *t.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(t.shared != MAP_FAILED);
    (void)snprintf(t.drop, sizeof t.drop, "%s/drop", t.bus->folder);
    (void)snprintf(t.spool, sizeof t.spool, "%s/spool", t.bus->folder);
    run(&t);
    if (t.shared->is_killed) {
        check(&t, CHECK_RUNNING);
        run_on(&t);
    }
    check(&t, CHECK_DRAINED | CHECK_IDLE);
    (void)munmap(t.shared, sizeof *t.shared);
    assert_int_equal(testbus_teardown(&state), 0);
    return t.hit;
}

static bool try_at(unsigned at, const struct faults_error *error, bool sticky)
{
    return try_trial((struct trial){.at = at, .error = error, .sticky = sticky});
}

static unsigned number_of(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void need_injection(void)
{
    const char *why;

    if (!inject_is_possible(&why)) {
        print_message("%s\n", why);
        skip();
    }
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1);
}

static void test_kill_everywhere(void **state)
{
    unsigned stride = number_of("STRIDE", 9), n = 1, trials = 1;

    (void)state;
    need_injection();
    for (; try_at(n, NULL, false); n += stride)
        trials++;
    print_message("%u trials, killed at calls 1 to %u\n", trials, n);
    assert_true(n > 30);
}

static void test_errors_everywhere(void **state)
{
    unsigned stride = number_of("STRIDE", 9), trials = 0;

    (void)state;
    need_injection();
    if (!number_of("ERRORS", 0)) {
        print_message("ERRORS=1 asks for it: make check-drop-faults\n");
        skip();
    }
    for (size_t i = 0; i < faults_error_count; i++)
        for (unsigned n = 1; try_at(n, &faults_errors[i], n & 1); n += stride)
            trials++;
    print_message("%u trials\n", trials);
}

/* What once left a ticket in working/, or in the intake, until the daemon was started again. */
static void test_errors_end_without_restart(void **state)
{
    static const struct faults_error error = {"EIO", EIO, ~0u};
    static const struct {
        const char *call;
        unsigned at;
        bool sticky;
    } rows[] = {
        {"renameat2", 2, true},   /* neither taken up nor put back */
        {"getdents64", 1, false}, /* its inputs cannot be listed: here, when it is read, … */
        {"getdents64", 3, false}, {"getdents64", 5, false}, /* … and when it is published */
        {"newfstatat", 1, false},                           /* not seen when it came */
        {"newfstatat", 1, true},
    };

    (void)state;
    need_injection();
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_true(try_trial((struct trial){
            .only = rows[i].call, .at = rows[i].at, .error = &error, .sticky = rows[i].sticky}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_everywhere),
        cmocka_unit_test(test_errors_everywhere),
        cmocka_unit_test(test_errors_end_without_restart),
    };

    return cmocka_run_group_tests_name("drop-faults", tests, NULL, NULL);
}
