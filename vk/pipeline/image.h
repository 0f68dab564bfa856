/* image — from the decoder's f32 to what people see. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* values f32 [pixels, 8] (three used) in about -1…1 -> f32 [pixels, 3] = clamp(x / 2 + 0.5, 0, 1);
 * NaN becomes 0. */
void image_from_decoder(const float *values, size_t pixels, float *ret_rgb);

/* round(255 * v), ties to even, as the reference's numpy does. */
void image_to_bytes(const float *rgb, size_t count, uint8_t *ret_bytes);
