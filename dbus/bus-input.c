/* Pictures come in as descriptors, never as paths. Whoever sends one may still hold it, write to
 * it, or serve its file system: so its kind is asked of the kernel without asking that file
 * system, and nothing is read here. The spool copies it, and takes only what did not change
 * meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dbus/bus-internal.h"

static int check_input(int fd, const char *what, uint64_t *ret_bytes, struct fault *f)
{
    struct statx st;

    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY)
        return fault_set(f, -EINVAL, "%s: the descriptor cannot be read from", what);
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE, &st) < 0)
        return fault_set(f, -EINVAL, "%s: %s", what, strerror(errno));
    if (!S_ISREG(st.stx_mode))
        return fault_set(f, -EINVAL,
                         "%s: want a descriptor of a regular file or memfd, not of a %s", what,
                         S_ISFIFO(st.stx_mode)   ? "pipe"
                         : S_ISSOCK(st.stx_mode) ? "socket"
                         : S_ISDIR(st.stx_mode)  ? "directory"
                                                 : "device");
    if (st.stx_size == 0)
        return fault_set(f, -EINVAL, "%s: the file is empty", what);
    if (st.stx_size > JOB_INPUT_BYTES_MAX)
        return fault_set(f, -EFBIG, "%s: %" PRIu64 " bytes; at most %" PRIu64 " MiB are taken",
                         what, (uint64_t)st.stx_size, JOB_INPUT_BYTES_MAX >> 20);
    *ret_bytes = st.stx_size;
    return 0;
}

int bus_take_input(int fd, const char *what, struct job_input *ret_input, struct fault *f)
{
    uint64_t bytes = 0;

    int r = check_input(fd, what, &bytes, f);
    if (r < 0)
        return r;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0)
        return fault_set(f, -errno, "%s: %s", what, strerror(errno));
    *ret_input = (struct job_input){.fd = own, .bytes = bytes};
    return 0;
}

void bus_drop_inputs(struct job_input *inputs)
{
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        closep(&inputs[i].fd);
        inputs[i].fd = -1;
    }
}
