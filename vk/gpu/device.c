/* Devices: what Vulkan lists, joined with what libdrm knows, then one of them opened.
 *
 * gpu_open() is a row of steps over a half-built struct gpu; gpu_close() takes down whatever
 * stands. */
#include "vk/gpu/gpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <xf86drm.h>

#include "vk/gpu/gpu-private.h"

#define DRM_MAX_DEVICES 64
#define MAX_EXTENSIONS  1024u
#define MAX_PHYSICAL    64u
#define MAX_FAMILIES    32u
#define UNKNOWN_LIMIT                                                                              \
    (1ull << 30) /* maxMemoryAllocationSize is at least this, by the specification */

/* --- what there is ---------------------------------------------------------------------------- */

static int instance_open(struct gpu *gpu, struct fault *f)
{
    uint32_t version = VK_API_VERSION_1_0;

    int r = vk_load_global(&gpu->vk, f);
    if (r < 0)
        return r;
    VkResult result = VK(gpu, EnumerateInstanceVersion)(&version);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkEnumerateInstanceVersion");
    if (version < VK_API_VERSION_1_1)
        return fault_set(f, -ENODEV, "the Vulkan loader is older than 1.1");
    const VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "diffused",
        .apiVersion = VK_API_VERSION_1_1,
    };
    const VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &application,
    };
    result = VK(gpu, CreateInstance)(&info, NULL, &gpu->instance);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        return fault_set(f, -ENODEV,
                         "no Vulkan driver; install one for the GPU, or the software "
                         "driver (package mesa-vulkan-drivers)");
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkCreateInstance");
    return vk_load_instance(&gpu->vk, gpu->instance, f);
}

static int list_extensions(struct gpu *gpu, VkPhysicalDevice physical,
                           VkExtensionProperties **ret_list, uint32_t *ret_count, struct fault *f)
{
    uint32_t count = 0;

    VkResult result = VK(gpu, EnumerateDeviceExtensionProperties)(physical, NULL, &count, NULL);
    if (result < 0)
        return vk_fault(f, result, "vkEnumerateDeviceExtensionProperties");
    if (count > MAX_EXTENSIONS)
        count = MAX_EXTENSIONS;
    _cleanup_(freep) VkExtensionProperties *list = calloc(count + 1, sizeof *list);
    if (!list)
        return fault_set(f, -ENOMEM, "out of memory");
    result = VK(gpu, EnumerateDeviceExtensionProperties)(physical, NULL, &count, list);
    if (result < 0)
        return vk_fault(f, result, "vkEnumerateDeviceExtensionProperties");
    *ret_list = TAKE_PTR(list);
    *ret_count = count;
    return 0;
}

static int has_extension(struct gpu *gpu, VkPhysicalDevice physical, const char *name,
                         struct fault *f)
{
    _cleanup_(freep) VkExtensionProperties *list = NULL;
    uint32_t count = 0;

    int r = list_extensions(gpu, physical, &list, &count, f);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(list[i].extensionName, name) == 0)
            return 1;
    return 0;
}

static enum gpu_type type_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return GPU_TYPE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return GPU_TYPE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return GPU_TYPE_CPU;
    default:
        return GPU_TYPE_VIRTUAL;
    }
}

/* The compute family to use: one with timestamps if there is one. MAX_FAMILIES when there is none.
 */
static uint32_t find_family(struct gpu *gpu, VkPhysicalDevice physical,
                            uint32_t *ret_timestamp_bits)
{
    VkQueueFamilyProperties families[MAX_FAMILIES];
    uint32_t count = MAX_FAMILIES;
    uint32_t best = MAX_FAMILIES;

    VK(gpu, GetPhysicalDeviceQueueFamilyProperties)(physical, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0)
            continue;
        if (best == MAX_FAMILIES ||
            (!families[best].timestampValidBits && families[i].timestampValidBits))
            best = i;
    }
    if (best < MAX_FAMILIES)
        *ret_timestamp_bits = families[best].timestampValidBits;
    return best;
}

static uint64_t largest_heap(const VkPhysicalDeviceMemoryProperties *memory)
{
    uint64_t largest = 0;

    for (uint32_t i = 0; i < memory->memoryHeapCount; i++)
        if ((memory->memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) &&
            memory->memoryHeaps[i].size > largest)
            largest = memory->memoryHeaps[i].size;
    return largest;
}

struct drm_boards {
    drmDevicePtr devices[DRM_MAX_DEVICES];
    int count;
};

static void drm_boards_done(struct drm_boards *list)
{
    if (list->count > 0)
        drmFreeDevices(list->devices, list->count);
}

static bool is_device(const char *path, int64_t major_number, int64_t minor_number)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISCHR(st.st_mode) &&
           (int64_t)major(st.st_rdev) == major_number && (int64_t)minor(st.st_rdev) == minor_number;
}

static void take_drm(struct gpu_facts *facts, const drmDevice *device)
{
    if (device->available_nodes & 1 << DRM_NODE_RENDER)
        (void)snprintf(facts->node, sizeof facts->node, "%s", device->nodes[DRM_NODE_RENDER]);
    if (device->bustype == DRM_BUS_PCI)
        (void)snprintf(facts->pci, sizeof facts->pci, "%04x:%02x:%02x.%x",
                       device->businfo.pci->domain, device->businfo.pci->bus,
                       device->businfo.pci->dev, device->businfo.pci->func);
}

static void join_by_node(struct gpu_facts *facts, const struct drm_boards *list,
                         const VkPhysicalDeviceDrmPropertiesEXT *drm)
{
    for (int i = 0; i < list->count; i++)
        if (list->devices[i]->available_nodes & 1 << DRM_NODE_RENDER &&
            is_device(list->devices[i]->nodes[DRM_NODE_RENDER], drm->renderMajor, drm->renderMinor))
            take_drm(facts, list->devices[i]);
}

static void join_by_pci(struct gpu_facts *facts, const struct drm_boards *list,
                        const VkPhysicalDevicePCIBusInfoPropertiesEXT *pci)
{
    (void)snprintf(facts->pci, sizeof facts->pci, "%04x:%02x:%02x.%x", pci->pciDomain & 0xffff,
                   pci->pciBus & 0xff, pci->pciDevice & 0xff, pci->pciFunction & 0xf);
    for (int i = 0; i < list->count; i++) {
        const drmDevice *d = list->devices[i];
        if (d->bustype == DRM_BUS_PCI && d->businfo.pci->domain == pci->pciDomain &&
            d->businfo.pci->bus == pci->pciBus && d->businfo.pci->dev == pci->pciDevice &&
            d->businfo.pci->func == pci->pciFunction)
            take_drm(facts, d);
    }
}

/* Properties that need an extension each: asked for only where it is there. */
static int read_extended(struct gpu *gpu, VkPhysicalDevice physical, const struct drm_boards *list,
                         struct gpu_facts *facts, struct fault *f)
{
    VkPhysicalDeviceDriverPropertiesKHR driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES_KHR};
    VkPhysicalDeviceDrmPropertiesEXT drm = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRM_PROPERTIES_EXT};
    VkPhysicalDevicePCIBusInfoPropertiesEXT pci = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT};
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    const struct {
        const char *extension;
        VkBaseOutStructure *properties;
    } rows[] = {
        {VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME, (VkBaseOutStructure *)&driver},
        {VK_EXT_PHYSICAL_DEVICE_DRM_EXTENSION_NAME, (VkBaseOutStructure *)&drm},
        {VK_EXT_PCI_BUS_INFO_EXTENSION_NAME, (VkBaseOutStructure *)&pci},
    };
    int has[ARRAY_SIZE(rows)];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        has[i] = has_extension(gpu, physical, rows[i].extension, f);
        if (has[i] < 0)
            return has[i];
        if (!has[i])
            continue;
        rows[i].properties->pNext = all.pNext;
        all.pNext = rows[i].properties;
    }
    VK(gpu, GetPhysicalDeviceProperties2)(physical, &all);
    if (has[0])
        (void)snprintf(facts->driver, sizeof facts->driver, "%.60s %.60s", driver.driverName,
                       driver.driverInfo);
    if (has[1] && drm.hasRender)
        join_by_node(facts, list, &drm);
    else if (has[2])
        join_by_pci(facts, list, &pci);
    return 0;
}

static int read_facts(struct gpu *gpu, VkPhysicalDevice physical, const struct drm_boards *list,
                      struct gpu_facts *ret_facts, struct fault *f)
{
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    VkPhysicalDeviceProperties properties;
    uint32_t timestamp_bits;

    VK(gpu, GetPhysicalDeviceProperties)(physical, &properties);
    VK(gpu, GetPhysicalDeviceMemoryProperties2)(physical, &memory);
    *ret_facts = (struct gpu_facts){
        .type = type_of(properties.deviceType),
        .memory = largest_heap(&memory.memoryProperties),
        .api_version = properties.apiVersion,
        .usable = properties.apiVersion >= VK_API_VERSION_1_1 &&
                  find_family(gpu, physical, &timestamp_bits) < MAX_FAMILIES,
    };
    (void)snprintf(ret_facts->name, sizeof ret_facts->name, "%.127s", properties.deviceName);
    (void)snprintf(ret_facts->driver, sizeof ret_facts->driver, "version 0x%08x",
                   properties.driverVersion);
    return properties.apiVersion >= VK_API_VERSION_1_1
               ? read_extended(gpu, physical, list, ret_facts, f)
               : 0;
}

/* Both lists are parallel. At most MAX_PHYSICAL devices. */
static int list_devices(struct gpu *gpu, VkPhysicalDevice *ret_physical,
                        struct gpu_facts **ret_facts, size_t *ret_count, struct fault *f)
{
    _cleanup_(drm_boards_done) struct drm_boards list = {0};
    uint32_t count = MAX_PHYSICAL;

    VkResult result = VK(gpu, EnumeratePhysicalDevices)(gpu->instance, &count, ret_physical);
    if (result < 0)
        return vk_fault(f, result, "vkEnumeratePhysicalDevices");
    _cleanup_(freep) struct gpu_facts *facts = calloc(count + 1, sizeof *facts);
    if (!facts)
        return fault_set(f, -ENOMEM, "out of memory");
    /* No DRM at all (a container, a CPU device) is no error: nodes stay unknown. */
    list.count = drmGetDevices2(0, list.devices, DRM_MAX_DEVICES);
    for (uint32_t i = 0; i < count; i++) {
        int r = read_facts(gpu, ret_physical[i], &list, &facts[i], f);
        if (r < 0)
            return r;
    }
    *ret_facts = TAKE_PTR(facts);
    *ret_count = count;
    return 0;
}

int gpu_list(struct gpu_facts **ret_facts, size_t *ret_count, struct fault *f)
{
    _cleanup_(gpu_closep) struct gpu *gpu = calloc(1, sizeof *gpu);
    VkPhysicalDevice physical[MAX_PHYSICAL];

    if (!gpu)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = instance_open(gpu, f);
    if (r < 0)
        return r;
    return list_devices(gpu, physical, ret_facts, ret_count, f);
}

/* --- opening one ------------------------------------------------------------------------------ */

static int pick(struct gpu *gpu, const struct gpu_options *options, struct fault *f)
{
    VkPhysicalDevice physical[MAX_PHYSICAL];
    _cleanup_(freep) struct gpu_facts *facts = NULL;
    size_t count, index;

    int r = list_devices(gpu, physical, &facts, &count, f);
    if (r < 0)
        return r;
    r = gpu_choose(facts, count, options->device, options->allow_cpu, &index, f);
    if (r < 0)
        return r;
    gpu->facts = facts[index];
    gpu->physical = physical[index];
    gpu->family = find_family(gpu, gpu->physical, &gpu->timestamp_bits);
    return 0;
}

/* Optional features: switched on where they are there, for the tiers above T0. */
struct features {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDevice16BitStorageFeatures storage;
    VkPhysicalDeviceShaderFloat16Int8FeaturesKHR arithmetic;
};

static void read_features(struct gpu *gpu, bool has_float16, struct features *ret)
{
    *ret = (struct features){
        .core = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2},
        .storage = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES},
        .arithmetic = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES_KHR},
    };
    ret->core.pNext = &ret->storage;
    ret->storage.pNext = has_float16 ? &ret->arithmetic : NULL;
    VK(gpu, GetPhysicalDeviceFeatures2)(gpu->physical, &ret->core);
    const char *robust = getenv("DIFFUSED_ROBUST");
    bool wants_robust = robust && strcmp(robust, "1") == 0;
    ret->core.features = (VkPhysicalDeviceFeatures){
        .robustBufferAccess = wants_robust && ret->core.features.robustBufferAccess,
    };
    ret->storage = (VkPhysicalDevice16BitStorageFeatures){
        .sType = ret->storage.sType,
        .pNext = ret->storage.pNext,
        .storageBuffer16BitAccess = ret->storage.storageBuffer16BitAccess,
    };
    ret->arithmetic.shaderInt8 = VK_FALSE;
}

static bool texels_usable(struct gpu *gpu)
{
    VkFormatProperties format;

    VK(gpu, GetPhysicalDeviceFormatProperties)(gpu->physical, VK_FORMAT_R32G32B32A32_UINT, &format);
    return format.bufferFeatures & VK_FORMAT_FEATURE_UNIFORM_TEXEL_BUFFER_BIT;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void read_caps(struct gpu *gpu, const struct features *features)
{
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceMaintenance3Properties maintenance = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = &subgroup};
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                       .pNext = &maintenance};

    VK(gpu, GetPhysicalDeviceProperties2)(gpu->physical, &all);
    const VkPhysicalDeviceLimits *limits = &all.properties.limits;
    uint64_t allocation =
        maintenance.maxMemoryAllocationSize ? maintenance.maxMemoryAllocationSize : UNKNOWN_LIMIT;
    uint64_t alignment = limits->minStorageBufferOffsetAlignment;
    if (limits->minTexelBufferOffsetAlignment > alignment)
        alignment = limits->minTexelBufferOffsetAlignment;
    gpu->caps = (struct caps){
        .is_cpu = gpu->facts.type == GPU_TYPE_CPU,
        .tier = features->arithmetic.shaderFloat16 ? GPU_TIER_T1 : GPU_TIER_T0,
        .shader_float16 = features->arithmetic.shaderFloat16,
        .storage_16bit = features->storage.storageBuffer16BitAccess,
        .subgroup_size = subgroup.subgroupSize,
        .max_invocations = limits->maxComputeWorkGroupInvocations,
        .max_shared = limits->maxComputeSharedMemorySize,
        .max_push = limits->maxPushConstantsSize,
        .max_binding = limits->maxStorageBufferRange,
        .max_texels = texels_usable(gpu) ? limits->maxTexelBufferElements : 0,
        .max_allocation = smaller(allocation, gpu->facts.memory),
        .max_buffer = allocation, /* a buffer has one allocation */
        .offset_alignment = (uint32_t)alignment,
    };
    memcpy(gpu->caps.max_groups, limits->maxComputeWorkGroupCount, sizeof gpu->caps.max_groups);
    gpu->timestamp_period = (double)limits->timestampPeriod;
    gpu->cache_key.vendor = all.properties.vendorID;
    gpu->cache_key.device = all.properties.deviceID;
    gpu->cache_key.driver_version = all.properties.driverVersion;
    memcpy(gpu->cache_key.uuid, all.properties.pipelineCacheUUID, VK_UUID_SIZE);
}

static int check_limits(struct gpu *gpu, struct fault *f)
{
    VkPhysicalDeviceProperties properties;

    VK(gpu, GetPhysicalDeviceProperties)(gpu->physical, &properties);
    uint32_t stage = properties.limits.maxPerStageDescriptorStorageBuffers;
    uint32_t set = properties.limits.maxDescriptorSetStorageBuffers;
    if (stage < GPU_STORAGE_SLOTS || set < GPU_STORAGE_SLOTS)
        return fault_set(f, -ENODEV, "%.60s: %u storage buffers a shader, %u are needed",
                         gpu->facts.name, stage < set ? stage : set, GPU_STORAGE_SLOTS);
    if (gpu->caps.max_push < GPU_PUSH_BYTES || gpu->caps.offset_alignment > GPU_OFFSET_ALIGNMENT)
        return fault_set(f, -ENODEV, "%.60s: limits below what Vulkan 1.1 promises",
                         gpu->facts.name);
    return 0;
}

static int device_create(struct gpu *gpu, struct fault *f)
{
    const float priority = 1.0f;
    const char *extensions[2];
    uint32_t extension_count = 0;
    struct features features;

    int has_float16 =
        has_extension(gpu, gpu->physical, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME, f);
    if (has_float16 < 0)
        return has_float16;
    int has_budget = has_extension(gpu, gpu->physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, f);
    if (has_budget < 0)
        return has_budget;
    gpu->has_budget = has_budget;
    if (has_float16)
        extensions[extension_count++] = VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME;
    if (gpu->has_budget)
        extensions[extension_count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    read_features(gpu, has_float16, &features);
    read_caps(gpu, &features);
    int r = check_limits(gpu, f);
    if (r < 0)
        return r;
    const VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = gpu->family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    const VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features.core,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = extension_count,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult result = VK(gpu, CreateDevice)(gpu->physical, &info, NULL, &gpu->device);
    if (result != VK_SUCCESS)
        return fault_prefix(f, vk_fault(f, result, "vkCreateDevice"), "%.60s", gpu->facts.name);
    return 0;
}

/* Software drivers compile kernels to machine code. Where the system forbids memory that can be
 * written and run, they die of it without a word. */
static int check_jit(const struct gpu *gpu, struct fault *f)
{
    if (gpu->facts.type != GPU_TYPE_CPU)
        return 0;
    void *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return fault_set(f, -ENODEV,
                         "%.60s: software rendering needs memory that can be written and run: "
                         "MemoryDenyWriteExecute=no (package diffused-software)",
                         gpu->facts.name);
    (void)munmap(page, 4096); /* cannot fail */
    return 0;
}

static int device_open(struct gpu *gpu, struct fault *f)
{
    VkPhysicalDeviceMemoryProperties2 memory = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};

    int r = check_jit(gpu, f);
    if (r < 0 || (r = device_create(gpu, f)) < 0)
        return r;
    r = vk_load_device(&gpu->vk, gpu->device, f);
    if (r < 0) { /* nothing can be called on it, so it cannot be destroyed either */
        gpu->device = VK_NULL_HANDLE;
        return r;
    }
    VK(gpu, GetDeviceQueue)(gpu->device, gpu->family, 0, &gpu->queue);
    VK(gpu, GetPhysicalDeviceMemoryProperties2)(gpu->physical, &memory);
    gpu->memory = memory.memoryProperties;
    return 0;
}

int gpu_open(const struct gpu_options *options, struct gpu **ret_gpu, struct fault *f)
{
    static int (*const steps[])(struct gpu *, struct fault *) = {
        device_open, kernel_open, cmd_open, timing_open, staging_open,
    };
    _cleanup_(gpu_closep) struct gpu *gpu = calloc(1, sizeof *gpu);

    if (!gpu)
        return fault_set(f, -ENOMEM, "out of memory");
    gpu->on_kernel = options->on_kernel;
    gpu->userdata = options->userdata;
    int r = instance_open(gpu, f);
    if (r < 0)
        return r;
    r = pick(gpu, options, f);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        r = steps[i](gpu, f);
        if (r < 0)
            return r;
    }
    r = cache_open(gpu, options->cache, f);
    if (r < 0)
        return r;
    *ret_gpu = TAKE_PTR(gpu);
    return 0;
}

struct gpu *gpu_close(struct gpu *gpu)
{
    if (!gpu)
        return NULL;
    if (gpu->device) {
        cmd_settle(gpu);
        cache_close(gpu);
        staging_close(gpu);
        timing_close(gpu);
        cmd_close(gpu);
        kernel_close(gpu);
        VK(gpu, DestroyDevice)(gpu->device, NULL);
    }
    if (gpu->instance && gpu->vk.DestroyInstance)
        VK(gpu, DestroyInstance)(gpu->instance, NULL);
    free(gpu);
    return NULL;
}

const struct gpu_facts *gpu_get_facts(const struct gpu *gpu)
{
    return &gpu->facts;
}

const struct caps *gpu_get_caps(const struct gpu *gpu)
{
    return &gpu->caps;
}

/* What the instruction set of a CPU device depends on: the first line of flags. */
static void feed_processor(struct sha256 *s)
{
    _cleanup_(fclosep) FILE *file = fopen("/proc/cpuinfo", "re");
    _cleanup_(freep) char *line = NULL;
    size_t size = 0;

    while (file && getline(&line, &size, file) > 0) {
        if (strncmp(line, "flags", 5) != 0 && strncmp(line, "Features", 8) != 0)
            continue;
        sha256_feed(s, line, strlen(line));
        return;
    }
}

void gpu_identity(const struct gpu *gpu, uint8_t ret_digest[SHA256_SIZE])
{
    struct sha256 s;

    sha256_init(&s);
    sha256_feed(&s, &gpu->cache_key, sizeof gpu->cache_key); /* no holes: 16 + 3 * 4 + 32 bytes */
    sha256_feed(&s, gpu->facts.name, strlen(gpu->facts.name) + 1);
    sha256_feed(&s, gpu->facts.driver, strlen(gpu->facts.driver) + 1);
    if (gpu->facts.type == GPU_TYPE_CPU)
        feed_processor(&s);
    sha256_finish(&s, ret_digest);
}

void gpu_narrow_caps(struct gpu *gpu, const struct caps *caps)
{
    gpu->caps = *caps;
}
