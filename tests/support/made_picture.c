#include "tests/support/made_picture.h"

#include <stdlib.h>
#include <string.h>

static uint8_t noise(uint32_t x, uint32_t y, uint32_t c)
{
    return (uint8_t)((x * 73856093u ^ y * 19349663u ^ c * 83492791u) * 2654435761u >> 24);
}

static uint8_t edges(uint32_t x, uint32_t y, uint32_t c)
{
    uint32_t block = ((x >> 3) + (y >> 2) + c) % 4;

    return block == 0 ? 0 : block == 1 ? 255 : (uint8_t)(5 * x + 3 * y + 40 * c);
}

uint8_t *made_picture(const char *kind, uint32_t width, uint32_t height, uint32_t channels)
{
    uint8_t *pixels = malloc((size_t)width * height * channels), *p = pixels;
    uint8_t (*value)(uint32_t, uint32_t, uint32_t) = strcmp(kind, "noise") == 0 ? noise : edges;

    if (!pixels || (value == edges && strcmp(kind, "edges") != 0))
        abort();
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            for (uint32_t c = 0; c < channels; c++)
                *p++ = value(x, y, c);
    return pixels;
}
