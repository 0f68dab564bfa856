/* caps — what a device can do, as plain numbers.
 *
 * Everything that decides on kernels, tiles and sizes reads this struct and never asks Vulkan, so a
 * test can narrow it (128 MiB bindings, 1 GiB allocations, no texel buffers, 128 invocations) and
 * the decision is checked without such a device. Filled by device.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum gpu_tier {
    GPU_TIER_T0, /* f32 arithmetic, halves unpacked from uint32: every device */
    GPU_TIER_T1, /* packed f16 arithmetic */
    GPU_TIER_T2, /* cooperative matrices */
};

struct caps {
    bool is_cpu;        /* a software device: few wide cores, no latency to hide */
    enum gpu_tier tier; /* highest tier the features allow; a tuner may pick a lower one */
    bool shader_float16, storage_16bit;
    uint32_t subgroup_size;
    uint32_t max_invocations; /* per workgroup */
    uint32_t max_groups[3];   /* per dispatch */
    uint32_t max_shared;      /* bytes of shared memory per workgroup */
    uint32_t max_push;        /* bytes of push constants */
    uint64_t max_binding;     /* bytes a storage buffer binding may span */
    uint64_t max_texels;      /* elements a texel buffer view may hold */
    uint64_t max_allocation;  /* bytes of one vkAllocateMemory */
    uint64_t max_buffer;      /* bytes of one VkBuffer */
    uint32_t
        offset_alignment; /* bytes: storage and texel offsets; at most 256 by the specification */
};

/* Offsets of tensors and weights are multiples of this: the largest alignment Vulkan lets a device
 * ask for storage and texel buffer offsets. */
#define GPU_OFFSET_ALIGNMENT 256u
