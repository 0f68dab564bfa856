/* Single files: the directory, and what the shapes tell. Names are in single-names.c. */
#include "vk/weights/single.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "vk/base/file.h"
#include "vk/weights/safetensors.h"
#include "vk/weights/weights-private.h"

#define UNET           "model.diffusion_model."
#define VAE            "first_stage_model."
#define CLIP           "cond_stage_model.transformer."
#define OPEN_CLIP      "cond_stage_model.model."
#define LAYERS_MAX     64u /* of a level or a text encoder; more is no model of ours */
#define V2_CONTEXT     1024u
#define OPEN_CLIP_H    24u /* its blocks, of which SD 2 runs 23 */
#define OPEN_CLIP_USED 23u

/* --- the directory ---------------------------------------------------------------------------- */

static bool has_entry(const char *directory, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    return snprintf(path, sizeof path, "%s/%s", directory, name) < PATH_MAX && stat(path, &st) == 0;
}

/* What of the top of the directory may be the checkpoint. */
struct candidates {
    char name[256], pickle[256];
    uint32_t count;
};

static int list_candidates(const char *path, struct candidates *c, struct fault *f)
{
    _cleanup_(closedirp) DIR *directory = opendir(path);
    const struct dirent *entry;

    if (!directory)
        return fault_set(f, file_error(errno), "%s: %s", path, strerror(errno));
    while ((entry = readdir(directory))) {
        const char *name = entry->d_name;
        if (name[0] == '.')
            continue;
        if (file_is_pickle(name))
            (void)snprintf(c->pickle, sizeof c->pickle, "%s", name);
        if (!file_has_ending(name, ".safetensors"))
            continue;
        if (c->count++ > 0)
            return fault_set(f, -EINVAL, "%s: %.60s and %.60s: want one checkpoint a directory",
                             path, c->name, name);
        (void)snprintf(c->name, sizeof c->name, "%s", name);
    }
    return 0;
}

int single_locate(const char *directory, char **ret_path, struct fault *f)
{
    struct candidates c = {0};

    if (has_entry(directory, "unet") || has_entry(directory, "model_index.json"))
        return 0;
    int r = list_candidates(directory, &c, f);
    if (r < 0)
        return r;
    if (c.count == 0 && c.pickle[0])
        return fault_set(f, -EINVAL, "%s: only pickles (%.100s): convert to safetensors", directory,
                         c.pickle);
    if (c.count == 0)
        return fault_set(f, -ENOENT, "%s: no model: neither unet/ nor a .safetensors file",
                         directory);
    if (asprintf(ret_path, "%s/%s", directory, c.name) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    return 1;
}

/* --- shapes ----------------------------------------------------------------------------------- */

/* Is there a tensor whose name begins so? A block is known by any of its tensors, so that the one
 * that lacks is named later. */
static bool has(const struct safetensors *file, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool has(const struct safetensors *file, const char *format, ...)
{
    char begin[SAFETENSORS_NAME_MAX];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(begin, sizeof begin, format, args);
    va_end(args);
    for (size_t i = 0; i < safetensors_count(file); i++)
        if (strncmp(safetensors_get(file, i)->name, begin, strlen(begin)) == 0)
            return true;
    return false;
}

/* One side of one tensor, which must be there. Several are read before the fault is looked at. */
struct sides {
    const struct safetensors *file;
    struct fault *f;
    int r;
};

static uint32_t side(struct sides *s, const char *name, uint32_t axis)
{
    const struct safetensors_tensor *t = safetensors_find(s->file, name);
    char shape[SAFETENSORS_SHAPE_TEXT];

    if (s->r < 0)
        return 0;
    if (!t)
        s->r = fault_set(s->f, -EINVAL, "%s: tensor \"%.120s\" is missing",
                         safetensors_label(s->file), name);
    else if (t->rank <= axis || t->dims[axis] == 0 || t->dims[axis] > 1u << 24)
        s->r = fault_set(s->f, -EINVAL, "%s: %.100s: shape %.48s tells nothing",
                         safetensors_label(s->file), name,
                         safetensors_format_shape(t->dims, t->rank, shape));
    else
        return (uint32_t)t->dims[axis];
    return 0;
}

static int levels_differ(const struct safetensors *file, const char *what, uint32_t level,
                         uint32_t depth, uint32_t want, struct fault *f)
{
    return fault_set(f, -EINVAL, "%s: %s: level %u has %u blocks, the first %u; want as many",
                     safetensors_label(file), what, level, depth, want);
}

/* input_blocks: 0 is conv_in; then the residual blocks of a level and its downsampler, again and
 * again. */
static int describe_unet_levels(const struct safetensors *file, struct single_facts *facts,
                                struct fault *f)
{
    struct sides s = {.file = file, .f = f};
    uint32_t n = 1, level = 0;
    char name[SAFETENSORS_NAME_MAX];

    for (; level < SINGLE_LEVELS_MAX; level++, n++) {
        uint32_t depth = 0;
        (void)snprintf(name, sizeof name, UNET "input_blocks.%u.0.in_layers.2.weight", n);
        facts->unet.channels[level] = side(&s, name, 0);
        facts->unet.down_attention[level] =
            has(file, UNET "input_blocks.%u.1.transformer_blocks.", n);
        for (; depth < LAYERS_MAX && has(file, UNET "input_blocks.%u.0.in_layers.", n); n++)
            depth++;
        if (s.r >= 0 && level > 0 && depth != facts->unet.layers)
            return levels_differ(file, UNET "input_blocks", level, depth, facts->unet.layers, f);
        facts->unet.layers = depth;
        if (s.r < 0 || !has(file, UNET "input_blocks.%u.0.op.", n))
            break;
    }
    if (s.r >= 0 && level == SINGLE_LEVELS_MAX)
        return fault_set(f, -EINVAL, "%s: " UNET "input_blocks: more than %u levels", facts->file,
                         SINGLE_LEVELS_MAX);
    facts->unet.levels = level + 1;
    for (uint32_t i = 0; i < SINGLE_LEVELS_MAX; i++)
        facts->unet.up_attention[i] =
            has(file, UNET "output_blocks.%u.1.transformer_blocks.", (facts->unet.layers + 1) * i);
    return s.r;
}

static int describe_unet(const struct safetensors *file, struct single_facts *facts,
                         struct fault *f)
{
    static const char context[] = UNET "middle_block.1.transformer_blocks.0.attn2.to_k.weight";
    const struct safetensors_tensor *condition =
        safetensors_find(file, UNET "time_embed.cond_proj.weight");
    const struct safetensors_tensor *in =
        safetensors_find(file, UNET "middle_block.1.proj_in.weight");
    struct sides s = {.file = file, .f = f};

    facts->unet.in_channels = side(&s, UNET "input_blocks.0.0.weight", 1);
    facts->unet.out_channels = side(&s, UNET "out.2.weight", 0);
    facts->unet.context_width = side(&s, context, 1);
    facts->unet.is_linear = in && in->rank == 2;
    if (condition && condition->rank == 2)
        facts->unet.condition_width = (uint32_t)condition->dims[1];
    return s.r < 0 ? s.r : describe_unet_levels(file, facts, f);
}

static int describe_vae(const struct safetensors *file, struct single_facts *facts, struct fault *f)
{
    struct sides s = {.file = file, .f = f};
    char name[SAFETENSORS_NAME_MAX];
    uint32_t level = 0;

    facts->vae.latent_channels = side(&s, VAE "post_quant_conv.weight", 0);
    for (; s.r >= 0 && level < SINGLE_LEVELS_MAX; level++) {
        uint32_t depth = 0;
        while (depth < LAYERS_MAX && has(file, VAE "encoder.down.%u.block.%u.", level, depth))
            depth++;
        if (depth == 0 && level > 0)
            break;
        (void)snprintf(name, sizeof name, VAE "encoder.down.%u.block.0.conv1.weight", level);
        facts->vae.channels[level] = side(&s, name, 0);
        if (level > 0 && depth != facts->vae.layers)
            return levels_differ(file, VAE "encoder.down", level, depth, facts->vae.layers, f);
        facts->vae.layers = depth;
    }
    facts->vae.levels = level;
    return s.r;
}

/* OpenCLIP's whole tower comes with its projection, and SD 2 takes the output before its last
 * block. Files converted back from the Hugging Face layout have lost both. */
static bool has_unused_block(const struct safetensors *file, uint32_t blocks)
{
    if (blocks == OPEN_CLIP_H || blocks == OPEN_CLIP_USED)
        return blocks == OPEN_CLIP_H;
    return blocks > 1 && (safetensors_find(file, OPEN_CLIP "text_projection") ||
                          safetensors_find(file, OPEN_CLIP "logit_scale"));
}

static int describe_open_clip(const struct safetensors *file, struct single_facts *facts,
                              struct fault *f)
{
    struct sides s = {.file = file, .f = f};

    facts->text.vocab_size = side(&s, OPEN_CLIP "token_embedding.weight", 0);
    facts->text.width = side(&s, OPEN_CLIP "token_embedding.weight", 1);
    facts->text.positions = side(&s, OPEN_CLIP "positional_embedding", 0);
    facts->text.inner = side(&s, OPEN_CLIP "transformer.resblocks.0.mlp.c_fc.weight", 0);
    while (facts->text.layers < LAYERS_MAX &&
           has(file, OPEN_CLIP "transformer.resblocks.%u.", facts->text.layers))
        facts->text.layers++;
    if (has_unused_block(file, facts->text.layers))
        facts->text.layers--;
    return s.r;
}

static int describe_clip(const struct safetensors *file, struct single_facts *facts,
                         struct fault *f)
{
    const char *text = facts->is_bare_text ? CLIP : CLIP "text_model.";
    struct sides s = {.file = file, .f = f};
    char tokens[96], positions[96], inner[96];

    (void)snprintf(tokens, sizeof tokens, "%sembeddings.token_embedding.weight", text);
    (void)snprintf(positions, sizeof positions, "%sembeddings.position_embedding.weight", text);
    (void)snprintf(inner, sizeof inner, "%sencoder.layers.0.mlp.fc1.weight", text);
    facts->text.vocab_size = side(&s, tokens, 0);
    facts->text.width = side(&s, tokens, 1);
    facts->text.positions = side(&s, positions, 0);
    facts->text.inner = side(&s, inner, 0);
    while (facts->text.layers < LAYERS_MAX &&
           has(file, "%sencoder.layers.%u.", text, facts->text.layers))
        facts->text.layers++;
    return s.r;
}

/* Training steps, a number of any type; it tells SD 2's first checkpoints apart. */
static int read_global_step(struct safetensors *file, uint64_t *ret_step, struct fault *f)
{
    const struct safetensors_tensor *t = safetensors_find(file, "global_step");
    int64_t whole = 0;
    int32_t half = 0;
    float real = 0;
    int r = 0;

    if (!t)
        return 0;
    if (t->dtype == SAFETENSORS_I64 && t->size == sizeof whole)
        r = safetensors_read(file, t, 0, &whole, sizeof whole, f);
    else if (t->dtype == SAFETENSORS_I32 && t->size == sizeof half)
        r = safetensors_read(file, t, 0, &half, sizeof half, f);
    else if (t->dtype == SAFETENSORS_F32 && t->size == sizeof real)
        r = safetensors_read(file, t, 0, &real, sizeof real, f);
    if (r < 0)
        return r;
    whole += half + (real > 0 && real < 1e15f ? (int64_t)real : 0);
    *ret_step = whole > 0 ? (uint64_t)whole : 0;
    return 0;
}

/* Other models that come in one file, by a tensor name's beginning. */
static int refuse_others(const struct safetensors *file, struct fault *f)
{
    static const struct {
        const char *begin, *what;
    } rows[] = {
        {"conditioner.embedders.", "Stable Diffusion XL"},
        {"model.diffusion_model.joint_blocks.", "Stable Diffusion 3"},
        {"model.diffusion_model.double_blocks.", "Flux"},
        {"double_blocks.", "Flux"},
        {"lora_unet_", "a LoRA"},
        {"lora_te_", "a LoRA"},
        {"control_model.", "a ControlNet"},
        {"depth_model.", "Stable Diffusion 2 depth"},
    };

    for (size_t i = 0; i < safetensors_count(file); i++) {
        const char *name = safetensors_get(file, i)->name;
        for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
            if (strncmp(name, rows[k].begin, strlen(rows[k].begin)) == 0)
                return fault_set(f, -EINVAL,
                                 "%s: %s (tensor \"%.80s\"); want a checkpoint of Stable "
                                 "Diffusion 1 or 2",
                                 safetensors_label(file), rows[k].what, name);
    }
    return 0;
}

int single_describe(struct safetensors *file, struct single_facts *ret_facts, struct fault *f)
{
    struct single_facts facts = {0};
    int r = refuse_others(file, f);

    (void)snprintf(facts.file, sizeof facts.file, "%s", safetensors_label(file));
    facts.is_open_clip = has(file, OPEN_CLIP);
    facts.is_bare_text = has(file, CLIP "embeddings.token_embedding.");
    if (r >= 0)
        r = describe_unet(file, &facts, f);
    if (r >= 0)
        r = describe_vae(file, &facts, f);
    if (r >= 0)
        r = facts.is_open_clip ? describe_open_clip(file, &facts, f)
                               : describe_clip(file, &facts, f);
    if (r >= 0)
        r = read_global_step(file, &facts.global_step, f);
    if (r < 0)
        return r;
    facts.is_v2 = facts.is_open_clip || facts.unet.context_width == V2_CONTEXT;
    *ret_facts = facts;
    return 0;
}

int single_read(const char *directory, struct single_facts *ret_facts, struct fault *f)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    _cleanup_(freep) char *path = NULL;
    int r = single_locate(directory, &path, f);

    if (r <= 0)
        return r;
    r = safetensors_open(path, strrchr(path, '/') + 1, &file, f);
    if (r >= 0)
        r = single_describe(file, ret_facts, f);
    return r < 0 ? r : 1;
}
