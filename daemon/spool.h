/* spool — jobs on disk; the only code that touches the spool directory.
 *
 *     queued/ running/ done/ failed/ cancelled/ corrupt/   a state is a directory, a change is a
 * rename tmp/                                                 everything is made here and renamed
 * in whole last-id                                              the highest id ever given A job is
 * a directory named by its id: request.json, starts ("STARTS DEATHS"), 0.png …, result.json. Ids
 * only grow, over restarts too. What cannot be read is set aside in corrupt/, never deleted.
 *
 * One function per change; each leaves the disk as it was when it fails (but for leftovers in tmp/,
 * which the next start sweeps). None changes job->state: the caller does when the disk has it.
 * Errors: -ENOSPC when the disk is full, else -ENOTRECOVERABLE; the fault says what and where. */
#pragma once

#include <stdint.h>

#include "daemon/job.h"

struct spool;

/* Makes what is missing; modes 0700, files 0600. */
int spool_open(const char *path, struct spool **ret_spool, struct fault *f);
/* The same under an open directory, which stays the caller's. Locked: one spool, one daemon. */
int spool_open_at(int directory, struct spool **ret_spool, struct fault *f);
struct spool *spool_close(struct spool *spool);
DEFINE_FREEP(struct spool *, spool_close)

/* Finds the jobs of an earlier run and gives them away, by id. Running ones have become queued,
 * with starts and deaths as counted. Once, before anything else. */
struct spool_finder {
    void (*on_job)(struct job *job, void *userdata); /* takes the job over */
    void (*on_corrupt)(const char *state, const char *name, const char *why, void *userdata);
    void *userdata;
};
int spool_recover(struct spool *spool, const struct spool_finder *finder, struct fault *f);

/* A new id. On disk only with the job that gets it. */
uint64_t spool_next_id(struct spool *spool);

int spool_submit(struct spool *spool, const struct job *job, struct fault *f); /* -> queued */
/* Writes request.json of a queued job again: its rows have been resolved. */
int spool_update(struct spool *spool, const struct job *job, struct fault *f);
/* queued -> running, with one more start. */
int spool_start(struct spool *spool, const struct job *job, struct fault *f);
/* running -> queued, with job->deaths as they are now; pictures of that run are removed. */
int spool_requeue(struct spool *spool, const struct job *job, struct fault *f);
/* queued or running -> done, failed or cancelled, with the result as it is in `job`. */
int spool_finish(struct spool *spool, const struct job *job, enum job_state state, struct fault *f);
/* A finished job leaves the disk. */
int spool_delete(struct spool *spool, const struct job *job, struct fault *f);

/* Copies `size` bytes from descriptor `from` (offset 0) to picture `index` of a running job. */
int spool_store_picture(struct spool *spool, const struct job *job, uint32_t index, int from,
                        uint64_t size, struct fault *f);
/* A read-only descriptor that is the caller's, or a negative error. */
int spool_open_picture(struct spool *spool, const struct job *job, uint32_t index, struct fault *f);
/* Path of a picture below the spool directory: "done/17/0.png". */
void spool_picture_path(const struct job *job, uint32_t index, char *ret_path, size_t size);
