/* spool_steps — changes of a spool, one at a time, in a process that may die at any call.
 *
 * A scenario has a preparation, which nothing disturbs, and steps, which are watched through
 * tests/support/inject.h. What a client would have been told goes into memory shared with the
 * parent, in the notation of tests/support/check.h, right after each change has returned: told
 * means acknowledged. A step that fails must say why; then the fault is over, and the same step
 * must succeed. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "tests/support/inject.h"

#define STEPS_TEXT_SIZE 8192

/* Shared by parent and child. */
struct steps_shared {
    atomic_bool is_over;  /* no more faults */
    atomic_uint refusals; /* steps that failed and said why */
    char problem[512];    /* "" while all is as it should be */
    char want[64];        /* what the reason of a refusal must contain, "" anything */
    atomic_size_t length;
    char history[STEPS_TEXT_SIZE];
};

struct steps;
struct scenario {
    const char *name;
    void (*prepare)(struct steps *steps);
    void (*act)(struct steps *steps);
    bool is_lenient; /* an fsync may fail without a word: its use is for what comes later */
};
extern const struct scenario scenarios[];
extern const size_t scenario_count;
/* Opens and recovers whatever lies there, submits a job, closes: the next start. */
extern const struct scenario scenario_next_start;

struct steps_shared *steps_share(void);
void steps_unshare(struct steps_shared *shared);
/* Forgets what was told. */
void steps_reset(struct steps_shared *shared);

/* Runs a scenario on a spool directory (made if need be) in a child under `decide`. 0, its wait
 * status in *ret_status; or -errno. */
int steps_run(const struct scenario *scenario, const char *spool, struct steps_shared *shared,
              inject_decide_t *decide, void *userdata, int *ret_status);
