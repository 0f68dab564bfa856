/* pulse — whether a worker is alive and gets on, judged from its beats. Free of I/O and clocks.
 *
 * Two things are counted: how long nothing at all was heard (quiet), and how long the beats showed
 * no progress while there should have been some (still). Only time counts in which we were looking:
 * a manager that was stopped or held up itself holds nothing against its worker.
 *
 * Quiet has a fixed limit. Still's limit follows the worker: PULSE_STILL_FACTOR times the longest
 * standstill that ended well, within [still_min, still_max]; until its first job is done, while
 * pipelines are compiled, still_max. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PULSE_STILL_FACTOR 8u

struct pulse_limits {
    uint64_t quiet_usec;
    uint64_t still_min_usec, still_max_usec;
    uint64_t look_usec; /* how often it is looked at; of a longer gap between two looks twice this
                           counts */
};

struct pulse {
    uint64_t progress; /* as of the last beat */
    uint64_t quiet_usec, still_usec;
    uint64_t slowest_usec; /* the longest still_usec that ended in progress */
    bool is_proven;        /* a job was done */
};

/* Any packet is a sign of life. */
void pulse_on_packet(struct pulse *pulse);
/* A beat: another progress than before ends the standstill. */
void pulse_on_beat(struct pulse *pulse, uint64_t progress);
/* Work begins or goes on: what was before does not count. */
void pulse_on_work(struct pulse *pulse);
/* elapsed: since the last look. must_advance: the worker has something to do and may do it. */
void pulse_on_look(struct pulse *pulse, const struct pulse_limits *limits, uint64_t elapsed_usec,
                   bool must_advance);

uint64_t pulse_still_limit(const struct pulse *pulse, const struct pulse_limits *limits);
/* True when it must be killed; `ret_why` is then for people. */
bool pulse_is_stuck(const struct pulse *pulse, const struct pulse_limits *limits, char *ret_why,
                    size_t size);
