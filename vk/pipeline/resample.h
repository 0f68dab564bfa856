/* resample — 8-bit pictures to another size, bit for bit as Pillow does it: a window of the result
 * may be asked for, so that a large enlargement of which little is kept costs no memory.
 *
 * Lanczos and bicubic widen their filter when they shrink (antialiased), work in fixed point (22
 * bits), first across, then down, and round to 8 bits in between. Nearest takes the pixel under the
 * centre. Rows of `channels` interleaved bytes, without padding. Pure.
 * Source: Pillow 9.5, Image.resize; src/libImaging/Resample.c, Geometry.c (affine scale). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/engine.h"

enum resample_filter {
    RESAMPLE_NEAREST,
    RESAMPLE_BICUBIC, /* a = -0.5 */
    RESAMPLE_LANCZOS, /* three lobes */
};

/* One direction. The stretch from…to of the source (in its pixels; it may be empty: then the line
 * there is repeated) becomes `size` pixels, of which `count` from `first` on are made. */
struct resample_axis {
    double from, to;
    uint32_t size, first, count;
};

/* ret_pixels: y->count rows of x->count pixels. -EINVAL when something is empty or a window lies
 * outside, -ENOMEM. */
int resample_window(const struct engine_raster *in, enum resample_filter filter,
                    const struct resample_axis *x, const struct resample_axis *y,
                    uint8_t *ret_pixels);

/* The whole picture: width x height pixels. */
int resample(const struct engine_raster *in, enum resample_filter filter, uint32_t width,
             uint32_t height, uint8_t *ret_pixels);
