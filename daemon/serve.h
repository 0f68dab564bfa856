/* serve — the worker's life: open the engine, then run what the manager sends, until either ends.
 */
#pragma once

#include "daemon/ipc.h"
#include "daemon/png.h"
#include "vk/engine.h"

#define SERVE_GRACE_SEC 5

struct serve_options {
    const char *model;  /* directory */
    const char *device; /* as in struct engine_options */
    const char *cache;  /* directory of the pipeline cache, or NULL */
    enum engine_allow_cpu allow_cpu;
    enum png_metadata metadata;
    const char *loras;   /* directory, or NULL: the model's own */
    bool strict_weights; /* refuse files that others than root and we could have written */
};

/* Serves the manager at the other end of `socket` (see ipc.h) and returns the exit status. Blocks
 * SIGTERM and SIGINT in the calling thread and takes them as the wish to end: at once while
 * loading, else within one step. Ends the same way when the manager's end closes; is killed when
 * the thread that started this process ends.
 *
 * Does not return but exits with the status where returning could hang or crash: when the device is
 * lost or draws wrong (drivers are known to fall over their own clean-up then), and when the engine
 * does not come back SERVE_GRACE_SEC after it was told to end. */
enum ipc_exit serve(int socket, const struct serve_options *options);
