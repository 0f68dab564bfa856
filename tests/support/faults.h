/* faults — a campaign over a spool: at every file system call of a scenario a kill or an error,
 * after which the next start must find everything that was told, and the checker nothing wrong. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "tests/support/spool_steps.h"

struct faults_error {
    const char *name;
    int number;       /* errno */
    unsigned classes; /* enum inject_class: the calls it is put into */
};
/* ENOSPC, EDQUOT, EIO, EROFS, EMFILE; ENOMEM of the kernel. */
extern const struct faults_error faults_errors[];
extern const size_t faults_error_count;

struct faults {
    const char *folder; /* the spool is made in it, again and again */
    FILE *out;          /* a line for each violation */
    unsigned stride;    /* every n-th call only; 1: exhaustive */
    uint64_t random;    /* state of the random numbers of faults_kill_twice() */
    struct steps_shared *shared;
    /* what came out */
    unsigned points, trials, kills, refusals, violations;
};

/* 0, or -errno when the shared memory cannot be had. */
int faults_init(struct faults *faults, const char *folder, FILE *out);
void faults_done(struct faults *faults);

/* SIGKILL before each call of the scenario, and so after each. */
void faults_kill(struct faults *faults, const struct scenario *scenario);
/* SIGKILL at a random call of the scenario, then at each call of the start that follows when
 * `count` is 0, else `count` random pairs. */
void faults_kill_twice(struct faults *faults, const struct scenario *scenario, unsigned count);
/* The error at each call it fits, once, and from there on until a step has failed. */
void faults_fail(struct faults *faults, const struct scenario *scenario,
                 const struct faults_error *error);
/* A kill at random, then the error at random in the start that follows. */
void faults_kill_and_fail(struct faults *faults, const struct scenario *scenario, unsigned count);

uint64_t faults_random(uint64_t *state);
