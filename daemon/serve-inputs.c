#include "daemon/serve-inputs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/job.h"
#include "daemon/picture.h"
#include "vk/base/cleanup.h"

static int read_file(int fd, uint8_t **ret_data, size_t *ret_size, struct fault *f)
{
    struct stat st;
    size_t used = 0;

    if (fstat(fd, &st) < 0)
        return fault_set(f, -errno, "%s", strerror(errno));
    if ((uint64_t)st.st_size > JOB_INPUT_BYTES_MAX)
        return fault_set(f, -EFBIG, "%lld bytes", (long long)st.st_size);
    _cleanup_(freep) uint8_t *data = malloc((size_t)st.st_size + 1);
    if (!data)
        return fault_set(f, -ENOMEM, "out of memory");
    while (used < (size_t)st.st_size) {
        ssize_t n = pread(fd, data + used, (size_t)st.st_size - used, (off_t)used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fault_set(f, -ENOTRECOVERABLE, "cannot be read: %s",
                             n < 0 ? strerror(errno) : "it has become shorter");
        used += (size_t)n;
    }
    *ret_data = TAKE_PTR(data);
    *ret_size = used;
    return 0;
}

static int read_one(const char *what, int fd, struct engine_raster *ret,
                    struct picture *ret_picture, struct fault *f)
{
    _cleanup_(freep) uint8_t *data = NULL;
    size_t size = 0;

    if (fd < 0)
        return 0;
    int r = read_file(fd, &data, &size, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", what);
    r = picture_decode(what, data, size, ret_picture, f);
    if (r < 0)
        return r;
    *ret = (struct engine_raster){ret_picture->pixels, ret_picture->width, ret_picture->height, 3};
    return 0;
}

int serve_read_inputs(const struct ipc_run *run, const struct ipc_files *files,
                      struct serve_inputs *ret_inputs, struct fault *f)
{
    _cleanup_(serve_inputs_done) struct serve_inputs in = {0};

    int r = read_one("image", ipc_input_of(run, files, JOB_INPUT_IMAGE), &in.inputs.image,
                     &in.image, f);
    if (r == 0)
        r = read_one("mask", ipc_input_of(run, files, JOB_INPUT_MASK), &in.inputs.mask, &in.mask,
                     f);
    if (r < 0)
        return r;
    *ret_inputs = in;
    in = (struct serve_inputs){0};
    return 0;
}

void serve_inputs_done(struct serve_inputs *inputs)
{
    picture_done(&inputs->image);
    picture_done(&inputs->mask);
    *inputs = (struct serve_inputs){0};
}
