#include "vk/models/taesd.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- configuration ---------------------------------------------------------------------------- */

static int parse_side(const json_t *config, const char *widths, const char *counts,
                      struct taesd_side *side, struct fault *f)
{
    size_t levels = side->levels, blocks = side->levels;
    int r = json_get_u32_list(config, widths, 1, MODEL_WIDTH_MAX, MODEL_LEVELS_MAX, side->channels,
                              &levels, f);

    if (r >= 0)
        r = json_get_u32_list(config, counts, 1, 64, MODEL_LEVELS_MAX, side->blocks, &blocks, f);
    if (r < 0)
        return r;
    if (levels == 0 || levels != blocks)
        return fault_set(f, -EINVAL, "%s: %zu numbers for %zu levels of %s", counts, blocks, levels,
                         widths);
    for (size_t i = 1; i < levels; i++)
        if (side->channels[i] != side->channels[0])
            return fault_set(f, -EINVAL, "%s: %u and %u; only levels of one width are supported",
                             widths, side->channels[0], side->channels[i]);
    side->levels = (uint32_t)levels;
    return 0;
}

static int check_fixed(const json_t *config, struct fault *f)
{
    static const struct {
        const char *key, *value;
    } fixed[] = {{"act_fn", "relu"}, {"upsample_fn", "nearest"}};

    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        const json_t *value = json_object_get(config, fixed[i].key);
        if (value && !json_is_null(value) &&
            (!json_is_string(value) || strcmp(json_string_value(value), fixed[i].value) != 0))
            return fault_set(f, -EINVAL, "%s: only %s is supported", fixed[i].key, fixed[i].value);
    }
    return 0;
}

static int check_config(const struct taesd_config *c, uint32_t upsampling, struct fault *f)
{
    if (c->latent_channels != 4)
        return fault_set(f, -EINVAL, "latent_channels: %u; only 4 is supported",
                         c->latent_channels);
    if (upsampling != 2)
        return fault_set(f, -EINVAL, "upsampling_scaling_factor: %u; only 2 is supported",
                         upsampling);
    if (c->encoder.levels != c->decoder.levels)
        return fault_set(f, -EINVAL, "num_decoder_blocks: %u levels, but the encoder has %u",
                         c->decoder.levels, c->encoder.levels);
    return 0;
}

int taesd_config_parse(const json_t *config, struct taesd_config *ret_config, struct fault *f)
{
    struct taesd_config c = {
        .encoder = {.levels = 4, .channels = {64, 64, 64, 64}, .blocks = {1, 3, 3, 3}},
        .decoder = {.levels = 4, .channels = {64, 64, 64, 64}, .blocks = {3, 3, 3, 1}},
        .latent_channels = 4,
        .scaling_factor = 1};
    uint32_t upsampling = 2;
    int r = parse_side(config, "encoder_block_out_channels", "num_encoder_blocks", &c.encoder, f);

    if (r >= 0)
        r = parse_side(config, "decoder_block_out_channels", "num_decoder_blocks", &c.decoder, f);
    if (r >= 0)
        r = json_get_u32(config, "latent_channels", 1, 64, &c.latent_channels, f);
    if (r >= 0)
        r = json_get_u32(config, "upsampling_scaling_factor", 1, 64, &upsampling, f);
    if (r >= 0)
        r = json_get_double(config, "scaling_factor", 1e-6, 1e6, &c.scaling_factor, f);
    if (r >= 0)
        r = check_fixed(config, f);
    if (r >= 0)
        r = check_config(&c, upsampling, f);
    if (r < 0)
        return r;
    *ret_config = c;
    return 0;
}

float taesd_squash(float latent)
{
    return tanhf(latent / 3) * 3;
}

/* --- the graphs ------------------------------------------------------------------------------- */

/* A chain of modules, named by their number: layers.0, layers.1, … */
struct chain {
    struct planes p;
    vae_plane h;
    uint32_t next;
};

static void add_conv(struct chain *c, const struct plane_layer *layer)
{
    char name[16];
    struct plane_layer l = *layer;

    (void)snprintf(name, sizeof name, "%u", c->next++);
    l.src = c->h;
    l.conv = name;
    l.params.taps = 3;
    l.params.pad = 1;
    l.params.pad_end = 1;
    c->h = plane_conv(&c->p, &l);
}

/* AutoencoderTinyBlock: relu(conv.4(relu(conv.2(relu(conv.0(x))))) + x). */
static void add_block(struct chain *c, uint32_t width)
{
    static const char *const names[] = {"conv.0", "conv.2", "conv.4"};
    size_t mark = scope_push(c->p.g, "%u", c->next++);
    vae_plane x = c->h;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        bool is_last = i + 1 == ARRAY_SIZE(names);
        c->h = plane_conv(
            &c->p, &(struct plane_layer){
                       .src = c->h,
                       .residual = is_last ? x : 0,
                       .conv = names[i],
                       .params = {.out = width,
                                  .taps = 3,
                                  .pad = 1,
                                  .pad_end = 1,
                                  .activation = is_last ? ACTIVATION_NONE : ACTIVATION_RELU,
                                  .last_activation = is_last ? ACTIVATION_RELU : ACTIVATION_NONE}});
    }
    scope_pop(c->p.g, mark);
}

static struct chain chain_begin(struct graph *g, const struct band_limits *limits, tensor from)
{
    struct chain c;

    planes_init(&c.p, g, limits, 1, 1);
    c.h = plane_given(&c.p, from);
    c.next = 0;
    return c;
}

static tensor chain_end(struct chain *c, const char *label)
{
    tensor out = plane_tensor(&c->p, c->h);

    build_label(c->p.g, out, label);
    return out;
}

tensor build_taesd_decoder(struct graph *g, const struct taesd_config *config, tensor latents,
                           const struct band_limits *limits)
{
    const struct taesd_side *d = &config->decoder;
    struct chain c = chain_begin(g, limits, latents);
    size_t mark = scope_push(g, "decoder.layers");

    add_conv(&c, &(struct plane_layer){
                     .params = {.out = d->channels[0], .activation = ACTIVATION_RELU}});
    c.next++; /* the rectifier */
    for (uint32_t i = 0; i < d->levels; i++) {
        bool is_last = i + 1 == d->levels;
        for (uint32_t j = 0; j < d->blocks[i]; j++)
            add_block(&c, d->channels[i]);
        c.next += is_last ? 0 : 1; /* the upsampler */
        add_conv(&c, &(struct plane_layer){.is_kept = is_last,
                                           .params = {.out = is_last ? 3 : d->channels[i],
                                                      .upsample = !is_last,
                                                      .no_bias = !is_last,
                                                      .f32_out = is_last}});
    }
    scope_pop(g, mark);
    return chain_end(&c, "out");
}

tensor build_taesd_encoder(struct graph *g, const struct taesd_config *config, tensor image,
                           const struct band_limits *limits)
{
    const struct taesd_side *e = &config->encoder;
    struct chain c = chain_begin(g, limits, image);
    size_t mark = scope_push(g, "encoder.layers");

    for (uint32_t i = 0; i < e->levels; i++) {
        add_conv(&c, &(struct plane_layer){
                         .params = {.out = e->channels[i], .stride = i ? 2 : 1, .no_bias = i > 0}});
        for (uint32_t j = 0; j < e->blocks[i]; j++)
            add_block(&c, e->channels[i]);
    }
    add_conv(&c, &(struct plane_layer){
                     .is_kept = true, .params = {.out = config->latent_channels, .f32_out = true}});
    scope_pop(g, mark);
    return chain_end(&c, "latents");
}
