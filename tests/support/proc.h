/* proc — what a running program holds, from /proc, and the time. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* CLOCK_MONOTONIC. */
long proc_now_msec(void);
uint64_t proc_now_usec(void);

/* Open descriptors, and resident memory that is the process's own (no shared pages); -1 when it is
 * gone. */
int proc_count_descriptors(pid_t pid);
long proc_rss_kib(pid_t pid);

/* What other programs of this machine do is not measured: this one, and what it starts from now on,
 * go first where that is allowed. */
void proc_stand_out(void);
