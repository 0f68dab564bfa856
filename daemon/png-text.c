/* png-text — see the header.  Sources: modules/processing.py and infotext parsing of the
 * AUTOMATIC1111 web UI (format); PNG 1.2, 4.2.3 (LF, no other control characters); XMP
 * specification part 1, 7.3 (packet wrapper); IPTC digital source type vocabulary. */
#include "daemon/png-text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "vk/base/cleanup.h"
#include "vk/base/version.h"

#define NEGATIVE "Negative prompt:"

/* The row sigmas: model default karras. */
#define SIGMAS_KARRAS 2

/* The names this field's readers know our samplers by. */
static const struct sampler {
    const char *name;
    bool has_sigmas;
} samplers[SCHEDULER_KIND_COUNT] = {
    [SCHEDULER_PNDM] = {"PLMS", false},        [SCHEDULER_DDIM] = {"DDIM", false},
    [SCHEDULER_LMS] = {"LMS", true},           [SCHEDULER_EULER] = {"Euler", true},
    [SCHEDULER_DDPM] = {"DDPM", false},        [SCHEDULER_EULER_A] = {"Euler a", true},
    [SCHEDULER_DPMPP_2M] = {"DPM++ 2M", true}, [SCHEDULER_HEUN] = {"Heun", true},
    [SCHEDULER_LCM] = {"LCM", false},
};

/* The next character of UTF-8 text; a byte that starts none stands for itself as '?'. Prompts were
 * checked when they came, a model's name is whatever its directory is called. */
static uint32_t next_character(const char **p)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)*p, -1, &c);

    *p += n > 0 ? n : 1;
    return n > 0 ? (uint32_t)c : '?';
}

static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

/* What Python's strip() takes away, and what we write as a blank. */
static bool is_stripped(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);

    return is_control(c) || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

/* Whether the text after a line end would, as it is written, be read as the negative prompt. */
static bool is_negative_marker(const char *text)
{
    const char *next = text;

    while (*text && is_stripped(next_character(&next)))
        text = next;
    for (const char *want = NEGATIVE; *want; want++) {
        uint32_t c = *text ? next_character(&text) : 0;
        bool is_blank = is_control(c) && c && c != '\r' && c != '\n';
        if ((is_blank ? ' ' : c) != (unsigned char)*want)
            return false;
    }
    return true;
}

static void write_prompt(FILE *out, const char *text)
{
    while (*text) {
        const char *start = text;
        uint32_t c = next_character(&text);

        if (c == '\r' && *text == '\n')
            continue;
        if (c == '\r' || c == '\n')
            (void)fputc(is_negative_marker(text) ? ' ' : '\n', out);
        else if (is_control(c))
            (void)fputc(' ', out);
        else if (c == '?')
            (void)fputc('?', out);
        else
            (void)fwrite(start, 1, (size_t)(text - start), out);
    }
}

/* A value of the last line; as JSON text where the bare one would end it early. */
static void write_value(FILE *out, const char *text)
{
    bool quote = text[strcspn(text, ",:\"")] != '\0';

    if (quote)
        (void)fputc('"', out);
    while (*text) {
        const char *start = text;
        uint32_t c = next_character(&text);

        if (quote && (c == '"' || c == '\\'))
            (void)fputc('\\', out);
        if (is_control(c))
            (void)fputc(' ', out);
        else if (c == '?')
            (void)fputc('?', out);
        else
            (void)fwrite(start, 1, (size_t)(text - start), out);
    }
    if (quote)
        (void)fputc('"', out);
}

/* The shortest notation that reads back as the same number. */
static void write_double(FILE *out, double x)
{
    char text[32];

    for (int digits = 6; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    (void)fputs(text, out);
}

/* Ends a text begun with open_memstream(); NULL when memory ran out on the way. */
static char *finish(FILE *out, char **text)
{
    bool failed = ferror(out) != 0;

    if (fclose(out) != 0 || failed) {
        free(*text);
        *text = NULL;
    }
    return *text;
}

static void write_sampler(FILE *out, const struct png_facts *facts)
{
    static const struct sampler unknown = {"?", false};
    const struct sampler *s =
        facts->scheduler < SCHEDULER_KIND_COUNT ? &samplers[facts->scheduler] : &unknown;
    bool is_karras = facts->options && facts->options->sigmas == SIGMAS_KARRAS && s->has_sigmas;

    (void)fprintf(out, ", Sampler: %s%s", s->name, is_karras ? " Karras" : "");
}

static void write_options(FILE *out, const struct request *q)
{
    if (request_has_image(q)) {
        (void)fputs(", Denoising strength: ", out);
        write_double(out, q->strength);
    }
    if (q->eta > 0 && q->scheduler == SCHEDULER_DDIM) {
        (void)fputs(", Eta: ", out);
        write_double(out, q->eta);
    }
    if (q->clip_skip > 0)
        (void)fprintf(out, ", Clip skip: %" PRIu64, (uint64_t)q->clip_skip + 1);
    (void)fprintf(out, ", RNG: %s", q->rng == RNG_CUDA ? "NV" : "CPU");
    if (q->lora && q->lora[0]) {
        (void)fputs(", Lora: ", out);
        write_value(out, q->lora);
    }
}

char *png_text_parameters(const struct png_facts *facts)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return NULL;
    if (facts->prompt)
        write_prompt(out, facts->prompt);
    if (facts->negative_prompt && facts->negative_prompt[0]) {
        (void)fputs("\n" NEGATIVE " ", out);
        write_prompt(out, facts->negative_prompt);
    }
    (void)fprintf(out, "\nSteps: %" PRIu32, facts->steps);
    write_sampler(out, facts);
    (void)fputs(", CFG scale: ", out);
    write_double(out, facts->guidance_scale);
    (void)fprintf(out, ", Seed: %" PRIu64 ", Size: %" PRIu32 "x%" PRIu32, facts->seed, facts->width,
                  facts->height);
    if (facts->model_hash && facts->model_hash[0])
        (void)fprintf(out, ", Model hash: %.10s", facts->model_hash);
    if (facts->model && facts->model[0]) {
        (void)fputs(", Model: ", out);
        write_value(out, facts->model);
    }
    if (facts->options)
        write_options(out, facts->options);
    return finish(out, &text);
}

/* Characters of XML 1.0 (production 2), the five that mean something escaped. */
static void write_xml(FILE *out, const char *text)
{
    while (*text) {
        const char *start = text;
        uint32_t c = next_character(&text);

        if (c == '&')
            (void)fputs("&amp;", out);
        else if (c == '<')
            (void)fputs("&lt;", out);
        else if (c == '>')
            (void)fputs("&gt;", out);
        else if (c == '"')
            (void)fputs("&quot;", out);
        else if (c == '\'')
            (void)fputs("&apos;", out);
        else if (c == '\r')
            (void)fputs("&#13;", out);
        else if ((c < 0x20 && c != '\t' && c != '\n') || c == 0xfffe || c == 0xffff ||
                 (c >= 0xd800 && c < 0xe000))
            continue;
        else if (c == '?')
            (void)fputc('?', out);
        else
            (void)fwrite(start, 1, (size_t)(text - start), out);
    }
}

char *png_text_xmp(const struct png_facts *facts, bool with_prompt)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return NULL;
    /* begin= holds a byte order mark; the id is the one every XMP packet has */
    (void)fputs("<?xpacket begin=\"\xef\xbb\xbf\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
                "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
                " <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n"
                "  <rdf:Description rdf:about=\"\"\n"
                "    xmlns:dc=\"http://purl.org/dc/elements/1.1/\"\n"
                "    xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"\n"
                "    xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\">\n"
                "   <xmp:CreatorTool>diffused " DIFFUSED_VERSION "</xmp:CreatorTool>\n"
                "   <Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/",
                out);
    (void)fprintf(out, "%s</Iptc4xmpExt:DigitalSourceType>\n",
                  facts->is_composite ? "compositeWithTrainedAlgorithmicMedia"
                                      : "trainedAlgorithmicMedia");
    if (with_prompt && facts->prompt && facts->prompt[0]) {
        (void)fputs("   <dc:description><rdf:Alt><rdf:li xml:lang=\"x-default\">", out);
        write_xml(out, facts->prompt);
        (void)fputs("</rdf:li></rdf:Alt></dc:description>\n", out);
    }
    (void)fputs("  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"r\"?>", out);
    return finish(out, &text);
}

int png_text_latin1(const char *utf8, char **ret_text)
{
    _cleanup_(freep) char *text = malloc(strlen(utf8) + 1);
    size_t n = 0;

    if (!text)
        return -ENOMEM;
    while (*utf8) {
        uint32_t c = next_character(&utf8);
        if (c > 0xff)
            return -EILSEQ;
        text[n++] = (char)c;
    }
    text[n] = '\0';
    *ret_text = TAKE_PTR(text);
    return 0;
}
