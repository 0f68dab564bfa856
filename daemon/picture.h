/* picture — a file that somebody sent (PNG, JPEG) as plain pixels; linked into the worker only.
 *
 * The file is not trusted: it is bounded before it is read, what is not needed is not looked at
 * (colour profiles, texts), whatever a library warns of is an error, and progressive files may
 * have so many scans and no more. What a viewer would show comes out: all PNG colour types and
 * depths, interlaced or not; 16 bits are cut to the upper 8; transparency is laid on white; JPEG
 * gray, YCbCr, RGB, CMYK and YCCK (inverted, as Adobe and everyone after it writes them); turned as
 * EXIF says. Bit for bit what Pillow makes of it, but for two of its mistakes: it clips gray of 16
 * bits, and misses the transparent colour of 2, 4 and 16.
 * Source: Pillow 9.5, PngImagePlugin, JpegImagePlugin, ImageOps.exif_transpose, paste with mask. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/base/fault.h"

#define PICTURE_FILE_MAX   (32u << 20) /* bytes */
#define PICTURE_SIDE_MAX   4096u
#define PICTURE_PIXELS_MAX (16u << 20)
#define PICTURE_SCANS_MAX  100 /* of a progressive JPEG; encoders write about ten */

/* 8-bit RGB, rows without padding. */
struct picture {
    uint8_t *pixels; /* owned */
    uint32_t width, height;
};

void picture_done(struct picture *picture);

/* Decodes a whole file. `what` begins the message: the row that the file came with ("image",
 * "mask"). -EINVAL: neither PNG nor JPEG, damaged, or of a kind that is not read; -EFBIG: over a
 * limit above; -ENOMEM. */
int picture_decode(const char *what, const void *data, size_t size, struct picture *ret_picture,
                   struct fault *f);
