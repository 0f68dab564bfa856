#include "vk/pipeline/model-single.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vk/models/unet.h"
#include "vk/sample/sched.h"

#define GROUPS       32u
#define V1_HEADS     8u
#define HEAD_WIDTH   64u
#define V2_BASE_STEP 875000u /* global_step of the 512-pixel base model of version 2 */
#define SIDE         64u     /* latents: 512 pixels */
#define V2_SIDE      96u     /* 768 */

/* --- from the facts --------------------------------------------------------------------------- */

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint32_t groups_of(const uint32_t *channels, uint32_t levels)
{
    uint32_t groups = GROUPS;

    for (uint32_t i = 0; i < levels; i++)
        groups = gcd(groups, channels[i]);
    return groups;
}

static json_t *numbers(const uint32_t *values, uint32_t count)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < count; i++)
        (void)json_array_append_new(list, json_integer(values[i])); /* json_ran_out() tells */
    return list;
}

/* Block names of the levels, from their attention. */
static json_t *blocks(const bool *attention, uint32_t levels, const char *with, const char *without)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < levels; i++)
        (void)json_array_append_new(list, json_string(attention[i] ? with : without));
    return list;
}

static bool is_v_prediction(const struct single_facts *facts)
{
    return facts->is_v2 && facts->unet.in_channels == UNET_LATENT_CHANNELS &&
           facts->global_step != V2_BASE_STEP;
}

static json_t *unet_config(const struct single_facts *facts)
{
    uint32_t levels = facts->unet.levels, heads[SINGLE_LEVELS_MAX];
    const uint32_t *channels = facts->unet.channels;

    for (uint32_t i = 0; i < levels; i++)
        heads[i] =
            facts->is_v2 ? channels[i] / gcd(HEAD_WIDTH, channels[i]) : gcd(V1_HEADS, channels[i]);
    json_t *config = json_pack(
        "{s:o, s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:i, s:i}", "block_out_channels",
        numbers(channels, levels), "attention_head_dim", numbers(heads, levels), "down_block_types",
        blocks(facts->unet.down_attention, levels, "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types",
        blocks(facts->unet.up_attention, levels, "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block", (int)facts->unet.layers, "norm_num_groups",
        (int)groups_of(channels, levels), "cross_attention_dim", (int)facts->unet.context_width,
        "in_channels", (int)facts->unet.in_channels, "out_channels", (int)facts->unet.out_channels,
        "sample_size", (int)(is_v_prediction(facts) ? V2_SIDE : SIDE));
    if (facts->unet.condition_width)
        (void)json_object_set_new(config, "time_cond_proj_dim",
                                  json_integer(facts->unet.condition_width));
    return config;
}

static json_t *vae_config(const struct single_facts *facts)
{
    return json_pack("{s:o, s:i, s:i, s:i}", "block_out_channels",
                     numbers(facts->vae.channels, facts->vae.levels), "layers_per_block",
                     (int)facts->vae.layers, "norm_num_groups",
                     (int)groups_of(facts->vae.channels, facts->vae.levels), "latent_channels",
                     (int)facts->vae.latent_channels);
}

static json_t *text_config(const struct single_facts *facts)
{
    uint32_t width = facts->text.width;

    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:s}", "vocab_size",
                     (int)facts->text.vocab_size, "hidden_size", (int)width, "intermediate_size",
                     (int)facts->text.inner, "num_hidden_layers", (int)facts->text.layers,
                     "num_attention_heads", (int)(width / gcd(HEAD_WIDTH, width)),
                     "max_position_embeddings", (int)facts->text.positions, "hidden_act",
                     facts->is_v2 ? "gelu" : "quick_gelu");
}

static json_t *scheduler_config(const struct single_facts *facts)
{
    bool is_v = is_v_prediction(facts);

    return json_pack("{s:s, s:s, s:f, s:f, s:s, s:i, s:b, s:b, s:b, s:i}", "_class_name",
                     is_v ? "DDIMScheduler" : "PNDMScheduler", "prediction_type",
                     is_v ? "v_prediction" : "epsilon", "beta_start", 0.00085, "beta_end", 0.012,
                     "beta_schedule", "scaled_linear", "num_train_timesteps", 1000,
                     "set_alpha_to_one", 0, "skip_prk_steps", 1, "clip_sample", 0, "steps_offset",
                     1);
}

/* --- model.json ------------------------------------------------------------------------------- */

/* Where a key at the top of model.json belongs, under which name. */
static const struct {
    const char *key;
    enum single_config config;
    const char *name; /* NULL: the key */
} top_keys[] = {
    {"attention_head_dim", SINGLE_UNET, NULL},
    {"heads", SINGLE_UNET, "attention_head_dim"},
    {"norm_num_groups", SINGLE_UNET, NULL},
    {"norm_num_groups", SINGLE_VAE, NULL},
    {"groups", SINGLE_UNET, "norm_num_groups"},
    {"groups", SINGLE_VAE, "norm_num_groups"},
    {"norm_eps", SINGLE_UNET, NULL},
    {"sample_size", SINGLE_UNET, NULL},
    {"flip_sin_to_cos", SINGLE_UNET, NULL},
    {"freq_shift", SINGLE_UNET, NULL},
    {"downsample_padding", SINGLE_UNET, NULL},
    {"upcast_attention", SINGLE_UNET, NULL},
    {"use_linear_projection", SINGLE_UNET, NULL},
    {"time_cond_proj_dim", SINGLE_UNET, NULL},
    {"scaling_factor", SINGLE_VAE, NULL},
    {"hidden_act", SINGLE_TEXT, NULL},
    {"activation", SINGLE_TEXT, "hidden_act"},
    {"num_attention_heads", SINGLE_TEXT, NULL},
    {"num_hidden_layers", SINGLE_TEXT, NULL},
    {"layer_norm_eps", SINGLE_TEXT, NULL},
    {"_class_name", SINGLE_SCHEDULER, NULL},
    {"prediction_type", SINGLE_SCHEDULER, NULL},
    {"beta_start", SINGLE_SCHEDULER, NULL},
    {"beta_end", SINGLE_SCHEDULER, NULL},
    {"beta_schedule", SINGLE_SCHEDULER, NULL},
    {"trained_betas", SINGLE_SCHEDULER, NULL},
    {"num_train_timesteps", SINGLE_SCHEDULER, NULL},
    {"clip_sample", SINGLE_SCHEDULER, NULL},
    {"clip_sample_range", SINGLE_SCHEDULER, NULL},
    {"set_alpha_to_one", SINGLE_SCHEDULER, NULL},
    {"skip_prk_steps", SINGLE_SCHEDULER, NULL},
    {"steps_offset", SINGLE_SCHEDULER, NULL},
    {"timestep_spacing", SINGLE_SCHEDULER, NULL},
    {"use_karras_sigmas", SINGLE_SCHEDULER, NULL},
    {"rescale_betas_zero_snr", SINGLE_SCHEDULER, NULL},
    {"final_sigmas_type", SINGLE_SCHEDULER, NULL},
    {"lower_order_final", SINGLE_SCHEDULER, NULL},
    {"original_inference_steps", SINGLE_SCHEDULER, NULL},
    {"timestep_scaling", SINGLE_SCHEDULER, NULL},
};

static const struct {
    const char *key;
    enum single_config config;
} sections[] = {
    {"unet", SINGLE_UNET},           {"vae", SINGLE_VAE},
    {"text_encoder", SINGLE_TEXT},   {"text", SINGLE_TEXT},
    {"scheduler", SINGLE_SCHEDULER},
};

/* "scheduler" may be a word: one of ours or a class name. */
static int override_scheduler(json_t *config, const char *word)
{
    const char *class_name = word;
    size_t length = strlen(word);

    for (uint32_t i = 0; i < SCHED_COUNT; i++) {
        if (strcmp(word, scheds[i].name) == 0) {
            class_name = scheds[i].class_names;
            length = strcspn(class_name, " ");
        }
    }
    return json_object_set_new(config, "_class_name", json_stringn(class_name, length));
}

/* 1: it was a section, 0: it is none. */
static int override_section(struct single_configs *c, const char *key, json_t *value,
                            struct fault *f)
{
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
        if (strcmp(key, sections[i].key) != 0)
            continue;
        json_t *config = c->of[sections[i].config];
        if (sections[i].config == SINGLE_SCHEDULER && json_is_string(value))
            return override_scheduler(config, json_string_value(value)) < 0
                       ? fault_set(f, -ENOMEM, "out of memory")
                       : 1;
        if (!json_is_object(value))
            return fault_set(f, -EINVAL, "model.json: %s: want an object", key);
        return json_object_update(config, value) < 0 ? fault_set(f, -ENOMEM, "out of memory") : 1;
    }
    return 0;
}

static int override_key(struct single_configs *c, const char *key, json_t *value, struct fault *f)
{
    int found = 0;

    for (size_t i = 0; i < ARRAY_SIZE(top_keys); i++) {
        if (strcmp(key, top_keys[i].key) != 0)
            continue;
        const char *name = top_keys[i].name ? top_keys[i].name : key;
        if (json_object_set(c->of[top_keys[i].config], name, value) < 0)
            return fault_set(f, -ENOMEM, "out of memory");
        found = 1;
    }
    return found ? 0 : fault_set(f, -EINVAL, "model.json: %.60s: no key of ours", key);
}

static int override(struct single_configs *c, const char *directory, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    const char *key;
    json_t *value;
    int r = json_read_config(directory, "model.json", &root, f);

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    c->is_overridden = true;
    r = json_get_u32(root, "pad_token_id", 0, INT32_MAX, &c->pad_token, f);
    if (r < 0)
        return fault_prefix(f, r, "model.json");
    c->has_pad_token = r > 0;
    json_object_foreach(root, key, value)
    {
        r = override_section(c, key, value, f);
        if (r == 0 && strcmp(key, "pad_token_id") != 0)
            r = override_key(c, key, value, f);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- all of it -------------------------------------------------------------------------------- */

int single_configs_make(const char *directory, const struct single_facts *facts,
                        struct single_configs *ret_configs, struct fault *f)
{
    _cleanup_(single_configs_done) struct single_configs c = {0};

    (void)json_ran_out();
    c.of[SINGLE_TEXT] = text_config(facts);
    c.of[SINGLE_UNET] = unet_config(facts);
    c.of[SINGLE_VAE] = vae_config(facts);
    c.of[SINGLE_SCHEDULER] = scheduler_config(facts);
    for (size_t i = 0; i < SINGLE_CONFIG_COUNT; i++)
        if (!c.of[i])
            return fault_set(f, -ENOMEM, "out of memory");
    int r = override(&c, directory, f);
    if (r < 0)
        return r;
    if (json_ran_out())
        return fault_set(f, -ENOMEM, "out of memory");
    *ret_configs = c;
    c = (struct single_configs){0};
    return 0;
}

void single_configs_done(struct single_configs *c)
{
    for (size_t i = 0; i < SINGLE_CONFIG_COUNT; i++)
        json_decref(c->of[i]);
}
