/* picture-jpeg — libjpeg leaves by longjmp from our handlers: what the body that calls it must give
 * back lives in a struct of the caller's frame. */
#include "daemon/picture-internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

#include "vk/base/cleanup.h"

/* libjpeg's own: coefficients of the largest picture, four components of 16 bits, are 128 MiB. */
#define MEMORY_MAX (192L << 20)

struct decoder {
    struct jpeg_decompress_struct jpeg; /* its client_data points here */
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    struct fault fault;
    uint8_t *pixels; /* owned */
};

static void decoder_done(struct decoder *d)
{
    jpeg_destroy_decompress(&d->jpeg);
    free(d->pixels);
}

/* --- what libjpeg calls ----------------------------------------------------------------------- */

static _Noreturn void on_error(j_common_ptr jpeg)
{
    struct decoder *d = jpeg->client_data;
    char message[JMSG_LENGTH_MAX];

    jpeg->err->format_message(jpeg, message);
    int r = jpeg->err->msg_code == JERR_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
    (void)fault_set(&d->fault, r, "JPEG: %s", r == -ENOMEM ? "out of memory" : message);
    longjmp(d->jump, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0) /* a warning: the data is not what it should be */
        on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg)
{
    struct decoder *d = jpeg->client_data;

    if (d->jpeg.input_scan_number <= PICTURE_SCANS_MAX)
        return;
    (void)fault_set(&d->fault, -EFBIG, "JPEG: more than %d scans", PICTURE_SCANS_MAX);
    longjmp(d->jump, 1);
}

/* --- reading ---------------------------------------------------------------------------------- */

static _Noreturn void refuse(struct decoder *d, const char *message)
{
    (void)fault_set(&d->fault, -EINVAL, "JPEG: %s", message);
    longjmp(d->jump, 1);
}

/* Reads what comes before the pixels and decides what these become: RGB, or CMYK. */
static void read_header(struct decoder *d)
{
    struct jpeg_decompress_struct *jpeg = &d->jpeg;

    (void)jpeg_read_header(jpeg, TRUE);
    if (jpeg->arith_code)
        refuse(d, "arithmetic coding is not read");
    if (picture_check_size(jpeg->image_width, jpeg->image_height, &d->fault) < 0) {
        (void)fault_prefix(&d->fault, -EFBIG, "JPEG");
        longjmp(d->jump, 1);
    }
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        refuse(d, "neither gray nor RGB nor CMYK");
    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
}

static int decode_body(struct decoder *d, const uint8_t *data, size_t size)
{
    struct jpeg_decompress_struct *jpeg = &d->jpeg;

    if (setjmp(d->jump))
        return d->fault.err;
    jpeg_create_decompress(jpeg);
    jpeg->mem->max_memory_to_use = MEMORY_MAX;
    jpeg->progress = &d->progress;
    jpeg_mem_src(jpeg, data, size);
    read_header(d);
    (void)jpeg_start_decompress(jpeg);
    size_t stride = (size_t)jpeg->output_width * (unsigned)jpeg->output_components;
    d->pixels = calloc(jpeg->output_height, stride);
    if (!d->pixels)
        return fault_set(&d->fault, -ENOMEM, "JPEG: out of memory");
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = d->pixels + jpeg->output_scanline * stride;
        (void)jpeg_read_scanlines(jpeg, &row, 1);
    }
    (void)jpeg_finish_decompress(jpeg);
    return 0;
}

/* Inverted CMYK -> RGB in place: light that a separation lets through, times black's. */
static void cmyk_to_rgb(uint8_t *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint8_t *from = pixels + 4 * i;
        uint8_t light = from[3];
        for (size_t c = 0; c < 3; c++)
            pixels[3 * i + c] = (uint8_t)(light - picture_div255((255u - from[c]) * light));
    }
}

int picture_decode_jpeg(const uint8_t *data, size_t size, struct picture *ret_picture,
                        struct fault *f)
{
    _cleanup_(decoder_done) struct decoder d = {.progress = {.progress_monitor = on_progress}};

    d.jpeg.err = jpeg_std_error(&d.errors);
    d.jpeg.client_data = &d;
    d.errors.error_exit = on_error;
    d.errors.emit_message = on_message;
    int r = decode_body(&d, data, size);
    if (r < 0)
        return fault_set(f, r, "%s", d.fault.text);
    uint32_t width = d.jpeg.output_width, height = d.jpeg.output_height;
    if (d.jpeg.output_components == 4)
        cmyk_to_rgb(d.pixels, (size_t)width * height);
    *ret_picture = (struct picture){TAKE_PTR(d.pixels), width, height};
    return 0;
}
