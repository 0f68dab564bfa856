#include "tests/support/dropbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/folder.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;

    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t dropbox_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

/* --- made-up jobs ----------------------------------------------------------------------------- */

static struct dropbox_job *find_slot(struct dropbox *box, const char *origin)
{
    for (size_t i = box->jobs.count; i-- > 0;) { /* the latest are asked for most */
        if (strcmp(box->jobs.items[i].origin, origin) == 0)
            return &box->jobs.items[i];
    }
    return NULL;
}

static struct job *find(const char *origin, void *userdata)
{
    struct dropbox_job *slot = find_slot(userdata, origin);

    return slot ? slot->job : NULL;
}

static struct job *add_job(struct dropbox *box, uint32_t owner, struct request *request,
                           const char *origin)
{
    struct job *job = find(origin, box);

    if (job) {
        request_done(request);
        return job;
    }
    job = job_new(++box->next_id, owner);
    assert_non_null(job);
    job->request = *request;
    *request = (struct request){0};
    (void)snprintf(job->origin, sizeof job->origin, "%s", origin);
    struct dropbox_job *slot = array_push(&box->jobs);
    assert_non_null(slot);
    slot->job = job;
    (void)snprintf(slot->origin, sizeof slot->origin, "%s", origin);
    return job;
}

/* What came along is closed; how much of each it was is kept. */
static void take_inputs(struct dropbox *box, struct job_input *inputs)
{
    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        box->input_bytes[i] = inputs[i].fd < 0 ? 0 : inputs[i].bytes;
        closep(&inputs[i].fd);
        inputs[i].fd = -1;
    }
}

static void submit(uint32_t owner, struct request *request, struct job_input *inputs,
                   const char *origin, drop_submitted_t *done, void *done_userdata, void *userdata)
{
    struct dropbox *box = userdata;
    struct fault f = {0};

    int refuse = box->refuse ? box->refuse : box->room == 0 ? -ENOBUFS : 0;

    box->submissions++;
    take_inputs(box, inputs);
    if (refuse) {
        request_done(request);
        (void)fault_set(&f, refuse, "%s", box->refusal ? box->refusal : "refused by the test");
        done(refuse, NULL, &f, done_userdata);
        return;
    }
    struct job *job = add_job(box, owner, request, origin);
    if (box->room > 0 && box->room != UINT32_MAX)
        box->room--;
    if (box->is_held && !box->held_done) {
        box->held_done = done;
        box->held_userdata = done_userdata;
        box->held_job = job;
        return;
    }
    done(0, job, &f, done_userdata);
    if (box->ends_at_once && !job_state_is_final(job->state))
        dropbox_finish(box, job, JOB_STATE_DONE, job->request.count ? job->request.count : 1);
}

void dropbox_release(struct dropbox *box)
{
    struct fault f = {0};
    drop_submitted_t *done = box->held_done;

    assert_non_null(done);
    box->held_done = NULL;
    done(0, box->held_job, &f, box->held_userdata);
}

static int picture_fd(struct dropbox *box, const struct job *job, uint32_t index, bool is_broken)
{
    int fd = memfd_create("picture", MFD_CLOEXEC);
    char text[128];

    (void)box;
    assert_true(fd >= 0);
    (void)snprintf(text, sizeof text, "%spicture %u of job %llu, \"%s\"", is_broken ? "not " : "",
                   index, (unsigned long long)job->id, job->origin);
    assert_int_equal(file_write_all(fd, text, strlen(text)), 0);
    return fd;
}

static int open_picture(const struct job *job, uint32_t index, struct fault *f, void *userdata)
{
    struct dropbox *box = userdata;
    int r = box->open_error;

    box->open_error = 0;
    if (r < 0)
        return fault_set(f, r, "the test says no");
    return picture_fd(box, job, index, box->breaks_pictures);
}

static void fetched(struct job *job, uint32_t index, void *userdata)
{
    struct dropbox_job *slot = find_slot(userdata, job->origin);

    assert_non_null(slot);
    slot->fetched |= 1u << index;
}

static uint32_t room(void *userdata)
{
    const struct dropbox *box = userdata;

    return box->room;
}

static bool may_submit(uint32_t uid, void *userdata)
{
    const struct dropbox *box = userdata;

    return box->denied_uid == 0 || uid != box->denied_uid;
}

static void health(const char *reason, void *userdata)
{
    struct dropbox *box = userdata;

    (void)snprintf(box->health, sizeof box->health, "%s", reason);
}

struct job *dropbox_job(struct dropbox *box)
{
    assert_true(box->jobs.count > 0);
    return box->jobs.items[box->jobs.count - 1].job;
}

static void add_picture(struct dropbox *box, struct job *job)
{
    struct job_picture *p = &job->pictures[job->picture_count];
    _cleanup_(closep) int fd = picture_fd(box, job, job->picture_count, false);
    char text[256];

    ssize_t n = pread(fd, text, sizeof text, 0);
    assert_true(n > 0);
    *p = (struct job_picture){.width = 64, .height = 32, .seed = 7 + job->picture_count};
    sha256_hex(text, (size_t)n, p->sha256);
    job->picture_count++;
}

void dropbox_finish(struct dropbox *box, struct job *job, enum job_state state, uint32_t count)
{
    job->state = state;
    job->created_usec = 1;
    job->started_usec = 1000;
    job->finished_usec = 3000;
    if (state == JOB_STATE_DONE)
        (void)job_add_warning(job, "the prompt was cut");
    for (uint32_t i = 0; i < count && state == JOB_STATE_DONE; i++)
        add_picture(box, job);
    if (state == JOB_STATE_FAILED)
        (void)fault_set(&job->error, -ECONNRESET, "the worker died twice");
    if (state == JOB_STATE_CANCELLED)
        (void)fault_set(&job->error, -ECANCELED, "cancelled while queued");
    if (box->drop)
        drop_on_job_finished(box->drop, job->origin);
}

void dropbox_forget(struct dropbox *box, struct job *job)
{
    for (size_t i = 0; i < box->jobs.count; i++) {
        if (box->jobs.items[i].job != job)
            continue;
        job_free(job);
        box->jobs.items[i] = box->jobs.items[--box->jobs.count];
        return;
    }
}

/* --- life ------------------------------------------------------------------------------------- */

int dropbox_setup(void **state)
{
    struct dropbox *box = calloc(1, sizeof *box);
    void *root = NULL;

    assert_non_null(box);
    assert_int_equal(folder_setup(&root), 0);
    box->root = root;
    assert_int_equal(chmod(box->root, 0755), 0);
    (void)snprintf(box->path, sizeof box->path, "%s/drop", box->root);
    assert_true(sd_event_new(&box->event) >= 0);
    box->room = UINT32_MAX;
    box->options = (struct drop_options){.path = box->path,
                                         .jobs = {.submit = submit,
                                                  .find = find,
                                                  .open_picture = open_picture,
                                                  .fetched = fetched,
                                                  .room = room,
                                                  .may_submit = may_submit,
                                                  .health = health,
                                                  .userdata = box},
                                         .settle_usec = 200000};
    *state = box;
    return 0;
}

int dropbox_teardown(void **state)
{
    struct dropbox *box = *state;

    dropbox_close(box);
    for (size_t i = 0; i < box->jobs.count; i++)
        job_free(box->jobs.items[i].job);
    array_done(&box->jobs);
    sd_event_unref(box->event);
    void *root = box->root;
    free(box);
    return folder_teardown(&root);
}

void dropbox_open(struct dropbox *box)
{
    struct fault f = {0};

    assert_null(box->drop);
    if (drop_open(box->event, &box->options, &box->drop, &f) < 0)
        fail_msg("%s", f.text);
}

void dropbox_close(struct dropbox *box)
{
    box->drop = drop_close(box->drop);
}

void dropbox_turn(struct dropbox *box)
{
    uint64_t start, start_cpu;

    if (sd_event_prepare(box->event) == 0 && sd_event_wait(box->event, 5000) <= 0)
        return;
    start = dropbox_now();
    start_cpu = read_clock(CLOCK_THREAD_CPUTIME_ID);
    assert_true(sd_event_dispatch(box->event) >= 0);
    uint64_t took = dropbox_now() - start, cpu = read_clock(CLOCK_THREAD_CPUTIME_ID) - start_cpu;
    box->slowest_usec = took > box->slowest_usec ? took : box->slowest_usec;
    box->slowest_cpu_usec = cpu > box->slowest_cpu_usec ? cpu : box->slowest_cpu_usec;
}

void dropbox_run(struct dropbox *box, unsigned msec)
{
    uint64_t start = dropbox_now();

    while (dropbox_now() - start < msec * UINT64_C(1000))
        dropbox_turn(box);
}

void dropbox_fail(struct dropbox *box, const char *file, int line, const char *what)
{
    print_error("%s:%d: waited in vain for: %s\n", file, line, what);
    print_error("health: \"%s\", %u submissions\n", box->health, box->submissions);
    dropbox_show(box);
    fail();
}

/* --- files ------------------------------------------------------------------------------------ */

static void full_path(const struct dropbox *box, const char *name, char path[PATH_MAX])
{
    assert_true(snprintf(path, PATH_MAX, "%s/%s", box->path, name) < PATH_MAX);
}

static void write_path(const char *path, const char *text)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(file_write_all(fd, text, strlen(text)), 0);
}

void dropbox_put(struct dropbox *box, const char *name, const char *text)
{
    char path[PATH_MAX], outside[PATH_MAX];

    (void)snprintf(outside, sizeof outside, "%s/outside", box->root);
    write_path(outside, text);
    full_path(box, name, path);
    assert_int_equal(rename(outside, path), 0);
}

void dropbox_write(struct dropbox *box, const char *name, const char *text)
{
    char path[PATH_MAX];

    full_path(box, name, path);
    write_path(path, text);
}

bool dropbox_has(const struct dropbox *box, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    full_path(box, name, path);
    return lstat(path, &st) == 0;
}

char *dropbox_read(const struct dropbox *box, const char *name)
{
    char path[PATH_MAX], *text = NULL;
    struct fault f = {0};
    size_t size;

    full_path(box, name, path);
    if (file_read(path, 1 << 20, &text, &size, &f) < 0) {
        dropbox_show(box);
        fail_msg("%s", f.text);
    }
    return text;
}

void dropbox_assert_text(const struct dropbox *box, const char *name, const char *text)
{
    _cleanup_(freep) char *there = dropbox_read(box, name);

    assert_string_equal(there, text);
}

void dropbox_assert_says(const struct dropbox *box, const char *name, const char *part)
{
    _cleanup_(freep) char *there = dropbox_read(box, name);

    if (!strstr(there, part))
        fail_msg("%s says \"%s\", not \"%s\"", name, there, part);
    assert_int_equal(strcspn(there, "\n"), strlen(there) - 1); /* one line */
}

mode_t dropbox_mode(const struct dropbox *box, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    (void)snprintf(path, sizeof path, "%s/%s", box->path, name);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

void dropbox_mkdir(const struct dropbox *box, const char *name)
{
    char path[PATH_MAX];

    (void)snprintf(path, sizeof path, "%s%s%s", box->path, *name ? "/" : "", name);
    assert_int_equal(mkdir(path, 0700), 0);
}

void dropbox_start(struct dropbox *box)
{
    dropbox_open(box);
    dropbox_until(box, dropbox_has(box, "failed"));
    dropbox_run(box, 50); /* the watch */
}

#define SHOWN_MAX 60 /* files */

/* nftw() knows no userdata. */
static struct {
    size_t count;
    const char *text;
    bool show;
} walk;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;

    (void)ftw;
    if (walk.show && walk.count < SHOWN_MAX)
        print_message("    %06o %s\n", (unsigned)st->st_mode, path);
    if (type == FTW_D || type == FTW_DP)
        return 0;
    if (walk.text && (!S_ISREG(st->st_mode) || st->st_size > 1 << 20 ||
                      file_read(path, 1 << 20, &text, &size, NULL) < 0 ||
                      !memmem(text, size, walk.text, strlen(walk.text))))
        return 0;
    walk.count++;
    return 0;
}

static size_t walk_tree(const struct dropbox *box, const char *folder, const char *text, bool show)
{
    char path[PATH_MAX];

    full_path(box, folder, path);
    walk.count = 0;
    walk.text = text;
    walk.show = show;
    (void)nftw(path, visit, 16, FTW_PHYS);
    return walk.count;
}

size_t dropbox_count(const struct dropbox *box, const char *folder)
{
    return walk_tree(box, folder, NULL, false);
}

size_t dropbox_count_text(const struct dropbox *box, const char *text)
{
    return walk_tree(box, "", text, false);
}

void dropbox_show(const struct dropbox *box)
{
    (void)walk_tree(box, "", NULL, true);
}
