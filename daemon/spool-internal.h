/* spool-internal — shared by spool.c (changes) and spool-recover.c. */
#pragma once

#include <stdbool.h>

#include "daemon/spool.h"

#define SPOOL_ID_TEXT_SIZE 24

struct spool {
    int directory, tmp, corrupt;
    int states[JOB_STATE_COUNT];
    gid_t readers;          /* who may read finished pictures; (gid_t) -1: nobody else */
    uint64_t last_id;       /* the highest ever given */
    uint64_t saved_last_id; /* what the file says; jobs on disk say the rest */
    uint64_t uptime;        /* seconds, as found */
    /* Jobs that were refused when a failing disk had them in queued/ already and would not take
     * them back: they go before another is taken. */
    struct ARRAY(uint64_t) refused;
};

const char *spool_id_text(uint64_t id, char text[SPOOL_ID_TEXT_SIZE]);

/* 0 or -errno, from here on. */

/* A small file's content, malloc'd, with a NUL behind it. */
int spool_read_small(int directory, const char *name, char **ret_text, size_t *ret_length);
/* The job's directory, in job->state or wherever a failed change left it. */
int spool_open_job(const struct spool *spool, const struct job *job);
/* Copies the job's inputs into the open directory, synced, and fills in what is known of them then.
 * -EINVAL and f: it is the input's fault; else the disk's, and f is untouched. */
int spool_write_inputs(int directory, struct job *job, struct fault *f);
/* Is it there, as large as request.json says? -EINVAL and f when not, or -errno. */
int spool_check_inputs(int directory, const struct job *job, struct fault *f);
/* A file or a flat directory; what is deeper was not made by us and stays. */
void spool_remove_tree(int parent, const char *name);
