/* What clients were told, line by line, and whether the disk still says so. */
#include <inttypes.h>
#include <string.h>

#include "tests/support/check_internal.h"

/* A job as clients know it. */
struct told {
    uint64_t id;
    char token[80], seed[24], uid[16];
    uint64_t starts;
    int final; /* enum check_state, -1: not seen to end */
    bool submitted, ended, deleted, may_be_gone, may_be_corrupt;
};

struct history {
    struct check *check;
    struct ARRAY(struct told) jobs;
    unsigned line;
};

static struct told *find_told(struct history *h, const char *text)
{
    char *end;
    uint64_t id = strtoull(text, &end, 10);

    if (end == text || *end) {
        check_violation(h->check, "history, line %u: \"%s\" is no id", h->line, text);
        return NULL;
    }
    for (size_t i = h->jobs.count; i > 0; i--)
        if (h->jobs.items[i - 1].id == id)
            return &h->jobs.items[i - 1];
    struct told *told = array_push(&h->jobs);
    if (told)
        *told = (struct told){.id = id, .final = -1};
    return told;
}

/* Against what the same client was told before: the token, the order. */
static void compare_with_earlier(struct history *h, const struct told *told, bool is_new)
{
    for (size_t i = 0; i < h->jobs.count; i++) {
        const struct told *other = &h->jobs.items[i];
        if (!other->submitted || other == told || strcmp(other->uid, told->uid) != 0)
            continue;
        if (strcmp(told->token, "-") != 0 && strcmp(told->token, other->token) == 0 &&
            !other->deleted && !other->may_be_gone)
            check_violation(h->check, "token %s of uid %s: job %" PRIu64 " and job %" PRIu64,
                            told->token, told->uid, other->id, told->id);
        if (is_new && other->id > told->id)
            check_violation(h->check, "line %u: job %" PRIu64 " was given after job %" PRIu64,
                            h->line, told->id, other->id);
    }
}

static void on_submitted(struct history *h, struct told *told, char *const words[])
{
    bool again = told->submitted;

    if (again && (strcmp(words[2], "-") == 0 || strcmp(words[2], told->token) != 0 ||
                  strcmp(words[4], told->uid) != 0))
        check_violation(h->check, "line %u: job %" PRIu64 " was given twice", h->line, told->id);
    if (told->deleted)
        check_violation(h->check, "line %u: job %" PRIu64 " was deleted before", h->line, told->id);
    told->submitted = true;
    (void)snprintf(told->token, sizeof told->token, "%s", words[2]);
    (void)snprintf(told->seed, sizeof told->seed, "%s", words[3]);
    (void)snprintf(told->uid, sizeof told->uid, "%s", words[4]);
    compare_with_earlier(h, told, !again && strcmp(words[0], "SUBMITTED") == 0);
}

static void on_state(struct history *h, struct told *told, char *const words[])
{
    int state = check_state_from_word(words[2]);

    if (state < 0)
        check_violation(h->check, "line %u: no state \"%s\"", h->line, words[2]);
    if (told->deleted)
        check_violation(h->check, "line %u: job %" PRIu64 " was deleted, and is %s", h->line,
                        told->id, words[2]);
    if (told->final >= 0 && state != told->final)
        check_violation(h->check, "line %u: job %" PRIu64 " was %s, and is %s", h->line, told->id,
                        check_state_names[told->final], words[2]);
    if (check_state_is_final(state))
        told->final = state;
}

static void on_cancelled(struct history *h, struct told *told, char *const words[])
{
    (void)h, (void)words;
    told->ended = true;
}

static void on_starts(struct history *h, struct told *told, char *const words[])
{
    (void)h;
    told->starts = strtoull(words[2], NULL, 10);
}

static void on_deleted(struct history *h, struct told *told, char *const words[])
{
    (void)h, (void)words;
    told->deleted = true;
}

static void on_maybe_gone(struct history *h, struct told *told, char *const words[])
{
    (void)h, (void)words;
    told->may_be_gone = true;
}

static void on_damaged(struct history *h, struct told *told, char *const words[])
{
    (void)h, (void)words;
    told->may_be_corrupt = true;
}

static void on_wrong(struct history *h, struct told *told, char *const words[])
{
    check_violation(h->check, "line %u: job %" PRIu64 ": %s %s %s", h->line, told->id, words[2],
                    words[3], words[4]);
}

static void take_line(struct history *h, char *line)
{
    static const struct {
        const char *word;
        unsigned words; /* at least, with the first */
        void (*take)(struct history *h, struct told *told, char *const words[]);
    } rows[] = {
        {"SUBMITTED", 4, on_submitted}, {"REPEATED", 4, on_submitted},  {"STATE", 3, on_state},
        {"STARTS", 3, on_starts},       {"CANCELLED", 2, on_cancelled}, {"DELETED", 2, on_deleted},
        {"DELETING", 2, on_maybe_gone}, {"EXPIRED", 2, on_maybe_gone},  {"DAMAGED", 2, on_damaged},
        {"REFUSED", 1, NULL},           {"WRONG", 2, on_wrong},         {"DROPPED", 2, NULL},
    };
    char none[] = "-", *words[5] = {none, none, none, none, none}, *rest = NULL;
    unsigned count = 0;

    for (char *w = strtok_r(line, " ", &rest); w && count < 5; w = strtok_r(NULL, " ", &rest))
        words[count++] = w;
    if (count == 0 || words[0][0] == '#')
        return;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (strcmp(rows[i].word, words[0]) != 0 || count < rows[i].words)
            continue;
        struct told *told = rows[i].take ? find_told(h, words[1]) : NULL;
        if (told)
            rows[i].take(h, told, words);
        return;
    }
    check_violation(h->check, "history, line %u: \"%s\" with %u words", h->line, words[0], count);
}

static const struct check_job *find_job(const struct check *check, uint64_t id)
{
    for (size_t i = 0; i < check->jobs.count; i++)
        if (check->jobs.items[i].id == id)
            return &check->jobs.items[i];
    return NULL;
}

static void compare_with_disk(struct check *check, const struct told *told)
{
    const struct check_job *job = find_job(check, told->id);
    char seed[24];

    if (told->id > check->last_id)
        check_violation(check,
                        "job %" PRIu64 ": may be given again, the disk knows %" PRIu64 " only",
                        told->id, check->last_id);
    if (!job) {
        if (!told->deleted && !told->may_be_gone)
            check_violation(check, "job %" PRIu64 ": lost", told->id);
        return;
    }
    if (told->deleted)
        check_violation(check, "job %" PRIu64 ": was deleted, and is in %s/", told->id,
                        check_state_names[job->state]);
    if (job->state == CHECK_STATE_CORRUPT) {
        if (!told->may_be_corrupt)
            check_violation(check, "job %" PRIu64 ": set aside in corrupt/", told->id);
        return;
    }
    if (told->final >= 0 && (int)job->state != told->final)
        check_violation(check, "job %" PRIu64 ": was seen %s, and is in %s/", told->id,
                        check_state_names[told->final], check_state_names[job->state]);
    if (job->starts < told->starts)
        check_violation(check, "job %" PRIu64 ": was started %" PRIu64 " times, counts %" PRIu64,
                        told->id, told->starts, job->starts);
    if (!told->submitted)
        return;
    (void)snprintf(seed, sizeof seed, "%" PRIu64, job->seed);
    if (strcmp(told->seed, "-") != 0 && (!job->has_seed || strcmp(seed, told->seed) != 0))
        check_violation(check, "job %" PRIu64 ": asked with seed %s", told->id, told->seed);
    if (strcmp(told->token, "-") != 0 && strcmp(told->token, job->token) != 0)
        check_violation(check, "job %" PRIu64 ": asked with token %s, has \"%s\"", told->id,
                        told->token, job->token);
    if (strcmp(told->uid, "-") != 0 && strtoull(told->uid, NULL, 10) != job->owner)
        check_violation(check, "job %" PRIu64 ": of uid %s, has owner %" PRIu64, told->id,
                        told->uid, job->owner);
}

bool check_is_damaged(const struct check *check, uint64_t id)
{
    const char *text = check->options->history;
    char line[40];

    (void)snprintf(line, sizeof line, "DAMAGED %" PRIu64 "\n", id);
    return text && strstr(text, line);
}

void check_history(struct check *check, const char *text)
{
    struct history h = {.check = check};
    _cleanup_(freep) char *copy = strdup(text);

    if (!copy)
        return;
    for (char *at = copy, *end; *at; at = end) {
        end = strchrnul(at, '\n');
        if (*end)
            *end++ = '\0';
        h.line++;
        take_line(&h, at);
    }
    for (size_t i = 0; i < h.jobs.count; i++) {
        const struct told *told = &h.jobs.items[i];
        const struct check_job *job = find_job(check, told->id);
        compare_with_disk(check, told);
        if (told->ended && job && job->state <= CHECK_STATE_RUNNING &&
            check->options->flags & CHECK_DRAINED)
            check_violation(check, "job %" PRIu64 ": was cancelled, and is %s", told->id,
                            check_state_names[job->state]);
    }
    array_done(&h.jobs);
}
