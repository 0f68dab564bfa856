#include "vk/pipeline/session.h"

#include <errno.h>
#include <string.h>

#include "vk/graph/plan.h"
#include "vk/pipeline/fit.h"
#include "vk/shaders/abi/step.h"

/* A submission is cut at about this much work: a heartbeat and a chance to cancel a few times a
 * second on the slowest devices (SwiftShader does 1 GMAC/s, lavapipe 30; a small GPU 200). */
#define CHUNK_MACS_CPU (1ull << 30)
#define CHUNK_MACS_GPU (32ull << 30)

uint64_t session_chunk_macs(const struct caps *caps)
{
    return caps->is_cpu ? CHUNK_MACS_CPU : CHUNK_MACS_GPU;
}

static struct pinned place(struct session_layout *l, enum element element, uint32_t n, uint32_t h,
                           uint32_t w, struct layout channels)
{
    const struct pinned p = {.element = element, .n = n, .h = h, .w = w, .layout = channels};

    return pinned_at(&l->end, &p);
}

bool session_shape_is_same(const struct session_shape *a, const struct session_shape *b)
{
    uint32_t a_chunks = a->chunks ? a->chunks : 1, b_chunks = b->chunks ? b->chunks : 1;

    return a->width == b->width && a->height == b->height && a->batch == b->batch &&
           a_chunks == b_chunks && a->is_masked == b->is_masked;
}

/* What the prompt goes through: ids, rows of embeddings, context, keys and values. */
static void place_text(const struct model *m, struct session_layout *l)
{
    struct unet_transformer list[UNET_TRANSFORMERS_MAX];
    uint32_t batch = l->shape.batch, chunks = l->shape.chunks, tokens = model_tokens(m);
    struct layout channels = layout_plain(m->text.hidden_size);

    l->ids = place(l, ELEMENT_U32, chunks, tokens, 1, layout_plain(1));
    if (m->embeddings.rows)
        l->words = place(l, ELEMENT_F16, 1, m->embeddings.rows, 1, layout_plain(m->embeddings.c));
    l->encoded = place(l, ELEMENT_F32, chunks, tokens, 1, channels);
    l->context = place(l, ELEMENT_F16, batch, chunks * tokens, 1, channels);
    l->kv_count = unet_transformers(&m->unet, list);
    for (uint32_t i = 0; i < l->kv_count; i++)
        l->kv[i] = place(l, ELEMENT_F16, batch, chunks * tokens, 1,
                         layout_plain(2 * heads_padded(list[i].channels, list[i].heads)));
}

static uint32_t state_groups(const struct model *m, const struct session_shape *shape)
{
    if (m->is_inpainting)
        return STATE_EXTENDED;
    return shape->is_masked ? STATE_MASKED : STATE_PLAIN;
}

void session_layout_make(const struct model *m, const struct session_shape *shape,
                         struct session_layout *ret_layout)
{
    struct session_layout l = {.shape = *shape, .end = GPU_OFFSET_ALIGNMENT};
    uint32_t factor = vae_factor(&m->vae);

    if (!l.shape.chunks)
        l.shape.chunks = 1;
    l.latent_width = shape->width / factor;
    l.latent_height = shape->height / factor;
    l.step = place(&l, ELEMENT_U32, 1, 1, 1, layout_plain(1));
    l.rows = place(&l, ELEMENT_F32, 1, SESSION_CALLS_MAX, 1, layout_plain(STEP_ROW_FLOATS));
    l.embedding =
        place(&l, ELEMENT_F16, 1, SESSION_CALLS_MAX, 1, layout_plain(m->unet.channels[0]));
    if (m->unet.condition_width)
        l.condition = place(&l, ELEMENT_F16, 1, 1, 1, layout_plain(m->unet.condition_width));
    l.state = place(&l, ELEMENT_F32, state_groups(m, shape), l.latent_height, l.latent_width,
                    layout_plain(m->vae.latent_channels));
    place_text(m, &l);
    *ret_layout = l;
}

/* --- the graphs ------------------------------------------------------------------------------- */

static void pin_kv(struct graph *g, const struct session_layout *l,
                   tensor kv[UNET_TRANSFORMERS_MAX])
{
    for (uint32_t i = 0; i < l->kv_count; i++)
        kv[i] = build_pinned(g, &l->kv[i]);
}

static void build_encoder(struct graph *g, const struct model *m, const struct session_layout *l,
                          uint32_t clip_skip)
{
    struct clip_text_inputs in = {.ids = build_pinned(g, &l->ids),
                                  .first_word = m->embeddings.first,
                                  .skip = clip_skip,
                                  .into = build_pinned(g, &l->encoded)};

    if (m->embeddings.rows)
        in.words = build_pinned(g, &l->words);
    (void)build_clip_text(g, &m->text, &in); /* the result is in.into */
}

static void build_encode(struct graph *g, const struct model *m, const struct session_layout *l)
{
    build_encoder(g, m, l, 0);
}

static void build_context(struct graph *g, const struct model *m, const struct session_layout *l)
{
    tensor kv[UNET_TRANSFORMERS_MAX];
    tensor context = build_pinned(g, &l->context);

    pin_kv(g, l, kv);
    build_unet_context(g, &m->unet, context, kv);
}

static void build_denoise(struct graph *g, const struct model *m, const struct session_layout *l)
{
    tensor kv[UNET_TRANSFORMERS_MAX];
    tensor step = build_pinned(g, &l->step), rows = build_pinned(g, &l->rows);
    tensor table = build_pinned(g, &l->embedding), state = build_pinned(g, &l->state);
    struct unet_inputs in = {.kv = kv};

    pin_kv(g, l, kv);
    in.latents = build_latent_in(
        g, state,
        &(struct latent_in_params){.batch = l->shape.batch,
                                   .rows = rows,
                                   .step = step,
                                   .extra = m->unet.in_channels - m->vae.latent_channels,
                                   .extra_at = STATE_EXTRA * m->vae.latent_channels});
    in.embedding = build_select_row(g, table, step);
    if (m->unet.condition_width)
        in.condition = build_pinned(g, &l->condition);
    tensor e = build_unet(g, &m->unet, &in);
    build_sampler_step(
        g, e,
        &(struct sampler_step_params){
            .rows = rows, .step = step, .state = state, .is_masked = l->shape.is_masked});
    build_advance(g, step);
}

static void build_decode(struct graph *g, const struct model *m, const struct session_layout *l)
{
    tensor state = build_pinned(g, &l->state);
    float scale = (float)(1 / m->vae.scaling_factor);

    tensor z = build_latent_in(g, state, &(struct latent_in_params){.batch = 1, .scale = scale});
    tensor image = build_vae_decoder(g, &m->vae, z, &l->decode);
    if (!g->fault.err)
        g->tensors.items[image].keep = true; /* read back after the run */
}

static void build_image(struct graph *g, const struct model *m, const struct session_layout *l)
{
    tensor image = build_given(g, &(struct pinned){.element = ELEMENT_F16,
                                                   .n = 1,
                                                   .h = l->shape.height,
                                                   .w = l->shape.width,
                                                   .layout = layout_plain(3)});
    build_label(g, image, "image");
    tensor moments = build_vae_encoder(g, &m->vae, image, &l->image);
    if (!g->fault.err)
        g->tensors.items[moments].keep = true;
}

int session_build_graph(const struct model *m, struct weights *w,
                        const struct session_layout *layout, enum session_graph which,
                        bool keep_labelled, struct graph **ret_graph, struct fault *f)
{
    static const struct {
        enum weights_component component;
        void (*build)(struct graph *, const struct model *, const struct session_layout *);
    } rows[SESSION_GRAPH_COUNT] = {
        [SESSION_ENCODE] = {WEIGHTS_TEXT_ENCODER, build_encode},
        [SESSION_CONTEXT] = {WEIGHTS_UNET, build_context},
        [SESSION_DENOISE] = {WEIGHTS_UNET, build_denoise},
        [SESSION_DECODE] = {WEIGHTS_VAE, build_decode},
        [SESSION_IMAGE] = {WEIGHTS_VAE, build_image},
    };
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = graph_new(w, rows[which].component, layout->end, &g);

    if (r < 0)
        return fault_set(f, r, "out of memory");
    g->keep_labelled = keep_labelled;
    rows[which].build(g, m, layout);
    r = graph_fault(g, f);
    if (r >= 0)
        r = graph_split(g, &layout->split, f);
    if (r >= 0)
        r = graph_plan(g, f);
    if (r < 0)
        return r;
    *ret_graph = TAKE_PTR(g);
    return 0;
}

int session_declare_weights(const struct model *m, struct weights *w, struct fault *f)
{
    uint32_t side = 8 * vae_factor(&m->vae);
    struct session_shape shape = {.width = side, .height = side, .batch = 2};
    struct session_layout layout;
    int r = 0;

    session_layout_make(m, &shape, &layout);
    for (int which = 0; which < SESSION_GRAPH_COUNT && r >= 0; which++) {
        _cleanup_(graph_freep) struct graph *g = NULL;
        r = session_build_graph(m, w, &layout, (enum session_graph)which, false, &g, f);
    }
    return r;
}

/* --- on the device ---------------------------------------------------------------------------- */

static int make_arena(struct session *s, struct gpu *gpu, uint64_t size, struct fault *f)
{
    int r = gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, size, &s->arena, f);

    if (r < 0)
        return fault_prefix(f, r, "%ux%u pixels take %llu MB beside the weights; ask for less",
                            s->layout.shape.width, s->layout.shape.height,
                            (unsigned long long)(size >> 20));
    return gpu_clear(gpu, s->arena, 0, s->layout.end, f);
}

static int upload_words(const struct session *s, const struct model *m, struct gpu *gpu,
                        struct fault *f)
{
    const struct embeddings *e = &m->embeddings;

    if (!e->rows)
        return 0;
    return gpu_upload(gpu, s->arena, s->layout.words.offset, e->halves,
                      (uint64_t)e->rows * pad8(e->c) * sizeof *e->halves, f);
}

static void find_image(struct session *s, const struct graph *decode)
{
    const struct tensor_info *image = graph_tensor(decode, graph_find(decode, "out"));

    s->image_offset = image->offset;
    s->image_size = tensor_bytes(image);
}

int session_new(const struct model *m, struct weights *w, struct gpu *gpu,
                const struct session_shape *shape, struct session **ret_session, struct fault *f)
{
    _cleanup_(session_freep) struct session *s = calloc(1, sizeof *s);
    _cleanup_(fit_done) struct fit fit = {0};

    if (!s)
        return fault_set(f, -ENOMEM, "out of memory");
    session_layout_make(m, shape, &s->layout);
    uint64_t chunk = session_chunk_macs(gpu_get_caps(gpu));
    int r = fit_session(m, w, &s->layout, gpu_get_caps(gpu), gpu_memory_left(gpu), &fit, f);
    if (r >= 0)
        r = make_arena(s, gpu, fit.arena_size, f);
    for (int i = 0; i < SESSION_IMAGE && r >= 0; i++)
        r = graph_record(fit.graphs[i], gpu, s->arena, chunk, &s->recordings[i], f);
    if (r < 0)
        return r;
    r = upload_words(s, m, gpu, f);
    if (r < 0)
        return r;
    find_image(s, fit.graphs[SESSION_DECODE]);
    *ret_session = TAKE_PTR(s);
    return 0;
}

struct session *session_free(struct session *s)
{
    if (!s)
        return NULL;
    for (int i = 0; i < SESSION_GRAPH_COUNT; i++)
        (void)recording_free(s->recordings[i]);
    (void)recording_free(s->tiny);
    (void)recording_free(s->skipping);
    (void)gpu_buffer_free(s->tiny_arena);
    (void)gpu_buffer_free(s->arena);
    free(s);
    return NULL;
}

/* Fewer layers need no more memory than all of them. */
static int record_skipping(struct session *s, const struct model *m, struct weights *w,
                           struct gpu *gpu, uint32_t clip_skip, struct fault *f)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = graph_new(w, WEIGHTS_TEXT_ENCODER, s->layout.end, &g);

    if (r < 0)
        return fault_set(f, r, "out of memory");
    build_encoder(g, m, &s->layout, clip_skip);
    r = graph_fault(g, f);
    if (r >= 0)
        r = graph_plan(g, f);
    if (r >= 0)
        r = graph_record(g, gpu, s->arena, session_chunk_macs(gpu_get_caps(gpu)), &s->skipping, f);
    s->skipped = clip_skip;
    return r;
}

int session_encoder(struct session *s, const struct model *m, struct weights *w, struct gpu *gpu,
                    uint32_t clip_skip, struct recording **ret_recording, struct fault *f)
{
    int r = 0;

    if (clip_skip && s->skipping && s->skipped != clip_skip)
        s->skipping = recording_free(s->skipping);
    if (clip_skip && !s->skipping)
        r = record_skipping(s, m, w, gpu, clip_skip, f);
    if (r < 0)
        return r;
    *ret_recording = clip_skip ? s->skipping : s->recordings[SESSION_ENCODE];
    return 0;
}

int session_check(const struct session *s, struct gpu *gpu, struct fault *f)
{
    uint8_t zeros[GPU_OFFSET_ALIGNMENT];
    int r = gpu_download(gpu, s->arena, 0, zeros, sizeof zeros, f);

    for (size_t i = 0; i < sizeof zeros && r >= 0; i++)
        if (zeros[i])
            return fault_set(f, -EBADMSG, "byte %zu of the activations is %u instead of 0", i,
                             zeros[i]);
    return r;
}
