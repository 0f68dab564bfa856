#include "tests/support/faults.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/support/check.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define CALLS_MAX 4096u

/* fsync reports a full disk where blocks are given out late. */
#define SPACE (INJECT_GROWS | INJECT_SYNCS)

const struct faults_error faults_errors[] = {
    {"ENOSPC", ENOSPC, SPACE},
    {"EDQUOT", EDQUOT, SPACE},
    {"EIO", EIO, INJECT_READS | INJECT_CHANGES | INJECT_GROWS | INJECT_SYNCS | INJECT_OPENS},
    {"EROFS", EROFS, INJECT_CHANGES | INJECT_GROWS},
    {"EMFILE", EMFILE, INJECT_OPENS},
    {"ENFILE", ENFILE, INJECT_OPENS},
};
const size_t faults_error_count = ARRAY_SIZE(faults_errors);

/* What happens at which call. */
struct plan {
    unsigned at;                      /* 1…; 0: nothing */
    const struct faults_error *error; /* NULL: a kill */
    bool sticky;
    /* while it runs */
    struct steps_shared *shared;
    unsigned seen;
    bool hit;
    unsigned hit_classes;
    char name[24];
    unsigned *classes; /* of each call, when they are wanted: CALLS_MAX */
};

uint64_t faults_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static int decide(const struct inject_call *call, void *userdata)
{
    struct plan *p = userdata;

    p->seen++;
    if (p->classes && p->seen <= CALLS_MAX)
        p->classes[p->seen - 1] = call->classes;
    if (p->at == 0 || p->seen < p->at || (p->seen > p->at && !p->sticky) || p->shared->is_over)
        return INJECT_GO;
    if (p->error && !(call->classes & p->error->classes))
        return INJECT_GO;
    if (!p->hit)
        (void)snprintf(p->name, sizeof p->name, "%s", call->name);
    p->hit = true;
    p->hit_classes |= call->classes;
    return p->error ? -p->error->number : INJECT_KILL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void describe(const struct plan *p, char *text, size_t size)
{
    (void)snprintf(text, size, "%s %s call %u (%s)", p->error ? p->error->name : "SIGKILL",
                   p->sticky ? "from" : "at", p->at, p->name);
}

/* One line that leads back to the trial. */
static void report(struct faults *c, const struct scenario *scenario, const struct plan *first,
                   const struct plan *second, const char *what)
{
    char a[96], b[96] = "";

    describe(first, a, sizeof a);
    if (second && second->at)
        describe(second, b, sizeof b);
    c->violations++;
    (void)fprintf(c->out, "%s: %s%s%s: %s\n", scenario->name, a, *b ? ", next start: " : "", b,
                  what);
}

static void check(struct faults *c, const struct scenario *scenario, const struct plan *first,
                  const struct plan *second, const char *spool, unsigned flags)
{
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return;
    int r = check_spool(&(struct check_options){
        .spool = spool, .history = c->shared->history, .flags = flags, .uid = -1, .out = out});
    (void)fclose(out);
    if (r != 0)
        report(c, scenario, first, second, text);
}

/* Runs one plan of a trial, the first on its scenario, others on the next start; its end must be
 * the planned one. */
static bool run(struct faults *c, const struct scenario *trial_of, const char *spool,
                struct plan *first, struct plan *second, struct plan *now)
{
    const struct scenario *scenario = now == first ? trial_of : &scenario_next_start;
    char text[96];
    int status = 0;

    now->shared = c->shared;
    c->shared->is_over = false;
    (void)snprintf(c->shared->want, sizeof c->shared->want, "%s",
                   now->at && now->error ? strerror(now->error->number) : "");
    int r = steps_run(scenario, spool, c->shared, decide, now, &status);
    bool killed = now->hit && !now->error;
    (void)snprintf(text, sizeof text, "%s %d%s", r < 0 ? "cannot run, error" : "wait status",
                   r < 0 ? -r : status, killed ? ", want SIGKILL" : "");
    bool good = r == 0 && (killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                                  : WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (!good || c->shared->problem[0])
        report(c, trial_of, first, second, c->shared->problem[0] ? c->shared->problem : text);
    /* what was not synced is not on disk, whatever else went well */
    if (good && now->hit_classes & INJECT_SYNCS && !scenario->is_lenient &&
        c->shared->refusals == 0 && now->error)
        report(c, trial_of, first, second, "fsync failed, and nobody was told");
    c->kills += killed;
    return good;
}

/* The scenario under one plan, the next start under another, then an undisturbed one. Returns the
 * file system calls of the scenario. */
static unsigned trial(struct faults *c, const struct scenario *scenario, struct plan *first,
                      struct plan *second)
{
    struct plan calm = {0};
    char spool[512];

    (void)snprintf(spool, sizeof spool, "%s/spool", c->folder);
    (void)nftw(spool, remove_one, 16, FTW_DEPTH | FTW_PHYS); /* there is none yet: fine */
    steps_reset(c->shared);
    c->trials++;
    if (!run(c, scenario, spool, first, NULL, first))
        return first->seen;
    if (access(spool, F_OK) == 0 && first->seen > 1)
        check(c, scenario, first, second, spool, CHECK_RUNNING);
    if (second && !run(c, scenario, spool, first, second, second))
        return first->seen;
    if (run(c, scenario, spool, first, second, &calm))
        check(c, scenario, first, second, spool, CHECK_IDLE);
    c->refusals += c->shared->refusals;
    return first->seen;
}

/* How many calls there are, and of which class. */
static unsigned count_calls(struct faults *c, const struct scenario *scenario, unsigned *classes)
{
    struct plan calm = {.classes = classes};
    unsigned calls = trial(c, scenario, &calm, NULL);

    if (calls < CALLS_MAX)
        return calls;
    report(c, scenario, &calm, NULL, "too many calls");
    return CALLS_MAX - 1;
}

void faults_kill(struct faults *c, const struct scenario *scenario)
{
    for (unsigned n = 1;; n += c->stride) {
        struct plan plan = {.at = n};
        (void)trial(c, scenario, &plan, NULL);
        if (!plan.hit)
            return;
        c->points++;
    }
}

void faults_kill_twice(struct faults *c, const struct scenario *scenario, unsigned count)
{
    unsigned calls = count_calls(c, scenario, NULL);
    unsigned first = 1 + (unsigned)(faults_random(&c->random) % calls), second = 0;
    bool exhaustive = count == 0;

    for (unsigned i = 0; exhaustive || i < count; i++) {
        if (!exhaustive)
            first = 1 + (unsigned)(faults_random(&c->random) % calls);
        second = exhaustive ? second + c->stride : 1 + (unsigned)(faults_random(&c->random) % 60);
        struct plan a = {.at = first}, b = {.at = second};
        (void)trial(c, scenario, &a, &b);
        if (exhaustive && !b.hit)
            return;
        c->points++;
    }
}

void faults_fail(struct faults *c, const struct scenario *scenario,
                 const struct faults_error *error)
{
    unsigned classes[CALLS_MAX];
    unsigned calls = count_calls(c, scenario, classes);

    for (unsigned n = 1; n <= calls; n += c->stride) {
        if (!(classes[n - 1] & error->classes))
            continue;
        c->points++;
        for (unsigned sticky = 0; sticky < 2; sticky++) {
            struct plan plan = {.at = n, .error = error, .sticky = sticky};
            (void)trial(c, scenario, &plan, NULL);
        }
    }
}

void faults_kill_and_fail(struct faults *c, const struct scenario *scenario, unsigned count)
{
    unsigned calls = count_calls(c, scenario, NULL);

    for (unsigned i = 0; i < count; i++) {
        struct plan a = {.at = 1 + (unsigned)(faults_random(&c->random) % calls)};
        struct plan b = {.at = 1 + (unsigned)(faults_random(&c->random) % 60),
                         .error = &faults_errors[faults_random(&c->random) % faults_error_count],
                         .sticky = faults_random(&c->random) & 1};
        (void)trial(c, scenario, &a, &b);
        c->points++;
    }
}

int faults_init(struct faults *c, const char *folder, FILE *out)
{
    *c = (struct faults){.folder = folder, .out = out, .stride = 1, .random = 1};
    c->shared = steps_share();
    return c->shared ? 0 : -ENOMEM;
}

void faults_done(struct faults *c)
{
    if (c->shared)
        steps_unshare(c->shared);
    c->shared = NULL;
}
