#include "daemon/decode.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "daemon/picture.h"
#include "vk/base/cleanup.h"

static int write_pixels(const void *file, size_t size, FILE *out, struct fault *f)
{
    _cleanup_(picture_done) struct picture picture = {0};

    int r = picture_decode("standard input", file, size, &picture, f);
    if (r < 0)
        return r;
    if (fwrite(picture.pixels, (size_t)picture.width * 3, picture.height, out) != picture.height)
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
    if (st.st_size > PICTURE_FILE_MAX)
        return fault_set(f, -EFBIG, "standard input: over %u bytes", PICTURE_FILE_MAX);
    void *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, in, 0);
    if (file == MAP_FAILED)
        return fault_set(f, -errno, "standard input: %s", strerror(errno));
    int r = write_pixels(file, (size_t)st.st_size, out, f);
    (void)munmap(file, (size_t)st.st_size); /* cannot fail */
    return r;
}
