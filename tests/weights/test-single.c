/* Checkpoints in one file: names, what the shapes tell at the published sizes (files of gigabytes
 * that are holes), and what is said of files that lack something. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/folder.h"
#include "tests/support/safetensors_write.h"
#include "vk/base/file.h"
#include "vk/pipeline/session.h"
#include "vk/weights/weights-private.h"

/* --- names ------------------------------------------------------------------------------------ */

/* Of Stable Diffusion 1 and 2 as published. */
static const struct single_facts v1 = {
    .unet = {.levels = 4, .layers = 2, .up_attention = {false, true, true, true}},
    .vae = {.levels = 4, .layers = 2},
    .text = {.layers = 12},
};
static const struct single_facts v2 = {
    .is_open_clip = true,
    .is_v2 = true,
    .unet = {.levels = 4, .layers = 2, .up_attention = {false, true, true, true}},
    .vae = {.levels = 4, .layers = 2},
    .text = {.layers = 23},
};

static const struct single_facts bare = {.is_bare_text = true, .text = {.layers = 12}};

#define U "model.diffusion_model."
#define V "first_stage_model."
#define T "cond_stage_model.transformer.text_model."
#define O "cond_stage_model.model."

static const struct {
    const struct single_facts *facts;
    enum weights_component component;
    const char *name, *want;
    uint32_t slice, slices;
} names[] = {
    {&v1, WEIGHTS_UNET, "conv_in.weight", U "input_blocks.0.0.weight", 0, 1},
    {&v1, WEIGHTS_UNET, "time_embedding.linear_2.bias", U "time_embed.2.bias", 0, 1},
    {&v1, WEIGHTS_UNET, "down_blocks.0.resnets.0.norm1.weight",
     U "input_blocks.1.0.in_layers.0.weight", 0, 1},
    {&v1, WEIGHTS_UNET, "down_blocks.0.downsamplers.0.conv.weight", U "input_blocks.3.0.op.weight",
     0, 1},
    {&v1, WEIGHTS_UNET, "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight",
     U "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight", 0, 1},
    {&v1, WEIGHTS_UNET, "down_blocks.1.resnets.0.conv_shortcut.weight",
     U "input_blocks.4.0.skip_connection.weight", 0, 1},
    {&v1, WEIGHTS_UNET, "down_blocks.3.resnets.1.time_emb_proj.bias",
     U "input_blocks.11.0.emb_layers.1.bias", 0, 1},
    {&v1, WEIGHTS_UNET, "mid_block.resnets.1.conv2.weight", U "middle_block.2.out_layers.3.weight",
     0, 1},
    {&v1, WEIGHTS_UNET, "mid_block.attentions.0.proj_in.weight", U "middle_block.1.proj_in.weight",
     0, 1},
    {&v1, WEIGHTS_UNET, "up_blocks.0.upsamplers.0.conv.bias", U "output_blocks.2.1.conv.bias", 0,
     1},
    {&v1, WEIGHTS_UNET, "up_blocks.1.upsamplers.0.conv.bias", U "output_blocks.5.2.conv.bias", 0,
     1},
    {&v1, WEIGHTS_UNET, "up_blocks.3.attentions.2.norm.weight", U "output_blocks.11.1.norm.weight",
     0, 1},
    {&v1, WEIGHTS_UNET, "up_blocks.3.resnets.2.norm2.weight",
     U "output_blocks.11.0.out_layers.0.weight", 0, 1},
    {&v1, WEIGHTS_UNET, "conv_norm_out.weight", U "out.0.weight", 0, 1},
    {&v1, WEIGHTS_UNET, "conv_out.bias", U "out.2.bias", 0, 1},
    {&v1, WEIGHTS_VAE, "encoder.conv_in.weight", V "encoder.conv_in.weight", 0, 1},
    {&v1, WEIGHTS_VAE, "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
     V "encoder.down.1.block.0.nin_shortcut.weight", 0, 1},
    {&v1, WEIGHTS_VAE, "encoder.down_blocks.2.downsamplers.0.conv.weight",
     V "encoder.down.2.downsample.conv.weight", 0, 1},
    {&v1, WEIGHTS_VAE, "encoder.mid_block.attentions.0.to_q.weight",
     V "encoder.mid.attn_1.q.weight", 0, 1},
    {&v1, WEIGHTS_VAE, "decoder.mid_block.attentions.0.to_out.0.bias",
     V "decoder.mid.attn_1.proj_out.bias", 0, 1},
    {&v1, WEIGHTS_VAE, "decoder.mid_block.attentions.0.group_norm.bias",
     V "decoder.mid.attn_1.norm.bias", 0, 1},
    {&v1, WEIGHTS_VAE, "decoder.mid_block.resnets.0.norm1.bias", V "decoder.mid.block_1.norm1.bias",
     0, 1},
    {&v1, WEIGHTS_VAE, "decoder.up_blocks.0.resnets.2.conv1.weight",
     V "decoder.up.3.block.2.conv1.weight", 0, 1},
    {&v1, WEIGHTS_VAE, "decoder.up_blocks.0.upsamplers.0.conv.weight",
     V "decoder.up.3.upsample.conv.weight", 0, 1},
    {&v1, WEIGHTS_VAE, "decoder.conv_norm_out.weight", V "decoder.norm_out.weight", 0, 1},
    {&v1, WEIGHTS_VAE, "quant_conv.weight", V "quant_conv.weight", 0, 1},
    {&v1, WEIGHTS_TEXT_ENCODER, "text_model.encoder.layers.3.mlp.fc1.bias",
     T "encoder.layers.3.mlp.fc1.bias", 0, 1},
    {&bare, WEIGHTS_TEXT_ENCODER, "text_model.encoder.layers.3.mlp.fc1.bias",
     "cond_stage_model.transformer.encoder.layers.3.mlp.fc1.bias", 0, 1},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.embeddings.token_embedding.weight",
     O "token_embedding.weight", 0, 1},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.embeddings.position_embedding.weight",
     O "positional_embedding", 0, 1},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.encoder.layers.22.layer_norm2.weight",
     O "transformer.resblocks.22.ln_2.weight", 0, 1},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.encoder.layers.10.mlp.fc2.weight",
     O "transformer.resblocks.10.mlp.c_proj.weight", 0, 1},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.encoder.layers.0.self_attn.k_proj.weight",
     O "transformer.resblocks.0.attn.in_proj_weight", 1, 3},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.encoder.layers.0.self_attn.v_proj.bias",
     O "transformer.resblocks.0.attn.in_proj_bias", 2, 3},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.encoder.layers.0.self_attn.out_proj.bias",
     O "transformer.resblocks.0.attn.out_proj.bias", 0, 1},
    {&v2, WEIGHTS_TEXT_ENCODER, "text_model.final_layer_norm.bias", O "ln_final.bias", 0, 1},
};

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct single_name found;
        single_translate(names[i].facts, names[i].component, names[i].name, &found);
        assert_string_equal(found.text, names[i].want);
        assert_int_equal(found.slice, names[i].slice);
        assert_int_equal(found.slices, names[i].slices);
    }
}

static void test_left_out(void **state)
{
    static const char *const ignored[] = {"model_ema.decay",
                                          "alphas_cumprod_prev",
                                          "posterior_log_variance_clipped",
                                          "global_step",
                                          O "logit_scale",
                                          O "text_projection",
                                          O "transformer.resblocks.23.ln_1.weight",
                                          V "loss.logvar"};
    static const char *const kept[] = {O "transformer.resblocks.22.ln_1.weight", U "out.2.bias",
                                       "lora.up", V "encoder.conv_in.weight"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
        assert_true(single_ignores(&v2, ignored[i]));
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        assert_false(single_ignores(&v2, kept[i]));
}

/* --- the published sizes ---------------------------------------------------------------------- */

#define SD_UNET                                                                                    \
    .levels = 4, .channels = {320, 640, 1280, 1280}, .down_attention = {true, true, true, false},  \
    .up_attention = {false, true, true, true}, .layers = 2, .groups = 32, .eps = 1e-5f,            \
    .out_channels = 4, .downsample_padding = 1, .flip_sin_to_cos = true
#define SD_VAE                                                                                     \
    {                                                                                              \
        .levels = 4, .channels = {128, 256, 512, 512}, .layers = 2, .groups = 32,                  \
        .latent_channels = 4, .scaling_factor = 0.18215                                            \
    }

/* CLIP ViT-L/14's text tower, and OpenCLIP ViT-H/14's but for its last block. */
#define CLIP_L                                                                                     \
    {                                                                                              \
        .vocab_size = 49408, .hidden_size = 768, .intermediate_size = 3072, .layers = 12,          \
        .heads = 12, .positions = 77, .eps = 1e-5f, .activation = ACTIVATION_QUICK_GELU            \
    }
#define CLIP_H                                                                                     \
    {                                                                                              \
        .vocab_size = 49408, .hidden_size = 1024, .intermediate_size = 4096, .layers = 23,         \
        .heads = 16, .positions = 77, .eps = 1e-5f, .activation = ACTIVATION_GELU                  \
    }

struct size {
    const char *name;
    struct model model;
    uint64_t global_step; /* in the file; 0: not there */
    bool keeps_tower;     /* OpenCLIP's last block and projection are in the file */
};

static const struct size sizes[] = {
    {"1.5",
     {.text = CLIP_L,
      .unet = {SD_UNET, .heads = {8, 8, 8, 8}, .context_width = 768, .in_channels = 4,
               .sample_size = 64},
      .vae = SD_VAE,
      .scheduler = SCHEDULER_PNDM,
      .sched = {.prediction = SCHED_PREDICTION_EPSILON}},
     840000,
     false},
    {"1.5 inpainting",
     {.text = CLIP_L,
      .unet = {SD_UNET, .heads = {8, 8, 8, 8}, .context_width = 768, .in_channels = 9,
               .sample_size = 64},
      .vae = SD_VAE,
      .scheduler = SCHEDULER_PNDM,
      .sched = {.prediction = SCHED_PREDICTION_EPSILON}},
     0,
     false},
    {"2.1 at 768",
     {.text = CLIP_H,
      .unet = {SD_UNET, .heads = {5, 10, 20, 20}, .context_width = 1024, .in_channels = 4,
               .sample_size = 96},
      .vae = SD_VAE,
      .scheduler = SCHEDULER_DDIM,
      .sched = {.prediction = SCHED_PREDICTION_V}},
     110000,
     true},
    {"2.0 base at 512, converted back: no last block",
     {.text = CLIP_H,
      .unet = {SD_UNET, .heads = {5, 10, 20, 20}, .context_width = 1024, .in_channels = 4,
               .sample_size = 64},
      .vae = SD_VAE,
      .scheduler = SCHEDULER_PNDM,
      .sched = {.prediction = SCHED_PREDICTION_EPSILON}},
     875000,
     false},
    {"2 inpainting",
     {.text = CLIP_H,
      .unet = {SD_UNET, .heads = {5, 10, 20, 20}, .context_width = 1024, .in_channels = 9,
               .sample_size = 64},
      .vae = SD_VAE,
      .scheduler = SCHEDULER_PNDM,
      .sched = {.prediction = SCHED_PREDICTION_EPSILON}},
     0,
     true},
};

/* The tensors of a file: names are owned. */
struct list {
    struct ARRAY(struct safetensors_item) items;
};

static void list_done(struct list *l)
{
    for (size_t i = 0; i < l->items.count; i++)
        free((void *)(uintptr_t)l->items.items[i].name);
    array_done(&l->items);
}

static struct safetensors_item *list_find(struct list *l, const char *name)
{
    for (size_t i = 0; i < l->items.count; i++)
        if (strcmp(l->items.items[i].name, name) == 0)
            return &l->items.items[i];
    return NULL;
}

static struct safetensors_item *list_add(struct list *l, const char *name, const char *type,
                                         uint32_t rank, const uint64_t *dims)
{
    struct safetensors_item *item = list_find(l, name);

    if (item)
        return item;
    item = array_push(&l->items);
    assert_non_null(item);
    item->name = strdup(name);
    item->dtype = type;
    item->rank = rank;
    for (uint32_t i = 0; i < rank; i++)
        item->dims[i] = dims[i];
    return item;
}

static void list_drop(struct list *l, const char *name)
{
    struct safetensors_item *item = list_find(l, name);

    assert_non_null(item);
    free((void *)(uintptr_t)item->name);
    *item = l->items.items[--l->items.count];
}

/* The model's tensors as it wants them, under the file's names. */
static void list_model(struct list *l, const struct model *m, const struct single_facts *facts)
{
    struct weights *w = NULL;
    struct single_name name;
    struct fault f = {0};

    assert_int_equal(weights_open(NULL, &w, &f), 0);
    assert_int_equal(session_declare_weights(m, w, &f), 0);
    for (size_t i = 0; i < w->parts.count; i++) {
        const struct weight_want *want = &w->parts.items[i].want;
        uint32_t rank = want->pack == PACK_VECTOR ? 1 : want->taps_h > 1 ? 4 : 2;
        single_translate(facts, want->component, want->name, &name);
        list_add(l, name.text, "F16", rank,
                 (const uint64_t[]){(uint64_t)want->n * name.slices, want->k, want->taps_h,
                                    want->taps_w});
    }
    weights_free(w);
}

static void add_tower(struct list *l)
{
    static const char from[] = O "transformer.resblocks.22.", to[] = O "transformer.resblocks.23.";
    char name[128];

    for (size_t i = 0, n = l->items.count; i < n; i++) {
        struct safetensors_item item = l->items.items[i];
        if (strncmp(item.name, from, strlen(from)) != 0)
            continue;
        (void)snprintf(name, sizeof name, "%s%s", to, item.name + strlen(from));
        list_add(l, name, "F16", item.rank, item.dims);
    }
    list_add(l, O "text_projection", "F16", 2, (const uint64_t[]){1024, 1024});
    list_add(l, O "logit_scale", "F16", 0, NULL);
}

static uint64_t list_size(const struct list *l, size_t count)
{
    uint64_t size = 0;

    for (size_t i = 0; i < count; i++)
        size += safetensors_item_size(&l->items.items[i]);
    return size;
}

/* Header, then a hole; the one number that is looked at is the last tensor. */
static void write_sparse(const struct list *l, const char *path, uint64_t global_step)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    struct fault f = {0};

    assert_true(fd >= 0);
    assert_int_equal(safetensors_write_header(fd, l->items.items, l->items.count, &f), 0);
    off_t at = lseek(fd, 0, SEEK_CUR);
    assert_int_equal(ftruncate(fd, at + (off_t)list_size(l, l->items.count)), 0);
    if (global_step)
        assert_int_equal(pwrite(fd, &global_step, sizeof global_step,
                                at + (off_t)list_size(l, l->items.count - 1)),
                         sizeof global_step);
    assert_int_equal(close(fd), 0);
}

static const char *in_folder(void **state, const char *name)
{
    static char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", (const char *)*state, name);
    return path;
}

static void put_tokenizer(void **state)
{
    static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    char from[128], name[64], *data;
    size_t size;
    struct fault f = {0};

    assert_int_equal(mkdir(in_folder(state, "tokenizer"), 0755), 0);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        (void)snprintf(from, sizeof from, "tests/golden/models/mid-only/tokenizer/%s", files[i]);
        (void)snprintf(name, sizeof name, "tokenizer/%s", files[i]);
        assert_int_equal(file_read(from, 1u << 20, &data, &size, &f), 0);
        assert_int_equal(file_write_atomic(in_folder(state, name), data, size, &f), 0);
        free(data);
    }
}

static void same_model(const char *name, const struct model *got, const struct model *want)
{
    if (memcmp(&got->text, &want->text, sizeof got->text) != 0)
        fail_msg("%s: the text encoder's configuration differs", name);
    if (memcmp(got->unet.heads, want->unet.heads, sizeof got->unet.heads) != 0 ||
        memcmp(got->unet.channels, want->unet.channels, sizeof got->unet.channels) != 0 ||
        memcmp(got->unet.down_attention, want->unet.down_attention, 4) != 0 ||
        memcmp(got->unet.up_attention, want->unet.up_attention, 4) != 0)
        fail_msg("%s: the U-Net's levels differ", name);
    assert_int_equal(got->unet.levels, want->unet.levels);
    assert_int_equal(got->unet.layers, want->unet.layers);
    assert_int_equal(got->unet.groups, want->unet.groups);
    assert_int_equal(got->unet.context_width, want->unet.context_width);
    assert_int_equal(got->unet.in_channels, want->unet.in_channels);
    assert_int_equal(got->unet.sample_size, want->unet.sample_size);
    assert_int_equal(got->vae.levels, want->vae.levels);
    assert_int_equal(got->vae.layers, want->vae.layers);
    assert_int_equal(got->vae.groups, want->vae.groups);
    assert_memory_equal(got->vae.channels, want->vae.channels, sizeof got->vae.channels);
    assert_int_equal(got->scheduler, want->scheduler);
    assert_int_equal(got->sched.prediction, want->sched.prediction);
}

static void test_one_size(void **state, const struct size *size)
{
    bool is_v2 = size->model.text.hidden_size == 1024;
    struct weights *w = NULL;
    struct model *m = NULL;
    struct list l = {0};
    struct fault f = {0};

    list_model(&l, &size->model, is_v2 ? &v2 : &v1);
    if (size->keeps_tower)
        add_tower(&l);
    list_add(&l, "model_ema.decay", "F32", 0, NULL);
    if (size->global_step)
        list_add(&l, "global_step", "I64", 0, NULL);
    write_sparse(&l, in_folder(state, "sd.safetensors"), size->global_step);
    if (model_open(*state, &m, &f) < 0)
        fail_msg("%s: %s", size->name, f.text);
    same_model(size->name, m, &size->model);
    assert_int_equal(weights_open(*state, &w, &f), 0);
    if (session_declare_weights(m, w, &f) < 0 || weights_check_files(w, &f) < 0)
        fail_msg("%s: %s", size->name, f.text);
    weights_free(w);
    model_free(m);
    list_done(&l);
}

static void test_sizes(void **state)
{
    put_tokenizer(state);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        test_one_size(state, &sizes[i]);
}

/* --- what is said ----------------------------------------------------------------------------- */

/* Tensors dropped from, or added to, a file of version 1, and the message. */
static const struct {
    const char *drop, *add, *text;
} damages[] = {
    {U "input_blocks.1.0.in_layers.2.weight", NULL,
     "sd.safetensors: tensor \"" U "input_blocks.1.0.in_layers.2.weight\" is missing"},
    {U "input_blocks.11.0.in_layers.2.weight", NULL,
     "sd.safetensors: tensor \"" U "input_blocks.11.0.in_layers.2.weight\" is missing"},
    {U "output_blocks.5.2.conv.bias", NULL,
     "sd.safetensors: tensor \"" U "output_blocks.5.2.conv.bias\" is missing"},
    {V "decoder.up.3.block.0.conv1.weight", NULL,
     "sd.safetensors: tensor \"" V "decoder.up.3.block.0.conv1.weight\" is missing"},
    {T "encoder.layers.11.mlp.fc2.bias", NULL,
     "sd.safetensors: tensor \"" T "encoder.layers.11.mlp.fc2.bias\" is missing"},
    {NULL, U "label_emb.0.0.weight",
     "sd.safetensors: tensor \"" U "label_emb.0.0.weight\" is not part of this model"},
    {NULL, "cond_stage_model.extra",
     "sd.safetensors: tensor \"cond_stage_model.extra\" is not part of this model"},
    {NULL, "conditioner.embedders.0.transformer.weight",
     "sd.safetensors: Stable Diffusion XL (tensor "
     "\"conditioner.embedders.0.transformer.weight\"); want a checkpoint of Stable Diffusion 1 or "
     "2"},
    {NULL, U "input_blocks.12.0.op.weight",
     "sd.safetensors: " U "input_blocks: more than 4 levels"},
};

static int open_all(const char *directory, struct fault *f)
{
    _cleanup_(weights_freep) struct weights *w = NULL;
    _cleanup_(model_freep) struct model *m = NULL;
    int r = model_open(directory, &m, f);

    if (r >= 0)
        r = weights_open(directory, &w, f);
    if (r >= 0)
        r = session_declare_weights(m, w, f);
    return r < 0 ? r : weights_check_files(w, f);
}

static void test_damages(void **state)
{
    put_tokenizer(state);
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        struct list l = {0};
        struct fault f = {0};
        list_model(&l, &sizes[0].model, &v1);
        if (damages[i].drop)
            list_drop(&l, damages[i].drop);
        if (damages[i].add)
            list_add(&l, damages[i].add, "F16", 1, (const uint64_t[]){4});
        write_sparse(&l, in_folder(state, "sd.safetensors"), 0);
        assert_int_equal(open_all(*state, &f), -EINVAL);
        assert_string_equal(f.text, damages[i].text);
        list_done(&l);
    }
}

static void want_fault(void **state, const char *first, const char *second)
{
    struct fault f = {0};

    assert_true(open_all(*state, &f) < 0);
    if (!strstr(f.text, first) || !strstr(f.text, second))
        fail_msg("got: %s", f.text);
}

/* The directory: nothing, a pickle, a file and no tokenizer, two files. */
static void test_directory(void **state)
{
    struct list l = {0};
    struct fault f = {0};

    want_fault(state, "no model", ".safetensors");
    assert_int_equal(file_write_atomic(in_folder(state, "sd-v1-4.ckpt"), "", 0, &f), 0);
    want_fault(state, "only pickles (sd-v1-4.ckpt)", "convert to safetensors");
    list_model(&l, &sizes[0].model, &v1);
    write_sparse(&l, in_folder(state, "sd.safetensors"), 0);
    want_fault(state, "/tokenizer: missing", "sd.safetensors brings no tokenizer");
    write_sparse(&l, in_folder(state, "other.safetensors"), 0);
    want_fault(state, "sd.safetensors", "want one checkpoint a directory");
    list_done(&l);
}

static const struct {
    const char *json, *first, *second;
} overrides[] = {
    {"[1]", "model.json", "object"},
    {"{\"head\": 8}", "model.json: head", "no key of ours"},
    {"{\"unet\": 5}", "model.json: unet", "want an object"},
    {"{\"heads\": 7}", "model.json: unet: attention_head_dim", "320 channels"},
    {"{\"norm_num_groups\": 48}", "model.json: unet: norm_num_groups", "48 groups"},
    {"{\"vae\": {\"norm_num_groups\": 48}}", "model.json: vae: norm_num_groups", "48 groups"},
    {"{\"activation\": \"relu\"}", "model.json: text_encoder: hidden_act", "relu"},
    {"{\"beta_start\": \"x\"}", "model.json: scheduler: beta_start", ""},
    {"{\"prediction_type\": \"flow\"}", "model.json: scheduler: prediction_type", "flow"},
    {"{\"pad_token_id\": 49408}", "model.json: pad_token_id", "vocabulary"},
};

static void test_overrides(void **state)
{
    struct list l = {0};
    struct model *m = NULL;
    struct fault f = {0};

    put_tokenizer(state);
    list_model(&l, &sizes[0].model, &v1);
    write_sparse(&l, in_folder(state, "sd.safetensors"), 0);
    list_done(&l);
    for (size_t i = 0; i < ARRAY_SIZE(overrides); i++) {
        const char *json = overrides[i].json;
        assert_int_equal(file_write_atomic(in_folder(state, "model.json"), json, strlen(json), &f),
                         0);
        want_fault(state, overrides[i].first, overrides[i].second);
    }
    static const char good[] = "{\"heads\": [5, 10, 20, 20], \"groups\": 16, \"hidden_act\": "
                               "\"gelu\", \"scheduler\": \"euler\", \"scaling_factor\": 0.25, "
                               "\"vae\": {\"norm_num_groups\": 8}, \"sample_size\": 32}";
    assert_int_equal(file_write_atomic(in_folder(state, "model.json"), good, strlen(good), &f), 0);
    if (model_open(*state, &m, &f) < 0)
        fail_msg("%s", f.text);
    assert_int_equal(m->unet.heads[2], 20);
    assert_int_equal(m->unet.groups, 16);
    assert_int_equal(m->vae.groups, 8);
    assert_int_equal(m->text.activation, ACTIVATION_GELU);
    assert_int_equal(m->scheduler, SCHEDULER_EULER);
    assert_float_equal(m->vae.scaling_factor, 0.25, 0);
    assert_int_equal(m->unet.sample_size, 32);
    model_free(m);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_left_out), IN_FOLDER(test_sizes),
        IN_FOLDER(test_damages),      IN_FOLDER(test_directory),       IN_FOLDER(test_overrides),
    };

    return cmocka_run_group_tests_name("single", tests, NULL, NULL);
}
