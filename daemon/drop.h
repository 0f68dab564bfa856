/* drop — a folder of files that become jobs, and of pictures that come out of them.
 *
 *     FOLDER/             intake: NAME.txt (the prompt) or NAME.ini ([job], any row of a request);
 *                         beside it NAME.png, .jpg or .jpeg to start from and NAME.mask.png, what
 *                         of it to paint anew: complete before the ticket appears, of its owner
 *     FOLDER/working/KEY/ what has been taken up, one directory a ticket; only the daemon's
 *     FOLDER/done/        NAME.png (NAME.0.png … when count > 1), NAME.json, the inputs in NAME.d/
 *     FOLDER/failed/      the inputs under their own names, and why in NAME.error.txt
 *
 * At every instant an input is in exactly one place: it is renamed into working/ before it is read,
 * and its job carries the origin "drop:KEY", by which a later start finds it again. All work on the
 * folder, fsync included, is done on a thread of its own; jobs and callbacks stay on the event
 * loop's. What the folder's file system refuses (full, read-only, gone) is waited for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "daemon/job.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/pipeline/request.h"

#define DROP_ORIGIN_PREFIX "drop:"
#define DROP_TICKET_MAX    65536u /* bytes of a ticket */

struct drop;

typedef void drop_submitted_t(int r, struct job *job, const struct fault *f, void *userdata);

/* What the folder wants of the jobs: manager.h's verbs, narrowed so that tests can stand in for
 * them. All are called on the event loop's thread. */
struct drop_jobs {
    /* Takes the request over, and the inputs' descriptors (see struct manager_submission).
     * `done` is called exactly once, at once or later. A second submission with the same origin
     * gives the same job. */
    void (*submit)(uint32_t owner, struct request *request, struct job_input *inputs,
                   const char *origin, drop_submitted_t *done, void *done_userdata, void *userdata);
    struct job *(*find)(const char *origin, void *userdata); /* NULL: none */
    /* A descriptor that becomes the caller's, or a negative error. */
    int (*open_picture)(const struct job *job, uint32_t index, struct fault *f, void *userdata);
    void (*fetched)(struct job *job, uint32_t index, void *userdata); /* it is in done/ now */
    uint32_t (*room)(void *userdata); /* jobs the queue would take now */
    bool (*may_submit)(uint32_t uid, void *userdata);
    /* What keeps the folder from working, "" when nothing does any more. */
    void (*health)(const char *reason, void *userdata);
    void *userdata;
};

struct drop_options {
    const char *path;
    struct drop_jobs jobs;
    /* 0: the usual ones. */
    uint64_t settle_usec; /* a file nobody was seen to finish must have been the same for so long */
    uint64_t orphan_usec; /* a picture without a ticket stays for so long */
    uint64_t rescan_usec; /* the whole folder is looked through that often */
};

/* Makes what is missing and starts the thread. A folder that cannot be used now is no error: it is
 * said through `health` and tried again. */
int drop_open(sd_event *event, const struct drop_options *options, struct drop **ret_drop,
              struct fault *f);
/* Before the jobs go: submissions still under way end without it. */
struct drop *drop_close(struct drop *drop);
DEFINE_FREEP(struct drop *, drop_close)

/* A job has ended; jobs of other origins are none of the folder's business. */
void drop_on_job_finished(struct drop *drop, const char *origin);
/* The queue has become longer or shorter. */
void drop_on_queue_changed(struct drop *drop);
