/* build — a thin constructor per op: derives the Hugging Face tensor names from the scope, declares
 * the weights with their shapes and layouts, infers the result's shape, appends a node.
 *
 * Constructors return the result and never fail loudly: the first error stays in g->fault, every
 * later call returns 0 and does nothing, and the caller asks graph_fault() once. So model code
 * reads like the reference:
 *     size_t mark = scope_push(g, "resnets.%u", i);
 *     tensor h = build_conv2d(g, x, "conv1", &(struct conv2d_params){.out = 320, .taps = 3});
 *     scope_pop(g, mark);
 * Operands of GEMMs and attention are f16 NHWC as in op.h; the stream between blocks (results of
 * convolutions and of linear layers with a residual) is f32 up to BUILD_WIDE_ROWS rows, which
 * halves the error of a whole U-Net, and f16 beyond, where memory counts. A tensor argument of 0
 * means "none". */
#pragma once

#include "vk/graph/graph.h"

/* Pixels of all batch entries up to which the stream is f32: 1024x1024 pictures in a guided U-Net,
 * 128x128 pixels' worth and the level above in a VAE. */
#define BUILD_WIDE_ROWS 32768u

/* Appends "name." to the scope; returns what scope_pop() needs. */
size_t scope_push(struct graph *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
void scope_pop(struct graph *g, size_t mark);

/* Labels a tensor with the scope (without its last dot) or with `label`, for goldens and dumps. */
void build_label(struct graph *g, tensor t, const char *label);
/* The labelled tensor, 0 when there is none. */
tensor graph_find(const struct graph *g, const char *label);
/* 0, or the first error of the constructors. */
int graph_fault(const struct graph *g, struct fault *f);
const struct tensor_info *graph_tensor(const struct graph *g, tensor t);

/* A pinned tensor, and a transient that is written from outside before each run: p->offset is the
 * planner's then. */
tensor build_pinned(struct graph *g, const struct pinned *p);
tensor build_given(struct graph *g, const struct pinned *p);

/* Pixel rows first to first + rows - 1 of a transient of n = 1 (or of a view of one): a view. What
 * is written to a view must begin at a multiple of GPU_OFFSET_ALIGNMENT bytes. */
tensor build_rows(struct graph *g, tensor x, uint32_t first, uint32_t rows);
/* A transient of n = 1 that several nodes write, row by row. */
tensor build_sheet(struct graph *g, enum element element, uint32_t h, uint32_t w, uint32_t c);
/* What the stream between blocks is stored as, for all pixels of all batch entries. */
enum element build_stream_element(uint32_t n, uint32_t h, uint32_t w);

/* y = act(x W + b), a linear layer. `name` gives name.weight and, with bias, name.bias. */
struct linear_params {
    uint32_t out;
    bool bias, geglu,
        f32_out; /* geglu: `out` counts values and gates, the result has out / 2 channels */
    enum activation activation;
    tensor residual;
    uint32_t head_dim;    /* > 0: columns are heads of this width, each padded to 8 */
    const char *old_name; /* another accepted name */
    tensor into;          /* written instead of a new transient, or 0; its element counts */
};
tensor build_linear(struct graph *g, tensor x, const char *name, const struct linear_params *p);

/* Several linear layers of one input, side by side in one GEMM: result channels are the parts'
 * padded channels in order. `into` (may be 0) is a tensor to write. */
struct linear_part {
    const char *name, *old_name;
    uint32_t out;
};
struct fused_params {
    const char *key; /* identity of the fused weight within the scope */
    const struct linear_part *parts;
    uint32_t count;
    bool bias, f32_out;
    uint32_t head_dim;
    tensor into;
    uint32_t only; /* > 0: just part only - 1 is computed; parts are multiples of 64 wide */
};
tensor build_fused_linear(struct graph *g, tensor x, const struct fused_params *p);

/* y = conv(x ++ x1, w) + b, as implicit GEMM. Source: diffusers Conv2d, Downsample2D, Upsample2D.
 */
struct conv2d_params {
    uint32_t out;
    uint32_t taps;    /* 1 or 3 */
    uint32_t stride;  /* 0 means 1 */
    uint32_t pad;     /* top and left */
    uint32_t pad_end; /* bottom and right */
    bool upsample;    /* nearest, to upsampled_height x upsampled_width, before the convolution */
    uint32_t upsampled_height, upsampled_width;
    tensor concat;   /* second source: its channels follow x's */
    tensor residual; /* added to the result */
    tensor row_add;  /* f32 row added to every pixel, from element row_add_offset */
    uint32_t row_add_offset;
    bool f32_out, no_bias;
    const char *old_name;
    enum activation activation, last_activation; /* before and after the residual is added */
    tensor into; /* written instead of a new transient, or 0; its element counts */
    /* A band: only rows first_row … first_row + rows - 1 of the result are made; x holds the rows
     * of a picture of picture_height rows from x_row on, at least those conv2d_reads() tells.
     * rows 0: all of it, and x is the picture. n is 1. */
    uint32_t first_row, rows, x_row, picture_height;
};
/* Which rows of a picture of `height` rows the rows first … end - 1 of the result read. */
void conv2d_reads(const struct conv2d_params *p, uint32_t height, uint32_t first, uint32_t end,
                  uint32_t *ret_first, uint32_t *ret_end);
tensor build_conv2d(struct graph *g, tensor x, const char *name, const struct conv2d_params *p);

/* GroupNorm over x ++ concat, then SiLU when asked: two nodes. */
struct groupnorm_params {
    uint32_t groups;
    float eps;
    bool silu;
    tensor concat;
};
tensor build_groupnorm(struct graph *g, tensor x, const char *name,
                       const struct groupnorm_params *p);

/* The same in pieces, for a picture (n = 1) in bands. Statistics f32 [1, groups, 1, 2] of a whole
 * x: */
tensor build_groupnorm_stats(struct graph *g, tensor x, const char *name,
                             const struct groupnorm_params *p);
/* … or of bands: room for `parts` of them, each filled from its band of x, then the whole's. All
 * bands but the last have `pixels` pixels of the hw. */
tensor build_groupnorm_parts(struct graph *g, const struct groupnorm_params *p, uint32_t parts);
void build_groupnorm_part(struct graph *g, tensor x, const char *name,
                          const struct groupnorm_params *p, tensor parts, uint32_t part);
tensor build_groupnorm_merge(struct graph *g, tensor parts, const char *name,
                             const struct groupnorm_params *p, uint32_t hw, uint32_t pixels);
/* Then the normalisation of x, the picture or a band of it. */
tensor build_groupnorm_apply(struct graph *g, tensor x, tensor stats, const char *name,
                             const struct groupnorm_params *p);

struct layernorm_params {
    float eps;
    bool f32_out;
    tensor into; /* pinned result, or 0 */
};
tensor build_layernorm(struct graph *g, tensor x, const char *name,
                       const struct layernorm_params *p);

/* softmax(q k^T / sqrt(head_dim)) v. Each operand is a run of padded head channels within a tensor.
 */
struct attention_operand {
    tensor t;
    uint32_t channel; /* first padded channel */
};
struct attention_params {
    struct attention_operand q, k, v;
    uint32_t heads, head_dim;
    bool causal;
    tensor into; /* written instead of a new transient, or 0 */
};
tensor build_attention(struct graph *g, const struct attention_params *p);

/* Token and position embeddings: `tokens` and `positions` name tables [vocab, c] and [count, c].
 * `words` (0: none) is a pinned table f16 [any, c] for ids from first_word on. */
struct embed_params {
    const char *tokens, *positions;
    uint32_t vocab, position_count, c;
    tensor words;
    uint32_t first_word;
};
tensor build_embed(struct graph *g, tensor ids, const struct embed_params *p);

/* A vision transformer's tokens: the class token, then the patches of a picture, each plus its
 * position. `patches` f32 [1, tokens, 1, 3 p p]: row 0 zero, then a patch a row, the elements in
 * the order of the convolution's kernel (channel, y, x). `first` [1, tokens, 1, 1]: 1 in row 0,
 * else 0, so that one GEMM adds the class embedding there. Result f32 [1, tokens, 1, c].
 * Tensors: patch_embedding.weight [c, 3, p, p], class_embedding [c], position_embedding.weight
 * [tokens, c]. */
struct patch_embed_params {
    uint32_t c, patch; /* p */
};
tensor build_patch_embed(struct graph *g, tensor patches, tensor first,
                         const struct patch_embed_params *p);

tensor build_select_row(struct graph *g, tensor table, tensor step);

/* The first c f32 planes of x (stored channel-major) to f16 rows for `batch` entries, scaled by the
 * step row's input scale, or by `scale` when rows is 0; then `extra` planes of x from plane
 * `extra_at` on as they are (an inpainting U-Net's). y: f16 [batch, h, w, c + extra]. */
struct latent_in_params {
    uint32_t batch;
    tensor rows, step;
    float scale;
    uint32_t extra, extra_at;
};
tensor build_latent_in(struct graph *g, tensor x, const struct latent_in_params *p);

/* One scheduler call on `state`, in place: f32 [groups, h, w, c], the groups of
 * shaders/abi/step.h. */
struct sampler_step_params {
    tensor rows, step, state;
    bool is_masked; /* masked inpainting: STATE_MASKED groups */
};
void build_sampler_step(struct graph *g, tensor model_output, const struct sampler_step_params *p);
void build_advance(struct graph *g, tensor step);
