/* What an owner reads when a model directory is not as it should be: every fault names file and
 * place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vk/base/file.h"
#include "vk/engine.h"

#define SOUND "tests/golden/models/mid-only"

static char directory[PATH_MAX]; /* the copy being damaged */

static int copy_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    char to[PATH_MAX * 2];
    char *data = NULL;
    size_t size = 0;

    (void)st;
    (void)walk;
    (void)snprintf(to, sizeof to, "%s%s", directory, path + strlen(SOUND));
    if (type == FTW_D)
        return mkdir(to, 0755) < 0 && errno != EEXIST;
    if (file_read(path, 64u << 20, &data, &size, NULL) < 0)
        return 1;
    int r = file_write_atomic(to, data, size, NULL);
    free(data);
    return r < 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

static int make_copy(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/diffused-bad-model-XXXXXX");
    return !mkdtemp(directory) || nftw(SOUND, copy_entry, 16, FTW_PHYS) != 0;
}

static int remove_copy(void **state)
{
    (void)state;
    return nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const char *in_copy(const char *file)
{
    static char path[PATH_MAX * 2];

    (void)snprintf(path, sizeof path, "%s/%s", directory, file);
    return path;
}

static void replace(const char *file, const char *from, const char *to)
{
    char *data = NULL, *out = NULL;
    size_t size = 0;

    assert_int_equal(file_read(in_copy(file), 1u << 20, &data, &size, NULL), 0);
    char *at = strstr(data, from);
    assert_non_null(at);
    assert_true(asprintf(&out, "%.*s%s%s", (int)(at - data), data, to, at + strlen(from)) > 0);
    assert_int_equal(file_write_atomic(in_copy(file), out, strlen(out), NULL), 0);
    free(out);
    free(data);
}

/* Opens the copy and wants the fault to hold every one of the texts. */
static void want(const char *first, const char *second)
{
    struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};
    struct engine *engine = NULL;
    struct fault f = {0};

    assert_true(engine_open(directory, &options, &engine, &f) < 0);
    assert_null(engine);
    if (!strstr(f.text, first) || !strstr(f.text, second))
        fail_msg("got: %s", f.text);
    (void)printf("  %s\n", f.text);
}

static void test_missing_directory(void **state)
{
    struct request_context c;
    struct fault f = {0};

    (void)state;
    assert_true(engine_read_context("/nonexistent/model", &c, &f) < 0);
    assert_non_null(strstr(f.text, "/nonexistent/model"));
}

static void test_missing_config(void **state)
{
    (void)state;
    assert_int_equal(unlink(in_copy("vae/config.json")), 0);
    want("vae/config.json", "No such file");
}

static void test_config_is_no_json(void **state)
{
    (void)state;
    replace("unet/config.json", "{", "[{");
    want("unet/config.json", "");
}

static void test_config_does_not_fit_weights(void **state)
{
    (void)state;
    replace("unet/config.json", "\"layers_per_block\": 2", "\"layers_per_block\": 3");
    want("unet", "missing");
}

static void test_width_does_not_fit_weights(void **state)
{
    (void)state;
    replace("text_encoder/config.json", "\"intermediate_size\": ", "\"intermediate_size\": 1");
    want("text_encoder", "want [");
}

static void test_parts_do_not_fit(void **state)
{
    (void)state;
    replace("unet/config.json", "\"cross_attention_dim\": 16", "\"cross_attention_dim\": 17");
    want("cross_attention_dim 17", "hidden_size 16");
}

static void test_wrong_type(void **state)
{
    (void)state;
    replace("unet/config.json", "\"norm_num_groups\": 12", "\"norm_num_groups\": \"12\"");
    want("unet/config.json", "norm_num_groups");
}

static void test_unknown_block(void **state)
{
    (void)state;
    replace("unet/config.json", "\"DownBlock2D\"", "\"AttnDownBlock2D\"");
    want("down_block_types", "AttnDownBlock2D");
}

static void test_truncated_weights(void **state)
{
    const char *file = in_copy("unet/diffusion_pytorch_model.safetensors");
    struct stat st;

    (void)state;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(truncate(file, st.st_size - 1000), 0);
    want("unet/diffusion_pytorch_model.safetensors", "");
}

static void test_only_a_pickle(void **state)
{
    char old[PATH_MAX * 2];

    (void)state;
    (void)snprintf(old, sizeof old, "%s", in_copy("unet/diffusion_pytorch_model.safetensors"));
    assert_int_equal(rename(old, in_copy("unet/diffusion_pytorch_model.bin")), 0);
    want("diffusion_pytorch_model.bin", "safetensors");
}

static void test_vocabulary_too_large(void **state)
{
    (void)state;
    replace("text_encoder/config.json", "\"vocab_size\": ", "\"vocab_size\": 10, \"was\": ");
    want("vocab", "10");
}

static void test_unknown_prediction(void **state)
{
    (void)state;
    replace("scheduler/scheduler_config.json", "{", "{\"prediction_type\": \"v_prediction\",");
    want("scheduler/scheduler_config.json", "v_prediction");
}

/* The last of the files are sound: only the driver is missing. */
static void test_no_driver(void **state)
{
    const char *old = getenv("VK_ICD_FILENAMES");
    char *saved = old ? strdup(old) : NULL;

    (void)state;
    assert_int_equal(setenv("VK_ICD_FILENAMES", "/nonexistent/icd.json", 1), 0);
    want("Vulkan", "mesa-vulkan-drivers");
    if (saved)
        assert_int_equal(setenv("VK_ICD_FILENAMES", saved, 1), 0);
    else
        assert_int_equal(unsetenv("VK_ICD_FILENAMES"), 0);
    free(saved);
}

#define DAMAGE(test) cmocka_unit_test_setup_teardown(test, make_copy, remove_copy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_directory),
        DAMAGE(test_missing_config),
        DAMAGE(test_config_is_no_json),
        DAMAGE(test_config_does_not_fit_weights),
        DAMAGE(test_width_does_not_fit_weights),
        DAMAGE(test_parts_do_not_fit),
        DAMAGE(test_wrong_type),
        DAMAGE(test_unknown_block),
        DAMAGE(test_truncated_weights),
        DAMAGE(test_only_a_pickle),
        DAMAGE(test_vocabulary_too_large),
        DAMAGE(test_unknown_prediction),
        DAMAGE(test_no_driver),
    };

    return cmocka_run_group_tests_name("bad-model", tests, NULL, NULL);
}
