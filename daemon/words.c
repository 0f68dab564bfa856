/* A text is folded into " word word word " with one blank between words, so that finding whole
 * words is finding a string with blanks around it. Entries are sorted; from each word of the text
 * on, one, two, … words are looked up as long as some entry begins with them. */
#include "daemon/words.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "vk/base/array.h"
#include "vk/base/file.h"

#define DECOMPOSED_MAX 64 /* characters one may become; Unicode's longest is 18 */
#define CHARACTER_MAX  8  /* bytes: one of them, blanks around it, NUL */

struct entry {
    char *folded; /* "word word" */
    char *place;  /* "FILE:LINE" */
    unsigned line;
};

struct words {
    struct ARRAY(struct entry) entries; /* sorted by `folded` */
};

/* --- folding ---------------------------------------------------------------------------------- */

struct folding {
    char *text;
    size_t length, size;
    bool in_word;
    bool failed; /* out of memory */
};

struct range {
    int32_t first, last;
};

static bool is_in(const struct range *ranges, size_t count, int32_t c)
{
    for (size_t i = 0; i < count; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}

/* The accents of alphabets; marks of other scripts are vowels and stay. */
static bool is_accent(int32_t c)
{
    static const struct range ranges[] = {
        {0x0300, 0x036f}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x20d0, 0x20ff}, {0xfe20, 0xfe2f}};

    return is_in(ranges, ARRAY_SIZE(ranges), c);
}

static bool is_written_without_blanks(int32_t c)
{
    static const struct range ranges[] = {
        {0x0e00, 0x0eff},   /* Thai, Lao */
        {0x1000, 0x109f},   /* Burmese */
        {0x1780, 0x17ff},   /* Khmer */
        {0x3005, 0x3007},   /* iteration mark, closing mark, zero */
        {0x3040, 0x30ff},   /* Hiragana, Katakana */
        {0x31f0, 0x31ff},   /* Katakana extensions */
        {0x3400, 0x4dbf},   /* Han */
        {0x4e00, 0x9fff},   /* Han */
        {0x20000, 0x3ffff}, /* Han */
    };

    return is_in(ranges, ARRAY_SIZE(ranges), c);
}

/* Latin letters whose stroke is part of the letter, so that Unicode does not take it off. */
static int32_t without_stroke(int32_t c)
{
    static const struct {
        int32_t letter, plain;
    } rows[] = {{0xf8, 'o'},  {0x111, 'd'}, {0x127, 'h'}, {0x131, 'i'},
                {0x142, 'l'}, {0x167, 't'}, {0x180, 'b'}};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].letter == c)
            return rows[i].plain;
    return c;
}

static bool is_of_a_word(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return true;
    default:
        return false;
    }
}

/* Room for one more character and what stands around it. */
static bool has_room(struct folding *to)
{
    size_t wanted = to->size ? to->size * 2 : 256;

    if (to->length + CHARACTER_MAX <= to->size)
        return true;
    char *grown = realloc(to->text, wanted);
    to->failed = !grown;
    if (!grown)
        return false;
    to->text = grown;
    to->size = wanted;
    return true;
}

static void end_word(struct folding *to)
{
    if (to->in_word)
        to->text[to->length++] = ' ';
    to->in_word = false;
}

static void put_plain(struct folding *to, char c)
{
    bool is_upper = c >= 'A' && c <= 'Z';

    if (is_upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
        to->text[to->length++] = is_upper ? (char)(c - 'A' + 'a') : c;
        to->in_word = true;
    } else {
        end_word(to);
    }
}

/* One of the characters a character is decomposed into. */
static void put_part(struct folding *to, int32_t c)
{
    bool is_alone = is_written_without_blanks(c);

    if (is_accent(c) || !has_room(to))
        return;
    if (c < 0x80) {
        put_plain(to, (char)c);
        return;
    }
    if (!is_of_a_word(c) || is_alone)
        end_word(to);
    if (!is_of_a_word(c))
        return;
    to->length +=
        (size_t)utf8proc_encode_char(without_stroke(c), (utf8proc_uint8_t *)to->text + to->length);
    to->in_word = true;
    if (is_alone)
        end_word(to);
}

/* Takes the character at `p`; returns its length. What is no UTF-8 is a separator. */
static size_t put_character(struct folding *to, const utf8proc_uint8_t *p, utf8proc_ssize_t left)
{
    const utf8proc_option_t options =
        UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE;
    utf8proc_int32_t parts[DECOMPOSED_MAX], c;
    int boundclass = 0;

    if (*p < 0x80) {
        put_plain(to, (char)*p);
        return 1;
    }
    utf8proc_ssize_t length = utf8proc_iterate(p, left, &c);
    if (length <= 0) {
        end_word(to);
        return 1;
    }
    utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, DECOMPOSED_MAX, options, &boundclass);
    for (utf8proc_ssize_t i = 0; i < n && i < DECOMPOSED_MAX; i++)
        put_part(to, parts[i]);
    return (size_t)length;
}

/* The folded text: each word has a blank before and behind it. The caller frees to->text. */
static int fold(const char *text, size_t length, struct folding *to)
{
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text, *end = p + length;

    if (has_room(to))
        to->text[to->length++] = ' ';
    while (!to->failed && p < end && has_room(to))
        p += put_character(to, p, end - p);
    if (to->failed || !has_room(to))
        return -ENOMEM;
    end_word(to);
    to->text[to->length] = '\0';
    return 0;
}

/* --- the list --------------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->folded, ((const struct entry *)b)->folded);
}

static int compare_for_sort(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int order = compare_entries(x, y);

    return order ? order : (x->line > y->line) - (x->line < y->line);
}

/* Sorts; of equal entries the first line stays. */
static void sort_entries(struct words *words)
{
    struct entry *items = words->entries.items;
    size_t kept = 0;

    if (words->entries.count == 0)
        return;
    qsort(items, words->entries.count, sizeof *items, compare_for_sort);
    for (size_t i = 1; i < words->entries.count; i++) {
        if (compare_entries(&items[kept], &items[i]) != 0) {
            items[++kept] = items[i];
            continue;
        }
        free(items[i].folded);
        free(items[i].place);
    }
    words->entries.count = kept + 1;
}

/* Words of a folded text. */
static size_t count_words(const char *folded)
{
    size_t count = 0;

    for (const char *p = folded + 1; *p; p++)
        count += *p == ' ';
    return count;
}

/* Without NUL. */
static bool is_text(const char *text, size_t length)
{
    utf8proc_int32_t c;

    while (length > 0) {
        utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &c);
        if (n <= 0 || c == 0)
            return false;
        text += n;
        length -= (size_t)n;
    }
    return true;
}

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!strchr(" \t\r", text[i]))
            return false;
    return true;
}

static int add_entry(struct words *words, const char *folded, const char *name, unsigned line)
{
    struct entry *entry = array_push(&words->entries);

    if (!entry)
        return -ENOMEM;
    entry->folded = strndup(folded + 1, strlen(folded) - 2);
    if (!entry->folded || asprintf(&entry->place, "%s:%u", name, line) < 0) {
        free(entry->folded);
        words->entries.count--;
        return -ENOMEM;
    }
    entry->line = line;
    return 0;
}

static int take_line(struct words *words, const char *text, size_t length, const char *name,
                     unsigned line, struct fault *f)
{
    struct folding folding = {0};
    int r;

    if (!is_text(text, length))
        return fault_set(f, -EINVAL, "%s:%u: is not UTF-8 text", name, line);
    if (is_blank(text, length) || *text == '#')
        return 0;
    r = fold(text, length, &folding);
    if (r < 0)
        r = fault_set(f, r, "%s: out of memory", name);
    else if (count_words(folding.text) == 0)
        r = fault_set(f, -EINVAL, "%s:%u: holds no letter or digit", name, line);
    else if (count_words(folding.text) > WORDS_PHRASE_MAX)
        r = fault_set(f, -EINVAL, "%s:%u: more than %u words", name, line, WORDS_PHRASE_MAX);
    else if (words->entries.count == WORDS_MAX)
        r = fault_set(f, -EINVAL, "%s:%u: more than %u entries", name, line, WORDS_MAX);
    else if ((r = add_entry(words, folding.text, name, line)) < 0)
        r = fault_set(f, r, "%s: out of memory", name);
    free(folding.text);
    return r;
}

int words_parse(const char *text, size_t length, const char *name, struct words **ret_words,
                struct fault *f)
{
    static const char mark[] = "\xef\xbb\xbf"; /* what some editors put before UTF-8 */
    _cleanup_(words_freep) struct words *words = calloc(1, sizeof *words);
    const char *end = text + length;

    if (!words)
        return fault_set(f, -ENOMEM, "%s: out of memory", name);
    if (length >= strlen(mark) && memcmp(text, mark, strlen(mark)) == 0)
        text += strlen(mark);
    for (unsigned line = 1; text < end; line++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((newline ? newline : end) - text);
        int r = take_line(words, text, n, name, line, f);
        if (r < 0)
            return r;
        text += n + (newline != NULL);
    }
    sort_entries(words);
    *ret_words = TAKE_PTR(words);
    return 0;
}

int words_read(const char *path, struct words **ret_words, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;
    size_t length;
    int r = file_read(path, WORDS_FILE_MAX, &text, &length, f);

    return r < 0 ? r : words_parse(text, length, path, ret_words, f);
}

/* --- finding ---------------------------------------------------------------------------------- */

/* The first entry that is not before the `length` bytes at `text`. */
static size_t lower_bound(const struct words *words, const char *text, size_t length)
{
    size_t low = 0, high = words->entries.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strncmp(words->entries.items[middle].folded, text, length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The entry that is the next 1, 2, … words at `p`, a word's first byte. A blank sorts before every
 * letter: of the entries that begin with some words, these words alone come first, then those that
 * go on with another word. */
static const struct entry *find_at(const struct words *words, const char *p)
{
    for (const char *end = strchr(p, ' '); end; end = strchr(end + 1, ' ')) {
        size_t length = (size_t)(end - p), i = lower_bound(words, p, length);
        const struct entry *entry = &words->entries.items[i];
        if (i == words->entries.count || strncmp(entry->folded, p, length) != 0)
            return NULL;
        if (entry->folded[length] == '\0')
            return entry;
        if (entry->folded[length] != ' ')
            return NULL;
    }
    return NULL;
}

int words_find(const struct words *words, const char *text, const char **ret_place)
{
    struct folding folding = {0};
    const struct entry *entry = NULL;

    if (words->entries.count == 0)
        return 0;
    int r = fold(text, strlen(text), &folding);
    for (const char *p = folding.text; r == 0 && !entry && p; p = strchr(p, ' ')) {
        p++;
        if (!*p)
            break;
        entry = find_at(words, p);
    }
    free(folding.text);
    if (!entry)
        return r;
    *ret_place = entry->place;
    return 1;
}

struct words *words_free(struct words *words)
{
    if (!words)
        return NULL;
    for (size_t i = 0; i < words->entries.count; i++) {
        free(words->entries.items[i].folded);
        free(words->entries.items[i].place);
    }
    array_done(&words->entries);
    free(words);
    return NULL;
}
