/* emphasis — the attention syntax of AUTOMATIC1111's web UI: text to parts with weights.
 *
 *     (word)      1.1 times      (word:1.3)  1.3 times      [word]  1 / 1.1 times; all of them nest
 *     \( \) \[ \] \\  the characters themselves; a backslash before anything else vanishes
 *     BREAK       the upper-case word: the next part starts a chunk of its own
 * Blanks around BREAK vanish. What is never closed reaches to the end; a bracket that closes none
 * is text, and so is a ":1.3)" outside round brackets. Neighbours of the same weight are one part.
 * Unlike there, a BREAK within brackets is a BREAK. Source: web UI 1.10 modules/prompt_parser.py
 * parse_prompt_attention. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "vk/base/array.h"
#include "vk/base/fault.h"
#include "vk/text/nfc.h"

#define EMPHASIS_MAX 100.0 /* weights lie between this and its negative */

enum emphasis_flags {
    EMPHASIS_BRACKETS = 1 << 0, /* without it brackets and backslashes are text */
    EMPHASIS_BREAKS = 1 << 1,   /* without it BREAK is text */
};

struct emphasis_part {
    size_t first, count; /* code points */
    uint32_t at;         /* byte of the source text where it begins */
    double weight;
    bool is_break; /* no text, no weight */
};

struct emphasis {
    struct codepoints points; /* of all parts, in order; `at` counts in the source text */
    struct ARRAY(struct emphasis_part) parts;
};

/* Parses UTF-8 text. -EILSEQ, -EINVAL for a weight that is no number or too large, -ENOMEM; f
 * says where, and quotes nothing. Pure. */
int emphasis_parse(const char *text, size_t length, unsigned flags, struct emphasis *ret_emphasis,
                   struct fault *f);
void emphasis_done(struct emphasis *e);
