/* process — starts a program with chosen descriptors and nothing else of ours. */
#pragma once

#include <sys/types.h>

#include "vk/base/fault.h"

#define PROCESS_REAP_MSEC 3000

/* Descriptors stay the caller's; all others of ours are O_CLOEXEC. */
struct process_files {
    int in;  /* becomes 0; -1: /dev/null */
    int out; /* becomes 1; -1: stays */
    int ipc; /* becomes IPC_WORKER_FD; -1: none */
};

/* argv[0] is the path. The child has no blocked signals. */
int process_spawn(char *const argv[], const struct process_files *files, pid_t *ret_pid,
                  struct fault *f);

/* Kills a child and waits for its end. -ETIMEDOUT when the kernel has not let it go after
 * PROCESS_REAP_MSEC: it stays behind as a zombie then. */
int process_end(pid_t pid);

/* "ended with status 1", "was killed by signal 9 (Killed)" for a wait status. */
void process_explain(int wait_status, char *ret_text, size_t size);

/* Path of the worker: `name` in the directory of our own executable, malloc'd. */
int process_find_sibling(const char *name, char **ret_path, struct fault *f);
