#include "vk/pipeline/model.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/pipeline/model-single.h"
#include "vk/pipeline/safety.h"

#define BOS_AND_EOS 2u

/* The last part of a path, without trailing slashes. */
static char *base_name(const char *path)
{
    size_t end = strlen(path);

    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    return strndup(path + start, end - start);
}

/* Reads m/file and hands it to one of the config parsers through `parse`. */
enum config_file {
    CONFIG_TEXT,
    CONFIG_UNET,
    CONFIG_VAE,
};

static int parse_config(struct model *m, enum config_file which, const json_t *root,
                        struct fault *f)
{
    switch (which) {
    case CONFIG_TEXT:
        return clip_text_config_parse(root, &m->text, f);
    case CONFIG_UNET:
        return unet_config_parse(root, &m->unet, f);
    default:
        return vae_config_parse(root, &m->vae, f);
    }
}

static int read_config(struct model *m, enum config_file which, struct fault *f)
{
    static const char *const files[] = {[CONFIG_TEXT] = "text_encoder/config.json",
                                        [CONFIG_UNET] = "unet/config.json",
                                        [CONFIG_VAE] = "vae/config.json"};
    _cleanup_(json_freep) json_t *root = NULL;
    int r = json_read_config(m->directory, files[which], &root, f);

    if (r < 0)
        return r;
    r = parse_config(m, which, root, f);
    return r < 0 ? fault_prefix(f, r, "%s", files[which]) : 0;
}

static int parse_scheduler(struct model *m, const char *text, size_t length, struct fault *f)
{
    int index = -1;
    int r = sched_config_parse(text, length, &m->sched, &index, &m->trained_betas, f);

    if (r < 0)
        return r;
    m->sched.trained_betas = m->trained_betas;
    m->is_scheduler_unknown = index < 0;
    m->scheduler = index < 0 ? SCHEDULER_PNDM : (enum scheduler_kind)index;
    return 0;
}

static int read_scheduler(struct model *m, struct fault *f)
{
    static const char file[] = "scheduler/scheduler_config.json";
    _cleanup_(freep) char *text = NULL;
    char path[PATH_MAX];
    size_t length = 0;
    int r = file_path(path, f, "%s/%s", m->directory, file);

    if (r >= 0)
        r = file_read(path, JSON_CONFIG_MAX, &text, &length, f);
    if (r < 0)
        return r;
    r = parse_scheduler(m, text, length, f);
    return r < 0 ? fault_prefix(f, r, "%s", file) : 0;
}

/* --- a single file ---------------------------------------------------------------------------- */

static int parse_single(struct model *m, const struct single_configs *c, const char *label,
                        struct fault *f)
{
    static const struct {
        enum single_config from;
        enum config_file to;
        const char *name;
    } rows[] = {
        {SINGLE_TEXT, CONFIG_TEXT, "text_encoder"},
        {SINGLE_UNET, CONFIG_UNET, "unet"},
        {SINGLE_VAE, CONFIG_VAE, "vae"},
    };
    _cleanup_(freep) char *scheduler = json_dumps(c->of[SINGLE_SCHEDULER], 0);

    if (!scheduler)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int r = parse_config(m, rows[i].to, c->of[rows[i].from], f);
        if (r < 0)
            return fault_prefix(f, r, "%s: %s", label, rows[i].name);
    }
    int r = parse_scheduler(m, scheduler, strlen(scheduler), f);
    return r < 0 ? fault_prefix(f, r, "%s: scheduler", label) : 0;
}

static int read_single(struct model *m, const struct single_facts *facts,
                       struct single_configs *configs, struct fault *f)
{
    int r = single_configs_make(m->directory, facts, configs, f);

    m->is_single = true;
    return r < 0 ? r
                 : parse_single(m, configs, configs->is_overridden ? "model.json" : facts->file, f);
}

/* Checkpoints bring no tokenizer. Version 2 pads with the token of id 0, and a vocabulary alone
 * does not say so. */
static int open_single_tokenizer(struct model *m, const struct single_facts *facts,
                                 const struct single_configs *configs, struct fault *f)
{
    char path[PATH_MAX];
    int r = file_path(path, f, "%s/tokenizer", m->directory);

    if (r < 0)
        return r;
    if (access(path, F_OK) < 0)
        return fault_set(f, -ENOENT,
                         "%s: missing: %s brings no tokenizer; put CLIP's vocab.json and "
                         "merges.txt there",
                         path, facts->file);
    r = clip_bpe_open(path, &m->tokenizer, f);
    if (r < 0)
        return r;
    uint32_t pad = configs->has_pad_token ? configs->pad_token : 0;
    if (pad >= clip_bpe_vocab_size(m->tokenizer))
        return fault_set(f, -EINVAL, "model.json: pad_token_id: the vocabulary ends at %u",
                         clip_bpe_vocab_size(m->tokenizer) - 1);
    if (configs->has_pad_token || (facts->is_v2 && !clip_bpe_states_pad(m->tokenizer)))
        clip_bpe_set_pad(m->tokenizer, pad);
    return 0;
}

/* --- all parts -------------------------------------------------------------------------------- */

/* What the parts must fulfil among each other. */
static int check_parts(const struct model *m, struct fault *f)
{
    const char *unet = m->is_single ? "unet" : "unet/config.json";
    const char *text = m->is_single ? "text_encoder" : "text_encoder/config.json";
    const char *vae = m->is_single ? "vae" : "vae/config.json";

    if (m->text.hidden_size != m->unet.context_width)
        return fault_set(f, -EINVAL, "%s: cross_attention_dim %u, but %s has hidden_size %u", unet,
                         m->unet.context_width, text, m->text.hidden_size);
    if (clip_bpe_vocab_size(m->tokenizer) > m->text.vocab_size)
        return fault_set(f, -EINVAL, "tokenizer/vocab.json: ids up to %u, but %s has vocab_size %u",
                         clip_bpe_vocab_size(m->tokenizer) - 1, text, m->text.vocab_size);
    if (model_tokens(m) <= BOS_AND_EOS)
        return fault_set(f, -EINVAL, "tokenizer: model_max_length: %u leaves no room for a text",
                         model_tokens(m));
    if (m->vae.latent_channels != m->unet.out_channels)
        return fault_set(f, -EINVAL, "%s: latent_channels %u, but %s has out_channels %u", vae,
                         m->vae.latent_channels, unet, m->unet.out_channels);
    return 0;
}

static int read_directory(struct model *m, struct fault *f)
{
    char path[PATH_MAX];
    int r = 0;

    for (int which = CONFIG_TEXT; which <= CONFIG_VAE && r >= 0; which++)
        r = read_config(m, (enum config_file)which, f);
    if (r >= 0)
        r = read_scheduler(m, f);
    if (r >= 0)
        r = file_path(path, f, "%s/tokenizer", m->directory);
    return r < 0 ? r : clip_bpe_open(path, &m->tokenizer, f);
}

static int read_parts(struct model *m, struct fault *f)
{
    _cleanup_(single_configs_done) struct single_configs configs = {0};
    struct single_facts facts;
    int r = single_read(m->directory, &facts, f);

    if (r == 0)
        r = read_directory(m, f);
    else if (r > 0) {
        r = read_single(m, &facts, &configs, f);
        if (r >= 0)
            r = open_single_tokenizer(m, &facts, &configs, f);
    }
    if (r >= 0)
        r = check_parts(m, f);
    if (r >= 0)
        r = embeddings_read(m->directory, m->text.hidden_size, m->tokenizer, &m->embeddings, f);
    if (r >= 0)
        r = safety_probe(m->directory, &m->has_safety, f);
    m->is_inpainting = m->unet.in_channels == UNET_INPAINT_CHANNELS;
    return r;
}

int model_open(const char *directory, struct model **ret_model, struct fault *f)
{
    _cleanup_(model_freep) struct model *m = calloc(1, sizeof *m);

    if (!m)
        return fault_set(f, -ENOMEM, "%s: out of memory", directory);
    m->directory = strdup(directory);
    m->name = base_name(directory);
    if (!m->directory || !m->name)
        return fault_set(f, -ENOMEM, "%s: out of memory", directory);
    int r = read_parts(m, f);
    if (r < 0)
        return r;
    *ret_model = TAKE_PTR(m);
    return 0;
}

struct model *model_free(struct model *m)
{
    if (!m)
        return NULL;
    (void)clip_bpe_free(m->tokenizer);
    embeddings_done(&m->embeddings);
    free(m->trained_betas);
    free(m->directory);
    free(m->name);
    free(m);
    return NULL;
}

uint32_t model_batch(const struct model *m, double guidance_scale)
{
    return guidance_scale > 1 && !m->unet.condition_width ? 2 : 1;
}

uint32_t model_tokens(const struct model *m)
{
    uint32_t length = m->tokenizer ? clip_bpe_model_max_length(m->tokenizer) : UINT32_MAX;

    return length < m->text.positions ? length : m->text.positions;
}

struct request_context model_request_context(const struct model *m)
{
    uint32_t factor = vae_factor(&m->vae);
    uint32_t side = m->unet.sample_size * factor;

    return (struct request_context){.width = side,
                                    .height = side,
                                    .multiple = factor > 8 ? factor : 8,
                                    .train_steps = m->sched.train_steps,
                                    .scheduler = m->scheduler,
                                    .is_inpainting = m->is_inpainting,
                                    .has_safety = m->has_safety,
                                    .text_layers = m->text.layers};
}
