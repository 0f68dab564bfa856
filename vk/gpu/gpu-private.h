/* gpu-private — what the files of vk/gpu share; Vulkan ends here. Included by vk/gpu and tests/gpu
 * only.
 *
 * Every Vulkan call goes through VK(gpu, Name)(…): the table is filled by table.c from the lists
 * below, each call is counted, and a test may put its own function into gpu->vk.Name. */
#pragma once

#include <stdatomic.h>
#include <vulkan/vulkan.h>

#include "vk/base/array.h"
#include "vk/base/sha256.h"
#include "vk/gpu/gpu.h"

/* --- entry points (table.c) ------------------------------------------------------------------- */

#define VK_GLOBAL_CALLS(X)                                                                         \
    X(EnumerateInstanceVersion)                                                                    \
    X(CreateInstance)

#define VK_INSTANCE_CALLS(X)                                                                       \
    X(DestroyInstance)                                                                             \
    X(EnumeratePhysicalDevices)                                                                    \
    X(EnumerateDeviceExtensionProperties)                                                          \
    X(GetPhysicalDeviceProperties)                                                                 \
    X(GetPhysicalDeviceProperties2)                                                                \
    X(GetPhysicalDeviceFeatures2)                                                                  \
    X(GetPhysicalDeviceQueueFamilyProperties)                                                      \
    X(GetPhysicalDeviceMemoryProperties2)                                                          \
    X(GetPhysicalDeviceFormatProperties)                                                           \
    X(CreateDevice)                                                                                \
    X(GetDeviceProcAddr)

#define VK_DEVICE_CALLS(X)                                                                         \
    X(DestroyDevice)                                                                               \
    X(DeviceWaitIdle)                                                                              \
    X(GetDeviceQueue)                                                                              \
    X(QueueSubmit)                                                                                 \
    X(AllocateMemory)                                                                              \
    X(FreeMemory)                                                                                  \
    X(MapMemory)                                                                                   \
    X(CreateBuffer)                                                                                \
    X(DestroyBuffer)                                                                               \
    X(GetBufferMemoryRequirements)                                                                 \
    X(BindBufferMemory)                                                                            \
    X(CreateBufferView)                                                                            \
    X(DestroyBufferView)                                                                           \
    X(CreateFence)                                                                                 \
    X(DestroyFence)                                                                                \
    X(ResetFences)                                                                                 \
    X(WaitForFences)                                                                               \
    X(CreateQueryPool)                                                                             \
    X(DestroyQueryPool)                                                                            \
    X(GetQueryPoolResults)                                                                         \
    X(CreateShaderModule)                                                                          \
    X(DestroyShaderModule)                                                                         \
    X(CreatePipelineCache)                                                                         \
    X(DestroyPipelineCache)                                                                        \
    X(GetPipelineCacheData)                                                                        \
    X(CreateComputePipelines)                                                                      \
    X(DestroyPipeline)                                                                             \
    X(CreatePipelineLayout)                                                                        \
    X(DestroyPipelineLayout)                                                                       \
    X(CreateDescriptorSetLayout)                                                                   \
    X(DestroyDescriptorSetLayout)                                                                  \
    X(CreateDescriptorPool)                                                                        \
    X(DestroyDescriptorPool)                                                                       \
    X(ResetDescriptorPool)                                                                         \
    X(AllocateDescriptorSets)                                                                      \
    X(UpdateDescriptorSets)                                                                        \
    X(CreateCommandPool)                                                                           \
    X(DestroyCommandPool)                                                                          \
    X(ResetCommandPool)                                                                            \
    X(AllocateCommandBuffers)                                                                      \
    X(BeginCommandBuffer)                                                                          \
    X(EndCommandBuffer)                                                                            \
    X(CmdBindPipeline)                                                                             \
    X(CmdBindDescriptorSets)                                                                       \
    X(CmdPushConstants)                                                                            \
    X(CmdDispatch)                                                                                 \
    X(CmdCopyBuffer)                                                                               \
    X(CmdFillBuffer)                                                                               \
    X(CmdPipelineBarrier)                                                                          \
    X(CmdResetQueryPool)                                                                           \
    X(CmdWriteTimestamp)

#define VK_CALLS(X) VK_GLOBAL_CALLS(X) VK_INSTANCE_CALLS(X) VK_DEVICE_CALLS(X)

enum vk_call {
#define VK_CALL_ROW(name) VK_CALL_##name,
    VK_CALLS(VK_CALL_ROW)
#undef VK_CALL_ROW
        VK_CALL_COUNT,
};

struct vk {
#define VK_POINTER(name) PFN_vk##name name;
    VK_CALLS(VK_POINTER)
#undef VK_POINTER
    atomic_uint_fast64_t counts[VK_CALL_COUNT];
};

/* VK(gpu, QueueSubmit)(queue, …): counted, then called. */
#define VK(gpu, name)                                                                              \
    (atomic_fetch_add_explicit(&(gpu)->vk.counts[VK_CALL_##name], 1, memory_order_relaxed),        \
     (gpu)->vk.name)

int vk_load_global(struct vk *vk, struct fault *f);
int vk_load_instance(struct vk *vk, VkInstance instance, struct fault *f);
int vk_load_device(struct vk *vk, VkDevice device, struct fault *f);

/* VkResult as negative errno (0 for success), and as a fault "what: VK_ERROR_…". */
int vk_errno(VkResult result);
int vk_fault(struct fault *f, VkResult result, const char *what);

/* --- one open device -------------------------------------------------------------------------- */

#define GPU_STORAGE_SLOTS 8u /* bindings 0…7 */
#define GPU_TEXEL_SLOTS   4u /* bindings 8…11 */
#define GPU_PUSH_BYTES    128u

struct gpu_buffer {
    struct gpu *gpu;
    VkBuffer handle;
    VkDeviceMemory memory;
    uint64_t size;
    uint64_t charged; /* bytes of memory, with the driver's rounding */
    enum gpu_lifetime lifetime;
    void *mapped; /* staging only */
};

struct gpu_kernel {
    VkPipeline pipeline;
    const char *name; /* of the binary */
    uint32_t spec_count;
    uint32_t *spec;
};

/* Half of the staging ring: 16 MiB of mapped memory and what is needed to submit work on it. */
struct staging_block {
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkDescriptorPool sets;
    VkFence fence;
    bool pending;
};

#define STAGING_BLOCKS 2u

/* What a pipeline cache file must match, all of it. */
struct cache_key {
    uint8_t uuid[VK_UUID_SIZE];
    uint32_t vendor, device, driver_version;
    uint8_t shaders[SHA256_SIZE]; /* over every SPIR-V binary */
};

struct gpu {
    struct vk vk;
    struct gpu_facts facts;
    struct caps caps;
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
    uint32_t timestamp_bits; /* 0: none */
    double timestamp_period; /* nanoseconds a tick */
    bool has_budget;
    VkPhysicalDeviceMemoryProperties memory;
    uint64_t used[GPU_LIFETIME_COUNT], peak; /* bytes */

    VkDescriptorSetLayout set_layout;
    VkPipelineLayout pipeline_layout;
    VkPipelineCache pipeline_cache;
    struct cache_key cache_key;
    char *cache_path;        /* NULL: none */
    uint32_t unsaved;        /* pipelines the cache file does not have yet */
    VkShaderModule *modules; /* parallel to kernel.c's table, made on demand */
    struct ARRAY(struct gpu_kernel *) kernels;
    void (*on_kernel)(void *userdata); /* or NULL */
    void *userdata;

    struct gpu_buffer *staging; /* STAGING_BLOCKS * GPU_STAGING_BLOCK */
    struct staging_block blocks[STAGING_BLOCKS];
    struct gpu_buffer *unused; /* bound to slots a launch leaves open */
    VkBufferView unused_view;
    VkFence fence;
    bool running;        /* a chunk is with the device, or may be: waiting for it failed */
    VkQueryPool queries; /* two timestamps around the running chunk */
    uint64_t last_nsec;
    atomic_uint_fast64_t progress;
    bool lost;
};

/* memory.c. Host-visible, coherent and mapped. */
int memory_new_mapped(struct gpu *gpu, uint64_t size, struct gpu_buffer **ret_buffer,
                      struct fault *f);
int memory_new_view(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset,
                    uint64_t size, VkBufferView *ret_view, struct fault *f);

/* kernel.c */
int kernel_open(struct gpu *gpu, struct fault *f); /* layouts */
void kernel_close(struct gpu *gpu);
void kernel_hash(uint8_t ret_digest[SHA256_SIZE]);

/* cache.c. check() is pure: is `file` a cache for `key`? Then where its payload lies. */
bool cache_check(const void *file, size_t size, const struct cache_key *key,
                 const void **ret_payload, size_t *ret_payload_size);
/* malloc'd file image around a payload; NULL when out of memory. */
void *cache_wrap(const struct cache_key *key, const void *payload, size_t payload_size,
                 size_t *ret_size);
int cache_open(struct gpu *gpu, const char *directory, struct fault *f);
void cache_save(struct gpu *gpu); /* when there is something new; failures are not worth an error */
void cache_close(struct gpu *gpu);

/* cmd.c */
int cmd_open(struct gpu *gpu, struct fault *f);
void cmd_close(struct gpu *gpu);
int cmd_new_set_pool(struct gpu *gpu, uint32_t sets, VkDescriptorPool *ret_pool, struct fault *f);
/* Binds and dispatches; views[s] stands for texel slot s, 0 where there is none. */
int cmd_record_launch(struct gpu *gpu, VkCommandBuffer commands, VkDescriptorPool pool,
                      const struct gpu_launch *launch, const VkBufferView views[GPU_TEXEL_SLOTS],
                      struct fault *f);
void cmd_barrier(struct gpu *gpu, VkCommandBuffer commands);
/* Copies done so far become visible to the host. */
void cmd_barrier_to_host(struct gpu *gpu, VkCommandBuffer commands);
int cmd_begin(struct gpu *gpu, VkCommandBuffer commands, VkCommandBufferUsageFlags usage,
              struct fault *f);
int cmd_submit(struct gpu *gpu, VkCommandBuffer commands, VkFence fence, struct fault *f);
/* Waits in slices, counts progress; a lost device stays lost. *pending, which says that the fence
 * is with the device, becomes false on success and on loss, and stays true when the wait failed. */
int cmd_wait(struct gpu *gpu, VkFence fence, bool *pending, struct fault *f);
/* Before anything that commands refer to is freed: waits for what an earlier wait left running. */
void cmd_settle(struct gpu *gpu);

/* staging.c */
int staging_open(struct gpu *gpu, struct fault *f);
void staging_close(struct gpu *gpu);

/* timing.c */
int timing_open(struct gpu *gpu, struct fault *f);
void timing_close(struct gpu *gpu);
void timing_begin(struct gpu *gpu, VkCommandBuffer commands);
void timing_end(struct gpu *gpu, VkCommandBuffer commands);
uint64_t timing_now(void); /* monotonic nanoseconds */
/* Nanoseconds between the two timestamps, or `wall` where the device has none or cannot tell. */
VkResult timing_read(struct gpu *gpu, uint64_t wall, uint64_t *ret_nsec);
