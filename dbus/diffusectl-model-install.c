/* A model from a stick into place: copied beside its place under a hidden name, hashed on the way,
 * compared with the source's SHA256SUMS where it has one, read by the worker's own parsers (as
 * nobody), flushed, renamed. What an interrupted install leaves behind is removed by the next. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "dbus/diffusectl-model.h"
#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define CHUNK        (1u << 20)
#define KEEP_FREE    (64u << 20) /* bytes of the file system that an install leaves */
#define SUMS_MAX     (256u << 10)
#define REMOVE_DEPTH 8
#define NOBODY       65534 /* Debian's and everybody's uid and gid of nobody */

struct staging {
    struct model_install *install;
    int models, directory;     /* descriptors; directory: of the copy */
    char name[MODEL_PATH_MAX]; /* the copy's, hidden */
    struct model_sums sums;    /* of what was copied */
    char *source_sums;         /* text of the source's SHA256SUMS; NULL: it has none */
    char *chunk;
    uint64_t bytes;
};

/* --- removal ---------------------------------------------------------------------------------- */

static int remove_tree(int parent, const char *name, unsigned depth)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_(closedirp) DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory || depth == 0) {
        int r = depth ? -errno : -ELOOP;
        if (!directory)
            closep(&fd);
        return r;
    }
    const struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int r = remove_tree(fd, entry->d_name, depth - 1);
        if (r < 0)
            return r;
    }
    return unlinkat(parent, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

static void staging_done(struct staging *s)
{
    if (s->name[0])
        (void)remove_tree(s->models, s->name, REMOVE_DEPTH); /* else the next install does */
    closep(&s->directory);
    closep(&s->models);
    model_sums_done(&s->sums);
    free(s->source_sums);
    free(s->chunk);
}

/* --- copying ---------------------------------------------------------------------------------- */

static int check_space(const struct staging *s, const struct model_file *file, struct fault *f)
{
    struct statvfs v;

    if (fstatvfs(s->directory, &v) < 0)
        return fault_set(f, -errno, "%s: %s", s->install->models, strerror(errno));
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize;
    if (file->size <= room && room - file->size >= KEEP_FREE)
        return 0;
    return fault_set(f, -ENOSPC, "%s: %" PRIu64 " MiB, but %s has only %" PRIu64 " MiB free",
                     file->path, file->size >> 20, s->install->models, room >> 20);
}

/* A new file below the copy; its folder is made when it is not there yet. */
static int create(const struct staging *s, const char *path, int *ret_fd, struct fault *f)
{
    const char *slash = strchr(path, '/');
    char folder[MODEL_PATH_MAX];

    if (slash) {
        (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
        if (mkdirat(s->directory, folder, 0755) < 0 && errno != EEXIST)
            return fault_set(f, -errno, "%s: %s", folder, strerror(errno));
        if (fchmodat(s->directory, folder, 0755, 0) < 0)
            return fault_set(f, -errno, "%s: %s", folder, strerror(errno));
    }
    int fd = openat(s->directory, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd >= 0 && fchmod(fd, 0644) < 0) { /* whatever the umask */
        closep(&fd);
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    }
    if (fd < 0 && errno == EEXIST)
        return fault_set(f, -EINVAL, "%s: comes a second time", path);
    if (fd < 0)
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    *ret_fd = fd;
    return 0;
}

static int copy_file(struct staging *s, const struct model_file *file, struct fault *f)
{
    _cleanup_(closep) int fd = -1;
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];
    struct sha256 sum;
    uint64_t total = 0;
    int64_t n;

    int r = check_space(s, file, f);
    if (r >= 0)
        r = create(s, file->path, &fd, f);
    if (r < 0)
        return r;
    if (isatty(STDERR_FILENO))
        (void)fprintf(stderr, "copying %s (%.1f MiB)\n", file->path, (double)file->size / 1048576);
    sha256_init(&sum);
    while ((n = file->read(file->reader, s->chunk, CHUNK, f)) > 0) {
        total += (uint64_t)n;
        if (total > file->size)
            break;
        sha256_feed(&sum, s->chunk, (size_t)n);
        r = file_write_all(fd, s->chunk, (size_t)n);
        if (r < 0)
            return fault_set(f, r, "%s: %s", file->path, strerror(-r));
    }
    if (n < 0)
        return (int)n;
    if (total != file->size)
        return fault_set(f, -ESTALE, "%s: changes while it is copied", file->path);
    sha256_finish(&sum, digest);
    sha256_format(digest, hex);
    s->install->files++;
    s->install->bytes += total;
    return model_sums_add(&s->sums, file->path, hex, f);
}

static int keep_source_sums(struct staging *s, const struct model_file *file, struct fault *f)
{
    size_t size = 0;
    int64_t n = 0;

    if (file->size > SUMS_MAX || s->source_sums)
        return fault_set(f, -EINVAL, "%s: %s", file->path,
                         s->source_sums ? "comes a second time" : "too long");
    s->source_sums = malloc(SUMS_MAX + 1);
    if (!s->source_sums)
        return fault_set(f, -ENOMEM, "out of memory");
    while (size < SUMS_MAX &&
           (n = file->read(file->reader, s->source_sums + size, SUMS_MAX - size, f)) > 0)
        size += (size_t)n;
    s->source_sums[size] = '\0';
    return n < 0 ? (int)n : 0;
}

static int take(const struct model_file *file, void *userdata, struct fault *f)
{
    struct staging *s = userdata;

    if (file->size > MODEL_BYTES_MAX - s->bytes)
        return fault_set(f, -EFBIG, "%s: a model of more than %llu GiB", file->path,
                         MODEL_BYTES_MAX >> 30);
    switch (file->fate) {
    case MODEL_COPY:
        s->bytes += file->size;
        return copy_file(s, file, f);
    case MODEL_SUMS_FILE:
        return keep_source_sums(s, file, f);
    case MODEL_PICKLE:
        return ctl_error(0, "%s: not copied: a pickle could hold a program", file->path);
    default:
        return ctl_error(0, "%s: not copied: no part of a model", file->path);
    }
}

static int copy_source(struct staging *s, struct fault *f)
{
    struct stat st;
    _cleanup_(closep) int fd = open(s->install->source, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0)
        return fault_set(f, -errno, "%s: %s", s->install->source, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return model_walk(fd, take, s, f);
    if (!S_ISREG(st.st_mode))
        return fault_set(f, -EINVAL, "%s: neither a directory nor an archive", s->install->source);
    return model_walk_archive(s->install->source, take, s, f);
}

/* --- checks ----------------------------------------------------------------------------------- */

/* A source that brings hashes must have all files right, and list all of them. */
static int compare_sums(struct staging *s, struct fault *f)
{
    _cleanup_(model_sums_done) struct model_sums want = {0};

    if (!s->source_sums)
        return 0;
    int r = model_sums_parse(s->source_sums, &want, f);
    for (size_t i = 0; r >= 0 && i < s->sums.list.count; i++) {
        const struct model_sum *is = &s->sums.list.items[i];
        struct model_sum *sum = model_sums_find(&want, is->path);
        if (!sum)
            return fault_set(f, -EBADMSG, "%s: not listed in the source's " MODEL_SUMS, is->path);
        if (strcmp(sum->hex, is->hex) != 0)
            return fault_set(f, -EBADMSG,
                             "%s: damaged: its hash is not that of the source's " MODEL_SUMS,
                             is->path);
        sum->seen = true;
    }
    for (size_t i = 0; r >= 0 && i < want.list.count; i++) {
        if (!want.list.items[i].seen)
            return fault_set(f, -ENOENT, "%s: listed in " MODEL_SUMS ", but missing",
                             want.list.items[i].path);
    }
    s->install->is_verified = r >= 0;
    return r;
}

/* The engine's own readers, by somebody who may do nothing: the bytes are a stranger's. */
static int check_model(const struct staging *s, struct fault *f)
{
    static const char *const arguments[] = {"diffused-worker", "--check-model", "--model", ".",
                                            NULL};
    const struct ctl_program program = {.name = "diffused-worker",
                                        .arguments = arguments,
                                        .directory = s->directory,
                                        .uid = NOBODY,
                                        .gid = NOBODY};
    _cleanup_(ctl_output_done) struct ctl_output o = {0};

    if (ctl_run(&program, &o) != 0)
        return fault_set(f, -ENOENT, "the model cannot be checked");
    if (o.status == 0)
        return 0;
    const char *text = ctl_first_line(o.err);
    if (strncmp(text, "./", 2) == 0)
        text += 2;
    return fault_set(f, -EINVAL, "no model for this engine: %s", *text ? text : "the check died");
}

static int write_sums(struct staging *s, struct fault *f)
{
    _cleanup_(freep) char *text = model_sums_format(&s->sums);
    _cleanup_(closep) int fd = -1;

    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = create(s, MODEL_SUMS, &fd, f);
    if (r < 0)
        return r;
    r = file_write_all(fd, text, strlen(text));
    return r < 0 ? fault_set(f, r, MODEL_SUMS ": %s", strerror(-r)) : 0;
}

/* --- into place ------------------------------------------------------------------------------- */

static int open_models(struct staging *s, struct fault *f)
{
    const char *path = s->install->models;
    int r = file_make_directories(path);

    if (r >= 0) {
        s->models = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = s->models < 0 ? -errno : 0;
    }
    if (r < 0)
        return fault_set(f, r, "%s: %s%s", path, strerror(-r),
                         r == -EACCES ? " (root installs models; --models DIR names another place)"
                                      : "");
    if (flock(s->models, LOCK_EX | LOCK_NB) < 0)
        return fault_set(f, -errno, "%s: another install is under way", path);
    return 0;
}

static int open_copy(struct staging *s, struct fault *f)
{
    char name[MODEL_PATH_MAX];

    (void)snprintf(name, sizeof name, ".%s.new", s->install->name);
    int r = remove_tree(s->models, name, REMOVE_DEPTH);
    if (r >= 0)
        r = mkdirat(s->models, name, 0700) < 0 ? -errno : 0;
    if (r < 0)
        return fault_set(f, r, "%s/%s: %s%s", s->install->models, name, strerror(-r),
                         r == -EACCES ? " (root installs models; --models DIR names another place)"
                                      : "");
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    s->directory = openat(s->models, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    s->chunk = malloc(CHUNK);
    if (s->directory < 0 || !s->chunk)
        return fault_set(f, -errno, "%s/%s: %s", s->install->models, name, strerror(errno));
    return 0;
}

/* A file or folder of the copy to the disk. */
static int sync_one(const struct staging *s, const char *path, struct fault *f)
{
    _cleanup_(closep) int fd = openat(s->directory, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

/* All of the copy to the disk: only what has passed the checks is worth the wait. */
static int sync_all(const struct staging *s, struct fault *f)
{
    char folder[MODEL_PATH_MAX];
    int r = sync_one(s, MODEL_SUMS, f);

    for (size_t i = 0; r >= 0 && i < s->sums.list.count; i++) {
        const char *path = s->sums.list.items[i].path, *slash = strchr(path, '/');
        (void)snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 0, path);
        r = sync_one(s, path, f);
        if (r >= 0 && slash)
            r = sync_one(s, folder, f);
    }
    return r < 0 ? r : sync_one(s, ".", f);
}

static int move_into_place(struct staging *s, struct fault *f)
{
    const struct model_install *i = s->install;
    int r = renameat2(s->models, s->name, s->models, i->name, RENAME_NOREPLACE);

    if (r < 0 && errno == EEXIST && i->replaces)
        r = renameat2(s->models, s->name, s->models, i->name, RENAME_EXCHANGE);
    else if (r == 0)
        s->name[0] = '\0'; /* nothing is left to remove; after an exchange the old one is */
    if (r < 0)
        return fault_set(f, -errno, "%s/%s: %s", i->models, i->name, strerror(errno));
    if (fsync(s->models) < 0)
        return fault_set(f, -errno, "%s: %s", i->models, strerror(errno));
    return 0;
}

int model_install(struct model_install *install, struct fault *f)
{
    _cleanup_(staging_done) struct staging s = {.install = install, .models = -1, .directory = -1};
    struct stat st;

    int r = open_models(&s, f);
    if (r < 0)
        return r;
    if (!install->replaces && fstatat(s.models, install->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return fault_set(f, -EEXIST, "%s/%s is there already; --replace replaces it",
                         install->models, install->name);
    r = open_copy(&s, f);
    if (r >= 0)
        r = copy_source(&s, f);
    if (r >= 0 && install->files == 0)
        r = fault_set(f, -ENOENT, "%s: no files of a model in it", install->source);
    if (r >= 0)
        r = compare_sums(&s, f);
    if (r >= 0)
        r = write_sums(&s, f);
    if (r >= 0 && fchmod(s.directory, 0755) < 0)
        r = fault_set(f, -errno, "%s: %s", s.name, strerror(errno));
    if (r >= 0)
        r = check_model(&s, f);
    if (r >= 0)
        r = sync_all(&s, f);
    return r < 0 ? r : move_into_place(&s, f);
}
