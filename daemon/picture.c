#include "daemon/picture.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/picture-internal.h"
#include "vk/base/cleanup.h"

/* What files begin with; those without a decoder are only known by name. */
static const struct format {
    const char *name;
    size_t at, size;
    const char *magic;
    int (*decode)(const uint8_t *data, size_t size, struct picture *ret_picture, struct fault *f);
    unsigned (*orientation)(const uint8_t *data, size_t size);
} formats[] = {
    {"PNG", 0, 8, "\x89PNG\r\n\x1a\n", picture_decode_png, picture_png_orientation},
    {"JPEG", 0, 3, "\xff\xd8\xff", picture_decode_jpeg, picture_jpeg_orientation},
    {"GIF", 0, 4, "GIF8", NULL, NULL},
    {"WebP", 8, 4, "WEBP", NULL, NULL},
    {"TIFF", 0, 4, "II*\0", NULL, NULL},
    {"TIFF", 0, 4, "MM\0*", NULL, NULL},
    {"HEIF or AVIF", 4, 4, "ftyp", NULL, NULL},
    {"JPEG XL", 0, 2, "\xff\x0a", NULL, NULL},
    {"BMP", 0, 2, "BM", NULL, NULL},
};

void picture_done(struct picture *picture)
{
    free(picture->pixels);
    *picture = (struct picture){0};
}

int picture_check_size(uint32_t width, uint32_t height, struct fault *f)
{
    if (width > PICTURE_SIDE_MAX || height > PICTURE_SIDE_MAX)
        return fault_set(f, -EFBIG, "%ux%u pixels: more than %u a side", width, height,
                         PICTURE_SIDE_MAX);
    if ((uint64_t)width * height > PICTURE_PIXELS_MAX)
        return fault_set(f, -EFBIG, "%ux%u pixels: more than %u in all", width, height,
                         PICTURE_PIXELS_MAX);
    return 0;
}

/* --- turning ---------------------------------------------------------------------------------- */

/* How the shown picture is read from the stored one: first mirrored, then rows taken as columns.
 * Source: EXIF 2.3, 4.6.4 A, Orientation. */
static const struct turn {
    bool is_transposed, from_right, from_bottom;
} turns[9] = {
    [1] = {false, false, false}, [2] = {false, true, false}, [3] = {false, true, true},
    [4] = {false, false, true},  [5] = {true, false, false}, [6] = {true, false, true},
    [7] = {true, true, true},    [8] = {true, true, false},
};

static int turn(struct picture *p, unsigned orientation, struct fault *f)
{
    const struct turn *t = &turns[orientation];
    uint32_t width = t->is_transposed ? p->height : p->width;
    uint32_t height = t->is_transposed ? p->width : p->height;

    if (orientation == 1)
        return 0;
    uint8_t *pixels = malloc((size_t)width * height * 3), *out = pixels;
    if (!pixels)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++, out += 3) {
            uint32_t column = t->is_transposed ? y : x, row = t->is_transposed ? x : y;
            column = t->from_right ? p->width - 1 - column : column;
            row = t->from_bottom ? p->height - 1 - row : row;
            memcpy(out, p->pixels + ((size_t)row * p->width + column) * 3, 3);
        }
    }
    picture_done(p);
    *p = (struct picture){pixels, width, height};
    return 0;
}

/* --- entry ------------------------------------------------------------------------------------ */

static const struct format *find_format(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        const struct format *format = &formats[i];
        if (size >= format->at + format->size &&
            memcmp(data + format->at, format->magic, format->size) == 0)
            return format;
    }
    return NULL;
}

static int decode(const uint8_t *data, size_t size, struct picture *ret_picture, struct fault *f)
{
    const struct format *format = find_format(data, size);

    if (size > PICTURE_FILE_MAX)
        return fault_set(f, -EFBIG, "the file is larger than %u MiB", PICTURE_FILE_MAX >> 20);
    if (size == 0)
        return fault_set(f, -EINVAL, "the file is empty");
    if (!format)
        return fault_set(f, -EINVAL, "neither a PNG nor a JPEG file");
    if (!format->decode)
        return fault_set(f, -EINVAL, "a %s file; only PNG and JPEG are read", format->name);
    int r = format->decode(data, size, ret_picture, f);
    return r < 0 ? r : turn(ret_picture, format->orientation(data, size), f);
}

int picture_decode(const char *what, const void *data, size_t size, struct picture *ret_picture,
                   struct fault *f)
{
    _cleanup_(picture_done) struct picture picture = {0};

    int r = decode(data, size, &picture, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", what);
    *ret_picture = picture;
    picture = (struct picture){0};
    return 0;
}
