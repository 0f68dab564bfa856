/* picture: files of every kind give the pixels that Pillow sees (tests/golden/pictures/files);
 * damaged, oversized and hostile ones are refused with words, at every cut and in bounded time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jpeglib.h>

#include "daemon/picture.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/base/sha256.h"

#define FOLDER "tests/golden/pictures/"

static void read_file(const char *name, uint8_t **ret_data, size_t *ret_size)
{
    char path[256], *data = NULL;
    struct fault f = {0};

    (void)snprintf(path, sizeof path, FOLDER "files/%s", name);
    if (file_read(path, 1 << 20, &data, ret_size, &f) < 0)
        fail_msg("%s", f.text);
    *ret_data = (uint8_t *)data;
}

/* --- what is read ----------------------------------------------------------------------------- */

static void check_file(const char *name, unsigned width, unsigned height, const char *want)
{
    _cleanup_(freep) uint8_t *data = NULL;
    _cleanup_(picture_done) struct picture p = {0};
    char sum[SHA256_HEX_SIZE];
    struct fault f = {0};
    size_t size;

    read_file(name, &data, &size);
    if (picture_decode("image", data, size, &p, &f) < 0)
        fail_msg("%s: %s", name, f.text);
    assert_int_equal(p.width, width);
    assert_int_equal(p.height, height);
    sha256_hex(p.pixels, (size_t)width * height * 3, sum);
    if (strcmp(sum, want) != 0)
        fail_msg("%s: other pixels than Pillow's", name);
}

static void test_files(void **state)
{
    char line[256], name[64], sum[SHA256_HEX_SIZE];
    unsigned width, height, count = 0;
    _cleanup_(fclosep) FILE *file = fopen(FOLDER "files.txt", "r");

    (void)state;
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        assert_int_equal(sscanf(line, "%63s %u %u %64[0-9a-f]", name, &width, &height, sum), 4);
        check_file(name, width, height, sum);
        count++;
    }
    assert_true(count >= 80);
}

/* --- what is not ------------------------------------------------------------------------------ */

static void check_refused(const char *name, const void *data, size_t size, int want,
                          const char *says)
{
    struct picture p = {0};
    struct fault f = {0};
    int r = picture_decode("mask", data, size, &p, &f);

    if (r != want || strncmp(f.text, "mask: ", 6) != 0 || !strstr(f.text, says))
        fail_msg("%s: %d \"%s\", not %d \"%s\"", name, r, f.text, want, says);
    assert_null(p.pixels);
    assert_int_equal(f.err, want);
}

static void test_other_formats(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        const char *says;
    } rows[] = {
        {"", 0, "mask: the file is empty"},
        {"P6 1 1 255 abc", 14, "mask: neither a PNG nor a JPEG file"},
        {"\x89PNG\r\n", 6, "mask: neither a PNG nor a JPEG file"},
        {"GIF89a......", 12, "mask: a GIF file; only PNG and JPEG are read"},
        {"RIFFabcdWEBPVP8 ", 16, "a WebP file"},
        {"II*\0....", 8, "a TIFF file"},
        {"\0\0\0\x18"
         "ftypheic",
         12, "a HEIF or AVIF file"},
        {"BM......", 8, "a BMP file"},
        {"\x89PNG\r\n\x1a\n", 8, "mask: PNG: the file ends early"},
        {"\xff\xd8\xff", 3, "mask: JPEG: "},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        check_refused(rows[i].says, rows[i].text, rows[i].size, -EINVAL, rows[i].says);
    _cleanup_(freep) uint8_t *huge = calloc(1, PICTURE_FILE_MAX + 1);
    check_refused("huge", huge, PICTURE_FILE_MAX + 1, -EFBIG, "larger than 32 MiB");
}

/* Every proper beginning of a file is refused. */
static void test_cuts(void **state)
{
    static const char *const names[] = {
        "rgba-8-interlaced.png", "palette-4-trns.png", "420.jpg",
        "progressive.jpg",       "cmyk.jpg",           "restarts.jpg"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) uint8_t *data = NULL;
        size_t size;
        read_file(names[i], &data, &size);
        for (size_t n = 0; n < size; n++) {
            _cleanup_(freep) uint8_t *part =
                malloc(n ? n : 1); /* so that a sanitizer sees its end */
            memcpy(part, data, n);
            check_refused(names[i], part, n, -EINVAL, "");
        }
    }
}

static void put_u32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* CRC-32 as PNG has it, bit by bit. Source: PNG 1.2, appendix D. */
static uint32_t checksum(const uint8_t *p, size_t size)
{
    uint32_t c = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        c ^= p[i];
        for (unsigned bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

static void test_png_limits(void **state)
{
    static const struct {
        uint32_t width, height;
        int want;
        const char *says;
    } rows[] = {
        {4097, 1, -EFBIG, "PNG: 4097x1 pixels: more than 4096 a side"},
        {1, 4097, -EFBIG, "PNG: 1x4097 pixels: more than 4096 a side"},
        {999999, 999999, -EFBIG, "PNG: 999999x999999 pixels: more than 4096 a side"},
        {0, 5, -EINVAL, "PNG: "},
        {4096, 4096, -EINVAL, "PNG: "}, /* there is no such number of pixels in the file */
    };
    _cleanup_(freep) uint8_t *data = NULL;
    size_t size;

    (void)state;
    read_file("rgb-8.png", &data, &size);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        put_u32(data + 16, rows[i].width);
        put_u32(data + 20, rows[i].height);
        put_u32(data + 29, checksum(data + 12, 17));
        check_refused(rows[i].says, data, size, rows[i].want, rows[i].says);
    }
}

/* Damage to any byte is seen, but where the format has none to see it by: after the end. */
static void test_png_damage(void **state)
{
    _cleanup_(freep) uint8_t *data = NULL;
    size_t size;

    (void)state;
    read_file("rgb-noise.png", &data, &size);
    for (size_t i = 8; i < size; i++) {
        struct picture p = {0};
        struct fault f = {0};
        data[i] ^= 0x10;
        int r = picture_decode("image", data, size, &p, &f);
        data[i] ^= 0x10;
        if (r == 0)
            fail_msg("byte %zu changed, and nobody saw it", i);
        assert_true(r == -EINVAL || r == -EFBIG);
    }
}

/* --- JPEG ------------------------------------------------------------------------------------- */

static uint8_t *find_marker(uint8_t *data, size_t size, uint8_t marker)
{
    for (size_t i = 0; i + 1 < size; i++)
        if (data[i] == 0xff && data[i + 1] == marker)
            return data + i;
    fail_msg("no marker %02x", marker);
    return NULL;
}

static void test_jpeg_refusals(void **state)
{
    static const struct {
        uint8_t marker, offset;
        uint16_t value; /* two bytes put there */
        int want;
        const char *says;
    } rows[] = {
        {0xc0, 0, 0xffc9, -EINVAL, "JPEG: arithmetic coding is not read"},
        {0xc0, 0, 0xffc3, -EINVAL, "JPEG: Unsupported JPEG process: SOF type 0xc3"},
        {0xc0, 5, 4097, -EFBIG, "JPEG: 37x4097 pixels: more than 4096 a side"},
        {0xc0, 7, 65000, -EFBIG, "JPEG: 65000x29 pixels: more than 4096 a side"},
        {0xc0, 5, 4096, -EINVAL, "JPEG: "},
        {0xc0, 5, 0, -EINVAL, "JPEG: Empty JPEG image"},
        {0xda, 2, 3, -EINVAL, "JPEG: "},
        {0xc4, 2, 1, -EINVAL, "JPEG: "},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(freep) uint8_t *data = NULL;
        size_t size;
        read_file("420.jpg", &data, &size);
        uint8_t *at = find_marker(data, size, rows[i].marker) + rows[i].offset;
        at[0] = (uint8_t)(rows[i].value >> 8);
        at[1] = (uint8_t)rows[i].value;
        check_refused(rows[i].says, data, size, rows[i].want, rows[i].says);
    }
}

/* A progressive gray file whose 63 coefficients come in `passes` scans each, and the DC in one. */
static void make_progressive(unsigned side, int passes, unsigned char **ret_data,
                             unsigned long *ret_size)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    jpeg_scan_info *scans = calloc(1 + 63 * (size_t)passes, sizeof *scans), *s = scans;
    uint8_t *row = calloc(side, 1);

    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, ret_data, ret_size);
    jpeg.image_width = jpeg.image_height = side;
    jpeg.input_components = 1;
    jpeg.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&jpeg);
    *s++ = (jpeg_scan_info){.comps_in_scan = 1};
    for (int pass = passes - 1; pass >= 0; pass--)
        for (int k = 1; k < 64; k++)
            *s++ = (jpeg_scan_info){.comps_in_scan = 1,
                                    .Ss = k,
                                    .Se = k,
                                    .Ah = pass == passes - 1 ? 0 : pass + 1,
                                    .Al = pass};
    jpeg.scan_info = scans;
    jpeg.num_scans = (int)(s - scans);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height)
        (void)jpeg_write_scanlines(&jpeg, &row, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    free(row);
    free(scans);
}

static void test_scans(void **state)
{
    unsigned char *data = NULL;
    unsigned long size = 0;
    struct picture p = {0};

    (void)state;
    make_progressive(64, 1, &data, &size); /* 64 scans */
    assert_int_equal(picture_decode("image", data, size, &p, NULL), 0);
    picture_done(&p);
    free(data);
    data = NULL;
    make_progressive(2048, 2, &data, &size); /* 127 */
    check_refused("bomb", data, size, -EFBIG, "JPEG: more than 100 scans");
    free(data);
}

/* Nothing outside the block is read, whatever EXIF says of itself. */
static void test_exif_damage(void **state)
{
    static const char *const names[] = {"exif-6.png", "exif-5.jpg"};

    (void)state;
    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        _cleanup_(freep) uint8_t *data = NULL;
        size_t size;
        read_file(names[n], &data, &size);
        for (size_t i = 2; i < 120; i++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                struct picture p = {0};
                data[i] ^= (uint8_t)(1u << bit);
                (void)picture_decode("image", data, size, &p, NULL); /* sanitizers watch */
                data[i] ^= (uint8_t)(1u << bit);
                picture_done(&p);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),      cmocka_unit_test(test_other_formats),
        cmocka_unit_test(test_cuts),       cmocka_unit_test(test_png_limits),
        cmocka_unit_test(test_png_damage), cmocka_unit_test(test_jpeg_refusals),
        cmocka_unit_test(test_scans),      cmocka_unit_test(test_exif_damage),
    };

    return cmocka_run_group_tests_name("picture", tests, NULL, NULL);
}
