/* context — prompts on the device: text encoder, weights, keys and values; and what is remembered.
 *
 * For each chunk the encoder's rows, after its final norm, are multiplied by the tokens' weights;
 * where one is not 1, the chunk is then scaled so that its mean is what it was before ("Original"
 * emphasis of web UI 1.10, modules/sd_emphasis.py). Chunks are kept in the cache by everything that
 * decides about them; when all chunks of a prompt are there, the text encoder does not run. */
#pragma once

#include "vk/gpu/gpu.h"
#include "vk/pipeline/prompt.h"
#include "vk/pipeline/session.h"

#define CONTEXT_CACHE_BYTES (16u << 20) /* SD 1.5: 134 chunks */

/* The least recently used chunks go when there are more than `limit` bytes. One model's. */
struct context_cache;
int context_cache_new(size_t limit, struct context_cache **ret_cache); /* -ENOMEM */
struct context_cache *context_cache_free(struct context_cache *cache);
DEFINE_FREEP(struct context_cache *, context_cache_free)

struct context_facts {
    size_t entries, bytes, limit;
    uint64_t hits, misses; /* texts that needed no text encoder, and that did */
};
void context_cache_get_facts(const struct context_cache *cache, struct context_facts *ret_facts);

struct context_job {
    struct gpu *gpu;
    const struct model *model;
    struct weights *weights;
    struct session *session;
    const struct prompts *prompts;
    uint32_t clip_skip;          /* below or equal to the text encoder's layers */
    struct context_cache *cache; /* NULL: none */
    /* Which weights the text encoder has: 0 as in the file, else any number of its own for each way
     * they are changed (LoRA). */
    uint64_t encoder;
    /* Gets "tokens" and "text"; may be NULL. */
    void (*on_tensor)(uint32_t picture, const struct engine_tensor *tensor, void *userdata);
    void *userdata;
    const atomic_bool *cancel; /* may be NULL */
};

/* Makes the session's keys and values those of prompt i; its tensors are told of as `picture`'s.
 * Errors: -ECANCELED, -EIO, -ENOMEM, -EINVAL for weights that cancel each other out
 * or lead beyond half precision. */
int context_make(const struct context_job *job, uint32_t i, uint32_t picture, struct fault *f);

/* Rows [tokens, padded] of c channels, times the weights, to the old mean. False: the mean cannot
 * be restored, or a value is too large for half precision. Pure. */
bool context_weigh(float *rows, const float *weights, uint32_t tokens, uint32_t c, uint32_t padded);
