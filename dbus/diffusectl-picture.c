/* Pictures on their way to the daemon, and looks at what it makes. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define PICTURE_MAX (64u << 20) /* bytes we read; how large one may be is the daemon's to say */
#define COPY_BYTES  65536u

static void unref_message(sd_bus_message **m)
{
    (void)sd_bus_message_unref(*m);
}

/* --- in --------------------------------------------------------------------------------------- */

static int copy(int from, int to, uint64_t *ret_bytes)
{
    char buffer[COPY_BYTES];
    uint64_t bytes = 0;
    ssize_t n;

    while ((n = read(from, buffer, sizeof buffer)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += (uint64_t)n;
        if (bytes > PICTURE_MAX)
            return -EFBIG;
        int r = file_write_all(to, buffer, (size_t)n);
        if (r < 0)
            return r;
    }
    *ret_bytes = bytes;
    return 0;
}

int ctl_open_picture(const char *path, int *ret_fd)
{
    const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    bool is_stdin = strcmp(path, "-") == 0;
    _cleanup_(closep) int file = is_stdin ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                                          : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    _cleanup_(closep) int memfd = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    uint64_t bytes = 0;

    int r = file < 0 || memfd < 0 ? -errno : copy(file, memfd, &bytes);
    if (r == 0 && fcntl(memfd, F_ADD_SEALS, seals) < 0)
        r = -errno;
    if (r < 0)
        return ctl_error(CTL_EXIT_FAILED, "%s: %s", is_stdin ? "standard input" : path,
                         strerror(-r));
    if (bytes == 0)
        return ctl_error(CTL_EXIT_FAILED, "%s: the file is empty",
                         is_stdin ? "standard input" : path);
    *ret_fd = TAKE_FD(memfd);
    return 0;
}

/* --- previews --------------------------------------------------------------------------------- */

static int read_place(sd_bus_message *m, uint32_t *ret_picture, uint32_t *ret_step)
{
    const char *key;
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");

    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = sd_bus_message_read_basic(m, 's', &key);
        if (r < 0)
            return r;
        uint32_t *to = strcmp(key, "picture") == 0 ? ret_picture
                       : strcmp(key, "step") == 0  ? ret_step
                                                   : NULL;
        r = to ? sd_bus_message_read(m, "v", "u", to) : sd_bus_message_skip(m, "v");
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    return r < 0 ? r : 0;
}

static bool is_directory(const char *path)
{
    struct stat st;
    size_t n = strlen(path);

    return (n > 0 && path[n - 1] == '/') || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

static int write_preview(int fd, const char *where, uint32_t picture, uint32_t step)
{
    char path[CTL_PATH_SIZE];
    struct fault f = {0};
    struct stat st;

    if (fstat(fd, &st) < 0)
        return ctl_error(CTL_EXIT_FAILED, "preview: %s", strerror(errno));
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return ctl_error(CTL_EXIT_FAILED, "preview: %s", strerror(errno));
    if (is_directory(where))
        (void)snprintf(path, sizeof path, "%s/preview-%" PRIu32 "-%03" PRIu32 ".png", where,
                       picture, step);
    else
        (void)snprintf(path, sizeof path, "%s", where);
    int r = file_write_atomic(path, data, (size_t)st.st_size, &f);
    (void)munmap(data, (size_t)st.st_size); /* cannot fail with what mmap gave */
    return r < 0 ? ctl_error(CTL_EXIT_FAILED, "%s", f.text) : 0;
}

int ctl_save_preview(sd_bus *bus, uint64_t id, const char *where)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    char path[CTL_PATH_MAX];
    uint32_t picture = 0, step = 0;
    int fd;

    ctl_job_path(id, path);
    int r = sd_bus_call_method(bus, CTL_BUS_NAME, path, CTL_JOB, "GetPreview", &error, &reply, "");
    if (r < 0)
        return 0; /* the job has ended meanwhile; else its end will say more */
    r = sd_bus_message_read_basic(reply, 'h', &fd);
    if (r >= 0)
        r = read_place(reply, &picture, &step);
    return r < 0 ? ctl_bus_failed(NULL, r) : write_preview(fd, where, picture, step);
}
