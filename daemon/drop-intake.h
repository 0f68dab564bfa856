/* drop-intake — what lies in the intake and when it may be taken up.
 *
 * A file is ready when somebody was seen to finish it (closed after writing, moved in), or when
 * nobody was seen to write it and it has been the same for the settling time. Times are
 * CLOCK_MONOTONIC: the wall clock, and with it every file's, may jump. The table holds a bounded
 * part of what is there, a share for each user; the rest waits for the next scan. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/drop-folder.h"
#include "vk/base/array.h"

#define DROP_INTAKE_MAX      4096u /* entries of a class: tickets, everything else */
#define DROP_INTAKE_USER_MAX 1024u /* of one user in a class */

struct drop_entry {
    char *name;
    enum drop_kind kind;
    bool is_regular;
    bool is_created, is_open; /* seen to be made; and being written since then */
    bool is_ready;            /* seen to be complete */
    bool is_stuck;            /* cannot be moved: said, and left alone until it changes */
    uid_t uid;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
    uint64_t first_usec, same_usec; /* first seen; the same since */
    unsigned scan;                  /* the last one that saw it */
};

struct drop_users {
    uid_t uid;
    unsigned entries[2];
};

struct drop_intake {
    uint64_t settle_usec, orphan_usec;
    int inotify, watch;                        /* -1: none */
    struct ARRAY(struct drop_entry *) entries; /* by name */
    struct ARRAY(struct drop_users) users;
    unsigned total[2], scan;
    bool is_partial; /* there were more tickets than the table holds */
    bool is_unsure;  /* a file could not be looked at; whoever plans a scan for it unsets this */
};

enum drop_events {
    DROP_EVENTS_RESCAN = 1, /* some were lost */
    DROP_EVENTS_REOPEN = 2, /* the folder itself has gone or moved … */
    DROP_EVENTS_GOING = 4,  /* … or is being taken apart: its end is no event while it is open */
};

int drop_intake_init(struct drop_intake *intake); /* settle_usec, orphan_usec are the caller's */
void drop_intake_done(struct drop_intake *intake);
/* Watches the folder that is open now; forgets what was known of another. */
int drop_intake_watch(struct drop_intake *intake, const struct drop_folder *folder);
/* Reads what is waiting, at most one buffer. enum drop_events, or'ed. */
unsigned drop_intake_read_events(struct drop_intake *intake, const struct drop_folder *folder,
                                 uint64_t now);
/* Looks through the whole folder. */
int drop_intake_scan(struct drop_intake *intake, const struct drop_folder *folder, uint64_t now);

/* The entry to be taken up next, oldest first, or NULL; then *ret_due is when to ask again
 * (UINT64_MAX: when something happens). `may_take` says whether a user's turn has come. */
struct drop_entry *drop_intake_next(struct drop_intake *intake, const struct drop_folder *folder,
                                    uint64_t now, bool (*may_take)(uid_t uid, void *userdata),
                                    void *userdata, uint64_t *ret_due);
void drop_intake_forget(struct drop_intake *intake, struct drop_entry *entry);
/* Half empty, and more is there. */
bool drop_intake_wants_scan(const struct drop_intake *intake);
