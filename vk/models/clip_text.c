#include "vk/models/clip_text.h"

#include <errno.h>
#include <string.h>

#include "vk/models/clip_layer.h"

/* Other text encoders have keys of the same names. */
static int check_type(const json_t *config, struct fault *f)
{
    const char *type = "clip_text_model";
    int r = json_get_string(config, "model_type", &type, f);

    if (r < 0 || strcmp(type, "clip_text_model") == 0 || strcmp(type, "clip") == 0)
        return r;
    return fault_set(f, -EINVAL, "model_type: only clip_text_model is supported, not %.60s", type);
}

int clip_text_config_parse(const json_t *config, struct clip_text_config *ret_config,
                           struct fault *f)
{
    struct clip_text_config c = {.vocab_size = 49408,
                                 .hidden_size = 512,
                                 .intermediate_size = 2048,
                                 .layers = 12,
                                 .heads = 8,
                                 .positions = 77};
    const struct {
        const char *key;
        uint32_t min, max;
        uint32_t *value;
    } rows[] = {
        {"vocab_size", 2, 1048576, &c.vocab_size},
        {"hidden_size", 1, MODEL_WIDTH_MAX, &c.hidden_size},
        {"intermediate_size", 1, 4 * MODEL_WIDTH_MAX, &c.intermediate_size},
        {"num_hidden_layers", 1, CLIP_TEXT_LAYERS_MAX, &c.layers},
        {"num_attention_heads", 1, 256, &c.heads},
        {"max_position_embeddings", 3, 1024, &c.positions},
    };
    /* the pipelines would hide the padding */
    static const struct config_fixed fixed[] = {{"use_attention_mask", CONFIG_FALSE}};
    double eps = 1e-5;
    int r = check_type(config, f);

    for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++)
        r = json_get_u32(config, rows[i].key, rows[i].min, rows[i].max, rows[i].value, f);
    if (r >= 0)
        r = json_get_double(config, "layer_norm_eps", 0, 1, &eps, f);
    if (r >= 0)
        r = clip_parse_activation(config, &c.activation, f);
    if (r >= 0)
        r = config_check_fixed(config, fixed, ARRAY_SIZE(fixed), f);
    if (r < 0)
        return r;
    if (c.hidden_size % c.heads != 0)
        return fault_set(f, -EINVAL,
                         "num_attention_heads: hidden_size %u does not divide into %u heads",
                         c.hidden_size, c.heads);
    c.eps = (float)eps;
    *ret_config = c;
    return 0;
}

tensor build_clip_text(struct graph *g, const struct clip_text_config *c,
                       const struct clip_text_inputs *in)
{
    /* not used: an old buffer; the projection of CLIPTextModelWithProjection */
    const struct weight_known others[] = {
        {.component = g->component, .name = "text_model.embeddings.position_ids"},
        {.component = g->component, .name = "text_projection.weight"},
    };
    const struct clip_layer layer = {.width = c->hidden_size,
                                     .intermediate = c->intermediate_size,
                                     .heads = c->heads,
                                     .eps = c->eps,
                                     .activation = c->activation,
                                     .causal = true,
                                     .wide = true};
    char label[32];

    for (size_t i = 0; i < ARRAY_SIZE(others) && !g->fault.err; i++)
        (void)weights_know(g->weights, &others[i], &g->fault); /* the fault stays in the graph */
    size_t mark = scope_push(g, "text_model");
    tensor h = build_embed(g, in->ids,
                           &(struct embed_params){.tokens = "embeddings.token_embedding",
                                                  .positions = "embeddings.position_embedding",
                                                  .vocab = c->vocab_size,
                                                  .position_count = c->positions,
                                                  .c = c->hidden_size,
                                                  .words = in->words,
                                                  .first_word = in->first_word});
    for (uint32_t i = 0; i + in->skip < c->layers; i++) {
        size_t inner = scope_push(g, "encoder.layers.%u", i);
        h = build_clip_layer(g, &layer, h);
        scope_pop(g, inner);
        (void)snprintf(label, sizeof label, "layers.%u", i);
        build_label(g, h, label);
    }
    h = build_layernorm(g, h, "final_layer_norm",
                        &(struct layernorm_params){.eps = c->eps, .into = in->into});
    build_label(g, h, "out");
    scope_pop(g, mark);
    return h;
}
