/* The pipeline cache file: every damage is noticed before the driver sees a byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/device.h"
#include "vk/base/file.h"
#include "vk/gpu/gpu-private.h"

static const struct cache_key key = {
    .uuid = {1, 2, 3}, .vendor = 0x1002, .device = 0x73bf, .driver_version = 7, .shaders = {9, 8}};

static bool accepts(const void *file, size_t size, const struct cache_key *k)
{
    const void *payload;
    size_t payload_size;

    return cache_check(file, size, k, &payload, &payload_size);
}

static void accepts_its_own(void **state)
{
    static const size_t sizes[] = {0, 1, 1000};
    char blob[1000];

    (void)state;
    memset(blob, 0x5a, sizeof blob);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        const void *payload = NULL;
        size_t size, payload_size = 1;
        char *image = cache_wrap(&key, blob, sizes[i], &size);
        assert_true(cache_check(image, size, &key, &payload, &payload_size));
        assert_int_equal(payload_size, sizes[i]);
        assert_memory_equal(payload, blob, sizes[i]);
        free(image);
    }
}

/* Any byte changed, any byte missing, any byte more. */
static void refuses_damage(void **state)
{
    char blob[40] = "what a driver wrote";
    size_t size;
    char *image = cache_wrap(&key, blob, sizeof blob, &size);

    (void)state;
    for (size_t i = 0; i < size; i++) {
        image[i] ^= 0x10;
        if (accepts(image, size, &key))
            fail_msg("byte %zu was changed and the file taken", i);
        image[i] ^= 0x10;
        if (accepts(image, i, &key))
            fail_msg("a file cut at %zu was taken", i);
    }
    char *longer = calloc(1, size + 1);
    memcpy(longer, image, size);
    assert_false(accepts(longer, size + 1, &key));
    assert_true(accepts(image, size, &key));
    free(longer);
    free(image);
}

static void refuses_strangers(void **state)
{
    struct cache_key others[5];
    size_t size;
    char *image = cache_wrap(&key, "blob", 4, &size);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        others[i] = key;
    others[0].uuid[VK_UUID_SIZE - 1] ^= 1;
    others[1].vendor ^= 1;
    others[2].device ^= 1;
    others[3].driver_version ^= 1;
    others[4].shaders[SHA256_SIZE - 1] ^= 1;
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        assert_false(accepts(image, size, &others[i]));
    free(image);
}

/* --- on disk ---------------------------------------------------------------------------------- */

static size_t seen_size; /* what the driver was given */
static PFN_vkCreatePipelineCache create_cache;

static VKAPI_ATTR VkResult VKAPI_CALL spy(VkDevice device, const VkPipelineCacheCreateInfo *info,
                                          const VkAllocationCallbacks *callbacks,
                                          VkPipelineCache *cache)
{
    seen_size = info->initialDataSize;
    return create_cache(device, info, callbacks, cache);
}

/* Closes the cache of the open gpu and opens it from `directory`; returns what the driver was
 * given. */
static size_t reopen(const char *directory)
{
    struct fault f = {0};

    cache_close(gpu);
    seen_size = 12345;
    must(cache_open(gpu, directory, &f), &f);
    return seen_size;
}

static void damage(const char *path, size_t keep, size_t flip)
{
    struct fault f = {0};
    char *data;
    size_t size;

    must(file_read(path, 1 << 30, &data, &size, &f), &f);
    if (flip < size)
        data[flip] ^= 1;
    must(file_write_atomic(path, data, keep < size ? keep : size, &f), &f);
    free(data);
}

static void survives_on_disk(void **state)
{
    char directory[] = "/tmp/test-cache-XXXXXX", path[256];
    struct gpu_kernel *kernel;
    struct fault f = {0};

    (void)state;
    assert_non_null(mkdtemp(directory));
    create_cache = gpu->vk.CreatePipelineCache;
    gpu->vk.CreatePipelineCache = spy;
    assert_int_equal(reopen(directory), 0); /* no file yet */
    (void)snprintf(path, sizeof path, "%s", gpu->cache_path);
    must(gpu_kernel_get(gpu, "advance.ssbo", NULL, 0, &kernel, &f), &f);
    size_t whole = reopen(directory); /* closing wrote it */
    assert_true(whole > 0);
    assert_int_equal(reopen(directory), whole); /* nothing new: still there */
    damage(path, SIZE_MAX, 112 + whole / 2);
    assert_int_equal(reopen(directory), 0);
    gpu->unsaved = 1; /* a damaged file is replaced by the next write */
    cache_save(gpu);
    assert_true(reopen(directory) > 0);
    damage(path, 60, SIZE_MAX);
    assert_int_equal(reopen(directory), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0755), 0); /* no file at all */
    assert_int_equal(reopen(directory), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(reopen("/nonexistent/folder"), 0); /* cannot be written: no error either */
    gpu->unsaved = 1;
    assert_int_equal(reopen(NULL), 0);
    gpu->vk.CreatePipelineCache = create_cache;
    assert_int_equal(rmdir(directory), 0); /* and no temporary file is left */
}

static VKAPI_ATTR VkResult VKAPI_CALL picky(VkDevice device, const VkPipelineCacheCreateInfo *info,
                                            const VkAllocationCallbacks *callbacks,
                                            VkPipelineCache *cache)
{
    if (info->initialDataSize > 0)
        return VK_ERROR_INITIALIZATION_FAILED;
    return create_cache(device, info, callbacks, cache);
}

/* A blob with a right header that the driver itself refuses. */
static void survives_a_picky_driver(void **state)
{
    char directory[] = "/tmp/test-cache-XXXXXX";
    struct fault f = {0};
    size_t size;

    (void)state;
    assert_non_null(mkdtemp(directory));
    (void)reopen(directory);
    char *image = cache_wrap(&gpu->cache_key, "not Vulkan's", 12, &size);
    must(file_write_atomic(gpu->cache_path, image, size, &f), &f);
    free(image);
    create_cache = gpu->vk.CreatePipelineCache;
    gpu->vk.CreatePipelineCache = picky;
    (void)reopen(directory);
    gpu->vk.CreatePipelineCache = create_cache;
    assert_non_null(gpu->pipeline_cache);
    assert_int_equal(unlink(gpu->cache_path), 0);
    (void)reopen(NULL);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_its_own),         cmocka_unit_test(refuses_damage),
        cmocka_unit_test(refuses_strangers),       cmocka_unit_test(survives_on_disk),
        cmocka_unit_test(survives_a_picky_driver),
    };
    return cmocka_run_group_tests_name("cache", tests, open_gpu, close_gpu);
}
