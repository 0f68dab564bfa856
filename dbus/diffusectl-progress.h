/* progress — how far a job is, on standard error: one line redrawn in place on a terminal, else a
 * line about once a second. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
    uint64_t id;
    uint32_t pictures; /* of the job; 0: not known */
    bool terminal, colour;
    int words;               /* the longest text beside the bar so far */
    bool drawn;              /* something stands in the current line */
    bool counting;           /* a step was seen */
    uint64_t first_usec;     /* when the first step was seen … */
    uint32_t first_step;     /* … and which it was, over all pictures */
    uint64_t last_line_usec; /* plain lines: the last one */
    char waiting[128];       /* plain lines: the last one said */
};

struct progress_step {
    uint32_t picture, step, steps; /* as in Job.Step */
    uint64_t eta_usec;             /* of the whole job; UINT64_MAX: unknown */
    uint64_t now_usec;             /* monotonic */
};

/* Looks at standard error, TERM and NO_COLOR. */
void progress_init(struct progress *p, uint64_t id);

/* Before the first step: "queued, 2 before it". Plain lines only when it changes. */
void progress_wait(struct progress *p, const char *text);

void progress_step(struct progress *p, const struct progress_step *s);

/* Takes the line off the terminal; call before anything else is printed, and at the end. */
void progress_clear(struct progress *p);
