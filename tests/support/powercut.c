#include "tests/support/powercut.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/check.h"
#include "tests/support/faults.h"
#include "tests/support/powercut_record.h"

#define NONE SIZE_MAX

/* What of the changes that nothing made durable is on the disk. */
enum luck {
    LUCK_NOTHING,
    LUCK_ALL,
    LUCK_NAMES,    /* names, and files without their contents */
    LUCK_CONTENTS, /* contents, and nothing under its new name */
    LUCK_FIXED_COUNT,
    LUCK_RANDOM = LUCK_FIXED_COUNT,
};

struct replay {
    struct powercut *p;
    const struct scenario *scenario;
    const struct powercut_record *record;
    size_t end;     /* changes made before the power went */
    size_t without; /* this fsync is left out; NONE */
    unsigned luck;
    bool is_quiet;
};

static bool is_synced(const struct replay *r, size_t after, unsigned node)
{
    for (size_t i = after + 1; i < r->end; i++) {
        const struct powercut_change *c = &r->record->changes.items[i];
        if (c->kind == POWERCUT_SYNC && c->node == node && i != r->without)
            return true;
    }
    return false;
}

static bool is_lucky(const struct replay *r, bool is_name)
{
    switch (r->luck) {
    case LUCK_NOTHING:
        return false;
    case LUCK_ALL:
        return true;
    case LUCK_NAMES:
        return is_name;
    case LUCK_CONTENTS:
        return !is_name;
    default:
        return faults_random(&r->p->random) & 1;
    }
}

/* --- the disk --------------------------------------------------------------------------------- */

static void build_links(const struct replay *r, struct powercut_links *links)
{
    for (size_t i = 0; i < r->record->first.count; i++) {
        struct powercut_link *link = array_push(links);
        if (link)
            *link = r->record->first.items[i];
    }
    for (size_t i = 0; i < r->end; i++) {
        const struct powercut_change *c = &r->record->changes.items[i];
        bool is_name = c->kind == POWERCUT_SET || c->kind == POWERCUT_CLEAR;
        if (is_name && (is_synced(r, i, c->directory) ||
                        (c->from != UINT_MAX && is_synced(r, i, c->from)) || is_lucky(r, true)))
            powercut_apply(links, c);
    }
}

/* Writes a file's content: the last that was synced, or a later one, or a part of that. */
static int write_content(const struct replay *r, unsigned node, int fd)
{
    const struct powercut_change *content = NULL, *last = NULL;
    unsigned torn = 0;

    for (size_t i = 0; i < r->end; i++) {
        const struct powercut_change *c = &r->record->changes.items[i];
        if (c->kind != POWERCUT_DATA || c->node != node)
            continue;
        last = c;
        if (is_synced(r, i, node))
            content = c;
    }
    if (last != content && is_lucky(r, false)) {
        content = last;
        torn = r->luck == LUCK_RANDOM ? (unsigned)(faults_random(&r->p->random) % 3) : 0;
    }
    if (!content || content->size == 0)
        return 0;
    size_t size = torn == 1 ? faults_random(&r->p->random) % content->size : content->size;
    if (torn == 2) /* blocks were given out, and not written */
        return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
    return write(fd, content->data, size) == (ssize_t)size ? 0 : -EIO;
}

static int build_tree(const struct replay *r, const struct powercut_links *links,
                      unsigned directory, int parent, unsigned depth)
{
    int result = 0;

    for (size_t i = 0; result == 0 && depth < 8 && i < links->count; i++) {
        const struct powercut_link *link = &links->items[i];
        if (link->directory != directory)
            continue;
        bool is_directory = r->record->nodes.items[link->node];
        if (is_directory && mkdirat(parent, link->name, 0700) < 0)
            return -errno;
        _cleanup_(closep) int fd =
            openat(parent, link->name, is_directory ? O_RDONLY : O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0)
            return -errno;
        result = is_directory ? build_tree(r, links, link->node, fd, depth + 1)
                              : write_content(r, link->node, fd);
    }
    return result;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type;
    return ftw->level == 0 ? 0 : remove(path);
}

static int build_disk(const struct replay *r)
{
    struct powercut_links links = {0};

    (void)nftw(r->p->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    build_links(r, &links);
    _cleanup_(closep) int root = open(r->p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = root < 0 ? -errno : build_tree(r, &links, POWERCUT_ROOT, root, 0);
    array_done(&links);
    return result;
}

/* --- one replay ------------------------------------------------------------------------------- */

static int let_go(const struct inject_call *call, void *userdata)
{
    (void)call, (void)userdata;
    return INJECT_GO;
}

static void report(const struct replay *r, const char *what)
{
    const struct powercut_change *c = &r->record->changes.items[r->end - 1];

    if (!r->is_quiet)
        (void)fprintf(r->p->out, "%s: power cut after change %zu (%s %s), luck %u: %s\n",
                      r->scenario->name, r->end, c->call, c->name, r->luck, what);
}

/* 1 when the next start finds all that was told, 0 when not. */
static int replay(struct replay *r, const char *history)
{
    struct steps_shared *shared = r->p->shared;
    _cleanup_(freep) char *text = NULL;
    char spool[PATH_MAX];
    size_t size = 0, told = r->record->told;
    int status = 0;

    if (r->end < r->record->changes.count)
        told = r->record->changes.items[r->end].told;
    int e = build_disk(r);
    if (e < 0)
        return e;
    steps_reset(shared);
    memcpy(shared->history, history, told);
    shared->length = told;
    (void)snprintf(spool, sizeof spool, "%s/spool", r->p->folder);
    e = steps_run(&scenario_next_start, spool, shared, let_go, NULL, &status);
    if (e < 0)
        return e;
    r->p->replays++;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return -ENOMEM;
    int found = check_spool(&(struct check_options){
        .spool = spool, .history = shared->history, .flags = CHECK_IDLE, .uid = -1, .out = out});
    (void)fclose(out);
    if (status == 0 && !shared->problem[0] && found == 0)
        return 1;
    report(r, shared->problem[0] ? shared->problem : text);
    return 0;
}

/* --- recording -------------------------------------------------------------------------------- */

static int record(struct powercut *p, const struct scenario *scenario,
                  struct powercut_record *record, char *history)
{
    char spool[PATH_MAX];
    int status = 0;

    (void)nftw(p->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    (void)snprintf(spool, sizeof spool, "%s/spool", p->folder);
    steps_reset(p->shared);
    *record = (struct powercut_record){.folder = p->folder, .shared = p->shared};
    int r = steps_run(scenario, spool, p->shared, powercut_on_call, record, &status);
    if (r < 0)
        return r;
    record->told = p->shared->length;
    memcpy(history, p->shared->history, STEPS_TEXT_SIZE);
    if (status != 0 || record->is_broken || p->shared->problem[0]) {
        (void)fprintf(p->out, "%s: cannot be recorded: status %d %s\n", scenario->name, status,
                      p->shared->problem);
        return -EINVAL;
    }
    return 0;
}

/* Where the watching began: what lay there before has no call. */
static size_t first_change(const struct powercut_record *record)
{
    size_t i = 0;

    while (i < record->changes.count && strcmp(record->changes.items[i].call, "start") == 0)
        i++;
    return i;
}

int powercut_run(struct powercut *p, const struct scenario *scenario)
{
    struct powercut_record rec;
    char history[STEPS_TEXT_SIZE];
    int r = record(p, scenario, &rec, history);

    for (size_t end = first_change(&rec) + 1; r >= 0 && end <= rec.changes.count; end++) {
        struct replay one = {
            .p = p, .scenario = scenario, .record = &rec, .end = end, .without = NONE};
        p->calls++;
        p->syncs += rec.changes.items[end - 1].kind == POWERCUT_SYNC;
        for (one.luck = 0; r >= 0 && one.luck < LUCK_FIXED_COUNT + p->shuffles; one.luck++) {
            struct replay now = one;
            now.luck = one.luck < LUCK_RANDOM ? one.luck : LUCK_RANDOM;
            r = replay(&now, history);
            p->violations += r == 0;
        }
    }
    powercut_record_done(&rec);
    return r < 0 ? r : 0;
}

/* Whether some disk shows that this fsync is missing. */
static int is_needed(struct powercut *p, const struct scenario *scenario,
                     const struct powercut_record *rec, const char *history, size_t without)
{
    int r = 1;

    for (size_t end = without + 1; r == 1 && end <= rec->changes.count; end++) {
        struct replay one = {.p = p,
                             .scenario = scenario,
                             .record = rec,
                             .end = end,
                             .without = without,
                             .is_quiet = true};
        for (one.luck = 0; r == 1 && one.luck < LUCK_FIXED_COUNT; one.luck++)
            r = replay(&one, history);
    }
    return r < 0 ? r : r == 0;
}

int powercut_without_syncs(struct powercut *p, const struct scenario *scenario)
{
    struct powercut_record rec;
    char history[STEPS_TEXT_SIZE];
    int r = record(p, scenario, &rec, history);

    for (size_t i = first_change(&rec); r >= 0 && i < rec.changes.count; i++) {
        if (rec.changes.items[i].kind != POWERCUT_SYNC)
            continue;
        p->syncs++;
        r = is_needed(p, scenario, &rec, history, i);
        p->needless += r == 0;
        if (r == 0)
            (void)fprintf(p->out,
                          "%s: no disk shows the lack of the fsync at change %zu, after %s %s\n",
                          scenario->name, i + 1, rec.changes.items[i - 1].call,
                          rec.changes.items[i - 1].name);
    }
    powercut_record_done(&rec);
    return r < 0 ? r : 0;
}
