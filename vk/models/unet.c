#include "vk/models/unet.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define UNET_EDIT_CHANNELS 8u /* latents and a picture's latents */

/* --- configuration ---------------------------------------------------------------------------- */

/* Keys up to diffusers 0.31.0. Not here because any value is right: use_linear_projection (a 1x1
 * convolution is a matrix; the shapes tell), upcast_attention (scores are always f32), dropout. */
static const struct config_fixed fixed_keys[] = {
    {"_class_name", CONFIG_UNET_CLASS},
    {"addition_embed_type", CONFIG_NULL}, /* Stable Diffusion XL has it */
    {"act_fn", CONFIG_SILU},
    {"center_input_sample", CONFIG_FALSE},
    {"mid_block_scale_factor", CONFIG_ONE},
    {"mid_block_type", CONFIG_MID_CROSS_ATTENTION},
    {"mid_block_only_cross_attention", CONFIG_FALSE},
    {"dual_cross_attention", CONFIG_FALSE},
    {"only_cross_attention", CONFIG_FALSE},
    {"attention_type", CONFIG_DEFAULT},
    {"cross_attention_norm", CONFIG_NULL},
    {"num_attention_heads", CONFIG_NULL},
    {"transformer_layers_per_block", CONFIG_ONE},
    {"reverse_transformer_layers_per_block", CONFIG_ONE},
    {"class_embed_type", CONFIG_NULL},
    {"class_embeddings_concat", CONFIG_FALSE},
    {"num_class_embeds", CONFIG_NULL},
    {"projection_class_embeddings_input_dim", CONFIG_NULL},
    {"addition_time_embed_dim", CONFIG_NULL},
    {"encoder_hid_dim", CONFIG_NULL},
    {"encoder_hid_dim_type", CONFIG_NULL},
    {"resnet_time_scale_shift", CONFIG_DEFAULT},
    {"resnet_skip_time_act", CONFIG_FALSE},
    {"resnet_out_scale_factor", CONFIG_ONE},
    {"time_embedding_type", CONFIG_POSITIONAL},
    {"time_embedding_act_fn", CONFIG_NULL},
    {"timestep_post_act", CONFIG_NULL},
    {"conv_in_kernel", CONFIG_THREE},
    {"conv_out_kernel", CONFIG_THREE},
};

/* Which of the listed blocks have attention. Each word is `plain` or `attention`. */
static int parse_blocks(const json_t *config, const char *key, const char *plain,
                        const char *attention, uint32_t levels, bool *ret_attention,
                        struct fault *f)
{
    const char *names[MODEL_LEVELS_MAX];
    size_t count = 0;
    int r = json_get_string_list(config, key, MODEL_LEVELS_MAX, names, &count, f);

    if (r < 0)
        return r;
    if (r > 0 && count != levels)
        return fault_set(f, -EINVAL, "%s: %zu blocks for %u levels of block_out_channels", key,
                         count, levels);
    for (size_t i = 0; r > 0 && i < count; i++) {
        ret_attention[i] = strcmp(names[i], attention) == 0;
        if (!ret_attention[i] && strcmp(names[i], plain) != 0)
            return fault_set(f, -EINVAL, "%s: %.40s is unknown; %s and %s are", key, names[i],
                             plain, attention);
    }
    return 0;
}

/* attention_head_dim is one number or one a level. */
static int parse_heads(const json_t *config, struct unet_config *c, struct fault *f)
{
    uint32_t one = 8;
    size_t count = 0;
    int r;

    if (json_is_array(json_object_get(config, "attention_head_dim"))) {
        r = json_get_u32_list(config, "attention_head_dim", 1, 256, MODEL_LEVELS_MAX, c->heads,
                              &count, f);
        if (r < 0)
            return r;
        if (count != c->levels)
            return fault_set(f, -EINVAL, "attention_head_dim: %zu values for %u levels", count,
                             c->levels);
        return 0;
    }
    r = json_get_u32(config, "attention_head_dim", 1, 256, &one, f);
    for (uint32_t i = 0; i < c->levels; i++)
        c->heads[i] = one;
    return r;
}

/* A number, or the same one for every level. */
static int get_common(const json_t *config, const char *key, const uint32_t limits[2],
                      uint32_t *ret_value, struct fault *f)
{
    uint32_t list[MODEL_LEVELS_MAX];
    size_t count = 0;

    if (!json_is_array(json_object_get(config, key)))
        return json_get_u32(config, key, limits[0], limits[1], ret_value, f);
    int r = json_get_u32_list(config, key, limits[0], limits[1], MODEL_LEVELS_MAX, list, &count, f);
    for (size_t i = 0; r >= 0 && i < count; i++)
        if (list[i] != list[0])
            return fault_set(f, -EINVAL, "%s: %u and %u; only one for all levels is supported", key,
                             list[0], list[i]);
    if (r >= 0 && count > 0)
        *ret_value = list[0];
    return r;
}

static int parse_numbers(const json_t *config, struct unet_config *c, struct fault *f)
{
    const struct {
        const char *key;
        uint32_t limits[2];
        uint32_t *value;
    } rows[] = {
        {"layers_per_block", {1, MODEL_LAYERS_MAX}, &c->layers},
        {"norm_num_groups", {1, MODEL_WIDTH_MAX}, &c->groups},
        {"cross_attention_dim", {1, MODEL_WIDTH_MAX}, &c->context_width},
        {"in_channels", {1, 64}, &c->in_channels},
        {"out_channels", {1, 64}, &c->out_channels},
        {"sample_size", {1, 1024}, &c->sample_size},
        {"downsample_padding", {0, 1}, &c->downsample_padding},
        {"time_cond_proj_dim", {4, 4096}, &c->condition_width},
        {"time_embedding_dim", {1, 4 * MODEL_WIDTH_MAX}, &c->time_width},
    };
    double eps = 1e-5;
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++)
        r = get_common(config, rows[i].key, rows[i].limits, rows[i].value, f);
    if (r >= 0)
        r = json_get_double(config, "norm_eps", 0, 1, &eps, f);
    if (r >= 0)
        r = json_get_double(config, "freq_shift", 0, 1, &c->freq_shift, f);
    if (r >= 0)
        r = json_get_bool(config, "flip_sin_to_cos", &c->flip_sin_to_cos, f);
    c->eps = (float)eps;
    return r;
}

/* Heads count where there is attention: the deepest level has it in the middle. */
static bool has_heads(const struct unet_config *c, uint32_t level)
{
    return (level + 1 == c->levels && !c->lacks_middle) || c->down_attention[level] ||
           c->up_attention[c->levels - 1 - level];
}

/* What the numbers must fulfil among each other. */
static int check_config(const struct unet_config *c, struct fault *f)
{
    for (uint32_t i = 0; i < c->levels; i++) {
        if (c->channels[i] % c->groups != 0)
            return fault_set(f, -EINVAL,
                             "norm_num_groups: %u channels do not divide into %u groups",
                             c->channels[i], c->groups);
        if (has_heads(c, i) && c->channels[i] % c->heads[i] != 0)
            return fault_set(f, -EINVAL,
                             "attention_head_dim: %u channels do not divide into %u heads",
                             c->channels[i], c->heads[i]);
    }
    if (c->in_channels == UNET_EDIT_CHANNELS)
        return fault_set(
            f, -EINVAL,
            "in_channels %u: models that edit by instruction (InstructPix2Pix) are not "
            "supported",
            c->in_channels);
    if ((c->in_channels != UNET_LATENT_CHANNELS && c->in_channels != UNET_INPAINT_CHANNELS) ||
        c->out_channels != UNET_LATENT_CHANNELS)
        return fault_set(f, -EINVAL,
                         "in_channels %u, out_channels %u: want 4 and 4, or 9 and 4 (inpainting)",
                         c->in_channels, c->out_channels);
    return 0;
}

int unet_config_parse(const json_t *config, struct unet_config *ret_config, struct fault *f)
{
    struct unet_config c = {.levels = 4,
                            .channels = {320, 640, 1280, 1280},
                            .down_attention = {true, true, true, false},
                            .up_attention = {false, true, true, true},
                            .layers = 2,
                            .groups = 32,
                            .context_width = 1280,
                            .in_channels = 4,
                            .out_channels = 4,
                            .sample_size = 64,
                            .downsample_padding = 1,
                            .flip_sin_to_cos = true};
    size_t levels = c.levels;
    int r = json_get_u32_list(config, "block_out_channels", 1, MODEL_WIDTH_MAX, MODEL_LEVELS_MAX,
                              c.channels, &levels, f);

    if (r < 0)
        return r;
    c.levels = (uint32_t)levels;
    if (c.levels < 2)
        return fault_set(f, -EINVAL, "block_out_channels: %u levels; 2 to 4 are supported",
                         c.levels);
    r = parse_blocks(config, "down_block_types", "DownBlock2D", "CrossAttnDownBlock2D", c.levels,
                     c.down_attention, f);
    if (r >= 0)
        r = parse_blocks(config, "up_block_types", "UpBlock2D", "CrossAttnUpBlock2D", c.levels,
                         c.up_attention, f);
    if (r >= 0)
        r = parse_heads(config, &c, f);
    c.lacks_middle = json_is_null(json_object_get(config, "mid_block_type"));
    if (r >= 0)
        r = parse_numbers(config, &c, f);
    if (r >= 0)
        r = config_check_fixed(config, fixed_keys, ARRAY_SIZE(fixed_keys), f);
    if (r >= 0)
        r = check_config(&c, f);
    if (r < 0)
        return r;
    *ret_config = c;
    return 0;
}

/* --- what lies where: residual blocks and transformers in execution order --------------------- */

#define UNET_RESNETS_MAX (MODEL_LEVELS_MAX * (2 * MODEL_LAYERS_MAX + 1) + 2)

/* One residual block, and the transformer after it when the level has attention. */
struct unet_layer {
    char resnet[48], attention[48]; /* scopes; attention "" without */
    uint32_t out, heads;
};

struct unet_layers {
    struct unet_layer list[UNET_RESNETS_MAX];
    uint32_t count;
};

static void add_layer(struct unet_layers *l, const char *block, uint32_t j, uint32_t out,
                      uint32_t heads)
{
    struct unet_layer *layer = &l->list[l->count++];

    (void)snprintf(layer->resnet, sizeof layer->resnet, "%s.resnets.%u", block, j);
    layer->attention[0] = '\0';
    if (heads)
        (void)snprintf(layer->attention, sizeof layer->attention, "%s.attentions.%u", block, j);
    layer->out = out;
    layer->heads = heads;
}

static void list_layers(const struct unet_config *c, struct unet_layers *l)
{
    char block[24];
    uint32_t deepest = c->levels - 1;

    l->count = 0;
    for (uint32_t i = 0; i < c->levels; i++) {
        (void)snprintf(block, sizeof block, "down_blocks.%u", i);
        for (uint32_t j = 0; j < c->layers; j++)
            add_layer(l, block, j, c->channels[i], c->down_attention[i] ? c->heads[i] : 0);
    }
    if (!c->lacks_middle) {
        add_layer(l, "mid_block", 0, c->channels[deepest], c->heads[deepest]);
        add_layer(l, "mid_block", 1, c->channels[deepest], 0);
    }
    for (uint32_t i = 0; i < c->levels; i++) {
        uint32_t level = deepest - i;
        (void)snprintf(block, sizeof block, "up_blocks.%u", i);
        for (uint32_t j = 0; j < c->layers + 1; j++)
            add_layer(l, block, j, c->channels[level], c->up_attention[i] ? c->heads[level] : 0);
    }
}

uint32_t unet_transformers(const struct unet_config *c,
                           struct unet_transformer ret_list[UNET_TRANSFORMERS_MAX])
{
    struct unet_layers l;
    uint32_t n = 0;

    list_layers(c, &l);
    for (uint32_t i = 0; i < l.count; i++) {
        if (!l.list[i].heads)
            continue;
        memcpy(ret_list[n].scope, l.list[i].attention, sizeof ret_list[n].scope);
        ret_list[n].channels = l.list[i].out;
        ret_list[n].heads = l.list[i].heads;
        n++;
    }
    return n;
}

/* --- timestep --------------------------------------------------------------------------------- */

void unet_timestep_embedding(const struct unet_config *c, double timestep, float *ret_values)
{
    uint32_t width = c->channels[0], half = width / 2;
    float *sines = ret_values + (c->flip_sin_to_cos ? half : 0);
    float *cosines = ret_values + (c->flip_sin_to_cos ? 0 : half);

    for (uint32_t i = 0; i < half; i++) {
        /* f32 as in the reference: its arguments reach 1000, where the rounding of the frequency
         * shows */
        float exponent = -logf(10000.0f) * (float)i / (float)(half - c->freq_shift);
        float angle = (float)timestep * expf(exponent);
        sines[i] = sinf(angle);
        cosines[i] = cosf(angle);
    }
    if (width % 2)
        ret_values[width - 1] = 0;
}

void unet_guidance_embedding(const struct unet_config *c, double guidance_scale, float *ret_values)
{
    uint32_t half = c->condition_width / 2;
    float w = (float)(guidance_scale - 1) * 1000.0f; /* f32 throughout, as the reference */
    float rate = logf(10000.0f) / (float)(half - 1);

    for (uint32_t i = 0; i < half; i++) {
        float angle = w * expf((float)i * -rate);
        ret_values[i] = sinf(angle);
        ret_values[half + i] = cosf(angle);
    }
    if (c->condition_width % 2)
        ret_values[c->condition_width - 1] = 0;
}

/* Linear, SiLU, linear; SiLU again because every resnet starts with it; then all resnets'
 * projections in one GEMM: f32 [1, sum of the padded widths]. */
static tensor build_time(struct graph *g, const struct unet_config *c, const struct unet_layers *l,
                         const struct unet_inputs *in)
{
    struct linear_part parts[UNET_RESNETS_MAX];
    char names[UNET_RESNETS_MAX][80];
    struct linear_params silu = {.out = c->time_width ? c->time_width : 4 * c->channels[0],
                                 .bias = true,
                                 .activation = ACTIVATION_SILU};

    tensor t = in->embedding;
    if (c->condition_width)
        t = build_linear(g, in->condition, "time_embedding.cond_proj",
                         &(struct linear_params){.out = c->channels[0], .residual = t});
    t = build_linear(g, t, "time_embedding.linear_1", &silu);
    t = build_linear(g, t, "time_embedding.linear_2", &silu);
    for (uint32_t i = 0; i < l->count; i++) {
        (void)snprintf(names[i], sizeof names[i], "%s.time_emb_proj", l->list[i].resnet);
        parts[i] = (struct linear_part){.name = names[i], .out = l->list[i].out};
    }
    return build_fused_linear(g, t,
                              &(struct fused_params){.key = "time_emb_proj",
                                                     .parts = parts,
                                                     .count = l->count,
                                                     .bias = true,
                                                     .f32_out = true});
}

/* --- the network ------------------------------------------------------------------------------ */

/* A walk through the network: what build_unet hands from block to block. */
struct walk {
    struct graph *g;
    const struct unet_config *c;
    struct unet_layers layers;
    uint32_t layer;       /* next of layers.list */
    uint32_t time_offset; /* of that layer */
    tensor time;
    const tensor *kv; /* of the next transformer */
    tensor skips[MODEL_LEVELS_MAX * (MODEL_LAYERS_MAX + 1)];
    uint32_t skip_count;
};

static tensor walk_layer(struct walk *w, tensor h, tensor skip)
{
    const struct unet_layer *layer = &w->layers.list[w->layer++];
    size_t mark = scope_push(w->g, "%s", layer->resnet);

    h = build_resnet(w->g, h,
                     &(struct resnet_params){.out = layer->out,
                                             .groups = w->c->groups,
                                             .eps = w->c->eps,
                                             .concat = skip,
                                             .time = w->time,
                                             .time_offset = w->time_offset});
    scope_pop(w->g, mark);
    w->time_offset += pad8(layer->out);
    if (!layer->heads)
        return h;
    mark = scope_push(w->g, "%s", layer->attention);
    h = build_transformer(w->g, h,
                          &(struct transformer_params){.heads = layer->heads,
                                                       .groups = w->c->groups,
                                                       .context_kv = *w->kv++});
    scope_pop(w->g, mark);
    return h;
}

static tensor walk_down(struct walk *w, uint32_t i, tensor h)
{
    for (uint32_t j = 0; j < w->c->layers; j++) {
        h = walk_layer(w, h, 0);
        w->skips[w->skip_count++] = h;
    }
    if (i + 1 == w->c->levels)
        return h;
    size_t mark = scope_push(w->g, "down_blocks.%u.downsamplers.0", i);
    h = build_conv2d(w->g, h, "conv",
                     &(struct conv2d_params){.out = w->c->channels[i],
                                             .taps = 3,
                                             .stride = 2,
                                             .pad = w->c->downsample_padding,
                                             .pad_end = 1});
    scope_pop(w->g, mark);
    w->skips[w->skip_count++] = h;
    return h;
}

/* The upsampled size is the next skip's, so that odd sizes meet again. */
static tensor walk_up(struct walk *w, uint32_t i, tensor h)
{
    for (uint32_t j = 0; j < w->c->layers + 1; j++)
        h = walk_layer(w, h, w->skips[--w->skip_count]);
    if (i + 1 == w->c->levels)
        return h;
    const struct tensor_info *next = graph_tensor(w->g, w->skips[w->skip_count - 1]);
    struct conv2d_params conv = {.out = w->c->channels[w->c->levels - 1 - i],
                                 .taps = 3,
                                 .pad = 1,
                                 .pad_end = 1,
                                 .upsample = true,
                                 .upsampled_height = next->h,
                                 .upsampled_width = next->w};
    size_t mark = scope_push(w->g, "up_blocks.%u.upsamplers.0", i);
    h = build_conv2d(w->g, h, "conv", &conv);
    scope_pop(w->g, mark);
    return h;
}

static void label_block(struct graph *g, tensor h, const char *kind, uint32_t i)
{
    char label[32];

    (void)snprintf(label, sizeof label, "%s.%u", kind, i);
    build_label(g, h, label);
}

static tensor walk_blocks(struct walk *w, tensor h)
{
    w->skips[w->skip_count++] = h;
    for (uint32_t i = 0; i < w->c->levels; i++) {
        h = walk_down(w, i, h);
        label_block(w->g, h, "down_blocks", i);
    }
    if (!w->c->lacks_middle) {
        h = walk_layer(w, h, 0);
        h = walk_layer(w, h, 0);
        build_label(w->g, h, "mid_block");
    }
    for (uint32_t i = 0; i < w->c->levels; i++) {
        h = walk_up(w, i, h);
        label_block(w->g, h, "up_blocks", i);
    }
    return h;
}

void build_unet_context(struct graph *g, const struct unet_config *c, tensor context,
                        const tensor *kv)
{
    struct unet_transformer list[UNET_TRANSFORMERS_MAX];
    uint32_t n = unet_transformers(c, list);

    for (uint32_t i = 0; i < n; i++) {
        size_t mark = scope_push(g, "%s", list[i].scope);
        build_context_kv(g, context, list[i].channels, list[i].heads, kv[i]);
        scope_pop(g, mark);
    }
}

tensor build_unet(struct graph *g, const struct unet_config *c, const struct unet_inputs *in)
{
    struct walk w = {.g = g, .c = c, .kv = in->kv};
    struct groupnorm_params norm = {.groups = c->groups, .eps = c->eps, .silu = true};

    list_layers(c, &w.layers);
    w.time = build_time(g, c, &w.layers, in);
    tensor h = build_conv2d(
        g, in->latents, "conv_in",
        &(struct conv2d_params){.out = c->channels[0], .taps = 3, .pad = 1, .pad_end = 1});
    build_label(g, h, "conv_in");
    h = walk_blocks(&w, h);
    h = build_groupnorm(g, h, "conv_norm_out", &norm);
    h = build_conv2d(
        g, h, "conv_out",
        &(struct conv2d_params){
            .out = c->out_channels, .taps = 3, .pad = 1, .pad_end = 1, .f32_out = true});
    build_label(g, h, "out");
    return h;
}
