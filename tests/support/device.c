#include "tests/support/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

struct gpu *gpu;

const struct caps caps_of_lavapipe = {
    .is_cpu = true,
    .subgroup_size = 8,
    .max_invocations = 1024,
    .max_groups = {65535, 65535, 65535},
    .max_shared = 32768,
    .max_push = 256,
    .max_binding = 1u << 27,
    .max_texels = 1u << 27,
    .max_allocation = 1u << 31,
    .max_buffer = 1u << 31,
    .offset_alignment = 16,
};

int open_gpu(void **state)
{
    struct fault f = {0};

    (void)state;
    int r = gpu_open(&(struct gpu_options){.allow_cpu = -1}, &gpu, &f);
    if (r < 0)
        print_error("%s\n", f.text);
    return r;
}

int close_gpu(void **state)
{
    (void)state;
    gpu = gpu_close(gpu);
    return 0;
}
