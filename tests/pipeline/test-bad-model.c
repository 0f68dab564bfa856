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

#include "tests/support/must.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/engine.h"
#include "vk/tools.h"

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

/* Keys put at the head of a configuration file, and what is said. */
static const struct {
    const char *file, *keys, *first, *second;
} keys[] = {
    {"scheduler/scheduler_config.json", "\"prediction_type\": \"flow\"", "prediction_type", "flow"},
    {"unet/config.json", "\"in_channels\": 8", "in_channels 8", "InstructPix2Pix"},
    {"unet/config.json", "\"in_channels\": 5", "in_channels 5", "9"},
    {"unet/config.json", "\"out_channels\": 8", "out_channels 8", "4"},
    {"unet/config.json", "\"num_attention_heads\": 8", "num_attention_heads", "only null"},
    {"unet/config.json", "\"transformer_layers_per_block\": [1, 2, 10]",
     "transformer_layers_per_block", "only 1"},
    {"unet/config.json", "\"only_cross_attention\": [false, true, false]", "only_cross_attention",
     "only false"},
    {"unet/config.json", "\"dual_cross_attention\": true", "dual_cross_attention", "only false"},
    {"unet/config.json", "\"addition_embed_type\": \"text_time\"", "addition_embed_type",
     "only null"},
    {"unet/config.json", "\"class_embed_type\": \"timestep\"", "class_embed_type", "only null"},
    {"unet/config.json", "\"resnet_time_scale_shift\": \"scale_shift\"", "resnet_time_scale_shift",
     "only default"},
    {"unet/config.json", "\"time_embedding_type\": \"fourier\"", "time_embedding_type",
     "only positional"},
    {"unet/config.json", "\"mid_block_type\": \"UNetMidBlock2D\"", "mid_block_type",
     "only UNetMidBlock2DCrossAttn"},
    {"unet/config.json", "\"conv_in_kernel\": 1", "conv_in_kernel", "only 3"},
    {"unet/config.json", "\"attention_head_dim\": [5, 10]", "attention_head_dim", "2 values"},
    {"unet/config.json", "\"time_cond_proj_dim\": 256", "time_embedding.cond_proj.weight",
     "missing"},
    {"unet/config.json", "\"layers_per_block\": [2, 1, 2]", "layers_per_block: 2 and 1",
     "only one"},
    {"unet/config.json", "\"time_embedding_dim\": 64", "time_embedding.linear_1.weight", "64"},
    {"unet/config.json", "\"_class_name\": \"UNet2DModel\"", "_class_name",
     "only UNet2DConditionModel"},
    {"vae/config.json", "\"_class_name\": \"AutoencoderTiny\"", "_class_name",
     "only AutoencoderKL"},
    {"vae/config.json", "\"use_quant_conv\": false", "use_quant_conv", "only true"},
    {"vae/config.json", "\"use_post_quant_conv\": false", "use_post_quant_conv", "only true"},
    {"vae/config.json", "\"mid_block_add_attention\": false", "mid_block_add_attention",
     "only true"},
    {"text_encoder/config.json", "\"use_attention_mask\": true", "use_attention_mask",
     "only false"},
    {"text_encoder/config.json", "\"model_type\": \"xlm-roberta\"", "model_type", "xlm-roberta"},
    {"text_encoder/config.json", "\"hidden_act\": \"relu\"", "hidden_act", "relu"},
};

/* A key that is there already is renamed: JSON with the same key twice is refused. */
static void put_keys(const char *file, const char *text)
{
    char name[64], renamed[128], opening[256];
    char *data = NULL;
    size_t size = 0;

    assert_int_equal(sscanf(text, "%63[^:]", name), 1);
    assert_int_equal(file_read(in_copy(file), 1u << 20, &data, &size, NULL), 0);
    (void)snprintf(renamed, sizeof renamed, "\"was_%s", name + 1);
    if (strstr(data, name))
        replace(file, name, renamed);
    (void)snprintf(opening, sizeof opening, "{%s,", text);
    replace(file, "{", opening);
    free(data);
}

static void test_keys(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (i > 0)
            assert_int_equal(make_copy(state), 0);
        put_keys(keys[i].file, keys[i].keys);
        want(keys[i].first, keys[i].second);
        if (i + 1 < ARRAY_SIZE(keys))
            assert_int_equal(remove_copy(state), 0);
    }
}

/* Of later versions, and no different: the model still opens. */
static void test_harmless_keys(void **state)
{
    static const char *const harmless[] = {
        "\"transformer_layers_per_block\": [1, 1, 1]",
        "\"only_cross_attention\": [false, false]",
        "\"upcast_attention\": true",
        "\"use_linear_projection\": true",
        "\"num_attention_heads\": null",
        "\"dropout\": 0.0",
        "\"attention_type\": \"default\"",
        "\"attention_head_dim\": [3, 3, 3]",
        "\"cross_attention_norm\": null",
        "\"resnet_out_scale_factor\": 1.0",
        "\"layers_per_block\": [2, 2, 2]",
        "\"cross_attention_dim\": [16, 16, 16]",
        "\"time_embedding_dim\": 48",
        "\"sample_size\": [16, 16]",
    };
    struct request_context context;
    struct fault f = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(harmless); i++)
        put_keys("unet/config.json", harmless[i]);
    if (engine_read_context(directory, &context, &f) < 0)
        fail_msg("%s", f.text);
}

static void test_number_is_nan(void **state)
{
    const char *file = in_copy("vae/diffusion_pytorch_model.safetensors");
    static const uint32_t nans[] = {0x7fffffff, 0x7fffffff}; /* as two halves as well */
    struct stat st;
    int fd;

    (void)state;
    assert_int_equal(stat(file, &st), 0);
    fd = open(file, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, nans, sizeof nans, st.st_size - 8), 8);
    assert_int_equal(close(fd), 0);
    want("vae/diffusion_pytorch_model.safetensors: ", "is NaN; want numbers below");
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

/* What hangs on a model is looked at before it is taken, with a device and without. */
static void test_extras(void **state)
{
    static const struct {
        const char *folder, *file, *text, *fault;
    } rows[] = {
        {"taesd", "taesd/config.json", "{\"latent_channels\": 3}", "taesd/config.json: latent_ch"},
        {"safety_checker", "safety_checker/config.json", "{}",
         "safety_checker/config.json: vision_config"},
    };
    const struct tools_options options = {.model = directory};

    (void)state;
    assert_int_equal(unlink(in_copy("model_index.json")), 0); /* which says: no checker */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(fclosep) FILE *out = fopen("/dev/null", "w");
        struct fault f = {0};
        assert_non_null(out);
        must(tools_check_model(&options, out, &f), &f);
        assert_int_equal(mkdir(in_copy(rows[i].folder), 0700), 0);
        assert_int_equal(
            file_write_atomic(in_copy(rows[i].file), rows[i].text, strlen(rows[i].text), NULL), 0);
        want(rows[i].fault, "");
        assert_int_equal(tools_check_model(&options, out, &f), -EINVAL);
        assert_non_null(strstr(f.text, rows[i].fault));
        assert_int_equal(unlink(in_copy(rows[i].file)), 0);
        assert_int_equal(rmdir(in_copy(rows[i].folder)), 0);
    }
}

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
        DAMAGE(test_keys),
        DAMAGE(test_harmless_keys),
        DAMAGE(test_number_is_nan),
        DAMAGE(test_extras),
        DAMAGE(test_no_driver),
    };

    return cmocka_run_group_tests_name("bad-model", tests, NULL, NULL);
}
