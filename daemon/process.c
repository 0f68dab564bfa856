#include "daemon/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "daemon/ipc.h"
#include "vk/base/cleanup.h"

static int add_files(posix_spawn_file_actions_t *actions, const struct process_files *files)
{
    int r;

    if (files->in < 0)
        r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    else
        r = posix_spawn_file_actions_adddup2(actions, files->in, STDIN_FILENO);
    if (r == 0 && files->out >= 0)
        r = posix_spawn_file_actions_adddup2(actions, files->out, STDOUT_FILENO);
    if (r == 0 && files->ipc >= 0) /* equal numbers: glibc then only clears O_CLOEXEC */
        r = posix_spawn_file_actions_adddup2(actions, files->ipc, IPC_WORKER_FD);
    return r;
}

/* The event loop blocks signals; what is blocked would be inherited. */
static int add_signals(posix_spawnattr_t *attributes)
{
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    int r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (r == 0)
        r = posix_spawnattr_setsigmask(attributes, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(attributes, &all);
    return r;
}

int process_spawn(char *const argv[], const struct process_files *files, pid_t *ret_pid,
                  struct fault *f)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t pid;

    if (posix_spawn_file_actions_init(&actions) != 0)
        return fault_set(f, -ENOMEM, "%s: out of memory", argv[0]);
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail */
        return fault_set(f, -ENOMEM, "%s: out of memory", argv[0]);
    }
    int r = add_files(&actions, files);
    if (r == 0)
        r = add_signals(&attributes);
    if (r == 0)
        r = posix_spawn(&pid, argv[0], &actions, &attributes, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    if (r != 0)
        return fault_set(f, -r, "%s: cannot be started: %s", argv[0], strerror(r));
    *ret_pid = pid;
    return 0;
}

int process_end(pid_t pid)
{
    const struct timespec slice = {.tv_nsec = 2 * 1000000};

    (void)kill(pid, SIGKILL);
    for (int waited = 0; waited < PROCESS_REAP_MSEC; waited += 2) {
        pid_t r = waitpid(pid, NULL, WNOHANG);
        if (r != 0 && !(r < 0 && errno == EINTR))
            return 0; /* reaped, or by somebody else */
        (void)nanosleep(&slice, NULL);
    }
    return -ETIMEDOUT;
}

void process_explain(int wait_status, char *ret_text, size_t size)
{
    if (WIFSIGNALED(wait_status))
        (void)snprintf(ret_text, size, "was killed by signal %d (%s)", WTERMSIG(wait_status),
                       strsignal(WTERMSIG(wait_status)));
    else
        (void)snprintf(ret_text, size, "ended with status %d", WEXITSTATUS(wait_status));
}

int process_find_sibling(const char *name, char **ret_path, struct fault *f)
{
    char self[PATH_MAX];

    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return fault_set(f, -errno, "/proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    *(strrchr(self, '/') + 1) = '\0';
    if (asprintf(ret_path, "%s%s", self, name) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    return 0;
}
