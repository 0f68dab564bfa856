#include "tests/support/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define CHANGES (INJECT_CHANGES | INJECT_GROWS)

static const struct row {
    int number;
    const char *name;
    unsigned classes;
} rows[] = {
#define ROW(call, classes)                                                                         \
    {                                                                                              \
        SYS_##call, #call, classes                                                                 \
    }
    ROW(openat, INJECT_OPENS | INJECT_READS),
    ROW(openat2, INJECT_OPENS | INJECT_READS),
    ROW(close, INJECT_CLOSES),
    ROW(read, INJECT_READS),
    ROW(pread64, INJECT_READS),
    ROW(readv, INJECT_READS),
    ROW(preadv, INJECT_READS),
    ROW(getdents64, INJECT_READS),
    ROW(fstat, INJECT_READS),
    ROW(newfstatat, INJECT_READS),
    ROW(statx, INJECT_READS),
    ROW(fstatfs, INJECT_READS),
    ROW(statfs, INJECT_READS),
    ROW(faccessat, INJECT_READS),
    ROW(faccessat2, INJECT_READS),
    ROW(readlinkat, INJECT_READS),
    ROW(lseek, INJECT_READS),
    ROW(flock, INJECT_READS),
    ROW(fcntl, INJECT_READS), /* a few of its commands give descriptors */
    ROW(mkdirat, CHANGES),
    ROW(write, CHANGES),
    ROW(pwrite64, CHANGES),
    ROW(writev, CHANGES),
    ROW(pwritev, CHANGES),
    ROW(sendfile, CHANGES),
    ROW(copy_file_range, CHANGES),
    ROW(splice, CHANGES),
    ROW(fallocate, CHANGES),
    ROW(ftruncate, INJECT_CHANGES),
    ROW(renameat2, CHANGES),
    ROW(linkat, CHANGES),
    ROW(symlinkat, CHANGES),
    ROW(unlinkat, INJECT_CHANGES),
    ROW(fchmod, INJECT_CHANGES),
    ROW(fchmodat, INJECT_CHANGES),
    ROW(fchown, INJECT_CHANGES),
    ROW(fchownat, INJECT_CHANGES),
    ROW(utimensat, INJECT_CHANGES),
    ROW(fsync, INJECT_SYNCS),
    ROW(fdatasync, INJECT_SYNCS),
    ROW(sync_file_range, INJECT_SYNCS),
    ROW(syncfs, INJECT_SYNCS),
#ifdef SYS_renameat
    ROW(renameat, CHANGES),
#endif
#ifdef SYS_open /* the old calls, where the machine has them */
    ROW(open, INJECT_OPENS | INJECT_READS),
    ROW(mkdir, CHANGES),
    ROW(rename, CHANGES),
    ROW(link, CHANGES),
    ROW(unlink, INJECT_CHANGES),
    ROW(rmdir, INJECT_CHANGES),
    ROW(stat, INJECT_READS),
    ROW(lstat, INJECT_READS),
    ROW(access, INJECT_READS),
    ROW(readlink, INJECT_READS),
    ROW(getdents, INJECT_READS),
    ROW(chmod, INJECT_CHANGES),
#endif
#undef ROW
};

/* load the number; for each row: equal? notify; at the end: allow */
static int install_filter(void)
{
    struct sock_filter code[2 * ARRAY_SIZE(rows) + 2];
    size_t n = 0;

    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             (unsigned)offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        code[n++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)rows[i].number, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {.len = (unsigned short)n, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                          &program);
    return fd < 0 ? -errno : fd;
}

/* One byte, and the descriptor with it. */
static int send_descriptor(int socket, int fd)
{
    char byte = 0;
    struct iovec part = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof fd)];
    } control = {0};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control.space};

    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The descriptor, or -1 when the other side ended without one. */
static int receive_descriptor(int socket)
{
    char byte;
    struct iovec part = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control.space};
    int fd = -1;

    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0)
        return -1;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

int inject_arm(int socket)
{
    int fd = install_filter();

    if (fd < 0)
        return fd;
    int r = send_descriptor(socket, fd);
    /* From here on even our own close() is asked about: it waits for inject_watch(). */
    (void)close(fd);
    (void)shutdown(socket, SHUT_RDWR);
    return r;
}

int inject_fork(inject_body_t *body, void *userdata, struct inject *ret_inject)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0) {
        int r = -errno;
        (void)close(pair[0]);
        (void)close(pair[1]);
        return r;
    }
    if (pid == 0) {
        (void)close(pair[0]);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(body(pair[1], userdata));
    }
    (void)close(pair[1]);
    *ret_inject = (struct inject){.pid = pid, .socket = pair[0]};
    return 0;
}

static void classify(struct inject_call *call)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].number != call->number)
            continue;
        call->name = rows[i].name;
        call->classes = rows[i].classes;
    }
    bool writes = call->number == SYS_openat && call->args[2] & (O_CREAT | O_TRUNC | O_WRONLY);
    bool duplicates =
        call->number == SYS_fcntl && (call->args[1] == F_DUPFD || call->args[1] == F_DUPFD_CLOEXEC);
    if (writes)
        call->classes = INJECT_OPENS | CHANGES;
    if (call->number == SYS_fcntl)
        call->classes = duplicates ? INJECT_OPENS : 0;
}

/* inject_arm()'s own close() is let through and not shown. */
static int decide_first(const struct inject_call *call, void *userdata)
{
    (void)call, (void)userdata;
    return INJECT_GO;
}

/* One call; false when there is none any more. */
static bool decide_one(const struct inject *inject, int listener, inject_decide_t *decide,
                       void *userdata)
{
    struct seccomp_notif asked = {0};
    struct seccomp_notif_resp answer = {0};
    struct inject_call call = {.name = "?"};

    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) < 0)
        return errno == EINTR || errno == ENOENT; /* ENOENT: who asked was killed meanwhile */
    call.pid = (pid_t)asked.pid;
    call.number = asked.data.nr;
    for (size_t i = 0; i < ARRAY_SIZE(call.args); i++)
        call.args[i] = asked.data.args[i];
    classify(&call);
    int verdict = decide(&call, userdata);
    answer.id = asked.id;
    answer.flags = verdict == INJECT_GO ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
    answer.error = verdict < 0 ? verdict : 0;
    if (verdict == INJECT_KILL)
        (void)kill(inject->pid, SIGKILL); /* it sleeps in the call, which is never made */
    else
        (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer); /* killed meanwhile: no matter */
    return true;
}

int inject_watch(struct inject *inject, inject_decide_t *decide, void *userdata, int *ret_status)
{
    _cleanup_(closep) int socket = inject->socket;
    _cleanup_(closep) int listener = receive_descriptor(socket);
    struct pollfd wait = {.fd = listener, .events = POLLIN};

    if (listener >= 0)
        (void)decide_one(inject, listener, decide_first, NULL);
    while (listener >= 0) {
        if (poll(&wait, 1, -1) < 0 && errno != EINTR)
            break;
        if (wait.revents & POLLIN && decide_one(inject, listener, decide, userdata))
            continue;
        if (wait.revents & (POLLHUP | POLLERR | POLLNVAL))
            break;
    }
    while (waitpid(inject->pid, ret_status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int probe_body(int socket, void *userdata)
{
    (void)userdata;
    if (inject_arm(socket) < 0)
        return 1;
    return openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY) < 0 && errno == EROFS ? 0 : 1;
}

static int probe_decide(const struct inject_call *call, void *userdata)
{
    (void)userdata;
    return call->number == SYS_openat ? -EROFS : INJECT_GO;
}

bool inject_is_possible(const char **ret_why)
{
    struct inject inject;
    int status = 0;

    *ret_why = "no seccomp filter with user notification here (Linux 5.9, not sandboxed away)";
    return inject_fork(probe_body, NULL, &inject) == 0 &&
           inject_watch(&inject, probe_decide, NULL, &status) == 0 && status == 0;
}
