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
    [IPC_GO] = sizeof(struct ipc_job),
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

/* A prompt has its length beside it: no NUL before, one right after. */
static bool is_prompt(const char text[REQUEST_PROMPT_MAX + 1], uint32_t length)
{
    return length <= REQUEST_PROMPT_MAX && strnlen(text, REQUEST_PROMPT_MAX + 1) == length;
}

static bool is_text_sound(const union ipc_packet *p)
{
    const struct ipc_run *run = &p->run;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (texts[i].type == p->header.type &&
            !memchr((const char *)p + texts[i].offset, '\0', texts[i].size))
            return false;
    }
    if (p->header.type != IPC_RUN)
        return true;
    return is_prompt(run->prompt, run->prompt_length) &&
           is_prompt(run->negative_prompt, run->negative_prompt_length);
}

/* A picture comes with a memfd that nobody can change any more, of the size announced. */
static bool is_descriptor_sound(const union ipc_packet *p, int attached)
{
    struct stat st;

    if (p->header.type != IPC_PICTURE)
        return attached < 0;
    if (attached < 0)
        return false;
    int seals = fcntl(attached, F_GET_SEALS);
    if (seals < 0 || (seals & ALL_SEALS) != ALL_SEALS || fstat(attached, &st) < 0)
        return false;
    return (uint64_t)st.st_size == p->picture.size;
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
    default:
        return true;
    }
}

static bool is_sound(const union ipc_packet *p, size_t size, int attached)
{
    if (size < sizeof p->header || p->header.version != IPC_VERSION)
        return false;
    if (size != packet_size(p->header.type))
        return false;
    if (!is_value_sound(p))
        return false;
    return is_text_sound(p) && is_descriptor_sound(p, attached);
}

/* Takes every descriptor out of the message. The first one is returned (-1: none) and *ret_count
 * tells how many there were; the others are closed. */
static int take_descriptors(struct msghdr *message, size_t *ret_count)
{
    int first = -1;

    *ret_count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if ((*ret_count)++ == 0)
                first = fd;
            else
                (void)close(fd); /* nobody wants it */
        }
    }
    return first;
}

static int send_with(int socket, const union ipc_packet *packet, int attached, int flags)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec data = {.iov_base = (void *)packet, .iov_len = packet_size(packet->header.type)};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    ssize_t n;

    if (data.iov_len == 0)
        return -EINVAL;
    if (attached >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(sizeof attached)};
        memcpy(CMSG_DATA(c), &attached, sizeof attached);
    }
    do
        n = sendmsg(socket, &message, flags | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int ipc_send(int socket, const union ipc_packet *packet, int attached)
{
    return send_with(socket, packet, attached, 0);
}

int ipc_send_now(int socket, const union ipc_packet *packet)
{
    return send_with(socket, packet, -1, MSG_DONTWAIT);
}

int ipc_receive(int socket, union ipc_packet *ret_packet, int *ret_attached)
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
    size_t count;
    ssize_t n;

    do
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    _cleanup_(closep) int attached = take_descriptors(&message, &count);
    if (n == 0 && count == 0)
        return -ECONNRESET;
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || count > 1 ||
        !is_sound(&packet, (size_t)n, attached))
        return -EPROTO;
    memcpy(ret_packet, &packet, (size_t)n);
    *ret_attached = TAKE_FD(attached);
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

/* Returns the length copied; a request's check has already refused a longer one. */
static uint32_t copy_prompt(const char *from, char to[REQUEST_PROMPT_MAX + 1])
{
    size_t n = from ? strnlen(from, REQUEST_PROMPT_MAX) : 0;

    if (n > 0)
        memcpy(to, from, n);
    to[n] = '\0';
    return (uint32_t)n;
}

void ipc_run_from_request(const struct request *request, uint64_t job, struct ipc_run *ret_run)
{
    /* All of it, padding too: it crosses a process boundary. */
    memset(ret_run, 0, sizeof *ret_run);
    ret_run->header = (struct ipc_header){IPC_VERSION, IPC_RUN, job};
    ret_run->width = request->width;
    ret_run->height = request->height;
    ret_run->steps = request->steps;
    ret_run->count = request->count;
    ret_run->scheduler = request->scheduler;
    ret_run->guidance_scale = request->guidance_scale;
    ret_run->seed = request->seed;
    ret_run->prompt_length = copy_prompt(request->prompt, ret_run->prompt);
    ret_run->negative_prompt_length =
        copy_prompt(request->negative_prompt, ret_run->negative_prompt);
}

int ipc_run_to_request(const struct ipc_run *run, struct request *ret_request)
{
    if (!is_prompt(run->prompt, run->prompt_length) ||
        !is_prompt(run->negative_prompt, run->negative_prompt_length) ||
        run->scheduler >= SCHEDULER_KIND_COUNT || run->count > REQUEST_COUNT_MAX)
        return -EPROTO;
    _cleanup_(freep) char *prompt = strdup(run->prompt);
    _cleanup_(freep) char *negative_prompt = strdup(run->negative_prompt);
    if (!prompt || !negative_prompt)
        return -ENOMEM;
    *ret_request = (struct request){
        .prompt = TAKE_PTR(prompt),
        .negative_prompt = TAKE_PTR(negative_prompt),
        .width = run->width,
        .height = run->height,
        .steps = run->steps,
        .guidance_scale = run->guidance_scale,
        .seed = run->seed,
        .count = run->count,
        .scheduler = run->scheduler,
        .set = (UINT64_C(1) << REQUEST_ROW_COUNT) - 1,
    };
    return 0;
}
