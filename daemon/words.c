/* A text is folded into " word word word " with one blank between words, so that finding whole
 * words is finding a string with blanks around it. Entries are sorted; from each word of the text
 * on, the next 1, 2, … words are looked up until the longest entry's number. */
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

struct entry {
    char *folded; /* "word word" */
    char *place;  /* "FILE:LINE" */
    unsigned line;
};

struct words {
    struct ARRAY(struct entry) entries; /* sorted by `folded` */
    size_t longest;                     /* words of the longest entry */
};

/* --- folding ---------------------------------------------------------------------------------- */

struct folding {
    struct ARRAY(char) text;
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

static void put_byte(struct folding *to, char byte)
{
    char *slot = array_push(&to->text);

    if (slot)
        *slot = byte;
    else
        to->failed = true;
}

static void end_word(struct folding *to)
{
    if (to->in_word)
        put_byte(to, ' ');
    to->in_word = false;
}

static void put_character(struct folding *to, int32_t c)
{
    utf8proc_uint8_t bytes[4];
    bool is_alone = is_written_without_blanks(c);

    if (is_accent(c))
        return;
    if (!is_of_a_word(c) || is_alone)
        end_word(to);
    if (!is_of_a_word(c))
        return;
    utf8proc_ssize_t n = utf8proc_encode_char(without_stroke(c), bytes);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        put_byte(to, (char)bytes[i]);
    to->in_word = true;
    if (is_alone)
        end_word(to);
}

/* Appends the folded text and a NUL; each word has a blank before and behind it. */
static int fold(const char *text, size_t length, struct folding *to)
{
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text, *end = p + length;
    utf8proc_int32_t parts[DECOMPOSED_MAX], c;
    int boundclass = 0;

    put_byte(to, ' ');
    while (p < end && !to->failed) {
        utf8proc_ssize_t n = utf8proc_iterate(p, end - p, &c);
        if (n <= 0) { /* no UTF-8: a separator */
            end_word(to);
            p++;
            continue;
        }
        p += n;
        n = utf8proc_decompose_char(c, parts, DECOMPOSED_MAX,
                                    UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD |
                                        UTF8PROC_IGNORE,
                                    &boundclass);
        for (utf8proc_ssize_t i = 0; i < n && i < DECOMPOSED_MAX; i++)
            put_character(to, parts[i]);
    }
    end_word(to);
    put_byte(to, '\0');
    return to->failed ? -ENOMEM : 0;
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
    size_t count = count_words(folded);
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
    if (count > words->longest)
        words->longest = count;
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
    else if (count_words(folding.text.items) == 0)
        r = fault_set(f, -EINVAL, "%s:%u: holds no letter or digit", name, line);
    else if (count_words(folding.text.items) > WORDS_PHRASE_MAX)
        r = fault_set(f, -EINVAL, "%s:%u: more than %u words", name, line, WORDS_PHRASE_MAX);
    else if (words->entries.count == WORDS_MAX)
        r = fault_set(f, -EINVAL, "%s:%u: more than %u entries", name, line, WORDS_MAX);
    else if ((r = add_entry(words, folding.text.items, name, line)) < 0)
        r = fault_set(f, r, "%s: out of memory", name);
    array_done(&folding.text);
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

/* The entry that is 1, 2, … words from `p` on, a word's first byte. */
static const struct entry *find_at(const struct words *words, char *p)
{
    char *end = p;

    for (size_t n = 0; n < words->longest && *end; n++) {
        end = strchr(n == 0 ? end : end + 1, ' ');
        if (!end)
            return NULL;
        *end = '\0';
        const struct entry key = {.folded = p};
        const struct entry *entry =
            bsearch(&key, words->entries.items, words->entries.count, sizeof key, compare_entries);
        *end = ' ';
        if (entry)
            return entry;
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
    for (char *p = folding.text.items; r == 0 && !entry && p; p = strchr(p, ' ')) {
        p++;
        if (!*p)
            break;
        entry = find_at(words, p);
    }
    array_done(&folding.text);
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
