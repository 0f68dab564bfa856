/* Prompts with brackets, numbers and BREAKs, through the attention syntax and into chunks. Input: a
 * byte of flags, then the text. Never a crash; the parts are the text's characters and no more,
 * weights within their limit; chunks are framed, at most as many as there may be; a text without
 * syntax is one part. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vk/pipeline/prompt.h"
#include "vk/text/emphasis.h"

#define TOKENS 77u

static const struct model *model_once(void)
{
    static struct model model = {.text.positions = TOKENS};
    uint32_t first;
    struct fault f = {0};

    if (!model.tokenizer) {
        fuzz_check(clip_bpe_open("packaging/demo-model/tokenizer", &model.tokenizer, &f) == 0);
        fuzz_check(clip_bpe_add_word(model.tokenizer, "<toy>", 9, &first, &f) == 0);
    }
    return &model;
}

static void check_parts(const char *text, size_t size, const struct emphasis *e)
{
    size_t points = 0;

    for (size_t i = 0; i < e->parts.count; i++) {
        const struct emphasis_part *part = &e->parts.items[i];
        fuzz_check(part->first == points && part->at <= size);
        fuzz_check(!part->is_break || part->count == 0);
        fuzz_check(fabs(part->weight) <= EMPHASIS_MAX);
        points += part->count;
    }
    fuzz_check(points == e->points.count && points <= size);
    for (size_t i = 0; i < points; i++)
        fuzz_check(e->points.items[i].at < size &&
                   (i == 0 || e->points.items[i].at > e->points.items[i - 1].at));
    if (!strpbrk(text, "\\()[]:") && !strstr(text, "BREAK"))
        fuzz_check(e->parts.count == 1 && e->parts.items[0].weight == 1);
}

static void check_chunks(const struct model *m, const struct prompts *p, const struct request *q)
{
    struct clip_bpe_marks marks = clip_bpe_get_marks(m->tokenizer);

    fuzz_check(p->chunks >= 1 && p->chunks <= PROMPT_CHUNKS_MAX);
    for (uint32_t c = 0; c < PROMPT_CHUNKS_MAX; c++) {
        const int32_t *ids = p->positive[0].ids + c * TOKENS;
        const float *weights = p->positive[0].weights + c * TOKENS;
        bool has_end = false;
        for (uint32_t i = 0; i < TOKENS; i++) {
            fuzz_check(ids[i] >= 0 && (uint32_t)ids[i] < clip_bpe_vocab_size(m->tokenizer));
            fuzz_check(isfinite(weights[i]));
            has_end |= ids[i] == marks.eos;
        }
        fuzz_check(ids[0] == marks.bos && weights[0] == 1);
        fuzz_check(has_end || q->compat == COMPAT_0_6);
    }
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-EILSEQ, -EINVAL, 0};
    static const struct engine_observer observer = {0};
    const struct model *m = model_once();
    uint8_t flags = size ? data[0] : 0;
    char *text = strndup(size ? (const char *)data + 1 : "", size ? size - 1 : 0);
    struct request q = {.prompt = text,
                        .prompt_syntax = flags & 1,
                        .long_prompt = flags >> 1 & 1,
                        .compat = flags >> 2 & 1};
    struct emphasis e = {0};
    struct prompts p = {0};
    struct fault f = {0};

    fuzz_check(text);
    int r = emphasis_parse(text, strlen(text), EMPHASIS_BRACKETS | EMPHASIS_BREAKS, &e, &f);
    if (r < 0)
        fuzz_check_fault(r, &f, errors);
    else
        check_parts(text, strlen(text), &e);
    emphasis_done(&e);
    f = (struct fault){0};
    r = prompts_read(m, &q, &observer, NULL, &p, &f);
    if (r < 0)
        fuzz_check_fault(r, &f, errors);
    else
        check_chunks(m, &p, &q);
    prompts_done(&p);
    free(text);
}

static const char *const words[] = {
    "(",      ")",      "[",     "]",   ":1.2)", ":",   "\\",   "\\(",   "BREAK",    " BREAK ",
    ", ",     "fox",    "<toy>", "0.5", ":-1)",  ":.)", ":99)", "12345", "\xc3\xa9", "\xe3\x80\x80",
    "((((((", "))))))", NULL};

const struct fuzz_target fuzz_prompt = {
    .name = "prompt", .max_size = 2048, .run = run, .words = words};
