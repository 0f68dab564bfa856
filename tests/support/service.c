#include "tests/support/service.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/build.h"
#include "tests/support/socket.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define ARGUMENTS_MAX 32
#define PATIENCE_MSEC 30000

static const char bus_config[] =
    "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n"
    " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
    "<busconfig><type>system</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>\n"
    "<policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"false\"/>\n"
    "<allow receive_sender=\"*\"/><allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>\n";

static void sleep_msec(long msec)
{
    struct timespec t = {msec / 1000, msec % 1000 * 1000000};

    (void)nanosleep(&t, NULL);
}

/* --- programs --------------------------------------------------------------------------------- */

/* In the child: becomes the program. Dies with the test. */
static void become(const char *path, const char *directory, char *const *arguments, int in, int out,
                   int err)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (directory && chdir(directory) < 0)
        _exit(126);
    (void)dup2(in, STDIN_FILENO);
    (void)dup2(out, STDOUT_FILENO);
    (void)dup2(err, STDERR_FILENO);
    (void)execvp(path, arguments);
    _exit(127);
}

int command_start(struct command *c)
{
    char path[PATH_MAX], *arguments[ARGUMENTS_MAX] = {(char *)c->name};
    _cleanup_(closep) int in = memfd_create("in", MFD_CLOEXEC);

    build_path(c->name, path, sizeof path);
    for (size_t i = 0; c->arguments && c->arguments[i] && i + 2 < ARGUMENTS_MAX; i++)
        arguments[i + 1] = (char *)c->arguments[i];
    c->out = memfd_create("out", MFD_CLOEXEC);
    c->err = memfd_create("err", MFD_CLOEXEC);
    if (in < 0 || c->out < 0 || c->err < 0)
        return -errno;
    if (c->input && (file_write_all(in, c->input, strlen(c->input)) < 0 || lseek(in, 0, SEEK_SET)))
        return -errno;
    c->pid = fork();
    if (c->pid == 0)
        become(path, c->directory, arguments, in, c->out, c->err);
    return c->pid < 0 ? -errno : 0;
}

/* Exit status or 1000 + signal; kills what does not end. */
static int wait_for(pid_t pid, long msec)
{
    int status;

    for (; waitpid(pid, &status, WNOHANG) == 0; msec -= 10) {
        if (msec <= 0)
            (void)kill(pid, SIGKILL);
        sleep_msec(10);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char *take_output(int fd)
{
    struct stat st = {0};

    (void)fstat(fd, &st); /* of a memfd */
    char *text = calloc(1, (size_t)st.st_size + 1);
    if (text && pread(fd, text, (size_t)st.st_size, 0) < 0)
        text[0] = '\0';
    (void)close(fd);
    return text;
}

void command_finish(struct command *c, struct command_result *ret)
{
    ret->status = wait_for(c->pid, PATIENCE_MSEC);
    ret->out = take_output(c->out);
    ret->err = take_output(c->err);
}

void command_result_done(struct command_result *r)
{
    free(r->out);
    free(r->err);
    *r = (struct command_result){0};
}

/* --- the service ------------------------------------------------------------------------------ */

static pid_t spawn(const char *path, const char *const *arguments, const char *log)
{
    _cleanup_(closep) int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    _cleanup_(closep) int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pid_t pid = fork();

    if (pid == 0)
        become(path, NULL, (char *const *)arguments, in, out, out);
    return pid;
}

static void end(pid_t *pid)
{
    if (*pid > 0) {
        (void)kill(*pid, SIGTERM);
        (void)wait_for(*pid, 5000);
    }
    *pid = 0;
}

static int write_file(const struct service *s, const char *name, const char *text)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", s->directory, name);
    return file_write_atomic(path, text, strlen(text), NULL);
}

static int write_configs(const struct service *s, const char *config)
{
    char text[4096];

    (void)snprintf(text, sizeof text, bus_config, s->directory);
    if (write_file(s, "bus.conf", text) < 0)
        return -1;
    (void)snprintf(text, sizeof text, "%s/model", s->directory);
    if (file_make_directories(text) < 0)
        return -1;
    (void)snprintf(text, sizeof text, "[model]\npath = %s/model\n\n%s\n", s->directory,
                   config ? config : "");
    return write_file(s, "diffused.conf", text);
}

static int start_bus(struct service *s)
{
    char option[96], log[96], address[128], socket[96];
    const char *const arguments[] = {"dbus-daemon", option, "--nofork", "--nopidfile", NULL};

    (void)snprintf(option, sizeof option, "--config-file=%s/bus.conf", s->directory);
    (void)snprintf(log, sizeof log, "%s/bus.log", s->directory);
    (void)snprintf(socket, sizeof socket, "%s/bus", s->directory);
    (void)snprintf(address, sizeof address, "unix:path=%s", socket);
    s->bus = spawn("dbus-daemon", arguments, log);
    for (int i = 0; i < 1000 && !socket_is_served(socket); i++)
        sleep_msec(10);
    return s->bus > 0 && socket_is_served(socket) ? setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1)
                                                  : -1;
}

static bool is_loaded(void)
{
    static const char *const arguments[] = {"status", NULL};
    struct command c = {.name = "diffusectl", .arguments = arguments};
    struct command_result result;

    if (command_start(&c) < 0)
        return false;
    command_finish(&c, &result);
    const char *state = result.out ? strstr(result.out, "State  ") : NULL;
    bool loaded = result.status == 0 && state && !strstr(state, "  loading\n");
    command_result_done(&result);
    return loaded;
}

static int start_daemon(struct service *s)
{
    char program[PATH_MAX], worker[PATH_MAX], log[96];
    const char *const arguments[] = {"diffused", "--devel", s->directory, "--worker", worker, NULL};

    build_path("diffused", program, sizeof program);
    build_path("tests/fake-worker", worker, sizeof worker);
    (void)snprintf(log, sizeof log, "%s/diffused.log", s->directory);
    s->daemon = spawn(program, arguments, log);
    for (int i = 0; i < 300 && s->daemon > 0; i++) {
        if (waitpid(s->daemon, NULL, WNOHANG) != 0)
            break;
        if (is_loaded())
            return 0;
        sleep_msec(30);
    }
    return -1;
}

static void print_log(const struct service *s, const char *name)
{
    _cleanup_(freep) char *text = NULL;
    char path[PATH_MAX];
    size_t size;

    (void)snprintf(path, sizeof path, "%s/%s", s->directory, name);
    if (file_read(path, 1 << 20, &text, &size, NULL) == 0)
        (void)fprintf(stderr, "--- %s\n%s", name, text);
}

int service_start(struct service *s, const char *config)
{
    *s = (struct service){.directory = "/tmp/diffused-test-XXXXXX"};
    if (!mkdtemp(s->directory))
        return -1;
    if (write_configs(s, config) >= 0 && start_bus(s) == 0 && start_daemon(s) == 0)
        return 0;
    print_log(s, "bus.log");
    print_log(s, "diffused.log");
    return -1;
}

int service_restart_daemon(struct service *s)
{
    end(&s->daemon);
    return start_daemon(s);
}

void service_stop(struct service *s)
{
    static const char prefix[] = "/tmp/diffused-test-";
    char command[128];

    end(&s->daemon);
    end(&s->bus);
    if (strncmp(s->directory, prefix, strlen(prefix)) != 0)
        return;
    (void)snprintf(command, sizeof command, "rm -rf '%s'", s->directory);
    if (system(command) != 0)
        (void)fprintf(stderr, "%s: not removed, ignoring\n", s->directory);
    s->directory[0] = '\0';
}
