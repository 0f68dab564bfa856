/* Every file is written under tmp/ and renamed to where readers look, every job changes its state
 * by one rename of its directory: after a kill at any point a job is whole and in exactly one
 * state. put_file() and move_job() are the two places where durability (fsync of file and
 * directories) belongs. */
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

#include "daemon/record.h"
#include "vk/base/file.h"

#define PICTURE_SIZE_MAX (256u << 20) /* bytes; 2048 x 2048 x 3 is 12 MB */
#define ID_TEXT_SIZE     24

struct spool {
    int directory, tmp, corrupt;
    int states[JOB_STATE_COUNT];
    uint64_t last_id;
};

static int spool_fault(struct fault *f, int err, const char *what, uint64_t id)
{
    bool full = err == -ENOSPC || err == -EDQUOT || err == -EFBIG;

    return fault_set(f, full ? -ENOSPC : -ENOTRECOVERABLE, "spool: job %" PRIu64 ": %s: %s", id,
                     what, strerror(-err));
}

static const char *id_text(uint64_t id, char text[ID_TEXT_SIZE])
{
    (void)snprintf(text, ID_TEXT_SIZE, "%" PRIu64, id);
    return text;
}

/* Only what id_text() writes: no signs, blanks or leading zeros. */
static bool parse_id(const char *name, uint64_t *ret_id)
{
    char again[ID_TEXT_SIZE];
    char *end;

    if (*name < '1' || *name > '9')
        return false;
    errno = 0;
    unsigned long long id = strtoull(name, &end, 10);
    if (errno || *end || id > INT64_MAX || strcmp(id_text(id, again), name) != 0)
        return false;
    *ret_id = id;
    return true;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int open_directory(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int make_directory(int parent, const char *name, int *ret_fd)
{
    if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    int fd = open_directory(parent, name);
    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

static int open_parts(struct spool *spool, const char **ret_part)
{
    int r;

    *ret_part = "tmp";
    if ((r = make_directory(spool->directory, *ret_part, &spool->tmp)) < 0)
        return r;
    *ret_part = "corrupt";
    if ((r = make_directory(spool->directory, *ret_part, &spool->corrupt)) < 0)
        return r;
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++) {
        *ret_part = job_state_to_string(i);
        if ((r = make_directory(spool->directory, *ret_part, &spool->states[i])) < 0)
            return r;
    }
    return 0;
}

int spool_open_at(int directory, struct spool **ret_spool, struct fault *f)
{
    _cleanup_(spool_closep) struct spool *spool = calloc(1, sizeof *spool);
    const char *part = "";

    if (!spool)
        return fault_set(f, -ENOMEM, "spool: out of memory");
    spool->tmp = spool->corrupt = -1;
    for (unsigned i = 0; i < JOB_STATE_COUNT; i++)
        spool->states[i] = -1;
    spool->directory = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (spool->directory < 0)
        return fault_set(f, -ENOTRECOVERABLE, "spool: %s", strerror(errno));
    if (flock(spool->directory, LOCK_EX | LOCK_NB) < 0)
        return fault_set(f, -ENOTRECOVERABLE, "spool: another daemon uses it");
    int r = open_parts(spool, &part);
    if (r < 0)
        return fault_set(f, r == -ENOSPC ? r : -ENOTRECOVERABLE, "spool: %s/: %s", part,
                         strerror(-r));
    *ret_spool = TAKE_PTR(spool);
    return 0;
}

int spool_open(const char *path, struct spool **ret_spool, struct fault *f)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return fault_set(f, -ENOTRECOVERABLE, "spool: %s: %s", path, strerror(errno));
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fault_set(f, -ENOTRECOVERABLE, "spool: %s: %s", path, strerror(errno));
    int r = spool_open_at(fd, ret_spool, f);
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
    free(spool);
    return NULL;
}

/* --- files and moves -------------------------------------------------------------------------- */

static int write_new(int directory, const char *name, const void *data, size_t size)
{
    _cleanup_(closep) int fd =
        openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    return file_write_all(fd, data, size);
}

/* Bytes become the file `name` of `directory`: complete or not at all. */
static int put_file(struct spool *spool, int directory, const char *name, const void *data,
                    size_t size)
{
    int r = write_new(spool->tmp, "new", data, size);

    if (r < 0)
        return r;
    return renameat(spool->tmp, "new", directory, name) < 0 ? -errno : 0;
}

static int read_small(int directory, const char *name, char **ret_text, size_t *ret_length)
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

static int open_job(const struct spool *spool, const struct job *job)
{
    char name[ID_TEXT_SIZE];

    return open_directory(spool->states[job->state], id_text(job->id, name));
}

static int put_job_file(struct spool *spool, const struct job *job, const char *name,
                        const char *text)
{
    _cleanup_(closep) int directory = open_job(spool, job);

    if (directory < 0)
        return directory;
    return put_file(spool, directory, name, text, strlen(text));
}

/* The state change itself. */
static int move_job(struct spool *spool, uint64_t id, enum job_state from, enum job_state to)
{
    char name[ID_TEXT_SIZE];

    (void)id_text(id, name);
    return renameat(spool->states[from], name, spool->states[to], name) < 0 ? -errno : 0;
}

/* Files of a flat directory; what is deeper was not made by us and stays. */
static void remove_files(int directory, const char *but_suffix)
{
    int fd = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    _cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir)
        return;
    rewinddir(dir);
    while ((entry = readdir(dir))) {
        size_t n = strlen(entry->d_name);
        size_t k = but_suffix ? strlen(but_suffix) : 0;
        if (k == 0 || (n > k && strcmp(entry->d_name + n - k, but_suffix) == 0))
            (void)unlinkat(directory, entry->d_name, 0); /* "." and ".." refuse */
    }
}

static void remove_tree(int parent, const char *name)
{
    _cleanup_(closep) int directory = open_directory(parent, name);

    if (directory < 0) {
        (void)unlinkat(parent, name, 0); /* a file; what stays is tried again at the next start */
        return;
    }
    remove_files(directory, NULL);
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

/* --- changes ---------------------------------------------------------------------------------- */

uint64_t spool_next_id(struct spool *spool)
{
    return ++spool->last_id;
}

static int write_last_id(struct spool *spool)
{
    char text[ID_TEXT_SIZE + 1];

    int n = snprintf(text, sizeof text, "%" PRIu64 "\n", spool->last_id);
    return put_file(spool, spool->directory, "last-id", text, (size_t)n);
}

static int write_starts(struct spool *spool, const struct job *job, uint32_t starts)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%" PRIu32 " %" PRIu32 "\n", starts, job->deaths);
    return put_job_file(spool, job, "starts", text);
}

/* tmp/ID with request.json in it. */
static int build_job(struct spool *spool, const char *name, const char *text)
{
    int fd = -1;

    remove_tree(spool->tmp, name);
    int r = make_directory(spool->tmp, name, &fd);
    if (r < 0)
        return r;
    _cleanup_(closep) int directory = fd;
    return put_file(spool, directory, "request.json", text, strlen(text));
}

int spool_submit(struct spool *spool, const struct job *job, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;
    char name[ID_TEXT_SIZE];

    int r = record_format_request(job, &text);
    if (r < 0)
        return fault_set(f, r, "job %" PRIu64 ": out of memory", job->id);
    (void)id_text(job->id, name);
    r = write_last_id(spool);
    if (r == 0)
        r = build_job(spool, name, text);
    if (r == 0 && renameat(spool->tmp, name, spool->states[JOB_STATE_QUEUED], name) < 0)
        r = -errno;
    if (r == 0)
        return 0;
    remove_tree(spool->tmp, name);
    return spool_fault(f, r, "cannot be kept", job->id);
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
        r = move_job(spool, job->id, JOB_STATE_QUEUED, JOB_STATE_RUNNING);
    return r < 0 ? spool_fault(f, r, "cannot be started", job->id) : 0;
}

int spool_requeue(struct spool *spool, const struct job *job, struct fault *f)
{
    _cleanup_(closep) int directory = open_job(spool, job);

    if (directory < 0)
        return spool_fault(f, directory, "cannot be queued again", job->id);
    int r = write_starts(spool, job, job->starts);
    if (r == 0)
        r = move_job(spool, job->id, JOB_STATE_RUNNING, JOB_STATE_QUEUED);
    if (r < 0)
        return spool_fault(f, r, "cannot be queued again", job->id);
    remove_files(directory, ".png");
    return 0;
}

int spool_finish(struct spool *spool, const struct job *job, enum job_state state, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;

    int r = record_format_result(job, state, &text);
    if (r == 0)
        r = put_job_file(spool, job, "result.json", text);
    if (r == 0)
        r = move_job(spool, job->id, job->state, state);
    return r < 0 ? spool_fault(f, r, "result.json", job->id) : 0;
}

int spool_delete(struct spool *spool, const struct job *job, struct fault *f)
{
    char name[ID_TEXT_SIZE];

    (void)id_text(job->id, name);
    remove_tree(spool->tmp, name);
    if (renameat(spool->states[job->state], name, spool->tmp, name) < 0 && errno != ENOENT)
        return spool_fault(f, -errno, "cannot be deleted", job->id);
    remove_tree(spool->tmp, name);
    return 0;
}

/* --- pictures --------------------------------------------------------------------------------- */

static void picture_name(uint32_t index, char name[ID_TEXT_SIZE])
{
    (void)snprintf(name, ID_TEXT_SIZE, "%" PRIu32 ".png", index);
}

static int copy_all(int to, int from, uint64_t size)
{
    off_t offset = 0;

    while ((uint64_t)offset < size) {
        ssize_t n = sendfile(to, from, &offset, (size_t)(size - (uint64_t)offset));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -ENODATA;
    }
    return 0;
}

int spool_store_picture(struct spool *spool, const struct job *job, uint32_t index, int from,
                        uint64_t size, struct fault *f)
{
    _cleanup_(closep) int directory = open_job(spool, job);
    char name[ID_TEXT_SIZE];

    if (directory < 0)
        return spool_fault(f, directory, "picture", job->id);
    if (size > PICTURE_SIZE_MAX)
        return spool_fault(f, -EOVERFLOW, "picture", job->id);
    _cleanup_(closep) int to =
        openat(spool->tmp, "picture", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r = to < 0 ? -errno : copy_all(to, from, size);
    picture_name(index, name);
    if (r == 0 && renameat(spool->tmp, "picture", directory, name) < 0)
        r = -errno;
    return r < 0 ? spool_fault(f, r, "picture", job->id) : 0;
}

int spool_open_picture(struct spool *spool, const struct job *job, uint32_t index, struct fault *f)
{
    _cleanup_(closep) int directory = open_job(spool, job);
    char name[ID_TEXT_SIZE];

    if (directory < 0)
        return spool_fault(f, directory, "picture", job->id);
    picture_name(index, name);
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd < 0 ? spool_fault(f, -errno, name, job->id) : fd;
}

void spool_picture_path(const struct job *job, uint32_t index, char *ret_path, size_t size)
{
    (void)snprintf(ret_path, size, "%s/%" PRIu64 "/%" PRIu32 ".png",
                   job_state_to_string(job->state), job->id, index);
}

/* --- recovery --------------------------------------------------------------------------------- */

struct found {
    uint64_t id;
    enum job_state state;
};
struct found_list ARRAY(struct found);

static void set_aside(struct spool *spool, enum job_state state, const char *name, const char *why,
                      const struct spool_finder *finder)
{
    char target[NAME_MAX + 1];

    (void)snprintf(target, sizeof target, "%.200s", name);
    for (unsigned k = 1; k < 1000; k++) {
        if (renameat2(spool->states[state], name, spool->corrupt, target, RENAME_NOREPLACE) == 0 ||
            errno != EEXIST)
            break;
        (void)snprintf(target, sizeof target, "%.200s~%u", name, k);
    }
    if (finder->on_corrupt)
        finder->on_corrupt(job_state_to_string(state), name, why, finder->userdata);
}

/* Entries of a directory as a snapshot: they may be moved away while the list is walked. */
static int list_names(int directory, struct dirent ***ret_names, int *ret_count)
{
    int n = scandirat(directory, ".", ret_names, NULL, versionsort);

    if (n < 0)
        return -errno;
    *ret_count = n;
    return 0;
}

static void free_names(struct dirent **names, int count)
{
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int list_state(struct spool *spool, enum job_state state, const struct spool_finder *finder,
                      struct found_list *list)
{
    struct dirent **names = NULL;
    int count = 0;

    int r = list_names(spool->states[state], &names, &count);
    for (int i = 0; r == 0 && i < count; i++) {
        uint64_t id;
        if (is_dot(names[i]->d_name))
            continue;
        if (!parse_id(names[i]->d_name, &id)) {
            set_aside(spool, state, names[i]->d_name, "the name is no id", finder);
            continue;
        }
        struct found *one = array_push(list);
        if (!one)
            r = -ENOMEM;
        else
            *one = (struct found){id, state};
    }
    free_names(names, count);
    return r;
}

static int compare_found(const void *a, const void *b)
{
    const struct found *x = a, *y = b;

    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (int)x->state - (int)y->state;
}

/* Highest id of the file, of jobs, and of what was set aside ("17~1" counts as 17). */
static int find_last_id(struct spool *spool, const struct found_list *list)
{
    _cleanup_(freep) char *text = NULL;
    struct dirent **names = NULL;
    size_t length;
    int count = 0;

    if (read_small(spool->directory, "last-id", &text, &length) == 0)
        spool->last_id = strtoull(text, NULL, 10) & INT64_MAX;
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].id > spool->last_id)
            spool->last_id = list->items[i].id;
    int r = list_names(spool->corrupt, &names, &count);
    for (int i = 0; i < count; i++) {
        uint64_t id = strtoull(names[i]->d_name, NULL, 10);
        if (id > spool->last_id && id <= INT64_MAX)
            spool->last_id = id;
    }
    free_names(names, count);
    return r;
}

static int read_record(int directory, const char *name, char **ret_text, size_t *ret_length,
                       struct fault *f)
{
    int r = read_small(directory, name, ret_text, ret_length);

    return r < 0 ? fault_set(f, r, "%s: %s", name, strerror(-r)) : 0;
}

/* A missing or broken `starts` counts as never started: the job gets its chance. */
static void read_starts(int directory, struct job *job)
{
    _cleanup_(freep) char *text = NULL;
    size_t length;

    if (read_small(directory, "starts", &text, &length) == 0 &&
        sscanf(text, "%" SCNu32 " %" SCNu32, &job->starts, &job->deaths) != 2)
        job->starts = job->deaths = 0;
}

static int load_job(struct spool *spool, const struct found *found, struct job *job,
                    struct fault *f)
{
    _cleanup_(freep) char *request = NULL, *result = NULL;
    size_t length;

    job->state = found->state;
    _cleanup_(closep) int directory = open_job(spool, job);
    if (directory < 0)
        return fault_set(f, directory, "%s", strerror(-directory));
    int r = read_record(directory, "request.json", &request, &length, f);
    if (r == 0)
        r = record_parse_request(request, length, job, f);
    if (r < 0)
        return fault_prefix(f, r, "request.json");
    read_starts(directory, job);
    if (!job_state_is_final(job->state))
        return 0;
    r = read_record(directory, "result.json", &result, &length, f);
    if (r == 0)
        r = record_parse_result(result, length, job->state, job, f);
    return r < 0 ? fault_prefix(f, r, "result.json") : 0;
}

static int recover_one(struct spool *spool, const struct found *found,
                       const struct spool_finder *finder, struct fault *f)
{
    _cleanup_(job_freep) struct job *job = job_new(found->id, 0);
    char name[ID_TEXT_SIZE];
    struct fault why = {0};

    if (!job)
        return fault_set(f, -ENOMEM, "spool: out of memory");
    int r = load_job(spool, found, job, &why);
    if (r == 0 && job->state == JOB_STATE_RUNNING) {
        r = spool_requeue(spool, job, &why);
        job->state = JOB_STATE_QUEUED;
    }
    if (r == -ENOMEM)
        return fault_set(f, r, "spool: out of memory");
    if (r < 0)
        set_aside(spool, found->state, id_text(found->id, name), why.text, finder);
    else
        finder->on_job(TAKE_PTR(job), finder->userdata);
    return 0;
}

static void sweep_tmp(struct spool *spool)
{
    struct dirent **names = NULL;
    int count = 0;

    if (list_names(spool->tmp, &names, &count) < 0)
        return;
    for (int i = 0; i < count; i++)
        if (!is_dot(names[i]->d_name))
            remove_tree(spool->tmp, names[i]->d_name);
    free_names(names, count);
}

int spool_recover(struct spool *spool, const struct spool_finder *finder, struct fault *f)
{
    struct found_list list = {0};
    int r = 0;

    sweep_tmp(spool);
    for (unsigned state = 0; r == 0 && state < JOB_STATE_COUNT; state++)
        r = list_state(spool, state, finder, &list);
    if (r == 0)
        r = find_last_id(spool, &list);
    if (r < 0)
        (void)fault_set(f, r, "spool: %s", strerror(-r));
    if (list.count > 1)
        qsort(list.items, list.count, sizeof *list.items, compare_found);
    for (size_t i = 0; r == 0 && i < list.count; i++)
        r = recover_one(spool, &list.items[i], finder, f);
    array_done(&list);
    return r;
}
