/* nfc — Unicode normalisation form C of code points that remember where they came from.
 *
 * Linear time also for long runs of marks. The tables are utf8proc's, bent to those of the
 * reference (see nfc.c). Pure CPU. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/array.h"

struct codepoint {
    uint32_t c;
    uint32_t at; /* byte of the source text where the character it came from starts */
};

struct codepoints ARRAY(struct codepoint);

/* Appends one; 0 or -ENOMEM. */
int codepoints_add(struct codepoints *points, uint32_t c, uint32_t at);

/* Appends the characters of UTF-8 text; -EILSEQ with *ret_bad (may be NULL) = the offending byte.
 */
int codepoints_decode(struct codepoints *points, const char *text, size_t length, size_t *ret_bad);

/* \s of the reference's pattern library. */
bool codepoint_is_space(uint32_t c);

/* Appends NFC(from[0…count-1]) to `to`. 0 or -ENOMEM. */
int nfc_append(struct codepoints *to, const struct codepoint *from, size_t count);
