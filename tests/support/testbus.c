#include "tests/support/testbus.h"

#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/build.h"
#include "tests/support/folder.h"
#include "tests/support/knobs.h"
#include "tests/support/socket.h"

#define TICK_MSEC 20

/* As open as a system bus can be: what is refused in a test is refused by the daemon. */
static const char bus_config[] =
    "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\"\n"
    " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
    "<busconfig>\n"
    "  <listen>unix:path=%s/bus</listen>\n"
    "  <auth>EXTERNAL</auth>\n"
    "  <policy context=\"default\">\n"
    "    <allow user=\"*\"/>\n"
    "    <allow own=\"*\"/>\n"
    "    <allow send_destination=\"*\" eavesdrop=\"true\"/>\n"
    "    <allow receive_sender=\"*\" eavesdrop=\"true\"/>\n"
    "  </policy>\n"
    "%s</busconfig>\n";

static void sleep_msec(unsigned msec)
{
    struct timespec t = {msec / 1000, (long)(msec % 1000) * 1000000};

    (void)nanosleep(&t, NULL); /* cut short is fine: callers loop */
}

static FILE *open_file(const struct testbus *s, const char *name, const char *mode)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", s->folder, name);
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    return file;
}

/* Output goes to DIR/log: the daemon's lines are no test results. */
static pid_t spawn(const struct testbus *s, char *const argv[])
{
    posix_spawn_file_actions_t actions;
    char path[512];
    pid_t pid = 0;

    (void)snprintf(path, sizeof path, "%s/log", s->folder);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, path,
                                           O_WRONLY | O_CREAT | O_APPEND, 0644);
    (void)posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    assert_int_equal(posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    return pid;
}

static int end(pid_t *pid, int signal)
{
    int status = 0;

    if (*pid <= 0)
        return 0;
    (void)kill(*pid, signal);
    assert_int_equal(waitpid(*pid, &status, 0), *pid);
    *pid = 0;
    return status;
}

static void start_bus(struct testbus *s, const char *limits)
{
    char config[512], path[512];
    char *argv[] = {(char *)"dbus-daemon", (char *)"--nofork", config, NULL};

    FILE *file = open_file(s, "bus.conf", "w");
    assert_true(fprintf(file, bus_config, s->folder, limits) > 0);
    assert_int_equal(fclose(file), 0);
    (void)snprintf(config, sizeof config, "--config-file=%s/bus.conf", s->folder);
    s->bus = spawn(s, argv);
    (void)snprintf(path, sizeof path, "%s/bus", s->folder);
    for (unsigned waited = 0; !socket_is_served(path); waited += TICK_MSEC) {
        assert_true(waited < TESTBUS_PATIENCE);
        sleep_msec(TICK_MSEC);
    }
}

int testbus_setup_limited(void **state, const char *limits)
{
    struct testbus *s = calloc(1, sizeof *s);
    char model[512];
    void *folder = NULL;

    assert_non_null(s);
    assert_int_equal(folder_setup(&folder), 0);
    s->folder = folder;
    assert_int_equal(chmod(s->folder, 0755), 0); /* other users must reach the socket */
    (void)snprintf(model, sizeof model, "%s/model", s->folder);
    assert_int_equal(mkdir(model, 0755), 0);
    testbus_configure(s, "[model]\npath = model\n[defaults]\nsteps = 4\n");
    start_bus(s, limits);
    (void)snprintf(s->address, sizeof s->address, "unix:path=%s/bus", s->folder);
    (void)setenv("DBUS_SYSTEM_BUS_ADDRESS", s->address, 1);
    *state = s;
    return 0;
}

int testbus_setup(void **state)
{
    return testbus_setup_limited(state, "");
}

static void show_log(const struct testbus *s)
{
    FILE *log = open_file(s, "log", "r");
    char line[512];

    while (fgets(line, sizeof line, log))
        print_error("%s", line);
    (void)fclose(log);
}

int testbus_teardown(void **state)
{
    struct testbus *s = *state;

    sd_bus_flush_close_unref(s->client);
    int status = end(&s->daemon, SIGTERM);
    (void)end(&s->bus, SIGTERM);
    if (status != 0) /* not even its sanitizers may complain */
        show_log(s);
    knobs_clear();
    void *folder = s->folder;
    free(s);
    return folder_teardown(&folder) < 0 || status != 0 ? -1 : 0;
}

void testbus_configure(struct testbus *s, const char *lines)
{
    FILE *file = open_file(s, "diffused.conf", "a");

    assert_true(fputs(lines, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

sd_bus *testbus_connect(const struct testbus *s)
{
    sd_bus *bus = NULL;

    (void)s;
    assert_true(sd_bus_open_system(&bus) >= 0);
    return bus;
}

/* The kernel notes the effective user at connect(). */
sd_bus *testbus_connect_as(const struct testbus *s, uid_t uid, gid_t gid)
{
    assert_int_equal(setgroups(0, NULL), 0);
    assert_int_equal(setegid(gid), 0);
    assert_int_equal(seteuid(uid), 0);
    sd_bus *bus = testbus_connect(s);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(setegid(0), 0);
    return bus;
}

void testbus_kill_bus(struct testbus *s)
{
    (void)end(&s->bus, SIGKILL);
}

void testbus_restart_bus(struct testbus *s)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/bus", s->folder);
    (void)unlink(path);
    start_bus(s, "");
}

void testbus_spawn_daemon(struct testbus *s)
{
    char program[4096], worker[4096];
    char *argv[] = {program, (char *)"--devel", s->folder, (char *)"--worker", worker, NULL};

    build_path("diffused", program, sizeof program);
    build_path("tests/fake-worker", worker, sizeof worker);
    s->daemon = spawn(s, argv);
}

void testbus_start_daemon(struct testbus *s, const char *state)
{
    testbus_spawn_daemon(s);
    if (!s->client)
        s->client = testbus_connect(s);
    for (unsigned waited = 0; sd_bus_get_name_creds(s->client, TESTBUS_NAME, 0, NULL) < 0;
         waited += TICK_MSEC) {
        assert_true(waited < TESTBUS_PATIENCE);
        sleep_msec(TICK_MSEC);
    }
    testbus_wait_state(s->client, TESTBUS_PATH, state);
}

int testbus_stop_daemon(struct testbus *s, int signal)
{
    return end(&s->daemon, signal);
}

void testbus_submit(sd_bus *client, const char *prompt, char ret_path[TESTBUS_PATH_SIZE],
                    const char *options, ...)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *call = NULL, *reply = NULL;
    const char *path;
    va_list args;

    assert_true(sd_bus_message_new_method_call(client, &call, TESTBUS_NAME, TESTBUS_PATH,
                                               TESTBUS_MANAGER, "Submit") >= 0);
    assert_true(sd_bus_message_append(call, "s", prompt) >= 0);
    va_start(args, options);
    if (*options)
        assert_true(sd_bus_message_appendv(call, options, args) >= 0);
    else
        assert_true(sd_bus_message_append(call, "a{sv}", 0) >= 0);
    va_end(args);
    int r = sd_bus_call(client, call, 0, &error, &reply);
    if (r < 0)
        fail_msg("Submit: %s: %s", error.name, error.message);
    assert_true(sd_bus_message_read(reply, "o", &path) >= 0);
    (void)snprintf(ret_path, TESTBUS_PATH_SIZE, "%s", path);
    sd_bus_message_unref(call);
    sd_bus_message_unref(reply);
}

void testbus_call(sd_bus *client, const char *path, const char *interface, const char *member,
                  const char *want_error)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char want[128];

    int r = sd_bus_call_method(client, TESTBUS_NAME, path, interface, member, &error, NULL, "");
    if (!want_error) {
        if (r < 0)
            fail_msg("%s: %s: %s", member, error.name, error.message);
        return;
    }
    assert_true(r < 0);
    (void)snprintf(want, sizeof want, TESTBUS_ERROR "%s", want_error);
    assert_string_equal(error.name, want);
    sd_bus_error_free(&error);
}

char *testbus_get_text(sd_bus *client, const char *path, const char *interface,
                       const char *property)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    char *text = NULL;

    int r =
        sd_bus_get_property_string(client, TESTBUS_NAME, path, interface, property, &error, &text);
    if (r < 0)
        fail_msg("%s: %s: %s", property, error.name, error.message);
    return text;
}

void testbus_wait_state(sd_bus *client, const char *path, const char *state)
{
    const char *interface = strcmp(path, TESTBUS_PATH) == 0 ? TESTBUS_MANAGER : TESTBUS_JOB;

    for (unsigned waited = 0;; waited += TICK_MSEC) {
        char *now = testbus_get_text(client, path, interface, "State");
        bool same = strcmp(now, state) == 0;
        if (!same && waited >= TESTBUS_PATIENCE)
            fail_msg("%s is %s, not %s", path, now, state);
        free(now);
        if (same)
            return;
        sleep_msec(TICK_MSEC);
    }
}

void testbus_get_number(sd_bus *client, const char *path, const char *property, char type,
                        void *ret_value)
{
    const char *interface = strcmp(path, TESTBUS_PATH) == 0 ? TESTBUS_MANAGER : TESTBUS_JOB;
    sd_bus_error error = SD_BUS_ERROR_NULL;

    int r = sd_bus_get_property_trivial(client, TESTBUS_NAME, path, interface, property, &error,
                                        type, ret_value);
    if (r < 0)
        fail_msg("%s: %s: %s", property, error.name, error.message);
}

void testbus_get_error(sd_bus *client, const char *path, char **ret_name, char **ret_text)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    sd_bus_message *reply = NULL;
    const char *name, *text;

    int r = sd_bus_get_property(client, TESTBUS_NAME, path, TESTBUS_JOB, "Error", &error, &reply,
                                "(ss)");
    if (r < 0)
        fail_msg("Error: %s: %s", error.name, error.message);
    assert_true(sd_bus_message_read(reply, "(ss)", &name, &text) >= 0);
    *ret_name = strdup(name);
    *ret_text = strdup(text);
    sd_bus_message_unref(reply);
}

void testbus_process(sd_bus *client, unsigned msec)
{
    struct timespec start, now;

    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        while (sd_bus_process(client, NULL) > 0)
            continue;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        long gone = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
        if (gone >= (long)msec)
            return;
        (void)sd_bus_wait(client, TICK_MSEC * 1000);
    }
}

/* Children of the daemon, from /proc: the one that serves (the probe may be there, too). */
static pid_t find_worker(const struct testbus *s)
{
    char path[64], line[4096];
    pid_t found = 0;
    int child;

    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)s->daemon, (int)s->daemon);
    FILE *children = fopen(path, "r");
    while (children && fscanf(children, "%d", &child) == 1) {
        (void)snprintf(path, sizeof path, "/proc/%d/cmdline", child);
        FILE *command = fopen(path, "r");
        size_t n = command ? fread(line, 1, sizeof line, command) : 0;
        if (memmem(line, n, "--serve", 7))
            found = child;
        if (command)
            (void)fclose(command);
    }
    if (children)
        (void)fclose(children);
    return found;
}

pid_t testbus_find_worker(const struct testbus *s, pid_t not_this)
{
    for (unsigned waited = 0; waited < TESTBUS_PATIENCE; waited += TICK_MSEC) {
        pid_t pid = find_worker(s);
        if (pid > 0 && pid != not_this)
            return pid;
        sleep_msec(TICK_MSEC);
    }
    fail_msg("no worker");
    return 0;
}
