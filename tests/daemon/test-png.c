/* png: pixels come back from libpng, the words stand before them and read as the web UI writes
 * them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/png-text.h"
#include "daemon/picture.h"
#include "daemon/png.h"
#include "vk/base/version.h"

#define W 13
#define H 7

static const struct png_facts facts = {
    .prompt = "a fox, \"red\" & <small>",
    .negative_prompt = "blurry",
    .model = "emoji",
    .model_hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    .width = W,
    .height = H,
    .steps = 20,
    .guidance_scale = 2.5,
    .seed = 9223372036854775807u,
    .scheduler = SCHEDULER_PNDM,
};

struct chunk {
    char type[5];
    const uint8_t *data;
    size_t size;
};

static void fill(uint8_t rgb[W * H * 3])
{
    for (size_t i = 0; i < W * H * 3; i++)
        rgb[i] = (uint8_t)(i * 37 ^ i >> 3);
}

/* Chunk number `index`; false past the last one. Not through libpng: order matters here. */
static bool find_chunk(const uint8_t *png, size_t size, size_t index, struct chunk *ret)
{
    size_t at = 8;

    for (size_t i = 0; at + 12 <= size; i++) {
        size_t n = (size_t)png[at] << 24 | (size_t)png[at + 1] << 16 | (size_t)png[at + 2] << 8 |
                   png[at + 3];
        assert_true(n <= size - at - 12);
        *ret = (struct chunk){.data = png + at + 8, .size = n};
        memcpy(ret->type, png + at + 4, 4);
        if (i == index)
            return true;
        at += n + 12;
    }
    return false;
}

/* A text chunk with this keyword before IDAT, as malloc'd text; NULL when there is none. */
static char *find_text(const uint8_t *png, size_t size, const char *type, const char *keyword)
{
    struct chunk c;
    size_t skip = strlen(keyword) + 1 + (strcmp(type, "iTXt") == 0 ? 4 : 0);

    for (size_t i = 0; find_chunk(png, size, i, &c) && strcmp(c.type, "IDAT") != 0; i++) {
        if (strcmp(c.type, type) != 0 || c.size < skip ||
            strcmp((const char *)c.data, keyword) != 0)
            continue;
        return strndup((const char *)c.data + skip, c.size - skip);
    }
    return NULL;
}

static void encode(const struct png_facts *what, enum png_metadata metadata, uint8_t **png,
                   size_t *size)
{
    uint8_t rgb[W * H * 3];

    fill(rgb);
    assert_int_equal(png_encode(rgb, W, H, what, metadata, png, size, NULL), 0);
}

static void test_pixels(void **state)
{
    uint8_t rgb[W * H * 3], *png, *again;
    size_t size, size_again;
    struct picture back;

    (void)state;
    fill(rgb);
    encode(&facts, PNG_METADATA_FULL, &png, &size);
    encode(&facts, PNG_METADATA_FULL, &again, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(png, again, size);
    assert_int_equal(picture_decode("png", png, size, &back, NULL), 0);
    assert_int_equal(back.width, W);
    assert_int_equal(back.height, H);
    assert_memory_equal(back.pixels, rgb, sizeof rgb);
    picture_done(&back);
    free(again);
    free(png);
}

static void test_levels(void **state)
{
    static const struct {
        enum png_metadata metadata;
        bool software, xmp, parameters;
    } rows[] = {
        {PNG_METADATA_FULL, true, true, true},
        {PNG_METADATA_PROVENANCE, true, true, false},
        {PNG_METADATA_NONE, false, false, false},
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        uint8_t *png;
        size_t size;
        encode(&facts, rows[i].metadata, &png, &size);
        char *software = find_text(png, size, "tEXt", "Software");
        char *xmp = find_text(png, size, "iTXt", "XML:com.adobe.xmp");
        char *parameters = find_text(png, size, "tEXt", "parameters");
        assert_int_equal(software != NULL, rows[i].software);
        assert_int_equal(xmp != NULL, rows[i].xmp);
        assert_int_equal(parameters != NULL, rows[i].parameters);
        if (software)
            assert_string_equal(software, "diffused " DIFFUSED_VERSION);
        if (xmp)
            assert_non_null(strstr(xmp, "/digitalsourcetype/trainedAlgorithmicMedia<"));
        assert_int_equal(memmem(png, size, "fox", 3) != NULL, rows[i].parameters);
        free(software);
        free(xmp);
        free(parameters);
        free(png);
    }
}

static void test_parameters(void **state)
{
    static const struct {
        const char *prompt, *negative, *model, *want;
    } rows[] = {
        {"a fox", "blurry", "emoji",
         "a fox\nNegative prompt: blurry\nSteps: 20, Sampler: PLMS, CFG scale: 2.5, "
         "Seed: 9223372036854775807, Size: 13x7, Model hash: 0123456789, Model: emoji"},
        {"a\r\nb\rc\nd", "", "a, \"b\"",
         "a\nb\nc\nd\nSteps: 20, Sampler: PLMS, CFG scale: 2.5, Seed: 9223372036854775807, "
         "Size: 13x7, Model hash: 0123456789, Model: \"a, \\\"b\\\"\""},
        {"a\n \nNegative prompt: x\ttab", NULL, NULL,
         "a   Negative prompt: x tab\nSteps: 20, Sampler: PLMS, CFG scale: 2.5, "
         "Seed: 9223372036854775807, Size: 13x7, Model hash: 0123456789"},
        {NULL, NULL, NULL,
         "\nSteps: 20, Sampler: PLMS, CFG scale: 2.5, Seed: 9223372036854775807, Size: 13x7, "
         "Model hash: 0123456789"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct png_facts f = facts;
        f.prompt = rows[i].prompt;
        f.negative_prompt = rows[i].negative;
        f.model = rows[i].model;
        char *text = png_text_parameters(&f);
        assert_string_equal(text, rows[i].want);
        free(text);
    }
}

static void test_samplers(void **state)
{
    static const char *const want[] = {"Sampler: PLMS,",     "Sampler: DDIM,", "Sampler: LMS,",
                                       "Sampler: Euler,",    "Sampler: DDPM,", "Sampler: Euler a,",
                                       "Sampler: DPM++ 2M,", "Sampler: Heun,", "Sampler: LCM,"};

    (void)state;
    for (int i = 0; i < SCHEDULER_KIND_COUNT; i++) {
        struct png_facts f = facts;
        f.scheduler = (enum scheduler_kind)i;
        char *text = png_text_parameters(&f);
        assert_non_null(strstr(text, want[i]));
        free(text);
    }
}

/* What follows the model, of a request's other rows. */
static void test_options(void **state)
{
    static char image[] = "photo.jpg", none[] = "", lora[] = "a:0.5,b";
    static const struct {
        struct request request;
        const char *sampler, *tail;
    } rows[] = {
        {{.strength = .8}, "Sampler: DDIM,", "Model: emoji, RNG: CPU"},
        {{.image = none, .strength = .8}, "Sampler: DDIM,", "Model: emoji, RNG: CPU"},
        {{.image = image, .strength = .3, .sigmas = 2},
         "Sampler: DDIM,",
         "Model: emoji, Denoising strength: 0.3, RNG: CPU"},
        {{.scheduler = SCHEDULER_DPMPP_2M, .eta = 1, .sigmas = 2},
         "Sampler: DPM++ 2M Karras,",
         "Model: emoji, RNG: CPU"},
        {{.scheduler = SCHEDULER_DPMPP_2M, .sigmas = 1},
         "Sampler: DPM++ 2M,",
         "Model: emoji, RNG: CPU"},
        {{.scheduler = SCHEDULER_DDIM, .eta = .25, .clip_skip = 1, .rng = RNG_CUDA, .lora = lora},
         "Sampler: DDIM,",
         "Model: emoji, Eta: 0.25, Clip skip: 2, RNG: NV, Lora: \"a:0.5,b\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct png_facts f = facts;
        f.options = &rows[i].request;
        f.scheduler = rows[i].request.scheduler ? rows[i].request.scheduler : SCHEDULER_DDIM;
        char *text = png_text_parameters(&f);
        assert_non_null(strstr(text, rows[i].sampler));
        const char *tail = strstr(text, "Model: ");
        assert_string_equal(tail, rows[i].tail);
        free(text);
    }
}

static void test_latin1(void **state)
{
    static const struct {
        const char *prompt, *type, *start;
    } rows[] = {
        {"caf\xc3\xa9", "tEXt", "caf\xe9\n"},
        {"\xf0\x9f\xa6\x8a fox", "iTXt", "\xf0\x9f\xa6\x8a fox\n"},
        {"\xe7\x8b\x90", "iTXt", "\xe7\x8b\x90\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct png_facts f = facts;
        uint8_t *png;
        size_t size;
        f.prompt = rows[i].prompt;
        encode(&f, PNG_METADATA_FULL, &png, &size);
        char *text = find_text(png, size, rows[i].type, "parameters");
        assert_non_null(text);
        assert_memory_equal(text, rows[i].start, strlen(rows[i].start));
        free(text);
        free(png);
    }
}

static void test_xmp(void **state)
{
    struct png_facts f = facts;

    (void)state;
    f.prompt = "<b> & \"x\" 'y' \x01\xef\xbf\xbf\xf0\x9f\xa6\x8a ]]>";
    char *text = png_text_xmp(&f, true);
    assert_non_null(strstr(text, ">&lt;b&gt; &amp; &quot;x&quot; &apos;y&apos; "
                                 "\xf0\x9f\xa6\x8a ]]&gt;</rdf:li>"));
    free(text);
    f.is_composite = true;
    text = png_text_xmp(&f, true);
    assert_non_null(strstr(text, "/digitalsourcetype/compositeWithTrainedAlgorithmicMedia<"));
    f.is_composite = false;
    free(text);
    text = png_text_xmp(&f, false);
    assert_null(strstr(text, "&lt;b"));
    free(text);
}

static void test_bad(void **state)
{
    uint8_t rgb[3] = {0}, *png;
    struct picture back = {0};
    size_t size;
    struct fault f = {0};
    enum png_metadata metadata;

    (void)state;
    assert_int_equal(png_encode(rgb, 0, 1, &facts, PNG_METADATA_FULL, &png, &size, &f), -EINVAL);
    assert_int_equal(png_encode(rgb, 1, 70000, &facts, PNG_METADATA_FULL, &png, &size, &f),
                     -EINVAL);
    encode(&facts, PNG_METADATA_NONE, &png, &size);
    for (size_t cut = 0; cut < size; cut += 5)
        assert_int_equal(picture_decode("png", png, cut, &back, &f), -EINVAL);
    assert_non_null(strstr(f.text, "png: PNG: "));
    png[size / 2] ^= 1;
    assert_int_equal(picture_decode("png", png, size, &back, &f), -EINVAL);
    assert_null(back.pixels);
    free(png);
    assert_int_equal(png_metadata_from_string("provenance", &metadata), 0);
    assert_int_equal(metadata, PNG_METADATA_PROVENANCE);
    assert_int_equal(png_metadata_from_string("some", &metadata), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pixels),     cmocka_unit_test(test_levels),
        cmocka_unit_test(test_parameters), cmocka_unit_test(test_samplers),
        cmocka_unit_test(test_options),    cmocka_unit_test(test_latin1),
        cmocka_unit_test(test_xmp),        cmocka_unit_test(test_bad),
    };

    return cmocka_run_group_tests_name("png", tests, NULL, NULL);
}
