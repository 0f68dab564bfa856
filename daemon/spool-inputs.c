/* Pictures that jobs start from: copied into the job's directory, whatever their descriptor is.
 * What is wrong with them is their owner's fault and must not look like a failing disk. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "daemon/spool-internal.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"

#define COPY_BYTES 65536u

struct copy {
    int to;
    struct sha256 sum;
    uint64_t bytes;
    uint8_t *buffer; /* COPY_BYTES */
};

static int read_some(int fd, const struct copy *c)
{
    ssize_t n;

    do
        n = pread(fd, c->buffer, COPY_BYTES, (off_t)c->bytes);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int)n;
}

/* One block further: 1; 0 at the end. -EINVAL and f: the input's fault. */
static int copy_block(struct job_input *input, const char *what, struct copy *c, struct fault *f)
{
    int n = read_some(input->fd, c);

    if (n < 0)
        return fault_set(f, -EINVAL, "%s: cannot be read: %s", what, strerror(-n));
    if (c->bytes == 0 && (input->format = job_input_format(c->buffer, (size_t)n)) == 0)
        return fault_set(f, -EINVAL, "%s: neither a PNG nor a JPEG file", what);
    if (n == 0)
        return 0;
    int r = file_write_all(c->to, c->buffer, (size_t)n);
    sha256_feed(&c->sum, c->buffer, (size_t)n);
    c->bytes += (uint64_t)n;
    if (c->bytes > JOB_INPUT_BYTES_MAX)
        return fault_set(f, -EINVAL, "%s: more than %" PRIu64 " MiB", what,
                         JOB_INPUT_BYTES_MAX >> 20);
    return r < 0 ? r : 1;
}

/* Whoever serves the file system could let us wait for ever. The kernel says so without asking him,
 * where he is another user: fuse_statfs() of Linux. */
static bool is_served(int fd)
{
    struct statfs st;

    return fstatfs(fd, &st) == 0 && st.f_type == FUSE_SUPER_MAGIC;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* All of it; a file that is written to meanwhile is no picture of anything. */
static int copy_all(struct job_input *input, const char *what, struct copy *c, struct fault *f)
{
    struct stat before, after;
    int r;

    if (is_served(input->fd))
        return fault_set(f, -EINVAL,
                         "%s: its file system is served by a program (FUSE); send a copy", what);
    if (fstat(input->fd, &before) < 0 || !S_ISREG(before.st_mode))
        return fault_set(f, -EINVAL, "%s: no regular file", what);
    while ((r = copy_block(input, what, c, f)) > 0)
        continue;
    if (r < 0)
        return r;
    if (fstat(input->fd, &after) < 0 || !is_same(&before, &after) ||
        (uint64_t)after.st_size != c->bytes)
        return fault_set(f, -EINVAL, "%s: was changed while it was taken up", what);
    return fsync(c->to) < 0 ? -errno : 0;
}

static int write_input(int directory, struct job *job, enum job_input_kind kind, struct fault *f)
{
    const char *what = request_rows[job_input_row(kind)].name;
    _cleanup_(freep) uint8_t *buffer = malloc(COPY_BYTES);
    struct job_input *input = &job->inputs[kind];
    uint8_t digest[SHA256_SIZE];
    struct copy c = {.buffer = buffer};

    if (!buffer)
        return -ENOMEM;
    _cleanup_(closep) int to =
        openat(directory, what, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return -errno;
    c.to = to;
    sha256_init(&c.sum);
    int r = copy_all(input, what, &c, f);
    if (r < 0)
        return r;
    sha256_finish(&c.sum, digest);
    sha256_format(digest, input->sha256);
    input->bytes = c.bytes;
    if (renameat(directory, what, directory, job_input_name(kind, input->format)) < 0)
        return -errno;
    return 0;
}

int spool_write_inputs(int directory, struct job *job, struct fault *f)
{
    int r = 0;

    for (unsigned i = 0; i < JOB_INPUT_COUNT && r == 0; i++)
        if (job->inputs[i].fd >= 0)
            r = write_input(directory, job, i, f);
    return r < 0 ? r : job_name_inputs(job);
}

int spool_check_inputs(int directory, const struct job *job, struct fault *f)
{
    struct stat st;

    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        const char *name = job_input_name(i, job->inputs[i].format);
        if (!*name)
            continue;
        if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return fault_set(f, -errno, "%s: %s", name, strerror(errno));
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != job->inputs[i].bytes)
            return fault_set(f, -EINVAL, "%s: %" PRIu64 " bytes, want %" PRIu64, name,
                             (uint64_t)st.st_size, job->inputs[i].bytes);
    }
    return 0;
}
