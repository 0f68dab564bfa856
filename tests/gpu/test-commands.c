/* Recorded commands: replay, order, texel views, limits, and a device that is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/device.h"
#include "vk/gpu/gpu-private.h"
#include "vk/shaders/abi/select_row.h"

static struct gpu_buffer *cells; /* counters, each in 256 bytes of its own */

static int setup(void **state)
{
    struct fault f = {0};

    int r = open_gpu(state);
    if (r == 0)
        r = gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, 4096, &cells, &f);
    return r;
}

static int teardown(void **state)
{
    cells = gpu_buffer_free(cells);
    return close_gpu(state);
}

static int clear_cells(void **state)
{
    (void)state;
    return gpu_clear(gpu, cells, 0, 4096, NULL);
}

static uint32_t cell(uint32_t index)
{
    struct fault f = {0};
    uint32_t value = 0;

    must(gpu_download(gpu, cells, 256 * index, &value, sizeof value, &f), &f);
    return value;
}

static struct gpu_kernel *kernel_of(const char *name, const uint32_t *spec, uint32_t count)
{
    struct gpu_kernel *kernel = NULL;
    struct fault f = {0};

    must(gpu_kernel_get(gpu, name, spec, count, &kernel, &f), &f);
    return kernel;
}

/* cells[index]++ */
static int add_advance(struct gpu_commands *c, uint32_t index, struct fault *f)
{
    const struct gpu_binding binding = {
        .slot = 7, .buffer = cells, .offset = 256 * index, .size = 4};
    const struct gpu_launch launch = {.kernel = kernel_of("advance.ssbo", NULL, 0),
                                      .bindings = &binding,
                                      .binding_count = 1,
                                      .groups = {1, 1, 1}};
    return gpu_commands_launch(c, &launch, f);
}

/* `count` increments of cell 0 with a barrier before each, cut after every `cut`. */
static struct gpu_commands *record(uint32_t count, uint32_t cut)
{
    struct gpu_commands *c = NULL;
    struct fault f = {0};

    must(gpu_commands_new(gpu, count, &c, &f), &f);
    for (uint32_t i = 0; i < count; i++) {
        if (cut && i && i % cut == 0)
            must(gpu_commands_cut(c, &f), &f);
        else if (i)
            gpu_commands_barrier(c);
        must(add_advance(c, 0, &f), &f);
    }
    must(gpu_commands_end(c, &f), &f);
    return c;
}

static void run(struct gpu_commands *c)
{
    struct fault f = {0};

    for (uint32_t i = 0; i < gpu_commands_chunks(c); i++)
        must(gpu_submit(gpu, c, i, &f), &f);
}

static void replays(void **state)
{
    struct gpu_commands *c = record(100, 7);

    (void)state;
    assert_int_equal(gpu_commands_chunks(c), 15);
    for (uint32_t i = 1; i <= 5; i++) {
        uint64_t progress = gpu_progress(gpu);
        run(c);
        assert_int_equal(gpu_progress(gpu), progress + 15);
        assert_true(gpu_last_nsec(gpu) > 0);
        assert_int_equal(cell(0), 100 * i);
    }
    gpu_commands_free(c);
    gpu_commands_free(NULL);
}

/* Nothing but the submission happens when recorded work is run. */
static void replays_for_nothing(void **state)
{
    static const enum gpu_call none[] = {
        GPU_CALL_ALLOCATE_MEMORY,  GPU_CALL_BEGIN_COMMAND_BUFFER, GPU_CALL_UPDATE_DESCRIPTOR_SETS,
        GPU_CALL_CREATE_PIPELINES, GPU_CALL_CMD_DISPATCH,         GPU_CALL_CMD_BARRIER,
    };
    uint64_t before[GPU_CALL_COUNT];

    (void)state;
    struct gpu_commands *c = record(10, 5);
    for (int i = 0; i < GPU_CALL_COUNT; i++)
        before[i] = gpu_call_count(gpu, (enum gpu_call)i);
    assert_true(before[GPU_CALL_CMD_DISPATCH] >= 10);
    run(c);
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        assert_int_equal(gpu_call_count(gpu, none[i]), before[none[i]]);
    assert_int_equal(gpu_call_count(gpu, GPU_CALL_QUEUE_SUBMIT), before[GPU_CALL_QUEUE_SUBMIT] + 2);
    gpu_commands_free(c);
}

/* A row of a table through a texel view with a base, beside storage buffers; other slots stay
 * open. */
static void reads_texels(void **state)
{
    const uint32_t lanes = 4, push[SELECT_ROW_PUSH_COUNT] = {16, 0, 0, 0, 1};
    const uint32_t row[4] = {11, 12, 13, 14}, step = 1;
    const struct gpu_binding bindings[] = {
        {.slot = 0, .texel = true, .buffer = cells, .offset = 0, .size = 4096},
        {.slot = 4, .buffer = cells, .offset = 512, .size = 4},
        {.slot = 7, .buffer = cells, .offset = 1024, .size = 16},
    };
    const struct gpu_launch launch = {.kernel = kernel_of("select_row.texel", &lanes, 1),
                                      .bindings = bindings,
                                      .binding_count = 3,
                                      .push = push,
                                      .push_count = SELECT_ROW_PUSH_COUNT,
                                      .groups = {1, 1, 1}};
    struct gpu_commands *c = NULL;
    struct fault f = {0};
    uint32_t found[4];

    (void)state;
    must(gpu_upload(gpu, cells, (16 + 1) * 16, row, sizeof row, &f), &f); /* texel 16 + step */
    must(gpu_upload(gpu, cells, 512, &step, sizeof step, &f), &f);
    must(gpu_commands_new(gpu, 2, &c, &f), &f);
    must(gpu_commands_launch(c, &launch, &f), &f);
    gpu_commands_barrier(c);
    must(gpu_commands_launch(c, &launch, &f), &f);
    must(gpu_commands_end(c, &f), &f);
    run(c);
    must(gpu_download(gpu, cells, 1024, found, sizeof found, &f), &f);
    assert_memory_equal(found, row, sizeof row);
    gpu_commands_free(c);
}

static void caches_kernels(void **state)
{
    const uint32_t one[] = {4}, two[] = {8};
    struct gpu_kernel *kernel = NULL;
    struct fault f = {0};

    (void)state;
    struct gpu_kernel *a = kernel_of("select_row.ssbo", one, 1);
    uint64_t made = gpu_call_count(gpu, GPU_CALL_CREATE_PIPELINES);
    assert_ptr_equal(a, kernel_of("select_row.ssbo", one, 1));
    assert_int_equal(gpu_call_count(gpu, GPU_CALL_CREATE_PIPELINES), made);
    assert_ptr_not_equal(a, kernel_of("select_row.ssbo", two, 1));
    assert_ptr_not_equal(a, kernel_of("select_row.texel", one, 1));
    assert_int_equal(gpu_kernel_get(gpu, "select_row", one, 1, &kernel, &f), -ENOENT);
    assert_string_equal(f.text, "no kernel \"select_row\"");
}

static void refuses_bad_launches(void **state)
{
    const struct caps wide = *gpu_get_caps(gpu);
    struct caps narrow = wide;
    const struct {
        struct gpu_binding binding;
        uint32_t groups, push_count;
        int err;
    } rows[] = {
        {{.slot = 7, .buffer = cells, .size = 4}, 1, 0, 0},
        {{.slot = 8, .buffer = cells, .size = 4}, 1, 0, -EINVAL},
        {{.slot = 4, .texel = true, .buffer = cells, .size = 16}, 1, 0, -EINVAL},
        {{.slot = 7, .buffer = cells, .size = 0}, 1, 0, -EINVAL},
        {{.slot = 7, .buffer = cells, .offset = 1, .size = 4}, 1, 0, -EINVAL},
        {{.slot = 7, .buffer = cells, .offset = 256, .size = 4096}, 1, 0, -EINVAL},
        {{.slot = 7, .buffer = cells, .offset = 8192, .size = 4}, 1, 0, -EINVAL},
        {{.slot = 7, .buffer = cells, .size = 2049}, 1, 0, -EFBIG},
        {{.slot = 0, .texel = true, .buffer = cells, .size = 1040}, 1, 0, -EFBIG},
        {{.slot = 7, .buffer = cells, .size = 4}, 101, 0, -EFBIG},
        {{.slot = 7, .buffer = cells, .size = 4}, 0, 0, -EFBIG},
        {{.slot = 7, .buffer = cells, .size = 4}, 1, 33, -EINVAL},
    };
    const uint32_t push[33] = {0};
    struct gpu_commands *c = NULL;
    struct fault f = {0};

    (void)state;
    narrow.max_binding = 2048;
    narrow.max_texels = 64;
    narrow.max_groups[0] = 100;
    gpu_narrow_caps(gpu, &narrow);
    must(gpu_commands_new(gpu, 16, &c, &f), &f);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct gpu_launch launch = {.kernel = kernel_of("advance.ssbo", NULL, 0),
                                          .bindings = &rows[i].binding,
                                          .binding_count = 1,
                                          .push = push,
                                          .push_count = rows[i].push_count,
                                          .groups = {rows[i].groups, 1, 1}};
        if (gpu_commands_launch(c, &launch, &f) != rows[i].err)
            fail_msg("row %zu: %s", i, f.text);
    }
    gpu_narrow_caps(gpu, &wide);
    assert_int_equal(gpu_submit(gpu, c, 0, &f), -EINVAL); /* not ended */
    gpu_commands_free(c);
}

static void keeps_the_announced_number(void **state)
{
    struct gpu_commands *c = record(3, 0);
    struct fault f = {0};

    (void)state;
    assert_int_equal(add_advance(c, 0, &f), -EINVAL); /* ended */
    assert_int_equal(gpu_submit(gpu, c, 1, &f), -EINVAL);
    gpu_commands_free(c);
    must(gpu_commands_new(gpu, 1, &c, &f), &f);
    must(add_advance(c, 0, &f), &f);
    assert_int_equal(add_advance(c, 1, &f), -EINVAL);
    gpu_commands_free(c);
}

/* --- faults of the device --------------------------------------------------------------------- */

static PFN_vkWaitForFences wait_for_fences;
static unsigned waits;
static uint64_t longest;

static VKAPI_ATTR VkResult VKAPI_CALL slow(VkDevice device, uint32_t count, const VkFence *fences,
                                           VkBool32 all, uint64_t nsec)
{
    longest = nsec > longest ? nsec : longest;
    return ++waits < 4 ? VK_TIMEOUT : wait_for_fences(device, count, fences, all, nsec);
}

/* Waiting goes in slices, so that a watchdog can tell slow from dead. */
static void waits_in_slices(void **state)
{
    struct gpu_commands *c = record(2, 0);

    (void)state;
    wait_for_fences = gpu->vk.WaitForFences;
    gpu->vk.WaitForFences = slow;
    run(c);
    gpu->vk.WaitForFences = wait_for_fences;
    assert_int_equal(waits, 4);
    assert_true(longest <= 500000000);
    assert_int_equal(cell(0), 2);
    gpu_commands_free(c);
}

static VKAPI_ATTR VkResult VKAPI_CALL lost(VkQueue queue, uint32_t count, const VkSubmitInfo *info,
                                           VkFence fence)
{
    (void)queue;
    (void)count;
    (void)info;
    (void)fence;
    return VK_ERROR_DEVICE_LOST;
}

/* After a loss everything that needs the device says so at once, and closing still works. */
static void remembers_loss(void **state)
{
    struct gpu_commands *c = record(2, 0);
    struct fault f = {0};
    uint32_t value;

    (void)state;
    PFN_vkQueueSubmit submit = gpu->vk.QueueSubmit;
    gpu->vk.QueueSubmit = lost;
    assert_int_equal(gpu_submit(gpu, c, 0, &f), -EIO);
    assert_string_equal(f.text, "vkQueueSubmit: VK_ERROR_DEVICE_LOST");
    gpu->vk.QueueSubmit = submit;
    uint64_t submitted = gpu_call_count(gpu, GPU_CALL_QUEUE_SUBMIT);
    assert_int_equal(gpu_submit(gpu, c, 0, &f), -EIO);
    assert_string_equal(f.text, "the device is lost");
    assert_int_equal(gpu_download(gpu, cells, 0, &value, 4, &f), -EIO);
    assert_int_equal(gpu_upload(gpu, cells, 0, &value, 4, &f), -EIO);
    assert_int_equal(gpu_call_count(gpu, GPU_CALL_QUEUE_SUBMIT), submitted);
    gpu_commands_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(replays, clear_cells),
        cmocka_unit_test_setup(replays_for_nothing, clear_cells),
        cmocka_unit_test_setup(reads_texels, clear_cells),
        cmocka_unit_test(caches_kernels),
        cmocka_unit_test(refuses_bad_launches),
        cmocka_unit_test(keeps_the_announced_number),
        cmocka_unit_test_setup(waits_in_slices, clear_cells),
        cmocka_unit_test(remembers_loss), /* last: the device stays lost */
    };
    return cmocka_run_group_tests_name("commands", tests, setup, teardown);
}
