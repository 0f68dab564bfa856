/* inject — a fault at the n-th file system call of a child process.
 *
 * The child's file system calls are stopped at their entry by a seccomp filter with user
 * notification, which its threads and children inherit; we decide about each: go on, fail, be
 * skipped, or die there. A kill before call n + 1 leaves the disk as a kill just after call n does,
 * so that the kills before each call are all there is. Nothing is traced and the child needs no
 * change but the call of inject_arm().
 *
 *     pid = inject_fork(body, userdata, &inject);      body: …; inject_arm(socket); what is watched
 *     inject_watch(&inject, decide, userdata, &status) until all watched processes are gone */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum inject_class {
    INJECT_READS = 1,   /* read, getdents, stat, … */
    INJECT_CHANGES = 2, /* changes names or bytes: what a full or read-only disk refuses */
    INJECT_GROWS = 4,   /* may need space */
    INJECT_SYNCS = 8,   /* fsync and its kin */
    INJECT_OPENS = 16,  /* gives a descriptor: what a full table of files refuses */
    INJECT_CLOSES = 32,
};

struct inject_call {
    pid_t pid; /* the thread's */
    int number;
    const char *name;
    unsigned classes; /* enum inject_class, for these arguments */
    uint64_t args[6];
};

/* What becomes of a call; negative: it fails with this -errno and does nothing. */
enum inject_verdict {
    INJECT_GO = 0,
    INJECT_SKIP, /* answers 0 and does nothing */
    INJECT_KILL, /* the child (as forked) is killed by SIGKILL, the call does nothing */
};
typedef int inject_decide_t(const struct inject_call *call, void *userdata);
typedef int inject_body_t(int socket, void *userdata);

struct inject {
    pid_t pid;
    int socket;
};

/* Whether this kernel and sandbox let us; why not is static text. */
bool inject_is_possible(const char **ret_why);

/* Runs body() in a child, whose exit status is what it returns. 0 or -errno. */
int inject_fork(inject_body_t *body, void *userdata, struct inject *ret_inject);

/* In the child: from here on every file system call of this thread, of threads and processes it
 * starts, is asked about. 0 or -errno. */
int inject_arm(int socket);

/* Decides about calls until the child and its children have ended, or until it ended without
 * inject_arm(); gives its wait status. 0 or -errno. */
int inject_watch(struct inject *inject, inject_decide_t *decide, void *userdata, int *ret_status);
