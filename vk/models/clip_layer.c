#include "vk/models/clip_layer.h"

#include <errno.h>
#include <string.h>

int clip_parse_activation(const json_t *config, enum activation *ret_activation, struct fault *f)
{
    const char *name = "quick_gelu";
    int r = json_get_string(config, "hidden_act", &name, f);

    if (r < 0)
        return r;
    if (strcmp(name, "quick_gelu") == 0)
        *ret_activation = ACTIVATION_QUICK_GELU;
    else if (strcmp(name, "gelu") == 0)
        *ret_activation = ACTIVATION_GELU;
    else
        return fault_set(f, -EINVAL, "hidden_act: %.40s is unknown; quick_gelu and gelu are", name);
    return 0;
}

static tensor build_attention_part(struct graph *g, const struct clip_layer *l, tensor h)
{
    uint32_t padded = heads_padded(l->width, l->heads), head_dim = l->width / l->heads;
    const struct linear_part parts[] = {{.name = "q_proj", .out = l->width},
                                        {.name = "k_proj", .out = l->width},
                                        {.name = "v_proj", .out = l->width}};

    tensor n = build_layernorm(g, h, "layer_norm1",
                               &(struct layernorm_params){.eps = l->eps, .f32_out = l->wide});
    size_t mark = scope_push(g, "self_attn");
    tensor qkv = build_fused_linear(
        g, n,
        &(struct fused_params){
            .key = "qkv_proj", .parts = parts, .count = 3, .bias = true, .head_dim = head_dim});
    tensor o = build_attention(g, &(struct attention_params){.q = {qkv, 0},
                                                             .k = {qkv, padded},
                                                             .v = {qkv, 2 * padded},
                                                             .heads = l->heads,
                                                             .head_dim = head_dim,
                                                             .causal = l->causal});
    h = build_linear(g, o, "out_proj",
                     &(struct linear_params){.out = l->width, .bias = true, .residual = h});
    scope_pop(g, mark);
    return h;
}

static tensor build_mlp_part(struct graph *g, const struct clip_layer *l, tensor h)
{
    tensor n = build_layernorm(g, h, "layer_norm2",
                               &(struct layernorm_params){.eps = l->eps, .f32_out = l->wide});
    size_t mark = scope_push(g, "mlp");

    n = build_linear(
        g, n, "fc1",
        &(struct linear_params){
            .out = l->intermediate, .bias = true, .activation = l->activation, .f32_out = l->wide});
    h = build_linear(g, n, "fc2",
                     &(struct linear_params){.out = l->width, .bias = true, .residual = h});
    scope_pop(g, mark);
    return h;
}

tensor build_clip_layer(struct graph *g, const struct clip_layer *l, tensor h)
{
    h = build_attention_part(g, l, h);
    return build_mlp_part(g, l, h);
}
