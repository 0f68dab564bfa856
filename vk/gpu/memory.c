/* Memory: buffers with an allocation each, counted by who owns them.
 *
 * There are few of them (weight slabs, one arena, staging), so no sub-allocation is needed here:
 * tensors and weights are windows. */
#include "vk/gpu/gpu.h"

#include <errno.h>
#include <inttypes.h>

#include "vk/gpu/gpu-private.h"

#define MIB (1024.0 * 1024.0)

static const char *const lifetime_names[] = {
    [GPU_LIFETIME_WEIGHTS] = "weights",
    [GPU_LIFETIME_ARENA] = "activations",
    [GPU_LIFETIME_STAGING] = "staging",
};

/* Bytes the heap behind device-local memory still has: the driver's word where it gives one. */
uint64_t gpu_memory_left(struct gpu *gpu)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = gpu->has_budget ? &budget : NULL};
    uint64_t used = gpu_memory_used(gpu);
    uint64_t left = gpu->facts.memory > used ? gpu->facts.memory - used : 0;

    VK(gpu, GetPhysicalDeviceMemoryProperties2)(gpu->physical, &memory);
    for (uint32_t i = 0; gpu->has_budget && i < memory.memoryProperties.memoryHeapCount; i++) {
        if (memory.memoryProperties.memoryHeaps[i].size != gpu->facts.memory)
            continue;
        uint64_t free_bytes = budget.heapBudget[i] > budget.heapUsage[i]
                                  ? budget.heapBudget[i] - budget.heapUsage[i]
                                  : 0;
        return free_bytes < left ? free_bytes : left;
    }
    return left;
}

/* First type of `allowed` that has `flags`, in the largest heap that offers one. */
static uint32_t find_type(const VkPhysicalDeviceMemoryProperties *memory, uint32_t allowed,
                          VkMemoryPropertyFlags flags)
{
    uint32_t best = VK_MAX_MEMORY_TYPES;
    uint64_t best_size = 0;

    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        uint64_t size = memory->memoryHeaps[memory->memoryTypes[i].heapIndex].size;
        if (!(allowed & 1u << i) || (memory->memoryTypes[i].propertyFlags & flags) != flags ||
            size <= best_size)
            continue;
        best = i;
        best_size = size;
    }
    return best;
}

/* Flag sets to try, best first, for the two uses of memory. */
static const VkMemoryPropertyFlags device_flags[] = {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0};
static const VkMemoryPropertyFlags mapped_flags[] = {
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
        VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT};

static uint32_t pick_type(struct gpu *gpu, const VkMemoryPropertyFlags flags[2], uint32_t allowed)
{
    uint32_t type = find_type(&gpu->memory, allowed, flags[0]);

    return type < VK_MAX_MEMORY_TYPES ? type : find_type(&gpu->memory, allowed, flags[1]);
}

static int no_memory(struct gpu *gpu, const struct gpu_buffer *buffer, VkResult result,
                     const char *call, struct fault *f)
{
    if (vk_errno(result) != -ENOMEM || result == VK_ERROR_OUT_OF_HOST_MEMORY)
        return vk_fault(f, result, call);
    return fault_set(f, -ENOMEM,
                     "not enough device memory: %.1f MiB for %s, %.1f MiB of %.1f MiB are free",
                     (double)buffer->size / MIB, lifetime_names[buffer->lifetime],
                     (double)gpu_memory_left(gpu) / MIB, (double)gpu->facts.memory / MIB);
}

static void charge(struct gpu *gpu, struct gpu_buffer *buffer, uint64_t size)
{
    buffer->charged = size;
    gpu->used[buffer->lifetime] += size;
    if (gpu_memory_used(gpu) > gpu->peak)
        gpu->peak = gpu_memory_used(gpu);
}

static int give_memory(struct gpu *gpu, struct gpu_buffer *buffer,
                       const VkMemoryPropertyFlags flags[2], struct fault *f)
{
    VkMemoryRequirements needs;

    VK(gpu, GetBufferMemoryRequirements)(gpu->device, buffer->handle, &needs);
    const VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = needs.size,
        .memoryTypeIndex = pick_type(gpu, flags, needs.memoryTypeBits),
    };
    if (info.memoryTypeIndex >= VK_MAX_MEMORY_TYPES)
        return fault_set(f, -ENODEV, "the device has no memory for buffers");
    VkResult result = VK(gpu, AllocateMemory)(gpu->device, &info, NULL, &buffer->memory);
    if (result != VK_SUCCESS)
        return no_memory(gpu, buffer, result, "vkAllocateMemory", f);
    charge(gpu, buffer, needs.size);
    result = VK(gpu, BindBufferMemory)(gpu->device, buffer->handle, buffer->memory, 0);
    if (result != VK_SUCCESS)
        return no_memory(gpu, buffer, result, "vkBindBufferMemory", f);
    return 0;
}

static int make_buffer(struct gpu *gpu, enum gpu_lifetime lifetime, uint64_t size,
                       const VkMemoryPropertyFlags flags[2], struct gpu_buffer **ret_buffer,
                       struct fault *f)
{
    _cleanup_(gpu_buffer_freep) struct gpu_buffer *buffer = calloc(1, sizeof *buffer);

    if (!buffer)
        return fault_set(f, -ENOMEM, "out of memory");
    buffer->gpu = gpu;
    buffer->lifetime = lifetime;
    buffer->size = size;
    const VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    VkResult result = VK(gpu, CreateBuffer)(gpu->device, &info, NULL, &buffer->handle);
    if (result != VK_SUCCESS)
        return no_memory(gpu, buffer, result, "vkCreateBuffer", f);
    int r = give_memory(gpu, buffer, flags, f);
    if (r < 0)
        return r;
    *ret_buffer = TAKE_PTR(buffer);
    return 0;
}

int gpu_buffer_new(struct gpu *gpu, enum gpu_lifetime lifetime, uint64_t size,
                   struct gpu_buffer **ret_buffer, struct fault *f)
{
    uint64_t limit = gpu->caps.max_allocation < gpu->caps.max_buffer ? gpu->caps.max_allocation
                                                                     : gpu->caps.max_buffer;

    if (size == 0)
        return fault_set(f, -EINVAL, "a device buffer of no bytes");
    if (size > limit)
        return fault_set(f, -EFBIG, "%.1f MiB for %s, the device allows %.1f MiB in one piece",
                         (double)size / MIB, lifetime_names[lifetime], (double)limit / MIB);
    return make_buffer(gpu, lifetime, size, device_flags, ret_buffer, f);
}

int memory_new_mapped(struct gpu *gpu, uint64_t size, struct gpu_buffer **ret_buffer,
                      struct fault *f)
{
    _cleanup_(gpu_buffer_freep) struct gpu_buffer *buffer = NULL;

    int r = make_buffer(gpu, GPU_LIFETIME_STAGING, size, mapped_flags, &buffer, f);
    if (r < 0)
        return r;
    VkResult result =
        VK(gpu, MapMemory)(gpu->device, buffer->memory, 0, VK_WHOLE_SIZE, 0, &buffer->mapped);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkMapMemory");
    *ret_buffer = TAKE_PTR(buffer);
    return 0;
}

struct gpu_buffer *gpu_buffer_free(struct gpu_buffer *buffer)
{
    if (!buffer)
        return NULL;
    struct gpu *gpu = buffer->gpu;
    cmd_settle(gpu);
    if (buffer->handle)
        VK(gpu, DestroyBuffer)(gpu->device, buffer->handle, NULL);
    if (buffer->memory)
        VK(gpu, FreeMemory)(gpu->device, buffer->memory, NULL);
    gpu->used[buffer->lifetime] -= buffer->charged;
    free(buffer);
    return NULL;
}

uint64_t gpu_buffer_size(const struct gpu_buffer *buffer)
{
    return buffer->size;
}

int memory_new_view(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset,
                    uint64_t size, VkBufferView *ret_view, struct fault *f)
{
    const VkBufferViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
        .buffer = buffer->handle,
        .format = VK_FORMAT_R32G32B32A32_UINT,
        .offset = offset,
        .range = size / 16 * 16,
    };
    VkResult result = VK(gpu, CreateBufferView)(gpu->device, &info, NULL, ret_view);
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkCreateBufferView");
}

uint64_t gpu_memory_used(const struct gpu *gpu)
{
    uint64_t sum = 0;

    for (int i = 0; i < GPU_LIFETIME_COUNT; i++)
        sum += gpu->used[i];
    return sum;
}

uint64_t gpu_memory_used_for(const struct gpu *gpu, enum gpu_lifetime lifetime)
{
    return gpu->used[lifetime];
}

uint64_t gpu_memory_peak(const struct gpu *gpu)
{
    return gpu->peak;
}

uint64_t gpu_memory_total(const struct gpu *gpu)
{
    return gpu->facts.memory;
}
