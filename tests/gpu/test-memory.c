/* Buffers, copies of every size through the staging ring, counters, and what happens when memory
 * ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/device.h"
#include "vk/gpu/gpu-private.h"

static struct gpu_buffer *buffer_of(uint64_t size)
{
    struct gpu_buffer *buffer = NULL;
    struct fault f = {0};

    must(gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, size, &buffer, &f), &f);
    return buffer;
}

static void fill(uint8_t *data, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
}

static const struct {
    uint64_t offset, size;
} copies[] = {
    {0, 1},
    {3, 5},
    {0, GPU_STAGING_BLOCK},
    {1, GPU_STAGING_BLOCK},
    {0, GPU_STAGING_BLOCK + 1},
    {13, 2 * GPU_STAGING_BLOCK + 7},
    {255, 3 * GPU_STAGING_BLOCK},
    {0, 0},
};

static void copies_any_size(void **state)
{
    const uint64_t size = 3 * GPU_STAGING_BLOCK + 256;
    struct gpu_buffer *buffer = buffer_of(size);
    uint8_t *want = malloc(size), *found = malloc(size);
    struct fault f = {0};

    (void)state;
    fill(want, size, 1);
    must(gpu_upload(gpu, buffer, 0, want, size, &f), &f);
    for (size_t i = 0; i < ARRAY_SIZE(copies); i++) {
        fill(want + copies[i].offset, copies[i].size, (uint32_t)i + 2);
        must(gpu_upload(gpu, buffer, copies[i].offset, want + copies[i].offset, copies[i].size, &f),
             &f);
        must(gpu_download(gpu, buffer, copies[i].offset, found, copies[i].size, &f), &f);
        assert_memory_equal(found, want + copies[i].offset, copies[i].size);
    }
    must(gpu_download(gpu, buffer, 0, found, size, &f), &f); /* nothing beside the copies changed */
    assert_memory_equal(found, want, size);
    must(gpu_clear(gpu, buffer, 256, 512, &f), &f);
    memset(want + 256, 0, 512);
    must(gpu_download(gpu, buffer, 0, found, size, &f), &f);
    assert_memory_equal(found, want, size);
    free(want);
    free(found);
    gpu_buffer_free(buffer);
}

static void refuses_ranges(void **state)
{
    struct gpu_buffer *buffer = buffer_of(1024);
    uint8_t data[2048] = {0};
    struct fault f = {0};

    (void)state;
    assert_int_equal(gpu_upload(gpu, buffer, 0, data, 1025, &f), -EINVAL);
    assert_int_equal(gpu_upload(gpu, buffer, 1, data, 1024, &f), -EINVAL);
    assert_int_equal(gpu_upload(gpu, buffer, UINT64_MAX, data, 2, &f), -EINVAL);
    assert_int_equal(gpu_download(gpu, buffer, 1024, data, 1, &f), -EINVAL);
    assert_int_equal(gpu_clear(gpu, buffer, 0, 1028, &f), -EINVAL);
    assert_int_equal(gpu_clear(gpu, buffer, 2, 4, &f), -EINVAL);
    assert_int_equal(gpu_clear(gpu, buffer, 0, 5, &f), -EINVAL);
    gpu_buffer_free(buffer);
    gpu_buffer_free(NULL);
}

static void counts_by_lifetime(void **state)
{
    uint64_t used = gpu_memory_used(gpu), peak = gpu_memory_peak(gpu);
    uint64_t weights = gpu_memory_used_for(gpu, GPU_LIFETIME_WEIGHTS);
    struct gpu_buffer *big = NULL;
    struct fault f = {0};

    (void)state;
    assert_true(gpu_memory_used_for(gpu, GPU_LIFETIME_STAGING) >= 2 * GPU_STAGING_BLOCK);
    assert_true(gpu_memory_total(gpu) > 0);
    must(gpu_buffer_new(gpu, GPU_LIFETIME_WEIGHTS, 128 << 20, &big, &f), &f);
    assert_int_equal(gpu_buffer_size(big), 128 << 20);
    assert_true(gpu_memory_used_for(gpu, GPU_LIFETIME_WEIGHTS) >= weights + (128 << 20));
    assert_true(gpu_memory_used(gpu) >= used + (128 << 20));
    uint64_t top = gpu_memory_peak(gpu);
    assert_true(top > peak && top == gpu_memory_used(gpu));
    gpu_buffer_free(big);
    assert_int_equal(gpu_memory_used(gpu), used);
    assert_int_equal(gpu_memory_used_for(gpu, GPU_LIFETIME_WEIGHTS), weights);
    assert_int_equal(gpu_memory_peak(gpu), top);
}

static void respects_limits(void **state)
{
    const struct caps wide = *gpu_get_caps(gpu);
    struct caps narrow = wide;
    struct gpu_buffer *buffer = NULL;
    struct fault f = {0};

    (void)state;
    assert_int_equal(gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, 0, &buffer, &f), -EINVAL);
    narrow.max_allocation = 1 << 20;
    gpu_narrow_caps(gpu, &narrow);
    assert_int_equal(gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, (1 << 20) + 1, &buffer, &f), -EFBIG);
    assert_string_equal(f.text, "1.0 MiB for activations, the device allows 1.0 MiB in one piece");
    must(gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, 1 << 20, &buffer, &f), &f);
    gpu_buffer_free(buffer);
    narrow.max_allocation = wide.max_allocation;
    narrow.max_buffer = 100;
    gpu_narrow_caps(gpu, &narrow);
    assert_int_equal(gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, 101, &buffer, &f), -EFBIG);
    gpu_narrow_caps(gpu, &wide);
}

static VKAPI_ATTR VkResult VKAPI_CALL no_memory(VkDevice device, const VkMemoryAllocateInfo *info,
                                                const VkAllocationCallbacks *callbacks,
                                                VkDeviceMemory *memory)
{
    (void)device;
    (void)info;
    (void)callbacks;
    (void)memory;
    return VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

static VKAPI_ATTR VkResult VKAPI_CALL no_binding(VkDevice device, VkBuffer buffer,
                                                 VkDeviceMemory memory, VkDeviceSize offset)
{
    (void)device;
    (void)buffer;
    (void)memory;
    (void)offset;
    return VK_ERROR_OUT_OF_HOST_MEMORY;
}

/* The message names what was asked and what is there; counters come back to where they were. */
static void survives_no_memory(void **state)
{
    uint64_t used = gpu_memory_used(gpu), calls = gpu_call_count(gpu, GPU_CALL_ALLOCATE_MEMORY);
    struct gpu_buffer *buffer = NULL;
    struct fault f = {0};

    (void)state;
    PFN_vkAllocateMemory allocate = gpu->vk.AllocateMemory;
    gpu->vk.AllocateMemory = no_memory;
    assert_int_equal(gpu_buffer_new(gpu, GPU_LIFETIME_WEIGHTS, 3 << 20, &buffer, &f), -ENOMEM);
    assert_non_null(strstr(f.text, "not enough device memory: 3.0 MiB for weights, "));
    assert_non_null(strstr(f.text, " are free"));
    gpu->vk.AllocateMemory = allocate;
    PFN_vkBindBufferMemory bind = gpu->vk.BindBufferMemory;
    gpu->vk.BindBufferMemory = no_binding;
    assert_int_equal(gpu_buffer_new(gpu, GPU_LIFETIME_WEIGHTS, 3 << 20, &buffer, &f), -ENOMEM);
    gpu->vk.BindBufferMemory = bind;
    assert_null(buffer);
    assert_int_equal(gpu_memory_used(gpu), used);
    assert_int_equal(gpu_call_count(gpu, GPU_CALL_ALLOCATE_MEMORY), calls + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_any_size),    cmocka_unit_test(refuses_ranges),
        cmocka_unit_test(counts_by_lifetime), cmocka_unit_test(respects_limits),
        cmocka_unit_test(survives_no_memory),
    };
    return cmocka_run_group_tests_name("memory", tests, open_gpu, close_gpu);
}
