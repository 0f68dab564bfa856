/* What the last run left behind: jobs by directory and record, never by a guess from times. What
 * cannot be read is set aside under corrupt/ and never stops the start. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/record.h"
#include "daemon/spool-internal.h"

#define ID_LEAP (UINT64_C(1) << 20) /* more than a board deletes while nothing is written down */

/* Only what spool_id_text() writes: no signs, blanks or leading zeros. */
static bool parse_id(const char *name, uint64_t *ret_id)
{
    char again[SPOOL_ID_TEXT_SIZE];
    char *end;

    if (*name < '1' || *name > '9')
        return false;
    errno = 0;
    unsigned long long id = strtoull(name, &end, 10);
    if (errno || *end || id > INT64_MAX || strcmp(spool_id_text(id, again), name) != 0)
        return false;
    *ret_id = id;
    return true;
}

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
    (void)fsync(spool->corrupt); /* lost at a power cut it is found and set aside again */
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

/* A file with one number; 0 when there is none. False when there may be one that cannot be read. */
static bool read_number(const struct spool *spool, const char *name, uint64_t *ret_number)
{
    _cleanup_(freep) char *text = NULL;
    size_t length;

    *ret_number = 0;
    int r = spool_read_small(spool->directory, name, &text, &length);
    if (r == 0)
        *ret_number = strtoull(text, NULL, 10) & INT64_MAX;
    return r == 0 || r == -ENOENT;
}

/* Highest id of the file, of jobs, and of what was set aside ("17~1" counts as 17). */
static int find_last_id(struct spool *spool, const struct found_list *list)
{
    struct dirent **names = NULL;
    int count = 0;

    bool is_known = read_number(spool, "last-id", &spool->last_id);

    spool->saved_last_id = spool->last_id;
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].id > spool->last_id)
            spool->last_id = list->items[i].id;
    int r = list_names(spool->corrupt, &names, &count);
    for (int i = 0; i < count; i++) {
        uint64_t id = strtoull(names[i]->d_name, NULL, 10);
        if (id > spool->last_id && id <= INT64_MAX)
            spool->last_id = id;
    }
    if (!is_known) /* deleted jobs had ids too */
        spool->last_id += ID_LEAP;
    free_names(names, count);
    return r;
}

static int read_record(int directory, const char *name, char **ret_text, size_t *ret_length,
                       struct fault *f)
{
    int r = spool_read_small(directory, name, ret_text, ret_length);

    return r < 0 ? fault_set(f, r, "%s: %s", name, strerror(-r)) : 0;
}

/* A missing or broken `starts` counts as never started: the job gets its chance. One that cannot be
 * read now is another matter, for it would be written anew. */
static int read_starts(int directory, struct job *job, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;
    size_t length;

    int r = spool_read_small(directory, "starts", &text, &length);
    if (r == -ENOENT || r == -EINVAL)
        return 0;
    if (r < 0)
        return fault_set(f, r, "starts: %s", strerror(-r));
    if (sscanf(text, "%" SCNu32 " %" SCNu32, &job->starts, &job->deaths) != 2)
        job->starts = job->deaths = 0;
    return 0;
}

static int load_job(struct spool *spool, const struct found *found, struct job *job,
                    struct fault *f)
{
    _cleanup_(freep) char *request = NULL, *result = NULL;
    size_t length;

    job->state = found->state;
    _cleanup_(closep) int directory = spool_open_job(spool, job);
    if (directory < 0)
        return fault_set(f, directory, "%s", strerror(-directory));
    int r = read_record(directory, "request.json", &request, &length, f);
    if (r == 0)
        r = record_parse_request(request, length, job, f);
    if (r < 0)
        return fault_prefix(f, r, "request.json");
    r = read_starts(directory, job, f);
    if (r < 0)
        return r;
    if (!job_state_is_final(job->state))
        return spool_check_inputs(directory, job, f);
    r = read_record(directory, "result.json", &result, &length, f);
    if (r == 0)
        r = record_parse_result(result, length, job->state, job, f);
    return r < 0 ? fault_prefix(f, r, "result.json") : 0;
}

static void report_trouble(const struct spool_finder *finder, uint64_t id, const char *why)
{
    char text[320];

    (void)snprintf(text, sizeof text, "spool: job %" PRIu64 ": %s", id, why);
    if (finder->on_trouble)
        finder->on_trouble(text, finder->userdata);
}

/* Damage of the content is for good; anything else may be over at the next start. */
static bool is_damage(int err)
{
    return err == -EINVAL || err == -ENOENT || err == -ENOTDIR || err == -ELOOP;
}

static int recover_one(struct spool *spool, const struct found *found,
                       const struct spool_finder *finder, struct fault *f)
{
    _cleanup_(job_freep) struct job *job = job_new(found->id, 0);
    char name[SPOOL_ID_TEXT_SIZE];
    struct fault why = {0};

    int r = job ? load_job(spool, found, job, &why) : -ENOMEM;
    if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
        return fault_set(f, r, "spool: job %" PRIu64 ": %s", found->id, strerror(-r));
    if (r < 0 && is_damage(r))
        set_aside(spool, found->state, spool_id_text(found->id, name), why.text, finder);
    else if (r < 0)
        report_trouble(finder, found->id, why.text);
    if (r < 0)
        return 0;
    if (job->state == JOB_STATE_RUNNING) {
        if (spool_requeue(spool, job, &why) < 0)
            report_trouble(finder, found->id, why.text);
        job->state = JOB_STATE_QUEUED;
    }
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
            spool_remove_tree(spool->tmp, names[i]->d_name);
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
    (void)read_number(spool, "uptime", &spool->uptime); /* the jobs' own times say the rest */
    if (r < 0)
        (void)fault_set(f, r, "spool: %s", strerror(-r));
    if (list.count > 1)
        qsort(list.items, list.count, sizeof *list.items, compare_found);
    for (size_t i = 0; r == 0 && i < list.count; i++)
        r = recover_one(spool, &list.items[i], finder, f);
    array_done(&list);
    return r;
}
