#include "vk/pipeline/context.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "vk/base/half.h"

#define HALF_MAX 65504.0f

/* --- the cache -------------------------------------------------------------------------------- */

/* What decides about a chunk's rows, beside the model. Followed by ids and weights. */
struct key_head {
    uint64_t encoder;
    uint32_t clip_skip, tokens;
};

struct entry {
    uint64_t hash;
    uint64_t used; /* the cache's clock at the last use */
    size_t key_size, rows_size;
    uint8_t *key;
    uint16_t *rows; /* behind the key, in one allocation */
};

struct context_cache {
    struct ARRAY(struct entry) entries;
    struct context_facts facts;
    uint64_t clock;
};

int context_cache_new(size_t limit, struct context_cache **ret_cache)
{
    struct context_cache *c = calloc(1, sizeof *c);

    if (!c)
        return -ENOMEM;
    c->facts.limit = limit;
    *ret_cache = c;
    return 0;
}

struct context_cache *context_cache_free(struct context_cache *c)
{
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->entries.count; i++)
        free(c->entries.items[i].key);
    array_done(&c->entries);
    free(c);
    return NULL;
}

void context_cache_get_facts(const struct context_cache *c, struct context_facts *ret_facts)
{
    *ret_facts = c->facts;
    ret_facts->entries = c->entries.count;
}

/* FNV-1a. */
static uint64_t hash_of(const uint8_t *key, size_t size)
{
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < size; i++)
        h = (h ^ key[i]) * 1099511628211u;
    return h;
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof *e + e->key_size + e->rows_size;
}

static struct entry *find(struct context_cache *c, const uint8_t *key, size_t size)
{
    uint64_t hash = hash_of(key, size);

    for (size_t i = 0; i < c->entries.count; i++) {
        struct entry *e = &c->entries.items[i];
        if (e->hash == hash && e->key_size == size && memcmp(e->key, key, size) == 0)
            return e;
    }
    return NULL;
}

static void drop_oldest(struct context_cache *c)
{
    size_t oldest = 0;

    for (size_t i = 1; i < c->entries.count; i++)
        if (c->entries.items[i].used < c->entries.items[oldest].used)
            oldest = i;
    c->facts.bytes -= entry_bytes(&c->entries.items[oldest]);
    free(c->entries.items[oldest].key);
    c->entries.items[oldest] = c->entries.items[--c->entries.count];
}

/* Out of memory is no error: the next prompt is encoded once more. */
static void keep(struct context_cache *c, const uint8_t *key, size_t key_size, const uint16_t *rows,
                 size_t rows_size)
{
    struct entry new = {.hash = hash_of(key, key_size),
                        .used = c->clock,
                        .key_size = key_size,
                        .rows_size = rows_size};

    if (entry_bytes(&new) > c->facts.limit || find(c, key, key_size))
        return;
    while (c->facts.bytes + entry_bytes(&new) > c->facts.limit)
        drop_oldest(c);
    new.key = malloc(key_size + rows_size); /* key_size is a multiple of 8 */
    struct entry *place = new.key ? array_push(&c->entries) : NULL;
    if (!place) {
        free(new.key);
        return;
    }
    new.rows = (uint16_t *)(void *)(new.key + key_size);
    memcpy(new.key, key, key_size);
    memcpy(new.rows, rows, rows_size);
    *place = new;
    c->facts.bytes += entry_bytes(&new);
}

/* --- weights ---------------------------------------------------------------------------------- */

bool context_weigh(float *rows, const float *weights, uint32_t tokens, uint32_t c, uint32_t padded)
{
    double before = 0, after = 0;
    bool is_sound = true;

    for (uint32_t t = 0; t < tokens; t++) {
        double sum = 0;
        for (uint32_t i = 0; i < c; i++)
            sum += (double)rows[(size_t)t * padded + i];
        before += sum;
        after += sum * (double)weights[t];
    }
    double scale = before / after;
    if (!isfinite(scale))
        return false;
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t i = 0; i < c; i++) {
            float *x = &rows[(size_t)t * padded + i];
            *x = (float)((double)*x * (double)weights[t] * scale);
            is_sound &= fabsf(*x) <= HALF_MAX;
        }
    }
    return is_sound;
}

static bool is_weighted(const float *weights, uint32_t tokens)
{
    for (uint32_t t = 0; t < tokens; t++)
        if (weights[t] != 1)
            return true;
    return false;
}

/* --- one text --------------------------------------------------------------------------------- */

/* One prompt or negative prompt: the chunks of a batch entry. */
struct side {
    const struct context_job *job;
    const struct prompt_text *text;
    const char *name; /* for messages */
    uint32_t clip_skip;
    uint32_t chunks, tokens, c, padded;
    uint16_t *context; /* [chunks, tokens, padded], the caller's */
};

static size_t chunk_size(const struct side *s)
{
    return (size_t)s->tokens * s->padded * sizeof *s->context;
}

static uint16_t *chunk_rows(const struct side *s, uint32_t chunk)
{
    return s->context + (size_t)chunk * s->tokens * s->padded;
}

static size_t key_size(const struct side *s)
{
    return sizeof(struct key_head) + s->tokens * (sizeof(int32_t) + sizeof(float));
}

/* Into `key`, key_size() bytes. */
static void write_key(const struct side *s, uint32_t chunk, uint8_t *key)
{
    const struct key_head head = {
        .encoder = s->job->encoder, .clip_skip = s->clip_skip, .tokens = s->tokens};
    size_t first = (size_t)chunk * s->tokens;

    memcpy(key, &head, sizeof head);
    key += sizeof head;
    memcpy(key, s->text->ids + first, s->tokens * sizeof(int32_t));
    key += s->tokens * sizeof(int32_t);
    memcpy(key, s->text->weights + first, s->tokens * sizeof(float));
}

/* Is every chunk remembered? Then the context is filled. */
static bool recall(const struct side *s, uint8_t *key)
{
    struct context_cache *c = s->job->cache;

    c->clock++;
    for (uint32_t i = 0; i < s->chunks; i++) {
        write_key(s, i, key);
        struct entry *e = find(c, key, key_size(s));
        if (!e) {
            c->facts.misses++;
            return false;
        }
        e->used = c->clock;
        memcpy(chunk_rows(s, i), e->rows, chunk_size(s));
    }
    c->facts.hits++;
    return true;
}

static void remember(const struct side *s, uint8_t *key)
{
    for (uint32_t i = 0; i < s->chunks; i++) {
        write_key(s, i, key);
        keep(s->job->cache, key, key_size(s), chunk_rows(s, i), chunk_size(s));
    }
}

/* What the encoder made, [chunks, tokens, padded], to s->context. */
static int weigh(const struct side *s, float *encoded, struct fault *f)
{
    size_t count = (size_t)s->tokens * s->padded;

    for (uint32_t i = 0; i < s->chunks; i++) {
        const float *weights = s->text->weights + (size_t)i * s->tokens;
        if (is_weighted(weights, s->tokens) &&
            !context_weigh(encoded + i * count, weights, s->tokens, s->c, s->padded))
            return fault_set(f, -EINVAL,
                             "%s: its weights cancel each other out, or lead beyond half precision",
                             s->name);
    }
    for (size_t i = 0; i < s->chunks * count; i++)
        s->context[i] = half_from_float(encoded[i]);
    return 0;
}

/* ids -> text encoder -> s->context, weighted. */
static int run_encoder(const struct side *s, struct fault *f)
{
    const struct context_job *job = s->job;
    const struct session_layout *l = &job->session->layout;
    size_t size = (size_t)s->chunks * s->tokens * s->padded * sizeof(float);
    _cleanup_(freep) float *encoded = malloc(size);
    struct recording *encoder = NULL;

    if (!encoded)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = session_encoder(job->session, job->model, job->weights, job->gpu, s->clip_skip,
                            &encoder, f);
    if (r >= 0)
        r = gpu_upload(job->gpu, job->session->arena, l->ids.offset, s->text->ids,
                       (uint64_t)s->chunks * s->tokens * sizeof(int32_t), f);
    if (r >= 0)
        r = recording_run(encoder, job->cancel, f);
    if (r >= 0)
        r = gpu_download(job->gpu, job->session->arena, l->encoded.offset, encoded, size, f);
    return r < 0 ? r : weigh(s, encoded, f);
}

static int encode(const struct side *s, struct fault *f)
{
    _cleanup_(freep) uint8_t *key = malloc(key_size(s));

    if (!key)
        return fault_set(f, -ENOMEM, "out of memory");
    if (!s->job->cache)
        return run_encoder(s, f);
    if (recall(s, key))
        return 0;
    int r = run_encoder(s, f);
    if (r >= 0)
        remember(s, key);
    return r;
}

/* --- a prompt and its negative prompt --------------------------------------------------------- */

/* Like diffusers 0.31.0, whose clip_skip leaves the negative prompt as it is. */
static int encode_both(const struct context_job *job, uint32_t i, uint16_t *context,
                       struct fault *f)
{
    const struct session_layout *l = &job->session->layout;
    struct side side = {.job = job,
                        .chunks = l->shape.chunks,
                        .tokens = job->prompts->tokens,
                        .c = l->context.layout.count,
                        .padded = layout_padded(l->context.layout)};
    int r = 0;

    if (l->shape.batch == 2) {
        side.text = prompts_negative(job->prompts, i);
        side.name = "negative_prompt";
        side.context = context;
        r = encode(&side, f);
    }
    if (r < 0)
        return r;
    side.text = &job->prompts->positive[i];
    side.name = "prompt";
    side.clip_skip = job->clip_skip;
    side.context =
        context + (l->shape.batch - 1) * side.chunks * chunk_size(&side) / sizeof *context;
    return encode(&side, f);
}

/* "tokens" I32 [batch, tokens of all chunks]. */
static int report_tokens(const struct context_job *job, uint32_t i, uint32_t picture,
                         struct fault *f)
{
    const struct session_shape *shape = &job->session->layout.shape;
    uint32_t n = shape->chunks * job->prompts->tokens;
    _cleanup_(freep) int32_t *ids = calloc((size_t)2 * n, sizeof *ids);

    if (!ids)
        return fault_set(f, -ENOMEM, "out of memory");
    if (shape->batch == 2)
        memcpy(ids, prompts_negative(job->prompts, i)->ids, n * sizeof *ids);
    memcpy(ids + (size_t)(shape->batch - 1) * n, job->prompts->positive[i].ids, n * sizeof *ids);
    job->on_tensor(picture,
                   &(struct engine_tensor){.name = "tokens",
                                           .element = ENGINE_ELEMENT_I32,
                                           .rank = 2,
                                           .dims = {shape->batch, n},
                                           .data = ids},
                   job->userdata);
    return 0;
}

/* "text" F32 [batch, tokens of all chunks, c]. */
static int report_text(const struct context_job *job, const uint16_t *context, uint32_t picture,
                       struct fault *f)
{
    const struct pinned *p = &job->session->layout.context;
    size_t c = p->layout.count, values = (size_t)p->n * p->h * c;
    _cleanup_(freep) float *text = malloc(values * sizeof *text);

    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < values; i++)
        text[i] = half_to_float(context[i / c * layout_padded(p->layout) + i % c]);
    job->on_tensor(picture,
                   &(struct engine_tensor){.name = "text",
                                           .element = ENGINE_ELEMENT_F32,
                                           .rank = 3,
                                           .dims = {p->n, p->h, (uint32_t)c},
                                           .data = text},
                   job->userdata);
    return 0;
}

int context_make(const struct context_job *job, uint32_t i, uint32_t picture, struct fault *f)
{
    const struct session *s = job->session;
    const struct pinned *p = &s->layout.context;
    size_t size = (size_t)p->n * p->h * layout_padded(p->layout) * sizeof(uint16_t);
    _cleanup_(freep) uint16_t *context = malloc(size);

    if (!context)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = job->on_tensor ? report_tokens(job, i, picture, f) : 0;
    if (r >= 0)
        r = encode_both(job, i, context, f);
    if (r >= 0)
        r = gpu_upload(job->gpu, s->arena, p->offset, context, size, f);
    if (r >= 0 && job->on_tensor)
        r = report_text(job, context, picture, f);
    if (r >= 0)
        r = recording_run(s->recordings[SESSION_CONTEXT], job->cancel, f);
    return r;
}
