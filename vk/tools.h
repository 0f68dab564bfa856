/* tools — what the worker can tell about devices and models besides making pictures: the bodies of
 * `diffused-worker --probe`, `--bench`, `--explain` and `--check-model`.
 *
 * Each prints its whole answer to `out`: for people, or with `json` as one JSON object that ends in
 * a newline. Nothing is printed before an error that keeps the answer from being complete; the
 * error stands in `f`. Errors are those of engine_open(). `out` is flushed by the caller. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vk/base/fault.h"
#include "vk/engine.h"

struct tools_options {
    const char *model;  /* directory; required by explain; bench: NULL is SD 1.5's shapes */
    const char *device; /* as in struct engine_options; NULL: the best one */
    enum engine_allow_cpu allow_cpu;
    uint32_t width, height; /* explain: pixels; 0: the model's own size */
    bool json;
};

/* Lists the devices there are: name, node, driver, type, memory, and which one would be chosen. No
 * device at all is an answer (an empty list), not an error. JSON: {"devices": [{…}, …]}, keys as in
 * Manager.ListDevices. */
int tools_probe(FILE *out, bool json, struct fault *f);

/* Runs every distinct GEMM and convolution of a guided U-Net evaluation at 128x128 pixels, on
 * random weights: GFLOP/s a shape beside the FMA peak of the device, and the MAC-weighted mean. */
int tools_bench(const struct tools_options *options, FILE *out, struct fault *f);

/* Counts, from the recorded graph at one size: dispatches, bytes and FLOPs per step, arena,
 * weights. */
int tools_explain(const struct tools_options *options, FILE *out, struct fault *f);

/* Reads all of a model but its weights' values: configurations, tokenizer, the headers of the
 * safetensors files against what the configurations ask for. Needs no device. Prints its hash and
 * bytes; JSON: {"hash": …, "weights": bytes on the device}. */
int tools_check_model(const struct tools_options *options, FILE *out, struct fault *f);
