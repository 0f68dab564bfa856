/* Previews: by the model's small VAE, or by the linear map fitted to its large one. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/half.h"
#include "vk/graph/plan.h"
#include "vk/pipeline/decode.h"
#include "vk/pipeline/fit.h"
#include "vk/pipeline/image.h"

#define STRIDE     8u  /* channels of a row on the device */
#define PROBE_SIDE 16u /* latents: what the linear map is fitted to */

/* --- latents to pictures through some decoder ------------------------------------------------- */

/* Latents f32 [c, hw] to the padded f16 rows that a decoder reads. */
static int put_latents(const struct pipeline *p, const struct gpu_buffer *arena, uint64_t offset,
                       const float *latents, size_t c, size_t hw, struct fault *f)
{
    _cleanup_(freep) uint16_t *rows = calloc(hw * STRIDE, sizeof *rows);

    if (!rows)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t k = 0; k < c; k++)
        for (size_t i = 0; i < hw; i++)
            rows[i * STRIDE + k] = half_from_float(latents[k * hw + i]);
    return gpu_upload(p->gpu, arena, offset, rows, hw * STRIDE * sizeof *rows, f);
}

/* --- the linear map --------------------------------------------------------------------------- */

/* The decoder at the probe's size, in the session's arena behind what must stay. */
static int build_probe(const struct pipeline *p, uint32_t h, uint32_t w, tensor *ret_in,
                       struct graph **ret_graph, struct fault *f)
{
    const struct vae_config *vae = &p->model->vae;
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = graph_new(p->weights, WEIGHTS_VAE, p->session->layout.end, &g);

    if (r < 0)
        return fault_set(f, r, "out of memory");
    *ret_in = build_given(g, &(struct pinned){.element = ELEMENT_F16,
                                              .n = 1,
                                              .h = h,
                                              .w = w,
                                              .layout = layout_plain(vae->latent_channels)});
    tensor out = build_vae_decoder(g, vae, *ret_in, &p->session->layout.decode);
    r = graph_fault(g, f);
    if (r < 0)
        return r;
    g->tensors.items[out].keep = true;
    r = graph_plan(g, f);
    if (r >= 0 && g->arena_size > gpu_buffer_size(p->session->arena))
        r = fault_set(f, -EFBIG, "no room for a probe");
    if (r < 0)
        return r;
    *ret_graph = TAKE_PTR(g);
    return 0;
}

/* Runs the probe's graph: latents as the sampler has them to a picture f32 [8 floats a pixel]. */
static int decode_probe(const struct pipeline *p, const struct graph *g, tensor in,
                        const float *latents, float *ret_values, const atomic_bool *cancel,
                        struct fault *f)
{
    _cleanup_(recording_freep) struct recording *recording = NULL;
    const struct tensor_info *from = graph_tensor(g, in);
    const struct tensor_info *to = graph_tensor(g, graph_find(g, "out"));
    size_t n = (size_t)from->layout.count * from->h * from->w;
    _cleanup_(freep) float *scaled = malloc(n * sizeof *scaled);

    if (!scaled)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        scaled[i] = (float)((double)latents[i] / p->model->vae.scaling_factor);
    int r = graph_record(g, p->gpu, p->session->arena, session_chunk_macs(gpu_get_caps(p->gpu)),
                         &recording, f);
    if (r >= 0)
        r = put_latents(p, p->session->arena, from->offset, scaled, from->layout.count,
                        (size_t)from->h * from->w, f);
    if (r >= 0)
        r = recording_run(recording, cancel, f);
    if (r >= 0)
        r = gpu_download(p->gpu, p->session->arena, to->offset, ret_values, tensor_bytes(to), f);
    return r;
}

/* A map fitted on fewer latents serves its picture, the next one fits again. */
#define PROBE_KEPT 64

static int fit_map(struct pipeline *p, const atomic_bool *cancel, struct fault *f)
{
    const struct session_layout *l = &p->session->layout;
    uint32_t h = l->latent_height < PROBE_SIDE ? l->latent_height : PROBE_SIDE;
    uint32_t w = l->latent_width < PROBE_SIDE ? l->latent_width : PROBE_SIDE;
    uint32_t factor = vae_factor(&p->model->vae);
    size_t pixels = (size_t)h * w * factor * factor;
    _cleanup_(freep) float *latents = malloc(sizeof *latents * PREVIEW_CHANNELS * h * w);
    _cleanup_(freep) float *values = malloc(pixels * STRIDE * sizeof *values);
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct preview_fit fit = {0};
    tensor in = 0;

    if (!latents || !values)
        return fault_set(f, -ENOMEM, "out of memory");
    preview_probe(h, w, latents);
    int r = build_probe(p, h, w, &in, &g, f);
    if (r >= 0)
        r = decode_probe(p, g, in, latents, values, cancel, f);
    if (r < 0)
        return r;
    image_from_decoder(values, pixels, values);
    preview_fit_add(&fit, latents, h, w, factor, values);
    preview_fit_solve(&fit, &p->preview);
    p->has_preview = h * w >= PROBE_KEPT;
    return 0;
}

static int preview_by_map(struct pipeline *p, const float *latents, uint8_t *ret_rgb,
                          const atomic_bool *cancel, struct fault *f)
{
    const struct session_layout *l = &p->session->layout;
    size_t hw = (size_t)l->latent_height * l->latent_width;
    _cleanup_(freep) uint8_t *small = malloc(3 * hw);
    int r = small ? 0 : fault_set(f, -ENOMEM, "out of memory");

    if (r >= 0 && !p->has_preview)
        r = fit_map(p, cancel, f);
    if (r < 0)
        return r;
    preview_apply(&p->preview, latents, l->latent_height, l->latent_width, small);
    r = preview_enlarge(small, l->latent_height, l->latent_width, vae_factor(&p->model->vae),
                        ret_rgb);
    return r < 0 ? fault_set(f, r, "out of memory") : 0;
}

/* --- the small VAE ---------------------------------------------------------------------------- */

static int build_tiny(const struct pipeline *p, uint64_t keep, struct graph **ret_graph,
                      struct fault *f)
{
    const struct session_layout *l = &p->session->layout;
    const struct taesd_config *config = &p->tiny->config;
    struct band_limits limits = l->decode;
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = graph_new(p->tiny->weights, WEIGHTS_TAESD, l->end, &g);

    if (r < 0)
        return fault_set(f, r, "out of memory");
    limits.keep = keep;
    tensor in = build_given(g, &(struct pinned){.element = ELEMENT_F16,
                                                .n = 1,
                                                .h = l->latent_height,
                                                .w = l->latent_width,
                                                .layout = layout_plain(config->latent_channels)});
    build_label(g, in, "latents");
    tensor out = build_taesd_decoder(g, config, in, &limits);
    r = graph_fault(g, f);
    if (r < 0)
        return r;
    g->tensors.items[out].keep = true;
    r = graph_plan(g, f);
    if (r >= 0)
        *ret_graph = TAKE_PTR(g);
    return r;
}

/* A graph that fits into the session's arena, behind what must stay; if there is none (a small VAE
 * that is the larger one), one with an arena of its own. */
static int plan_tiny(const struct pipeline *p, struct graph **ret_graph, struct fault *f)
{
    struct session *s = p->session;
    const struct session_shape *shape = &s->layout.shape;
    uint64_t largest =
        2ull * shape->width * shape->height * pad8(p->tiny->config.decoder.channels[0]);
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = 0;

    for (unsigned k = 0; k <= FIT_KEEP_STEPS && r >= 0; k++) {
        g = graph_free(g);
        r = build_tiny(p, k ? largest >> k : 0, &g, f);
        if (r >= 0 && g->arena_size <= gpu_buffer_size(s->arena)) {
            *ret_graph = TAKE_PTR(g);
            return 0;
        }
    }
    if (r >= 0)
        r = gpu_buffer_new(p->gpu, GPU_LIFETIME_ARENA, g->arena_size, &s->tiny_arena, f);
    if (r >= 0)
        r = gpu_clear(p->gpu, s->tiny_arena, 0, GPU_OFFSET_ALIGNMENT, f);
    if (r >= 0)
        *ret_graph = TAKE_PTR(g);
    return r;
}

static const struct gpu_buffer *tiny_arena(const struct session *s)
{
    return s->tiny_arena ? s->tiny_arena : s->arena;
}

static int record_tiny(const struct pipeline *p, struct fault *f)
{
    struct session *s = p->session;
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = plan_tiny(p, &g, f);

    if (r >= 0)
        r = graph_record(g, p->gpu, tiny_arena(s), session_chunk_macs(gpu_get_caps(p->gpu)),
                         &s->tiny, f);
    if (r < 0) {
        s->tiny_arena = gpu_buffer_free(s->tiny_arena);
        return r;
    }
    s->tiny_in = graph_tensor(g, graph_find(g, "latents"))->offset;
    s->tiny_out = graph_tensor(g, graph_find(g, "out"))->offset;
    return 0;
}

static int preview_by_tiny(const struct pipeline *p, const float *latents, uint8_t *ret_rgb,
                           const atomic_bool *cancel, struct fault *f)
{
    const struct session *s = p->session;
    const struct session_layout *l = &s->layout;
    size_t hw = (size_t)l->latent_height * l->latent_width, n = PREVIEW_CHANNELS * hw;
    size_t pixels = (size_t)l->shape.width * l->shape.height;
    _cleanup_(freep) float *squashed = malloc(n * sizeof *squashed);
    _cleanup_(freep) float *values = malloc(pixels * STRIDE * sizeof *values);

    if (!squashed || !values)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        squashed[i] = taesd_squash((float)((double)latents[i] / p->tiny->config.scaling_factor));
    int r = put_latents(p, tiny_arena(s), s->tiny_in, squashed, PREVIEW_CHANNELS, hw, f);
    if (r >= 0)
        r = recording_run(s->tiny, cancel, f);
    if (r >= 0)
        r = gpu_download(p->gpu, tiny_arena(s), s->tiny_out, values,
                         pixels * STRIDE * sizeof *values, f);
    for (size_t i = 0; i < 3 * pixels && r >= 0; i++) {
        float v = values[i / 3 * STRIDE + i % 3];
        ret_rgb[i] = (uint8_t)nearbyintf(255 * (v > 0 ? (v < 1 ? v : 1) : 0));
    }
    return r;
}

int decode_preview(struct pipeline *p, const float *latents, uint8_t *ret_rgb,
                   const atomic_bool *cancel, struct fault *f)
{
    bool has_tiny = p->tiny && taesd_factor(&p->tiny->config) == vae_factor(&p->model->vae);
    int r = 0;

    if (has_tiny && !p->session->tiny)
        r = record_tiny(p, f);
    if (r < 0)
        return r;
    return has_tiny ? preview_by_tiny(p, latents, ret_rgb, cancel, f)
                    : preview_by_map(p, latents, ret_rgb, cancel, f);
}
