/* spooler — the spool's changes on a thread of their own, one after the other.
 *
 * The event loop posts a change and goes on answering; when the disk has it, or has refused it, the
 * loop is told. A change works on a copy of the job as it was when posted. The two threads meet in
 * two mailboxes (mailbox.h). */
#pragma once

#include <systemd/sd-event.h>

#include "daemon/spool.h"

enum spool_change {
    SPOOL_CHANGE_SUBMIT,
    SPOOL_CHANGE_UPDATE,
    SPOOL_CHANGE_START,
    SPOOL_CHANGE_REQUEUE,
    SPOOL_CHANGE_STORE,  /* argument: index of the picture */
    SPOOL_CHANGE_FINISH, /* argument: enum job_state */
    SPOOL_CHANGE_DELETE,
    SPOOL_CHANGE_UPTIME, /* no job; argument: seconds */
    SPOOL_CHANGE_PROBE,  /* no job */
};

struct spooler;

/* r as of the spool's functions, with the fault they filled, and the copy of the job they worked on
 * (NULL: none), where SUBMIT has filled in what is known of its inputs. On the loop's thread. */
typedef void spooler_done_t(int r, const struct job *copy, const struct fault *f, void *userdata);

/* The spool stays the caller's and must outlive the spooler; until then only the functions spool.h
 * says so of may be called elsewhere. */
int spooler_new(sd_event *event, struct spool *spool, struct spooler **ret_spooler);
/* Lets what was posted happen, and ends; `done` is no longer called. Blocks as long as the disk
 * does. */
struct spooler *spooler_free(struct spooler *spooler);
DEFINE_FREEP(struct spooler *, spooler_free)

/* Waits until all that was posted has happened, and tells of it, as the loop would. */
void spooler_drain(struct spooler *spooler);

/* 0, and `done` (or NULL) is called once, later; or -ENOMEM, -EMFILE, and nothing happens. */
int spooler_post(struct spooler *spooler, enum spool_change change, const struct job *job,
                 uint64_t argument, spooler_done_t *done, void *userdata);
