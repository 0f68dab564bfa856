/* Commands: launches and barriers recorded once into a chain of command buffers, submitted chunk by
 * chunk.
 *
 * Descriptor sets and texel views are made while recording and live as long as the commands. Slots
 * that a launch leaves open are bound to a small buffer of the gpu: a kernel may declare more than
 * it uses. */
#include "vk/gpu/gpu.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/gpu/gpu-private.h"

#define WAIT_SLICE_NSEC 200000000ull
#define UNUSED_BYTES    256u

struct view {
    const struct gpu_buffer *buffer;
    uint64_t offset, size;
    VkBufferView handle;
};

struct gpu_commands {
    struct gpu *gpu;
    VkCommandPool pool;
    VkDescriptorPool sets;
    uint32_t max_launches, launches;
    bool is_ended;
    struct ARRAY(VkCommandBuffer) chunks;
    struct ARRAY(struct view) views;
};

int cmd_open(struct gpu *gpu, struct fault *f)
{
    const VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};

    VkResult result = VK(gpu, CreateFence)(gpu->device, &info, NULL, &gpu->fence);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkCreateFence");
    int r = gpu_buffer_new(gpu, GPU_LIFETIME_STAGING, UNUSED_BYTES, &gpu->unused, f);
    if (r < 0)
        return r;
    return memory_new_view(gpu, gpu->unused, 0, UNUSED_BYTES, &gpu->unused_view, f);
}

void cmd_close(struct gpu *gpu)
{
    if (gpu->unused_view)
        VK(gpu, DestroyBufferView)(gpu->device, gpu->unused_view, NULL);
    gpu->unused = gpu_buffer_free(gpu->unused);
    if (gpu->fence)
        VK(gpu, DestroyFence)(gpu->device, gpu->fence, NULL);
}

/* --- recording, shared with staging.c --------------------------------------------------------- */

int cmd_new_set_pool(struct gpu *gpu, uint32_t sets, VkDescriptorPool *ret_pool, struct fault *f)
{
    const VkDescriptorPoolSize sizes[] = {
        {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, sets * GPU_STORAGE_SLOTS},
        {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, sets * GPU_TEXEL_SLOTS},
    };
    const VkDescriptorPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = sets,
        .poolSizeCount = ARRAY_SIZE(sizes),
        .pPoolSizes = sizes,
    };
    VkResult result = VK(gpu, CreateDescriptorPool)(gpu->device, &info, NULL, ret_pool);
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkCreateDescriptorPool");
}

int cmd_begin(struct gpu *gpu, VkCommandBuffer commands, VkCommandBufferUsageFlags usage,
              struct fault *f)
{
    const VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = usage,
    };
    VkResult result = VK(gpu, BeginCommandBuffer)(commands, &info);
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkBeginCommandBuffer");
}

void cmd_barrier(struct gpu *gpu, VkCommandBuffer commands)
{
    const VkPipelineStageFlags stages =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                         VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    VK(gpu, CmdPipelineBarrier)(commands, stages, stages, 0, 1, &barrier, 0, NULL, 0, NULL);
}

void cmd_barrier_to_host(struct gpu *gpu, VkCommandBuffer commands)
{
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_HOST_READ_BIT,
    };
    VK(gpu, CmdPipelineBarrier)
    (commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, NULL,
     0, NULL);
}

static int check_binding(const struct gpu *gpu, const struct gpu_binding *b, struct fault *f)
{
    if (b->slot >= (b->texel ? GPU_TEXEL_SLOTS : GPU_STORAGE_SLOTS))
        return fault_set(f, -EINVAL, "slot %u does not exist", b->slot);
    if (b->size == 0 || b->offset % gpu->caps.offset_alignment || b->offset > b->buffer->size ||
        b->size > b->buffer->size - b->offset)
        return fault_set(f, -EINVAL,
                         "slot %u: %" PRIu64 " bytes at %" PRIu64 " of a buffer of %" PRIu64,
                         b->slot, b->size, b->offset, b->buffer->size);
    uint64_t limit = b->texel ? gpu->caps.max_texels * 16 : gpu->caps.max_binding;
    if (b->size > limit)
        return fault_set(f, -EFBIG,
                         "slot %u: %" PRIu64 " bytes, the device binds %" PRIu64 " at most",
                         b->slot, b->size, limit);
    return 0;
}

static int check_launch(const struct gpu *gpu, const struct gpu_launch *launch, struct fault *f)
{
    for (int i = 0; i < 3; i++)
        if (launch->groups[i] == 0 || launch->groups[i] > gpu->caps.max_groups[i])
            return fault_set(f, -EFBIG, "%u x %u x %u workgroups", launch->groups[0],
                             launch->groups[1], launch->groups[2]);
    if (launch->push_count > GPU_PUSH_BYTES / 4)
        return fault_set(f, -EINVAL, "%u push constants", launch->push_count);
    for (uint32_t i = 0; i < launch->binding_count; i++) {
        int r = check_binding(gpu, &launch->bindings[i], f);
        if (r < 0)
            return r;
    }
    return 0;
}

static void write_set(struct gpu *gpu, VkDescriptorSet set, const struct gpu_launch *launch,
                      const VkBufferView views[GPU_TEXEL_SLOTS])
{
    VkDescriptorBufferInfo buffers[GPU_STORAGE_SLOTS];
    VkBufferView texels[GPU_TEXEL_SLOTS];

    for (uint32_t i = 0; i < GPU_STORAGE_SLOTS; i++)
        buffers[i] = (VkDescriptorBufferInfo){gpu->unused->handle, 0, UNUSED_BYTES};
    for (uint32_t i = 0; i < GPU_TEXEL_SLOTS; i++)
        texels[i] = views[i] ? views[i] : gpu->unused_view;
    for (uint32_t i = 0; i < launch->binding_count; i++) {
        const struct gpu_binding *b = &launch->bindings[i];
        if (!b->texel)
            buffers[b->slot] = (VkDescriptorBufferInfo){b->buffer->handle, b->offset, b->size};
    }
    /* A write of 8 descriptors from binding 0 on runs over the 8 bindings, all alike. */
    const VkWriteDescriptorSet writes[] = {
        {
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .descriptorCount = GPU_STORAGE_SLOTS,
            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .pBufferInfo = buffers,
        },
        {
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = GPU_STORAGE_SLOTS,
            .descriptorCount = GPU_TEXEL_SLOTS,
            .descriptorType = VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,
            .pTexelBufferView = texels,
        },
    };
    VK(gpu, UpdateDescriptorSets)(gpu->device, ARRAY_SIZE(writes), writes, 0, NULL);
}

int cmd_record_launch(struct gpu *gpu, VkCommandBuffer commands, VkDescriptorPool pool,
                      const struct gpu_launch *launch, const VkBufferView views[GPU_TEXEL_SLOTS],
                      struct fault *f)
{
    VkDescriptorSet set;

    int r = check_launch(gpu, launch, f);
    if (r < 0)
        return r;
    const VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = pool,
        .descriptorSetCount = 1,
        .pSetLayouts = &gpu->set_layout,
    };
    VkResult result = VK(gpu, AllocateDescriptorSets)(gpu->device, &info, &set);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkAllocateDescriptorSets");
    write_set(gpu, set, launch, views);
    VK(gpu, CmdBindPipeline)(commands, VK_PIPELINE_BIND_POINT_COMPUTE, launch->kernel->pipeline);
    VK(gpu, CmdBindDescriptorSets)
    (commands, VK_PIPELINE_BIND_POINT_COMPUTE, gpu->pipeline_layout, 0, 1, &set, 0, NULL);
    if (launch->push_count > 0)
        VK(gpu, CmdPushConstants)
    (commands, gpu->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, launch->push_count * 4,
     launch->push);
    VK(gpu, CmdDispatch)(commands, launch->groups[0], launch->groups[1], launch->groups[2]);
    return 0;
}

/* --- submitting, shared with staging.c -------------------------------------------------------- */

/* A lost device never comes back: remembered, so that nothing more is asked of it. */
static int remember_loss(struct gpu *gpu, VkResult result, const char *what, struct fault *f)
{
    if (result == VK_ERROR_DEVICE_LOST)
        gpu->lost = true;
    return vk_fault(f, result, what);
}

int cmd_submit(struct gpu *gpu, VkCommandBuffer commands, VkFence fence, struct fault *f)
{
    const VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };

    if (gpu->lost)
        return fault_set(f, -EIO, "the device is lost");
    VkResult result = VK(gpu, ResetFences)(gpu->device, 1, &fence);
    if (result != VK_SUCCESS)
        return remember_loss(gpu, result, "vkResetFences", f);
    result = VK(gpu, QueueSubmit)(gpu->queue, 1, &info, fence);
    return result == VK_SUCCESS ? 0 : remember_loss(gpu, result, "vkQueueSubmit", f);
}

int cmd_wait(struct gpu *gpu, VkFence fence, bool *pending, struct fault *f)
{
    VkResult result;

    do
        result = VK(gpu, WaitForFences)(gpu->device, 1, &fence, VK_TRUE, WAIT_SLICE_NSEC);
    while (result == VK_TIMEOUT);
    *pending = result != VK_SUCCESS && result != VK_ERROR_DEVICE_LOST;
    if (result != VK_SUCCESS)
        return remember_loss(gpu, result, "vkWaitForFences", f);
    atomic_fetch_add(&gpu->progress, 1);
    return 0;
}

static bool is_settled(const struct gpu *gpu)
{
    bool pending = gpu->running;

    for (uint32_t i = 0; i < STAGING_BLOCKS; i++)
        pending |= gpu->blocks[i].pending;
    return !pending;
}

/* Where even the last wait fails there is nothing left to wait with. */
void cmd_settle(struct gpu *gpu)
{
    if (is_settled(gpu))
        return;
    if (gpu->running)
        (void)cmd_wait(gpu, gpu->fence, &gpu->running, NULL);
    (void)gpu_staging_wait(gpu, NULL);
    if (!is_settled(gpu))
        (void)VK(gpu, DeviceWaitIdle)(gpu->device);
    gpu->running = false;
    for (uint32_t i = 0; i < STAGING_BLOCKS; i++)
        gpu->blocks[i].pending = false;
}

uint64_t gpu_progress(const struct gpu *gpu)
{
    return atomic_load(&gpu->progress);
}

int gpu_submit(struct gpu *gpu, struct gpu_commands *c, uint32_t chunk, struct fault *f)
{
    if (!c->is_ended || chunk >= c->chunks.count)
        return fault_set(f, -EINVAL, "chunk %u of %zu", chunk, c->chunks.count);
    uint64_t start = timing_now();
    int r = gpu->running ? cmd_wait(gpu, gpu->fence, &gpu->running, f) : 0;
    if (r >= 0)
        r = cmd_submit(gpu, c->chunks.items[chunk], gpu->fence, f);
    if (r < 0)
        return r;
    r = cmd_wait(gpu, gpu->fence, &gpu->running, f);
    if (r < 0)
        return r;
    VkResult result = timing_read(gpu, timing_now() - start, &gpu->last_nsec);
    return result == VK_ERROR_DEVICE_LOST ? remember_loss(gpu, result, "vkGetQueryPoolResults", f)
                                          : 0; /* a time that is not exact is no failure */
}

/* --- struct gpu_commands ---------------------------------------------------------------------- */

/* Each chunk opens with a barrier against whatever ran before it, and is timed. */
static int begin_chunk(struct gpu_commands *c, struct fault *f)
{
    struct gpu *gpu = c->gpu;

    VkCommandBuffer *chunk = array_push(&c->chunks);
    if (!chunk)
        return fault_set(f, -ENOMEM, "out of memory");
    const VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = c->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkResult result = VK(gpu, AllocateCommandBuffers)(gpu->device, &info, chunk);
    if (result != VK_SUCCESS) {
        c->chunks.count--;
        return vk_fault(f, result, "vkAllocateCommandBuffers");
    }
    int r = cmd_begin(gpu, *chunk, 0, f);
    if (r < 0)
        return r;
    timing_begin(gpu, *chunk);
    cmd_barrier(gpu, *chunk);
    return 0;
}

static VkCommandBuffer current_chunk(const struct gpu_commands *c)
{
    return c->chunks.items[c->chunks.count - 1];
}

static int end_chunk(struct gpu_commands *c, struct fault *f)
{
    timing_end(c->gpu, current_chunk(c));
    VkResult result = VK(c->gpu, EndCommandBuffer)(current_chunk(c));
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkEndCommandBuffer");
}

int gpu_commands_new(struct gpu *gpu, uint32_t max_launches, struct gpu_commands **ret_commands,
                     struct fault *f)
{
    _cleanup_(gpu_commands_freep) struct gpu_commands *c = calloc(1, sizeof *c);

    if (!c)
        return fault_set(f, -ENOMEM, "out of memory");
    c->gpu = gpu;
    c->max_launches = max_launches > 0 ? max_launches : 1;
    const VkCommandPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = gpu->family,
    };
    VkResult result = VK(gpu, CreateCommandPool)(gpu->device, &info, NULL, &c->pool);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkCreateCommandPool");
    int r = cmd_new_set_pool(gpu, c->max_launches, &c->sets, f);
    if (r < 0)
        return r;
    r = begin_chunk(c, f);
    if (r < 0)
        return r;
    *ret_commands = TAKE_PTR(c);
    return 0;
}

struct gpu_commands *gpu_commands_free(struct gpu_commands *c)
{
    if (!c)
        return NULL;
    cmd_settle(c->gpu);
    for (size_t i = 0; i < c->views.count; i++)
        VK(c->gpu, DestroyBufferView)(c->gpu->device, c->views.items[i].handle, NULL);
    array_done(&c->views);
    array_done(&c->chunks); /* the command buffers go with their pool */
    if (c->sets)
        VK(c->gpu, DestroyDescriptorPool)(c->gpu->device, c->sets, NULL);
    if (c->pool)
        VK(c->gpu, DestroyCommandPool)(c->gpu->device, c->pool, NULL);
    free(c);
    return NULL;
}

/* The view over a window, made once: the arena's serves every launch. */
static int get_view(struct gpu_commands *c, const struct gpu_binding *b, VkBufferView *ret_view,
                    struct fault *f)
{
    for (size_t i = 0; i < c->views.count; i++) {
        const struct view *v = &c->views.items[i];
        if (v->buffer != b->buffer || v->offset != b->offset || v->size != b->size)
            continue;
        *ret_view = v->handle;
        return 0;
    }
    struct view *v = array_push(&c->views);
    if (!v)
        return fault_set(f, -ENOMEM, "out of memory");
    *v = (struct view){b->buffer, b->offset, b->size, VK_NULL_HANDLE};
    int r = memory_new_view(c->gpu, b->buffer, b->offset, b->size, &v->handle, f);
    if (r < 0) {
        c->views.count--;
        return r;
    }
    *ret_view = v->handle;
    return 0;
}

int gpu_commands_launch(struct gpu_commands *c, const struct gpu_launch *launch, struct fault *f)
{
    VkBufferView views[GPU_TEXEL_SLOTS] = {0};

    int r = check_launch(c->gpu, launch, f);
    if (r < 0)
        return r;
    if (c->is_ended || c->launches == c->max_launches)
        return fault_set(f, -EINVAL, "%u launches were announced", c->max_launches);
    for (uint32_t i = 0; i < launch->binding_count; i++) {
        const struct gpu_binding *b = &launch->bindings[i];
        if (!b->texel)
            continue;
        r = get_view(c, b, &views[b->slot], f);
        if (r < 0)
            return r;
    }
    r = cmd_record_launch(c->gpu, current_chunk(c), c->sets, launch, views, f);
    if (r < 0)
        return r;
    c->launches++;
    return 0;
}

void gpu_commands_barrier(struct gpu_commands *c)
{
    cmd_barrier(c->gpu, current_chunk(c));
}

int gpu_commands_cut(struct gpu_commands *c, struct fault *f)
{
    int r = end_chunk(c, f);
    return r < 0 ? r : begin_chunk(c, f);
}

int gpu_commands_end(struct gpu_commands *c, struct fault *f)
{
    int r = end_chunk(c, f);
    if (r < 0)
        return r;
    c->is_ended = true;
    cache_save(c->gpu);
    return 0;
}

uint32_t gpu_commands_chunks(const struct gpu_commands *c)
{
    return (uint32_t)c->chunks.count;
}
