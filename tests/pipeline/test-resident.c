/* What an engine may ask for: of the machine at its first job and at the second. The second touches
 * no file, makes no Vulkan object and allocates no device memory; strict owners refuse at open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/folder.h"
#include "tests/support/vulkan_faults.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/engine.h"

#define MODEL "tests/golden/models/two"

static void draw(struct engine *e)
{
    static const struct engine_observer observer = {0};
    struct engine_info info;
    char prompt[] = "a fox";
    struct fault f = {0};

    engine_get_info(e, &info);
    const struct request q = {.prompt = prompt,
                              .width = info.context.width,
                              .height = info.context.height,
                              .steps = 3,
                              .guidance_scale = 3,
                              .seed = 9,
                              .count = 2,
                              .scheduler = SCHEDULER_PNDM};
    if (engine_run(e, &q, NULL, &observer, NULL, &f) < 0)
        fail_msg("%s", f.text);
}

/* --- the second job --------------------------------------------------------------------------- */

/* Read and write calls of this process, as the kernel counts them. */
static void count_files(unsigned long long *ret_reads, unsigned long long *ret_writes)
{
    FILE *file = fopen("/proc/self/io", "re");
    char line[128];

    *ret_reads = *ret_writes = 0;
    while (file && fgets(line, sizeof line, file)) {
        (void)sscanf(line, "syscr: %llu", ret_reads);
        (void)sscanf(line, "syscw: %llu", ret_writes);
    }
    fclosep(&file);
}

/* Calls that use what is there. */
static bool makes_nothing(const char *call)
{
    static const char *const calls[] = {"vkQueueSubmit",         "vkWaitForFences",
                                        "vkResetFences",         "vkResetCommandPool",
                                        "vkBeginCommandBuffer",  "vkEndCommandBuffer",
                                        "vkGetQueryPoolResults", "vkResetDescriptorPool"};

    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        if (strcmp(call, calls[i]) == 0)
            return true;
    return false;
}

static void second_job_needs_nothing(void **state)
{
    const struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};
    unsigned long long reads[3], writes[3];
    struct engine *e = NULL;
    struct fault f = {0};
    const char *kind;

    (void)state;
    if (engine_open(MODEL, &options, &e, &f) < 0)
        fail_msg("%s", f.text);
    draw(e);
    int64_t alive = vulkan_faults_alive(&kind);
    vulkan_faults_disarm();
    count_files(&reads[0], &writes[0]);
    count_files(&reads[1], &writes[1]); /* what counting costs */
    draw(e);
    count_files(&reads[2], &writes[2]);
    assert_true(reads[0] > 0);
    assert_int_equal(reads[2] - reads[1], reads[1] - reads[0]);
    assert_int_equal(writes[2] - writes[1], writes[1] - writes[0]);
    assert_true(vulkan_faults_calls() > 0);
    for (uint64_t i = 1; i <= vulkan_faults_calls(); i++)
        if (!makes_nothing(vulkan_faults_name(i)))
            fail_msg("the second job calls %s", vulkan_faults_name(i));
    assert_int_equal(vulkan_faults_alive(&kind), alive);
    engine_close(e);
}

/* --- owners ----------------------------------------------------------------------------------- */

static const char *const parts[] = {"text_encoder", "vae", "tokenizer", "scheduler",
                                    "unet/config.json"};

/* A copy by links, but for the U-Net's weights. */
static void copy_model(const char *folder, char ret_weights[PATH_MAX])
{
    char root[PATH_MAX], from[PATH_MAX * 2], to[PATH_MAX];
    char *data = NULL;
    size_t size;

    assert_non_null(realpath(MODEL, root));
    (void)snprintf(to, sizeof to, "%s/unet", folder);
    assert_int_equal(mkdir(to, 0755), 0);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        (void)snprintf(from, sizeof from, "%s/%s", root, parts[i]);
        (void)snprintf(to, sizeof to, "%s/%s", folder, parts[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    (void)snprintf(from, sizeof from, "%s/unet/diffusion_pytorch_model.safetensors", root);
    (void)snprintf(ret_weights, PATH_MAX, "%s/unet/diffusion_pytorch_model.safetensors", folder);
    assert_int_equal(file_read(from, 1 << 26, &data, &size, NULL), 0);
    assert_int_equal(file_write_atomic(ret_weights, data, size, NULL), 0);
    free(data);
}

static void keep_warning(const char *text, void *userdata)
{
    (void)snprintf(userdata, 256, "%s", text);
}

static void owners_are_checked(void **state)
{
    static const char want[] = "unet/diffusion_pytorch_model.safetensors: its group may write it";
    char weights[PATH_MAX], warning[256] = "";
    struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES,
                                     .on_warning = keep_warning,
                                     .userdata = warning,
                                     .strict_owner = true};
    struct engine *e = NULL;
    struct fault f = {0};

    copy_model(*state, weights);
    assert_int_equal(chmod(weights, 0664), 0);
    assert_int_equal(engine_open(*state, &options, &e, &f), -EPERM);
    assert_memory_equal(f.text, want, strlen(want));
    assert_string_equal(warning, "");
    options.strict_owner = false;
    if (engine_open(*state, &options, &e, &f) < 0)
        fail_msg("%s", f.text);
    assert_memory_equal(warning, want, strlen(want));
    engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_job_needs_nothing),
        cmocka_unit_test_setup_teardown(owners_are_checked, folder_setup, folder_teardown),
    };

    return cmocka_run_group_tests_name("resident", tests, NULL, NULL);
}
