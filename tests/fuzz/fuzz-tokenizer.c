/* Text to ids with the demo model's tokenizer. Input: the text. Always n ids in the vocabulary:
 * BOS, tokens, EOS, padding; refused when, and only when, it is no UTF-8; a longer list begins with
 * the shorter one's tokens; ASCII is read without regard to case. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vk/text/clip_bpe.h"

#define SHORT 77u
#define LONG  300u

static struct clip_bpe *open_once(void)
{
    static struct clip_bpe *tokenizer;
    struct fault f = {0};

    if (!tokenizer)
        fuzz_check(clip_bpe_open("packaging/demo-model/tokenizer", &tokenizer, &f) == 0);
    return tokenizer;
}

/* Tokens before the first EOS, which unknown characters become too. */
static uint32_t check_ids(const struct clip_bpe *t, const int32_t *ids, uint32_t n)
{
    int32_t empty[3];
    uint32_t end = n - 1;

    fuzz_check(clip_bpe_encode(t, "", 0, 3, empty, NULL, NULL) == 0);
    for (uint32_t i = 0; i < n; i++)
        fuzz_check(ids[i] >= 0 && (uint32_t)ids[i] < clip_bpe_vocab_size(t));
    fuzz_check(ids[0] == empty[0]);
    while (end > 1 && ids[end] == empty[2] && empty[2] != empty[1])
        end--;
    fuzz_check(ids[end] == empty[1]);
    for (end = 1; ids[end] != empty[1];)
        end++;
    return end - 1;
}

static void check_case(const struct clip_bpe *t, const uint8_t *data, size_t size,
                       const int32_t *ids)
{
    int32_t upper[SHORT];
    char text[256];

    if (size > sizeof text || memchr(data, '<', size))
        return; /* special tokens keep their case */
    for (size_t i = 0; i < size; i++) {
        if (data[i] >= 0x80)
            return;
        text[i] = (char)toupper(data[i]);
    }
    fuzz_check(clip_bpe_encode(t, text, size, SHORT, upper, NULL, NULL) == 0);
    fuzz_check(memcmp(ids, upper, sizeof upper) == 0);
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-EILSEQ, 0};
    const struct clip_bpe *t = open_once();
    const char *text = (const char *)data;
    int32_t ids[SHORT], more[LONG];
    size_t dropped = 0, dropped_more = 0;
    struct fault f = {0};

    int r = clip_bpe_encode(t, text, size, SHORT, ids, &dropped, &f);
    fuzz_check((r == 0) == fuzz_is_utf8(text, size));
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        return;
    }
    uint32_t count = check_ids(t, ids, SHORT);
    fuzz_check(dropped <= size);
    fuzz_check(clip_bpe_encode(t, text, size, LONG, more, &dropped_more, &f) == 0);
    (void)check_ids(t, more, LONG);
    fuzz_check(dropped_more <= dropped);
    fuzz_check(memcmp(ids, more, (1 + count) * sizeof *ids) == 0);
    if (dropped)
        fuzz_check(fuzz_is_utf8(text + size - dropped, dropped));
    check_case(t, data, size, ids);
}

static const char *const words[] = {"fox",
                                    "'s",
                                    "'ll",
                                    "'re",
                                    "<|endoftext|>",
                                    "<|startoftext|>",
                                    " ",
                                    "\xc2\xa0",
                                    "\xe3\x80\x80",
                                    "\xcc\x81",
                                    "\xc4\xb0",
                                    "\xef\xac\x81",
                                    "\xf0\x9f\xa6\x8a",
                                    "12",
                                    "\xe1\x84\x80\xe1\x85\xa1",
                                    "--",
                                    "\xcd\x9c\xcc\x96",
                                    "\xe2\x84\xab",
                                    NULL};

const struct fuzz_target fuzz_tokenizer = {
    .name = "tokenizer", .max_size = 2048, .run = run, .words = words};
