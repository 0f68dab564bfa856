/* Users may write into the folder, so the names working, done and failed could have been taken
 * before us: what is there and not a directory of ours is set aside (and then judged like anything
 * else that was dropped). After that the sticky bit or our ownership keeps others from moving them;
 * a folder without either is warned of. */
#include "daemon/drop-folder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "vk/base/file.h"
#include "vk/base/log.h"

#define ASIDE_MAX 99u

const char *const drop_dir_names[DROP_DIR_COUNT] = {
    [DROP_DIR_WORKING] = "working",
    [DROP_DIR_DONE] = "done",
    [DROP_DIR_FAILED] = "failed",
};

/* The group reads results; what is being worked on is nobody's business. */
static const mode_t dir_modes[DROP_DIR_COUNT] = {
    [DROP_DIR_WORKING] = 02700,
    [DROP_DIR_DONE] = 02750,
    [DROP_DIR_FAILED] = 02750,
};

/* --- small things ----------------------------------------------------------------------------- */

int drop_open_directory(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

DIR *drop_open_list(int directory)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);

    if (fd >= 0 && !list)
        (void)close(fd); /* errno is fdopendir's: close of a good descriptor leaves it */
    return list;
}

int drop_list_next(DIR *list, const char **ret_name)
{
    const struct dirent *entry;

    for (;;) {
        errno = 0; /* the end is told from an error by it alone */
        entry = readdir(list);
        if (!entry)
            return -errno;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            break;
    }
    *ret_name = entry->d_name;
    return 1;
}

int drop_open_input(int directory, const char *name)
{
    const struct open_how how = {
        .flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };

    int fd = (int)syscall(SYS_openat2, directory, name, &how, sizeof how);
    if (fd < 0 && errno == ENOSYS) /* before Linux 5.6: a single name below a directory of ours */
        fd = openat(directory, name, (int)how.flags);
    return fd < 0 ? -errno : fd;
}

bool drop_exists(int directory, const char *name)
{
    struct stat st;

    return fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

int drop_move(int from, const char *name, int to, const char *to_name)
{
    if (renameat2(from, name, to, to_name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (drop_exists(to, to_name)) /* a file system without it; the targets are ours alone */
        return -EEXIST;
    return renameat(from, name, to, to_name) < 0 ? -errno : 0;
}

int drop_sync(int fd)
{
    return fsync(fd) < 0 ? -errno : 0;
}

bool drop_is_passing(int err)
{
    static const int passing[] = {ENOSPC, EDQUOT, EROFS,  EIO,   ENOMEM, EMFILE,
                                  ENFILE, ESTALE, EAGAIN, EINTR, EFBIG,  ETIMEDOUT};

    for (size_t i = 0; i < ARRAY_SIZE(passing); i++) {
        if (err == -passing[i])
            return true;
    }
    return false;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void temporary_name(const char *key, char ret_name[DROP_KEY_SIZE + 8])
{
    (void)snprintf(ret_name, DROP_KEY_SIZE + 8, ".%.*s.tmp", DROP_KEY_SIZE - 1, key);
}

void drop_abandon_file(int directory, const char *key)
{
    char name[DROP_KEY_SIZE + 8];

    temporary_name(key, name);
    (void)unlinkat(directory, name, 0); /* what stays is swept up at the next start */
}

int drop_begin_file(int directory, const char *key, mode_t mode)
{
    char name[DROP_KEY_SIZE + 8];

    temporary_name(key, name);
    (void)unlinkat(directory, name, 0); /* an earlier attempt's, if any */
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (fchmod(fd, mode) == 0)
        return fd;
    int r = -errno;
    (void)close(fd);
    drop_abandon_file(directory, key);
    return r;
}

int drop_finish_file(int directory, const char *key, const char *name, int fd)
{
    char temporary[DROP_KEY_SIZE + 8];

    int r = drop_sync(fd);
    if (r < 0)
        return r;
    temporary_name(key, temporary);
    return drop_move(directory, temporary, directory, name);
}

int drop_write_file(int directory, const char *key, const char *name, const void *data, size_t size,
                    mode_t mode)
{
    _cleanup_(closep) int fd = drop_begin_file(directory, key, mode);

    if (fd < 0)
        return fd;
    int r = file_write_all(fd, data, size);
    if (r == 0)
        r = drop_finish_file(directory, key, name, fd);
    if (r < 0)
        drop_abandon_file(directory, key);
    return r;
}

/* --- opening ---------------------------------------------------------------------------------- */

void drop_folder_init(struct drop_folder *folder, const char *path)
{
    *folder = (struct drop_folder){.path = path, .intake = -1};
    for (unsigned i = 0; i < DROP_DIR_COUNT; i++)
        folder->dirs[i] = -1;
}

void drop_folder_close(struct drop_folder *folder)
{
    closep(&folder->intake);
    folder->intake = -1;
    for (unsigned i = 0; i < DROP_DIR_COUNT; i++) {
        closep(&folder->dirs[i]);
        folder->dirs[i] = -1;
    }
}

bool drop_folder_is_current(const struct drop_folder *folder)
{
    struct stat st, own;

    if (folder->intake < 0 || stat(folder->path, &st) < 0 || st.st_dev != folder->device ||
        st.st_ino != folder->inode)
        return false;
    for (unsigned i = 0; i < DROP_DIR_COUNT; i++) {
        if (fstatat(folder->intake, drop_dir_names[i], &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            fstat(folder->dirs[i], &own) < 0 || st.st_ino != own.st_ino)
            return false;
    }
    return true;
}

bool drop_folder_is_ours(const char *name)
{
    for (unsigned i = 0; i < DROP_DIR_COUNT; i++) {
        if (strcmp(name, drop_dir_names[i]) == 0)
            return true;
    }
    return false;
}

/* A directory of ours (or root's) called `name`, or a negative error. */
static int open_own(int intake, const char *name, mode_t mode)
{
    struct stat st;

    if (mkdirat(intake, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    _cleanup_(closep) int fd = drop_open_directory(intake, name);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return -ENOTDIR; /* of ours */
    if ((st.st_mode & 07777) != mode && st.st_uid == geteuid() && fchmod(fd, mode) < 0)
        return -errno;
    return TAKE_FD(fd);
}

/* Somebody was quicker to take one of our names: it gets another. */
static int set_aside(int intake, const char *name)
{
    char aside[32];
    int r = -EEXIST;

    for (unsigned n = 1; n <= ASIDE_MAX && r == -EEXIST; n++) {
        (void)snprintf(aside, sizeof aside, "%s~%u", name, n);
        r = drop_move(intake, name, intake, aside);
    }
    return r;
}

static int open_part(struct drop_folder *folder, enum drop_dir which, struct fault *f)
{
    const char *name = drop_dir_names[which];
    struct stat st;

    int fd = open_own(folder->intake, name, dir_modes[which]);
    if ((fd == -ELOOP || fd == -ENOTDIR) && set_aside(folder->intake, name) == 0) {
        log_warning("drop: %s/%s was not a directory of ours; set aside", folder->path, name);
        fd = open_own(folder->intake, name, dir_modes[which]);
    }
    if (fd < 0)
        return fault_set(f, fd, "drop: %.128s/%s: %s", folder->path, name, strerror(-fd));
    folder->dirs[which] = fd;
    if (fstat(fd, &st) == 0 && st.st_dev != folder->device)
        return fault_set(f, -EXDEV, "drop: %.128s/%s is on another file system: unmount it",
                         folder->path, name);
    return 0;
}

static int open_intake(struct drop_folder *folder, struct fault *f)
{
    bool made = mkdir(folder->path, 0700) == 0;
    struct stat st;

    if (!made && errno != EEXIST)
        return fault_set(f, -errno, "drop: %.160s: %s", folder->path, strerror(errno));
    folder->intake = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->intake < 0 || fstat(folder->intake, &st) < 0)
        return fault_set(f, -errno, "drop: %.160s: %s", folder->path, strerror(errno));
    if (made && fchmod(folder->intake, 03770) < 0)
        return fault_set(f, -errno, "drop: %.160s: %s", folder->path, strerror(errno));
    folder->device = st.st_dev;
    folder->inode = st.st_ino;
    if (!made && (st.st_mode & 022) && !(st.st_mode & S_ISVTX) && !folder->warned)
        log_warning("drop: %s: others may move users' files; chmod +t it", folder->path);
    folder->warned = true;
    return 0;
}

/* Our own unfinished files of an earlier run. */
static void sweep(int directory)
{
    _cleanup_(closedirp) DIR *list = drop_open_list(directory);
    struct dirent *entry;
    char key[DROP_KEY_SIZE], again[DROP_KEY_SIZE + 8];

    while (list && (entry = readdir(list))) {
        if (entry->d_name[0] != '.' || strlen(entry->d_name) != DROP_KEY_SIZE + 4)
            continue;
        (void)snprintf(key, sizeof key, "%.*s", DROP_KEY_SIZE - 1, entry->d_name + 1);
        temporary_name(key, again);
        if (drop_key_is_valid(key) && strcmp(again, entry->d_name) == 0)
            drop_abandon_file(directory, key);
    }
}

static int open_all(struct drop_folder *folder, struct fault *f)
{
    int r = open_intake(folder, f);

    for (unsigned i = 0; i < DROP_DIR_COUNT && r == 0; i++)
        r = open_part(folder, i, f);
    if (r < 0)
        return r;
    r = drop_sync(folder->intake);
    if (r < 0)
        return fault_set(f, r, "drop: %.160s: %s", folder->path, strerror(-r));
    sweep(folder->dirs[DROP_DIR_DONE]);
    sweep(folder->dirs[DROP_DIR_FAILED]);
    return 0;
}

int drop_folder_open(struct drop_folder *folder, struct fault *f)
{
    int r = open_all(folder, f);

    if (r < 0)
        drop_folder_close(folder);
    return r;
}
