/* The pipeline cache on disk: our header, then Vulkan's blob.
 *
 * Drivers are known to crash on blobs that are not theirs or are damaged, so nothing reaches them
 * before every field of the header and the checksum agree. A file that does not agree is as good as
 * none. */
#include "vk/gpu/gpu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/gpu/gpu-private.h"

#define CACHE_LIMIT (256u << 20) /* bytes; about 100 pipelines are well below 16 MiB */

/* Host byte order: the file never leaves the machine. No padding: 8 + 16 + 3 * 4 + 4 + 32 + 8 + 32.
 */
struct cache_header {
    char magic[8];
    uint8_t uuid[VK_UUID_SIZE];
    uint32_t vendor, device, driver_version;
    uint32_t version;
    uint8_t shaders[SHA256_SIZE];
    uint64_t payload_size;
    uint8_t checksum[SHA256_SIZE]; /* of the payload */
};
_Static_assert(sizeof(struct cache_header) == 112, "the header has no holes");

static void digest(const void *data, size_t size, uint8_t ret_digest[SHA256_SIZE])
{
    struct sha256 s;

    sha256_init(&s);
    sha256_feed(&s, data, size);
    sha256_finish(&s, ret_digest);
}

static struct cache_header make_header(const struct cache_key *key, const void *payload,
                                       size_t size)
{
    struct cache_header h = {
        .magic = "dfscache",
        .vendor = key->vendor,
        .device = key->device,
        .driver_version = key->driver_version,
        .version = 1,
        .payload_size = size,
    };
    memcpy(h.uuid, key->uuid, sizeof h.uuid);
    memcpy(h.shaders, key->shaders, sizeof h.shaders);
    digest(payload, size, h.checksum);
    return h;
}

bool cache_check(const void *file, size_t size, const struct cache_key *key,
                 const void **ret_payload, size_t *ret_payload_size)
{
    const char *payload = (const char *)file + sizeof(struct cache_header);

    if (size < sizeof(struct cache_header))
        return false;
    size_t payload_size = size - sizeof(struct cache_header);
    struct cache_header want = make_header(key, payload, payload_size);
    if (memcmp(file, &want, sizeof want) != 0)
        return false;
    *ret_payload = payload;
    *ret_payload_size = payload_size;
    return true;
}

void *cache_wrap(const struct cache_key *key, const void *payload, size_t payload_size,
                 size_t *ret_size)
{
    struct cache_header h = make_header(key, payload, payload_size);

    char *image = malloc(sizeof h + payload_size);
    if (!image)
        return NULL;
    memcpy(image, &h, sizeof h);
    if (payload_size > 0)
        memcpy(image + sizeof h, payload, payload_size);
    *ret_size = sizeof h + payload_size;
    return image;
}

/* <directory>/pipelines-<vendor>-<device>.bin: one file a board, so that two workers do not fight.
 */
static int set_path(struct gpu *gpu, const char *directory, struct fault *f)
{
    if (asprintf(&gpu->cache_path, "%s/pipelines-%04x-%04x.bin", directory, gpu->cache_key.vendor,
                 gpu->cache_key.device) >= 0)
        return 0;
    gpu->cache_path = NULL;
    return fault_set(f, -ENOMEM, "out of memory");
}

int cache_open(struct gpu *gpu, const char *directory, struct fault *f)
{
    _cleanup_(freep) char *file = NULL;
    const void *payload = NULL;
    size_t size = 0, payload_size = 0;

    kernel_hash(gpu->cache_key.shaders);
    int r = directory && *directory ? set_path(gpu, directory, f) : 0;
    if (r < 0)
        return r;
    if (gpu->cache_path && file_read(gpu->cache_path, CACHE_LIMIT, &file, &size, NULL) == 0)
        (void)cache_check(file, size, &gpu->cache_key, &payload, &payload_size); /* else: empty */
    VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
        .initialDataSize = payload_size,
        .pInitialData = payload,
    };
    VkResult result = VK(gpu, CreatePipelineCache)(gpu->device, &info, NULL, &gpu->pipeline_cache);
    if (result == VK_SUCCESS || payload_size == 0)
        return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkCreatePipelineCache");
    info.initialDataSize = 0; /* the driver does not like its own blob: start anew */
    result = VK(gpu, CreatePipelineCache)(gpu->device, &info, NULL, &gpu->pipeline_cache);
    return result == VK_SUCCESS ? 0 : vk_fault(f, result, "vkCreatePipelineCache");
}

void cache_save(struct gpu *gpu)
{
    _cleanup_(freep) void *blob = NULL;
    _cleanup_(freep) void *image = NULL;
    size_t size = 0, image_size = 0;

    if (!gpu->cache_path || !gpu->pipeline_cache || !gpu->unsaved || gpu->lost)
        return;
    if (VK(gpu, GetPipelineCacheData)(gpu->device, gpu->pipeline_cache, &size, NULL) !=
            VK_SUCCESS ||
        size == 0 || size > CACHE_LIMIT / 2)
        return;
    blob = malloc(size);
    if (!blob ||
        VK(gpu, GetPipelineCacheData)(gpu->device, gpu->pipeline_cache, &size, blob) != VK_SUCCESS)
        return;
    image = cache_wrap(&gpu->cache_key, blob, size, &image_size);
    /* A cache that cannot be written costs compile time at the next start, nothing else. */
    if (image && file_write_atomic(gpu->cache_path, image, image_size, NULL) == 0)
        gpu->unsaved = 0;
}

void cache_close(struct gpu *gpu)
{
    cache_save(gpu);
    if (gpu->pipeline_cache)
        VK(gpu, DestroyPipelineCache)(gpu->device, gpu->pipeline_cache, NULL);
    gpu->pipeline_cache = VK_NULL_HANDLE;
    free(gpu->cache_path);
    gpu->cache_path = NULL;
}
