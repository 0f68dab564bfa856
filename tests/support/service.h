/* service — a private bus and a daemon with the fake worker in a folder of their own, for the tests
 * of everything above the engine. Knobs of the fake engine (tests/fake/engine.c) are set with
 * setenv() before service_start(). */
#pragma once

#include <stddef.h>
#include <sys/types.h>

struct service {
    char directory[64]; /* DIR of --devel; also holds the bus, its log and the daemon's */
    pid_t bus, daemon;
};

/* Starts both and waits until the daemon's State is no longer "loading". `config` is put into
 * diffused.conf after [model]; may be NULL. Sets DBUS_SYSTEM_BUS_ADDRESS for this process. 0, or -1
 * when something does not come up: the logs are then on standard error. */
int service_start(struct service *s, const char *config);

/* The daemon alone: ended with SIGTERM, and started again on the same folder. */
int service_restart_daemon(struct service *s);

/* Ends both and removes the folder. A service that never started is all right. */
void service_stop(struct service *s);

/* What a program left behind; texts are malloc'd and end in NUL. */
struct command_result {
    int status; /* exit status, or 1000 + signal */
    char *out, *err;
};

/* Starts `name` of the build folder with these arguments (NULL-terminated, without argv[0]);
 * `input` is its standard input (NULL: empty), `directory` its working directory (NULL: ours). */
struct command {
    const char *name, *input, *directory;
    const char *const *arguments;
    pid_t pid;    /* of the running program */
    int out, err; /* its output, files in memory that can be read any time with pread() */
};

int command_start(struct command *c);
/* Waits, at most 30 s before it kills. */
void command_finish(struct command *c, struct command_result *ret);
void command_result_done(struct command_result *r);
