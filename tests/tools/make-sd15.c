/* make-sd15 DIR — a model directory of Stable Diffusion 1.5's shape with random fp16 weights (2.1
 * GB), for measuring speed and memory without its licence or a download. Names, shapes and
 * configuration files are those of the published diffusers directory; matrices are normal with
 * deviation 1 / sqrt(inputs), gains are 1, biases small. The tokenizer is the demo model's (run it
 * from the top of the source tree). The same bytes every time. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/safetensors_write.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/half.h"

#define PATH_SIZE 4096

/* --- tensors ---------------------------------------------------------------------------------- */

struct plan {
    struct ARRAY(struct safetensors_item) items;
    bool failed;
};

static void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->items.count; i++)
        free((char *)(uintptr_t)p->items.items[i].name);
    array_done(&p->items);
}

/* A tensor "<name><suffix>". */
static void add(struct plan *p, const char *dtype, const char *name, const char *suffix,
                uint32_t rank, const uint64_t *dims)
{
    struct safetensors_item item = {.dtype = dtype, .rank = rank};
    char *text = NULL;

    if (asprintf(&text, "%s%s", name, suffix) < 0) {
        p->failed = true;
        return;
    }
    item.name = text;
    memcpy(item.dims, dims, rank * sizeof dims[0]);
    struct safetensors_item *slot = array_push(&p->items);
    if (!slot) {
        free(text);
        p->failed = true;
        return;
    }
    *slot = item;
}

static const char *at(const char *scope, const char *name)
{
    static char texts[4][192];
    static unsigned next;
    char *text = texts[next++ % 4];

    (void)snprintf(text, sizeof texts[0], "%s%s", scope, name);
    return text;
}

static void add_norm(struct plan *p, const char *name, uint64_t n)
{
    add(p, "F16", name, ".weight", 1, &n);
    add(p, "F16", name, ".bias", 1, &n);
}

static void add_matrix(struct plan *p, const char *name, uint64_t out, uint64_t in)
{
    add(p, "F16", name, ".weight", 2, (const uint64_t[]){out, in});
}

static void add_linear(struct plan *p, const char *name, uint64_t out, uint64_t in)
{
    add_matrix(p, name, out, in);
    add(p, "F16", name, ".bias", 1, &out);
}

static void add_conv(struct plan *p, const char *name, uint64_t out, uint64_t in, uint64_t taps)
{
    add(p, "F16", name, ".weight", 4, (const uint64_t[]){out, in, taps, taps});
    add(p, "F16", name, ".bias", 1, &out);
}

/* --- text encoder: ViT-L/14's ----------------------------------------------------------------- */

#define TEXT_WIDTH  768
#define TEXT_TOKENS 77

static void plan_text(struct plan *p)
{
    char scope[96];

    add(p, "I64", "text_model.embeddings.position_ids", "", 2, (const uint64_t[]){1, TEXT_TOKENS});
    add_matrix(p, "text_model.embeddings.position_embedding", TEXT_TOKENS, TEXT_WIDTH);
    add_matrix(p, "text_model.embeddings.token_embedding", 49408, TEXT_WIDTH);
    for (unsigned i = 0; i < 12; i++) {
        static const char *const parts[] = {"self_attn.q_proj", "self_attn.k_proj",
                                            "self_attn.v_proj", "self_attn.out_proj"};
        (void)snprintf(scope, sizeof scope, "text_model.encoder.layers.%u.", i);
        for (size_t j = 0; j < ARRAY_SIZE(parts); j++)
            add_linear(p, at(scope, parts[j]), TEXT_WIDTH, TEXT_WIDTH);
        add_norm(p, at(scope, "layer_norm1"), TEXT_WIDTH);
        add_linear(p, at(scope, "mlp.fc1"), 4 * TEXT_WIDTH, TEXT_WIDTH);
        add_linear(p, at(scope, "mlp.fc2"), TEXT_WIDTH, 4 * TEXT_WIDTH);
        add_norm(p, at(scope, "layer_norm2"), TEXT_WIDTH);
    }
    add_norm(p, "text_model.final_layer_norm", TEXT_WIDTH);
}

/* --- U-Net and VAE ---------------------------------------------------------------------------- */

/* time: width of the time embedding, 0 without. */
static void plan_resnet(struct plan *p, const char *scope, uint64_t in, uint64_t out, uint64_t time)
{
    add_norm(p, at(scope, ".norm1"), in);
    add_conv(p, at(scope, ".conv1"), out, in, 3);
    if (time)
        add_linear(p, at(scope, ".time_emb_proj"), out, time);
    add_norm(p, at(scope, ".norm2"), out);
    add_conv(p, at(scope, ".conv2"), out, out, 3);
    if (in != out)
        add_conv(p, at(scope, ".conv_shortcut"), out, in, 1);
}

static void plan_attention(struct plan *p, const char *scope, uint64_t c, uint64_t context)
{
    add_matrix(p, at(scope, ".to_q"), c, c);
    add_matrix(p, at(scope, ".to_k"), c, context);
    add_matrix(p, at(scope, ".to_v"), c, context);
    add_linear(p, at(scope, ".to_out.0"), c, c);
}

static void plan_transformer(struct plan *p, const char *scope, uint64_t c)
{
    char block[128], attention[160];

    add_norm(p, at(scope, ".norm"), c);
    add_conv(p, at(scope, ".proj_in"), c, c, 1);
    (void)snprintf(block, sizeof block, "%s.transformer_blocks.0", scope);
    for (unsigned i = 1; i <= 2; i++) {
        (void)snprintf(attention, sizeof attention, "%s.attn%u", block, i);
        plan_attention(p, attention, c, i == 1 ? c : TEXT_WIDTH);
    }
    add_linear(p, at(block, ".ff.net.0.proj"), 8 * c, c);
    add_linear(p, at(block, ".ff.net.2"), c, 4 * c);
    for (unsigned i = 1; i <= 3; i++) {
        (void)snprintf(attention, sizeof attention, "%s.norm%u", block, i);
        add_norm(p, attention, c);
    }
    add_conv(p, at(scope, ".proj_out"), c, c, 1);
}

static const uint64_t unet_widths[] = {320, 640, 1280, 1280};
#define UNET_LEVELS ARRAY_SIZE(unet_widths)
#define UNET_TIME   1280

static void plan_unet_layer(struct plan *p, const char *block, unsigned j, uint64_t in,
                            uint64_t out, bool attention)
{
    char scope[96];

    (void)snprintf(scope, sizeof scope, "%s.resnets.%u", block, j);
    plan_resnet(p, scope, in, out, UNET_TIME);
    (void)snprintf(scope, sizeof scope, "%s.attentions.%u", block, j);
    if (attention)
        plan_transformer(p, scope, out);
}

/* Two layers and a downsampler; skips gets the widths of what they and conv_in leave. */
static unsigned plan_unet_down(struct plan *p, uint64_t *skips)
{
    char block[64];
    uint64_t in = unet_widths[0];
    unsigned count = 0;

    skips[count++] = in;
    for (unsigned i = 0; i < UNET_LEVELS; i++) {
        uint64_t out = unet_widths[i];
        (void)snprintf(block, sizeof block, "down_blocks.%u", i);
        for (unsigned j = 0; j < 2; j++) {
            plan_unet_layer(p, block, j, j == 0 ? in : out, out, i + 1 < UNET_LEVELS);
            skips[count++] = out;
        }
        in = out;
        if (i + 1 == UNET_LEVELS)
            continue;
        add_conv(p, at(block, ".downsamplers.0.conv"), out, out, 3);
        skips[count++] = out;
    }
    return count;
}

static void plan_unet_up(struct plan *p, const uint64_t *skips, unsigned count)
{
    char block[64];
    uint64_t in = unet_widths[UNET_LEVELS - 1];

    for (unsigned i = 0; i < UNET_LEVELS; i++) {
        uint64_t out = unet_widths[UNET_LEVELS - 1 - i];
        (void)snprintf(block, sizeof block, "up_blocks.%u", i);
        for (unsigned j = 0; j < 3; j++) {
            plan_unet_layer(p, block, j, in + skips[--count], out, i > 0);
            in = out;
        }
        if (i + 1 < UNET_LEVELS)
            add_conv(p, at(block, ".upsamplers.0.conv"), out, out, 3);
    }
}

static void plan_unet(struct plan *p)
{
    uint64_t skips[16];

    add_conv(p, "conv_in", 320, 4, 3);
    add_linear(p, "time_embedding.linear_1", UNET_TIME, 320);
    add_linear(p, "time_embedding.linear_2", UNET_TIME, UNET_TIME);
    unsigned count = plan_unet_down(p, skips);
    plan_unet_layer(p, "mid_block", 0, 1280, 1280, true);
    plan_unet_layer(p, "mid_block", 1, 1280, 1280, false);
    plan_unet_up(p, skips, count);
    add_norm(p, "conv_norm_out", 320);
    add_conv(p, "conv_out", 4, 320, 3);
}

static const uint64_t vae_widths[] = {128, 256, 512, 512};
#define VAE_LEVELS ARRAY_SIZE(vae_widths)

static void plan_vae_mid(struct plan *p, const char *scope)
{
    static const char *const parts[] = {"query", "key", "value", "proj_attn"};
    char block[96];

    for (unsigned j = 0; j < 2; j++) {
        (void)snprintf(block, sizeof block, "%s.mid_block.resnets.%u", scope, j);
        plan_resnet(p, block, 512, 512, 0);
    }
    (void)snprintf(block, sizeof block, "%s.mid_block.attentions.0.", scope);
    add_norm(p, at(block, "group_norm"), 512);
    for (size_t j = 0; j < ARRAY_SIZE(parts); j++)
        add_linear(p, at(block, parts[j]), 512, 512);
}

/* One level: `layers` resnets, and the resampling conv but at the last level. */
static void plan_vae_level(struct plan *p, const char *block, const char *resample, unsigned layers,
                           uint64_t in, uint64_t out)
{
    char scope[96];

    for (unsigned j = 0; j < layers; j++) {
        (void)snprintf(scope, sizeof scope, "%s.resnets.%u", block, j);
        plan_resnet(p, scope, j == 0 ? in : out, out, 0);
    }
    if (resample)
        add_conv(p, at(block, resample), out, out, 3);
}

static void plan_vae(struct plan *p)
{
    char block[64];

    add_conv(p, "encoder.conv_in", 128, 3, 3);
    for (unsigned i = 0; i < VAE_LEVELS; i++) {
        (void)snprintf(block, sizeof block, "encoder.down_blocks.%u", i);
        plan_vae_level(p, block, i + 1 < VAE_LEVELS ? ".downsamplers.0.conv" : NULL, 2,
                       vae_widths[i ? i - 1 : 0], vae_widths[i]);
    }
    plan_vae_mid(p, "encoder");
    add_norm(p, "encoder.conv_norm_out", 512);
    add_conv(p, "encoder.conv_out", 8, 512, 3);
    add_conv(p, "quant_conv", 8, 8, 1);
    add_conv(p, "post_quant_conv", 4, 4, 1);
    add_conv(p, "decoder.conv_in", 512, 4, 3);
    plan_vae_mid(p, "decoder");
    for (unsigned i = 0; i < VAE_LEVELS; i++) {
        uint64_t out = vae_widths[VAE_LEVELS - 1 - i];
        (void)snprintf(block, sizeof block, "decoder.up_blocks.%u", i);
        plan_vae_level(p, block, i + 1 < VAE_LEVELS ? ".upsamplers.0.conv" : NULL, 3,
                       i ? vae_widths[VAE_LEVELS - i] : out, out);
    }
    add_norm(p, "decoder.conv_norm_out", 128);
    add_conv(p, "decoder.conv_out", 3, 128, 3);
}

/* --- values ----------------------------------------------------------------------------------- */

#define NORMALS 4096u /* a power of two: one draw is 12 random bits */
#define CHUNK   (1u << 20)

struct source {
    uint64_t state;
    float normal[NORMALS];
    uint16_t halves[NORMALS]; /* normal * deviation of the tensor being written */
    uint16_t chunk[CHUNK / 2];
};

/* Marsaglia's xorshift64. */
static uint64_t next_random(struct source *s)
{
    s->state ^= s->state << 13;
    s->state ^= s->state >> 7;
    s->state ^= s->state << 17;
    return s->state;
}

static double next_uniform(struct source *s)
{
    return ((double)(next_random(s) >> 11) + 0.5) * 0x1p-53;
}

static void source_init(struct source *s)
{
    s->state = 0x5d15;
    for (unsigned i = 0; i < NORMALS; i++)
        s->normal[i] =
            (float)(sqrt(-2 * log(next_uniform(s))) * cos(6.283185307179586 * next_uniform(s)));
}

static void fill_random(struct source *s, uint16_t *values, size_t count)
{
    uint64_t bits = 0;

    for (size_t i = 0; i < count; i++) {
        if (i % 5 == 0)
            bits = next_random(s);
        values[i] = s->halves[bits % NORMALS];
        bits /= NORMALS;
    }
}

static int write_random(struct source *s, int fd, uint64_t count, double deviation)
{
    int r = 0;

    for (unsigned i = 0; i < NORMALS; i++)
        s->halves[i] = half_from_float((float)deviation * s->normal[i]);
    while (count > 0 && r >= 0) {
        size_t n = count < CHUNK / 2 ? (size_t)count : CHUNK / 2;
        fill_random(s, s->chunk, n);
        r = file_write_all(fd, s->chunk, 2 * n);
        count -= n;
    }
    return r;
}

static int write_ones(int fd, uint64_t count)
{
    uint16_t values[2560]; /* the widest norm: 1280 + 1280 channels */

    for (uint64_t i = 0; i < count; i++)
        values[i] = 0x3c00;
    return file_write_all(fd, values, 2 * count);
}

static int write_positions(int fd)
{
    int64_t values[TEXT_TOKENS];

    for (int64_t i = 0; i < TEXT_TOKENS; i++)
        values[i] = i;
    return file_write_all(fd, values, sizeof values);
}

static int write_tensor(struct source *s, int fd, const struct safetensors_item *item)
{
    uint64_t count = safetensors_item_size(item) / 2, inputs = 1;

    if (strcmp(item->dtype, "I64") == 0)
        return write_positions(fd);
    if (item->rank == 1)
        return file_has_ending(item->name, ".weight") ? write_ones(fd, count)
                                                      : write_random(s, fd, count, 0.01);
    if (file_has_ending(item->name, "_embedding.weight"))
        return write_random(s, fd, count, 0.02);
    for (uint32_t d = 1; d < item->rank; d++)
        inputs *= item->dims[d];
    return write_random(s, fd, count, 1 / sqrt((double)inputs));
}

/* --- files ------------------------------------------------------------------------------------ */

static const struct {
    const char *file;
    void (*plan)(struct plan *);
    uint64_t parameters; /* of the published model, position_ids aside */
} components[] = {
    {"text_encoder/model.fp16.safetensors", plan_text, 123060480},
    {"unet/diffusion_pytorch_model.fp16.safetensors", plan_unet, 859520964},
    {"vae/diffusion_pytorch_model.fp16.safetensors", plan_vae, 83653863},
};

static const struct {
    const char *file, *text;
} configs[] = {
    {"model_index.json",
     "{\"_class_name\": \"StableDiffusionPipeline\", \"_diffusers_version\": \"0.6.0\","
     " \"feature_extractor\": [null, null], \"safety_checker\": [null, null],"
     " \"scheduler\": [\"diffusers\", \"PNDMScheduler\"],"
     " \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],"
     " \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"],"
     " \"unet\": [\"diffusers\", \"UNet2DConditionModel\"],"
     " \"vae\": [\"diffusers\", \"AutoencoderKL\"]}\n"},
    {"scheduler/scheduler_config.json",
     "{\"_class_name\": \"PNDMScheduler\", \"_diffusers_version\": \"0.6.0\","
     " \"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\","
     " \"num_train_timesteps\": 1000, \"set_alpha_to_one\": false, \"skip_prk_steps\": true,"
     " \"steps_offset\": 1, \"trained_betas\": null, \"clip_sample\": false}\n"},
    {"text_encoder/config.json",
     "{\"architectures\": [\"CLIPTextModel\"], \"model_type\": \"clip_text_model\","
     " \"vocab_size\": 49408, \"hidden_size\": 768, \"intermediate_size\": 3072,"
     " \"num_hidden_layers\": 12, \"num_attention_heads\": 12, \"max_position_embeddings\": 77,"
     " \"hidden_act\": \"quick_gelu\", \"layer_norm_eps\": 1e-05, \"bos_token_id\": 0,"
     " \"eos_token_id\": 2, \"pad_token_id\": 1}\n"},
    {"unet/config.json",
     "{\"_class_name\": \"UNet2DConditionModel\", \"_diffusers_version\": \"0.6.0\","
     " \"act_fn\": \"silu\", \"attention_head_dim\": 8,"
     " \"block_out_channels\": [320, 640, 1280, 1280], \"center_input_sample\": false,"
     " \"cross_attention_dim\": 768, \"down_block_types\": [\"CrossAttnDownBlock2D\","
     " \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"DownBlock2D\"],"
     " \"downsample_padding\": 1, \"flip_sin_to_cos\": true, \"freq_shift\": 0,"
     " \"in_channels\": 4, \"layers_per_block\": 2, \"mid_block_scale_factor\": 1,"
     " \"norm_eps\": 1e-05, \"norm_num_groups\": 32, \"out_channels\": 4, \"sample_size\": 64,"
     " \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\","
     " \"CrossAttnUpBlock2D\"]}\n"},
    {"vae/config.json",
     "{\"_class_name\": \"AutoencoderKL\", \"_diffusers_version\": \"0.6.0\","
     " \"act_fn\": \"silu\", \"block_out_channels\": [128, 256, 512, 512],"
     " \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\","
     " \"DownEncoderBlock2D\", \"DownEncoderBlock2D\"], \"in_channels\": 3,"
     " \"latent_channels\": 4, \"layers_per_block\": 2, \"norm_num_groups\": 32,"
     " \"out_channels\": 3, \"sample_size\": 512, \"up_block_types\": [\"UpDecoderBlock2D\","
     " \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}\n"},
};

static const char *const tokenizer_files[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};

static int write_component(struct source *s, const char *path, const struct plan *p,
                           struct fault *f)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0)
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    int r = safetensors_write_header(fd, p->items.items, p->items.count, f);
    for (size_t i = 0; i < p->items.count && r >= 0; i++)
        r = write_tensor(s, fd, &p->items.items[i]);
    return r < 0 ? fault_set(f, r, "%s: %s", path, strerror(-r)) : 0;
}

static int make_component(struct source *s, const char *directory, size_t c, struct fault *f)
{
    _cleanup_(plan_done) struct plan p = {0};
    char path[PATH_SIZE];
    uint64_t parameters = 0;

    components[c].plan(&p);
    if (p.failed)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < p.items.count; i++) {
        if (strcmp(p.items.items[i].dtype, "F16") == 0)
            parameters += safetensors_item_size(&p.items.items[i]) / 2;
    }
    if (parameters != components[c].parameters)
        return fault_set(f, -EINVAL, "%s: %" PRIu64 " parameters, the published model has %" PRIu64,
                         components[c].file, parameters, components[c].parameters);
    (void)snprintf(path, sizeof path, "%s/%s", directory, components[c].file);
    int r = write_component(s, path, &p, f);
    if (r >= 0)
        (void)printf("%s: %zu tensors, %" PRIu64 " parameters\n", components[c].file, p.items.count,
                     parameters);
    return r;
}

static int copy_tokenizer(const char *directory, struct fault *f)
{
    char from[PATH_SIZE], to[PATH_SIZE];
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(tokenizer_files) && r >= 0; i++) {
        _cleanup_(freep) char *text = NULL;
        size_t size = 0;
        (void)snprintf(from, sizeof from, "packaging/demo-model/tokenizer/%s", tokenizer_files[i]);
        (void)snprintf(to, sizeof to, "%s/tokenizer/%s", directory, tokenizer_files[i]);
        r = file_read(from, 16u << 20, &text, &size, f);
        if (r >= 0)
            r = file_write_atomic(to, text, size, f);
    }
    return r;
}

static int make_directories(const char *directory, struct fault *f)
{
    static const char *const folders[] = {"text_encoder", "unet", "vae", "scheduler", "tokenizer"};
    char path[PATH_SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", directory, folders[i]);
        int r = file_make_directories(path);
        if (r < 0)
            return fault_set(f, r, "%s: %s", path, strerror(-r));
    }
    return 0;
}

static int make_model(const char *directory, struct fault *f)
{
    _cleanup_(freep) struct source *s = calloc(1, sizeof *s);
    char path[PATH_SIZE];

    if (!s)
        return fault_set(f, -ENOMEM, "out of memory");
    source_init(s);
    int r = make_directories(directory, f);
    for (size_t i = 0; i < ARRAY_SIZE(configs) && r >= 0; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", directory, configs[i].file);
        r = file_write_atomic(path, configs[i].text, strlen(configs[i].text), f);
    }
    if (r >= 0)
        r = copy_tokenizer(directory, f);
    for (size_t c = 0; c < ARRAY_SIZE(components) && r >= 0; c++)
        r = make_component(s, directory, c, f);
    return r;
}

int main(int argc, char **argv)
{
    struct fault f = {0};

    if (argc != 2 || strlen(argv[1]) > PATH_SIZE - 128) {
        (void)fprintf(stderr, "usage: make-sd15 DIR\n");
        return 2;
    }
    if (make_model(argv[1], &f) < 0) {
        (void)fprintf(stderr, "make-sd15: %s\n", f.text);
        return 1;
    }
    return 0;
}
