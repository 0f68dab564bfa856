/* crash_client — a client of a daemon that is killed again and again: submits with and without
 * tokens, asks again what was not answered, cancels, deletes, lists, fetches, drops tickets; and
 * writes down what it was told, in the notation of tests/support/check.h. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CRASH_TEXT_SIZE (16u << 20)   /* bytes of history; a full one ends the client */
#define CRASH_CANARY    "canary-plum" /* in every prompt, and nowhere else */

/* Shared with the parent. */
struct crash_log {
    atomic_bool stop;
    atomic_uint acknowledged; /* jobs this client was told of */
    atomic_uint repeated;     /* submissions made again with their token, and answered */
    atomic_uint unanswered;   /* calls without an answer */
    atomic_uint dropped;
    atomic_size_t length;
    char text[CRASH_TEXT_SIZE];
};

struct crash_client {
    uid_t uid;
    gid_t gid;
    uint64_t random;
    const char *drop; /* not NULL: drops tickets into this folder instead of using the bus */
    struct crash_log *log;
};

/* Becomes the user and goes on until told to stop. The exit status of the process. */
int crash_client_run(const struct crash_client *client);
