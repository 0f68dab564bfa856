/* The validation layers are awake: a missing barrier, made on purpose, is reported; the same
 * program with the barrier prints nothing. The work is done by this program run again with an
 * argument. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vk/gpu/gpu.h"

static void check(int r, const struct fault *f)
{
    if (r >= 0)
        return;
    (void)fprintf(stderr, "%s\n", f->text);
    exit(1);
}

/* One launch adds one to a word, the next reads it. (Two that write it are missed by layers
 * 1.3.239.) */
static int run(bool with_barrier)
{
    struct gpu_options options = {.allow_cpu = 1};
    struct gpu *gpu = NULL;
    struct gpu_buffer *word = NULL;
    struct gpu_commands *commands = NULL;
    struct gpu_kernel *advance = NULL, *select = NULL;
    struct fault f = {0};
    const uint32_t push[8] = {0, 0, 0, 0, 1};
    uint32_t value = 0;

    check(gpu_open(&options, &gpu, &f), &f);
    check(gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, 1024, &word, &f), &f);
    check(gpu_clear(gpu, word, 0, 1024, &f), &f);
    check(gpu_kernel_get(gpu, "advance.ssbo", NULL, 0, &advance, &f), &f);
    check(gpu_kernel_get(gpu, "select_row.ssbo", NULL, 0, &select, &f), &f);
    check(gpu_commands_new(gpu, 2, &commands, &f), &f);
    struct gpu_binding step = {.slot = 7, .buffer = word, .size = 256};
    struct gpu_binding row[3] = {{.slot = 0, .buffer = word, .offset = 256, .size = 256},
                                 {.slot = 4, .buffer = word, .size = 256},
                                 {.slot = 7, .buffer = word, .offset = 512, .size = 256}};
    check(gpu_commands_launch(commands,
                              &(struct gpu_launch){.kernel = advance,
                                                   .bindings = &step,
                                                   .binding_count = 1,
                                                   .push = push,
                                                   .push_count = 8,
                                                   .groups = {1, 1, 1}},
                              &f),
          &f);
    if (with_barrier)
        gpu_commands_barrier(commands);
    check(gpu_commands_launch(commands,
                              &(struct gpu_launch){.kernel = select,
                                                   .bindings = row,
                                                   .binding_count = 3,
                                                   .push = push,
                                                   .push_count = 8,
                                                   .groups = {1, 1, 1}},
                              &f),
          &f);
    check(gpu_commands_end(commands, &f), &f);
    check(gpu_submit(gpu, commands, 0, &f), &f);
    check(gpu_download(gpu, word, 0, &value, 4, &f), &f);
    (void)printf("value %u\n", value);
    gpu_commands_free(commands);
    gpu_buffer_free(word);
    gpu_close(gpu);
    return 0;
}

/* What the program says under the layers. */
static void listen(const char *argument, char *ret, size_t size)
{
    char self[512], command[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    assert_true(n > 0);
    self[n] = '\0';
    (void)snprintf(command, sizeof command,
                   "ASAN_OPTIONS=detect_leaks=0 VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation "
                   "VK_LAYER_ENABLES="
                   "VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT '%s' %s 2>&1",
                   self, argument);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t got = fread(ret, 1, size - 1, p);
    ret[got] = '\0';
    assert_int_equal(pclose(p), 0);
}

static bool is_reported(const char *text)
{
    return strstr(text, "SYNC-HAZARD") || strstr(text, "VUID");
}

static void test_barrier_is_silent(void **state)
{
    char text[16384];

    (void)state;
    listen("with-barrier", text, sizeof text);
    assert_non_null(strstr(text, "value 1"));
    if (is_reported(text))
        fail_msg("%s", text);
}

static void test_missing_barrier_is_reported(void **state)
{
    char text[16384];

    (void)state;
    listen("without-barrier", text, sizeof text);
    assert_true(is_reported(text));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_barrier_is_silent),
        cmocka_unit_test(test_missing_barrier_is_reported),
    };

    if (argc > 1)
        return run(strcmp(argv[1], "with-barrier") == 0);
    return cmocka_run_group_tests_name("validation", tests, NULL, NULL);
}
