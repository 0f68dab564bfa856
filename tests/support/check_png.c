/* The structure of a PNG (W3C PNG 3, section 5): signature, chunks with CRC-32, IHDR first, IEND
 * last, nothing behind. */
#include <inttypes.h>
#include <string.h>

#include "tests/support/check_internal.h"

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t crc32_of(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0); /* the reversed polynomial */
    }
    return ~crc;
}

int check_png(struct check *check, const uint8_t *data, size_t size, const char *where,
              uint32_t *ret_width, uint32_t *ret_height)
{
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    const uint8_t *type = NULL;
    unsigned chunks = 0, images = 0;
    size_t at = sizeof signature;

    if (size < at || memcmp(data, signature, at) != 0) {
        check_violation(check, "%s: no PNG", where);
        return -1;
    }
    while (at < size) {
        uint32_t length = size - at >= 12 ? big_endian(data + at) : UINT32_MAX;
        if (length > size - at - 12) {
            check_violation(check, "%s: cut off at byte %zu", where, at);
            return -1;
        }
        type = data + at + 4;
        if (crc32_of(type, length + 4u) != big_endian(type + 4 + length)) {
            check_violation(check, "%s: CRC of %.4s is wrong", where, (const char *)type);
            return -1;
        }
        images += memcmp(type, "IDAT", 4) == 0 && length > 0;
        if (chunks++ == 0 && memcmp(type, "IHDR", 4) == 0 && length == 13) {
            *ret_width = big_endian(type + 4);
            *ret_height = big_endian(type + 8);
        }
        at += length + 12u;
        if (memcmp(type, "IEND", 4) == 0)
            break;
    }
    if (!type || memcmp(type, "IEND", 4) != 0 || at != size || images == 0 || *ret_width == 0) {
        check_violation(check, "%s: IHDR, IDAT or IEND is not where it belongs", where);
        return -1;
    }
    return 0;
}
