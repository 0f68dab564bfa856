/* png — see the header. libpng leaves by longjmp: each of the two bodies that call it does nothing
 * else, and everything they must give back lives in a struct of the caller's frame. */
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

/* What libpng's callbacks note, whether they serve an encoder or a decoder. */
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

/* r of encode_body() or decode_body(), and what was noted on the way. */
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
        return -EIO;
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

/* --- decoding --------------------------------------------------------------------------------- */

struct decoder {
    struct trouble trouble;
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t size, at;
    uint32_t width, height;
    uint8_t *rgb;    /* owned */
    png_bytep *rows; /* owned */
};

static void decoder_done(struct decoder *d)
{
    png_destroy_read_struct(&d->png, &d->info, NULL);
    free(d->rgb);
    free(d->rows);
}

static void on_read(png_structp png, png_bytep data, size_t size)
{
    struct decoder *d = png_get_io_ptr(png);

    if (size > d->size - d->at)
        png_error(png, "file ends early");
    memcpy(data, d->data + d->at, size);
    d->at += size;
}

/* Whatever the file holds becomes 8-bit RGB. */
static void request_rgb(struct decoder *d)
{
    static png_color_16 black;

    png_set_expand(d->png);
    png_set_scale_16(d->png);
    png_set_gray_to_rgb(d->png);
    png_set_background(d->png, &black, PNG_BACKGROUND_GAMMA_SCREEN, 0, 1.0);
    (void)png_set_interlace_handling(d->png);
    png_read_update_info(d->png, d->info);
}

static int decode_body(struct decoder *d)
{
    if (setjmp(png_jmpbuf(d->png)))
        return -EINVAL;
    png_set_read_fn(d->png, d, on_read);
    png_set_user_limits(d->png, SIDE_MAX, SIDE_MAX);
    png_read_info(d->png, d->info);
    request_rgb(d);
    d->width = png_get_image_width(d->png, d->info);
    d->height = png_get_image_height(d->png, d->info);
    size_t stride = png_get_rowbytes(d->png, d->info);
    if (stride != (size_t)d->width * 3)
        png_error(d->png, "cannot be made RGB");
    d->rgb = calloc(d->height, stride);
    d->rows = calloc(d->height, sizeof *d->rows);
    d->trouble.ran_out |= !d->rgb || !d->rows;
    if (d->trouble.ran_out)
        png_error(d->png, "out of memory");
    for (uint32_t y = 0; y < d->height; y++)
        d->rows[y] = d->rgb + y * stride;
    png_read_image(d->png, d->rows);
    png_read_end(d->png, NULL);
    return 0;
}

int png_decode(const void *data, size_t size, uint8_t **ret_rgb, uint32_t *ret_width,
               uint32_t *ret_height, struct fault *f)
{
    _cleanup_(decoder_done) struct decoder d = {.data = data, .size = size};

    d.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &d.trouble, on_png_error,
                                     on_png_warning, &d.trouble, on_png_malloc, on_png_free);
    d.info = d.png ? png_create_info_struct(d.png) : NULL;
    if (!d.info)
        return fault_set(f, -ENOMEM, "PNG: out of memory");
    int r = explain(decode_body(&d), &d.trouble, f);
    if (r < 0)
        return r;
    *ret_rgb = TAKE_PTR(d.rgb);
    *ret_width = d.width;
    *ret_height = d.height;
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
