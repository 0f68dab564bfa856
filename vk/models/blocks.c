#include "vk/models/blocks.h"

#include <errno.h>
#include <string.h>

/* eps of the transformers' own norms, whatever the model's norm_eps says (attention.py). */
#define TRANSFORMER_NORM_EPS 1e-6f
#define LAYER_NORM_EPS       1e-5f

tensor build_resnet(struct graph *g, tensor x, const struct resnet_params *p)
{
    struct groupnorm_params norm1 = {
        .groups = p->groups, .eps = p->eps, .silu = true, .concat = p->concat};
    struct groupnorm_params norm2 = {.groups = p->groups, .eps = p->eps, .silu = true};
    uint32_t in = graph_tensor(g, x)->layout.count + graph_tensor(g, p->concat)->layout.count;
    tensor shortcut = x;

    tensor h = build_groupnorm(g, x, "norm1", &norm1);
    h = build_conv2d(g, h, "conv1",
                     &(struct conv2d_params){.out = p->out,
                                             .taps = 3,
                                             .pad = 1,
                                             .pad_end = 1,
                                             .row_add = p->time,
                                             .row_add_offset = p->time_offset});
    h = build_groupnorm(g, h, "norm2", &norm2);
    if (in != p->out)
        shortcut =
            build_conv2d(g, x, "conv_shortcut",
                         &(struct conv2d_params){.out = p->out, .taps = 1, .concat = p->concat});
    return build_conv2d(
        g, h, "conv2",
        &(struct conv2d_params){
            .out = p->out, .taps = 3, .pad = 1, .pad_end = 1, .residual = shortcut});
}

/* attn1: every pixel attends to every pixel. h f16 [B, H, W, C] -> the same, residual added. */
static tensor build_self_attention(struct graph *g, tensor h, uint32_t heads)
{
    uint32_t c = graph_tensor(g, h)->layout.count;
    uint32_t padded = heads_padded(c, heads);
    const struct linear_part parts[] = {
        {.name = "to_q", .out = c}, {.name = "to_k", .out = c}, {.name = "to_v", .out = c}};

    tensor n = build_layernorm(g, h, "norm1", &(struct layernorm_params){.eps = LAYER_NORM_EPS});
    size_t mark = scope_push(g, "attn1");
    tensor qkv = build_fused_linear(
        g, n,
        &(struct fused_params){.key = "to_qkv", .parts = parts, .count = 3, .head_dim = c / heads});
    tensor o = build_attention(g, &(struct attention_params){.q = {qkv, 0},
                                                             .k = {qkv, padded},
                                                             .v = {qkv, 2 * padded},
                                                             .heads = heads,
                                                             .head_dim = c / heads});
    h = build_linear(g, o, "to_out.0",
                     &(struct linear_params){.out = c, .bias = true, .residual = h});
    scope_pop(g, mark);
    return h;
}

/* attn2: every pixel attends to the prompt's tokens. */
static tensor build_cross_attention(struct graph *g, tensor h, const struct transformer_params *p)
{
    uint32_t c = graph_tensor(g, h)->layout.count;
    uint32_t padded = heads_padded(c, p->heads);

    tensor n = build_layernorm(g, h, "norm2", &(struct layernorm_params){.eps = LAYER_NORM_EPS});
    size_t mark = scope_push(g, "attn2");
    tensor q =
        build_linear(g, n, "to_q", &(struct linear_params){.out = c, .head_dim = c / p->heads});
    tensor o = build_attention(g, &(struct attention_params){.q = {q, 0},
                                                             .k = {p->context_kv, 0},
                                                             .v = {p->context_kv, padded},
                                                             .heads = p->heads,
                                                             .head_dim = c / p->heads});
    h = build_linear(g, o, "to_out.0",
                     &(struct linear_params){.out = c, .bias = true, .residual = h});
    scope_pop(g, mark);
    return h;
}

static tensor build_feed_forward(struct graph *g, tensor h)
{
    uint32_t c = graph_tensor(g, h)->layout.count;

    tensor n = build_layernorm(g, h, "norm3", &(struct layernorm_params){.eps = LAYER_NORM_EPS});
    size_t mark = scope_push(g, "ff.net");
    n = build_linear(g, n, "0.proj",
                     &(struct linear_params){.out = 8 * c, .bias = true, .geglu = true});
    h = build_linear(g, n, "2", &(struct linear_params){.out = c, .bias = true, .residual = h});
    scope_pop(g, mark);
    return h;
}

tensor build_transformer(struct graph *g, tensor x, const struct transformer_params *p)
{
    struct groupnorm_params norm = {.groups = p->groups, .eps = TRANSFORMER_NORM_EPS};
    uint32_t c = graph_tensor(g, x)->layout.count;

    tensor h = build_groupnorm(g, x, "norm", &norm);
    h = build_conv2d(g, h, "proj_in", &(struct conv2d_params){.out = c, .taps = 1});
    size_t mark = scope_push(g, "transformer_blocks.0");
    h = build_self_attention(g, h, p->heads);
    h = build_cross_attention(g, h, p);
    h = build_feed_forward(g, h);
    scope_pop(g, mark);
    return build_conv2d(g, h, "proj_out",
                        &(struct conv2d_params){.out = c, .taps = 1, .residual = x});
}

void build_context_kv(struct graph *g, tensor context, uint32_t channels, uint32_t heads,
                      tensor into)
{
    const struct linear_part parts[] = {{.name = "to_k", .out = channels},
                                        {.name = "to_v", .out = channels}};
    size_t mark = scope_push(g, "transformer_blocks.0.attn2");

    (void)build_fused_linear(g, context,
                             &(struct fused_params){.key = "to_kv",
                                                    .parts = parts,
                                                    .count = 2,
                                                    .head_dim = channels / heads,
                                                    .into = into}); /* errors stay in the graph */
    scope_pop(g, mark);
}

/* --- configuration files ---------------------------------------------------------------------- */

/* What a row wants, as a config file spells it. */
static const char *const fixed_words[] = {
    [CONFIG_NULL] = "null",
    [CONFIG_FALSE] = "false",
    [CONFIG_TRUE] = "true",
    [CONFIG_ONE] = "1",
    [CONFIG_THREE] = "3",
    [CONFIG_SILU] = "silu",
    [CONFIG_DEFAULT] = "default",
    [CONFIG_POSITIONAL] = "positional",
    [CONFIG_MID_CROSS_ATTENTION] = "UNetMidBlock2DCrossAttn",
    [CONFIG_UNET_CLASS] = "UNet2DConditionModel",
    [CONFIG_VAE_CLASS] = "AutoencoderKL",
};

static bool is_word(const json_t *value, const char *word)
{
    return json_is_string(value) && strcmp(json_string_value(value), word) == 0;
}

static bool is_fixed_scalar(const json_t *value, const struct config_fixed *row)
{
    switch (row->value) {
    case CONFIG_NULL:
        return json_is_null(value);
    case CONFIG_FALSE:
        return json_is_false(value);
    case CONFIG_TRUE:
        return json_is_true(value);
    case CONFIG_ONE:
        return json_number_value(value) == 1;
    case CONFIG_THREE:
        return json_number_value(value) == 3;
    default:
        return is_word(value, fixed_words[row->value]) ||
               (row->value == CONFIG_SILU && is_word(value, "swish"));
    }
}

static bool is_fixed_value(const json_t *value, const struct config_fixed *row)
{
    if (!value || json_is_null(value))
        return true;
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!is_fixed_scalar(json_array_get(value, i), row))
            return false;
    return json_array_size(value) > 0 || is_fixed_scalar(value, row);
}

int config_check_fixed(const json_t *config, const struct config_fixed *rows, size_t count,
                       struct fault *f)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_fixed_value(json_object_get(config, rows[i].key), &rows[i]))
            return fault_set(f, -EINVAL, "%s: only %s is supported", rows[i].key,
                             fixed_words[rows[i].value]);
    }
    return 0;
}
