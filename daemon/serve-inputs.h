/* serve-inputs — the pictures a job brings along into the worker: decoded here and nowhere else. */
#pragma once

#include "daemon/ipc.h"
#include "daemon/picture.h"
#include "vk/engine.h"

struct serve_inputs {
    struct engine_inputs inputs; /* point into the two below */
    struct picture image, mask;
};

/* Decodes what came with a RUN, as RGB. The fault names the picture; errors are picture.h's. */
int serve_read_inputs(const struct ipc_run *run, const struct ipc_files *files,
                      struct serve_inputs *ret_inputs, struct fault *f);
void serve_inputs_done(struct serve_inputs *inputs);
