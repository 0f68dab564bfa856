/* What a PNG says about itself. Input: 24 bytes of numbers, then four texts that end in NUL:
 * prompt, negative prompt, model, model hash. The file decodes to the same pixels; its chunks have
 * their checksums and their order; texts hold what was given, in the encoding their chunk demands,
 * and nothing that a reader would take for something else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/picture.h"
#include "daemon/png-text.h"
#include "daemon/png.h"
#include "tests/fuzz/fuzz.h"

#define NUMBERS 24u
#define MARKER  "Negative prompt:"

struct input {
    struct png_facts facts;
    enum png_metadata metadata;
    char *texts[4];
};

/* --- words ------------------------------------------------------------------------------------ */

static unsigned count_of(const char *text, const char *what)
{
    unsigned count = 0;

    for (const char *p = strstr(text, what); p; p = strstr(p + 1, what))
        count++;
    return count;
}

/* Lines but the first that a reader takes for the beginning of the negative prompt. */
static unsigned count_markers(const char *text)
{
    unsigned count = 0;

    for (const char *p = strchr(text, '\n'); p; p = strchr(p, '\n')) {
        p++;
        while (strncmp(p, "\xe3\x80\x80", 3) == 0 || strncmp(p, "\xe2\x80\xa8", 3) == 0 ||
               strncmp(p, "\xc2\xa0", 2) == 0 || (*p > 0 && *p <= ' ' && *p != '\n'))
            p += (*p & 0xe0) == 0xe0 ? 3 : *p & 0x80 ? 2 : 1;
        count += strncmp(p, MARKER, strlen(MARKER)) == 0;
    }
    return count;
}

static void check_plain(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        fuzz_check(*p == '\n' || (*p >= 0x20 && *p != 0x7f));
}

static void check_parameters(const struct png_facts *facts, const char *text)
{
    const char *last = strrchr(text, '\n');
    const char *negative = facts->negative_prompt;

    check_plain(text);
    fuzz_check(fuzz_is_utf8(text, strlen(text)));
    fuzz_check(last && strncmp(last, "\nSteps: ", 8) == 0);
    fuzz_check(strstr(last, ", Sampler: ") && strstr(last, ", CFG scale: "));
    fuzz_check(count_markers(text) == (negative[0] ? 1u : 0u));
}

static void check_xmp(const struct png_facts *facts, const char *text, bool with_prompt)
{
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&#13;"};
    struct png_facts nothing = {0};
    bool described = with_prompt && facts->prompt[0];
    unsigned known = 0;
    char *bare = png_text_xmp(&nothing, true);

    fuzz_check(bare && fuzz_is_utf8(text, strlen(text)));
    for (size_t i = 0; i < sizeof entities / sizeof entities[0]; i++)
        known += count_of(text, entities[i]);
    fuzz_check(count_of(text, "&") == known);
    fuzz_check(count_of(text, "<") == count_of(bare, "<") + (described ? 6 : 0));
    fuzz_check(count_of(text, ">") == count_of(bare, ">") + (described ? 6 : 0));
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        fuzz_check(*p >= 0x20 || *p == '\n' || *p == '\t');
    free(bare);
}

/* --- the file --------------------------------------------------------------------------------- */

struct chunks {
    const uint8_t *at, *end;
    unsigned text_count, data_count;
    bool has_header;
};

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Keyword, NUL and, in an iTXt, five more bytes precede the text. */
static void check_text_chunk(const struct input *in, const uint8_t *data, size_t size, bool is_utf8)
{
    const uint8_t *end = memchr(data, '\0', size);
    char *want = NULL;

    fuzz_check(end && end > data && end - data < 80);
    size_t before = (size_t)(end - data) + (is_utf8 ? 5 : 1);
    const char *text = (const char *)data + before;
    fuzz_check(before <= size && !memchr(text, '\0', size - before));
    if (strcmp((const char *)data, "XML:com.adobe.xmp") == 0) {
        want = png_text_xmp(&in->facts, in->metadata == PNG_METADATA_FULL);
    } else if (strcmp((const char *)data, "parameters") == 0) {
        char *utf8 = png_text_parameters(&in->facts);
        fuzz_check(utf8);
        fuzz_check((png_text_latin1(utf8, &want) == -EILSEQ) == is_utf8);
        if (is_utf8)
            want = utf8;
        else
            free(utf8);
    } else {
        fuzz_check(strcmp((const char *)data, "Software") == 0 && !is_utf8);
        return;
    }
    fuzz_check(want && strlen(want) == size - before && memcmp(want, text, size - before) == 0);
    free(want);
}

static void check_chunk(const struct input *in, struct chunks *c)
{
    uint32_t size = big_endian(c->at);
    const uint8_t *type = c->at + 4, *data = c->at + 8;

    fuzz_check(size <= (size_t)(c->end - data) - 4);
    fuzz_check(big_endian(data + size) == fuzz_crc32(type, size + 4));
    bool is_text = memcmp(type, "tEXt", 4) == 0, is_utf8 = memcmp(type, "iTXt", 4) == 0;
    if (memcmp(type, "IHDR", 4) == 0) {
        fuzz_check(!c->has_header);
        c->has_header = true;
    }
    fuzz_check(c->has_header);
    if (memcmp(type, "IDAT", 4) == 0)
        c->data_count++;
    if (is_text || is_utf8) {
        fuzz_check(c->data_count == 0);
        c->text_count++;
        check_text_chunk(in, data, size, is_utf8);
    }
    c->at = data + size + 4;
    if (memcmp(type, "IEND", 4) == 0)
        fuzz_check(c->at == c->end && c->data_count > 0);
}

static void check_file(const struct input *in, const uint8_t *png, size_t size)
{
    static const unsigned texts[] = {
        [PNG_METADATA_FULL] = 3, [PNG_METADATA_PROVENANCE] = 2, [PNG_METADATA_NONE] = 0};
    struct chunks c = {.at = png + 8, .end = png + size};

    fuzz_check(size > 8 && memcmp(png, "\x89PNG\r\n\x1a\n", 8) == 0);
    while (c.at < c.end) {
        fuzz_check(c.end - c.at >= 12);
        check_chunk(in, &c);
    }
    fuzz_check(c.text_count == texts[in->metadata]);
}

/* --- one input -------------------------------------------------------------------------------- */

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static char *take_text(const uint8_t **data, size_t *size)
{
    const uint8_t *end = *size ? memchr(*data, '\0', *size) : NULL;
    size_t n = end ? (size_t)(end - *data) : *size;
    char *text = strndup((const char *)*data, n);

    fuzz_check(text);
    n += end != NULL;
    *data += n;
    *size -= n;
    return text;
}

static void read_input(const uint8_t *data, size_t size, struct input *ret_in)
{
    struct input in = {.metadata = (enum png_metadata)(data[0] % 3)};
    struct png_facts *facts = &in.facts;

    facts->width = data[1] % 24 + 1;
    facts->height = data[2] % 24 + 1;
    facts->scheduler = (enum scheduler_kind)(data[3] % (SCHEDULER_KIND_COUNT + 1));
    facts->steps = get_u32(data + 4);
    memcpy(&facts->guidance_scale, data + 8, sizeof facts->guidance_scale);
    facts->seed = get_u32(data + 16) | (uint64_t)get_u32(data + 20) << 32;
    data += NUMBERS;
    size -= NUMBERS;
    for (unsigned i = 0; i < 4; i++)
        in.texts[i] = take_text(&data, &size);
    for (unsigned i = 0; i < 2; i++) /* prompts are UTF-8 when they get here; names are not */
        if (!fuzz_is_utf8(in.texts[i], strlen(in.texts[i])))
            in.texts[i][0] = '\0';
    for (char *p = in.texts[3]; *p; p++)
        *p = "0123456789abcdef"[(unsigned char)*p % 16];
    facts->prompt = in.texts[0];
    facts->negative_prompt = in.texts[1];
    facts->model = in.texts[2];
    facts->model_hash = in.texts[3];
    *ret_in = in;
}

static void check_texts(const struct input *in)
{
    char *parameters = png_text_parameters(&in->facts);
    char *xmp = png_text_xmp(&in->facts, true);

    fuzz_check(parameters && xmp);
    check_parameters(&in->facts, parameters);
    check_xmp(&in->facts, xmp, true);
    free(parameters);
    free(xmp);
}

static void check_picture(const struct input *in)
{
    uint32_t width = in->facts.width, height = in->facts.height;
    uint32_t seed = in->facts.steps;
    uint8_t rgb[24 * 24 * 3], *png = NULL;
    struct picture back = {0};
    size_t size = 0;
    struct fault f = {0};

    for (size_t i = 0; i < (size_t)width * height * 3; i++)
        rgb[i] = (uint8_t)fuzz_random(&seed);
    fuzz_check(png_encode(rgb, width, height, &in->facts, in->metadata, &png, &size, &f) == 0);
    check_file(in, png, size);
    fuzz_check(picture_decode("png", png, size, &back, &f) == 0);
    fuzz_check(back.width == width && back.height == height &&
               memcmp(rgb, back.pixels, (size_t)width * height * 3) == 0);
    free(png);
    picture_done(&back);
}

static void run(const uint8_t *data, size_t size)
{
    struct input in;

    if (size < NUMBERS)
        return;
    read_input(data, size, &in);
    check_texts(&in);
    if (data[3] % 2)
        check_picture(&in);
    for (unsigned i = 0; i < 4; i++)
        free(in.texts[i]);
}

static const char *const words[] = {"Negative prompt:",
                                    "\nNegative prompt: ",
                                    "\nSteps: 1",
                                    "\r\n",
                                    "\r",
                                    "\n \t",
                                    "<",
                                    "&",
                                    "]]>",
                                    "\"",
                                    "\\",
                                    ",",
                                    ":",
                                    "\xc2\x85",
                                    "\xef\xbf\xbe",
                                    "\xe2\x80\xa8",
                                    "\xe3\x80\x80",
                                    "\xc2\xa0",
                                    "\xc3\xa9",
                                    "\xf0\x9f\xa6\x8a",
                                    "\x7f",
                                    "\xed\xa0\x80",
                                    "\xff",
                                    NULL};

const struct fuzz_target fuzz_png = {.name = "png", .max_size = 4096, .run = run, .words = words};
