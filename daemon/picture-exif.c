/* picture-exif — the one number of EXIF that matters: which way is up. The files' own structure is
 * walked here, not by their libraries, so that no block of EXIF is ever kept. Anything odd means
 * "as stored". Sources: EXIF 2.3, 4.5 and 4.6; PNG, third edition, 11.3.3.6 eXIf; JPEG, B.1.1. */
#include "daemon/picture-internal.h"

#include <stdbool.h>
#include <string.h>

#define TAG_ORIENTATION 0x0112u

/* A TIFF block and its byte order. */
struct tiff {
    const uint8_t *data;
    size_t size;
    bool is_big;
};

static uint32_t get(const struct tiff *t, size_t at, unsigned bytes)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint32_t)t->data[at + i] << 8 * (t->is_big ? bytes - 1 - i : i);
    return value;
}

/* An entry's value when it is one unsigned number, else 0. */
static uint32_t entry_value(const struct tiff *t, size_t at)
{
    static const unsigned widths[] = {[1] = 1, [3] = 2, [4] = 4}; /* BYTE, SHORT, LONG */
    uint32_t type = get(t, at + 2, 2);

    if (type > 4 || widths[type] == 0 || get(t, at + 4, 4) != 1)
        return 0;
    return get(t, at + 8, widths[type]);
}

static unsigned tiff_orientation(const uint8_t *data, size_t size)
{
    struct tiff t = {data, size, size > 0 && data[0] == 'M'};

    if (size < 14 || (memcmp(data, "II*\0", 4) != 0 && memcmp(data, "MM\0*", 4) != 0))
        return 1;
    size_t at = get(&t, 4, 4);
    if (at > size - 2)
        return 1;
    uint32_t count = get(&t, at, 2);
    at += 2;
    for (; count > 0 && size - at >= 12; count--, at += 12) {
        if (get(&t, at, 2) != TAG_ORIENTATION)
            continue;
        uint32_t value = entry_value(&t, at);
        return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

unsigned picture_png_orientation(const uint8_t *data, size_t size)
{
    size_t at = 8;

    while (size - at >= 12) {
        uint32_t length = big_endian(data + at);
        if (length > size - at - 12)
            return 1;
        if (memcmp(data + at + 4, "eXIf", 4) == 0)
            return tiff_orientation(data + at + 8, length);
        at += 12 + (size_t)length;
    }
    return 1;
}

unsigned picture_jpeg_orientation(const uint8_t *data, size_t size)
{
    static const char name[6] = "Exif\0";
    size_t at = 2;

    while (size - at >= 4 && data[at] == 0xff) {
        uint8_t marker = data[at + 1];
        if (marker == 0xff) { /* a fill byte */
            at++;
            continue;
        }
        if (marker == 0xda) /* pixels begin */
            return 1;
        size_t length = (size_t)data[at + 2] << 8 | data[at + 3];
        if (length < 2 || length > size - at - 2)
            return 1;
        if (marker == 0xe1 && length >= 8 && memcmp(data + at + 4, name, sizeof name) == 0)
            return tiff_orientation(data + at + 10, length - 8);
        at += 2 + length;
    }
    return 1;
}
