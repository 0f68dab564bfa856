#include "vk/pipeline/encode.h"

#include <errno.h>
#include <stdlib.h>

#include "vk/base/half.h"

/* Rows of channels on the device; the network's padding to 8 holds zeros. */
#define STRIDE 8u

/* Plans the graph again, which session_new() did to size the arena, and records it. */
static int prepare(struct pipeline *p, struct fault *f)
{
    struct session *s = p->session;
    _cleanup_(graph_freep) struct graph *g = NULL;

    if (s->recordings[SESSION_IMAGE])
        return 0;
    int r = session_build_graph(p->model, p->weights, &s->layout, SESSION_IMAGE, false, &g, f);
    if (r >= 0)
        r = graph_record(g, p->gpu, s->arena, session_chunk_macs(gpu_get_caps(p->gpu)),
                         &s->recordings[SESSION_IMAGE], f);
    if (r < 0)
        return r;
    s->pixels_offset = graph_tensor(g, graph_find(g, "image"))->offset;
    s->moments_offset = graph_tensor(g, graph_find(g, "moments"))->offset;
    return 0;
}

/* Planes of f32 to padded rows of f16. */
static int put_pixels(const struct pipeline *p, const float *pixels, struct fault *f)
{
    const struct session_shape *shape = &p->session->layout.shape;
    size_t n = (size_t)shape->width * shape->height;
    _cleanup_(freep) uint16_t *rows = calloc(n * STRIDE, sizeof *rows);

    if (!rows)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < n; i++)
            rows[i * STRIDE + c] = half_from_float(pixels[c * n + i]);
    return gpu_upload(p->gpu, p->session->arena, p->session->pixels_offset, rows,
                      n * STRIDE * sizeof *rows, f);
}

/* Padded rows of f32 to planes. */
static int get_moments(const struct pipeline *p, float *ret_moments, struct fault *f)
{
    const struct session_layout *l = &p->session->layout;
    size_t n = (size_t)l->latent_width * l->latent_height;
    uint32_t channels = 2 * p->model->vae.latent_channels, padded = pad8(channels);
    _cleanup_(freep) float *rows = malloc(n * padded * sizeof *rows);

    if (!rows)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = gpu_download(p->gpu, p->session->arena, p->session->moments_offset, rows,
                         n * padded * sizeof *rows, f);
    for (size_t c = 0; c < channels && r >= 0; c++)
        for (size_t i = 0; i < n; i++)
            ret_moments[c * n + i] = rows[i * padded + c];
    return r;
}

int encode_image(struct pipeline *p, const float *pixels, float *ret_moments,
                 const atomic_bool *cancel, struct fault *f)
{
    int r = prepare(p, f);

    if (r >= 0)
        r = put_pixels(p, pixels, f);
    if (r >= 0)
        r = recording_run(p->session->recordings[SESSION_IMAGE], cancel, f);
    if (r >= 0)
        r = get_moments(p, ret_moments, f);
    return r;
}
