#include "tests/support/spool_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/png.h"
#include "daemon/spool.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"

#define OWNER    1000
#define SEED     7
#define PICTURES 2
#define SIDE     16 /* pixels */

struct steps {
    const char *path;
    struct steps_shared *shared;
    struct spool *spool;
    struct job *job, *other; /* the scenario's */
    bool is_acting;
    int picture; /* memfd */
    uint64_t picture_size;
    char picture_sum[SHA256_HEX_SIZE];
};

/* --- memory both see -------------------------------------------------------------------------- */

struct steps_shared *steps_share(void)
{
    void *p = mmap(NULL, sizeof(struct steps_shared), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void steps_unshare(struct steps_shared *shared)
{
    (void)munmap(shared, sizeof *shared);
}

void steps_reset(struct steps_shared *shared)
{
    memset(shared, 0, sizeof *shared);
}

/* Whole lines only: the length grows after the text is there. */
__attribute__((format(printf, 2, 3))) static void tell(struct steps *s, const char *format, ...)
{
    size_t at = s->shared->length;
    va_list args;

    va_start(args, format);
    int n = vsnprintf(s->shared->history + at, STEPS_TEXT_SIZE - at, format, args);
    va_end(args);
    s->shared->length = at + (size_t)n;
}

__attribute__((format(printf, 2, 3))) static void complain(struct steps *s, const char *format, ...)
{
    va_list args;

    if (s->shared->problem[0])
        return;
    va_start(args, format);
    (void)vsnprintf(s->shared->problem, sizeof s->shared->problem, format, args);
    va_end(args);
}

/* --- single changes --------------------------------------------------------------------------- */

typedef int step_t(struct steps *s, struct job **job, struct fault *f);

/* In a preparation nothing may fail; in the steps once, and then the fault is over. */
static void attempt(struct steps *s, const char *what, step_t *step, struct job **job)
{
    struct fault f = {0};
    int r = step(s, job, &f);

    if (r >= 0)
        return;
    s->shared->refusals++;
    tell(s, "REFUSED %s\n", what);
    if (!s->is_acting)
        complain(s, "preparation: %s: %s", what, f.text);
    if (f.err >= 0 || !f.text[0] || !strstr(f.text, s->shared->want))
        complain(s, "%s fails (%d) with the text \"%s\", which does not say \"%s\"", what, r,
                 f.text, s->shared->want);
    s->shared->is_over = true;
    r = step(s, job, &f);
    if (r < 0)
        complain(s, "%s fails again after the fault is over: %s", what, f.text);
}

static struct job *make_job(struct steps *s, const char *token)
{
    struct job *job = job_new(spool_next_id(s->spool), OWNER);
    struct request *q = job ? &job->request : NULL;
    struct fault f = {0};

    if (!job || request_set_text(q, &request_rows[REQUEST_prompt], "fox", 3, &f) < 0 ||
        request_set_uint(q, &request_rows[REQUEST_seed], SEED, &f) < 0 ||
        request_set_uint(q, &request_rows[REQUEST_count], PICTURES, &f) < 0 ||
        (*token &&
         request_set_text(q, &request_rows[REQUEST_token], token, strlen(token), &f) < 0)) {
        complain(s, "cannot make a job: %s", f.text);
        return job_free(job);
    }
    job->created_usec = 1700000000000000;
    if (*token) { /* those start from a picture, too */
        job->inputs[JOB_INPUT_IMAGE].fd = dup(s->picture);
        /* dup(): no call of the spool, and not interfered with */
        if (job->inputs[JOB_INPUT_IMAGE].fd < 0)
            return job_free(job);
    }
    return job;
}

/* Each try takes a new id, as the manager does. */
static int submit_as(struct steps *s, struct job **job, const char *token, struct fault *f)
{
    job_free(*job);
    *job = make_job(s, token);
    if (!*job)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = spool_submit(s->spool, *job, f);
    if (r == 0)
        tell(s, "SUBMITTED %" PRIu64 " %s %d %d\n", (*job)->id, *token ? token : "-", SEED, OWNER);
    return r;
}

static int submit(struct steps *s, struct job **job, struct fault *f)
{
    return submit_as(s, job, "", f);
}

static int submit_with_token(struct steps *s, struct job **job, struct fault *f)
{
    return submit_as(s, job, "again", f);
}

static int update(struct steps *s, struct job **job, struct fault *f)
{
    (*job)->is_resolved = true;
    return spool_update(s->spool, *job, f);
}

static int start(struct steps *s, struct job **job, struct fault *f)
{
    int r = spool_start(s->spool, *job, f);

    if (r < 0)
        return r;
    job_set_state(*job, JOB_STATE_RUNNING);
    (*job)->starts++;
    tell(s, "STARTS %" PRIu64 " %" PRIu32 "\n", (*job)->id, (*job)->starts);
    return 0;
}

/* The worker's picture: a descriptor the spool has to copy. */
static void hold_picture(struct steps *s, struct job *job, uint32_t index)
{
    job->pictures[index] = (struct job_picture){
        .width = SIDE, .height = SIDE, .seed = SEED + index, .bytes = s->picture_size};
    memcpy(job->pictures[index].sha256, s->picture_sum, sizeof s->picture_sum);
    if (job->held[index] < 0)
        job->held[index] = fcntl(s->picture, F_DUPFD_CLOEXEC, 3);
    job->picture_count = index + 1;
}

static int store_first(struct steps *s, struct job **job, struct fault *f)
{
    hold_picture(s, *job, 0);
    if ((*job)->held[0] < 0)
        return fault_set(f, -errno, "picture: %s", strerror(errno));
    int r = spool_store_picture(s->spool, *job, 0, f);

    if (r == 0)
        job_release_picture(*job, 0);
    return r;
}

static int hold_second(struct steps *s, struct job **job, struct fault *f)
{
    hold_picture(s, *job, 1);
    return (*job)->held[1] < 0 ? fault_set(f, -errno, "picture: %s", strerror(errno)) : 0;
}

static int finish(struct steps *s, struct job **job, enum job_state state, struct fault *f)
{
    (*job)->finished_usec = 1700000000000001;
    int r = spool_finish(s->spool, *job, state, f);
    if (r < 0)
        return r;
    job_set_state(*job, state);
    tell(s, "STATE %" PRIu64 " %s\n", (*job)->id, job_state_to_string(state));
    return 0;
}

static int finish_done(struct steps *s, struct job **job, struct fault *f)
{
    return finish(s, job, JOB_STATE_DONE, f);
}

static int finish_failed(struct steps *s, struct job **job, struct fault *f)
{
    (void)fault_set(&(*job)->error, -ECONNRESET, "the worker died twice under this job");
    return finish(s, job, JOB_STATE_FAILED, f);
}

static int finish_cancelled(struct steps *s, struct job **job, struct fault *f)
{
    (void)fault_set(&(*job)->error, -ECANCELED, "cancelled");
    return finish(s, job, JOB_STATE_CANCELLED, f);
}

static int requeue(struct steps *s, struct job **job, struct fault *f)
{
    uint32_t deaths = (*job)->starts;

    (*job)->deaths = deaths;
    int r = spool_requeue(s->spool, *job, f);
    if (r < 0)
        return r;
    job_set_state(*job, JOB_STATE_QUEUED);
    job_rewind(*job);
    return 0;
}

static int delete_job(struct steps *s, struct job **job, struct fault *f)
{
    tell(s, "DELETING %" PRIu64 "\n", (*job)->id);
    int r = spool_delete(s->spool, *job, f);
    if (r == 0)
        tell(s, "DELETED %" PRIu64 "\n", (*job)->id);
    return r;
}

static int write_uptime(struct steps *s, struct job **job, struct fault *f)
{
    (void)job;
    return spool_write_uptime(s->spool, 12345, f);
}

static int probe(struct steps *s, struct job **job, struct fault *f)
{
    (void)job;
    return spool_probe(s->spool, f);
}

static void on_job(struct job *job, void *userdata)
{
    (void)userdata;
    job_free(job);
}

static void on_trouble(const char *why, void *userdata)
{
    struct steps *s = userdata;

    s->shared->refusals++;
    if (!strstr(why, s->shared->want))
        complain(s, "trouble \"%s\" does not say \"%s\"", why, s->shared->want);
}

static int open_spool(struct steps *s, struct job **job, struct fault *f)
{
    const struct spool_finder finder = {.on_job = on_job, .on_trouble = on_trouble, .userdata = s};

    (void)job;
    s->spool = spool_close(s->spool);
    int r = spool_open(s->path, &s->spool, f);
    return r < 0 ? r : spool_recover(s->spool, &finder, f);
}

/* --- scenarios -------------------------------------------------------------------------------- */

static void prepare_nothing(struct steps *s)
{
    (void)s;
}

static void prepare_open(struct steps *s)
{
    attempt(s, "open", open_spool, NULL);
}

static void prepare_queued(struct steps *s)
{
    prepare_open(s);
    attempt(s, "submit", submit_with_token, &s->job);
}

static void prepare_running(struct steps *s)
{
    prepare_queued(s);
    attempt(s, "start", start, &s->job);
}

static void prepare_drawn(struct steps *s)
{
    prepare_running(s);
    attempt(s, "store", store_first, &s->job);
    hold_picture(s, s->job, 1);
}

static void prepare_done(struct steps *s)
{
    prepare_drawn(s);
    attempt(s, "finish", finish_done, &s->job);
}

static void put_stray(struct steps *s, const char *name, const char *text)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", s->path, name);
    if (text ? file_write_atomic(path, text, strlen(text), NULL) < 0 : mkdir(path, 0700) < 0)
        complain(s, "preparation: %s: %s", path, strerror(errno));
    if (text)
        (void)chmod(path, 0600);
}

/* What a kill leaves: a job in each state, something half made, something broken. */
static void prepare_wreck(struct steps *s)
{
    struct job *queued = NULL, *failed = NULL, *running = NULL;

    prepare_done(s);
    attempt(s, "submit", submit, &queued);
    attempt(s, "submit", submit, &failed);
    attempt(s, "finish", finish_failed, &failed);
    attempt(s, "submit", submit, &running);
    attempt(s, "start", start, &running);
    attempt(s, "store", store_first, &running);
    put_stray(s, "tmp/9", NULL);
    put_stray(s, "tmp/9/request.json", "half");
    put_stray(s, "tmp/new", "half");
    put_stray(s, "queued/30", NULL);
    put_stray(s, "queued/30/request.json", "{\"broken\": tr");
    tell(s, "DAMAGED 30\n");
    job_free(queued);
    job_free(failed);
    job_free(running);
    s->spool = spool_close(s->spool);
}

static void act_submit(struct steps *s)
{
    attempt(s, "submit", submit_with_token, &s->job);
    attempt(s, "submit", submit, &s->other);
}

static void act_update(struct steps *s)
{
    attempt(s, "update", update, &s->job);
}

static void act_start(struct steps *s)
{
    attempt(s, "start", start, &s->job);
}

static void act_picture(struct steps *s)
{
    attempt(s, "store", store_first, &s->job);
}

static void act_finish(struct steps *s)
{
    attempt(s, "finish", finish_done, &s->job);
}

static void act_cancel(struct steps *s)
{
    attempt(s, "cancel", finish_cancelled, &s->job);
}

static void act_fail(struct steps *s)
{
    attempt(s, "fail", finish_failed, &s->job);
}

static void act_requeue(struct steps *s)
{
    attempt(s, "requeue", requeue, &s->job);
}

static void act_delete(struct steps *s)
{
    attempt(s, "delete", delete_job, &s->job);
    attempt(s, "submit", submit, &s->other);
}

static void act_uptime(struct steps *s)
{
    attempt(s, "uptime", write_uptime, NULL);
    attempt(s, "probe", probe, NULL);
}

static void act_open(struct steps *s)
{
    attempt(s, "open", open_spool, NULL);
}

static void act_life(struct steps *s)
{
    act_open(s);
    attempt(s, "submit", submit_with_token, &s->job);
    act_start(s);
    act_requeue(s);
    act_start(s);
    act_picture(s);
    attempt(s, "hold", hold_second, &s->job);
    act_finish(s);
    act_delete(s);
}

static void act_next_start(struct steps *s)
{
    act_open(s);
    attempt(s, "submit", submit, &s->other);
    s->spool = spool_close(s->spool);
}

const struct scenario scenarios[] = {
    {"submit", prepare_open, act_submit, false},
    {"update", prepare_queued, act_update, false},
    {"start", prepare_queued, act_start, false},
    {"picture", prepare_running, act_picture, false},
    {"finish", prepare_drawn, act_finish, false},
    {"fail", prepare_running, act_fail, false},
    {"cancel-queued", prepare_queued, act_cancel, false},
    {"cancel-running", prepare_drawn, act_cancel, false},
    {"requeue", prepare_drawn, act_requeue, false},
    {"delete", prepare_done, act_delete, false},
    {"uptime", prepare_open, act_uptime, false},
    {"new-spool", prepare_nothing, act_open, true},
    {"recovery", prepare_wreck, act_open, true},
    {"life", prepare_nothing, act_life, true},
};
const size_t scenario_count = ARRAY_SIZE(scenarios);

const struct scenario scenario_next_start = {"next start", prepare_nothing, act_next_start, true};

/* --- running one ------------------------------------------------------------------------------ */

static int make_picture(struct steps *s)
{
    uint8_t rgb[SIDE * SIDE * 3] = {1, 2, 3};
    const struct png_facts facts = {.prompt = "fox"};
    _cleanup_(freep) uint8_t *png = NULL;
    struct fault f = {0};
    size_t size = 0;

    if (png_encode(rgb, SIDE, SIDE, &facts, PNG_METADATA_NONE, &png, &size, &f) < 0)
        return -EINVAL;
    s->picture_size = size;
    sha256_hex(png, size, s->picture_sum);
    s->picture = memfd_create("picture", MFD_CLOEXEC);
    return s->picture < 0 ? -errno : file_write_all(s->picture, png, size);
}

struct run {
    const struct scenario *scenario;
    const char *spool;
    struct steps_shared *shared;
};

static int body(int socket, void *userdata)
{
    const struct run *run = userdata;
    struct steps s = {.path = run->spool, .shared = run->shared, .picture = -1};

    if (make_picture(&s) < 0)
        return 2;
    run->scenario->prepare(&s);
    if (s.shared->problem[0])
        return 2;
    if (inject_arm(socket) < 0)
        return 3;
    s.is_acting = true;
    run->scenario->act(&s);
    return 0; /* what lies open goes with the process */
}

int steps_run(const struct scenario *scenario, const char *spool, struct steps_shared *shared,
              inject_decide_t *decide, void *userdata, int *ret_status)
{
    struct run run = {.scenario = scenario, .spool = spool, .shared = shared};
    struct inject inject;

    int r = inject_fork(body, &run, &inject);
    return r < 0 ? r : inject_watch(&inject, decide, userdata, ret_status);
}
