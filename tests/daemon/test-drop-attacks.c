/* drop: what hostile or careless users may put into the folder. No foreign byte becomes a prompt,
 * everything stays in exactly one place, and the event loop goes on answering.
 *
 *     ROUNDS=n   rounds of each race (3000)
 *     FULL=1     100,000 files instead of 4,000 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/dropbox.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define OTHER_UID   65534u
#define SECRET      "the secret of another user"
#define MINE        "mine"
#define CPU_MAX     50000u   /* usec of work in one turn of the event loop … */
#define LATENCY_MAX 2000000u /* … and of time, on a machine that is busy with other tests */

static const char *path_of(const struct dropbox *box, const char *name, char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "%s/%s", box->path, name);
    return path;
}

/* No job has a prompt that its owner had no right to. */
static void assert_no_secret(const struct dropbox *box)
{
    for (size_t i = 0; i < box->jobs.count; i++) {
        const char *prompt = box->jobs.items[i].job->request.prompt;
        if (prompt && strstr(prompt, "secret"))
            fail_msg("job %zu has read \"%s\"", i, prompt);
    }
}

static void assert_quick(const struct dropbox *box)
{
    assert_true(box->slowest_cpu_usec < CPU_MAX);
    assert_true(box->slowest_usec < LATENCY_MAX);
}

static unsigned rounds(void)
{
    const char *text = getenv("ROUNDS");

    return text ? (unsigned)strtoul(text, NULL, 10) : 3000;
}

/* A file outside of the folder that only root reads. */
static void make_secret(struct dropbox *box, char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "%s/secret", box->root);
    assert_int_equal(file_write_atomic(path, SECRET, strlen(SECRET), NULL), 0);
    assert_int_equal(chmod(path, 0600), 0);
}

static void skip_without_root(void)
{
    if (getuid() == 0)
        return;
    print_message("needs root: acts as other users\n");
    skip();
}

/* --- what is no file -------------------------------------------------------------------------- */

static void make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
}

static void test_types(void **state)
{
    static const struct {
        const char *name, *says;
    } rows[] = {
        {"link.txt", "a symbolic link"},    {"loop.txt", "a symbolic link"},
        {"pipe.txt", "a named pipe"},       {"folder.txt", "a directory"},
        {"zero.txt", "a character device"}, {"sock.txt", "a socket"},
        {"disk.ini", "a block device"},     {"dangling.ini", "a symbolic link"},
        {"folder", "a directory"},          {"proc.txt", "a symbolic link"},
    };
    struct dropbox *box = *state;
    char secret[PATH_MAX], path[PATH_MAX], name[64];

    skip_without_root(); /* mknod */
    dropbox_start(box);
    make_secret(box, secret);
    assert_int_equal(symlink(secret, path_of(box, "link.txt", path)), 0);
    assert_int_equal(symlink("loop.txt", path_of(box, "loop.txt", path)), 0);
    assert_int_equal(symlink("nowhere", path_of(box, "dangling.ini", path)), 0);
    assert_int_equal(symlink("/proc/self/environ", path_of(box, "proc.txt", path)), 0);
    assert_int_equal(mkfifo(path_of(box, "pipe.txt", path), 0666), 0);
    assert_int_equal(mkdir(path_of(box, "folder.txt", path), 0777), 0);
    dropbox_write(box, "folder.txt/inner.txt", "inner");
    assert_int_equal(mkdir(path_of(box, "folder", path), 0777), 0);
    assert_int_equal(mknod(path_of(box, "zero.txt", path), S_IFCHR | 0666, makedev(1, 5)), 0);
    assert_int_equal(mknod(path_of(box, "disk.ini", path), S_IFBLK | 0666, makedev(7, 200)), 0);
    make_socket(path_of(box, "sock.txt", path));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        bool twice = strncmp(rows[i].name, "folder", 6) == 0; /* one NAME: one gets a number */
        (void)snprintf(name, sizeof name, "failed/%s", rows[i].name);
        dropbox_until(box, twice || dropbox_has(box, name));
        dropbox_until(box, !dropbox_has(box, rows[i].name));
    }
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const char *base = rows[i].name;
        if (strncmp(base, "folder", 6) == 0)
            continue;
        (void)snprintf(name, sizeof name, "failed/%.*s.error.txt", (int)strcspn(base, "."), base);
        dropbox_assert_says(box, name, rows[i].says);
    }
    dropbox_until(box, dropbox_count(box, "working") == 0);
    assert_true(dropbox_has(box, "failed/folder.txt/inner.txt") ||
                dropbox_has(box, "failed/folder~1.txt/inner.txt"));
    dropbox_assert_says(box, "failed/folder~1.error.txt", "a directory");
    assert_int_equal(box->submissions, 0);
}

static void test_hard_link(void **state)
{
    struct dropbox *box = *state;
    char secret[PATH_MAX], path[PATH_MAX];

    dropbox_start(box);
    make_secret(box, secret);
    assert_int_equal(link(secret, path_of(box, "hard.txt", path)), 0);
    dropbox_until(box, dropbox_has(box, "failed/hard.txt"));
    dropbox_assert_says(box, "failed/hard.error.txt", "hard link");
    assert_int_equal(box->submissions, 0);
    /* as mail programs deliver: linked, then the first name removed */
    dropbox_write(box, ".new", MINE);
    char new[PATH_MAX];
    assert_int_equal(link(path_of(box, ".new", new), path_of(box, "mail.txt", path)), 0);
    assert_int_equal(unlink(new), 0);
    assert_int_equal(close(open(path, O_RDONLY | O_CLOEXEC)), 0); /* and somebody has a look */
    dropbox_until(box, box->jobs.count == 1);
}

static void test_sparse(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    dropbox_start(box);
    int fd = open(path_of(box, "huge.txt", path), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    if (ftruncate(fd, INT64_C(1) << 40) < 0)
        assert_int_equal(ftruncate(fd, INT64_C(1) << 36), 0);
    assert_int_equal(close(fd), 0);
    dropbox_until(box, dropbox_has(box, "failed/huge.txt"));
    dropbox_assert_says(box, "failed/huge.error.txt", "bytes; a ticket has at most 65536");
    assert_int_equal(box->submissions, 0);
    assert_quick(box);
}

static void expect_failed(struct dropbox *box, const char *base, const char *says)
{
    char name[64];

    dropbox_put(box, "with.txt", "a fox");
    dropbox_open(box);
    (void)snprintf(name, sizeof name, "failed/%s.txt", base);
    dropbox_until(box, dropbox_has(box, name) && dropbox_count(box, "working") == 0);
    (void)snprintf(name, sizeof name, "failed/%s.error.txt", base);
    dropbox_assert_says(box, name, says);
    dropbox_close(box);
}

/* What lies beside a ticket is held to the same as the ticket. (What is no regular file is gone to
 * failed/ before a ticket can take it along: see test_types.) */
static void test_pictures(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX], other[PATH_MAX];

    dropbox_start(box);
    dropbox_close(box); /* so that both are there when it looks */
    (void)snprintf(other, sizeof other, "%s/other", box->root);
    assert_int_equal(file_write_atomic(other, "picture", 7, NULL), 0);
    assert_int_equal(link(other, path_of(box, "with.mask.png", path)), 0);
    dropbox_put(box, "with.png", "picture");
    expect_failed(box, "with", "with.mask.png: has other names (hard links)");
    int fd = open(path_of(box, "with.jpg", path), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, INT64_C(1) << 36), 0);
    assert_int_equal(close(fd), 0);
    expect_failed(box, "with~1", "bytes; a picture has at most 33554432");
    assert_int_equal(box->submissions, 0);
    assert_quick(box);
}

/* As another user: the daemon's folder, another's files. */
static pid_t fork_as(uid_t uid)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    if (setgid(uid) < 0 || setuid(uid) < 0)
        _exit(9);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    return 0;
}

static void end_other(pid_t pid)
{
    int status = 0;

    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

/* The daemon without root's rights: as it runs when installed. */
static void become_other(struct dropbox *box)
{
    char path[PATH_MAX];

    assert_int_equal(chown(box->path, OTHER_UID, OTHER_UID), 0);
    for (const char *const *n = (const char *const[]){"working", "done", "failed", NULL}; *n; n++)
        assert_int_equal(chown(path_of(box, *n, path), OTHER_UID, OTHER_UID), 0);
    assert_int_equal(seteuid(OTHER_UID), 0);
}

static int teardown_as_root(void **state)
{
    return seteuid(getuid()) < 0 ? -1 : dropbox_teardown(state);
}

static void test_unreadable(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    skip_without_root();
    dropbox_start(box);
    dropbox_close(box);
    dropbox_put(box, "shy.txt", "cannot be read");
    assert_int_equal(chmod(path_of(box, "shy.txt", path), 0600), 0);
    become_other(box);
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "failed/shy.txt"));
    dropbox_assert_says(box, "failed/shy.error.txt", "may not read it: mode 0600");
    assert_int_equal(box->submissions, 0);
}

/* A directory that only its owner may move: said once, left, and nothing else is held up. */
static void test_immovable(void **state)
{
    struct dropbox *box = *state;
    char path[PATH_MAX];

    skip_without_root();
    box->options.rescan_usec = 50000;
    dropbox_start(box);
    dropbox_close(box);
    assert_int_equal(mkdir(path_of(box, "rock", path), 0755), 0);
    dropbox_put(box, "fox.txt", "a fox");
    become_other(box);
    dropbox_open(box);
    dropbox_until(box, box->jobs.count == 1 || dropbox_count(box, "failed") > 0);
    dropbox_run(box, 300);
    assert_true(dropbox_has(box, "rock"));
    assert_int_equal(dropbox_count(box, "working"), 1); /* the fox */
    assert_int_equal(dropbox_count(box, "failed"), 0);
}

/* --- names ------------------------------------------------------------------------------------ */

static void test_odd_names(void **state)
{
    static const char *const names[] = {
        "new\nline.txt",
        "esc\x1b[2Jape.txt",
        "\xff\xfe\x80.txt",
        "quote\"'`$(id).txt",
        "-rf.txt",
        "a b\t.txt",
        "%s%n%d.txt",
        "\xe2\x80\xaetxt.exe.txt",
        "back\\slash.txt",
        "~.txt",
        "done~1.txt",
        "..txt.txt",
        "\xf0\x9f\xa6\x8a.txt",
    };
    struct dropbox *box = *state;
    char name[320];

    box->ends_at_once = true;
    dropbox_start(box);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (names[i][0] != '.')
            dropbox_put(box, names[i], "an odd name");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (names[i][0] == '.')
            continue;
        (void)snprintf(name, sizeof name, "done/%.*s.d/%s", (int)strlen(names[i]) - 4, names[i],
                       names[i]);
        dropbox_until(box, dropbox_has(box, name));
        (void)snprintf(name, sizeof name, "done/%.*s.json", (int)strlen(names[i]) - 4, names[i]);
        _cleanup_(freep) char *text = dropbox_read(box, name);
        for (const char *p = text; *p; p++)
            assert_true((unsigned char)*p >= ' ' || *p == '\n');
    }
}

static void test_long_names(void **state)
{
    struct dropbox *box = *state;
    char name[256], done[800];

    box->ends_at_once = true;
    dropbox_start(box);
    memset(name, 'n', 255);
    (void)snprintf(name + 251, 5, ".txt");
    for (unsigned i = 0; i < 3; i++) {
        dropbox_put(box, name, "a long name");
        dropbox_until(box, box->jobs.count == i + 1 && dropbox_count(box, "working") == 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(done, sizeof done, "done/%.239s%s.d/%s", name,
                       i == 0   ? ""
                       : i == 1 ? "~1"
                                : "~2",
                       name);
        assert_true(dropbox_has(box, done));
    }
    memcpy(name + 251, ".ini", 4);
    dropbox_put(box, name, "rubbish");
    (void)snprintf(done, sizeof done, "failed/%.239s.ini", name);
    dropbox_until(box, dropbox_has(box, done));
    (void)snprintf(done, sizeof done, "failed/%.239s.error.txt", name);
    assert_true(dropbox_has(box, done));
}

/* --- races ------------------------------------------------------------------------------------ */

struct race {
    const char *folder, *secret;
    unsigned number; /* of the racer */
};

static void write_mine(const char *path)
{
    _cleanup_(closep) int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

    if (fd >= 0)
        (void)!write(fd, MINE, strlen(MINE));
}

/* A ticket that is a file in one moment and leads to the secret in the next; under one name that
 * goes on being used, whatever the daemon has taken meanwhile. */
static void swap_link(const struct race *race, unsigned round)
{
    char ticket[PATH_MAX], link[PATH_MAX], file[PATH_MAX];

    (void)snprintf(ticket, sizeof ticket, "%s/race%u.txt", race->folder, race->number);
    (void)snprintf(link, sizeof link, "%s/.link%u", race->folder, race->number);
    (void)snprintf(file, sizeof file, "%s/.file%u", race->folder, race->number);
    write_mine(file);
    (void)!symlink(race->secret, link);
    (void)rename(file, ticket);
    if (round % 3 != 2)
        (void)renameat2(AT_FDCWD, link, AT_FDCWD, ticket, round % 3 ? RENAME_EXCHANGE : 0);
    (void)unlink(link);
}

/* The same with the secret's own inode, where the kernel lets others link it; and a pipe that would
 * block whoever opens it. */
static void swap_hard(const struct race *race, unsigned round)
{
    char ticket[PATH_MAX], other[PATH_MAX], file[PATH_MAX];

    (void)snprintf(ticket, sizeof ticket, "%s/hard%u.txt", race->folder, race->number);
    (void)snprintf(other, sizeof other, "%s/.other%u", race->folder, race->number);
    (void)snprintf(file, sizeof file, "%s/.plain%u", race->folder, race->number);
    write_mine(file);
    if (round % 2 == 0 || link(race->secret, other) < 0)
        (void)mkfifo(other, 0666);
    (void)rename(file, ticket);
    (void)renameat2(AT_FDCWD, other, AT_FDCWD, ticket, RENAME_EXCHANGE);
    (void)unlink(other);
}

/* Keeps the file open that the daemon has taken, and writes on. */
static void write_on(const struct race *race, unsigned round)
{
    char ticket[PATH_MAX];

    (void)snprintf(ticket, sizeof ticket, "%s/open%u-%u.txt", race->folder, race->number,
                   round % 7);
    _cleanup_(closep) int fd = open(ticket, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    for (unsigned i = 0; fd >= 0 && i < 4; i++) {
        (void)!write(fd, MINE, strlen(MINE));
        write_mine(ticket);
    }
}

static pid_t start_racer(const struct race *race, uid_t uid,
                         void (*round)(const struct race *, unsigned))
{
    pid_t pid = fork_as(uid);

    if (pid != 0)
        return pid;
    for (unsigned i = 0; i < rounds(); i++)
        round(race, i);
    _exit(0);
}

/* Runs the loop until all racers are through. */
static void run_race(struct dropbox *box, pid_t *racers, size_t count)
{
    size_t running = count;
    uint64_t begin = dropbox_now();
    int status;

    while (running > 0) {
        dropbox_turn(box);
        for (size_t i = 0; i < count; i++) {
            if (racers[i] <= 0 || waitpid(racers[i], &status, WNOHANG) != racers[i])
                continue;
            assert_int_equal(status, 0);
            racers[i] = 0;
            running--;
        }
    }
    print_message("%zu racers x %u rounds in %.1f s: %u submissions, %zu jobs\n", count, rounds(),
                  (double)(dropbox_now() - begin) / 1e6, box->submissions, box->jobs.count);
}

/* Everything there is has come to rest in done/ or failed/. */
static bool is_at_rest(struct dropbox *box)
{
    return dropbox_count(box, "") == dropbox_count(box, "done") + dropbox_count(box, "failed");
}

static void race(struct dropbox *box, uid_t uid, void (*round)(const struct race *, unsigned))
{
    char secret[PATH_MAX];
    struct race races[2];
    pid_t racers[2];

    skip_without_root();
    box->ends_at_once = true;
    dropbox_start(box);
    make_secret(box, secret);
    assert_int_equal(chmod(box->path, 03777), 0);
    for (unsigned i = 0; i < 2; i++) {
        races[i] = (struct race){box->path, secret, i};
        racers[i] = start_racer(&races[i], uid, round);
    }
    run_race(box, racers, 2);
    dropbox_until(box, is_at_rest(box));
    assert_no_secret(box);
    assert_true(box->jobs.count > 0); /* some were taken up in the middle of it */
    if (round != swap_hard)           /* there its very inode lies in failed/, unread */
        assert_int_equal(dropbox_count_text(box, SECRET), 0);
    _cleanup_(freep) char *still = NULL;
    size_t size = 0;
    assert_int_equal(file_read(secret, 1000, &still, &size, NULL), 0);
    assert_string_equal(still, SECRET); /* nor was it written to */
    for (size_t i = 0; i < box->jobs.count; i++)
        assert_int_equal(box->jobs.items[i].job->owner, uid);
}

static void test_race_links(void **state)
{
    race(*state, OTHER_UID, swap_link);
}

static void test_race_inodes(void **state)
{
    race(*state, 0, swap_hard); /* root: the kernel may keep others from linking */
    ;
}

static void test_race_writers(void **state)
{
    race(*state, OTHER_UID, write_on);
}

/* --- many ------------------------------------------------------------------------------------- */

static unsigned many(void)
{
    return getenv("FULL") ? 100000 : 4000;
}

static void make_many(struct dropbox *box, unsigned count)
{
    char name[64];

    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "file%06u.txt", i);
        dropbox_write(box, name, name);
    }
}

static void assert_all_done(struct dropbox *box, unsigned count)
{
    unsigned char *seen = calloc(1, count);

    for (size_t i = 0; i < box->jobs.count; i++) {
        unsigned number = 0;
        assert_int_equal(sscanf(box->jobs.items[i].job->request.prompt, "file%u", &number), 1);
        assert_true(number < count && !seen[number]);
        seen[number] = 1;
    }
    free(seen);
    assert_int_equal(box->jobs.count, count);
    assert_int_equal(box->submissions, count);
    assert_int_equal(dropbox_count(box, "done"), 3 * count);
    assert_int_equal(dropbox_count(box, ""), 3 * count);
}

/* Fast jobs, a slow disk would only measure itself: the folder is in memory. */
static int setup_in_memory(void **state)
{
    const char *before = getenv("TMPDIR");
    char *keep = before ? strdup(before) : NULL;

    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1);
    int r = dropbox_setup(state);
    if (keep)
        (void)setenv("TMPDIR", keep, 1);
    else
        (void)unsetenv("TMPDIR");
    free(keep);
    return r;
}

static void report(const struct dropbox *box, unsigned count, uint64_t begin)
{
    print_message("%u files in %.1f s; the event loop's longest turn: %.1f ms, %.1f of them work\n",
                  count, (double)(dropbox_now() - begin) / 1e6, (double)box->slowest_usec / 1e3,
                  (double)box->slowest_cpu_usec / 1e3);
}

/* Dropped while the daemon runs: more events than the kernel keeps. */
static void test_many_events(void **state)
{
    struct dropbox *box = *state;
    unsigned count = many();
    uint64_t begin = dropbox_now();

    box->ends_at_once = true;
    dropbox_start(box);
    pid_t pid = fork();
    if (pid == 0) {
        make_many(box, count);
        _exit(0);
    }
    while (box->jobs.count < count || dropbox_count(box, "working") > 0) {
        for (unsigned i = 0; i < 200; i++)
            dropbox_turn(box);
        assert_true(dropbox_now() - begin < 600 * UINT64_C(1000000));
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    report(box, count, begin);
    assert_all_done(box, count);
    assert_quick(box);
}

/* There at the start, and a queue that takes a few at a time. */
static void test_many_at_start(void **state)
{
    struct dropbox *box = *state;
    unsigned count = many() / 4;
    uint64_t begin;

    box->ends_at_once = false;
    box->room = 10;
    dropbox_start(box);
    dropbox_close(box);
    make_many(box, count);
    begin = dropbox_now();
    dropbox_open(box);
    dropbox_until(box, box->jobs.count == 10);
    dropbox_run(box, 500);
    assert_int_equal(box->jobs.count, 10); /* the rest waits where it was dropped */
    assert_true(dropbox_count(box, "working") < 10 + 32);
    for (size_t ended = 0; ended < count;) {
        dropbox_turn(box);
        for (; ended < box->jobs.count; ended++) {
            box->room++;
            dropbox_finish(box, box->jobs.items[ended].job, JOB_STATE_DONE, 1);
            drop_on_queue_changed(box->drop);
        }
        assert_true(dropbox_now() - begin < 600 * UINT64_C(1000000));
    }
    while (dropbox_count(box, "working") > 0 || dropbox_count(box, "done") < 3 * count) {
        dropbox_run(box, 100);
        assert_true(dropbox_now() - begin < 600 * UINT64_C(1000000));
    }
    report(box, count, begin);
    assert_int_equal(box->jobs.count, count);
    assert_int_equal(dropbox_count(box, "done"), 3 * count);
    assert_int_equal(dropbox_count(box, ""), 3 * count);
    assert_quick(box);
}

static void drop_rubbish(struct dropbox *box)
{
    char path[PATH_MAX], name[64];

    for (unsigned i = 0; i <= 3000; i++) {
        (void)snprintf(name, sizeof name, "rubbish%u.txt", i);
        (void)!symlink("nowhere", path_of(box, name, path));
        (void)snprintf(name, sizeof name, "picture%u.png", i);
        write_mine(path_of(box, name, path));
    }
    _exit(0);
}

/* Rubbish by the thousand, from one user; another's ticket is not kept waiting by it. */
static void test_many_rubbish(void **state)
{
    struct dropbox *box = *state;

    skip_without_root();
    dropbox_start(box);
    assert_int_equal(chmod(box->path, 03777), 0);
    pid_t pid = fork_as(OTHER_UID);
    if (pid == 0)
        drop_rubbish(box);
    dropbox_run(box, 300);
    uint64_t begin = dropbox_now();
    dropbox_put(box, "fox.txt", "a fox");
    dropbox_until(box, box->jobs.count == 1);
    assert_true(dropbox_now() - begin < 5 * UINT64_C(1000000));
    end_other(pid);
    assert_quick(box);
}

int main(void)
{
#define IN_BOX(test)    cmocka_unit_test_setup_teardown(test, dropbox_setup, dropbox_teardown)
#define AS_OTHER(test)  cmocka_unit_test_setup_teardown(test, dropbox_setup, teardown_as_root)
#define IN_MEMORY(test) cmocka_unit_test_setup_teardown(test, setup_in_memory, dropbox_teardown)
    const struct CMUnitTest tests[] = {
        IN_BOX(test_types),
        IN_BOX(test_hard_link),
        IN_BOX(test_sparse),
        IN_BOX(test_pictures),
        AS_OTHER(test_unreadable),
        AS_OTHER(test_immovable),
        IN_BOX(test_odd_names),
        IN_BOX(test_long_names),
        IN_MEMORY(test_race_links),
        IN_MEMORY(test_race_inodes),
        IN_MEMORY(test_race_writers),
        IN_MEMORY(test_many_events),
        IN_MEMORY(test_many_at_start),
        IN_MEMORY(test_many_rubbish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
