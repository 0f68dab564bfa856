/* model — a Hugging Face model directory, read: configurations, tokenizer, the sampler's settings.
 *
 * Reads text_encoder/config.json, unet/config.json, vae/config.json,
 * scheduler/scheduler_config.json and tokenizer/; no weights. The parts are checked against each
 * other. */
#pragma once

#include "vk/models/clip_text.h"
#include "vk/models/unet.h"
#include "vk/models/vae.h"
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
    bool is_inpainting;        /* the U-Net reads a mask and the masked picture's latents too */
    bool has_safety;           /* a safety checker */
    bool is_scheduler_unknown; /* the file names a class we do not have: pndm instead */
    struct clip_bpe *tokenizer;
};

/* Errors: -ENOENT, -EINVAL, -EFBIG, -ENOMEM; f names file and key. */
int model_open(const char *directory, struct model **ret_model, struct fault *f);
struct model *model_free(struct model *m);
DEFINE_FREEP(struct model *, model_free)

/* What request_complete() and request_check() need. */
struct request_context model_request_context(const struct model *m);
