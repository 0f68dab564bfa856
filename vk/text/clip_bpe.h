/* clip_bpe — CLIP's tokenizer over any vocab.json and merges.txt, exactly as transformers'
 * CLIPTokenizerFast: NFC, white space runs to one blank, lower case, split by CLIP's pattern,
 * byte-level BPE with "</w>". Special tokens written in the text are recognised. Pure CPU.
 *
 * A tokenizer is read-only after clip_bpe_open and may be shared between threads. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/text/nfc.h"

#define CLIP_BPE_VOCAB_MAX 1048576u /* entries */
#define CLIP_BPE_WORD_MAX  255u     /* bytes of an added word */

struct clip_bpe;

/* Reads vocab.json, merges.txt and, where present, tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json from `directory`. Errors: -ENOENT, -EINVAL, -EFBIG, -ENOMEM; f names file and
 * place. */
int clip_bpe_open(const char *directory, struct clip_bpe **ret_tokenizer, struct fault *f);
struct clip_bpe *clip_bpe_free(struct clip_bpe *tokenizer);
DEFINE_FREEP(struct clip_bpe *, clip_bpe_free)

uint32_t clip_bpe_vocab_size(const struct clip_bpe *tokenizer); /* highest id + 1 */
uint32_t clip_bpe_model_max_length(
    const struct clip_bpe *tokenizer); /* 77 where the files are silent */

/* Does one of the files name the padding token? And another id for it, of the vocabulary, before
 * the tokenizer is shared. */
bool clip_bpe_states_pad(const struct clip_bpe *tokenizer);
void clip_bpe_set_pad(struct clip_bpe *tokenizer, uint32_t id);

/* Adds a word (UTF-8) that stands for `vectors` ids from *ret_first on, which follow those there
 * are: it is cut out of the normalised text like other added tokens, also inside words, the longest
 * first; with several vectors "WORD_1", "WORD_2" … mean the single ones. To be called before the
 * tokenizer is shared. -EEXIST, -EINVAL, -EILSEQ, -ENOMEM; the tokenizer is of no use after one.
 * Source: diffusers 0.31.0 loaders/textual_inversion.py. */
int clip_bpe_add_word(struct clip_bpe *tokenizer, const char *word, uint32_t vectors,
                      uint32_t *ret_first, struct fault *f);

/* Ids with a meaning of their own. comma: of "," at a word's end; -1 where there is none. */
struct clip_bpe_marks {
    int32_t bos, eos, pad, comma;
};
struct clip_bpe_marks clip_bpe_get_marks(const struct clip_bpe *tokenizer);

struct clip_token {
    int32_t id;
    uint32_t at;   /* byte of the source text, as the code points say */
    uint32_t span; /* ids of a word of several vectors, counted at its first; else 1 */
};
struct clip_tokens ARRAY(struct clip_token);

/* Appends the tokens of a stretch of text, without BOS, EOS and padding. -ENOMEM. */
int clip_bpe_tokens(const struct clip_bpe *tokenizer, const struct codepoint *points, size_t count,
                    struct clip_tokens *tokens, struct fault *f);

/* Encodes `text` (UTF-8, `length` bytes; NUL is a character; invalid UTF-8 is -EILSEQ) to exactly
 * `n` ids: BOS, at most n-2 tokens, EOS, padding. *ret_dropped (may be NULL): bytes of `text` from
 * the first token that did not fit, 0 when all fit. */
int clip_bpe_encode(const struct clip_bpe *tokenizer, const char *text, size_t length, uint32_t n,
                    int32_t *ret_ids, size_t *ret_dropped, struct fault *f);
