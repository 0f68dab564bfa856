/* The table of Vulkan entry points. One list (gpu-private.h) makes the struct, the counters and
 * this. */
#include "vk/gpu/gpu.h"

#include <errno.h>

#include "vk/gpu/gpu-private.h"

static int missing(struct fault *f, const char *name)
{
    return fault_set(f, -ENODEV, "the Vulkan driver has no %s", name);
}

int vk_load_global(struct vk *vk, struct fault *f)
{
#define LOAD(name)                                                                                 \
    vk->name = (PFN_vk##name)vkGetInstanceProcAddr(NULL, "vk" #name);                              \
    if (!vk->name)                                                                                 \
        return missing(f, "vk" #name);
    VK_GLOBAL_CALLS(LOAD)
#undef LOAD
    return 0;
}

int vk_load_instance(struct vk *vk, VkInstance instance, struct fault *f)
{
#define LOAD(name)                                                                                 \
    vk->name = (PFN_vk##name)vkGetInstanceProcAddr(instance, "vk" #name);                          \
    if (!vk->name)                                                                                 \
        return missing(f, "vk" #name);
    VK_INSTANCE_CALLS(LOAD)
#undef LOAD
    return 0;
}

int vk_load_device(struct vk *vk, VkDevice device, struct fault *f)
{
#define LOAD(name)                                                                                 \
    vk->name = (PFN_vk##name)vk->GetDeviceProcAddr(device, "vk" #name);                            \
    if (!vk->name)                                                                                 \
        return missing(f, "vk" #name);
    VK_DEVICE_CALLS(LOAD)
#undef LOAD
    return 0;
}

uint64_t gpu_call_count(const struct gpu *gpu, enum gpu_call call)
{
    static const enum vk_call rows[GPU_CALL_COUNT] = {
        [GPU_CALL_ALLOCATE_MEMORY] = VK_CALL_AllocateMemory,
        [GPU_CALL_BEGIN_COMMAND_BUFFER] = VK_CALL_BeginCommandBuffer,
        [GPU_CALL_UPDATE_DESCRIPTOR_SETS] = VK_CALL_UpdateDescriptorSets,
        [GPU_CALL_CREATE_PIPELINES] = VK_CALL_CreateComputePipelines,
        [GPU_CALL_QUEUE_SUBMIT] = VK_CALL_QueueSubmit,
        [GPU_CALL_CMD_DISPATCH] = VK_CALL_CmdDispatch,
        [GPU_CALL_CMD_BARRIER] = VK_CALL_CmdPipelineBarrier,
    };
    return atomic_load_explicit(&gpu->vk.counts[rows[call]], memory_order_relaxed);
}

/* VkResult, its name, errno. */
#define RESULT_ROWS(X)                                                                             \
    X(VK_ERROR_OUT_OF_HOST_MEMORY, -ENOMEM)                                                        \
    X(VK_ERROR_OUT_OF_DEVICE_MEMORY, -ENOMEM)                                                      \
    X(VK_ERROR_OUT_OF_POOL_MEMORY, -ENOMEM)                                                        \
    X(VK_ERROR_FRAGMENTED_POOL, -ENOMEM)                                                           \
    X(VK_ERROR_TOO_MANY_OBJECTS, -ENOMEM)                                                          \
    X(VK_ERROR_MEMORY_MAP_FAILED, -ENOMEM)                                                         \
    X(VK_ERROR_DEVICE_LOST, -EIO)                                                                  \
    X(VK_ERROR_INITIALIZATION_FAILED, -ENODEV)                                                     \
    X(VK_ERROR_INCOMPATIBLE_DRIVER, -ENODEV)                                                       \
    X(VK_ERROR_LAYER_NOT_PRESENT, -ENODEV)                                                         \
    X(VK_ERROR_EXTENSION_NOT_PRESENT, -ENODEV)                                                     \
    X(VK_ERROR_FEATURE_NOT_PRESENT, -ENODEV)                                                       \
    X(VK_ERROR_FORMAT_NOT_SUPPORTED, -ENODEV)                                                      \
    X(VK_ERROR_UNKNOWN, -EIO)

static const struct {
    VkResult result;
    const char *name;
    int err;
} result_rows[] = {
#define ROW(result, err) {result, #result, err},
    RESULT_ROWS(ROW)
#undef ROW
};

int vk_errno(VkResult result)
{
    if (result >= 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(result_rows); i++)
        if (result_rows[i].result == result)
            return result_rows[i].err;
    return -EIO;
}

int vk_fault(struct fault *f, VkResult result, const char *what)
{
    for (size_t i = 0; i < ARRAY_SIZE(result_rows); i++)
        if (result_rows[i].result == result)
            return fault_set(f, result_rows[i].err, "%s: %s", what, result_rows[i].name);
    return fault_set(f, result < 0 ? -EIO : 0, "%s: VkResult %d", what, (int)result);
}
