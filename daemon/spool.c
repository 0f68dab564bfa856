/* Every file is written under tmp/, fsynced and renamed to where readers look; every job changes
 * its state by one rename of its directory, after which both directories are fsynced. So after a
 * kill or a power cut at any point a job is whole and in exactly one state, and what was answered
 * is on disk. put_file() and move_job() are the two places where that is made true. */
#include "daemon/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "daemon/record.h"
#include "daemon/spool-internal.h"
#include "vk/base/file.h"

#define NOBODY           ((gid_t)-1)
#define LOCK_TRIES       50u
#define LOCK_NSEC        20000000     /* between them: a second in all */
#define PICTURE_SIZE_MAX (256u << 20) /* bytes; 2048 x 2048 x 3 is 12 MB */

static int spool_fault(struct fault *f, int err, const char *what, uint64_t id)
{
    bool full = err == -ENOSPC || err == -EDQUOT || err == -EFBIG;

    return fault_set(f,
                     full             ? -ENOSPC
                     : err == -ENOMEM ? err
                                      : -ENOTRECOVERABLE,
                     "spool: job %" PRIu64 ": %s: %s", id, what, strerror(-err));
}

const char *spool_id_text(uint64_t id, char text[SPOOL_ID_TEXT_SIZE])
{
    (void)snprintf(text, SPOOL_ID_TEXT_SIZE, "%" PRIu64, id);
    return text;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int open_directory(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int sync_fd(int fd)
{
    return fsync(fd) < 0 ? -errno : 0;
}

/* *made becomes true when it was not there. */
static int make_directory(int parent, const char *name, int *ret_fd, bool *made)
{
    if (mkdirat(parent, name, 0700) == 0)
        *made = true;
    else if (errno != EEXIST)
        return -errno;
    int fd = open_directory(parent, name);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

static int open_parts(struct spool *spool, const char **ret_part)
{
    bool made = false;
    int r;

    *ret_part = "tmp";
    if ((r = make_directory(spool->directory, *ret_part, &spool->tmp, &made)) < 0)
        return r;
    *ret_part = "corrupt";
    if ((r = make_directory(spool->directory, *ret_part, &spool->corrupt, &made)) < 0)
        return r;
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
        *ret_part = job_state_to_string(i);
        if ((r = make_directory(spool->directory, *ret_part, &spool->states[i], &made)) < 0)
            return r;
    }
    *ret_part = "";
    r = sync_fd(spool->directory); /* what a killed start has made is not durable yet, either */
    return made ? r : 0;
}

/* A child of a killed daemon holds its lock until it has become another program, or has died. */
static int lock(int directory)
{
    for (unsigned tries = 0; flock(directory, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK || tries == LOCK_TRIES)
            return -errno;
        (void)nanosleep(&(struct timespec){.tv_nsec = LOCK_NSEC}, NULL); /* cut short: fine */
    }
    return 0;
}

static int open_at(int directory, struct spool **ret_spool, struct fault *f)
{
    _cleanup_(spool_closep) struct spool *spool = calloc(1, sizeof *spool);
    const char *part = "";

    if (!spool)
        return fault_set(f, -ENOMEM, "spool: out of memory");
    spool->tmp = spool->corrupt = -1;
    spool->readers = NOBODY;
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++)
        spool->states[i] = -1;
    spool->directory = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (spool->directory < 0)
        return fault_set(f, -ENOTRECOVERABLE, "spool: %s", strerror(errno));
    int r = lock(spool->directory);
    if (r < 0)
        return fault_set(f, -ENOTRECOVERABLE, "spool: %s",
                         r == -EWOULDBLOCK ? "another daemon uses it" : strerror(-r));
    r = open_parts(spool, &part);
    if (r < 0)
        return fault_set(f, r == -ENOSPC ? r : -ENOTRECOVERABLE, "spool: %s/: %s", part,
                         strerror(-r));
    *ret_spool = TAKE_PTR(spool);
    return 0;
}

/* The spool's own name, durable. Of one that others made that is their business. */
static int sync_parent(int directory, bool made)
{
    _cleanup_(closep) int parent = open_directory(directory, "..");
    int r = parent < 0 ? parent : sync_fd(parent);

    return made ? r : 0;
}

int spool_open(const char *path, struct spool **ret_spool, struct fault *f)
{
    bool made = mkdir(path, 0700) == 0;

    if (!made && errno != EEXIST)
        return fault_set(f, -ENOTRECOVERABLE, "spool: %s: %s", path, strerror(errno));
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 ? -errno : sync_parent(fd, made);
    if (r < 0)
        return fault_set(f, -ENOTRECOVERABLE, "spool: %s: %s", path, strerror(-r));
    r = open_at(fd, ret_spool, f);
    return r < 0 ? fault_prefix(f, r, "%s", path) : 0;
}

struct spool *spool_close(struct spool *spool)
{
    if (!spool)
        return NULL;
    closep(&spool->directory);
    closep(&spool->tmp);
    closep(&spool->corrupt);
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++)
        closep(&spool->states[i]);
    array_done(&spool->refused);
    free(spool);
    return NULL;
}

/* --- files and moves -------------------------------------------------------------------------- */

/* A new file with this content, or up to `size` bytes of descriptor `from` when `data` is NULL; its
 * bytes are on disk when this returns 0. */
static int write_new(int directory, const char *name, const void *data, size_t size, int from)
{
    _cleanup_(closep) int fd =
        openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    off_t offset = 0;

    if (fd < 0)
        return -errno;
    int r = data ? file_write_all(fd, data, size) : 0;
    while (!data && r == 0 && (size_t)offset < size) {
        ssize_t n = sendfile(fd, from, &offset, size - (size_t)offset);
        r = n < 0 && errno != EINTR ? -errno : n == 0 ? -ENODATA : 0;
    }
    return r < 0 ? r : sync_fd(fd);
}

/* tmp/new becomes the file `name` of `directory`. */
static int place_file(struct spool *spool, int directory, const char *name)
{
    if (renameat(spool->tmp, "new", directory, name) < 0)
        return -errno;
    return sync_fd(directory);
}

/* Text becomes the file `name` of `directory`: complete and durable, or as it was. */
static int put_file(struct spool *spool, int directory, const char *name, const char *text)
{
    int r = write_new(spool->tmp, "new", text, strlen(text), -1);

    return r < 0 ? r : place_file(spool, directory, name);
}

int spool_read_small(int directory, const char *name, char **ret_text, size_t *ret_length)
{
    _cleanup_(closep) int fd =
        openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size > RECORD_SIZE_MAX)
        return -EINVAL;
    _cleanup_(freep) char *text = malloc((size_t)st.st_size + 1);
    if (!text)
        return -ENOMEM;
    ssize_t n = read(fd, text, (size_t)st.st_size);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    *ret_length = (size_t)n;
    *ret_text = TAKE_PTR(text);
    return 0;
}

/* Where the job lies: in job->state, unless a change failed half-way. */
static int locate(const struct spool *spool, const struct job *job, enum job_state *ret_state)
{
    char name[SPOOL_ID_TEXT_SIZE];
    struct stat st;

    (void)spool_id_text(job->id, name);
    for (unsigned i = 0; i <= JOB_STATE_COUNT; i++) {
        enum job_state state = i == 0 ? job->state : (enum job_state)(i - 1);
        if (fstatat(spool->states[state], name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            *ret_state = state;
            return 0;
        }
        if (errno != ENOENT)
            return -errno;
    }
    return -ENOENT;
}

int spool_open_job(const struct spool *spool, const struct job *job)
{
    char name[SPOOL_ID_TEXT_SIZE];
    enum job_state state;

    int r = locate(spool, job, &state);
    return r < 0 ? r : open_directory(spool->states[state], spool_id_text(job->id, name));
}

static int put_job_file(struct spool *spool, const struct job *job, const char *name,
                        const char *text)
{
    _cleanup_(closep) int directory = spool_open_job(spool, job);

    return directory < 0 ? directory : put_file(spool, directory, name, text);
}

/* The state change itself. Already there counts as moved: an earlier try may have come so far. */
static int move_job(struct spool *spool, const struct job *job, enum job_state to)
{
    char name[SPOOL_ID_TEXT_SIZE];
    enum job_state from;

    int r = locate(spool, job, &from);
    if (r < 0)
        return r;
    (void)spool_id_text(job->id, name);
    if (from != to && renameat(spool->states[from], name, spool->states[to], name) < 0)
        return -errno;
    r = sync_fd(spool->states[to]); /* first: never in neither */
    return r < 0 ? r : sync_fd(spool->states[from]);
}

static bool is_any(const char *name)
{
    (void)name;
    return true;
}

/* What a run makes, and the next run makes again: 0.png …, result.json; not what it starts from. */
static bool is_made(const char *name)
{
    size_t digits = strspn(name, "0123456789");

    return (digits > 0 && strcmp(name + digits, ".png") == 0) || strcmp(name, "result.json") == 0;
}

/* Files of a flat directory with such names. */
static void remove_files(int directory, bool (*does_match)(const char *name))
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        closep(&fd);
        return;
    }
    while ((entry = readdir(dir)))
        if (does_match(entry->d_name))
            (void)unlinkat(directory, entry->d_name, 0); /* "." and ".." refuse */
}

void spool_remove_tree(int parent, const char *name)
{
    _cleanup_(closep) int directory = open_directory(parent, name);

    if (directory < 0) {
        (void)unlinkat(parent, name, 0); /* a file; what stays is tried again at the next start */
        return;
    }
    remove_files(directory, is_any);
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

/* --- changes ---------------------------------------------------------------------------------- */

uint64_t spool_next_id(struct spool *spool)
{
    return ++spool->last_id;
}

/* Jobs on disk speak for their ids; one that goes must not take the memory of its id along. */
static int remember_id(struct spool *spool, uint64_t id)
{
    char text[SPOOL_ID_TEXT_SIZE + 1];

    if (id <= spool->saved_last_id)
        return 0;
    (void)snprintf(text, sizeof text, "%" PRIu64 "\n", id);
    int r = put_file(spool, spool->directory, "last-id", text);
    if (r == 0)
        spool->saved_last_id = id;
    return r;
}

static int write_starts(struct spool *spool, const struct job *job, uint32_t starts)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%" PRIu32 " %" PRIu32 "\n", starts, job->deaths);
    return put_job_file(spool, job, "starts", text);
}

/* Opens a file or directory of ours to a group, as far as the mode says. */
static int share(int directory, const char *name, mode_t mode, gid_t group)
{
    if (fchownat(directory, name, (uid_t)-1, group, 0) < 0 ||
        fchmodat(directory, name, mode, 0) < 0)
        return -errno;
    return 0;
}

int spool_share_pictures(struct spool *spool, gid_t group, struct fault *f)
{
    int r = share(spool->directory, ".", 0710, group);

    if (r == 0)
        r = share(spool->directory, job_state_to_string(JOB_STATE_DONE), 0710, group);
    if (r < 0)
        return fault_set(f, -ENOTRECOVERABLE, "spool: cannot be opened to group %u: %s",
                         (unsigned)group, strerror(-r));
    spool->readers = group;
    return 0;
}

/* tmp/ID with its inputs and request.json in it. f: see spool_write_inputs(). */
static int build_job(struct spool *spool, const char *name, struct job *job, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;

    if (mkdirat(spool->tmp, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    _cleanup_(closep) int directory = open_directory(spool->tmp, name);
    if (directory < 0)
        return directory;
    int r = spool->readers == NOBODY ? 0 : share(directory, ".", 0710, spool->readers);
    if (r == 0)
        r = spool_write_inputs(directory, job, f);
    if (r == 0)
        r = record_format_request(job, &text);
    if (r == 0)
        r = write_new(directory, "request.json", text, strlen(text), -1);
    return r < 0 ? r : sync_fd(directory);
}

/* Takes refused jobs out of queued/: nobody was told of them, they must not run. */
static int drop_refused(struct spool *spool)
{
    int queued = spool->states[JOB_STATE_QUEUED];
    char name[SPOOL_ID_TEXT_SIZE];

    while (spool->refused.count > 0) {
        (void)spool_id_text(spool->refused.items[spool->refused.count - 1], name);
        if (renameat(queued, name, spool->tmp, name) < 0 && errno != ENOENT)
            return -errno;
        int r = sync_fd(queued);
        if (r < 0)
            return r;
        spool_remove_tree(spool->tmp, name);
        spool->refused.count--;
    }
    return 0;
}

int spool_submit(struct spool *spool, struct job *job, struct fault *f)
{
    int queued = spool->states[JOB_STATE_QUEUED];
    char name[SPOOL_ID_TEXT_SIZE];
    struct fault own = {0};

    (void)spool_id_text(job->id, name);
    int r = drop_refused(spool);
    if (r == 0)
        r = array_reserve(&spool->refused, 1) < 0 ? -ENOMEM : build_job(spool, name, job, &own);
    if (r == 0 && renameat(spool->tmp, name, queued, name) < 0)
        r = -errno;
    if (r == 0) {
        r = sync_fd(queued);
        if (r == 0)
            return 0;
        *array_push(&spool->refused) = job->id; /* has its room */
        (void)drop_refused(spool); /* fails: again before the next submission or probe */
    }
    spool_remove_tree(spool->tmp, name);
    return own.err ? fault_set(f, own.err, "%s", own.text)
                   : spool_fault(f, r, "cannot be kept", job->id);
}

int spool_update(struct spool *spool, const struct job *job, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;

    int r = record_format_request(job, &text);
    if (r == 0)
        r = put_job_file(spool, job, "request.json", text);
    return r < 0 ? spool_fault(f, r, "request.json", job->id) : 0;
}

int spool_start(struct spool *spool, const struct job *job, struct fault *f)
{
    int r = write_starts(spool, job, job->starts + 1);

    if (r == 0)
        r = move_job(spool, job, JOB_STATE_RUNNING);
    return r < 0 ? spool_fault(f, r, "cannot be started", job->id) : 0;
}

int spool_requeue(struct spool *spool, const struct job *job, struct fault *f)
{
    _cleanup_(closep) int directory = spool_open_job(spool, job);

    if (directory < 0)
        return spool_fault(f, directory, "cannot be queued again", job->id);
    int r = write_starts(spool, job, job->starts);
    if (r == 0)
        r = move_job(spool, job, JOB_STATE_QUEUED);
    if (r < 0)
        return spool_fault(f, r, "cannot be queued again", job->id);
    remove_files(directory, is_made);
    return 0;
}

static void picture_name(uint32_t index, char name[SPOOL_ID_TEXT_SIZE])
{
    (void)snprintf(name, SPOOL_ID_TEXT_SIZE, "%" PRIu32 ".png", index);
}

static int store_picture(struct spool *spool, const struct job *job, uint32_t index, int directory)
{
    char name[SPOOL_ID_TEXT_SIZE];
    struct stat st;

    if (fstat(job->held[index], &st) < 0)
        return -errno;
    if (st.st_size > (off_t)PICTURE_SIZE_MAX)
        return -EOVERFLOW;
    int r = write_new(spool->tmp, "new", NULL, (size_t)st.st_size, job->held[index]);
    picture_name(index, name);
    if (r == 0 && spool->readers != NOBODY)
        r = share(spool->tmp, "new", 0640, spool->readers);
    return r < 0 ? r : place_file(spool, directory, name);
}

int spool_store_picture(struct spool *spool, const struct job *job, uint32_t index, struct fault *f)
{
    _cleanup_(closep) int directory = spool_open_job(spool, job);
    int r = directory < 0 ? directory : store_picture(spool, job, index, directory);

    return r < 0 ? spool_fault(f, r, "picture", job->id) : 0;
}

int spool_finish(struct spool *spool, const struct job *job, enum job_state state, struct fault *f)
{
    _cleanup_(closep) int directory = spool_open_job(spool, job);
    _cleanup_(freep) char *text = NULL;

    int r = directory < 0 ? directory : record_format_result(job, state, &text);
    for (uint32_t i = 0; r == 0 && i < job->picture_count; i++)
        if (job->held[i] >= 0)
            r = store_picture(spool, job, i, directory);
    if (r == 0)
        r = put_file(spool, directory, "result.json", text);
    if (r == 0)
        r = move_job(spool, job, state);
    return r < 0 ? spool_fault(f, r, "result", job->id) : 0;
}

int spool_delete(struct spool *spool, const struct job *job, struct fault *f)
{
    char name[SPOOL_ID_TEXT_SIZE];
    enum job_state from;

    (void)spool_id_text(job->id, name);
    spool_remove_tree(spool->tmp, name);
    int r = remember_id(spool, job->id);
    if (r == 0)
        r = locate(spool, job, &from);
    if (r == 0 && renameat(spool->states[from], name, spool->tmp, name) < 0)
        r = -errno;
    if (r == 0)
        r = sync_fd(spool->states[from]);
    if (r < 0 && r != -ENOENT)
        return spool_fault(f, r, "cannot be deleted", job->id);
    spool_remove_tree(spool->tmp, name);
    return 0;
}

int spool_write_uptime(struct spool *spool, uint64_t seconds, struct fault *f)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%" PRIu64 "\n", seconds);
    int r = put_file(spool, spool->directory, "uptime", text);
    return r < 0 ? fault_set(f, r == -ENOSPC ? r : -ENOTRECOVERABLE, "spool: uptime: %s",
                             strerror(-r))
                 : 0;
}

int spool_probe(struct spool *spool, struct fault *f)
{
    static const char text[] = "written to see whether it can be\n";
    int r = write_new(spool->tmp, "probe", text, strlen(text), -1);

    if (r == 0)
        r = drop_refused(spool);
    if (r == 0 && unlinkat(spool->tmp, "probe", 0) < 0)
        r = -errno;
    return r < 0 ? fault_set(f, r == -ENOSPC ? r : -ENOTRECOVERABLE, "spool: %s", strerror(-r)) : 0;
}

/* --- looking ---------------------------------------------------------------------------------- */

uint64_t spool_uptime(const struct spool *spool)
{
    return spool->uptime;
}

int spool_free_bytes(const struct spool *spool, uint64_t *ret_bytes)
{
    struct statvfs vfs;

    if (fstatvfs(spool->directory, &vfs) < 0)
        return -errno;
    *ret_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return 0;
}

static int open_file(struct spool *spool, const struct job *job, const char *name, struct fault *f)
{
    _cleanup_(closep) int directory = spool_open_job(spool, job);

    if (directory < 0)
        return spool_fault(f, directory, name, job->id);
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? spool_fault(f, -errno, name, job->id) : fd;
}

int spool_open_picture(struct spool *spool, const struct job *job, uint32_t index, struct fault *f)
{
    char name[SPOOL_ID_TEXT_SIZE];

    picture_name(index, name);
    return open_file(spool, job, name, f);
}

int spool_open_input(struct spool *spool, const struct job *job, enum job_input_kind kind,
                     struct fault *f)
{
    return open_file(spool, job, job_input_name(kind, job->inputs[kind].format), f);
}

void spool_picture_path(const struct job *job, uint32_t index, char *ret_path, size_t size)
{
    (void)snprintf(ret_path, size, "%s/%" PRIu64 "/%" PRIu32 ".png",
                   job_state_to_string(job->state), job->id, index);
}
