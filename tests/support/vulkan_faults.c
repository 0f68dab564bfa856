#include "tests/support/vulkan_faults.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vulkan/vulkan.h>

#include "vk/base/array.h"

/* --- what can fail, and how it is declared ---------------------------------------------------- */

/* X(name, flags, parameters, arguments). LOST: may report a lost device, and does once it is. */
#define LOST 1u
#define FALLIBLE_CALLS(X)                                                                          \
    X(EnumerateInstanceVersion, 0, (uint32_t * v), (v))                                            \
    X(CreateInstance, 0,                                                                           \
      (const VkInstanceCreateInfo *i, const VkAllocationCallbacks *a, VkInstance *o), (i, a, o))   \
    X(EnumeratePhysicalDevices, 0, (VkInstance i, uint32_t * n, VkPhysicalDevice * p), (i, n, p))  \
    X(EnumerateDeviceExtensionProperties, 0,                                                       \
      (VkPhysicalDevice p, const char *l, uint32_t *n, VkExtensionProperties *e), (p, l, n, e))    \
    X(CreateDevice, LOST,                                                                          \
      (VkPhysicalDevice p, const VkDeviceCreateInfo *i, const VkAllocationCallbacks *a,            \
       VkDevice *o),                                                                               \
      (p, i, a, o))                                                                                \
    X(DeviceWaitIdle, LOST, (VkDevice d), (d))                                                     \
    X(QueueSubmit, LOST, (VkQueue q, uint32_t n, const VkSubmitInfo *s, VkFence f), (q, n, s, f))  \
    X(AllocateMemory, 0,                                                                           \
      (VkDevice d, const VkMemoryAllocateInfo *i, const VkAllocationCallbacks *a,                  \
       VkDeviceMemory *o),                                                                         \
      (d, i, a, o))                                                                                \
    X(MapMemory, 0,                                                                                \
      (VkDevice d, VkDeviceMemory m, VkDeviceSize f, VkDeviceSize s, VkMemoryMapFlags g,           \
       void **o),                                                                                  \
      (d, m, f, s, g, o))                                                                          \
    X(CreateBuffer, 0,                                                                             \
      (VkDevice d, const VkBufferCreateInfo *i, const VkAllocationCallbacks *a, VkBuffer *o),      \
      (d, i, a, o))                                                                                \
    X(BindBufferMemory, 0, (VkDevice d, VkBuffer b, VkDeviceMemory m, VkDeviceSize o),             \
      (d, b, m, o))                                                                                \
    X(CreateBufferView, 0,                                                                         \
      (VkDevice d, const VkBufferViewCreateInfo *i, const VkAllocationCallbacks *a,                \
       VkBufferView *o),                                                                           \
      (d, i, a, o))                                                                                \
    X(CreateFence, 0,                                                                              \
      (VkDevice d, const VkFenceCreateInfo *i, const VkAllocationCallbacks *a, VkFence *o),        \
      (d, i, a, o))                                                                                \
    X(ResetFences, 0, (VkDevice d, uint32_t n, const VkFence *f), (d, n, f))                       \
    X(WaitForFences, LOST, (VkDevice d, uint32_t n, const VkFence *f, VkBool32 w, uint64_t t),     \
      (d, n, f, w, t))                                                                             \
    X(CreateQueryPool, 0,                                                                          \
      (VkDevice d, const VkQueryPoolCreateInfo *i, const VkAllocationCallbacks *a,                 \
       VkQueryPool *o),                                                                            \
      (d, i, a, o))                                                                                \
    X(GetQueryPoolResults, LOST,                                                                   \
      (VkDevice d, VkQueryPool p, uint32_t f, uint32_t n, size_t s, void *o, VkDeviceSize t,       \
       VkQueryResultFlags g),                                                                      \
      (d, p, f, n, s, o, t, g))                                                                    \
    X(CreateShaderModule, 0,                                                                       \
      (VkDevice d, const VkShaderModuleCreateInfo *i, const VkAllocationCallbacks *a,              \
       VkShaderModule *o),                                                                         \
      (d, i, a, o))                                                                                \
    X(CreatePipelineCache, 0,                                                                      \
      (VkDevice d, const VkPipelineCacheCreateInfo *i, const VkAllocationCallbacks *a,             \
       VkPipelineCache *o),                                                                        \
      (d, i, a, o))                                                                                \
    X(GetPipelineCacheData, 0, (VkDevice d, VkPipelineCache c, size_t * n, void *o), (d, c, n, o)) \
    X(CreateComputePipelines, 0,                                                                   \
      (VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *i,            \
       const VkAllocationCallbacks *a, VkPipeline *o),                                             \
      (d, c, n, i, a, o))                                                                          \
    X(CreatePipelineLayout, 0,                                                                     \
      (VkDevice d, const VkPipelineLayoutCreateInfo *i, const VkAllocationCallbacks *a,            \
       VkPipelineLayout *o),                                                                       \
      (d, i, a, o))                                                                                \
    X(CreateDescriptorSetLayout, 0,                                                                \
      (VkDevice d, const VkDescriptorSetLayoutCreateInfo *i, const VkAllocationCallbacks *a,       \
       VkDescriptorSetLayout *o),                                                                  \
      (d, i, a, o))                                                                                \
    X(CreateDescriptorPool, 0,                                                                     \
      (VkDevice d, const VkDescriptorPoolCreateInfo *i, const VkAllocationCallbacks *a,            \
       VkDescriptorPool *o),                                                                       \
      (d, i, a, o))                                                                                \
    X(ResetDescriptorPool, 0, (VkDevice d, VkDescriptorPool p, VkDescriptorPoolResetFlags g),      \
      (d, p, g))                                                                                   \
    X(AllocateDescriptorSets, 0,                                                                   \
      (VkDevice d, const VkDescriptorSetAllocateInfo *i, VkDescriptorSet *o), (d, i, o))           \
    X(CreateCommandPool, 0,                                                                        \
      (VkDevice d, const VkCommandPoolCreateInfo *i, const VkAllocationCallbacks *a,               \
       VkCommandPool *o),                                                                          \
      (d, i, a, o))                                                                                \
    X(ResetCommandPool, 0, (VkDevice d, VkCommandPool p, VkCommandPoolResetFlags g), (d, p, g))    \
    X(AllocateCommandBuffers, 0,                                                                   \
      (VkDevice d, const VkCommandBufferAllocateInfo *i, VkCommandBuffer *o), (d, i, o))           \
    X(BeginCommandBuffer, 0, (VkCommandBuffer c, const VkCommandBufferBeginInfo *i), (c, i))       \
    X(EndCommandBuffer, 0, (VkCommandBuffer c), (c))

/* X(object, destroyer, parameters, arguments, the object's parameter, its maker). */
#define DESTROYERS(X)                                                                              \
    X(Instance, DestroyInstance, (VkInstance o, const VkAllocationCallbacks *a), (o, a))           \
    X(Device, DestroyDevice, (VkDevice o, const VkAllocationCallbacks *a), (o, a))                 \
    X(Memory, FreeMemory, (VkDevice d, VkDeviceMemory o, const VkAllocationCallbacks *a),          \
      (d, o, a))                                                                                   \
    X(Buffer, DestroyBuffer, (VkDevice d, VkBuffer o, const VkAllocationCallbacks *a), (d, o, a))  \
    X(BufferView, DestroyBufferView, (VkDevice d, VkBufferView o, const VkAllocationCallbacks *a), \
      (d, o, a))                                                                                   \
    X(Fence, DestroyFence, (VkDevice d, VkFence o, const VkAllocationCallbacks *a), (d, o, a))     \
    X(QueryPool, DestroyQueryPool, (VkDevice d, VkQueryPool o, const VkAllocationCallbacks *a),    \
      (d, o, a))                                                                                   \
    X(ShaderModule, DestroyShaderModule,                                                           \
      (VkDevice d, VkShaderModule o, const VkAllocationCallbacks *a), (d, o, a))                   \
    X(PipelineCache, DestroyPipelineCache,                                                         \
      (VkDevice d, VkPipelineCache o, const VkAllocationCallbacks *a), (d, o, a))                  \
    X(ComputePipelines, DestroyPipeline,                                                           \
      (VkDevice d, VkPipeline o, const VkAllocationCallbacks *a), (d, o, a))                       \
    X(PipelineLayout, DestroyPipelineLayout,                                                       \
      (VkDevice d, VkPipelineLayout o, const VkAllocationCallbacks *a), (d, o, a))                 \
    X(DescriptorSetLayout, DestroyDescriptorSetLayout,                                             \
      (VkDevice d, VkDescriptorSetLayout o, const VkAllocationCallbacks *a), (d, o, a))            \
    X(DescriptorPool, DestroyDescriptorPool,                                                       \
      (VkDevice d, VkDescriptorPool o, const VkAllocationCallbacks *a), (d, o, a))                 \
    X(CommandPool, DestroyCommandPool,                                                             \
      (VkDevice d, VkCommandPool o, const VkAllocationCallbacks *a), (d, o, a))

enum fallible {
#define ROW(name, flags, parameters, arguments) FALLIBLE_##name,
    FALLIBLE_CALLS(ROW)
#undef ROW
        FALLIBLE_COUNT,
};

enum kind {
#define ROW(kind, destroyer, parameters, arguments) KIND_##kind,
    DESTROYERS(ROW)
#undef ROW
        KIND_COUNT,
};

static const struct {
    const char *name;
    unsigned flags;
} rows[FALLIBLE_COUNT] = {
#define ROW(name, flags, parameters, arguments) {"vk" #name, flags},
    FALLIBLE_CALLS(ROW)
#undef ROW
};

static const char *const kinds[KIND_COUNT] = {
#define ROW(kind, destroyer, parameters, arguments) #kind,
    DESTROYERS(ROW)
#undef ROW
};

/* The kind that a maker makes, KIND_COUNT for what makes nothing. */
static enum kind kind_made(const char *maker)
{
    for (int i = 0; i < KIND_COUNT; i++) {
        const char *verb = i == KIND_Memory ? "vkAllocate" : "vkCreate";
        if (strncmp(maker, verb, strlen(verb)) == 0 && strcmp(maker + strlen(verb), kinds[i]) == 0)
            return (enum kind)i;
    }
    return KIND_COUNT;
}

/* --- the state: of a test program, not of the engine ------------------------------------------ */

#define LOG_MAX 65536u

static struct {
    PFN_vkGetInstanceProcAddr resolve;
    PFN_vkGetDeviceProcAddr resolve_device;
    /* the driver's functions; `next` is what a wrapper calls: those, or ours that keep one */
    PFN_vkVoidFunction driver[FALLIBLE_COUNT], next[FALLIBLE_COUNT], destroy[KIND_COUNT];
    VkDevice device;
    struct vulkan_fault_plan plan;
    uint64_t calls; /* that the plan looked at */
    uint8_t log[LOG_MAX];
    bool lost;
    const char *hit;
    _Atomic uint64_t *first_submit;
    atomic_int_fast64_t alive[KIND_COUNT];
} vulkan;

static const VkResult results[VULKAN_FAULT_COUNT] = {
    [VULKAN_OUT_OF_HOST_MEMORY] = VK_ERROR_OUT_OF_HOST_MEMORY,
    [VULKAN_OUT_OF_DEVICE_MEMORY] = VK_ERROR_OUT_OF_DEVICE_MEMORY,
    [VULKAN_DEVICE_LOST] = VK_ERROR_DEVICE_LOST,
};

/* A lost device has come to rest, and so has one that was waited for, whatever the wait says. */
static void rest(void)
{
    if (vulkan.device)
        (void)((PFN_vkDeviceWaitIdle)vulkan.driver[FALLIBLE_DeviceWaitIdle])(vulkan.device);
}

static void note_submit(void)
{
    uint64_t none = 0;
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    (void)atomic_compare_exchange_strong(vulkan.first_submit, &none,
                                         (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

/* VK_SUCCESS: let it through. */
static VkResult verdict(enum fallible call)
{
    const struct vulkan_fault_plan *plan = &vulkan.plan;

    if (call == FALLIBLE_QueueSubmit && vulkan.first_submit)
        note_submit();
    if (vulkan.lost && rows[call].flags & LOST)
        return VK_ERROR_DEVICE_LOST;
    if (plan->fault == VULKAN_DEVICE_LOST && !(rows[call].flags & LOST))
        return VK_SUCCESS;
    if (vulkan.calls < LOG_MAX)
        vulkan.log[vulkan.calls] = (uint8_t)call;
    vulkan.calls++;
    if (!plan->nth || (vulkan.calls != plan->nth && !(plan->sticky && vulkan.calls > plan->nth)))
        return VK_SUCCESS;
    if (!vulkan.hit)
        vulkan.hit = rows[call].name;
    vulkan.lost |= plan->fault == VULKAN_DEVICE_LOST;
    if (vulkan.lost || call == FALLIBLE_DeviceWaitIdle)
        rest();
    return results[plan->fault];
}

/* --- a device that outlives its engines ------------------------------------------------------- */

struct kept_pipeline {
    VkPipeline handle;
    uint64_t key; /* of code and constants */
};

struct code {
    VkShaderModule module;
    uint64_t hash;
};

static struct {
    bool on;
    VkInstance instance;
    VkDevice device;
    struct ARRAY(struct kept_pipeline) pipelines;
    struct ARRAY(struct code) codes; /* of every module made; the last of a handle counts */
} kept;

/* FNV-1a. */
static uint64_t hash_more(uint64_t h, const void *data, size_t size)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < size; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static void note_code(VkShaderModule module, const VkShaderModuleCreateInfo *info)
{
    struct code *c = array_push(&kept.codes);

    if (c)
        *c = (struct code){module, hash_more(0xcbf29ce484222325u, info->pCode, info->codeSize)};
}

static uint64_t key_of(const VkComputePipelineCreateInfo *info)
{
    const VkSpecializationInfo *spec = info->stage.pSpecializationInfo;
    uint64_t key = 0;

    for (size_t i = kept.codes.count; i > 0 && !key; i--)
        if (kept.codes.items[i - 1].module == info->stage.module)
            key = kept.codes.items[i - 1].hash;
    return spec ? hash_more(key, spec->pData, spec->dataSize) : key;
}

static VkPipeline find_pipeline(uint64_t key)
{
    for (size_t i = 0; i < kept.pipelines.count; i++)
        if (kept.pipelines.items[i].key == key)
            return kept.pipelines.items[i].handle;
    return VK_NULL_HANDLE;
}

#define DRIVER(name) ((PFN_vk##name)vulkan.driver[FALLIBLE_##name])

static VKAPI_ATTR VkResult VKAPI_CALL keep_CreateInstance(const VkInstanceCreateInfo *info,
                                                          const VkAllocationCallbacks *callbacks,
                                                          VkInstance *ret)
{
    VkResult result = VK_SUCCESS;

    if (kept.instance)
        *ret = kept.instance;
    else
        result = DRIVER(CreateInstance)(info, callbacks, ret);
    if (kept.on && result == VK_SUCCESS)
        kept.instance = *ret;
    return result;
}

static VKAPI_ATTR VkResult VKAPI_CALL keep_CreateDevice(VkPhysicalDevice physical,
                                                        const VkDeviceCreateInfo *info,
                                                        const VkAllocationCallbacks *callbacks,
                                                        VkDevice *ret)
{
    VkResult result = VK_SUCCESS;

    if (kept.device)
        *ret = kept.device;
    else
        result = DRIVER(CreateDevice)(physical, info, callbacks, ret);
    if (kept.on && result == VK_SUCCESS)
        kept.device = *ret;
    if (result == VK_SUCCESS)
        vulkan.device = *ret;
    return result;
}

static VKAPI_ATTR VkResult VKAPI_CALL
keep_CreateShaderModule(VkDevice device, const VkShaderModuleCreateInfo *info,
                        const VkAllocationCallbacks *callbacks, VkShaderModule *ret)
{
    VkResult result = DRIVER(CreateShaderModule)(device, info, callbacks, ret);

    if (result == VK_SUCCESS && kept.on)
        note_code(*ret, info);
    return result;
}

/* The engine makes them one by one. */
static VKAPI_ATTR VkResult VKAPI_CALL keep_CreateComputePipelines(
    VkDevice device, VkPipelineCache cache, uint32_t count, const VkComputePipelineCreateInfo *info,
    const VkAllocationCallbacks *callbacks, VkPipeline *ret)
{
    uint64_t key = key_of(info);
    VkResult result = VK_SUCCESS;

    *ret = kept.on ? find_pipeline(key) : VK_NULL_HANDLE;
    if (*ret)
        return VK_SUCCESS;
    result = DRIVER(CreateComputePipelines)(device, cache, count, info, callbacks, ret);
    struct kept_pipeline *p = kept.on && result == VK_SUCCESS ? array_push(&kept.pipelines) : NULL;
    if (p)
        *p = (struct kept_pipeline){*ret, key};
    return result;
}

static bool is_kept(enum kind kind)
{
    return kept.on &&
           (kind == KIND_Instance || kind == KIND_Device || kind == KIND_ComputePipelines);
}

void vulkan_faults_keep_device(bool keep)
{
    for (size_t i = 0; i < kept.pipelines.count; i++)
        ((PFN_vkDestroyPipeline)vulkan.destroy[KIND_ComputePipelines])(
            kept.device, kept.pipelines.items[i].handle, NULL);
    array_done(&kept.pipelines);
    array_done(&kept.codes);
    if (kept.device)
        ((PFN_vkDestroyDevice)vulkan.destroy[KIND_Device])(kept.device, NULL);
    if (kept.instance)
        ((PFN_vkDestroyInstance)vulkan.destroy[KIND_Instance])(kept.instance, NULL);
    kept.device = VK_NULL_HANDLE;
    kept.instance = VK_NULL_HANDLE;
    kept.on = keep;
}

/* --- wrappers --------------------------------------------------------------------------------- */

static VkResult account(enum fallible call, VkResult result)
{
    enum kind kind = kind_made(rows[call].name);

    if (result == VK_SUCCESS && kind < KIND_COUNT)
        atomic_fetch_add(&vulkan.alive[kind], 1);
    return result;
}

#define ROW(name, flags, parameters, arguments)                                                    \
    static VKAPI_ATTR VkResult VKAPI_CALL try_##name parameters                                    \
    {                                                                                              \
        VkResult result = verdict(FALLIBLE_##name);                                                \
        return result < 0 ? result                                                                 \
                          : account(FALLIBLE_##name,                                               \
                                    ((PFN_vk##name)vulkan.next[FALLIBLE_##name])arguments);        \
    }
FALLIBLE_CALLS(ROW)
#undef ROW

#define ROW(kind, destroyer, parameters, arguments)                                                \
    static VKAPI_ATTR void VKAPI_CALL end_##kind parameters                                        \
    {                                                                                              \
        if (o)                                                                                     \
            atomic_fetch_sub(&vulkan.alive[KIND_##kind], 1);                                       \
        if (KIND_##kind == KIND_Device)                                                            \
            vulkan.device = VK_NULL_HANDLE;                                                        \
        if (!is_kept(KIND_##kind))                                                                 \
            ((PFN_vk##destroyer)vulkan.destroy[KIND_##kind]) arguments;                            \
    }
DESTROYERS(ROW)
#undef ROW

static const PFN_vkVoidFunction wrappers[FALLIBLE_COUNT] = {
#define ROW(name, flags, parameters, arguments) (PFN_vkVoidFunction) try_##name,
    FALLIBLE_CALLS(ROW)
#undef ROW
};

static const struct {
    const char *name;
    PFN_vkVoidFunction wrapper;
} destroyers[KIND_COUNT] = {
#define ROW(kind, destroyer, parameters, arguments)                                                \
    {"vk" #destroyer, (PFN_vkVoidFunction)end_##kind},
    DESTROYERS(ROW)
#undef ROW
};

/* Puts ours in front of the driver's function. */
static PFN_vkVoidFunction wrap(const char *name, PFN_vkVoidFunction real)
{
    static const PFN_vkVoidFunction keepers[FALLIBLE_COUNT] = {
        [FALLIBLE_CreateInstance] = (PFN_vkVoidFunction)keep_CreateInstance,
        [FALLIBLE_CreateDevice] = (PFN_vkVoidFunction)keep_CreateDevice,
        [FALLIBLE_CreateShaderModule] = (PFN_vkVoidFunction)keep_CreateShaderModule,
        [FALLIBLE_CreateComputePipelines] = (PFN_vkVoidFunction)keep_CreateComputePipelines,
    };

    for (int i = 0; real && i < FALLIBLE_COUNT; i++) {
        if (strcmp(name, rows[i].name) != 0)
            continue;
        vulkan.driver[i] = real;
        vulkan.next[i] = keepers[i] ? keepers[i] : real;
        return wrappers[i];
    }
    for (int i = 0; real && i < KIND_COUNT; i++) {
        if (strcmp(name, destroyers[i].name) != 0)
            continue;
        vulkan.destroy[i] = real;
        return destroyers[i].wrapper;
    }
    return real;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL resolve_device(VkDevice device, const char *name)
{
    return wrap(name, vulkan.resolve_device(device, name));
}

/* In the place of the loader's: the only symbol of Vulkan that the engine links to. */
VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance,
                                                               const char *name)
{
    if (!vulkan.resolve) {
        void *library = dlopen("libvulkan.so.1", RTLD_NOW); /* stays open: as a linked one would */
        void *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
        if (!symbol) {
            (void)fprintf(stderr, "vulkan_faults: %s\n", dlerror());
            abort();
        }
        memcpy(&vulkan.resolve, &symbol, sizeof symbol);
    }
    PFN_vkVoidFunction real = vulkan.resolve(instance, name);
    if (real && strcmp(name, "vkGetDeviceProcAddr") == 0) {
        vulkan.resolve_device = (PFN_vkGetDeviceProcAddr)real;
        return (PFN_vkVoidFunction)resolve_device;
    }
    return wrap(name, real);
}

/* --- for the test ----------------------------------------------------------------------------- */

void vulkan_faults_arm(const struct vulkan_fault_plan *plan)
{
    vulkan.plan = *plan;
    vulkan.calls = 0;
    vulkan.lost = false;
    vulkan.hit = NULL;
}

void vulkan_faults_disarm(void)
{
    vulkan_faults_arm(&(struct vulkan_fault_plan){0});
}

void vulkan_faults_watch_submit(_Atomic uint64_t *first_nsec)
{
    vulkan.first_submit = first_nsec;
}

uint64_t vulkan_faults_calls(void)
{
    return vulkan.calls;
}

const char *vulkan_faults_name(uint64_t nth)
{
    return nth > 0 && nth <= vulkan.calls && nth <= LOG_MAX ? rows[vulkan.log[nth - 1]].name : "";
}

const char *vulkan_faults_hit(void)
{
    return vulkan.hit;
}

const char *vulkan_fault_to_string(enum vulkan_fault fault)
{
    static const char *const names[VULKAN_FAULT_COUNT] = {
        [VULKAN_OUT_OF_HOST_MEMORY] = "out of host memory",
        [VULKAN_OUT_OF_DEVICE_MEMORY] = "out of device memory",
        [VULKAN_DEVICE_LOST] = "device lost",
    };

    return names[fault];
}

int64_t vulkan_faults_alive(const char **ret_kind)
{
    int64_t sum = 0;

    *ret_kind = NULL;
    for (int i = KIND_COUNT - 1; i >= 0; i--) {
        int64_t n = atomic_load(&vulkan.alive[i]);
        sum += n > 0 ? n : -n;
        if (n)
            *ret_kind = kinds[i];
    }
    return sum;
}
