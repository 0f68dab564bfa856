/* embeddings — words learned by textual inversion: rows that follow the text encoder's own.
 *
 * A folder of safetensors files, read in the order of their names. A file holds
 *   one tensor       named by its word, "<cat-toy>"                        (diffusers)
 *   emb_params       the word is the file's name without ".safetensors"    (web UI, kohya)
 *   string_to_param.*  likewise
 * of shape [c] or [n, c], n vectors for n ids side by side. The word is looked for in the
 * normalised prompt, so without regard to case. Other files are left alone, but pickles (.pt, .bin,
 * …) are refused: they are programs. Source: diffusers 0.31.0 loaders/textual_inversion.py. */
#pragma once

#include "vk/text/clip_bpe.h"

#define EMBEDDINGS_FILES_MAX   1024u
#define EMBEDDINGS_VECTORS_MAX 75u   /* of a word: what a chunk holds */
#define EMBEDDINGS_ROWS_MAX    8192u /* of all words */

struct embeddings {
    uint32_t first; /* id of row 0 */
    uint32_t rows, c;
    uint16_t *halves;   /* [rows, pad8(c)], padding zero */
    struct fault owner; /* set (-EPERM) when others may write one of the files */
};

/* Adds the words of MODEL/embeddings, when there is one, to the tokenizer: rows of `c` numbers. A
 * word must not be in MODEL/tokenizer/vocab.json. Errors: -EINVAL, -EEXIST, -EFBIG, -ENOMEM or
 * errno; f names file and tensor, and what was wanted. */
int embeddings_read(const char *model_directory, uint32_t c, struct clip_bpe *tokenizer,
                    struct embeddings *ret_embeddings, struct fault *f);
void embeddings_done(struct embeddings *e);
