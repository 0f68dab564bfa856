#include "vk/models/vae.h"

#include <errno.h>
#include <string.h>

#define VAE_EPS            1e-6f
#define VAE_SCALING_FACTOR 0.18215

/* --- configuration ---------------------------------------------------------------------------- */

static int check_blocks(const json_t *config, const char *key, const char *want, uint32_t levels,
                        struct fault *f)
{
    const char *names[MODEL_LEVELS_MAX];
    size_t count = 0;
    int r = json_get_string_list(config, key, MODEL_LEVELS_MAX, names, &count, f);

    if (r <= 0)
        return r;
    if (count != levels)
        return fault_set(f, -EINVAL, "%s: %zu blocks for %u levels of block_out_channels", key,
                         count, levels);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], want) != 0)
            return fault_set(f, -EINVAL, "%s: %.40s is unknown; %s is", key, names[i], want);
    }
    return 0;
}

static int check_config(const struct vae_config *c, struct fault *f)
{
    if (c->levels == 0)
        return fault_set(f, -EINVAL, "block_out_channels: want 1 to %u levels", MODEL_LEVELS_MAX);
    for (uint32_t i = 0; i < c->levels; i++) {
        if (c->channels[i] % c->groups != 0)
            return fault_set(f, -EINVAL,
                             "norm_num_groups: %u channels do not divide into %u groups",
                             c->channels[i], c->groups);
    }
    if (c->latent_channels != 4)
        return fault_set(f, -EINVAL, "latent_channels: %u; only 4 is supported",
                         c->latent_channels);
    return 0;
}

int vae_config_parse(const json_t *config, struct vae_config *ret_config, struct fault *f)
{
    static const struct config_fixed fixed[] = {{"act_fn", CONFIG_SILU}};
    struct vae_config c = {.levels = 1,
                           .channels = {64},
                           .layers = 1,
                           .groups = 32,
                           .latent_channels = 4,
                           .scaling_factor = VAE_SCALING_FACTOR};
    size_t levels = c.levels;
    int r = json_get_u32_list(config, "block_out_channels", 1, MODEL_WIDTH_MAX, MODEL_LEVELS_MAX,
                              c.channels, &levels, f);

    c.levels = (uint32_t)levels;
    if (r >= 0)
        r = check_blocks(config, "down_block_types", "DownEncoderBlock2D", c.levels, f);
    if (r >= 0)
        r = check_blocks(config, "up_block_types", "UpDecoderBlock2D", c.levels, f);
    if (r >= 0)
        r = json_get_u32(config, "layers_per_block", 1, MODEL_LAYERS_MAX, &c.layers, f);
    if (r >= 0)
        r = json_get_u32(config, "norm_num_groups", 1, MODEL_WIDTH_MAX, &c.groups, f);
    if (r >= 0)
        r = json_get_u32(config, "latent_channels", 1, 64, &c.latent_channels, f);
    if (r >= 0)
        r = json_get_double(config, "scaling_factor", 1e-6, 1e6, &c.scaling_factor, f);
    if (r >= 0)
        r = config_check_fixed(config, fixed, ARRAY_SIZE(fixed), f);
    if (r >= 0)
        r = check_config(&c, f);
    if (r < 0)
        return r;
    *ret_config = c;
    return 0;
}

/* --- blocks ----------------------------------------------------------------------------------- */

/* AttentionBlock over all pixels with one head as wide as the block. */
static tensor build_attention_block(struct graph *g, const struct vae_config *c, tensor x)
{
    uint32_t width = graph_tensor(g, x)->layout.count, padded = pad8(width);
    const struct linear_part parts[] = {{.name = "to_q", .old_name = "query", .out = width},
                                        {.name = "to_k", .old_name = "key", .out = width},
                                        {.name = "to_v", .old_name = "value", .out = width}};
    struct groupnorm_params norm = {.groups = c->groups, .eps = VAE_EPS};

    tensor h = build_groupnorm(g, x, "group_norm", &norm);
    tensor qkv = build_fused_linear(
        g, h,
        &(struct fused_params){
            .key = "to_qkv", .parts = parts, .count = 3, .bias = true, .head_dim = width});
    tensor o = build_attention(g, &(struct attention_params){.q = {qkv, 0},
                                                             .k = {qkv, padded},
                                                             .v = {qkv, 2 * padded},
                                                             .heads = 1,
                                                             .head_dim = width});
    return build_linear(g, o, "to_out.0",
                        &(struct linear_params){
                            .out = width, .bias = true, .residual = x, .old_name = "proj_attn"});
}

static tensor build_vae_resnet(struct graph *g, const struct vae_config *c, tensor h, uint32_t out,
                               uint32_t j)
{
    size_t mark = scope_push(g, "resnets.%u", j);

    h = build_resnet(g, h,
                     &(struct resnet_params){.out = out, .groups = c->groups, .eps = VAE_EPS});
    scope_pop(g, mark);
    return h;
}

static tensor build_mid_block(struct graph *g, const struct vae_config *c, tensor h)
{
    uint32_t width = c->channels[c->levels - 1];
    size_t mark = scope_push(g, "mid_block");

    h = build_vae_resnet(g, c, h, width, 0);
    size_t attention = scope_push(g, "attentions.0");
    h = build_attention_block(g, c, h);
    scope_pop(g, attention);
    h = build_vae_resnet(g, c, h, width, 1);
    scope_pop(g, mark);
    return h;
}

static tensor build_up_block(struct graph *g, const struct vae_config *c, tensor h, uint32_t i)
{
    uint32_t width = c->channels[c->levels - 1 - i];
    size_t mark = scope_push(g, "up_blocks.%u", i);

    for (uint32_t j = 0; j < c->layers + 1; j++)
        h = build_vae_resnet(g, c, h, width, j);
    if (i + 1 < c->levels) {
        const struct tensor_info in = *graph_tensor(g, h);
        h = build_conv2d(g, h, "upsamplers.0.conv",
                         &(struct conv2d_params){.out = width,
                                                 .taps = 3,
                                                 .pad = 1,
                                                 .pad_end = 1,
                                                 .upsample = true,
                                                 .upsampled_height = 2 * in.h,
                                                 .upsampled_width = 2 * in.w});
    }
    scope_pop(g, mark);
    return h;
}

static tensor build_conv3(struct graph *g, tensor h, const char *name, uint32_t out, bool f32_out)
{
    return build_conv2d(
        g, h, name,
        &(struct conv2d_params){.out = out, .taps = 3, .pad = 1, .pad_end = 1, .f32_out = f32_out});
}

tensor build_vae_decoder(struct graph *g, const struct vae_config *c, tensor latents)
{
    struct groupnorm_params norm = {.groups = c->groups, .eps = VAE_EPS, .silu = true};
    char label[32];

    tensor h = build_conv2d(g, latents, "post_quant_conv",
                            &(struct conv2d_params){.out = c->latent_channels, .taps = 1});
    build_label(g, h, "post_quant_conv");
    size_t mark = scope_push(g, "decoder");
    h = build_conv3(g, h, "conv_in", c->channels[c->levels - 1], false);
    build_label(g, h, "conv_in");
    h = build_mid_block(g, c, h);
    build_label(g, h, "mid_block");
    for (uint32_t i = 0; i < c->levels; i++) {
        h = build_up_block(g, c, h, i);
        (void)snprintf(label, sizeof label, "up_blocks.%u", i);
        build_label(g, h, label);
    }
    h = build_groupnorm(g, h, "conv_norm_out", &norm);
    h = build_conv3(g, h, "conv_out", 3, true);
    build_label(g, h, "out");
    scope_pop(g, mark);
    return h;
}

/* --- the encoder ------------------------------------------------------------------------------ */

static tensor build_down_block(struct graph *g, const struct vae_config *c, tensor h, uint32_t i)
{
    size_t mark = scope_push(g, "down_blocks.%u", i);

    for (uint32_t j = 0; j < c->layers; j++)
        h = build_vae_resnet(g, c, h, c->channels[i], j);
    if (i + 1 < c->levels)
        h = build_conv2d(
            g, h, "downsamplers.0.conv",
            &(struct conv2d_params){.out = c->channels[i], .taps = 3, .stride = 2, .pad_end = 1});
    scope_pop(g, mark);
    return h;
}

tensor build_vae_encoder(struct graph *g, const struct vae_config *c, tensor image)
{
    struct groupnorm_params norm = {.groups = c->groups, .eps = VAE_EPS, .silu = true};
    char label[32];

    size_t mark = scope_push(g, "encoder");
    tensor h = build_conv3(g, image, "conv_in", c->channels[0], false);
    build_label(g, h, "conv_in");
    for (uint32_t i = 0; i < c->levels; i++) {
        h = build_down_block(g, c, h, i);
        (void)snprintf(label, sizeof label, "down_blocks.%u", i);
        build_label(g, h, label);
    }
    h = build_mid_block(g, c, h);
    build_label(g, h, "mid_block");
    h = build_groupnorm(g, h, "conv_norm_out", &norm);
    h = build_conv3(g, h, "conv_out", 2 * c->latent_channels, false);
    scope_pop(g, mark);
    h = build_conv2d(
        g, h, "quant_conv",
        &(struct conv2d_params){.out = 2 * c->latent_channels, .taps = 1, .f32_out = true});
    build_label(g, h, "moments");
    return h;
}
