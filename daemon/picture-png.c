/* picture-png — libpng leaves by longjmp: what the body that calls it must give back lives in a
 * struct of the caller's frame. Chunks that pictures can be shown without are passed over (their
 * checksums are not). */
#include "daemon/picture-internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <png.h>

#include "vk/base/cleanup.h"

struct decoder {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t size, at;
    uint32_t width, height, channels;
    uint8_t *pixels; /* owned */
    png_bytep *rows; /* owned */
    bool ran_out;    /* of memory: libpng then says something else */
    struct fault fault;
};

static void decoder_done(struct decoder *d)
{
    png_destroy_read_struct(&d->png, &d->info, NULL);
    free(d->pixels);
    free(d->rows);
}

/* --- what libpng calls ------------------------------------------------------------------------ */

static _Noreturn void on_trouble(png_structp png, png_const_charp message)
{
    struct decoder *d = png_get_error_ptr(png);

    (void)fault_set(&d->fault, -EINVAL, "PNG: %s", message);
    png_longjmp(png, 1);
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t size)
{
    struct decoder *d = png_get_mem_ptr(png);
    void *block = malloc(size);

    d->ran_out |= !block;
    return block;
}

static void on_free(png_structp png, png_voidp block)
{
    (void)png;
    free(block);
}

static void on_read(png_structp png, png_bytep data, size_t size)
{
    struct decoder *d = png_get_io_ptr(png);

    if (size > d->size - d->at)
        png_error(png, "the file ends early");
    memcpy(data, d->data + d->at, size);
    d->at += size;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Whatever the file holds becomes 8-bit RGB or RGBA. */
static void request_pixels(struct decoder *d)
{
    png_set_expand(d->png);
    png_set_strip_16(d->png);
    png_set_gray_to_rgb(d->png);
    (void)png_set_interlace_handling(d->png);
    png_read_update_info(d->png, d->info);
    d->channels = png_get_channels(d->png, d->info);
    size_t stride = png_get_rowbytes(d->png, d->info);
    if ((d->channels != 3 && d->channels != 4) || stride != (size_t)d->width * d->channels)
        png_error(d->png, "cannot be made RGB");
}

static void make_room(struct decoder *d)
{
    size_t stride = (size_t)d->width * d->channels;

    d->pixels = calloc(d->height, stride);
    d->rows = calloc(d->height, sizeof *d->rows);
    d->ran_out |= !d->pixels || !d->rows;
    if (d->ran_out)
        png_error(d->png, "out of memory");
    for (uint32_t y = 0; y < d->height; y++)
        d->rows[y] = d->pixels + y * stride;
}

static int decode_body(struct decoder *d)
{
    if (setjmp(png_jmpbuf(d->png)))
        return d->fault.err;
    png_set_read_fn(d->png, d, on_read);
    png_set_keep_unknown_chunks(d->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(d->png, d->info);
    d->width = png_get_image_width(d->png, d->info);
    d->height = png_get_image_height(d->png, d->info);
    if (picture_check_size(d->width, d->height, &d->fault) < 0) {
        (void)fault_prefix(&d->fault, -EFBIG, "PNG");
        png_longjmp(d->png, 1);
    }
    request_pixels(d);
    make_room(d);
    png_read_image(d->png, d->rows);
    png_read_end(d->png, NULL);
    return 0;
}

/* RGBA -> RGB in place. */
static void lay_on_white(uint8_t *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = pixels + 4 * i;
        uint32_t alpha = from[3];
        for (size_t c = 0; c < 3; c++)
            pixels[3 * i + c] = picture_div255(from[c] * alpha + 255 * (255 - alpha));
    }
}

int picture_decode_png(const uint8_t *data, size_t size, struct picture *ret_picture,
                       struct fault *f)
{
    _cleanup_(decoder_done) struct decoder d = {.data = data, .size = size};

    d.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &d, on_trouble, on_trouble, &d,
                                     on_malloc, on_free);
    d.info = d.png ? png_create_info_struct(d.png) : NULL;
    int r = d.info ? decode_body(&d) : -ENOMEM;
    if (!d.info || d.ran_out)
        return fault_set(f, -ENOMEM, "PNG: out of memory");
    if (r < 0)
        return fault_set(f, r, "%s", d.fault.text);
    if (d.channels == 4)
        lay_on_white(d.pixels, (size_t)d.width * d.height);
    *ret_picture = (struct picture){TAKE_PTR(d.pixels), d.width, d.height};
    return 0;
}
