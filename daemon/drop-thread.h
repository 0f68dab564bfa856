/* drop-thread — the drop folder's own thread: everything that touches the folder, one thing after
 * another. It meets the event loop in the mailbox only. */
#pragma once

#include "daemon/drop-mailbox.h"

struct drop_thread_options {
    const char *path; /* outlives the thread */
    uint64_t settle_usec, orphan_usec, rescan_usec;
};

/* Runs until box->stop. */
void drop_thread_run(struct drop_mailbox *box, const struct drop_thread_options *options);

/* CLOCK_MONOTONIC. */
uint64_t drop_now(void);
/* How long to wait before another attempt: 1 s, 2 s … `most`. */
uint64_t drop_delay(unsigned attempts, uint64_t most);
