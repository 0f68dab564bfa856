#include "vk/pipeline/context.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "vk/base/half.h"

#define HALF_MAX 65504.0

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

bool context_weigh(uint16_t *rows, const float *weights, uint32_t tokens, uint32_t c,
                   uint32_t padded)
{
    double before = 0, after = 0;
    bool is_sound = true;

    for (uint32_t t = 0; t < tokens; t++) {
        double sum = 0;
        for (uint32_t i = 0; i < c; i++)
            sum += (double)half_to_float(rows[(size_t)t * padded + i]);
        before += sum;
        after += sum * (double)weights[t];
    }
    double scale = before / after;
    if (!isfinite(scale))
        return false;
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t i = 0; i < c; i++) {
            uint16_t *x = &rows[(size_t)t * padded + i];
            double y = (double)half_to_float(*x) * (double)weights[t] * scale;
            is_sound &= fabs(y) <= HALF_MAX;
            *x = half_from_float((float)y);
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

/* --- one prompt ------------------------------------------------------------------------------- */

/* The chunks of a prompt, negative ones first, as the device has them side by side. */
struct batch {
    const struct context_job *job;
    uint32_t rows; /* chunks of all batch entries */
    uint32_t tokens, c, padded;
    size_t chunk_size; /* bytes of a chunk's context */
    size_t key_size;
    int32_t *ids;      /* [rows, tokens] */
    uint8_t *keys;     /* [rows, key_size] */
    uint16_t *context; /* [rows, tokens, padded] */
};

static void batch_done(struct batch *b)
{
    free(b->ids);
    free(b->keys);
    free(b->context);
}

static const struct prompt_text *text_of(const struct context_job *job, uint32_t prompt,
                                         uint32_t row)
{
    const struct session_shape *shape = &job->session->layout.shape;
    bool is_negative = shape->batch == 2 && row < shape->chunks;

    return is_negative ? prompts_negative(job->prompts, prompt) : &job->prompts->positive[prompt];
}

static const float *weights_of(const struct batch *b, uint32_t prompt, uint32_t row)
{
    uint32_t chunk = row % b->job->session->layout.shape.chunks;

    return text_of(b->job, prompt, row)->weights + (size_t)chunk * b->tokens;
}

static void write_key(const struct batch *b, uint32_t row, const float *weights)
{
    uint8_t *key = b->keys + row * b->key_size;
    size_t size = b->tokens * sizeof *b->ids;
    const struct key_head head = {.encoder = b->job->encoder,
                                  .clip_skip = b->job->session->layout.shape.clip_skip,
                                  .tokens = b->tokens};

    memcpy(key, &head, sizeof head);
    memcpy(key + sizeof head, b->ids + (size_t)row * b->tokens, size);
    memcpy(key + sizeof head + size, weights, size);
}

static int batch_make(struct batch *b, uint32_t prompt, struct fault *f)
{
    const struct session_layout *l = &b->job->session->layout;

    b->rows = l->shape.batch * l->shape.chunks;
    b->tokens = b->job->prompts->tokens;
    b->c = l->context.layout.count;
    b->padded = layout_padded(l->context.layout);
    b->chunk_size = (size_t)b->tokens * b->padded * sizeof *b->context;
    b->key_size = sizeof(struct key_head) + b->tokens * (sizeof *b->ids + sizeof(float));
    b->ids = calloc((size_t)b->rows * b->tokens, sizeof *b->ids);
    b->keys = calloc(b->rows, b->key_size);
    b->context = calloc(b->rows, b->chunk_size);
    if (!b->ids || !b->keys || !b->context)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t row = 0; row < b->rows; row++) {
        uint32_t chunk = row % l->shape.chunks;
        memcpy(b->ids + (size_t)row * b->tokens,
               text_of(b->job, prompt, row)->ids + (size_t)chunk * b->tokens,
               b->tokens * sizeof *b->ids);
        write_key(b, row, weights_of(b, prompt, row));
    }
    return 0;
}

/* Is every chunk remembered? Then the context is filled. */
static bool recall(struct batch *b)
{
    struct context_cache *c = b->job->cache;

    if (!c)
        return false;
    c->clock++;
    for (uint32_t row = 0; row < b->rows; row++) {
        struct entry *e = find(c, b->keys + row * b->key_size, b->key_size);
        if (!e) {
            c->facts.misses++;
            return false;
        }
        e->used = c->clock;
        memcpy((uint8_t *)b->context + row * b->chunk_size, e->rows, b->chunk_size);
    }
    c->facts.hits++;
    return true;
}

static int weigh(struct batch *b, uint32_t prompt, struct fault *f)
{
    for (uint32_t row = 0; row < b->rows; row++) {
        const float *weights = weights_of(b, prompt, row);
        uint16_t *rows = b->context + (size_t)row * b->tokens * b->padded;
        if (is_weighted(weights, b->tokens) &&
            !context_weigh(rows, weights, b->tokens, b->c, b->padded))
            return fault_set(f, -EINVAL, "%s %u: its weights cancel each other out",
                             text_of(b->job, prompt, row) == &b->job->prompts->positive[prompt]
                                 ? "prompt"
                                 : "negative prompt of prompt",
                             prompt + 1);
    }
    return 0;
}

static void remember(const struct batch *b)
{
    for (uint32_t row = 0; row < b->rows && b->job->cache; row++)
        keep(b->job->cache, b->keys + row * b->key_size, b->key_size,
             b->context + (size_t)row * b->tokens * b->padded, b->chunk_size);
}

/* ids -> text encoder -> b->context, weighted. */
static int encode(struct batch *b, uint32_t prompt, struct fault *f)
{
    const struct session *s = b->job->session;
    int r = gpu_upload(b->job->gpu, s->arena, s->layout.ids.offset, b->ids,
                       (uint64_t)b->rows * b->tokens * sizeof *b->ids, f);

    if (r >= 0)
        r = recording_run(s->recordings[SESSION_ENCODE], b->job->cancel, f);
    if (r >= 0)
        r = gpu_download(b->job->gpu, s->arena, s->layout.context.offset, b->context,
                         b->rows * b->chunk_size, f);
    if (r >= 0)
        r = weigh(b, prompt, f);
    if (r >= 0)
        remember(b);
    return r;
}

static void report(const struct batch *b, uint32_t picture, const struct engine_tensor *t)
{
    b->job->on_tensor(picture, t, b->job->userdata);
}

/* "tokens" I32 [batch, tokens of all chunks], "text" F32 [batch, tokens of all chunks, c]. */
static int report_both(const struct batch *b, uint32_t picture, struct fault *f)
{
    const struct session_shape *shape = &b->job->session->layout.shape;
    size_t values = (size_t)b->rows * b->tokens * b->c;
    _cleanup_(freep) float *text = malloc(values * sizeof *text);

    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < values; i++)
        text[i] = half_to_float(b->context[i / b->c * b->padded + i % b->c]);
    report(b, picture,
           &(struct engine_tensor){.name = "tokens",
                                   .element = ENGINE_ELEMENT_I32,
                                   .rank = 2,
                                   .dims = {shape->batch, shape->chunks * b->tokens},
                                   .data = b->ids});
    report(b, picture,
           &(struct engine_tensor){.name = "text",
                                   .element = ENGINE_ELEMENT_F32,
                                   .rank = 3,
                                   .dims = {shape->batch, shape->chunks * b->tokens, b->c},
                                   .data = text});
    return 0;
}

int context_make(const struct context_job *job, uint32_t i, uint32_t picture, struct fault *f)
{
    const struct session *s = job->session;
    _cleanup_(batch_done) struct batch b = {.job = job};
    int r = batch_make(&b, i, f);

    if (r >= 0 && !recall(&b))
        r = encode(&b, i, f);
    if (r >= 0)
        r = gpu_upload(job->gpu, s->arena, s->layout.context.offset, b.context,
                       b.rows * b.chunk_size, f);
    if (r >= 0 && job->on_tensor)
        r = report_both(&b, picture, f);
    if (r >= 0)
        r = recording_run(s->recordings[SESSION_CONTEXT], job->cancel, f);
    return r;
}
