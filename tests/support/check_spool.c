/* The walk over a spool: states, job directories, tmp/, last-id; what the jobs have together. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/check_internal.h"

const char *const check_state_names[CHECK_STATE_COUNT] = {
    "queued", "running", "done", "failed", "cancelled", "corrupt",
};

int check_state_from_word(const char *word)
{
    for (int i = 0; i < CHECK_STATE_COUNT; i++)
        if (strcmp(check_state_names[i], word) == 0)
            return i;
    return -1;
}

void check_violation(struct check *check, const char *format, ...)
{
    va_list args;

    check->violations++;
    (void)fputs("violation: ", check->options->out);
    va_start(args, format);
    (void)vfprintf(check->options->out, format, args);
    va_end(args);
    (void)fputc('\n', check->options->out);
}

void check_owner(struct check *check, int fd, const char *where)
{
    bool group = check->options->flags & CHECK_GROUP_READABLE;
    struct stat st;

    if (fstat(fd, &st) < 0) {
        check_violation(check, "%s: %s", where, strerror(errno));
        return;
    }
    mode_t want = S_ISDIR(st.st_mode) ? (group ? 0750 : 0700) : (group ? 0640 : 0600);
    if ((st.st_mode & 07777) != want)
        check_violation(check, "%s: mode %04o, want %04o", where, st.st_mode & 07777, want);
    if (st.st_uid != check->uid)
        check_violation(check, "%s: owned by uid %u, want %" PRIu64, where, st.st_uid, check->uid);
}

char *check_read_file(struct check *check, int directory, const char *name, const char *where,
                      size_t *ret_size)
{
    _cleanup_(closep) int fd =
        openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    size_t have = 0;

    if (fd < 0 || fstat(fd, &st) < 0) {
        check_violation(check, "%s/%s: %s", where, name, strerror(errno));
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size > CHECK_FILE_MAX) {
        check_violation(check, "%s/%s: no plain file of one name and sane size", where, name);
        return NULL;
    }
    char full[2 * CHECK_NAME_SIZE];
    (void)snprintf(full, sizeof full, "%s/%s", where, name);
    check_owner(check, fd, full);
    char *data = malloc((size_t)st.st_size + 1);
    while (data && have < (size_t)st.st_size) {
        ssize_t n = read(fd, data + have, (size_t)st.st_size - have);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    if (!data || have != (size_t)st.st_size) {
        check_violation(check, "%s: cannot be read", full);
        free(data);
        return NULL;
    }
    data[have] = '\0';
    *ret_size = have;
    return data;
}

static DIR *open_part(struct check *check, int spool, const char *name)
{
    _cleanup_(closep) int fd = openat(spool, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        if (errno != ENOENT || !(check->options->flags & CHECK_RUNNING)) /* killed at its making */
            check_violation(check, "%s/: %s", name, strerror(errno));
        return NULL;
    }
    check_owner(check, fd, name);
    return fdopendir(TAKE_FD(fd));
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Digits without a leading zero; in corrupt/ "~K" may follow. */
static bool parse_id(const char *name, bool with_suffix, uint64_t *ret_id)
{
    size_t n = strspn(name, "0123456789");

    if (n == 0 || n > 18 || name[0] == '0' || (name[n] && !(with_suffix && name[n] == '~')))
        return false;
    *ret_id = strtoull(name, NULL, 10);
    return true;
}

static void check_entry(struct check *check, int state_directory, enum check_state state,
                        const char *name)
{
    char where[CHECK_NAME_SIZE];
    uint64_t id = 0;

    (void)snprintf(where, sizeof where, "%s/%s", check_state_names[state], name);
    if (!parse_id(name, state == CHECK_STATE_CORRUPT, &id)) {
        if (state != CHECK_STATE_CORRUPT)
            check_violation(check, "%s: the name is no id", where);
        return;
    }
    struct check_job *job = array_push(&check->jobs);
    if (!job)
        return;
    *job = (struct check_job){.id = id, .state = state};
    if (state == CHECK_STATE_CORRUPT || check_is_damaged(check, id))
        return;
    _cleanup_(closep) int fd =
        openat(state_directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        check_violation(check, "%s: %s", where, strerror(errno));
        return;
    }
    check_owner(check, fd, where);
    check_job_directory(check, fd, job);
}

static void check_state(struct check *check, int spool, enum check_state state)
{
    _cleanup_(closedirp) DIR *dir = open_part(check, spool, check_state_names[state]);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (!is_dot(entry->d_name))
            check_entry(check, dirfd(dir), state, entry->d_name);
}

static void check_tmp(struct check *check, int spool)
{
    _cleanup_(closedirp) DIR *dir = open_part(check, spool, "tmp");
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (!is_dot(entry->d_name) && !(check->options->flags & CHECK_RUNNING))
            check_violation(check, "tmp/%s: left over", entry->d_name);
}

static void check_top(struct check *check, int spool)
{
    static const char *const files[] = {"last-id", "uptime", "tmp"};
    _cleanup_(closep) int fd = openat(spool, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(TAKE_FD(fd));
    const struct dirent *entry;
    size_t size;

    while (dir && (entry = readdir(dir))) {
        bool known = is_dot(entry->d_name) || check_state_from_word(entry->d_name) >= 0;
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
            known |= strcmp(entry->d_name, files[i]) == 0;
        if (!known)
            check_violation(check, "%s: has no business in the spool", entry->d_name);
    }
    if (faccessat(spool, "last-id", F_OK, 0) < 0)
        return; /* written with the first deletion */
    _cleanup_(freep) char *text = check_read_file(check, spool, "last-id", ".", &size);
    char *end = text;
    if (text)
        check->last_id = strtoull(text, &end, 10);
    if (text && (end == text || strcmp(end, "\n") != 0))
        check_violation(check, "last-id: \"%.20s\" is no number on a line", text);
}

static int compare_jobs(const void *a, const void *b)
{
    const struct check_job *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static void check_pair(struct check *check, const struct check_job *a, const struct check_job *b)
{
    if (a->id == b->id)
        check_violation(check, "job %" PRIu64 ": in %s/ and in %s/", a->id,
                        check_state_names[a->state], check_state_names[b->state]);
    if (a->state == CHECK_STATE_CORRUPT || b->state == CHECK_STATE_CORRUPT)
        return;
    if (*a->token && a->owner == b->owner && strcmp(a->token, b->token) == 0)
        check_violation(check, "jobs %" PRIu64 " and %" PRIu64 ": one token \"%s\" of uid %" PRIu64,
                        a->id, b->id, a->token, a->owner);
    if (*a->origin && strcmp(a->origin, b->origin) == 0)
        check_violation(check, "jobs %" PRIu64 " and %" PRIu64 ": one origin \"%s\"", a->id, b->id,
                        a->origin);
}

static void check_quota(struct check *check, const struct check_job *first)
{
    uint64_t jobs = 0, bytes = 0;

    for (size_t i = 0; i < check->jobs.count; i++) {
        const struct check_job *job = &check->jobs.items[i];
        if (job->owner != first->owner || job->state == CHECK_STATE_CORRUPT)
            continue;
        if (job < first)
            return; /* this user was counted */
        jobs += !check_state_is_final(job->state);
        bytes += job->bytes;
    }
    if (check->options->user_jobs && jobs > check->options->user_jobs)
        check_violation(check, "uid %" PRIu64 ": %" PRIu64 " jobs, at most %" PRIu64, first->owner,
                        jobs, check->options->user_jobs);
    if (check->options->user_bytes && bytes > check->options->user_bytes)
        check_violation(check, "uid %" PRIu64 ": %" PRIu64 " bytes, at most %" PRIu64, first->owner,
                        bytes, check->options->user_bytes);
}

static void check_all_jobs(struct check *check)
{
    const struct check_job *jobs = check->jobs.items;
    size_t count = check->jobs.count;

    if (count > 1)
        qsort(check->jobs.items, count, sizeof *jobs, compare_jobs);
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].id > check->last_id)
            check->last_id = jobs[i].id;
        if (check->options->flags & CHECK_IDLE && jobs[i].state == CHECK_STATE_RUNNING)
            check_violation(check, "job %" PRIu64 ": in running/ while nothing runs", jobs[i].id);
        if (check->options->flags & CHECK_DRAINED && jobs[i].state <= CHECK_STATE_RUNNING)
            check_violation(check, "job %" PRIu64 ": still %s", jobs[i].id,
                            check_state_names[jobs[i].state]);
        for (size_t k = i + 1; k < count; k++)
            check_pair(check, &jobs[i], &jobs[k]);
        check_quota(check, &jobs[i]);
    }
}

int check_spool(const struct check_options *options)
{
    struct check check = {.options = options};
    struct stat st;
    _cleanup_(closep) int spool = open(options->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (spool < 0 || fstat(spool, &st) < 0) {
        int r = -errno;
        (void)fprintf(options->out, "%s: %s\n", options->spool, strerror(-r));
        return r;
    }
    check.uid = options->uid < 0 ? st.st_uid : (uint64_t)options->uid;
    check_owner(&check, spool, ".");
    check_top(&check, spool);
    check_tmp(&check, spool);
    for (unsigned state = 0; state < CHECK_STATE_COUNT; state++)
        check_state(&check, spool, state);
    check_all_jobs(&check);
    if (options->history)
        check_history(&check, options->history);
    if (options->drop)
        check_drop(&check, options->drop, options->history ? options->history : "");
    array_done(&check.jobs);
    return check.violations;
}

int check_file_for_text(const char *path, const char *text, FILE *out)
{
    _cleanup_(fclosep) FILE *file = fopen(path, "re");
    _cleanup_(freep) char *data = file ? malloc(CHECK_FILE_MAX) : NULL;

    if (!data) {
        int r = -errno;
        (void)fprintf(out, "%s: %s\n", path, strerror(-r));
        return r;
    }
    size_t n = fread(data, 1, CHECK_FILE_MAX, file);
    if (!memmem(data, n, text, strlen(text)))
        return 0;
    (void)fprintf(out, "violation: %s: holds the secret\n", path);
    return 1;
}
