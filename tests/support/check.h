/* check — does a spool keep its promises? The invariants, read from the disk and from what clients
 * were told, by code that shares nothing with the daemon's own but SHA-256 and jansson.
 *
 *  1 each id a client was told has one record in one state, or was deleted or let go; a state once
 *    seen as final never changes; a token or an origin never has two jobs
 *  2 every picture is whole: chunks, CRC, IEND last, the size and SHA-256 its result.json says
 *  3 every dropped file is in exactly one place
 *  4 ids are unique, grow for each client, and none can be given again: last-id or a job on disk is
 *    as high
 *  5 tmp/ is empty once a daemon has recovered
 *  6 what a user may keep (files, bytes) is not exceeded
 *  7 owner and modes are right; nothing lies in the spool that has no business there
 *  8 a secret is in no log
 *
 * The history is text, one line for each thing a client saw ("-": not known):
 *     SUBMITTED ID TOKEN SEED [UID]   Submit answered
 *     REPEATED ID TOKEN SEED [UID]    the same made again with its token: the same id, or the one
 *                                     that an earlier try without an answer has got
 *     REFUSED …                       Submit answered with an error
 *     STATE ID WORD                   the job was seen in this state
 *     STARTS ID N                     it was started so often: never less on disk
 *     CANCELLED ID                    Cancel answered: it may still end in another way, but it ends
 *     DELETED ID · DELETING ID        Delete answered · was asked for
 *     EXPIRED ID                      may have been let go by retention, deadline, ephemeral
 *     DAMAGED ID                      may lie in corrupt/: the test broke it
 *     WRONG ID …                      the client itself saw what must not be
 *     DROPPED NAME                    a file was put into the drop folder, complete
 * "#" begins a comment. */
#pragma once

#include <stdint.h>
#include <stdio.h>

enum check_flags {
    CHECK_RUNNING = 1,        /* a daemon is at work or was just killed: tmp/ may hold something */
    CHECK_DRAINED = 2,        /* nothing may wait or run any more, dropped files have their end */
    CHECK_GROUP_READABLE = 4, /* SpoolGroupReadable: 0750 and 0640 */
    CHECK_IDLE = 8,           /* recovered, no worker: nothing may be in running/ */
};

struct check_options {
    const char *spool;
    const char *drop;    /* NULL: no drop folder */
    const char *history; /* text; NULL: none */
    unsigned flags;      /* enum check_flags */
    int64_t uid;         /* whose everything must be; -1: the owner of the spool directory */
    uint64_t user_jobs, user_bytes; /* invariant 6; 0: no limit */
    FILE *out;                      /* "violation: …", a line each */
};

/* The number of violations, or -errno with a line on `out` when it could not look. */
int check_spool(const struct check_options *options);

/* Invariant 8 for one file: 1 when it holds the text, 0 when not, or -errno. */
int check_file_for_text(const char *path, const char *text, FILE *out);
