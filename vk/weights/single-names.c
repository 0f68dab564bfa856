/* Hugging Face names to LDM's, by tables.
 *
 * A rule replaces the beginning of a name: '#' in `from` is a number (the first i, the second j);
 * `to` spells what LDM calls it, with
 *     $i $j  the numbers     $d  (L + 1) i + j + 1, of the way down     $o  (L + 1) (i + 1)
 *     $u  (L + 1) i + j, of the way up     $l  (L + 1) i + L     $s  2 after a transformer, else 1
 *     $m  the VAE's levels counted from the other end
 * where L is the U-Net's layers a block. The rest of the name goes through the rule's second table.
 */
#include "vk/weights/single.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tail {
    const char *from, *to;
    uint32_t slice, slices; /* slices > 0: these rows of the tensor */
};

struct rule {
    const char *from, *to;
    const struct tail *tails; /* NULL: none; ends with an empty row */
};

static const struct tail unet_resnet[] = {
    {.from = "norm1.", .to = "in_layers.0."},
    {.from = "conv1.", .to = "in_layers.2."},
    {.from = "time_emb_proj.", .to = "emb_layers.1."},
    {.from = "norm2.", .to = "out_layers.0."},
    {.from = "conv2.", .to = "out_layers.3."},
    {.from = "conv_shortcut.", .to = "skip_connection."},
    {0},
};

static const struct rule unet_rules[] = {
    {"conv_in.", "input_blocks.0.0.", NULL},
    {"time_embedding.linear_1.", "time_embed.0.", NULL},
    {"time_embedding.linear_2.", "time_embed.2.", NULL},
    {"time_embedding.cond_proj.", "time_embed.cond_proj.", NULL},
    {"down_blocks.#.resnets.#.", "input_blocks.$d.0.", unet_resnet},
    {"down_blocks.#.attentions.#.", "input_blocks.$d.1.", NULL},
    {"down_blocks.#.downsamplers.0.conv.", "input_blocks.$o.0.op.", NULL},
    {"mid_block.resnets.0.", "middle_block.0.", unet_resnet},
    {"mid_block.attentions.0.", "middle_block.1.", NULL},
    {"mid_block.resnets.1.", "middle_block.2.", unet_resnet},
    {"up_blocks.#.resnets.#.", "output_blocks.$u.0.", unet_resnet},
    {"up_blocks.#.attentions.#.", "output_blocks.$u.1.", NULL},
    {"up_blocks.#.upsamplers.0.", "output_blocks.$l.$s.", NULL},
    {"conv_norm_out.", "out.0.", NULL},
    {"conv_out.", "out.2.", NULL},
    {0},
};

static const struct tail vae_resnet[] = {
    {.from = "conv_shortcut.", .to = "nin_shortcut."},
    {0},
};

static const struct tail vae_attention[] = {
    {.from = "group_norm.", .to = "norm."},
    {.from = "to_q.", .to = "q."},
    {.from = "to_k.", .to = "k."},
    {.from = "to_v.", .to = "v."},
    {.from = "to_out.0.", .to = "proj_out."},
    {0},
};

static const struct rule vae_rules[] = {
    {"encoder.down_blocks.#.resnets.#.", "encoder.down.$i.block.$j.", vae_resnet},
    {"encoder.down_blocks.#.downsamplers.0.", "encoder.down.$i.downsample.", NULL},
    {"encoder.mid_block.resnets.0.", "encoder.mid.block_1.", vae_resnet},
    {"encoder.mid_block.attentions.0.", "encoder.mid.attn_1.", vae_attention},
    {"encoder.mid_block.resnets.1.", "encoder.mid.block_2.", vae_resnet},
    {"encoder.conv_norm_out.", "encoder.norm_out.", NULL},
    {"decoder.up_blocks.#.resnets.#.", "decoder.up.$m.block.$j.", vae_resnet},
    {"decoder.up_blocks.#.upsamplers.0.", "decoder.up.$m.upsample.", NULL},
    {"decoder.mid_block.resnets.0.", "decoder.mid.block_1.", vae_resnet},
    {"decoder.mid_block.attentions.0.", "decoder.mid.attn_1.", vae_attention},
    {"decoder.mid_block.resnets.1.", "decoder.mid.block_2.", vae_resnet},
    {"decoder.conv_norm_out.", "decoder.norm_out.", NULL},
    {0},
};

static const struct tail open_clip_layer[] = {
    {.from = "layer_norm1.", .to = "ln_1."},
    {.from = "layer_norm2.", .to = "ln_2."},
    {.from = "mlp.fc1.", .to = "mlp.c_fc."},
    {.from = "mlp.fc2.", .to = "mlp.c_proj."},
    {.from = "self_attn.out_proj.", .to = "attn.out_proj."},
    {.from = "self_attn.q_proj.", .to = "attn.in_proj_", .slice = 0, .slices = 3},
    {.from = "self_attn.k_proj.", .to = "attn.in_proj_", .slice = 1, .slices = 3},
    {.from = "self_attn.v_proj.", .to = "attn.in_proj_", .slice = 2, .slices = 3},
    {0},
};

static const struct rule open_clip_rules[] = {
    {"text_model.embeddings.token_embedding.", "token_embedding.", NULL},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding", NULL},
    {"text_model.encoder.layers.#.", "transformer.resblocks.$i.", open_clip_layer},
    {"text_model.final_layer_norm.", "ln_final.", NULL},
    {0},
};

static const struct rule bare_rules[] = {
    {"text_model.", "", NULL},
    {0},
};

static const struct rule no_rules[] = {{0}};

/* --- applying them ---------------------------------------------------------------------------- */

struct numbers {
    uint32_t of[2]; /* i, j */
};

/* Does `name` begin with the pattern? Returns what follows it, or NULL. */
static const char *match(const char *pattern, const char *name, struct numbers *n)
{
    uint32_t count = 0;

    *n = (struct numbers){0};
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*name++ != *pattern)
                return NULL;
            continue;
        }
        char *end;
        if (*name < '0' || *name > '9')
            return NULL;
        n->of[count++] = (uint32_t)strtoul(name, &end, 10);
        name = end;
    }
    return name;
}

static uint32_t number(const struct single_facts *facts, char letter, const struct numbers *n)
{
    uint32_t i = n->of[0], j = n->of[1], layers = facts->unet.layers;

    switch (letter) {
    case 'd':
        return (layers + 1) * i + j + 1;
    case 'o':
        return (layers + 1) * (i + 1);
    case 'u':
        return (layers + 1) * i + j;
    case 'l':
        return (layers + 1) * i + layers;
    case 's':
        return i < SINGLE_LEVELS_MAX && facts->unet.up_attention[i] ? 2 : 1;
    case 'm':
        return facts->vae.levels - 1 - i;
    case 'j':
        return j;
    default:
        return i;
    }
}

static void append(struct single_name *to, const char *text)
{
    size_t n = strlen(to->text);

    (void)snprintf(to->text + n, sizeof to->text - n, "%s", text);
}

static void append_pattern(const struct single_facts *facts, const char *pattern,
                           const struct numbers *n, struct single_name *to)
{
    char piece[16];

    for (; *pattern; pattern++) {
        if (*pattern == '$')
            (void)snprintf(piece, sizeof piece, "%u", number(facts, *++pattern, n));
        else
            (void)snprintf(piece, sizeof piece, "%c", *pattern);
        append(to, piece);
    }
}

static void append_rest(const struct tail *tails, const char *rest, struct single_name *to)
{
    for (const struct tail *t = tails; t && t->from; t++) {
        size_t n = strlen(t->from);
        if (strncmp(rest, t->from, n) != 0)
            continue;
        append(to, t->to);
        if (t->slices) {
            to->slice = t->slice;
            to->slices = t->slices;
        }
        rest += n;
        break;
    }
    append(to, rest);
}

void single_translate(const struct single_facts *facts, enum weights_component component,
                      const char *name, struct single_name *ret_name)
{
    const struct {
        const char *prefix;
        const struct rule *rules;
    } components[] = {
        [WEIGHTS_TEXT_ENCODER] = {facts->is_open_clip ? "cond_stage_model.model."
                                                      : "cond_stage_model.transformer.",
                                  facts->is_open_clip   ? open_clip_rules
                                  : facts->is_bare_text ? bare_rules
                                                        : no_rules},
        [WEIGHTS_UNET] = {"model.diffusion_model.", unet_rules},
        [WEIGHTS_VAE] = {"first_stage_model.", vae_rules},
    };
    const char *rest = NULL;
    struct numbers n;

    *ret_name = (struct single_name){.slices = 1};
    append(ret_name, components[component].prefix);
    for (const struct rule *r = components[component].rules; r->from; r++) {
        rest = match(r->from, name, &n);
        if (!rest)
            continue;
        append_pattern(facts, r->to, &n, ret_name);
        append_rest(r->tails, rest, ret_name);
        return;
    }
    append(ret_name, name);
}

/* --- what is left out ------------------------------------------------------------------------- */

bool single_ignores(const struct single_facts *facts, const char *name)
{
    /* what training left behind: the schedule's tables, averages, losses; CLIP's other tower */
    static const char *const begins[] = {
        "model_ema.",
        "alphas_cumprod",
        "betas",
        "sqrt_",
        "log_one_minus_alphas_cumprod",
        "posterior_",
        "lvlb_weights",
        "logvar",
        "global_step",
        "scale_factor",
        "denoiser.",
        "first_stage_model.loss.",
        "first_stage_model.model_ema.",
        "cond_stage_model.logit_scale",
        "cond_stage_model.transformer.logit_scale",
        "cond_stage_model.transformer.text_projection",
        "cond_stage_model.transformer.vision_model.",
        "cond_stage_model.transformer.visual_projection",
        "cond_stage_model.transformer.embeddings.position_ids",
        "cond_stage_model.model.logit_scale",
        "cond_stage_model.model.text_projection",
        "cond_stage_model.model.attn_mask",
        "cond_stage_model.model.visual.",
    };
    struct numbers n;

    for (size_t i = 0; i < ARRAY_SIZE(begins); i++)
        if (strncmp(name, begins[i], strlen(begins[i])) == 0)
            return true;
    return match("cond_stage_model.model.transformer.resblocks.#.", name, &n) &&
           n.of[0] >= facts->text.layers;
}
