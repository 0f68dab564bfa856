#include "vk/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "vk/base/cleanup.h"

int file_path(char ret_path[static PATH_MAX], struct fault *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vsnprintf(ret_path, PATH_MAX, format, args);
    va_end(args);
    return n < PATH_MAX ? 0 : fault_set(f, -ENAMETOOLONG, "%.100s…: path too long", ret_path);
}

bool file_has_ending(const char *name, const char *ending)
{
    size_t n = strlen(name), m = strlen(ending);

    return n >= m && strcmp(name + n - m, ending) == 0;
}

const char *const file_pickles[] = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", NULL};

bool file_is_pickle(const char *name)
{
    for (size_t i = 0; file_pickles[i]; i++)
        if (file_has_ending(name, file_pickles[i]))
            return true;
    return false;
}

int file_error(int errno_value)
{
    return errno_value == EIO ? -ENODATA : -errno_value;
}

/* Reads until end of file or `size` bytes. Returns the count or -errno. */
static ssize_t read_up_to(int fd, char *data, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, data + done, size - done);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int file_read(const char *path, size_t limit, char **ret_data, size_t *ret_size, struct fault *f)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;

    if (fd < 0)
        return fault_set(f, file_error(errno), "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0)
        return fault_set(f, file_error(errno), "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fault_set(f, -EINVAL, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > limit)
        return fault_set(f, -EFBIG, "%s: larger than %zu bytes", path, limit);
    _cleanup_(freep) char *data = malloc((size_t)st.st_size + 1);
    if (!data)
        return fault_set(f, -ENOMEM, "%s: out of memory", path);
    ssize_t n = read_up_to(fd, data, (size_t)st.st_size);
    if (n < 0)
        return fault_set(f, file_error((int)-n), "%s: %s", path, strerror((int)-n));
    data[n] = '\0';
    *ret_size = (size_t)n;
    *ret_data = TAKE_PTR(data);
    return 0;
}

int file_write_all(int fd, const void *data, size_t size)
{
    const char *p = data;

    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int file_write_atomic(const char *path, const void *data, size_t size, struct fault *f)
{
    char temporary[PATH_MAX];

    int r = file_path(temporary, f, "%s.%d.tmp", path, (int)getpid());
    if (r < 0)
        return r;
    _cleanup_(closep) int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return fault_set(f, -errno, "%s: %s", temporary, strerror(errno));
    r = file_write_all(fd, data, size);
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(temporary); /* best effort: the name is ours alone */
        return fault_set(f, r, "%s: %s", path, strerror(-r));
    }
    return 0;
}

int file_make_directories(const char *path)
{
    char part[PATH_MAX];
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof part)
        return -EINVAL;
    memcpy(part, path, n + 1);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char keep = *p;
        *p = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        if (keep == '\0')
            return 0;
        *p = keep;
    }
}
