#include "daemon/decode.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/png.h"
#include "vk/base/cleanup.h"

#define FILE_MAX (256 << 20) /* bytes; 2048 x 2048 x 3 is 12 MB */

static int write_pixels(const void *file, size_t size, FILE *out, struct fault *f)
{
    _cleanup_(freep) uint8_t *rgb = NULL;
    uint32_t width, height;

    int r = png_decode(file, size, &rgb, &width, &height, f);
    if (r < 0)
        return r;
    if (fwrite(rgb, (size_t)width * 3, height, out) != height)
        return fault_set(f, -errno, "standard output: %s", strerror(errno));
    return 0;
}

int decode_to(int in, FILE *out, struct fault *f)
{
    struct stat st;

    if (fstat(in, &st) < 0)
        return fault_set(f, -errno, "standard input: %s", strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return fault_set(f, -EINVAL, "standard input: want a PNG file");
    if (st.st_size > FILE_MAX)
        return fault_set(f, -EFBIG, "standard input: over %d bytes", FILE_MAX);
    void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, in, 0);
    if (file == MAP_FAILED)
        return fault_set(f, -errno, "standard input: %s", strerror(errno));
    int r = write_pixels(file, (size_t)st.st_size, out, f);
    (void)munmap(file, (size_t)st.st_size); /* cannot fail */
    return r;
}
