/* device — one open device per test program; no driver is a failure, not a skip. */
#pragma once

#include "tests/support/must.h"
#include "vk/gpu/caps.h"
#include "vk/gpu/gpu.h"

extern struct gpu *gpu;

/* Setup and teardown of a group of tests. */
int open_gpu(void **state);
int close_gpu(void **state);

/* What lavapipe says of itself, but for its allocations: for what is planned without a device. */
extern const struct caps caps_of_lavapipe;
