#include "vk/pipeline/prompt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vk/text/emphasis.h"

#define BACKTRACK 20u /* tokens that may follow a comma to the next chunk */
#define NO_COMMA  UINT32_MAX
#define QUOTE_MAX 640u /* bytes of a prompt in a warning */

/* A token with its weight, or a BREAK. */
struct item {
    struct clip_token token;
    float weight;
    bool is_break;
};

struct items ARRAY(struct item);

/* One text on its way into chunks. */
struct reader {
    const struct model *model;
    const struct request *request;
    const struct engine_observer *observer;
    void *userdata;
    struct clip_bpe_marks marks;
    struct prompt_text *to;
    char row[32]; /* "prompt", "prompts: text 2" */
    bool is_negative;
    uint32_t size;       /* tokens of a chunk without BOS and EOS */
    uint32_t chunks;     /* finished */
    uint32_t n;          /* tokens of the chunk in progress */
    uint32_t last_comma; /* its place among them */
    bool is_open;        /* there is a chunk in progress */
};

static bool is_chunked(const struct reader *r)
{
    return r->request->long_prompt == LONG_PROMPT_CHUNK;
}

/* --- text to tokens --------------------------------------------------------------------------- */

static int add_part(const struct reader *r, const struct emphasis *e,
                    const struct emphasis_part *part, struct items *items, struct fault *f)
{
    struct clip_tokens tokens = {0};
    int e_r = clip_bpe_tokens(r->model->tokenizer, e->points.items + part->first, part->count,
                              &tokens, f);

    if (e_r >= 0 && array_reserve(items, tokens.count) < 0)
        e_r = fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < tokens.count && e_r >= 0; i++)
        items->items[items->count++] =
            (struct item){.token = tokens.items[i], .weight = (float)part->weight};
    array_done(&tokens);
    return e_r;
}

static int add_break(const struct emphasis_part *part, struct items *items, struct fault *f)
{
    struct item *item = array_push(items);

    if (!item)
        return fault_set(f, -ENOMEM, "out of memory");
    *item = (struct item){.token.at = part->at, .is_break = true};
    return 0;
}

static int list_items(const struct reader *r, struct items *items, struct fault *f)
{
    bool is_weighted = r->request->prompt_syntax == PROMPT_SYNTAX_WEIGHTED;
    unsigned flags = is_weighted     ? EMPHASIS_BRACKETS | EMPHASIS_BREAKS
                     : is_chunked(r) ? EMPHASIS_BREAKS
                                     : 0;
    _cleanup_(emphasis_done) struct emphasis e = {0};
    int e_r = emphasis_parse(r->to->text, strlen(r->to->text), flags, &e, f);

    for (size_t i = 0; i < e.parts.count && e_r >= 0; i++) {
        const struct emphasis_part *part = &e.parts.items[i];
        e_r = part->is_break ? add_break(part, items, f) : add_part(r, &e, part, items, f);
    }
    return e_r;
}

/* --- tokens to chunks ------------------------------------------------------------------------- */

/* The ids of the chunk in progress, BOS first; and its weights. */
static int32_t *row_ids(const struct reader *r)
{
    return r->to->ids + (size_t)r->chunks * (r->size + 2);
}

static float *row_weights(const struct reader *r)
{
    return r->to->weights + (size_t)r->chunks * (r->size + 2);
}

/* Every chunk starts as the empty prompt. */
static void clear_chunks(const struct reader *r)
{
    for (size_t i = 0; i < (size_t)PROMPT_CHUNKS_MAX * (r->size + 2); i++) {
        size_t at = i % (r->size + 2);
        r->to->ids[i] = at == 0 ? r->marks.bos : at == 1 ? r->marks.eos : r->marks.pad;
        r->to->weights[i] = 1;
    }
}

/* The place behind the last one is EOS, or is left to one token more (compat=0.6). */
static void put(struct reader *r, int32_t id, float weight)
{
    int32_t *ids = row_ids(r);

    ids[1 + r->n] = id;
    row_weights(r)[1 + r->n] = weight;
    r->n++;
    if (r->n <= r->size)
        ids[1 + r->n] = r->marks.eos;
    r->is_open = true;
}

static void finish(struct reader *r)
{
    r->chunks++;
    r->n = 0;
    r->last_comma = NO_COMMA;
    r->is_open = false;
}

/* Bytes of the text that a message quotes: whole characters. */
static int quoted(const char *text, size_t length)
{
    size_t n = length < QUOTE_MAX ? length : QUOTE_MAX;

    while (n < length && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return (int)n;
}

/* Says what of the text, up to the item `to` or to its end, is left out. */
static void warn(const struct reader *r, const struct item *from, const struct item *to,
                 const char *unit, uint32_t limit)
{
    const char *text = r->to->text + from->token.at;
    size_t length = to ? to->token.at - from->token.at : strlen(text);
    int n = quoted(text, length);
    char warning[QUOTE_MAX + 128];

    if (!r->observer->on_warning)
        return;
    (void)snprintf(warning, sizeof warning, "%s: longer than %u %s; left out: \"%.*s%s\"", r->row,
                   limit, unit, n, text, (size_t)n < length ? " …" : "");
    r->observer->on_warning(warning, r->userdata);
}

/* Moves what follows the last comma to a chunk of its own. */
static void move_tail(struct reader *r)
{
    uint32_t from = r->last_comma + 1, count = r->n - from;
    int32_t *ids = row_ids(r) + 1 + from, moved[BACKTRACK];
    float *weights = row_weights(r) + 1 + from, moved_weights[BACKTRACK];

    memcpy(moved, ids, count * sizeof *moved);
    memcpy(moved_weights, weights, count * sizeof *moved_weights);
    for (uint32_t i = 0; i <= count; i++) { /* and the EOS behind them */
        ids[i] = i == 0 ? r->marks.eos : r->marks.pad;
        weights[i] = 1;
    }
    finish(r);
    for (uint32_t i = 0; i < count; i++)
        put(r, moved[i], moved_weights[i]);
}

/* One token of a prompt in chunks. False: no chunk is left for it. */
static bool place(struct reader *r, const struct item *item)
{
    uint32_t span = item->token.span;
    bool is_comma = item->token.id == r->marks.comma;
    bool is_last = r->chunks + 1 == PROMPT_CHUNKS_MAX;

    if (r->chunks == PROMPT_CHUNKS_MAX || (is_last && r->n == r->size))
        return false;
    if (!is_comma && r->n == r->size && r->last_comma != NO_COMMA &&
        r->n - r->last_comma <= BACKTRACK)
        move_tail(r);
    if (r->n == r->size)
        finish(r);
    if (span > 1 && span <= r->size && r->n + span > r->size) {
        if (r->chunks + 1 == PROMPT_CHUNKS_MAX)
            return false;
        finish(r);
    }
    if (is_comma)
        r->last_comma = r->n;
    put(r, item->token.id, item->weight);
    return true;
}

static const struct item *next_break(const struct item *item, const struct item *end)
{
    while (item < end && !item->is_break)
        item++;
    return item;
}

/* The part of a prompt up to a BREAK, cut at a chunk's size. */
static void cut(struct reader *r, const struct item *item, const struct item *stop,
                const struct item *end)
{
    bool is_old = r->request->compat == COMPAT_0_6 && !r->is_negative;
    uint32_t room = r->size + is_old;

    for (; item < stop && r->n < room; item++)
        put(r, item->token.id, item->weight);
    if (item < stop)
        warn(r, item, stop < end ? stop : NULL, "tokens", room);
}

static void fill_cut(struct reader *r, const struct item *item, const struct item *end)
{
    while (item < end && r->chunks < PROMPT_CHUNKS_MAX) {
        const struct item *stop = next_break(item, end);
        cut(r, item, stop, end);
        if (stop < end)
            finish(r);
        item = stop < end ? stop + 1 : end;
    }
    if (item < end)
        warn(r, item, NULL, "chunks", PROMPT_CHUNKS_MAX);
}

static void fill_chunks(struct reader *r, const struct item *item, const struct item *end)
{
    for (; item < end; item++) {
        if (item->is_break && r->chunks < PROMPT_CHUNKS_MAX)
            finish(r);
        else if (item->is_break || !place(r, item)) {
            warn(r, item, NULL, "chunks", PROMPT_CHUNKS_MAX);
            return;
        }
    }
}

/* --- one text --------------------------------------------------------------------------------- */

/* Fills r->to; its text is there. */
static int read_text(struct reader *r, struct fault *f)
{
    size_t room = (size_t)PROMPT_CHUNKS_MAX * (r->size + 2);
    struct items items = {0};

    r->to->ids = calloc(room, sizeof *r->to->ids);
    r->to->weights = calloc(room, sizeof *r->to->weights);
    if (!r->to->ids || !r->to->weights)
        return fault_set(f, -ENOMEM, "out of memory");
    r->chunks = r->n = 0;
    r->last_comma = NO_COMMA;
    r->is_open = false;
    int e_r = list_items(r, &items, f);
    if (e_r >= 0) {
        clear_chunks(r);
        if (is_chunked(r))
            fill_chunks(r, items.items, items.items + items.count);
        else
            fill_cut(r, items.items, items.items + items.count);
        if (r->is_open || r->chunks == 0)
            finish(r);
    }
    array_done(&items);
    return e_r < 0 ? fault_prefix(f, e_r, "%s", r->row) : 0;
}

/* --- all texts of a request ------------------------------------------------------------------- */

static void free_texts(struct prompt_text *texts, uint32_t count)
{
    for (uint32_t i = 0; texts && i < count; i++) {
        free(texts[i].text);
        free(texts[i].ids);
        free(texts[i].weights);
    }
    free(texts);
}

void prompts_done(struct prompts *p)
{
    free_texts(p->positive, p->count);
    free_texts(p->negative, p->negative_count);
    *p = (struct prompts){0};
}

/* The texts of the list, or the one text; at least one. */
static int take_texts(const struct request *q, enum request_row_id list_row, const char *one,
                      struct prompt_text **ret_texts, uint32_t *ret_count, struct fault *f)
{
    _cleanup_(text_list_done) struct text_list list = {0};
    int r = request_list(q, &request_rows[list_row], &list);
    uint32_t count = list.count ? (uint32_t)list.count : 1;

    if (r < 0)
        return fault_set(f, r, "out of memory");
    struct prompt_text *texts = calloc(count, sizeof *texts);
    if (!texts)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < list.count; i++)
        texts[i].text = TAKE_PTR(list.items[i]);
    if (!list.count)
        texts[0].text = strdup(one ? one : "");
    *ret_texts = texts;
    *ret_count = count;
    return texts[0].text ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

static int read_side(struct reader *r, struct prompts *p, struct fault *f)
{
    struct prompt_text *texts = r->is_negative ? p->negative : p->positive;
    uint32_t count = r->is_negative ? p->negative_count : p->count;
    const struct request *q = r->request;
    const char *list = r->is_negative ? q->negative_prompts : q->prompts;
    const char *stem = r->is_negative ? "negative_prompt" : "prompt";
    int e_r = 0;

    for (uint32_t i = 0; i < count && e_r >= 0; i++) {
        r->to = &texts[i];
        if (list && list[0])
            (void)snprintf(r->row, sizeof r->row, "%ss: text %u", stem, i + 1);
        else
            (void)snprintf(r->row, sizeof r->row, "%s", stem);
        e_r = read_text(r, f);
        if (e_r >= 0 && r->chunks > p->chunks)
            p->chunks = r->chunks;
    }
    return e_r;
}

int prompts_read(const struct model *m, const struct request *request,
                 const struct engine_observer *observer, void *userdata,
                 struct prompts *ret_prompts, struct fault *f)
{
    _cleanup_(prompts_done) struct prompts p = {.tokens = model_tokens(m), .chunks = 1};
    struct reader reader = {.model = m,
                            .request = request,
                            .observer = observer,
                            .userdata = userdata,
                            .marks = clip_bpe_get_marks(m->tokenizer),
                            .size = model_tokens(m) - 2};
    int r = take_texts(request, REQUEST_prompts, request->prompt, &p.positive, &p.count, f);

    if (r >= 0)
        r = take_texts(request, REQUEST_negative_prompts, request->negative_prompt, &p.negative,
                       &p.negative_count, f);
    if (r >= 0 && p.negative_count != 1 && p.negative_count != p.count)
        r = fault_set(f, -EINVAL, "negative_prompts: %u texts, but there are %u prompts",
                      p.negative_count, p.count);
    if (r >= 0)
        r = read_side(&reader, &p, f);
    reader.is_negative = true;
    if (r >= 0 && model_batch(m, request->guidance_scale) == 2)
        r = read_side(&reader, &p, f);
    if (r < 0)
        return r;
    *ret_prompts = p;
    p = (struct prompts){0};
    return 0;
}
