#include "vk/pipeline/model.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/pipeline/safety.h"

#define CONFIG_BYTES_MAX (1u << 20)

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

static int join(const struct model *m, const char *file, char ret_path[PATH_MAX], struct fault *f)
{
    if (snprintf(ret_path, PATH_MAX, "%s/%s", m->directory, file) >= PATH_MAX)
        return fault_set(f, -ENAMETOOLONG, "%s: path too long", m->directory);
    return 0;
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
    char path[PATH_MAX];
    int r = join(m, files[which], path, f);

    if (r >= 0)
        r = json_read_object(path, CONFIG_BYTES_MAX, &root, f);
    if (r < 0)
        return r;
    r = parse_config(m, which, root, f);
    return r < 0 ? fault_prefix(f, r, "%s", files[which]) : 0;
}

static int read_scheduler(struct model *m, struct fault *f)
{
    static const char file[] = "scheduler/scheduler_config.json";
    _cleanup_(freep) char *text = NULL;
    char path[PATH_MAX];
    size_t length = 0;
    int index = -1;
    int r = join(m, file, path, f);

    if (r < 0)
        return r;
    r = file_read(path, CONFIG_BYTES_MAX, &text, &length, f);
    if (r < 0)
        return r;
    r = sched_config_parse(text, length, &m->sched, &index, &m->trained_betas, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", file);
    m->sched.trained_betas = m->trained_betas;
    m->is_scheduler_unknown = index < 0;
    m->scheduler = index < 0 ? SCHEDULER_PNDM : (enum scheduler_kind)index;
    return 0;
}

/* What the parts must fulfil among each other. */
static int check_parts(const struct model *m, struct fault *f)
{
    if (m->text.hidden_size != m->unet.context_width)
        return fault_set(
            f, -EINVAL,
            "unet/config.json: cross_attention_dim %u, but text_encoder/config.json has "
            "hidden_size %u",
            m->unet.context_width, m->text.hidden_size);
    if (clip_bpe_vocab_size(m->tokenizer) > m->text.vocab_size)
        return fault_set(f, -EINVAL,
                         "tokenizer/vocab.json: ids up to %u, but text_encoder/config.json has "
                         "vocab_size %u",
                         clip_bpe_vocab_size(m->tokenizer) - 1, m->text.vocab_size);
    if (m->vae.latent_channels != m->unet.out_channels)
        return fault_set(
            f, -EINVAL,
            "vae/config.json: latent_channels %u, but unet/config.json has out_channels %u",
            m->vae.latent_channels, m->unet.out_channels);
    return 0;
}

static int read_parts(struct model *m, struct fault *f)
{
    char path[PATH_MAX];
    int r = 0;

    for (int which = CONFIG_TEXT; which <= CONFIG_VAE && r >= 0; which++)
        r = read_config(m, (enum config_file)which, f);
    if (r >= 0)
        r = read_scheduler(m, f);
    if (r >= 0)
        r = join(m, "tokenizer", path, f);
    if (r >= 0)
        r = clip_bpe_open(path, &m->tokenizer, f);
    if (r >= 0)
        r = check_parts(m, f);
    if (r >= 0)
        r = safety_probe(m->directory, &m->has_safety, f);
    m->is_inpainting = m->unet.in_channels == 2 * m->unet.out_channels + 1;
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
    free(m->trained_betas);
    free(m->directory);
    free(m->name);
    free(m);
    return NULL;
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
