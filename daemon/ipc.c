/* ipc — see the header. What a packet of each type must look like stands in two tables; whatever
 * does not look like that never reaches a caller. */
#include "daemon/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define ALL_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* The descriptors a control buffer can hold at most; more than one is malformed, but must be
 * closed. */
#define DESCRIPTORS_MAX 4

#define ERRNO_MAX 4096 /* as the kernel has it */

/* Bytes of a packet, 0 for a type there is not. */
static const size_t packet_sizes[] = {
    [IPC_LOADING] = sizeof(struct ipc_loading), [IPC_HELLO] = sizeof(struct ipc_hello),
    [IPC_BEAT] = sizeof(struct ipc_beat),       [IPC_STEP] = sizeof(struct ipc_step),
    [IPC_WARNING] = sizeof(struct ipc_text),    [IPC_PICTURE] = sizeof(struct ipc_picture),
    [IPC_DONE] = sizeof(struct ipc_done),       [IPC_FAULT] = sizeof(struct ipc_done),
    [IPC_RUN] = sizeof(struct ipc_run),         [IPC_CANCEL] = sizeof(struct ipc_job),
    [IPC_CONTEXT] = sizeof(struct ipc_context), [IPC_CHECKED] = sizeof(struct ipc_job),
    [IPC_CHECK] = sizeof(struct ipc_job),       [IPC_HOLD] = sizeof(struct ipc_job),
    [IPC_GO] = sizeof(struct ipc_job),          [IPC_PREVIEW] = sizeof(struct ipc_preview),
};

#define FIELD(type, structure, member)                                                             \
    {                                                                                              \
        type, offsetof(struct structure, member), sizeof(((struct structure *)NULL)->member)       \
    }

/* Every text of every packet: it must end within its field. */
static const struct {
    uint32_t type;
    size_t offset, size;
} texts[] = {
    FIELD(IPC_HELLO, ipc_hello, device),     FIELD(IPC_HELLO, ipc_hello, device_node),
    FIELD(IPC_HELLO, ipc_hello, driver),     FIELD(IPC_HELLO, ipc_hello, model),
    FIELD(IPC_HELLO, ipc_hello, model_hash), FIELD(IPC_WARNING, ipc_text, text),
    FIELD(IPC_PICTURE, ipc_picture, sha256), FIELD(IPC_DONE, ipc_done, text),
    FIELD(IPC_FAULT, ipc_done, text),
};

static size_t packet_size(uint32_t type)
{
    return type < ARRAY_SIZE(packet_sizes) ? packet_sizes[type] : 0;
}

static bool is_text_sound(const union ipc_packet *p)
{
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (texts[i].type == p->header.type &&
            !memchr((const char *)p + texts[i].offset, '\0', texts[i].size))
            return false;
    }
    return true;
}

/* A memfd that nobody can change any more, of the size announced. */
static bool is_sealed(int fd, uint64_t size)
{
    struct stat st;

    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & ALL_SEALS) != ALL_SEALS || fstat(fd, &st) < 0)
        return false;
    return (uint64_t)st.st_size == size;
}

static bool is_regular(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static bool are_inputs_sound(const struct ipc_run *run, const struct ipc_files *files)
{
    for (uint32_t i = 1; i < files->count; i++)
        if (!is_regular(files->fds[i]))
            return false;
    return run->size <= IPC_REQUEST_MAX && is_sealed(files->fds[0], run->size);
}

/* As many descriptors as the packet announces, each of its kind. */
static bool are_files_sound(const union ipc_packet *p, const struct ipc_files *files)
{
    switch (p->header.type) {
    case IPC_PICTURE:
        return files->count == 1 && is_sealed(files->fds[0], p->picture.size);
    case IPC_PREVIEW:
        return files->count == 1 && p->preview.size <= IPC_PREVIEW_MAX &&
               is_sealed(files->fds[0], p->preview.size);
    case IPC_RUN:
        return p->run.inputs < 1u << IPC_INPUT_COUNT &&
               files->count == 1 + (uint32_t)__builtin_popcount(p->run.inputs) &&
               are_inputs_sound(&p->run, files);
    default:
        return files->count == 0;
    }
}

/* Values that a reader would trip over. */
static bool is_value_sound(const union ipc_packet *p)
{
    switch (p->header.type) {
    case IPC_BEAT:
        return p->beat.phase < IPC_PHASE_COUNT;
    case IPC_DONE:
    case IPC_FAULT:
        return p->done.err <= 0 && p->done.err > -ERRNO_MAX;
    case IPC_PICTURE:
        return p->picture.score_count <= IPC_SCORES_MAX;
    default:
        return true;
    }
}

static bool is_sound(const union ipc_packet *p, size_t size, const struct ipc_files *files)
{
    if (size < sizeof p->header || p->header.version != IPC_VERSION)
        return false;
    if (size != packet_size(p->header.type))
        return false;
    if (!is_value_sound(p))
        return false;
    return is_text_sound(p) && are_files_sound(p, files);
}

/* Takes every descriptor out of the message, at most IPC_FILES_MAX into *ret; the others are
 * closed. Returns how many there were. */
static size_t take_descriptors(struct msghdr *message, struct ipc_files *ret)
{
    size_t count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (count++ < IPC_FILES_MAX)
                ret->fds[ret->count++] = fd;
            else
                (void)close(fd); /* nobody wants it */
        }
    }
    return count;
}

static int send_with(int socket, const union ipc_packet *packet, const int *fds, size_t count,
                     int flags)
{
    union {
        char bytes[CMSG_SPACE(IPC_FILES_MAX * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec data = {.iov_base = (void *)packet, .iov_len = packet_size(packet->header.type)};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    ssize_t n;

    if (data.iov_len == 0)
        return -EINVAL;
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(count * sizeof *fds)};
        memcpy(CMSG_DATA(c), fds, count * sizeof *fds);
    }
    do
        n = sendmsg(socket, &message, flags | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int ipc_send(int socket, const union ipc_packet *packet, int attached)
{
    return send_with(socket, packet, &attached, attached >= 0, 0);
}

int ipc_send_files(int socket, const union ipc_packet *packet, const struct ipc_files *files)
{
    return send_with(socket, packet, files->fds, files->count, 0);
}

int ipc_send_now(int socket, const union ipc_packet *packet)
{
    return send_with(socket, packet, NULL, 0, MSG_DONTWAIT);
}

void ipc_files_done(struct ipc_files *files)
{
    while (files->count > 0)
        (void)close(files->fds[--files->count]);
}

int ipc_receive_files(int socket, union ipc_packet *ret_packet, struct ipc_files *ret_files)
{
    union {
        char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    union ipc_packet packet;
    struct iovec data = {.iov_base = &packet, .iov_len = sizeof packet};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    _cleanup_(ipc_files_done) struct ipc_files files = {0};
    ssize_t n;

    do
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    size_t count = take_descriptors(&message, &files);
    if (n == 0 && count == 0)
        return -ECONNRESET;
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || count > IPC_FILES_MAX ||
        !is_sound(&packet, (size_t)n, &files))
        return -EPROTO;
    memcpy(ret_packet, &packet, (size_t)n);
    *ret_files = files;
    files.count = 0;
    return 0;
}

int ipc_receive(int socket, union ipc_packet *ret_packet, int *ret_attached)
{
    struct ipc_files files;

    int r = ipc_receive_files(socket, ret_packet, &files);
    if (r < 0)
        return r;
    *ret_attached = files.count > 0 ? files.fds[0] : -1;
    while (files.count > 1)
        (void)close(files.fds[--files.count]);
    return 0;
}

int ipc_memfd(const char *name, const void *data, size_t size)
{
    _cleanup_(closep) int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    int r = file_write_all(fd, data, size);
    if (r < 0)
        return r;
    if (lseek(fd, 0, SEEK_SET) < 0 || fcntl(fd, F_ADD_SEALS, ALL_SEALS) < 0)
        return -errno;
    return TAKE_FD(fd);
}
