/* spool — jobs on disk; the only code that touches the spool directory.
 *
 *     queued/ running/ done/ failed/ cancelled/   a state is a directory, a change is a rename
 *     corrupt/                                    what cannot be read is set aside, never deleted
 *     tmp/                                        everything is made here and renamed in whole
 *     last-id                                     no id up to this one is given again
 *     uptime                                      seconds the service has run so far, over restarts
 *
 * A job is a directory named by its id: request.json, the pictures it starts from (input.png or
 * input.jpg, mask.png or mask.jpg), starts ("STARTS DEATHS"), 0.png …, result.json. Ids only grow,
 * over restarts too.
 *
 * Every change is durable when it returns 0: file contents, then names, then directories are
 * fsynced. When it fails, the disk may hold the old or the new state, whole in either case; the
 * same change may be tried again, and finds the job wherever it lies. No fsync is ever repeated on
 * the same file: a retry writes a new one. Changes block; the service runs them on the spooler's
 * thread. None changes job->state: the caller does when the disk has it. Errors: -ENOSPC when the
 * disk is full, -ENOMEM, else -ENOTRECOVERABLE; the fault says what and where. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "daemon/job.h"

struct spool;

/* Makes what is missing; modes 0700, files 0600. Locked: one spool, one daemon. */
int spool_open(const char *path, struct spool **ret_spool, struct fault *f);
struct spool *spool_close(struct spool *spool);
DEFINE_FREEP(struct spool *, spool_close)

/* Pictures of done jobs can be read by this group from now on, by their path; nothing else can,
 * requests least of all. Without this call the spool is as it was made: ours alone. */
int spool_share_pictures(struct spool *spool, gid_t group, struct fault *f);

/* Finds the jobs of an earlier run and gives them away, by id. Running ones have become queued,
 * with starts and deaths as counted. Once, before anything else. Fails only for want of memory or
 * descriptors, or when the directories cannot be listed. */
struct spool_finder {
    void (*on_job)(struct job *job, void *userdata); /* takes the job over */
    void (*on_corrupt)(const char *state, const char *name, const char *why, void *userdata);
    /* The disk is not well: a job could not be read and stays where it is, unknown until the next
     * start, or a running one could not be moved back. `why` names it. */
    void (*on_trouble)(const char *why, void *userdata);
    void *userdata;
};
int spool_recover(struct spool *spool, const struct spool_finder *finder, struct fault *f);

/* A new id. On disk only with the job that gets it. Not for two threads at a time. */
uint64_t spool_next_id(struct spool *spool);

/* -> queued. Copies what job->inputs[].fd give, at most JOB_INPUT_BYTES_MAX of each, into the job's
 * directory before request.json says so, and fills in format, bytes, sha256 and the request's rows.
 * -EINVAL: an input is no picture, has changed meanwhile, or cannot be read; the disk is well. */
int spool_submit(struct spool *spool, struct job *job, struct fault *f);
/* Writes request.json of a queued job again: its rows have been resolved. */
int spool_update(struct spool *spool, const struct job *job, struct fault *f);
/* queued -> running, with one more start. */
int spool_start(struct spool *spool, const struct job *job, struct fault *f);
/* running -> queued, with job->starts and job->deaths as they are now; what that run made is
 * removed. */
int spool_requeue(struct spool *spool, const struct job *job, struct fault *f);
/* Picture `index` of a running job, from job->held[index]. */
int spool_store_picture(struct spool *spool, const struct job *job, uint32_t index,
                        struct fault *f);
/* queued or running -> done, failed or cancelled, with the pictures still held and the result as it
 * is in `job`. */
int spool_finish(struct spool *spool, const struct job *job, enum job_state state, struct fault *f);
/* A finished job leaves the disk. */
int spool_delete(struct spool *spool, const struct job *job, struct fault *f);
/* `seconds` the service has run. */
int spool_write_uptime(struct spool *spool, uint64_t seconds, struct fault *f);
/* Writes and removes a file: is the disk well? */
int spool_probe(struct spool *spool, struct fault *f);

/* What follows may be called while a change runs on another thread. */

/* As read at recovery; 0 for a new spool. */
uint64_t spool_uptime(const struct spool *spool);
/* Bytes that may still be written to the file system. */
int spool_free_bytes(const struct spool *spool, uint64_t *ret_bytes);
/* A read-only descriptor of a finished job's picture that is the caller's, or a negative error. */
int spool_open_picture(struct spool *spool, const struct job *job, uint32_t index, struct fault *f);
/* The same for a picture that any job starts from. */
int spool_open_input(struct spool *spool, const struct job *job, enum job_input_kind kind,
                     struct fault *f);
/* Path of a picture below the spool directory: "done/17/0.png". */
void spool_picture_path(const struct job *job, uint32_t index, char *ret_path, size_t size);
