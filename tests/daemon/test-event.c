/* event: the table, the plain line, and what a journal receives: a socket of our own in the
 * journal's place, in a mount namespace (needs root). */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/event.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define CATALOG "etc/diffused.catalog"

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < EVENT_KIND_COUNT; i++) {
        const struct event_row *row = &event_rows[i];
        assert_int_equal(strlen(row->message_id), 32);
        assert_int_equal(strspn(row->message_id, "0123456789abcdef"), 32);
        assert_true(strlen(row->what) > 10);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(row->message_id, event_rows[j].message_id);
    }
}

/* Standard error becomes a memfd while `emit` runs; what it wrote is in `text`. */
static void capture(void (*emit)(void), bool is_journal, char *text, size_t size)
{
    _cleanup_(closep) int fd = memfd_create("stderr", 0);
    _cleanup_(closep) int keep = dup(STDERR_FILENO);
    char stream[64];
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    (void)snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    assert_int_equal(is_journal ? setenv("JOURNAL_STREAM", stream, 1) : unsetenv("JOURNAL_STREAM"),
                     0);
    (void)dup2(fd, STDERR_FILENO);
    emit();
    (void)dup2(keep, STDERR_FILENO);
    (void)unsetenv("JOURNAL_STREAM");
    ssize_t n = pread(fd, text, size - 1, 0);
    text[n > 0 ? n : 0] = '\0';
}

static void emit_queued(void)
{
    event_log(EVENT_JOB_QUEUED, event_of_step(7, 1000, 3), "job %d: queued\n\033[2Jforged", 7);
}

static void emit_plain_hot(void)
{
    event_log(EVENT_BOARD_HOT, EVENT_OF_NONE, "hot");
}

static void emit_below_level(void)
{
    log_set_max_level(LOG_LEVEL_ERROR);
    event_log(EVENT_BOARD_HOT, EVENT_OF_NONE, "hot");
    event_log(EVENT_SPOOL_DEGRADED, EVENT_OF_NONE, "read-only");
    log_set_max_level(LOG_LEVEL_INFO);
}

static void test_plain_line(void **state)
{
    char text[2048];

    (void)state;
    capture(emit_queued, false, text, sizeof text);
    assert_string_equal(text, "<6>job 7: queued??[2Jforged\n");
    capture(emit_below_level, false, text, sizeof text);
    assert_string_equal(text, "<3>read-only\n");
}

/* --- a journal of our own --------------------------------------------------------------------- */

static int bind_journal(void)
{
    static const struct sockaddr_un address = {AF_UNIX, "/run/systemd/journal/socket"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0 ||
        file_make_directories("/run/systemd/journal") < 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return -1;
    return fd;
}

static void receive(int journal, char *text, size_t size)
{
    ssize_t n = recv(journal, text, size - 1, 0);

    text[n > 0 ? n : 0] = '\0';
}

/* In the child; its exit status says which check failed. */
static int check_journal(void)
{
    char text[4096], line[64], plain[256];
    int journal = bind_journal();

    if (journal < 0)
        return 77;
    capture(emit_queued, true, plain, sizeof plain);
    receive(journal, text, sizeof text);
    (void)snprintf(line, sizeof line, "MESSAGE_ID=%s\n", event_rows[EVENT_JOB_QUEUED].message_id);
    if (*plain || !strstr(text, line))
        return 1;
    if (!strstr(text, "PRIORITY=6\n") || !strstr(text, "DIFFUSED_EVENT=JOB_QUEUED\n"))
        return 2;
    if (!strstr(text, "DIFFUSED_JOB_ID=7\n") || !strstr(text, "DIFFUSED_UID=1000\n") ||
        !strstr(text, "DIFFUSED_STEP=3\n"))
        return 3;
    if (!strstr(text, "\nMESSAGE=job 7: queued??[2Jforged\n"))
        return 4;
    capture(emit_plain_hot, true, plain, sizeof plain);
    receive(journal, text, sizeof text);
    if (*plain || strstr(text, "DIFFUSED_JOB_ID") || strstr(text, "DIFFUSED_UID"))
        return 5;
    capture(emit_plain_hot, false, plain, sizeof plain); /* standard error is no journal */
    receive(journal, text, sizeof text);
    return *text || strcmp(plain, "<4>hot\n") != 0 ? 6 : 0;
}

static void test_journal(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(check_journal());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no mount namespace: not root?\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- the catalog ------------------------------------------------------------------------------ */

/* An entry is "-- ID", header lines, a blank line, and the text up to the next entry. */
static void check_entry(const char *catalog, const struct event_row *row)
{
    char head[64];

    (void)snprintf(head, sizeof head, "-- %s\nSubject: ", row->message_id);
    const char *entry = strstr(catalog, head);
    if (!entry)
        fail_msg("%s: no entry \"-- %s\" with a Subject for EVENT_%s", CATALOG, row->message_id,
                 row->name);
    const char *end = strstr(entry, "\n-- "), *happened = strstr(entry, "\n\n");
    const char *cure = happened ? strstr(happened + 2, "\n\n") : NULL;
    if (!cure || cure[2] == '\n' || (end && cure + 2 > end))
        fail_msg("%s: EVENT_%s: say what happened and what to do", CATALOG, row->name);
}

static void test_catalog(void **state)
{
    _cleanup_(freep) char *text = NULL;
    size_t size, entries = 0;

    (void)state;
    assert_int_equal(file_read(CATALOG, 1 << 20, &text, &size, NULL), 0);
    for (size_t i = 0; i < EVENT_KIND_COUNT; i++)
        check_entry(text, &event_rows[i]);
    for (const char *p = strstr(text, "\n-- "); p; p = strstr(p + 1, "\n-- "))
        entries++;
    if (entries != EVENT_KIND_COUNT)
        fail_msg("%s: %zu entries, events.def has %d", CATALOG, entries, EVENT_KIND_COUNT);
}

/* systemd's own reader takes it. */
static void test_catalog_compiles(void **state)
{
    char root[] = "/tmp/diffused-test-XXXXXX", command[1024];

    (void)state;
    if (system("command -v journalctl >/dev/null") != 0) {
        print_message("journalctl is not installed\n");
        skip();
    }
    assert_non_null(mkdtemp(root));
    (void)snprintf(command, sizeof command,
                   "mkdir -p %s/usr/lib/systemd/catalog %s/var/lib/systemd/catalog && cp " CATALOG
                   " %s/usr/lib/systemd/catalog/ && journalctl --root=%s --update-catalog 2>&1 && "
                   "test -s %s/var/lib/systemd/catalog/database; r=$?; rm -rf %s; exit $r",
                   root, root, root, root, root, root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_plain_line),
        cmocka_unit_test(test_journal),
        cmocka_unit_test(test_catalog),
        cmocka_unit_test(test_catalog_compiles),
    };

    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
