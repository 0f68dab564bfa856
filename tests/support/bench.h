/* bench — a model on a device for tests below the engine: opened, declared, loaded. What fails ends
 * the test with the fault's text. */
#pragma once

#include "tests/support/must.h"
#include "vk/pipeline/pipeline.h"

struct bench {
    struct gpu *gpu;
    struct model *model;
    struct weights *weights;
    struct pipeline p; /* no session yet */
};

void bench_open(struct bench *b, const char *directory);
void bench_close(struct bench *b);

/* Of values in a range of 1. */
double psnr(const float *a, const float *b, size_t n);
