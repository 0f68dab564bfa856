/* diffusectl-program — the service's other programs, found beside ours and run. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"

#define OUTPUT_MAX (1u << 20) /* bytes of a program's output that are kept */

/* Beside ours, or in ../lib/diffused. Says when it is nowhere. */
static int find_program(const char *name, char ret_path[CTL_PATH_SIZE])
{
    static const char *const places[] = {"", "../lib/diffused/"};
    char self[CTL_PATH_SIZE / 2];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n < 0)
        return ctl_error(CTL_EXIT_FAILED, "/proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        (void)snprintf(ret_path, CTL_PATH_SIZE, "%s/%s%s", self, places[i], name);
        if (access(ret_path, X_OK) == 0)
            return 0;
    }
    return ctl_error(CTL_EXIT_FAILED, "%s is neither in %s nor in %s/../lib/diffused", name, self,
                     self);
}

int ctl_become(const char *name, const char *const *arguments)
{
    char path[CTL_PATH_SIZE];
    int code = find_program(name, path);

    if (code)
        return code;
    (void)execv(path, (char **)arguments);
    return ctl_error(CTL_EXIT_FAILED, "%s: %s", path, strerror(errno));
}

/* In the child: standard input empty, both outputs into files in memory. The program is open
 * already: whom we become need not reach its folder. */
static void start(const struct ctl_program *p, int program, int out, int err)
{
    int nothing = open("/dev/null", O_RDONLY);
    bool drops = p->uid != 0 && geteuid() == 0;

    if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 ||
        (p->directory >= 0 && fchdir(p->directory) < 0) ||
        (drops && (setgroups(0, NULL) < 0 || setgid(p->gid) < 0 || setuid(p->uid) < 0)) ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        _exit(126);
    (void)fexecve(program, (char **)p->arguments, environ);
    (void)fprintf(stderr, "%s: %s\n", p->name, strerror(errno));
    _exit(126);
}

static char *read_back(int fd)
{
    char *text = malloc(OUTPUT_MAX + 1);
    size_t n = 0;
    ssize_t got;

    if (!text)
        return NULL;
    while (n < OUTPUT_MAX && (got = pread(fd, text + n, OUTPUT_MAX - n, (off_t)n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    return text;
}

int ctl_run(const struct ctl_program *program, struct ctl_output *ret_output)
{
    _cleanup_(closep) int out = memfd_create("out", MFD_CLOEXEC);
    _cleanup_(closep) int err = memfd_create("err", MFD_CLOEXEC);
    _cleanup_(ctl_output_done) struct ctl_output o = {0};
    char path[CTL_PATH_SIZE];
    int status, code = find_program(program->name, path);

    if (code)
        return code;
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    pid_t pid = out < 0 || err < 0 || fd < 0 ? -1 : fork();
    if (pid == 0)
        start(program, fd, out, err);
    if (pid < 0)
        return ctl_error(CTL_EXIT_FAILED, "%s: %s", path, strerror(errno));
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return ctl_error(CTL_EXIT_FAILED, "%s: %s", path, strerror(errno));
    }
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    o.out = read_back(out);
    o.err = read_back(err);
    if (!o.out || !o.err)
        return ctl_error(CTL_EXIT_FAILED, "out of memory");
    *ret_output = o;
    o = (struct ctl_output){0};
    return 0;
}

char *ctl_first_line(char *text)
{
    static const char *const names[] = {"diffused: ", "diffused-worker: ", "error: ", "warning: "};

    text[strcspn(text, "\n")] = '\0';
    if (text[0] == '<' && text[1] && text[2] == '>') /* a level of the journal */
        text += 3;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strncmp(text, names[i], strlen(names[i])) == 0)
            return text + strlen(names[i]);
    }
    return text;
}

void ctl_output_done(struct ctl_output *o)
{
    free(o->out);
    free(o->err);
}
