/* A disk that fills up, and one that turns read-only, under a daemon at work: what runs ends, what
 * is asked for is refused in words, results are served, and all goes on when the disk is well. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/check.h"
#include "tests/support/testbus.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define MEGABYTE (1u << 20)

/* What stands for the disk; the spool is a directory in it. */
struct disk {
    struct testbus *bus;
    char mount[512], spool[600], filler[600];
};

static bool make_ext4(const char *mount, const char *image)
{
    char command[4096];

    (void)snprintf(command, sizeof command,
                   "truncate -s 8M '%s' && mkfs.ext4 -q -F -m 0 '%s' && mount -o loop '%s' '%s'",
                   image, image, image, mount);
    return system(command) == 0;
}

/* False, and why is said, when this machine does not let us. */
static bool set_up(struct disk *d, struct testbus *bus, const char *type)
{
    char path[600], image[600];

    d->bus = bus;
    (void)snprintf(d->mount, sizeof d->mount, "%s/disk", bus->folder);
    (void)snprintf(d->spool, sizeof d->spool, "%s/spool", d->mount);
    (void)snprintf(d->filler, sizeof d->filler, "%s/filler", d->mount);
    (void)snprintf(path, sizeof path, "%s/spool", bus->folder);
    (void)snprintf(image, sizeof image, "%s/image", bus->folder);
    assert_int_equal(mkdir(d->mount, 0755), 0);
    bool mounted = strcmp(type, "tmpfs") == 0 ? mount("none", d->mount, "tmpfs", 0, "size=8m") == 0
                                              : geteuid() == 0 && make_ext4(d->mount, image);
    if (!mounted) {
        print_message("cannot mount %s here: %s\n", type, strerror(errno));
        return false;
    }
    assert_int_equal(mkdir(d->spool, 0700), 0);
    assert_int_equal(symlink(d->spool, path), 0);
    testbus_configure(bus, "[spool]\nkeep_free_megabytes = 2\n");
    (void)setenv("DIFFUSED_FAKE_STEP_MSEC", "20", 1);
    testbus_start_daemon(bus, "ready");
    return true;
}

static void check(const struct disk *d, const char *history, unsigned flags)
{
    assert_int_equal(
        check_spool(&(struct check_options){
            .spool = d->spool, .history = history, .flags = flags, .uid = -1, .out = stdout}),
        0);
}

static void tear_down(struct disk *d)
{
    assert_int_equal(testbus_stop_daemon(d->bus, SIGTERM), 0);
    check(d, NULL, CHECK_DRAINED | CHECK_IDLE);
    assert_int_equal(umount(d->mount), 0);
}

/* Leaves `left` bytes free. */
static void fill(const struct disk *d, uint64_t left)
{
    _cleanup_(closep) int fd = open(d->filler, O_WRONLY | O_CREAT | O_APPEND, 0600);
    static const char block[4096];
    struct statvfs vfs;

    assert_true(fd >= 0);
    while (statvfs(d->mount, &vfs) == 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize > left)
        if (write(fd, block, sizeof block) < 0)
            break;
    (void)fsync(fd);
}

static void expect_refused(const struct disk *d, const char *word)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char want[128];

    int r = sd_bus_call_method(d->bus->client, TESTBUS_NAME, TESTBUS_PATH, TESTBUS_MANAGER,
                               "Submit", &error, NULL, "sa{sv}", "x", 0);
    assert_true(r < 0);
    (void)snprintf(want, sizeof want, TESTBUS_ERROR "%s", word);
    assert_string_equal(error.name, want);
    assert_true(strlen(error.message) > 10);
    sd_bus_error_free(&error);
}

/* Waits until the property says so; the reason must contain the text. */
static void wait_degraded(const struct disk *d, bool degraded, const char *part)
{
    int now = !degraded;

    for (unsigned waited = 0; now != degraded && waited < TESTBUS_PATIENCE; waited += 20) {
        testbus_process(d->bus->client, 20);
        testbus_get_number(d->bus->client, TESTBUS_PATH, "Degraded", 'b', &now);
    }
    assert_int_equal(now, degraded);
    char *reason =
        testbus_get_text(d->bus->client, TESTBUS_PATH, TESTBUS_MANAGER, "DegradedReason");
    if (!strstr(reason, part))
        fail_msg("\"%s\" does not say \"%s\"", reason, part);
    free(reason);
}

static void expect_result(const struct disk *d, const char *job)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    int r = sd_bus_call_method(d->bus->client, TESTBUS_NAME, job, TESTBUS_JOB, "GetResult", &error,
                               NULL, "ua{sv}", 0, 0);
    if (r < 0)
        fail_msg("GetResult: %s: %s", error.name, error.message);
}

static void run_full(void **state, const char *type)
{
    struct disk d;
    char running[TESTBUS_PATH_SIZE], waiting[TESTBUS_PATH_SIZE], last[TESTBUS_PATH_SIZE];

    if (!set_up(&d, *state, type))
        skip();
    sd_bus *client = d.bus->client;
    testbus_submit(client, "one", running, "a{sv}", 1, "steps", "u", 40);
    testbus_submit(client, "two", waiting, "");
    testbus_wait_state(client, running, "running");
    fill(&d, MEGABYTE); /* below keep-free: nothing new, what runs ends and is kept */
    expect_refused(&d, "SpoolFull");
    testbus_wait_state(client, running, "done");
    testbus_wait_state(client, waiting, "done");
    testbus_process(client, 1500); /* retention has had its turn: it leaves them their time */
    expect_result(&d, running);
    expect_result(&d, waiting);
    check(&d, "STATE 1 done\nSTATE 2 done\n", CHECK_RUNNING);

    assert_int_equal(unlink(d.filler), 0);
    testbus_submit(client, "three", running, "a{sv}", 1, "steps", "u", 40);
    testbus_submit(client, "four", waiting, "");
    testbus_wait_state(client, running, "running");
    fill(&d, 0); /* nothing at all: it ends in memory, the next one waits */
    testbus_wait_state(client, running, "done");
    wait_degraded(&d, true, "No space left");
    expect_result(&d, running);
    expect_refused(&d, "SpoolFull"); /* a few blocks may have become free: the next job's luck */

    assert_int_equal(unlink(d.filler), 0);
    testbus_wait_state(client, waiting, "done");
    wait_degraded(&d, false, "");
    testbus_submit(client, "five", last, "");
    testbus_wait_state(client, last, "done");
    expect_result(&d, running);
    tear_down(&d);
}

static void test_full_tmpfs(void **state)
{
    run_full(state, "tmpfs");
}

static void test_full_ext4(void **state)
{
    run_full(state, "ext4");
}

static void run_read_only(void **state, const char *type)
{
    struct disk d;
    char running[TESTBUS_PATH_SIZE], waiting[TESTBUS_PATH_SIZE];

    if (!set_up(&d, *state, type))
        skip();
    sd_bus *client = d.bus->client;
    testbus_submit(client, "one", running, "a{sv}", 1, "steps", "u", 40);
    testbus_submit(client, "two", waiting, "");
    testbus_wait_state(client, running, "running");
    assert_int_equal(mount("none", d.mount, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    testbus_wait_state(client, running, "done");
    wait_degraded(&d, true, "Read-only file system");
    expect_result(&d, running); /* from memory: the disk never had it */
    testbus_wait_state(client, waiting, "queued");
    expect_refused(&d, "SpoolFull");

    assert_int_equal(mount("none", d.mount, NULL, MS_REMOUNT, NULL), 0);
    testbus_wait_state(client, waiting, "done");
    wait_degraded(&d, false, "");
    expect_result(&d, running);
    tear_down(&d);
}

static void test_read_only_tmpfs(void **state)
{
    run_read_only(state, "tmpfs");
}

static void test_read_only_ext4(void **state)
{
    run_read_only(state, "ext4");
}

/* A daemon killed while only its memory has the result: the job is drawn again, not lost. */
static void test_killed_while_read_only(void **state)
{
    struct disk d;
    char job[TESTBUS_PATH_SIZE];

    if (!set_up(&d, *state, "tmpfs"))
        skip();
    testbus_submit(d.bus->client, "one", job, "a{sv}", 1, "steps", "u", 20);
    testbus_wait_state(d.bus->client, job, "running");
    assert_int_equal(mount("none", d.mount, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    testbus_wait_state(d.bus->client, job, "done");
    (void)testbus_stop_daemon(d.bus, SIGKILL);
    assert_int_equal(mount("none", d.mount, NULL, MS_REMOUNT, NULL), 0);
    testbus_start_daemon(d.bus, "ready");
    testbus_wait_state(d.bus->client, job, "done");
    expect_result(&d, job);
    tear_down(&d);
}

/* A failed test leaves its mount; it must not stay. */
static int teardown(void **state)
{
    char path[512];
    struct testbus *bus = *state;

    (void)snprintf(path, sizeof path, "%s/disk", bus->folder);
    (void)umount2(path, MNT_DETACH); /* nothing there: fine */
    return testbus_teardown(state);
}

#define DISK_TEST(function) cmocka_unit_test_setup_teardown(function, testbus_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DISK_TEST(test_full_tmpfs),
        DISK_TEST(test_full_ext4),
        DISK_TEST(test_read_only_tmpfs),
        DISK_TEST(test_read_only_ext4),
        DISK_TEST(test_killed_while_read_only),
    };

    return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
