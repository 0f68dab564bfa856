/* A picture file that somebody sent. What is decoded lies within the limits, is the same a second
 * time, and can be brought to any size in every way; what is not, is refused with words. Changed
 * PNG files get their checksums back, or nothing behind them would ever be reached. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/picture.h"
#include "tests/fuzz/fuzz.h"
#include "vk/pipeline/image.h"

#define SMALL 4096u /* pixels, up to which more is done than decoding */

static void check_same(const uint8_t *data, size_t size, const struct picture *p)
{
    struct picture again = {0};

    fuzz_check(picture_decode("image", data, size, &again, NULL) == 0);
    fuzz_check(again.width == p->width && again.height == p->height);
    fuzz_check(memcmp(again.pixels, p->pixels, (size_t)p->width * p->height * 3) == 0);
    picture_done(&again);
}

static void check_sizes(const struct picture *p, uint32_t seed)
{
    const struct engine_raster in = {p->pixels, p->width, p->height, 3};
    uint8_t pixels[64 * 64 * 3];
    float mask[64 * 64], latents[64];

    for (unsigned fit = 0; fit < 3; fit++) {
        const struct image_target to = {8 * (1 + fuzz_below(&seed, 8)),
                                        8 * (1 + fuzz_below(&seed, 8)), (enum request_fit)fit};
        fuzz_check(image_fit(&in, &to, pixels, NULL) == 0);
        fuzz_check(mask_prepare(&in, &to, 8, MASK_BINARY, mask, latents, NULL) == 0);
        for (uint32_t i = 0; i < to.width * to.height; i++)
            fuzz_check(mask[i] == 0 || mask[i] == 1);
        fuzz_check(mask_prepare(&in, &to, 8, MASK_LEGACY, mask, latents, NULL) == 0);
        for (uint32_t i = 0; i < to.width / 8 * (to.height / 8); i++)
            fuzz_check(latents[i] >= 0 && latents[i] <= 1);
    }
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-EINVAL, -EFBIG, 0};
    struct picture p = {0};
    struct fault f = {0};

    int r = picture_decode("image", data, size, &p, &f);
    if (r < 0) {
        fuzz_check(!p.pixels && strncmp(f.text, "image: ", 7) == 0);
        fuzz_check_fault(r, &f, errors);
        return;
    }
    fuzz_check(p.width >= 1 && p.width <= PICTURE_SIDE_MAX);
    fuzz_check(p.height >= 1 && p.height <= PICTURE_SIDE_MAX);
    if (p.width * p.height <= SMALL) {
        check_same(data, size, &p);
        check_sizes(&p, data[size / 2]);
    }
    picture_done(&p);
}

/* --- PNG with sound checksums ----------------------------------------------------------------- */

static void mend(uint8_t *data, size_t size)
{
    size_t at = 8;

    while (size >= at + 12) {
        uint8_t *p = data + at;
        size_t length = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (length > size - at - 12)
            return;
        uint32_t sum = fuzz_crc32(p + 4, length + 4);
        for (unsigned i = 0; i < 4; i++)
            p[8 + length + i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + length;
    }
}

static size_t mutate(uint8_t *data, size_t size, size_t max_size, uint32_t seed,
                     fuzz_bytes_t *bytes)
{
    size = bytes(data, size, max_size);
    if (size > 8 && data[0] == 0x89 && fuzz_below(&seed, 8) > 0)
        mend(data, size);
    return size;
}

static const char *const words[] = {"IHDR",     "PLTE",         "tRNS",     "IDAT",     "IEND",
                                    "eXIf",     "Exif",         "II*",      "MM",       "Adobe",
                                    "JFIF",     "\xff\xd8\xff", "\xff\xc2", "\xff\xc9", "\xff\xda",
                                    "\xff\xdd", "\xff\xd9",     NULL};

const struct fuzz_target fuzz_picture = {
    .name = "picture", .max_size = 4096, .run = run, .mutate = mutate, .words = words};
