/* Kernels: the SPIR-V binaries of the build, and pipelines made of them on demand.
 *
 * One descriptor set layout serves every kernel: bindings 0…7 are storage buffers, 8…11 texel views
 * of the operands in slots 0…3; 128 bytes of push constants. */
#include "vk/gpu/gpu.h"

#include <errno.h>
#include <string.h>

#include "vk/gpu/gpu-private.h"

#define KERNEL_MAX_SPEC 64u

/* The build writes kernels.inc: KERNEL("name", words…), one row a binary. */
static const struct binary {
    const char *name;
    const uint32_t *words;
    size_t size; /* bytes */
} binaries[] = {
#define KERNEL(name, ...)                                                                          \
    {name, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__})},
#include "kernels.inc"
#undef KERNEL
    {NULL, NULL, 0},
};

void kernel_hash(uint8_t ret_digest[SHA256_SIZE])
{
    struct sha256 s;

    sha256_init(&s);
    for (size_t i = 0; binaries[i].name; i++) {
        sha256_feed(&s, binaries[i].name, strlen(binaries[i].name) + 1);
        sha256_feed(&s, binaries[i].words, binaries[i].size);
    }
    sha256_finish(&s, ret_digest);
}

static int make_set_layout(struct gpu *gpu, struct fault *f)
{
    VkDescriptorSetLayoutBinding bindings[GPU_STORAGE_SLOTS + GPU_TEXEL_SLOTS];

    for (uint32_t i = 0; i < ARRAY_SIZE(bindings); i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = i < GPU_STORAGE_SLOTS ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
                                                    : VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    const VkDescriptorSetLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = ARRAY_SIZE(bindings),
        .pBindings = bindings,
    };
    VkResult result =
        VK(gpu, CreateDescriptorSetLayout)(gpu->device, &info, NULL, &gpu->set_layout);
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkCreateDescriptorSetLayout");
}

int kernel_open(struct gpu *gpu, struct fault *f)
{
    const VkPushConstantRange push = {
        .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        .size = GPU_PUSH_BYTES,
    };

    int r = make_set_layout(gpu, f);
    if (r < 0)
        return r;
    const VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &gpu->set_layout,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    VkResult result =
        VK(gpu, CreatePipelineLayout)(gpu->device, &info, NULL, &gpu->pipeline_layout);
    if (result != VK_SUCCESS)
        return vk_fault(f, result, "vkCreatePipelineLayout");
    gpu->modules = calloc(ARRAY_SIZE(binaries), sizeof gpu->modules[0]);
    return gpu->modules ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

static void kernel_free(struct gpu *gpu, struct gpu_kernel *kernel)
{
    if (kernel->pipeline)
        VK(gpu, DestroyPipeline)(gpu->device, kernel->pipeline, NULL);
    free(kernel->spec);
    free(kernel);
}

void kernel_close(struct gpu *gpu)
{
    for (size_t i = 0; i < gpu->kernels.count; i++)
        kernel_free(gpu, gpu->kernels.items[i]);
    array_done(&gpu->kernels);
    for (size_t i = 0; gpu->modules && binaries[i].name; i++)
        if (gpu->modules[i])
            VK(gpu, DestroyShaderModule)(gpu->device, gpu->modules[i], NULL);
    free(gpu->modules);
    if (gpu->pipeline_layout)
        VK(gpu, DestroyPipelineLayout)(gpu->device, gpu->pipeline_layout, NULL);
    if (gpu->set_layout)
        VK(gpu, DestroyDescriptorSetLayout)(gpu->device, gpu->set_layout, NULL);
}

static int get_module(struct gpu *gpu, size_t index, VkShaderModule *ret_module, struct fault *f)
{
    const VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = binaries[index].size,
        .pCode = binaries[index].words,
    };

    if (!gpu->modules[index]) {
        VkResult result =
            VK(gpu, CreateShaderModule)(gpu->device, &info, NULL, &gpu->modules[index]);
        if (result != VK_SUCCESS)
            return vk_fault(f, result, "vkCreateShaderModule");
    }
    *ret_module = gpu->modules[index];
    return 0;
}

static int make_pipeline(struct gpu *gpu, VkShaderModule module, const uint32_t *spec,
                         uint32_t spec_count, VkPipeline *ret_pipeline, struct fault *f)
{
    VkSpecializationMapEntry entries[KERNEL_MAX_SPEC];

    for (uint32_t i = 0; i < spec_count; i++)
        entries[i] = (VkSpecializationMapEntry){i, i * 4, 4};
    const VkSpecializationInfo specialization = {
        .mapEntryCount = spec_count,
        .pMapEntries = entries,
        .dataSize = spec_count * 4,
        .pData = spec,
    };
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = module,
                .pName = "main",
                .pSpecializationInfo = &specialization,
            },
        .layout = gpu->pipeline_layout,
    };
    VkResult result = VK(gpu, CreateComputePipelines)(gpu->device, gpu->pipeline_cache, 1, &info,
                                                      NULL, ret_pipeline);
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkCreateComputePipelines");
}

static int make_kernel(struct gpu *gpu, size_t index, const uint32_t *spec, uint32_t spec_count,
                       struct gpu_kernel *kernel, struct fault *f)
{
    VkShaderModule module = VK_NULL_HANDLE;

    kernel->name = binaries[index].name;
    kernel->spec_count = spec_count;
    kernel->spec = calloc(spec_count + 1, sizeof kernel->spec[0]);
    if (!kernel->spec)
        return fault_set(f, -ENOMEM, "out of memory");
    if (spec_count > 0)
        memcpy(kernel->spec, spec, spec_count * sizeof spec[0]);
    int r = get_module(gpu, index, &module, f);
    return r < 0 ? r : make_pipeline(gpu, module, spec, spec_count, &kernel->pipeline, f);
}

/* A new kernel in gpu->kernels, or nothing. */
static int add_kernel(struct gpu *gpu, size_t index, const uint32_t *spec, uint32_t spec_count,
                      struct gpu_kernel **ret_kernel, struct fault *f)
{
    struct gpu_kernel *kernel = calloc(1, sizeof *kernel);

    if (!kernel)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = make_kernel(gpu, index, spec, spec_count, kernel, f);
    struct gpu_kernel **place = r < 0 ? NULL : array_push(&gpu->kernels);
    if (r >= 0 && !place)
        r = fault_set(f, -ENOMEM, "out of memory");
    if (r < 0) {
        kernel_free(gpu, kernel);
        return fault_prefix(f, r, "%s", binaries[index].name);
    }
    *place = kernel;
    gpu->unsaved++;
    atomic_fetch_add(&gpu->progress, 1);
    if (gpu->on_kernel)
        gpu->on_kernel(gpu->userdata);
    *ret_kernel = kernel;
    return 0;
}

int gpu_kernel_get(struct gpu *gpu, const char *name, const uint32_t *spec, uint32_t spec_count,
                   struct gpu_kernel **ret_kernel, struct fault *f)
{
    for (size_t i = 0; i < gpu->kernels.count; i++) {
        struct gpu_kernel *k = gpu->kernels.items[i];
        if (k->spec_count != spec_count || strcmp(k->name, name) != 0 ||
            (spec_count > 0 && memcmp(k->spec, spec, spec_count * sizeof spec[0]) != 0))
            continue;
        *ret_kernel = k;
        return 0;
    }
    if (spec_count > KERNEL_MAX_SPEC)
        return fault_set(f, -EINVAL, "%s: %u specialization constants", name, spec_count);
    for (size_t i = 0; binaries[i].name; i++)
        if (strcmp(binaries[i].name, name) == 0)
            return add_kernel(gpu, i, spec, spec_count, ret_kernel, f);
    return fault_set(f, -ENOENT, "no kernel \"%s\"", name);
}
