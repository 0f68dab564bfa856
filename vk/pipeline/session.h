/* session — everything one picture shape needs on the device: arena, graphs, recordings.
 *
 * Made once per (width, height, batch) and kept until another shape is asked for. The arena holds,
 * in this order: 256 zero bytes, the pinned tensors below, the transients of the three graphs
 * overlaid. Running a job uploads small tables, replays recordings and reads results; nothing is
 * allocated or recorded.
 *   encode   ids of a prompt's chunks -> text encoder -> encoded
 *   context  context (negative prompt and prompt, the chunks of each side by side) -> keys and
 *            values of every U-Net transformer
 *   denoise  latents, step -> U-Net -> guidance and scheduler call -> latents, step + 1
 *   decode   latents -> VAE decoder -> picture
 *   image    picture -> VAE encoder -> moments (encode.h); recorded when it is first asked for
 * Batch 2 is guidance: unconditional first. A U-Net with a condition_width reads it instead. */
#pragma once

#include "vk/graph/build.h"
#include "vk/graph/record.h"
#include "vk/graph/split.h"
#include "vk/gpu/gpu.h"
#include "vk/pipeline/model.h"

#define SESSION_CALLS_MAX SCHED_CALLS_MAX /* scheduler calls of a picture */

struct session_shape {
    uint32_t width, height; /* pixels */
    uint32_t batch;         /* 2 with guidance, 1 without */
    uint32_t chunks;        /* pieces of a prompt, each of the text encoder's length; 0 means 1 */
    bool is_masked;         /* a mask's kept areas are put back after every call */
};
bool session_shape_is_same(const struct session_shape *a, const struct session_shape *b);

enum session_graph {
    SESSION_ENCODE,
    SESSION_CONTEXT,
    SESSION_DENOISE,
    SESSION_DECODE,
    SESSION_IMAGE,
    SESSION_GRAPH_COUNT,
};

/* Where the pinned tensors lie: the sizes follow from model and shape. Pure. */
struct session_layout {
    struct session_shape shape; /* chunks at least 1 */
    uint32_t latent_width, latent_height;
    struct pinned step, rows, embedding, state;
    struct pinned ids, encoded; /* u32, f32; of one prompt: n = chunks, h = tokens of one */
    struct pinned context;      /* of all batch entries: h = tokens of all chunks */
    struct pinned words;        /* rows of the model's embeddings */
    struct pinned condition;    /* of a U-Net that reads its guidance */
    struct pinned kv[UNET_TRANSFORMERS_MAX];
    uint32_t kv_count;
    struct band_limits decode, image; /* how the VAE's graphs are built; zeros: whole */
    struct split_limits split;        /* what the nodes of all graphs are cut down to */
    uint64_t end;                     /* first byte after them */
};

void session_layout_make(const struct model *m, const struct session_shape *shape,
                         struct session_layout *ret_layout);

/* Builds and plans one of the graphs; declares its weights. `keep_labelled`: for goldens. */
int session_build_graph(const struct model *m, struct weights *w,
                        const struct session_layout *layout, enum session_graph which,
                        bool keep_labelled, struct graph **ret_graph, struct fault *f);

/* Work of one submission, for graph_record(). */
uint64_t session_chunk_macs(const struct caps *caps);

/* Declares every weight of the model, at its smallest shape. */
int session_declare_weights(const struct model *m, struct weights *w, struct fault *f);

struct session {
    struct session_layout layout;
    struct gpu_buffer *arena;
    struct recording *recordings[SESSION_GRAPH_COUNT]; /* SESSION_IMAGE: NULL until asked for */
    uint64_t image_offset, image_size;                 /* the decoder's f32 [H, W, 8] */
    struct recording *tiny;        /* previews by the small VAE; NULL until asked for */
    struct gpu_buffer *tiny_arena; /* NULL: it shares the arena */
    uint64_t tiny_in, tiny_out;    /* f16 [h, w, 8], f32 [H, W, 8] */
    struct recording *skipping;    /* SESSION_ENCODE without the last `skipped` layers; or NULL */
    uint32_t skipped;
    uint64_t pixels_offset, moments_offset; /* of SESSION_IMAGE: f16 [H, W, 8], f32 [h, w, 8] */
};

/* Errors: -EFBIG or -ENOMEM when the device cannot hold the shape (f says what it takes), -EINVAL.
 */
int session_new(const struct model *m, struct weights *w, struct gpu *gpu,
                const struct session_shape *shape, struct session **ret_session, struct fault *f);
struct session *session_free(struct session *s);
DEFINE_FREEP(struct session *, session_free)

/* The recording of SESSION_ENCODE with the text encoder's last layers left out (0: as it is); the
 * last one with layers left out is kept. */
int session_encoder(struct session *s, const struct model *m, struct weights *w, struct gpu *gpu,
                    uint32_t clip_skip, struct recording **ret_recording, struct fault *f);

/* Reads back what runs rely on and never write: the zeros at the arena's begin. -EBADMSG + fault
 * when they are gone, -EIO. */
int session_check(const struct session *s, struct gpu *gpu, struct fault *f);
