/* picture-internal — the decoders behind picture.h. Each gives pixels as they lie in the file. */
#pragma once

#include "daemon/picture.h"

/* -EFBIG with a message when a picture of this size is over a limit. */
int picture_check_size(uint32_t width, uint32_t height, struct fault *f);

/* round(value / 255) for value in 0…65025. */
static inline uint8_t picture_div255(uint32_t value)
{
    value += 128;
    return (uint8_t)((value + (value >> 8)) >> 8);
}

/* Messages begin with "PNG: ", "JPEG: ". */
int picture_decode_png(const uint8_t *data, size_t size, struct picture *ret_picture,
                       struct fault *f);
int picture_decode_jpeg(const uint8_t *data, size_t size, struct picture *ret_picture,
                        struct fault *f);

/* EXIF's orientation, 1…8; 1 when the file has none or it cannot be made out. */
unsigned picture_png_orientation(const uint8_t *data, size_t size);
unsigned picture_jpeg_orientation(const uint8_t *data, size_t size);
