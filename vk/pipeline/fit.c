#include "vk/pipeline/fit.h"

#include <errno.h>
#include <string.h>

/* A launch's work at most, in submissions' worth: few enough that a band is a fraction of a second
 * where a submission is. */
#define LAUNCH_CHUNKS_CPU 4u
#define LAUNCH_CHUNKS_GPU 1u

/* The same of the U-Net, whose launches are as large as they are on most devices: only attention
 * over very many pixels is cut. */
#define UNET_CHUNKS_CPU 32u
#define UNET_CHUNKS_GPU 4u

void fit_done(struct fit *fit)
{
    for (int i = 0; i < SESSION_GRAPH_COUNT; i++)
        fit->graphs[i] = graph_free(fit->graphs[i]);
}

/* What a fit is looked for with. */
struct search {
    const struct model *m;
    struct weights *w;
    const struct caps *caps;
    uint64_t limit; /* bytes of an arena */
};

/* The graph, if it fits: it can be launched, and its arena is within the limit. -EFBIG otherwise;
 * *ret_is_memory (may be NULL) tells whether less memory would help. */
static int try_graph(const struct search *s, const struct session_layout *l,
                     enum session_graph which, struct graph **ret_graph, bool *ret_is_memory,
                     struct fault *f)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(program_done) struct program program = {0};
    int r = session_build_graph(s->m, s->w, l, which, false, &g, f);

    if (r < 0)
        return r;
    if (ret_is_memory)
        *ret_is_memory = g->arena_size > s->limit;
    if (g->arena_size > s->limit)
        return fault_set(f, -EFBIG, "%llu MB of activations, %llu MB are possible",
                         (unsigned long long)(g->arena_size >> 20),
                         (unsigned long long)(s->limit >> 20));
    r = program_make(g, s->caps, 0, &program, f);
    if (r < 0)
        return r;
    *ret_graph = TAKE_PTR(g);
    return 0;
}

/* The largest plane of the VAE: its widest level at the picture's size. */
static uint64_t largest_plane(const struct model *m, const struct session_shape *shape)
{
    uint32_t levels = m->vae.levels;
    uint32_t c = levels > 1 ? m->vae.channels[1] : m->vae.channels[0];

    c = c > m->vae.channels[0] ? c : m->vae.channels[0];
    return (uint64_t)shape->width * shape->height * pad8(c) * 2;
}

static int fit_codec(const struct search *s, struct session_layout *l, enum session_graph which,
                     struct graph **ret_graph, struct fault *f)
{
    struct band_limits *limits = which == SESSION_DECODE ? &l->decode : &l->image;
    uint64_t largest = largest_plane(s->m, &l->shape);
    bool is_memory = true;
    int r = -EFBIG;

    *limits =
        (struct band_limits){.bytes = s->caps->max_binding,
                             .macs = session_chunk_macs(s->caps) *
                                     (s->caps->is_cpu ? LAUNCH_CHUNKS_CPU : LAUNCH_CHUNKS_GPU)};
    for (unsigned k = 0; k <= FIT_KEEP_STEPS && r == -EFBIG && is_memory; k++) {
        limits->keep = k ? largest >> k : 0;
        r = try_graph(s, l, which, ret_graph, &is_memory, f);
    }
    return r;
}

static int fit_all(const struct search *s, struct session_layout *l, struct fit *fit,
                   struct fault *f)
{
    static const char *const names[] = {[SESSION_ENCODE] = "text encoder",
                                        [SESSION_CONTEXT] = "context",
                                        [SESSION_DENOISE] = "U-Net",
                                        [SESSION_DECODE] = "VAE decoder",
                                        [SESSION_IMAGE] = "VAE encoder"};
    int r = 0;

    l->split = (struct split_limits){.bytes = s->caps->max_binding,
                                     .macs = session_chunk_macs(s->caps) *
                                             (s->caps->is_cpu ? UNET_CHUNKS_CPU : UNET_CHUNKS_GPU)};
    for (int i = 0; i < SESSION_GRAPH_COUNT && r >= 0; i++) {
        enum session_graph which = (enum session_graph)i;
        r = which == SESSION_DECODE || which == SESSION_IMAGE
                ? fit_codec(s, l, which, &fit->graphs[i], f)
                : try_graph(s, l, which, &fit->graphs[i], NULL, f);
        if (r < 0)
            return fault_prefix(f, r, "%s", names[i]);
        if (fit->graphs[i]->arena_size > fit->arena_size)
            fit->arena_size = fit->graphs[i]->arena_size;
    }
    return r;
}

/* The largest size of the same proportions that fits: sides scaled by n / SCALE_STEPS, in multiples
 * of `multiple`. False: none. */
#define SCALE_STEPS 64u

static bool find_smaller(const struct search *s, const struct session_layout *l,
                         struct session_shape *ret_shape)
{
    uint32_t multiple = model_request_context(s->m).multiple;
    uint32_t low = 0, high = SCALE_STEPS; /* low fits (0: nothing does), high does not */

    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        struct session_shape shape = l->shape;
        struct session_layout smaller;
        struct fit fit = {0};
        shape.width = shape.width * middle / SCALE_STEPS / multiple * multiple;
        shape.height = shape.height * middle / SCALE_STEPS / multiple * multiple;
        int r = -EFBIG;
        if (shape.width && shape.height) {
            session_layout_make(s->m, &shape, &smaller);
            r = fit_all(s, &smaller, &fit, NULL);
        }
        fit_done(&fit);
        if (shape.width == 0 || shape.height == 0 || r >= 0)
            low = middle;
        else
            high = middle;
        if (r >= 0)
            *ret_shape = shape;
    }
    return ret_shape->width > 0;
}

int fit_session(const struct model *m, struct weights *w, struct session_layout *layout,
                const struct caps *caps, uint64_t room, struct fit *ret_fit, struct fault *f)
{
    uint64_t whole =
        caps->max_allocation < caps->max_buffer ? caps->max_allocation : caps->max_buffer;
    struct search s = {.m = m, .w = w, .caps = caps, .limit = room < whole ? room : whole};
    struct session_shape smaller = {0};
    struct fit fit = {0};
    int r = fit_all(&s, layout, &fit, f);

    if (r >= 0) {
        *ret_fit = fit;
        return r;
    }
    fit_done(&fit);
    if (r != -EFBIG)
        return r;
    if (find_smaller(&s, layout, &smaller))
        return fault_prefix(f, r, "%ux%u is more than this device holds, %ux%u would fit",
                            layout->shape.width, layout->shape.height, smaller.width,
                            smaller.height);
    return fault_prefix(f, r, "%ux%u is more than this device holds, and no smaller size fits",
                        layout->shape.width, layout->shape.height);
}
