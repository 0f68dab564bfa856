/* vocab — a tokenizer's files as tables: byte → id, pair of ids → merge, special tokens.
 *
 * The work behind clip_bpe_open(). Reads what the reference reads, in its order of precedence:
 * tokenizer_config.json, then special_tokens_map.json over it, then added_tokens.json. Pure CPU. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/text/nfc.h"

#define VOCAB_NONE UINT32_MAX

struct vocab_merge {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank; /* lower merges first */
    uint32_t id;   /* of the result; VOCAB_NONE: the slot is empty */
};

/* A token that is cut out of the text as a whole. */
struct vocab_special {
    struct codepoints text;
    uint32_t id, vectors; /* ids id … id + vectors - 1 */
    bool normalized;      /* looked for in the normalised text, and then in that form itself */
};

struct vocab {
    uint32_t size; /* highest id + 1 */
    uint32_t max_length;
    uint32_t bos, eos, pad;
    bool is_pad_stated;      /* by the files; else it is the usual one */
    uint32_t byte[256];      /* inside a word */
    uint32_t last_byte[256]; /* with "</w>" */
    struct vocab_merge *merges;
    size_t merge_mask; /* slots - 1, a power of two less one */
    struct ARRAY(struct vocab_special) specials;
};

/* Errors: -ENOENT, -EINVAL, -EFBIG, -ENOMEM; f names file and place. */
int vocab_open(const char *directory, struct vocab **ret_vocab, struct fault *f);
struct vocab *vocab_free(struct vocab *vocab);
DEFINE_FREEP(struct vocab *, vocab_free)

/* NULL when the pair does not merge. */
const struct vocab_merge *vocab_merge_of(const struct vocab *vocab, uint32_t left, uint32_t right);
