#include "vk/models/clip_vision.h"

#include <errno.h>
#include <string.h>

#include "vk/models/clip_layer.h"

/* --- configuration ---------------------------------------------------------------------------- */

static int parse_rows(const json_t *vision, struct clip_vision_config *c, struct fault *f)
{
    uint32_t channels = 3;
    const struct {
        const char *key;
        uint32_t min, max;
        uint32_t *value;
    } rows[] = {
        {"hidden_size", 1, MODEL_WIDTH_MAX, &c->hidden_size},
        {"intermediate_size", 1, 4 * MODEL_WIDTH_MAX, &c->intermediate_size},
        {"num_hidden_layers", 1, CLIP_VISION_LAYERS_MAX, &c->layers},
        {"num_attention_heads", 1, 256, &c->heads},
        {"image_size", 1, CLIP_VISION_IMAGE_MAX, &c->image_size},
        {"patch_size", 1, 256, &c->patch_size},
        {"num_channels", 3, 3, &channels},
    };
    double eps = 1e-5;
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++)
        r = json_get_u32(vision, rows[i].key, rows[i].min, rows[i].max, rows[i].value, f);
    if (r >= 0)
        r = json_get_double(vision, "layer_norm_eps", 0, 1, &eps, f);
    if (r >= 0)
        r = clip_parse_activation(vision, &c->activation, f);
    c->eps = (float)eps;
    return r < 0 ? r : 0;
}

static int check_sizes(const struct clip_vision_config *c, struct fault *f)
{
    if (c->hidden_size % c->heads != 0)
        return fault_set(f, -EINVAL,
                         "num_attention_heads: hidden_size %u does not divide into %u heads",
                         c->hidden_size, c->heads);
    if (c->patch_size > c->image_size)
        return fault_set(f, -EINVAL, "patch_size: %u, but image_size is %u", c->patch_size,
                         c->image_size);
    if (clip_vision_tokens(c) > CLIP_VISION_TOKENS_MAX)
        return fault_set(f, -EINVAL, "patch_size: %u patches, at most %u are possible",
                         clip_vision_tokens(c) - 1, CLIP_VISION_TOKENS_MAX - 1);
    return 0;
}

int clip_vision_config_parse(const json_t *config, struct clip_vision_config *ret_config,
                             struct fault *f)
{
    static const char *const keys[] = {"vision_config_dict", "vision_config"};
    struct clip_vision_config c = {.hidden_size = 768,
                                   .intermediate_size = 3072,
                                   .layers = 12,
                                   .heads = 12,
                                   .image_size = 224,
                                   .patch_size = 32,
                                   .projection = 512};
    const json_t *vision = NULL;
    const char *key = "";
    int r = json_get_u32(config, "projection_dim", 1, MODEL_WIDTH_MAX, &c.projection, f);

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(keys) && !vision; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        key = keys[i];
        vision = value && !json_is_null(value) ? value : NULL;
    }
    if (!json_is_object(vision))
        return fault_set(f, -EINVAL, "%s: %s", key, vision ? "no object" : "is missing");
    r = parse_rows(vision, &c, f);
    if (r >= 0)
        r = check_sizes(&c, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", key);
    *ret_config = c;
    return 0;
}

/* --- the graph -------------------------------------------------------------------------------- */

void clip_vision_unfold(const struct clip_vision_config *c, const float *image, float *ret_rows)
{
    uint32_t grid = clip_vision_grid(c), p = c->patch_size, padded = pad8(3 * p * p);

    memset(ret_rows, 0, (size_t)clip_vision_tokens(c) * padded * sizeof *ret_rows);
    for (uint32_t patch = 0; patch < grid * grid; patch++) {
        const float *corner =
            image + 3 * ((size_t)(patch / grid * p) * c->image_size + (size_t)(patch % grid * p));
        float *row = ret_rows + (size_t)(1 + patch) * padded;
        for (uint32_t i = 0; i < 3 * p * p; i++) {
            uint32_t channel = i / (p * p), y = i / p % p, x = i % p;
            row[i] = corner[3 * ((size_t)y * c->image_size + x) + channel];
        }
    }
}

static void know_position_ids(struct graph *g)
{
    const struct weight_known position_ids = {
        .component = g->component, .name = "vision_model.vision_model.embeddings.position_ids"};

    if (!g->fault.err)
        (void)weights_know(g->weights, &position_ids, &g->fault); /* the fault stays in the graph */
}

static tensor build_layers(struct graph *g, const struct clip_vision_config *c, tensor h)
{
    const struct clip_layer layer = {.width = c->hidden_size,
                                     .intermediate = c->intermediate_size,
                                     .heads = c->heads,
                                     .eps = c->eps,
                                     .activation = c->activation};
    char label[32];

    for (uint32_t i = 0; i < c->layers; i++) {
        size_t inner = scope_push(g, "encoder.layers.%u", i);
        h = build_clip_layer(g, &layer, h);
        scope_pop(g, inner);
        (void)snprintf(label, sizeof label, "layers.%u", i);
        build_label(g, h, label);
    }
    return h;
}

tensor build_clip_vision(struct graph *g, const struct clip_vision_config *c, tensor patches,
                         tensor first)
{
    const struct layernorm_params norm = {.eps = c->eps, .f32_out = true};
    const struct linear_part projection = {.name = "visual_projection", .out = c->projection};

    know_position_ids(g);
    size_t mark = scope_push(g, "vision_model.vision_model");
    size_t inner = scope_push(g, "embeddings");
    tensor h = build_patch_embed(
        g, patches, first,
        &(struct patch_embed_params){.c = c->hidden_size, .patch = c->patch_size});
    scope_pop(g, inner);
    build_label(g, h, "embeddings");
    h = build_layernorm(g, h, "pre_layrnorm", &norm);
    build_label(g, h, "pre");
    h = build_layers(g, c, h);
    h = build_layernorm(g, h, "post_layernorm", &norm);
    build_label(g, h, "post");
    scope_pop(g, mark);
    h = build_fused_linear(
        g, h,
        &(struct fused_params){
            .key = "visual_projection", .parts = &projection, .count = 1, .f32_out = true});
    build_label(g, h, "out");
    return h;
}
