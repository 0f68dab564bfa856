/* prompt — a request's prompts as token ids and weights, in chunks of what the text encoder takes.
 *
 * Pure CPU. A chunk is BOS, up to 75 tokens, EOS, padding (75: model_tokens() less two).
 *   long_prompt=truncate   one chunk; what is over is left out, with a warning. With compat=0.6 an
 *                          over-long positive prompt keeps one token more and no EOS, as diffusers
 *                          0.6.0 does.
 *   long_prompt=chunk      as many chunks as it takes, up to PROMPT_CHUNKS_MAX; where one is full
 *                          and had a comma among its last 20 tokens, what follows the comma moves
 *                          to the next chunk; the vectors of a learned word stay together; BREAK
 *                          ends a chunk.
 *   prompt_syntax=weighted brackets give weights (vk/text/emphasis.h), BREAK ends a chunk also with
 *                          truncate, which then cuts each part by itself.
 * All texts of a request get as many chunks as the longest has; those added are empty prompts.
 * Sources: diffusers 0.6.0 pipeline_stable_diffusion.py; web UI 1.10 modules/sd_hijack_clip.py. */
#pragma once

#include "vk/engine.h"
#include "vk/pipeline/model.h"

#define PROMPT_CHUNKS_MAX 16u

/* One text, made ready. */
struct prompt_text {
    char *text;
    int32_t *ids;   /* [PROMPT_CHUNKS_MAX, tokens]; NULL: not needed (negative without guidance) */
    float *weights; /* alike; 1: as it is */
};

struct prompts {
    uint32_t tokens;         /* ids of a chunk */
    uint32_t chunks;         /* that count, of every text; the rest are empty prompts */
    uint32_t count;          /* prompts: 1, or as many as the request's list has */
    uint32_t negative_count; /* 1: for all of them; or count */
    struct prompt_text *positive, *negative;
};

/* Reads a checked request's prompts. Warnings go to the observer. Errors: -EINVAL and -EILSEQ name
 * the row and the place; -ENOMEM. */
int prompts_read(const struct model *m, const struct request *request,
                 const struct engine_observer *observer, void *userdata,
                 struct prompts *ret_prompts, struct fault *f);
void prompts_done(struct prompts *p);

/* The negative text that goes with prompt i. */
static inline const struct prompt_text *prompts_negative(const struct prompts *p, uint32_t i)
{
    return &p->negative[p->negative_count == 1 ? 0 : i];
}
