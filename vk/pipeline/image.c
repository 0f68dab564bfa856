#include "vk/pipeline/image.h"

#include <math.h>

void image_from_decoder(const float *values, size_t pixels, float *ret_rgb)
{
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < 3; c++) {
            float v = values[8 * i + c] / 2 + 0.5f;
            ret_rgb[3 * i + c] = v > 0 ? (v < 1 ? v : 1) : 0;
        }
    }
}

void image_to_bytes(const float *rgb, size_t count, uint8_t *ret_bytes)
{
    for (size_t i = 0; i < count; i++)
        ret_bytes[i] = (uint8_t)nearbyintf(255 * rgb[i]);
}
