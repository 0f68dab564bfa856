/* drop-name — file names of the drop folder, as data: any bytes but '/' and NUL. No I/O. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DROP_NAME_SIZE  256 /* with the NUL */
#define DROP_KEY_SIZE   33  /* 128 random bits in hex, with the NUL */
#define DROP_SHOWN_SIZE 160

enum drop_kind {
    DROP_KIND_IGNORED, /* hidden or not complete yet */
    DROP_KIND_TEXT,    /* NAME.txt */
    DROP_KIND_INI,     /* NAME.ini */
    DROP_KIND_PICTURE, /* NAME.png, NAME.jpg, NAME.jpeg */
    DROP_KIND_MASK,    /* NAME.mask.png */
    DROP_KIND_OTHER,
};

struct drop_suffix {
    const char *text;
    enum drop_kind kind;
};

/* All that belongs to a NAME, in lower and upper case; longest first. */
extern const struct drop_suffix drop_suffixes[];
extern const size_t drop_suffix_count;

static inline bool drop_kind_is_ticket(enum drop_kind kind)
{
    return kind == DROP_KIND_TEXT || kind == DROP_KIND_INI;
}

/* What a file is by its name, and the length of NAME in it. */
enum drop_kind drop_name_split(const char *name, size_t *ret_base_length);

/* NAME as it stands in done/ and failed/: "~n" after it when n > 0, and cut at a character's
 * boundary where what comes after it would not fit into a file name. */
void drop_name_base(const char *name, size_t base_length, unsigned n,
                    char ret_base[DROP_NAME_SIZE]);

/* For logs and messages: control characters, backslashes and what is no UTF-8 as \xNN, cut to
 * `size`. */
void drop_name_show(const char *name, char *ret_text, size_t size);

/* 0 or -EIO. */
int drop_key_make(char ret_key[DROP_KEY_SIZE]);
bool drop_key_is_valid(const char *text);
