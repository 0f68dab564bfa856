/* png — see the header. libpng leaves by longjmp: the body that calls it does nothing else, and
 * everything it must give back lives in a struct of the caller's frame. */
#include "daemon/png.h"

#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <png.h>

#include "daemon/png-text.h"
#include "vk/base/cleanup.h"
#include "vk/base/version.h"

#define SIDE_MAX 65536u

/* zlib's 6 of 9: 9 costs four times the time for 1 % fewer bytes on such pictures. */
#define COMPRESSION 6

/* What libpng's callbacks note. */
struct trouble {
    bool ran_out; /* of memory: libpng goes on without it, or says something else */
    struct fault fault;
};

static void on_png_error(png_structp png, png_const_charp message)
{
    struct trouble *t = png_get_error_ptr(png);

    (void)fault_set(&t->fault, -EINVAL, "PNG: %s", message);
    png_longjmp(png, 1);
}

static png_voidp on_png_malloc(png_structp png, png_alloc_size_t size)
{
    struct trouble *t = png_get_mem_ptr(png);
    void *block = malloc(size);

    t->ran_out |= !block;
    return block;
}

static void on_png_free(png_structp png, png_voidp block)
{
    (void)png;
    free(block);
}

/* r of encode_body(), and what was noted on the way. */
static int explain(int r, const struct trouble *t, struct fault *f)
{
    if (t->ran_out)
        return fault_set(f, -ENOMEM, "PNG: out of memory");
    return r < 0 ? fault_set(f, r, "%s", t->fault.text) : 0;
}

static void on_png_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message; /* the picture is usable; nobody to tell */
}

/* --- encoding --------------------------------------------------------------------------------- */

struct encoder {
    struct trouble trouble;
    png_structp png;
    png_infop info;
    const uint8_t *rgb;
    uint32_t width, height;
    struct png_text_struct texts[3];
    int text_count;
    char *parameters, *latin1, *xmp; /* owned */
    uint8_t *data;                   /* the file so far, owned */
    size_t size, capacity;
};

static void encoder_done(struct encoder *e)
{
    png_destroy_write_struct(&e->png, &e->info);
    free(e->parameters);
    free(e->latin1);
    free(e->xmp);
    free(e->data);
}

static void on_write(png_structp png, png_bytep data, size_t size)
{
    struct encoder *e = png_get_io_ptr(png);

    if (size > e->capacity - e->size) {
        size_t wanted = (e->size + size) * 2;
        uint8_t *grown = realloc(e->data, wanted);
        e->trouble.ran_out |= !grown;
        if (!grown)
            png_error(png, "out of memory");
        e->data = grown;
        e->capacity = wanted;
    }
    memcpy(e->data + e->size, data, size);
    e->size += size;
}

static void on_flush(png_structp png)
{
    (void)png;
}

static void add_text(struct encoder *e, int compression, const char *key, char *text)
{
    struct png_text_struct *t = &e->texts[e->text_count++];

    t->compression = compression;
    t->key = (char *)key;
    t->text = text;
    if (compression == PNG_ITXT_COMPRESSION_NONE)
        t->itxt_length = strlen(text);
    else
        t->text_length = strlen(text);
}

static int collect_texts(struct encoder *e, const struct png_facts *facts,
                         enum png_metadata metadata)
{
    static char software[] = "diffused " DIFFUSED_VERSION;

    if (metadata == PNG_METADATA_NONE)
        return 0;
    add_text(e, PNG_TEXT_COMPRESSION_NONE, "Software", software);
    e->xmp = png_text_xmp(facts, metadata == PNG_METADATA_FULL);
    if (!e->xmp)
        return -ENOMEM;
    add_text(e, PNG_ITXT_COMPRESSION_NONE, "XML:com.adobe.xmp", e->xmp);
    if (metadata != PNG_METADATA_FULL)
        return 0;
    e->parameters = png_text_parameters(facts);
    if (!e->parameters)
        return -ENOMEM;
    int r = png_text_latin1(e->parameters, &e->latin1);
    if (r == -ENOMEM)
        return r;
    if (r == 0)
        add_text(e, PNG_TEXT_COMPRESSION_NONE, "parameters", e->latin1);
    else
        add_text(e, PNG_ITXT_COMPRESSION_NONE, "parameters", e->parameters);
    return 0;
}

static int encode_body(struct encoder *e)
{
    if (setjmp(png_jmpbuf(e->png)))
        return e->trouble.fault.err;
    png_set_write_fn(e->png, e, on_write, on_flush);
    png_set_compression_level(e->png, COMPRESSION);
    png_set_IHDR(e->png, e->info, e->width, e->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB(e->png, e->info, PNG_sRGB_INTENT_PERCEPTUAL);
    if (e->text_count)
        png_set_text(e->png, e->info, e->texts, e->text_count);
    png_write_info(e->png, e->info);
    for (uint32_t y = 0; y < e->height; y++)
        png_write_row(e->png, e->rgb + (size_t)y * e->width * 3);
    png_write_end(e->png, NULL);
    return 0;
}

int png_encode(const uint8_t *rgb, uint32_t width, uint32_t height, const struct png_facts *facts,
               enum png_metadata metadata, uint8_t **ret_data, size_t *ret_size, struct fault *f)
{
    _cleanup_(encoder_done) struct encoder e = {.rgb = rgb, .width = width, .height = height};

    if (width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX)
        return fault_set(f, -EINVAL, "PNG: no picture of %ux%u pixels", width, height);
    int r = collect_texts(&e, facts, metadata);
    if (r < 0)
        return fault_set(f, r, "PNG: out of memory");
    e.png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &e.trouble, on_png_error,
                                      on_png_warning, &e.trouble, on_png_malloc, on_png_free);
    e.info = e.png ? png_create_info_struct(e.png) : NULL;
    if (!e.info)
        return fault_set(f, -ENOMEM, "PNG: out of memory");
    r = explain(encode_body(&e), &e.trouble, f);
    if (r < 0)
        return r;
    *ret_data = TAKE_PTR(e.data);
    *ret_size = e.size;
    return 0;
}

int png_metadata_from_string(const char *text, enum png_metadata *ret_metadata)
{
    static const char *const names[] = {
        [PNG_METADATA_FULL] = "full",
        [PNG_METADATA_PROVENANCE] = "provenance",
        [PNG_METADATA_NONE] = "none",
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_metadata = (enum png_metadata)i;
            return 0;
        }
    }
    return -EINVAL;
}
