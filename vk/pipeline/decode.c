#include "vk/pipeline/decode.h"

#include "vk/pipeline/image.h"

int decode_picture(struct pipeline *p, float *values, const atomic_bool *cancel, struct fault *f)
{
    const struct session *s = p->session;
    const struct session_shape *shape = &s->layout.shape;
    int r = recording_run(s->recordings[SESSION_DECODE], cancel, f);

    if (r >= 0)
        r = gpu_download(p->gpu, s->arena, s->image_offset, values, s->image_size, f);
    if (r >= 0)
        image_from_decoder(values, (size_t)shape->width * shape->height, values);
    return r;
}
