/* The operator's word list. Input: the list, a NUL, a text. Every entry of a list that is accepted
 * is found in a text that is the entry itself, also in capitals and between other words; the place
 * of what is found is a line of the list. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/words.h"
#include "tests/fuzz/fuzz.h"

#define NAME "w"

static bool is_found(const struct words *words, const char *text)
{
    const char *place = NULL;
    char *end = NULL;

    int r = words_find(words, text, &place);
    fuzz_check(r == 0 || r == 1);
    if (r == 1) {
        fuzz_check(place && strncmp(place, NAME ":", strlen(NAME ":")) == 0);
        fuzz_check(strtoul(place + strlen(NAME ":"), &end, 10) > 0 && *end == '\0');
    }
    return r == 1;
}

static bool has_ascii_letter(const char *line)
{
    for (; *line; line++)
        if ((*line >= 'a' && *line <= 'z') || (*line >= 'A' && *line <= 'Z'))
            return true;
    return false;
}

static void check_line(const struct words *words, const char *line)
{
    char text[600];

    if (strncmp(line, "\xef\xbb\xbf", 3) == 0)
        line += 3; /* of the file's first line */
    if (*line == '#' || strlen(line) > 500 || !has_ascii_letter(line))
        return; /* what is invisible is no entry */
    fuzz_check(is_found(words, line));
    int n = snprintf(text, sizeof text, "zzq, %s. zzq", line);
    fuzz_check(n > 0 && (size_t)n < sizeof text);
    fuzz_check(is_found(words, text));
    for (char *p = text; *p; p++)
        *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
    fuzz_check(is_found(words, text));
}

static void check_accepted(const struct words *words, const char *list, size_t length)
{
    unsigned count = 0;

    while (length > 0 && count++ < 8) {
        const char *newline = memchr(list, '\n', length);
        size_t n = newline ? (size_t)(newline - list) : length;
        char *line = strndup(list, n);
        fuzz_check(line);
        check_line(words, line);
        free(line);
        n += newline != NULL;
        list += n;
        length -= n;
    }
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-EINVAL, -EFBIG, -E2BIG, -EILSEQ, 0};
    const char *list = (const char *)data;
    const uint8_t *end = size ? memchr(data, '\0', size) : NULL;
    size_t length = end ? (size_t)(end - data) : size;
    struct words *words = NULL;
    struct fault f = {0};

    int r = words_parse(list, length, NAME, &words, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        return;
    }
    check_accepted(words, list, length);
    if (end) {
        char *text = strndup((const char *)end + 1, size - length - 1);
        fuzz_check(text);
        (void)is_found(words, text);
        free(text);
    }
    (void)words_free(words);
}

static const char *const tokens[] = {"\n",
                                     "# c\n",
                                     " ",
                                     "fox",
                                     "red fox\n",
                                     "\xc3\x9f",
                                     "\xc3\xa9",
                                     "e\xcc\x81",
                                     "\xef\xac\x81",
                                     "\xe2\x80\x8b",
                                     "\xe7\x8b\x90",
                                     "\xc3\x98",
                                     "\xef\xbc\xa1",
                                     "-",
                                     "'",
                                     "\r\n",
                                     "\xef\xbb\xbf",
                                     "\xff",
                                     "\xc4\xb0",
                                     "\xe2\x85\xa7",
                                     NULL};

const struct fuzz_target fuzz_words = {
    .name = "words", .max_size = 2048, .run = run, .words = tokens};
