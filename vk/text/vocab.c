/* The reference builds its tables through Python objects whose defaults leak into the result. Kept
 * here:
 *   - merges.txt: the first line is a header whatever it holds, at most 48894 merges are read, of a
 *     repeated pair the first counts;
 *   - a special token is looked for in the raw text or in the normalised one: the file's
 * "normalized" where it says so; else normalised for bos, eos, unk of tokenizer_config.json, raw
 * for all others; of several entries with one text the first in the order of `roles` decides;
 *   - every role's token is special, the padding token too (SD 2's "!" is cut out of words).
 * Source: transformers 4.23.1 tokenization_clip.py, tokenization_utils_base.py _from_pretrained. */
#include "vk/text/vocab.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <utf8proc.h>

#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/text/clip_bpe.h"

#define VOCAB_BYTES_MAX  (64u << 20)
#define CONFIG_BYTES_MAX (16u << 20)
#define MERGES_MAX       48894u /* 49152 - 256 - 2, as the reference slices */
#define SPECIALS_MAX     1024u
#define TOKEN_BYTES_MAX  1024u
#define MAX_LENGTH       77u /* ids, where the files are silent */
#define MAX_LENGTH_MAX   65536u
#define END_OF_WORD      "</w>"

/* Roles of special tokens, in the reference's order; NULL: no token by default. */
enum role {
    ROLE_BOS,
    ROLE_EOS,
    ROLE_UNK,
    ROLE_SEP,
    ROLE_PAD,
    ROLE_CLS,
    ROLE_MASK,
    ROLE_COUNT,
};

static const struct {
    const char *key, *token;
    bool config_text_is_normalized; /* a plain string in tokenizer_config.json */
} roles[ROLE_COUNT] = {
    [ROLE_BOS] = {"bos_token", "<|startoftext|>", true},
    [ROLE_EOS] = {"eos_token", "<|endoftext|>", true},
    [ROLE_UNK] = {"unk_token", "<|endoftext|>", true},
    [ROLE_SEP] = {"sep_token", NULL, false},
    [ROLE_PAD] = {"pad_token", "<|endoftext|>", false},
    [ROLE_CLS] = {"cls_token", NULL, false},
    [ROLE_MASK] = {"mask_token", NULL, false},
};

struct token {
    char text[TOKEN_BYTES_MAX];
    bool exists, normalized;
};

struct loader {
    const char *directory;
    struct vocab *vocab;
    json_t *entries; /* vocab.json */
    json_t *added;   /* added_tokens.json, NULL without */
    struct token tokens[ROLE_COUNT];
    uint32_t ids[ROLE_COUNT];
    struct fault *f;
};

/* --- vocab.json ------------------------------------------------------------------------------- */

/* Checks that every value is an id; raises the vocabulary's size. */
static int check_ids(struct loader *l, const char *path, json_t *entries)
{
    const char *key;
    json_t *value;

    if (json_object_size(entries) > CLIP_BPE_VOCAB_MAX)
        return fault_set(l->f, -EFBIG, "%s: more than %u entries", path, CLIP_BPE_VOCAB_MAX);
    json_object_foreach(entries, key, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)CLIP_BPE_VOCAB_MAX)
            return fault_set(l->f, -EINVAL, "%s: \"%.64s\": want an id below %u", path, key,
                             CLIP_BPE_VOCAB_MAX);
        if ((uint32_t)id >= l->vocab->size)
            l->vocab->size = (uint32_t)id + 1;
    }
    return 0;
}

static int read_vocab(struct loader *l)
{
    char path[PATH_MAX];

    int r = file_path(path, l->f, "%s/%s", l->directory, "vocab.json");
    if (r < 0)
        return r;
    r = json_read_object(path, VOCAB_BYTES_MAX, &l->entries, l->f);
    return r < 0 ? r : check_ids(l, path, l->entries);
}

static uint32_t id_in(const json_t *entries, const char *token)
{
    const json_t *value = json_object_get(entries, token);

    return value ? (uint32_t)json_integer_value(value) : VOCAB_NONE;
}

/* In vocab.json, else in added_tokens.json, else VOCAB_NONE. */
static uint32_t id_of(const struct loader *l, const char *token)
{
    uint32_t id = id_in(l->entries, token);

    return id == VOCAB_NONE ? id_in(l->added, token) : id;
}

/* GPT-2's printable character for each byte: itself where it is printable Latin-1, else the next
 * unused one from U+0100 on. */
static uint32_t character_of_byte(unsigned byte)
{
    uint32_t unprintable = 0;

    for (unsigned b = 0; b < 256; b++) {
        bool is_printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte)
            return is_printable ? byte : 256 + unprintable;
        unprintable += !is_printable;
    }
    return 0;
}

/* What the vocabulary lacks becomes the unknown token. */
static void read_bytes(struct loader *l)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[4 + sizeof END_OF_WORD];
        utf8proc_ssize_t n = utf8proc_encode_char((utf8proc_int32_t)character_of_byte(byte),
                                                  (utf8proc_uint8_t *)text);
        text[n] = '\0';
        uint32_t id = id_in(l->entries, text);
        strcpy(text + n, END_OF_WORD);
        uint32_t last = id_in(l->entries, text);
        l->vocab->byte[byte] = id == VOCAB_NONE ? l->ids[ROLE_UNK] : id;
        l->vocab->last_byte[byte] = last == VOCAB_NONE ? l->ids[ROLE_UNK] : last;
    }
}

/* --- merges.txt ------------------------------------------------------------------------------- */

static size_t merge_slot(const struct vocab *v, uint64_t pair)
{
    size_t i =
        (size_t)((pair * 0x9e3779b97f4a7c15u) >> 32) & v->merge_mask; /* 2^64 / golden ratio */

    while (v->merges[i].id != VOCAB_NONE && v->merges[i].pair != pair)
        i = (i + 1) & v->merge_mask;
    return i;
}

const struct vocab_merge *vocab_merge_of(const struct vocab *vocab, uint32_t left, uint32_t right)
{
    const struct vocab_merge *m = &vocab->merges[merge_slot(vocab, (uint64_t)left << 32 | right)];

    return m->id == VOCAB_NONE ? NULL : m;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The next blank-separated word of [*p, end), copied. False when there is none or it is too long.
 */
static bool next_word(const char **p, const char *end, char ret_word[static TOKEN_BYTES_MAX])
{
    while (*p < end && is_blank(**p))
        (*p)++;
    const char *start = *p;
    while (*p < end && !is_blank(**p))
        (*p)++;
    size_t n = (size_t)(*p - start);
    if (n == 0 || n >= TOKEN_BYTES_MAX)
        return false;
    memcpy(ret_word, start, n);
    ret_word[n] = '\0';
    return true;
}

/* NULL, or what is wrong with the line. */
static const char *add_merge(struct loader *l, const char *line, const char *end, uint32_t rank)
{
    char left[TOKEN_BYTES_MAX], right[TOKEN_BYTES_MAX], whole[2 * TOKEN_BYTES_MAX];

    if (!next_word(&line, end, left) || !next_word(&line, end, right))
        return "want two tokens";
    while (line < end && is_blank(*line))
        line++;
    if (line < end)
        return "more than two tokens";
    (void)snprintf(whole, sizeof whole, "%s%s", left, right);
    uint32_t left_id = id_in(l->entries, left), right_id = id_in(l->entries, right);
    uint32_t id = id_in(l->entries, whole);
    if (left_id == VOCAB_NONE || right_id == VOCAB_NONE || id == VOCAB_NONE)
        return "a part or the whole is not in vocab.json";
    uint64_t pair = (uint64_t)left_id << 32 | right_id;
    struct vocab_merge *slot = &l->vocab->merges[merge_slot(l->vocab, pair)];
    if (slot->id == VOCAB_NONE)
        *slot = (struct vocab_merge){pair, rank, id};
    return NULL;
}

/* Room for as many merges as the text has lines, at most half full. */
static int allocate_merges(struct vocab *v, const char *text, size_t size)
{
    size_t lines = 1, slots = 16;

    for (size_t i = 0; i < size && lines < MERGES_MAX; i++)
        lines += text[i] == '\n';
    while (slots < 2 * lines)
        slots *= 2;
    v->merges = reallocarray(NULL, slots, sizeof *v->merges);
    if (!v->merges)
        return -ENOMEM;
    for (size_t i = 0; i < slots; i++)
        v->merges[i].id = VOCAB_NONE;
    v->merge_mask = slots - 1;
    return 0;
}

static int read_merges(struct loader *l)
{
    _cleanup_(freep) char *text = NULL;
    char path[PATH_MAX];
    size_t size;

    int r = file_path(path, l->f, "%s/%s", l->directory, "merges.txt");
    if (r == 0)
        r = file_read(path, VOCAB_BYTES_MAX, &text, &size, l->f);
    if (r < 0)
        return r;
    r = allocate_merges(l->vocab, text, size);
    if (r < 0)
        return fault_set(l->f, r, "%s: out of memory", path);
    const char *p = text, *end = text + size;
    unsigned number = 1;
    for (; p < end && is_blank(*p); p++)
        number += *p == '\n';
    while (end > p && is_blank(end[-1]))
        end--;
    for (uint32_t line = 0; p < end && line <= MERGES_MAX; line++, number++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop ? stop : end;
        const char *wrong = line > 0 ? add_merge(l, p, stop, line) : NULL; /* line 0: the header */
        if (wrong)
            return fault_set(l->f, -EINVAL, "%s: line %u: %s", path, number, wrong);
        p = stop + (stop < end);
    }
    return 0;
}

/* --- special tokens --------------------------------------------------------------------------- */

/* A token given as a string or as {"content": …, "normalized": …}. */
static int parse_token(const json_t *value, const char *key, bool text_is_normalized,
                       bool object_is_normalized, struct token *ret_token, struct fault *f)
{
    bool normalized = json_is_string(value) ? text_is_normalized : object_is_normalized;
    const char *text = json_string_value(value);
    bool single_word = false;

    if (json_is_object(value)) {
        if (json_get_string(value, "content", &text, f) < 0 ||
            json_get_bool(value, "normalized", &normalized, f) < 0 ||
            json_get_bool(value, "single_word", &single_word, f) < 0)
            return fault_prefix(f, -EINVAL, "%s", key);
    }
    if (!text || !*text || strlen(text) >= TOKEN_BYTES_MAX)
        return fault_set(f, -EINVAL, "%s: want a token of 1…%u bytes", key, TOKEN_BYTES_MAX - 1);
    if (single_word)
        return fault_set(f, -EINVAL, "%s: single_word tokens are not supported", key);
    (void)snprintf(ret_token->text, sizeof ret_token->text, "%s", text);
    ret_token->normalized = normalized;
    ret_token->exists = true;
    return 0;
}

/* Missing is fine: 0 with *ret_root NULL. */
static int read_optional(struct loader *l, const char *name, char ret_path[static PATH_MAX],
                         json_t **ret_root)
{
    int r = file_path(ret_path, l->f, "%s/%s", l->directory, name);
    if (r < 0)
        return r;
    r = json_read_object_of_doubles(ret_path, CONFIG_BYTES_MAX, ret_root, l->f);
    if (r != -ENOENT)
        return r;
    if (l->f)
        *l->f = (struct fault){0};
    return 0;
}

static int parse_roles(struct loader *l, const json_t *root, bool is_config)
{
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        const json_t *value = json_object_get(root, roles[i].key);
        if (!value || json_is_null(value))
            continue;
        bool text_is_normalized = is_config && roles[i].config_text_is_normalized;
        l->vocab->is_pad_stated |= i == ROLE_PAD;
        int r =
            parse_token(value, roles[i].key, text_is_normalized, is_config, &l->tokens[i], l->f);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Transformers writes 1e30 for "no limit", which here means the files are silent. */
static int parse_max_length(struct loader *l, const json_t *root)
{
    double length = MAX_LENGTH;

    int r = json_get_double(root, "model_max_length", 2, HUGE_VAL, &length, l->f);
    if (r < 0)
        return r;
    if (length > 1e20)
        length = MAX_LENGTH;
    if (length > MAX_LENGTH_MAX || length != floor(length))
        return fault_set(l->f, -EINVAL, "model_max_length: %g is outside 2…%u", length,
                         MAX_LENGTH_MAX);
    l->vocab->max_length = (uint32_t)length;
    return 0;
}

static int parse_sides(struct loader *l, const json_t *root)
{
    static const char *const keys[] = {"padding_side", "truncation_side"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const char *side = "right";
        int r = json_get_string(root, keys[i], &side, l->f);
        if (r < 0)
            return r;
        if (strcmp(side, "right") != 0)
            return fault_set(l->f, -EINVAL, "%s: \"%.16s\" is not supported, only \"right\"",
                             keys[i], side);
    }
    return 0;
}

static int read_config(struct loader *l)
{
    _cleanup_(json_freep) json_t *root = NULL;
    char path[PATH_MAX];

    for (size_t i = 0; i < ROLE_COUNT; i++) {
        struct token *t = &l->tokens[i];
        t->exists = roles[i].token;
        t->normalized = roles[i].config_text_is_normalized;
        (void)snprintf(t->text, sizeof t->text, "%s", t->exists ? roles[i].token : "");
    }
    l->vocab->max_length = MAX_LENGTH;
    int r = read_optional(l, "tokenizer_config.json", path, &root);
    if (r < 0 || !root)
        return r;
    r = parse_roles(l, root, true);
    if (r == 0)
        r = parse_max_length(l, root);
    if (r == 0)
        r = parse_sides(l, root);
    return r < 0 ? fault_prefix(l->f, r, "%s", path) : 0;
}

/* Adds a token to be cut out, unless one with this text is there already. */
static int add_special(struct loader *l, const struct token *token, uint32_t id)
{
    struct vocab *v = l->vocab;
    struct codepoints text = {0};

    int r = codepoints_decode(&text, token->text, strlen(token->text), NULL);
    bool is_known = false;
    for (size_t i = 0; r == 0 && i < v->specials.count && !is_known; i++) {
        const struct codepoints *other = &v->specials.items[i].text;
        is_known = other->count == text.count &&
                   memcmp(other->items, text.items, text.count * sizeof *text.items) == 0;
    }
    if (r == 0 && !is_known && v->specials.count == SPECIALS_MAX)
        r = -EFBIG;
    struct vocab_special *new = r == 0 && !is_known ? array_push(&v->specials) : NULL;
    if (!new) {
        array_done(&text);
        if (is_known)
            return 0;
        r = r ? r : -ENOMEM;
        return fault_set(l->f, r, "%s: special tokens: %s", l->directory, strerror(-r));
    }
    *new = (struct vocab_special){
        .text = text, .id = id, .vectors = 1, .normalized = token->normalized};
    return 0;
}

static int add_roles(struct loader *l)
{
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        l->ids[i] = VOCAB_NONE;
        if (!l->tokens[i].exists)
            continue;
        l->ids[i] = id_of(l, l->tokens[i].text);
        if (l->ids[i] == VOCAB_NONE)
            return fault_set(l->f, -EINVAL, "%s: %s \"%.64s\" is not in vocab.json", l->directory,
                             roles[i].key, l->tokens[i].text);
        int r = add_special(l, &l->tokens[i], l->ids[i]);
        if (r < 0)
            return r;
    }
    l->vocab->bos = l->ids[ROLE_BOS];
    l->vocab->eos = l->ids[ROLE_EOS];
    l->vocab->pad = l->ids[ROLE_PAD];
    return 0;
}

static int add_additional(struct loader *l, const json_t *root)
{
    const json_t *list = json_object_get(root, "additional_special_tokens");

    if (list && !json_is_null(list) && !json_is_array(list))
        return fault_set(l->f, -EINVAL, "additional_special_tokens: want a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct token token = {0};
        int r = parse_token(json_array_get(list, i), "additional_special_tokens", false, false,
                            &token, l->f);
        if (r < 0)
            return r;
        uint32_t id = id_of(l, token.text);
        if (id == VOCAB_NONE)
            return fault_set(l->f, -EINVAL, "additional token \"%.64s\" is not in vocab.json",
                             token.text);
        r = add_special(l, &token, id);
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_added(struct loader *l)
{
    char path[PATH_MAX];

    int r = file_path(path, l->f, "%s/%s", l->directory, "added_tokens.json");
    if (r < 0)
        return r;
    r = json_read_object(path, CONFIG_BYTES_MAX, &l->added, l->f);
    if (r == -ENOENT) {
        if (l->f)
            *l->f = (struct fault){0};
        return 0;
    }
    return r < 0 ? r : check_ids(l, path, l->added);
}

/* Tokens that are neither in the vocabulary nor special: looked for in the normalised text. */
static int add_added(struct loader *l)
{
    const char *key;
    json_t *value;

    json_object_foreach(l->added, key, value)
    {
        struct token token = {.normalized = true};
        if (id_in(l->entries, key) != VOCAB_NONE)
            continue;
        if (!*key || strlen(key) >= sizeof token.text)
            return fault_set(l->f, -EINVAL, "%s/added_tokens.json: want tokens of 1…%u bytes",
                             l->directory, TOKEN_BYTES_MAX - 1);
        (void)snprintf(token.text, sizeof token.text, "%s", key);
        int r = add_special(l, &token, (uint32_t)json_integer_value(value));
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_specials(struct loader *l)
{
    _cleanup_(json_freep) json_t *map = NULL;
    char path[PATH_MAX];

    int r = read_config(l);
    if (r == 0)
        r = read_added(l);
    if (r == 0)
        r = read_optional(l, "special_tokens_map.json", path, &map);
    if (r < 0)
        return r;
    r = map ? parse_roles(l, map, false) : 0;
    if (r < 0)
        return fault_prefix(l->f, r, "%s", path);
    r = add_roles(l);
    if (r < 0)
        return r;
    r = add_additional(l, map);
    if (r < 0)
        return fault_prefix(l->f, r, "%s", path);
    return add_added(l);
}

/* --- public ----------------------------------------------------------------------------------- */

int vocab_open(const char *directory, struct vocab **ret_vocab, struct fault *f)
{
    _cleanup_(vocab_freep) struct vocab *v = calloc(1, sizeof *v);
    _cleanup_(freep) struct loader *l = calloc(1, sizeof *l);

    if (!v || !l)
        return fault_set(f, -ENOMEM, "%s: out of memory", directory);
    l->directory = directory;
    l->vocab = v;
    l->f = f;
    int r = read_vocab(l);
    if (r == 0)
        r = read_specials(l);
    if (r == 0)
        r = read_merges(l);
    if (r == 0)
        read_bytes(l);
    json_decref(l->entries);
    json_decref(l->added);
    if (r < 0)
        return r;
    *ret_vocab = TAKE_PTR(v);
    return 0;
}

struct vocab *vocab_free(struct vocab *vocab)
{
    if (!vocab)
        return NULL;
    for (size_t i = 0; i < vocab->specials.count; i++)
        array_done(&vocab->specials.items[i].text);
    array_done(&vocab->specials);
    free(vocab->merges);
    free(vocab);
    return NULL;
}
