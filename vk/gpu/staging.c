/* The staging ring: two mapped blocks, each with a command buffer of its own. While the device
 * works on one block the host fills the other; a block is waited for only when it is needed again.
 */
#include "vk/gpu/gpu.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/gpu/gpu-private.h"

static int open_block(struct gpu *gpu, struct staging_block *block, struct fault *f)
{
    const VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
        .queueFamilyIndex = gpu->family,
    };
    const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};

    VkResult result = VK(gpu, CreateCommandPool)(gpu->device, &pool, NULL, &block->pool);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkCreateCommandPool");
    const VkCommandBufferAllocateInfo commands = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = block->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    result = VK(gpu, AllocateCommandBuffers)(gpu->device, &commands, &block->commands);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkAllocateCommandBuffers");
    result = VK(gpu, CreateFence)(gpu->device, &fence, NULL, &block->fence);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkCreateFence");
    return cmd_new_set_pool(gpu, GPU_STAGING_LAUNCHES, &block->sets, f);
}

int staging_open(struct gpu *gpu, struct fault *f)
{
    int r = memory_new_mapped(gpu, (uint64_t)STAGING_BLOCKS * GPU_STAGING_BLOCK, &gpu->staging, f);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < STAGING_BLOCKS; i++) {
        r = open_block(gpu, &gpu->blocks[i], f);
        if (r < 0)
            return r;
    }
    return gpu_clear(gpu, gpu->unused, 0, gpu->unused->size, f);
}

void staging_close(struct gpu *gpu)
{
    for (uint32_t i = 0; i < STAGING_BLOCKS; i++) {
        struct staging_block *block = &gpu->blocks[i];
        if (block->sets)
            VK(gpu, DestroyDescriptorPool)(gpu->device, block->sets, NULL);
        if (block->fence)
            VK(gpu, DestroyFence)(gpu->device, block->fence, NULL);
        if (block->pool)
            VK(gpu, DestroyCommandPool)(gpu->device, block->pool, NULL);
    }
    gpu->staging = gpu_buffer_free(gpu->staging);
}

const struct gpu_buffer *gpu_staging_buffer(const struct gpu *gpu)
{
    return gpu->staging;
}

static char *block_data(struct gpu *gpu, uint32_t index)
{
    return (char *)gpu->staging->mapped + (uint64_t)index * GPU_STAGING_BLOCK;
}

static int wait_block(struct gpu *gpu, uint32_t index, struct fault *f)
{
    if (!gpu->blocks[index].pending)
        return 0;
    return cmd_wait(gpu, gpu->blocks[index].fence, &gpu->blocks[index].pending, f);
}

int gpu_staging_map(struct gpu *gpu, uint32_t index, void **ret_data, struct fault *f)
{
    int r = wait_block(gpu, index, f);
    if (r < 0)
        return r;
    *ret_data = block_data(gpu, index);
    return 0;
}

int gpu_staging_wait(struct gpu *gpu, struct fault *f)
{
    int r = 0;

    for (uint32_t i = 0; i < STAGING_BLOCKS; i++) {
        int one = wait_block(gpu, i, f);
        if (one < 0)
            r = one;
    }
    return r;
}

/* Starts the block's command buffer anew; the block is idle. */
static int begin_block(struct gpu *gpu, struct staging_block *block, struct fault *f)
{
    VkResult result = VK(gpu, ResetCommandPool)(gpu->device, block->pool, 0);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkResetCommandPool");
    result = VK(gpu, ResetDescriptorPool)(gpu->device, block->sets, 0);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkResetDescriptorPool");
    int r = cmd_begin(gpu, block->commands, VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT, f);
    if (r < 0)
        return r;
    cmd_barrier(gpu, block->commands);
    return 0;
}

static int submit_block(struct gpu *gpu, struct staging_block *block, struct fault *f)
{
    VkResult result = VK(gpu, EndCommandBuffer)(block->commands);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkEndCommandBuffer");
    int r = cmd_submit(gpu, block->commands, block->fence, f);
    if (r == 0)
        block->pending = true;
    return r;
}

int gpu_staging_submit(struct gpu *gpu, uint32_t index, const struct gpu_launch *launches,
                       uint32_t count, struct fault *f)
{
    static const VkBufferView no_views[GPU_TEXEL_SLOTS];
    struct staging_block *block = &gpu->blocks[index];

    if (block->pending || count > GPU_STAGING_LAUNCHES)
        return fault_set(f, -EINVAL, "staging block %u: busy, or %u launches", index, count);
    int r = begin_block(gpu, block, f);
    for (uint32_t i = 0; r == 0 && i < count; i++)
        r = cmd_record_launch(gpu, block->commands, block->sets, &launches[i], no_views, f);
    return r < 0 ? r : submit_block(gpu, block, f);
}

/* --- copies ----------------------------------------------------------------------------------- */

static int check_range(const struct gpu_buffer *buffer, uint64_t offset, uint64_t size,
                       struct fault *f)
{
    if (offset > buffer->size || size > buffer->size - offset)
        return fault_set(f, -EINVAL, "%" PRIu64 " bytes at %" PRIu64 " of a buffer of %" PRIu64,
                         size, offset, buffer->size);
    return 0;
}

static int upload_block(struct gpu *gpu, uint32_t index, const struct gpu_buffer *buffer,
                        uint64_t offset, const void *data, uint64_t size, struct fault *f)
{
    struct staging_block *block = &gpu->blocks[index];
    const VkBufferCopy copy = {(uint64_t)index * GPU_STAGING_BLOCK, offset, size};

    int r = wait_block(gpu, index, f);
    if (r < 0)
        return r;
    memcpy(block_data(gpu, index), data, size);
    r = begin_block(gpu, block, f);
    if (r < 0)
        return r;
    VK(gpu, CmdCopyBuffer)(block->commands, gpu->staging->handle, buffer->handle, 1, &copy);
    return submit_block(gpu, block, f);
}

int gpu_upload(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset, const void *data,
               uint64_t size, struct fault *f)
{
    uint32_t index = 0;

    int r = check_range(buffer, offset, size, f);
    for (uint64_t done = 0; r == 0 && done < size; index = (index + 1) % STAGING_BLOCKS) {
        uint64_t part = size - done < GPU_STAGING_BLOCK ? size - done : GPU_STAGING_BLOCK;
        r = upload_block(gpu, index, buffer, offset + done, (const char *)data + done, part, f);
        done += part;
    }
    int waited = gpu_staging_wait(gpu, r < 0 ? NULL : f);
    return r < 0 ? r : waited;
}

static int download_block(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset,
                          void *data, uint64_t size, struct fault *f)
{
    struct staging_block *block = &gpu->blocks[0];
    const VkBufferCopy copy = {offset, 0, size};

    int r = begin_block(gpu, block, f);
    if (r < 0)
        return r;
    VK(gpu, CmdCopyBuffer)(block->commands, buffer->handle, gpu->staging->handle, 1, &copy);
    cmd_barrier_to_host(gpu, block->commands);
    r = submit_block(gpu, block, f);
    if (r < 0)
        return r;
    r = wait_block(gpu, 0, f);
    if (r < 0)
        return r;
    memcpy(data, block_data(gpu, 0), size);
    return 0;
}

int gpu_download(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset, void *ret_data,
                 uint64_t size, struct fault *f)
{
    int r = check_range(buffer, offset, size, f);
    if (r == 0)
        r = gpu_staging_wait(gpu, f);
    for (uint64_t done = 0; r == 0 && done < size;) {
        uint64_t part = size - done < GPU_STAGING_BLOCK ? size - done : GPU_STAGING_BLOCK;
        r = download_block(gpu, buffer, offset + done, (char *)ret_data + done, part, f);
        done += part;
    }
    return r;
}

int gpu_clear(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset, uint64_t size,
              struct fault *f)
{
    struct staging_block *block = &gpu->blocks[0];

    int r = check_range(buffer, offset, size, f);
    if (r == 0 && (offset % 4 || size % 4))
        r = fault_set(f, -EINVAL, "clearing %" PRIu64 " bytes at %" PRIu64 ": no multiples of 4",
                      size, offset);
    if (r == 0 && size > 0)
        r = wait_block(gpu, 0, f);
    if (r < 0 || size == 0)
        return r;
    r = begin_block(gpu, block, f);
    if (r < 0)
        return r;
    VK(gpu, CmdFillBuffer)(block->commands, buffer->handle, offset, size, 0);
    r = submit_block(gpu, block, f);
    return r < 0 ? r : wait_block(gpu, 0, f);
}
