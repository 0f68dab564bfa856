/* How long a chunk took: two timestamps around it, the wall clock where a queue has none. */
#include "vk/gpu/gpu.h"

#include <time.h>

#include "vk/gpu/gpu-private.h"

int timing_open(struct gpu *gpu, struct fault *f)
{
    const VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = 2,
    };

    if (!gpu->timestamp_bits)
        return 0;
    VkResult result = VK(gpu, CreateQueryPool)(gpu->device, &info, NULL, &gpu->queries);
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkCreateQueryPool");
}

void timing_close(struct gpu *gpu)
{
    if (gpu->queries)
        VK(gpu, DestroyQueryPool)(gpu->device, gpu->queries, NULL);
}

void timing_begin(struct gpu *gpu, VkCommandBuffer commands)
{
    if (!gpu->queries)
        return;
    VK(gpu, CmdResetQueryPool)(commands, gpu->queries, 0, 2);
    VK(gpu, CmdWriteTimestamp)(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, gpu->queries, 0);
}

void timing_end(struct gpu *gpu, VkCommandBuffer commands)
{
    if (gpu->queries)
        VK(gpu, CmdWriteTimestamp)(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, gpu->queries, 1);
}

uint64_t timing_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

VkResult timing_read(struct gpu *gpu, uint64_t wall, uint64_t *ret_nsec)
{
    uint64_t ticks[2];

    *ret_nsec = wall;
    if (!gpu->queries)
        return VK_SUCCESS;
    VkResult result = VK(gpu, GetQueryPoolResults)(gpu->device, gpu->queries, 0, 2, sizeof ticks,
                                                   ticks, sizeof ticks[0], VK_QUERY_RESULT_64_BIT);
    if (result != VK_SUCCESS)
        return result;
    uint64_t mask = gpu->timestamp_bits >= 64 ? UINT64_MAX : (1ull << gpu->timestamp_bits) - 1;
    uint64_t nsec = (uint64_t)((double)((ticks[1] - ticks[0]) & mask) * gpu->timestamp_period);
    /* A clock that says nothing, or more than the wall's, is not one to believe. */
    if (nsec > 0 && nsec <= wall)
        *ret_nsec = nsec;
    return VK_SUCCESS;
}

uint64_t gpu_last_nsec(const struct gpu *gpu)
{
    return gpu->last_nsec;
}
