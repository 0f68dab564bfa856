/* Text to ids in the order of the reference: cut out special tokens that want the raw text,
 * normalise what is left, cut out those that want it normalised, split into pieces, merge bytes
 * within each piece.
 *
 * Merging keeps the symbols of a piece in a doubly linked list and the possible merges in a heap by
 * (rank, position), so that a word of n bytes costs n log n. Every code point carries its place in
 * the source, so that the cut of an over-long prompt can be told. The facts behind the
 * normalisation and the pattern are in tests/golden/README.md; source: transformers 4.23.1
 * convert_slow_tokenizer.py CLIPConverter, tokenizers 0.13.3. */
#include "vk/text/clip_bpe.h"

#include <errno.h>
#include <stdbool.h>
#include <utf8proc.h>

#include "vk/base/array.h"
#include "vk/text/nfc.h"
#include "vk/text/vocab.h"

#define NOTHING UINT32_MAX

struct clip_bpe {
    struct vocab *vocab;
};

/* One byte of a piece, or several once merged; the right part of a merge dies. */
struct symbol {
    uint32_t id;
    uint32_t previous, next; /* NOTHING at the ends */
    uint32_t at;             /* byte of the source text */
    bool dead;
};

/* A merge seen possible when it was pushed; stale when its pair has changed since. */
struct candidate {
    uint32_t rank;
    uint32_t left; /* index of the left symbol */
};

struct encoder {
    const struct vocab *vocab;
    struct ARRAY(struct symbol) symbols;
    struct ARRAY(struct candidate) heap;
    struct clip_tokens *tokens;
    size_t room; /* tokens->count at most */
    bool is_full;
    uint32_t dropped_at; /* byte of the first token that did not fit */
};

static int emit(struct encoder *e, uint32_t id, uint32_t at, uint32_t span)
{
    if (e->is_full)
        return 0;
    if (e->tokens->count == e->room) {
        e->is_full = true;
        e->dropped_at = at;
        return 0;
    }
    struct clip_token *token = array_push(e->tokens);
    if (!token)
        return -ENOMEM;
    *token = (struct clip_token){.id = (int32_t)id, .at = at, .span = span};
    return 0;
}

/* A special token: one id, or the ids of a word of several vectors. */
static int emit_special(struct encoder *e, const struct vocab_special *s, uint32_t at)
{
    int r = emit(e, s->id, at, s->vectors);

    for (uint32_t i = 1; i < s->vectors && r == 0; i++)
        r = emit(e, s->id + i, at, 1);
    return r;
}

/* --- merging within a piece ------------------------------------------------------------------- */

static bool is_before(struct candidate a, struct candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.left < b.left;
}

static int heap_push(struct encoder *e, struct candidate new)
{
    if (!array_push(&e->heap))
        return -ENOMEM;
    size_t i = e->heap.count - 1;
    while (i > 0 && is_before(new, e->heap.items[(i - 1) / 2])) {
        e->heap.items[i] = e->heap.items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->heap.items[i] = new;
    return 0;
}

static struct candidate heap_pop(struct encoder *e)
{
    struct candidate *items = e->heap.items;
    struct candidate top = items[0];
    struct candidate last = items[--e->heap.count];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= e->heap.count)
            break;
        if (child + 1 < e->heap.count && is_before(items[child + 1], items[child]))
            child++;
        if (!is_before(items[child], last))
            break;
        items[i] = items[child];
        i = child;
    }
    items[i] = last;
    return top;
}

/* The merge of the symbol at `left` with the one behind it, NULL when there is none. */
static const struct vocab_merge *merge_at(const struct encoder *e, uint32_t left)
{
    const struct symbol *symbols = e->symbols.items;

    if (left == NOTHING || symbols[left].next == NOTHING)
        return NULL;
    return vocab_merge_of(e->vocab, symbols[left].id, symbols[symbols[left].next].id);
}

static int consider(struct encoder *e, uint32_t left)
{
    const struct vocab_merge *merge = merge_at(e, left);

    return merge ? heap_push(e, (struct candidate){merge->rank, left}) : 0;
}

static int merge_all(struct encoder *e)
{
    int r = 0;

    e->heap.count = 0;
    for (size_t i = 0; r == 0 && i < e->symbols.count; i++)
        r = consider(e, (uint32_t)i);
    while (r == 0 && e->heap.count > 0) {
        struct candidate top = heap_pop(e);
        struct symbol *left = &e->symbols.items[top.left];
        const struct vocab_merge *merge = left->dead ? NULL : merge_at(e, top.left);
        if (!merge || merge->rank != top.rank)
            continue;
        struct symbol *right = &e->symbols.items[left->next];
        left->id = merge->id;
        left->next = right->next;
        right->dead = true;
        if (right->next != NOTHING)
            e->symbols.items[right->next].previous = top.left;
        r = consider(e, left->previous);
        if (r == 0)
            r = consider(e, top.left);
    }
    return r;
}

static int add_symbols(struct encoder *e, struct codepoint point)
{
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)point.c, bytes);

    for (utf8proc_ssize_t k = 0; k < n; k++) {
        uint32_t i = (uint32_t)e->symbols.count;
        struct symbol *symbol = array_push(&e->symbols);
        if (!symbol)
            return -ENOMEM;
        *symbol = (struct symbol){.id = e->vocab->byte[bytes[k]],
                                  .previous = i > 0 ? i - 1 : NOTHING,
                                  .next = i + 1,
                                  .at = point.at};
    }
    return 0;
}

/* Of the UTF-8 form of `c`. */
static uint8_t last_byte(uint32_t c)
{
    return (uint8_t)(c < 0x80 ? c : 0x80 | (c & 0x3f));
}

static int encode_piece(struct encoder *e, const struct codepoint *piece, size_t count)
{
    e->symbols.count = 0;
    for (size_t i = 0; i < count; i++) {
        int r = add_symbols(e, piece[i]);
        if (r < 0)
            return r;
    }
    struct symbol *last = &e->symbols.items[e->symbols.count - 1];
    last->id = e->vocab->last_byte[last_byte(piece[count - 1].c)];
    last->next = NOTHING;
    int r = merge_all(e);
    for (uint32_t i = 0; r == 0 && i != NOTHING; i = e->symbols.items[i].next)
        r = emit(e, e->symbols.items[i].id, e->symbols.items[i].at, 1);
    return r;
}

/* --- splitting: 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ --------------------- */

enum character_kind {
    CHARACTER_BLANK,
    CHARACTER_LETTER,
    CHARACTER_NUMBER,
    CHARACTER_OTHER,
};

/* Letters and digits younger than Unicode 14, which is what the reference knows, ascending. Source:
 * tests/golden/README.md. */
static const struct {
    uint32_t first, last;
} young[] = {
    {0x1123f, 0x11240}, {0x11f02, 0x11f33}, {0x11f50, 0x11f59}, {0x1342f, 0x1342f},
    {0x13441, 0x13446}, {0x1b132, 0x1b132}, {0x1b155, 0x1b155}, {0x1d2c0, 0x1d2d3},
    {0x1df25, 0x1df2a}, {0x1e030, 0x1e06d}, {0x1e4d0, 0x1e4eb}, {0x1e4f0, 0x1e4f9},
    {0x2b739, 0x2b739}, {0x2ebf0, 0x2ee5d}, {0x31350, 0x323af},
};

static bool is_young(uint32_t c)
{
    for (size_t i = 0; i < ARRAY_SIZE(young) && young[i].first <= c; i++)
        if (c <= young[i].last)
            return true;
    return false;
}

static enum character_kind kind_of(uint32_t c)
{
    if (is_young(c))
        return CHARACTER_OTHER;
    if (c == ' ') /* the only white space left */
        return CHARACTER_BLANK;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return CHARACTER_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return CHARACTER_NUMBER;
    default:
        return CHARACTER_OTHER;
    }
}

/* Length of the suffix ('s, 're …) that starts here, 0 when none does. */
static size_t suffix_length(const struct codepoint *p, size_t count)
{
    static const char *const suffixes[] = {"s", "t", "re", "ve", "m", "ll", "d"};

    if (p[0].c != '\'')
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        size_t n = strlen(suffixes[i]), k = 0;
        while (k < n && k + 1 < count && p[k + 1].c == (unsigned char)suffixes[i][k])
            k++;
        if (k == n)
            return n + 1;
    }
    return 0;
}

static size_t piece_length(const struct codepoint *p, size_t count)
{
    size_t n = suffix_length(p, count);
    enum character_kind kind = kind_of(p[0].c);

    if (n > 0)
        return n;
    n = 1;
    if (kind == CHARACTER_LETTER || kind == CHARACTER_OTHER)
        while (n < count && kind_of(p[n].c) == kind)
            n++;
    return n;
}

static int encode_stretch(struct encoder *e, const struct codepoint *p, size_t count)
{
    for (size_t i = 0; i < count && !e->is_full;) {
        size_t n = piece_length(p + i, count - i);
        int r = kind_of(p[i].c) == CHARACTER_BLANK ? 0 : encode_piece(e, p + i, n);
        if (r < 0)
            return r;
        i += n;
    }
    return 0;
}

/* --- normalising and special tokens ----------------------------------------------------------- */

/* Lower case of one character; U+0130 is the only one that becomes two. */
static int add_lower(struct codepoints *to, struct codepoint p)
{
    if (p.c != 0x130)
        return codepoints_add(to, (uint32_t)utf8proc_tolower((utf8proc_int32_t)p.c), p.at);
    int r = codepoints_add(to, 'i', p.at);
    return r < 0 ? r : codepoints_add(to, 0x307, p.at);
}

static int normalize(struct codepoints *to, const struct codepoint *from, size_t count)
{
    struct codepoints composed = {0};

    int r = nfc_append(&composed, from, count);
    for (size_t i = 0; r == 0 && i < composed.count; i++) {
        struct codepoint p = composed.items[i];
        if (!codepoint_is_space(p.c))
            r = add_lower(to, p);
        else if (i == 0 || !codepoint_is_space(composed.items[i - 1].c))
            r = codepoints_add(to, ' ', p.at);
    }
    array_done(&composed);
    return r;
}

static bool starts_with(const struct codepoint *p, size_t count, const struct codepoints *what)
{
    if (what->count > count)
        return false;
    for (size_t i = 0; i < what->count; i++)
        if (p[i].c != what->items[i].c)
            return false;
    return true;
}

/* The longest special token that starts here, NULL when none does. */
static const struct vocab_special *special_at(const struct vocab *v, bool normalized,
                                              const struct codepoint *p, size_t count)
{
    const struct vocab_special *best = NULL;

    for (size_t i = 0; i < v->specials.count; i++) {
        const struct vocab_special *s = &v->specials.items[i];
        if (s->normalized == normalized && starts_with(p, count, &s->text) &&
            (!best || s->text.count > best->text.count))
            best = s;
    }
    return best;
}

typedef int (*stage)(struct encoder *e, const struct codepoint *p, size_t count);

/* Cuts special tokens out, leftmost first; the stretches between them go to the next stage. */
static int cut(struct encoder *e, bool normalized, stage next, const struct codepoint *p,
               size_t count)
{
    size_t start = 0, i = 0;

    if (count == 0)
        return 0; /* and p may be NULL */
    while (i < count && !e->is_full) {
        const struct vocab_special *s = special_at(e->vocab, normalized, p + i, count - i);
        if (!s) {
            i++;
            continue;
        }
        int r = next(e, p + start, i - start);
        if (r == 0)
            r = emit_special(e, s, p[i].at);
        if (r < 0)
            return r;
        i += s->text.count;
        start = i;
    }
    return e->is_full ? 0 : next(e, p + start, count - start);
}

static int encode_normal(struct encoder *e, const struct codepoint *p, size_t count)
{
    struct codepoints normal = {0};

    int r = normalize(&normal, p, count);
    if (r == 0)
        r = cut(e, true, encode_stretch, normal.items, normal.count);
    array_done(&normal);
    return r;
}

/* A word looked for in normalised text, in that form. -EEXIST. */
static int add_word(struct vocab *v, const char *word, uint32_t id, uint32_t vectors)
{
    struct codepoints raw = {0}, normal = {0};

    int r = codepoints_decode(&raw, word, strlen(word), NULL);
    if (r == 0)
        r = normalize(&normal, raw.items, raw.count);
    array_done(&raw);
    for (size_t i = 0; i < v->specials.count && r == 0; i++) {
        const struct codepoints *other = &v->specials.items[i].text;
        if (other->count == normal.count && starts_with(normal.items, normal.count, other))
            r = -EEXIST;
    }
    struct vocab_special *new = r == 0 ? array_push(&v->specials) : NULL;
    if (!new) {
        array_done(&normal);
        return r ? r : -ENOMEM;
    }
    *new = (struct vocab_special){.text = normal, .id = id, .vectors = vectors, .normalized = true};
    return 0;
}

/* --- public ----------------------------------------------------------------------------------- */

/* Special tokens looked for in normalised text are normalised themselves. */
static int normalize_specials(struct vocab *v)
{
    for (size_t i = 0; i < v->specials.count; i++) {
        struct vocab_special *s = &v->specials.items[i];
        struct codepoints normal = {0};
        if (!s->normalized)
            continue;
        int r = normalize(&normal, s->text.items, s->text.count);
        array_done(&s->text);
        s->text.items = normal.items;
        s->text.count = normal.count;
        s->text.capacity = normal.capacity;
        if (r < 0)
            return r;
    }
    return 0;
}

int clip_bpe_open(const char *directory, struct clip_bpe **ret_tokenizer, struct fault *f)
{
    _cleanup_(clip_bpe_freep) struct clip_bpe *t = calloc(1, sizeof *t);

    if (!t)
        return fault_set(f, -ENOMEM, "%s: out of memory", directory);
    int r = vocab_open(directory, &t->vocab, f);
    if (r < 0)
        return r;
    r = normalize_specials(t->vocab);
    if (r < 0)
        return fault_set(f, r, "%s: out of memory", directory);
    *ret_tokenizer = TAKE_PTR(t);
    return 0;
}

struct clip_bpe *clip_bpe_free(struct clip_bpe *tokenizer)
{
    if (tokenizer)
        vocab_free(tokenizer->vocab);
    free(tokenizer);
    return NULL;
}

uint32_t clip_bpe_vocab_size(const struct clip_bpe *tokenizer)
{
    return tokenizer->vocab->size;
}

bool clip_bpe_states_pad(const struct clip_bpe *tokenizer)
{
    return tokenizer->vocab->is_pad_stated;
}

void clip_bpe_set_pad(struct clip_bpe *tokenizer, uint32_t id)
{
    tokenizer->vocab->pad = id;
}

uint32_t clip_bpe_model_max_length(const struct clip_bpe *tokenizer)
{
    return tokenizer->vocab->max_length;
}

struct clip_bpe_marks clip_bpe_get_marks(const struct clip_bpe *tokenizer)
{
    const struct vocab *v = tokenizer->vocab;
    uint32_t comma = v->last_byte[','];

    return (struct clip_bpe_marks){.bos = (int32_t)v->bos,
                                   .eos = (int32_t)v->eos,
                                   .pad = (int32_t)v->pad,
                                   .comma = comma == v->eos ? -1 : (int32_t)comma};
}

int clip_bpe_add_word(struct clip_bpe *tokenizer, const char *word, uint32_t vectors,
                      uint32_t *ret_first, struct fault *f)
{
    struct vocab *v = tokenizer->vocab;
    uint32_t first = v->size;
    char name[CLIP_BPE_WORD_MAX + 16];

    if (!*word || strlen(word) > CLIP_BPE_WORD_MAX || vectors == 0 ||
        v->size > CLIP_BPE_VOCAB_MAX || vectors > CLIP_BPE_VOCAB_MAX - v->size)
        return fault_set(f, -EINVAL, "\"%.64s\": want a word of 1…%u bytes, and ids below %u", word,
                         CLIP_BPE_WORD_MAX, CLIP_BPE_VOCAB_MAX);
    int r = add_word(v, word, first, vectors);
    for (uint32_t i = 1; i < vectors && r == 0; i++) {
        (void)snprintf(name, sizeof name, "%s_%u", word, i);
        r = add_word(v, name, first + i, 1);
    }
    if (r < 0)
        return fault_set(f, r, "\"%.64s\": %s", word,
                         r == -EEXIST   ? "there is such a token already"
                         : r == -EILSEQ ? "is not UTF-8"
                                        : "out of memory");
    v->size += vectors;
    *ret_first = first;
    return 0;
}

/* --- text to tokens --------------------------------------------------------------------------- */

static int encode_points(struct encoder *e, const struct codepoint *points, size_t count)
{
    int r = cut(e, false, encode_normal, points, count);

    array_done(&e->symbols);
    array_done(&e->heap);
    return r;
}

int clip_bpe_tokens(const struct clip_bpe *tokenizer, const struct codepoint *points, size_t count,
                    struct clip_tokens *tokens, struct fault *f)
{
    struct encoder e = {.vocab = tokenizer->vocab, .tokens = tokens, .room = SIZE_MAX};
    int r = encode_points(&e, points, count);

    return r < 0 ? fault_set(f, r, "tokenizer: out of memory") : 0;
}

static int encode_text(struct encoder *e, const char *text, size_t length, struct fault *f)
{
    struct codepoints points = {0};
    size_t bad = 0;

    int r = codepoints_decode(&points, text, length, &bad);
    if (r == 0)
        r = encode_points(e, points.items, points.count);
    array_done(&points);
    if (r == -EILSEQ)
        return fault_set(f, r, "text is not UTF-8 at byte %zu", bad);
    return r < 0 ? fault_set(f, r, "tokenizer: out of memory") : 0;
}

int clip_bpe_encode(const struct clip_bpe *tokenizer, const char *text, size_t length, uint32_t n,
                    int32_t *ret_ids, size_t *ret_dropped, struct fault *f)
{
    const struct vocab *v = tokenizer->vocab;
    struct clip_tokens tokens = {0};
    struct encoder e = {.vocab = v, .tokens = &tokens, .room = n - 2};

    if (n < 2 || n > INT32_MAX)
        return fault_set(f, -EINVAL, "tokenizer: %u ids leave no room for text", n);
    if (length > INT32_MAX)
        return fault_set(f, -EFBIG, "text of %zu bytes is too long", length);
    int r = encode_text(&e, text, length, f);
    if (r == 0) {
        ret_ids[0] = (int32_t)v->bos;
        for (uint32_t i = 1; i < n; i++)
            ret_ids[i] = i <= tokens.count ? tokens.items[i - 1].id : (int32_t)v->pad;
        ret_ids[1 + tokens.count] = (int32_t)v->eos;
        if (ret_dropped)
            *ret_dropped = e.is_full ? length - e.dropped_at : 0;
    }
    array_done(&tokens);
    return r;
}
