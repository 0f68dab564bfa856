/* powercut — what a disk may look like after the power went, without cutting any.
 *
 * A scenario of tests/support/spool_steps.h runs once and its file system calls are recorded. From
 * the record every prefix is replayed as a disk might hold it: what was fsynced is there, of the
 * rest any part may be: names without contents, contents without names, files cut short or full of
 * zeros, later changes without earlier ones. The model is weaker than ext4, xfs and btrfs: names
 * are durable by fsync of their directory only, contents by fsync of their file only; a rename is
 * one change, durable with either directory. The next start must find all that had been told.
 *
 * To show that each fsync is needed, the record is replayed without it: some disk must then be
 * found wanting. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "tests/support/spool_steps.h"

struct powercut {
    const char *folder; /* scratch */
    FILE *out;
    uint64_t random;
    unsigned shuffles; /* random disks for each prefix, besides the four fixed ones */
    struct steps_shared *shared;
    /* what came out */
    unsigned calls, syncs, needless, replays, violations;
};

/* Records and replays every prefix; violations are printed. 0, or -errno when it cannot. */
int powercut_run(struct powercut *p, const struct scenario *scenario);

/* Replays without one fsync after the other; p->needless counts those whose lack shows in no disk,
 * with a line each. Violations of these replays are neither printed nor counted. */
int powercut_without_syncs(struct powercut *p, const struct scenario *scenario);
