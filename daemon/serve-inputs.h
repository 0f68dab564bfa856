/* serve-inputs — what a job brings along into the worker: its pictures, decoded here and nowhere
 * else, and the files of its LoRAs. */
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

/* "NAME:0.8,OTHER" of the request's row `lora` becomes "DIRECTORY/NAME.safetensors:0.8,…", as the
 * engine wants it. -EINVAL for a name that is none or where there is no directory, -ENOENT for a
 * file that is not there. */
int serve_find_loras(const char *directory, struct request *request, struct fault *f);
