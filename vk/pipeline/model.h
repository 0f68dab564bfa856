/* model — a model directory, read: configurations, tokenizer, the sampler's settings.
 *
 * Of a Hugging Face directory it reads text_encoder/config.json, unet/config.json, vae/config.json,
 * scheduler/scheduler_config.json and tokenizer/; of a directory with a single-file checkpoint that
 * file's header, model.json (model-single.h) and tokenizer/; of both embeddings/; no weights. Of
 * model_index.json only the safety checker's entry is looked at: the parts say what they are. They
 * are checked against each other. */
#pragma once

#include "vk/models/clip_text.h"
#include "vk/models/unet.h"
#include "vk/models/vae.h"
#include "vk/pipeline/embeddings.h"
#include "vk/pipeline/request.h"
#include "vk/sample/sched.h"
#include "vk/text/clip_bpe.h"

struct model {
    char *directory, *name; /* name: the directory's last part */
    struct clip_text_config text;
    struct unet_config unet;
    struct vae_config vae;
    struct sched_config sched;
    float *trained_betas; /* what sched.trained_betas points to */
    enum scheduler_kind scheduler;
    bool is_inpainting;         /* the U-Net reads a mask and the masked picture's latents too */
    bool has_safety;            /* a safety checker */
    bool is_scheduler_unknown;  /* the file names a class we do not have: pndm instead */
    bool is_single;             /* a checkpoint in one file, under LDM's names */
    struct clip_bpe *tokenizer; /* knows the words of `embeddings` too */
    struct embeddings embeddings;
};

/* Errors: -ENOENT, -EINVAL, -EFBIG, -ENOMEM; f names file and key. */
int model_open(const char *directory, struct model **ret_model, struct fault *f);
struct model *model_free(struct model *m);
DEFINE_FREEP(struct model *, model_free)

/* Pictures the U-Net is run on at once: 2 with guidance (the unconditional one first), 1 without
 * and where the guidance is an input of the U-Net. */
uint32_t model_batch(const struct model *m, double guidance_scale);

/* Ids of a text or a chunk of one, BOS and EOS among them: as many as the tokenizer says, where the
 * text encoder has positions for them. */
uint32_t model_tokens(const struct model *m);

/* What request_complete() and request_check() need. */
struct request_context model_request_context(const struct model *m);
