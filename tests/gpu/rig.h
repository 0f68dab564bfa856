/* rig — one open device per test program; no driver is a failure, not a skip. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vk/gpu/gpu-private.h"

static struct gpu *gpu;

__attribute__((unused)) static int open_gpu(void **state)
{
    struct fault f = {0};

    (void)state;
    int r = gpu_open(&(struct gpu_options){.allow_cpu = -1}, &gpu, &f);
    if (r < 0)
        print_error("%s\n", f.text);
    return r;
}

__attribute__((unused)) static int close_gpu(void **state)
{
    (void)state;
    gpu = gpu_close(gpu);
    return 0;
}

/* 0, or the test fails with the fault's words. */
__attribute__((unused)) static void must(int r, const struct fault *f)
{
    if (r < 0)
        fail_msg("%d: %s", r, f->text);
}
