/* helper — runs the worker's program once for an answer (--probe, --decode) without waiting for it.
 *
 * The answer is what it writes to its standard output, a memfd here. One that takes longer than
 * HELPER_TIMEOUT_USEC is killed. */
#pragma once

#include <systemd/sd-event.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define HELPER_TIMEOUT_USEC UINT64_C(60000000)

struct helper;

/* r: 0 and `output` with offset 0, or negative and why. `output` is closed after the call. The
 * helper may be freed in the call. */
typedef void helper_done_t(int r, int output, const char *why, void *userdata);

/* `input` becomes standard input unless it is -1; it stays the caller's. */
int helper_start(sd_event *event, char *const argv[], int input, helper_done_t *on_done,
                 void *userdata, struct helper **ret_helper, struct fault *f);
/* Kills what still runs; on_done is not called. */
struct helper *helper_free(struct helper *helper);
DEFINE_FREEP(struct helper *, helper_free)
