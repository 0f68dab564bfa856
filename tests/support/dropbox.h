/* dropbox — a drop folder under test, with made-up jobs behind it: no manager, no spool, no worker.
 *
 * Submissions become jobs at once; what the jobs say and when they end is the test's. Failures are
 * cmocka's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/drop.h"
#include "vk/base/array.h"

#define DROPBOX_PATIENCE 20000 /* msec until a wait fails */

struct dropbox_job {
    struct job *job;
    char origin[64];
    unsigned fetched;
};

struct dropbox {
    char *root; /* a temporary folder; the drop folder is root/drop */
    char path[512];
    sd_event *event;
    struct drop *drop;
    struct drop_options options; /* for dropbox_open() */
    struct ARRAY(struct dropbox_job) jobs;
    uint64_t next_id;
    /* knobs */
    int refuse;          /* a negative error: every submission is refused with it */
    const char *refusal; /* its text */
    bool is_held;        /* submissions are not answered before dropbox_release() */
    bool ends_at_once;   /* jobs are done as soon as they are submitted */
    uint32_t room;
    uint32_t denied_uid;  /* may not submit; 0: nobody */
    int open_error;       /* what open_picture fails with, once */
    bool breaks_pictures; /* their bytes are not what the SHA-256 says */
    /* what was seen */
    char health[256];
    unsigned submissions, most_room_overrun;
    uint64_t input_bytes[JOB_INPUT_COUNT];   /* of the last submission; 0: none */
    uint64_t slowest_usec, slowest_cpu_usec; /* longest turn of the event loop */
    drop_submitted_t *held_done;
    void *held_userdata;
    struct job *held_job;
};

int dropbox_setup(void **state);
int dropbox_teardown(void **state);

void dropbox_open(struct dropbox *box);
void dropbox_close(struct dropbox *box);

/* A file in root/drop (or below it), complete at once: written elsewhere and moved in. */
void dropbox_put(struct dropbox *box, const char *name, const char *text);
/* The same in place: created, written, closed. */
void dropbox_write(struct dropbox *box, const char *name, const char *text);

/* Runs the loop until `condition`; fails with `what` after DROPBOX_PATIENCE. */
#define dropbox_until(box, condition)                                                              \
    do {                                                                                           \
        uint64_t begin_ = dropbox_now();                                                           \
        while (!(condition)) {                                                                     \
            if (dropbox_now() - begin_ > DROPBOX_PATIENCE * UINT64_C(1000))                        \
                dropbox_fail(box, __FILE__, __LINE__, #condition);                                 \
            dropbox_turn(box);                                                                     \
        }                                                                                          \
    } while (0)
void dropbox_turn(struct dropbox *box); /* at most 5 msec */
void dropbox_run(struct dropbox *box, unsigned msec);
uint64_t dropbox_now(void);
void dropbox_fail(struct dropbox *box, const char *file, int line, const char *what);

/* The only job, or the newest. */
struct job *dropbox_job(struct dropbox *box);
/* A job ends, with `count` pictures when it is done. */
void dropbox_finish(struct dropbox *box, struct job *job, enum job_state state, uint32_t count);
void dropbox_forget(struct dropbox *box, struct job *job); /* as deleted by its owner */
void dropbox_release(struct dropbox *box);

/* Opens, and waits until the folder is watched. */
void dropbox_start(struct dropbox *box);
void dropbox_mkdir(const struct dropbox *box, const char *name);
mode_t dropbox_mode(const struct dropbox *box, const char *name);
void dropbox_assert_text(const struct dropbox *box, const char *name, const char *text);
/* One line that holds `part`. */
void dropbox_assert_says(const struct dropbox *box, const char *name, const char *part);

bool dropbox_has(const struct dropbox *box, const char *name);
/* malloc'd; fails when there is none. */
char *dropbox_read(const struct dropbox *box, const char *name);
/* Files below root/drop, of any type but directories, in `folder` ("" for all). */
size_t dropbox_count(const struct dropbox *box, const char *folder);
/* How many of them hold this text. */
size_t dropbox_count_text(const struct dropbox *box, const char *text);
/* The tree on standard output. */
void dropbox_show(const struct dropbox *box);
