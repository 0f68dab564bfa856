/* words — the operator's list of words that no prompt may hold.
 *
 * A file of UTF-8 text: one word or phrase a line, '#' begins a comment line. Both sides are folded
 * before they are compared: compatibility forms (full-width letters, ligatures), case (ß is ss) and
 * accents (é is e, ø is o) make no difference, invisible characters are not there. A word is a run
 * of letters, marks and digits; only whole words are found, so "ass" is not in "class". The words
 * of a phrase may have any blanks or punctuation between them. Scripts written without blanks
 * (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are compared character by character.
 * Look-alikes (a Cyrillic "a", 0 for o) are other words. */
#pragma once

#include <stddef.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define WORDS_FILE_MAX   (1u << 20) /* bytes */
#define WORDS_MAX        10000u     /* entries */
#define WORDS_PHRASE_MAX 32u        /* words of one entry */

struct words;

/* `name` stands in messages and places. -EINVAL: f names the line. */
int words_parse(const char *text, size_t length, const char *name, struct words **ret_words,
                struct fault *f);
/* The same from a file; its own errors as in file_read(). */
int words_read(const char *path, struct words **ret_words, struct fault *f);

/* 1 and the entry's place, "FILE:LINE" (borrowed from `words`, fit for a log: it repeats nothing of
 * the text), 0 when nothing is found, -ENOMEM. What is no UTF-8 separates words. */
int words_find(const struct words *words, const char *text, const char **ret_place);

struct words *words_free(struct words *words);
DEFINE_FREEP(struct words *, words_free)
