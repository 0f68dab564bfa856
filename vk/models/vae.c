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
    static const struct config_fixed fixed[] = {{"_class_name", CONFIG_VAE_CLASS},
                                                {"act_fn", CONFIG_SILU},
                                                {"use_quant_conv", CONFIG_TRUE},
                                                {"use_post_quant_conv", CONFIG_TRUE},
                                                {"mid_block_add_attention", CONFIG_TRUE}};
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

/* The parts of AttentionBlock, each in bands where the limits ask for them. */
struct attention_block {
    struct graph *g;
    const struct band_limits *limits;
    uint32_t width, padded; /* channels of a head: of the only one */
    tensor x, normed, o, out;
    tensor qkv[3]; /* queries, keys, values: one tensor three times, or, where that is too large to
                      be bound, three */
};

static tensor band_of(struct graph *g, tensor t, uint32_t first, uint32_t rows)
{
    return rows == graph_tensor(g, t)->h ? t : build_rows(g, t, first, rows);
}

static bool is_fused(const struct attention_block *b)
{
    return b->qkv[0] == b->qkv[1];
}

static void build_qkv(const struct attention_block *b, uint32_t first, uint32_t rows)
{
    const struct linear_part parts[] = {{.name = "to_q", .old_name = "query", .out = b->width},
                                        {.name = "to_k", .old_name = "key", .out = b->width},
                                        {.name = "to_v", .old_name = "value", .out = b->width}};

    for (uint32_t i = 0; i < (is_fused(b) ? 1 : ARRAY_SIZE(parts)); i++)
        (void)build_fused_linear(
            b->g, band_of(b->g, b->normed, first, rows),
            &(struct fused_params){.key = "to_qkv",
                                   .parts = parts,
                                   .count = ARRAY_SIZE(parts),
                                   .bias = true,
                                   .head_dim = b->width,
                                   .into = band_of(b->g, b->qkv[i], first, rows),
                                   .only = is_fused(b) ? 0 : i + 1});
}

static void build_heads(const struct attention_block *b, uint32_t first, uint32_t rows)
{
    uint32_t step = is_fused(b) ? b->padded : 0;

    (void)build_attention(
        b->g, &(struct attention_params){.q = {band_of(b->g, b->qkv[0], first, rows), 0},
                                         .k = {b->qkv[1], step},
                                         .v = {b->qkv[2], 2 * step},
                                         .heads = 1,
                                         .head_dim = b->width,
                                         .into = band_of(b->g, b->o, first, rows)});
}

static void build_to_out(const struct attention_block *b, uint32_t first, uint32_t rows)
{
    (void)build_linear(b->g, band_of(b->g, b->o, first, rows), "to_out.0",
                       &(struct linear_params){.out = b->width,
                                               .bias = true,
                                               .residual = band_of(b->g, b->x, first, rows),
                                               .old_name = "proj_attn",
                                               .into = band_of(b->g, b->out, first, rows)});
}

static void in_bands(const struct attention_block *b, uint64_t row_bytes, uint64_t row_macs,
                     void (*build)(const struct attention_block *, uint32_t, uint32_t))
{
    uint32_t h = graph_tensor(b->g, b->x)->h, w = graph_tensor(b->g, b->x)->w;
    uint32_t rows = band_rows(b->limits, &(struct band_need){.h = h,
                                                             .bytes = row_bytes,
                                                             .written = 2ull * w * b->padded,
                                                             .macs = row_macs});

    for (uint32_t first = 0; first < h && !b->g->fault.err; first += rows)
        build(b, first, first + rows < h ? rows : h - first);
}

static void make_qkv(struct attention_block *b, const struct tensor_info *in)
{
    uint64_t one = 2ull * in->h * in->w * b->padded;
    bool fused = !b->limits->bytes || 3 * one <= b->limits->bytes || b->padded % 64;

    for (int i = 0; i < 3; i++)
        b->qkv[i] = fused && i ? b->qkv[0]
                               : build_sheet(b->g, ELEMENT_F16, in->h, in->w,
                                             fused ? 3 * b->padded : b->padded);
}

/* AttentionBlock over all pixels with one head as wide as the block. */
static vae_plane build_attention_block(struct planes *p, vae_plane x)
{
    const struct tensor_info in = *graph_tensor(p->g, plane_tensor(p, x));
    struct groupnorm_params norm = {.groups = p->groups, .eps = p->eps};
    struct attention_block b = {.g = p->g,
                                .limits = &p->limits,
                                .width = in.layout.count,
                                .padded = pad8(in.layout.count),
                                .x = plane_tensor(p, x)};
    uint64_t row = (uint64_t)in.w * b.padded, pixels = (uint64_t)in.h * in.w;

    tensor stats = plane_stats(p, x, "group_norm");
    b.normed = build_groupnorm_apply(p->g, b.x, stats, "group_norm", &norm);
    make_qkv(&b, &in);
    b.o = build_sheet(p->g, ELEMENT_F16, in.h, in.w, b.width);
    b.out = build_sheet(p->g, build_stream_element(1, in.h, in.w), in.h, in.w, b.width);
    in_bands(&b, 2 * row, row * b.padded, build_qkv);
    in_bands(&b, 2 * row, 2 * row * pixels, build_heads);
    in_bands(&b, 4 * row, row * b.padded, build_to_out);
    return plane_given(p, b.out);
}

static const struct conv2d_params conv3 = {.taps = 3, .pad = 1, .pad_end = 1};

static struct conv2d_params conv3_to(uint32_t out)
{
    struct conv2d_params c = conv3;

    c.out = out;
    return c;
}

/* ResnetBlock2D without a time embedding; `is_kept`: its result. */
static vae_plane build_vae_resnet(struct planes *p, vae_plane x, uint32_t out, uint32_t j,
                                  bool is_kept)
{
    size_t mark = scope_push(p->g, "resnets.%u", j);
    vae_plane shortcut = x;

    vae_plane h = plane_conv(
        p,
        &(struct plane_layer){.src = x, .norm = "norm1", .conv = "conv1", .params = conv3_to(out)});
    if (p->items[x].c != out)
        shortcut = plane_conv(p, &(struct plane_layer){.src = x,
                                                       .conv = "conv_shortcut",
                                                       .is_fleeting = true,
                                                       .params = {.out = out, .taps = 1}});
    h = plane_conv(p, &(struct plane_layer){.src = h,
                                            .residual = shortcut,
                                            .norm = "norm2",
                                            .conv = "conv2",
                                            .is_kept = is_kept,
                                            .params = conv3_to(out)});
    scope_pop(p->g, mark);
    return h;
}

static vae_plane build_mid_block(struct planes *p, vae_plane h, uint32_t width)
{
    size_t mark = scope_push(p->g, "mid_block");

    h = build_vae_resnet(p, h, width, 0, true);
    size_t attention = scope_push(p->g, "attentions.0");
    h = build_attention_block(p, h);
    scope_pop(p->g, attention);
    h = build_vae_resnet(p, h, width, 1, false);
    scope_pop(p->g, mark);
    return h;
}

static vae_plane build_up_block(struct planes *p, const struct vae_config *c, vae_plane h,
                                uint32_t i)
{
    uint32_t width = c->channels[c->levels - 1 - i];
    size_t mark = scope_push(p->g, "up_blocks.%u", i);

    for (uint32_t j = 0; j < c->layers + 1; j++)
        h = build_vae_resnet(p, h, width, j, false);
    if (i + 1 < c->levels) {
        struct conv2d_params up = conv3_to(width);
        up.upsample = true;
        h = plane_conv(p,
                       &(struct plane_layer){.src = h, .conv = "upsamplers.0.conv", .params = up});
    }
    scope_pop(p->g, mark);
    return h;
}

static vae_plane build_conv3(struct planes *p, vae_plane h, const char *name, uint32_t out)
{
    return plane_conv(p, &(struct plane_layer){.src = h, .conv = name, .params = conv3_to(out)});
}

/* Labels what is there to be labelled. */
static void label_plane(struct planes *p, vae_plane h, const char *format, uint32_t i)
{
    char label[32];

    (void)snprintf(label, sizeof label, format, i);
    if (plane_tensor(p, h))
        build_label(p->g, plane_tensor(p, h), label);
}

tensor build_vae_decoder(struct graph *g, const struct vae_config *c, tensor latents,
                         const struct band_limits *limits)
{
    struct planes p;
    struct conv2d_params last = conv3_to(3);

    planes_init(&p, g, limits, c->groups, VAE_EPS);
    vae_plane h =
        plane_conv(&p, &(struct plane_layer){.src = plane_given(&p, latents),
                                             .conv = "post_quant_conv",
                                             .params = {.out = c->latent_channels, .taps = 1}});
    label_plane(&p, h, "post_quant_conv", 0);
    size_t mark = scope_push(g, "decoder");
    h = build_conv3(&p, h, "conv_in", c->channels[c->levels - 1]);
    label_plane(&p, h, "conv_in", 0);
    h = build_mid_block(&p, h, c->channels[c->levels - 1]);
    label_plane(&p, h, "mid_block", 0);
    for (uint32_t i = 0; i < c->levels; i++) {
        h = build_up_block(&p, c, h, i);
        label_plane(&p, h, "up_blocks.%u", i);
    }
    last.f32_out = true;
    h = plane_conv(&p, &(struct plane_layer){.src = h,
                                             .norm = "conv_norm_out",
                                             .conv = "conv_out",
                                             .is_kept = true,
                                             .params = last});
    label_plane(&p, h, "out", 0);
    scope_pop(g, mark);
    return plane_tensor(&p, h);
}

/* --- the encoder ------------------------------------------------------------------------------ */

static vae_plane build_down_block(struct planes *p, const struct vae_config *c, vae_plane h,
                                  uint32_t i)
{
    size_t mark = scope_push(p->g, "down_blocks.%u", i);

    for (uint32_t j = 0; j < c->layers; j++)
        h = build_vae_resnet(p, h, c->channels[i], j, false);
    if (i + 1 < c->levels)
        h = plane_conv(
            p, &(struct plane_layer){
                   .src = h,
                   .conv = "downsamplers.0.conv",
                   .params = {.out = c->channels[i], .taps = 3, .stride = 2, .pad_end = 1}});
    scope_pop(p->g, mark);
    return h;
}

tensor build_vae_encoder(struct graph *g, const struct vae_config *c, tensor image,
                         const struct band_limits *limits)
{
    struct planes p;
    uint32_t moments = 2 * c->latent_channels;

    planes_init(&p, g, limits, c->groups, VAE_EPS);
    size_t mark = scope_push(g, "encoder");
    vae_plane h = build_conv3(&p, plane_given(&p, image), "conv_in", c->channels[0]);
    label_plane(&p, h, "conv_in", 0);
    for (uint32_t i = 0; i < c->levels; i++) {
        h = build_down_block(&p, c, h, i);
        label_plane(&p, h, "down_blocks.%u", i);
    }
    h = build_mid_block(&p, h, c->channels[c->levels - 1]);
    label_plane(&p, h, "mid_block", 0);
    h = plane_conv(&p, &(struct plane_layer){.src = h,
                                             .norm = "conv_norm_out",
                                             .conv = "conv_out",
                                             .params = conv3_to(moments)});
    scope_pop(g, mark);
    h = plane_conv(&p,
                   &(struct plane_layer){.src = h,
                                         .conv = "quant_conv",
                                         .is_kept = true,
                                         .params = {.out = moments, .taps = 1, .f32_out = true}});
    label_plane(&p, h, "moments", 0);
    return plane_tensor(&p, h);
}
