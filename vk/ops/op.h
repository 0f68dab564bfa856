/* op — an operator: pure arguments in, a kernel launch out. No op ever calls Vulkan.
 *
 * A node of the graph is an op, its arguments (sizes and flags) and up to eight tensors in slots.
 * check() says whether the arguments are legal, choose() picks kernel, tile and grid for a device.
 * Both are pure, so tile choice is tested without a GPU; record.c is the only caller that launches.
 *
 * Slots. Slot s is storage-buffer binding s. Slots 0…3 hold the large f16 operands: kernels read
 * them as uvec4 (8 halves) through shaders/lib/operand.glsl, either as storage buffer s or, in the
 * .texel build, as uniform texel buffer (RGBA32UI) at binding 8 + s. The texel view of an
 * activation spans the whole arena, whose first GPU_OFFSET_ALIGNMENT bytes are zero (so texel 0
 * reads as zero: points outside a picture); the view of a weight spans the weight. push[s] (s =
 * 0…3) is the index of the operand's first uvec4 in what is bound: the recorder writes it, choose()
 * leaves it 0. Slots 4…7 are always storage buffers bound to exactly the tensor. The result is in
 * slot 7.
 *
 * All activations are f16 NHWC, rows padded to 8 channels (layout.h), padding zero, unless said
 * otherwise. The stream between blocks may be f32 instead (x_f32, residual_f32): rows of twice as
 * many uvec4, the same padding. M is a count of rows (batch * height * width). Kernels accumulate
 * in f32, round to nearest even. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vk/base/fault.h"
#include "vk/gpu/caps.h"
#include "vk/ops/layout.h"

#define OP_SLOTS          8u
#define OP_TEXEL_SLOTS    4u
#define OP_OUT            7u /* slot of the result */
#define DISPATCH_MAX_SPEC 24u
#define DISPATCH_MAX_PUSH 32u /* 128 bytes: what every Vulkan device has */

enum op_kind {
#define OP(name) OP_##name,
#include "vk/ops/ops.def"
#undef OP
    OP_KIND_COUNT,
};

enum activation {
    ACTIVATION_NONE,
    ACTIVATION_SILU,
    ACTIVATION_GELU,       /* exact, with erf */
    ACTIVATION_QUICK_GELU, /* x * sigmoid(1.702 x) */
    ACTIVATION_RELU,
};

/* gemm — y = act(x * W + bias + row_add) * scale + residual; a linear layer (1 tap) or a
 * convolution as implicit GEMM: M = batch * height * width rows, K = taps * (k0 + k1), N = n
 * columns.
 *   slot 0 x0 f16 [batch, in_height, in_width, k0]   slot 1 x1, second source of a concat: k1
 *   slot 2 W, packed by PACK_GEMM (weights.h)        slot 3 residual f16 [M, n]
 *   slot 4 bias f32 [n]                              slot 5 row_add f32, from row_add_offset on
 *   slot 7 y: f16 [M, n], or f32 [M, n] with f32_out (with geglu: [M, n / 2])
 * Output pixel (oy, ox) and tap (ty, tx) read (oy * stride + ty - pad_top, ox * stride + tx -
 * pad_left); with upsample that is a point of a picture of upsampled_height x upsampled_width,
 * nearest: the input coordinate is half of it. Points outside read as zero. n, k0, k1 are padded
 * sizes (multiples of 8). geglu: columns come as the pack interleaves them; y = value * gelu(gate);
 * no residual. Order of the epilogue: acc + bias + row_add, activation, scale, + residual,
 * last_activation. */
struct gemm_args {
    uint32_t batch, height, width; /* of the output */
    uint32_t in_height, in_width;
    uint32_t k0, k1;
    uint32_t n;
    uint32_t taps_h, taps_w; /* 1x1, 3x3, any small odd size */
    uint32_t stride;
    int32_t pad_top; /* may be negative: x begins above what the first row reads */
    uint32_t pad_left;
    bool upsample;
    uint32_t upsampled_height, upsampled_width; /* with upsample */
    bool has_bias, has_row_add, has_residual, geglu, f32_out;
    bool x_f32;              /* slots 0 and 1 hold f32 */
    bool residual_f32;       /* slot 3 holds f32 */
    uint32_t row_add_offset; /* elements */
    enum activation activation;
    enum activation last_activation; /* after the residual */
    float scale;
};

/* attention — flash: o = softmax(q k^T * scale) v; the scores never leave the kernel.
 *   slot 0 q, slot 1 k, slot 2 v: f16 rows; row (b, t) of q starts at uvec4
 *     (b * q_tokens + t) * q_stride + q_offset, head h is the next h * head_padded / 8; k and v
 *     alike with k_tokens. The three may be one fused tensor.
 *   slot 7 o f16 [batch * q_tokens, heads * head_padded]
 * head_dim may be odd; head_padded = pad8(head_dim), its padding zero in q, k and v. Strides in
 * uvec4. */
struct attention_args {
    uint32_t batch, heads, q_tokens, k_tokens, head_dim, head_padded;
    uint32_t q_stride, k_stride, v_stride;
    uint32_t q_offset, k_offset, v_offset;
    bool causal;
    float scale; /* usually head_dim^-0.5 */
};

/* groupnorm_stats — mean and 1/sqrt(var + eps) per group, over one tensor or a concat of two.
 *   slot 0 x0 f16 [batch, hw, pad8(c0)]   slot 1 x1 f16 [batch, hw, pad8(c1)], none when c1 = 0
 *   slot 7 stats f32 [batch, groups, 2]; with is_part the variance instead of 1/sqrt(var + eps)
 * Groups run over the logical channels c0 + c1 and may straddle the two. Biased variance, to
 * two-pass accuracy (a mean much larger than the deviation must not hurt). */
struct groupnorm_stats_args {
    uint32_t batch, hw, c0, c1, groups; /* c0, c1 logical */
    float eps;
    bool x_f32;   /* slots 0 and 1 hold f32 */
    bool is_part; /* of a picture: groupnorm_merge follows */
};

/* groupnorm_merge — the statistics of a picture from those of its bands.
 *   slot 4 parts f32 [parts][row], each as groupnorm_stats with `is_part` leaves it; a part has
 *   pixels pixels, the last one the rest of hw
 *   slot 7 stats f32 [groups, 2] */
struct groupnorm_merge_args {
    uint32_t hw, pixels, parts, groups;
    uint32_t row; /* f32 from one part to the next */
    float eps;
};

/* groupnorm_apply — y = (x - mean) * rstd * gamma + beta, then SiLU when asked; writes the concat.
 *   slots 0, 1 as above; slot 4 stats; slot 5 gamma, slot 6 beta: f32 [c0 + c1]
 *   slot 7 y f16 [batch, hw, pad8(c0) + pad8(c1)], padding zero */
struct groupnorm_apply_args {
    uint32_t batch, hw, c0, c1, groups;
    bool silu;
    bool x_f32; /* slots 0 and 1 hold f32 */
};

/* layernorm — over the channels of each row, to two-pass accuracy.
 *   slot 0 x f16 [rows, pad8(c)]; slot 5 gamma, slot 6 beta f32 [c]; slot 7 y f16 or, with f32_out,
 *   f32 [rows, pad8(c)], padding zero */
struct layernorm_args {
    uint32_t rows, c;
    float eps;
    bool f32_out;
    bool x_f32; /* slot 0 holds f32 */
};

/* embed — token row + position row.
 *   slot 0 tokens f16 [vocab, pad8(c)] (PACK_ROWS), slot 1 positions f16 [positions, pad8(c)]
 *   (PACK_ROWS); with has_words slot 2 words f16 [any, pad8(c)]: the rows of ids from first_word
 *   on (without it slot 2 is bound to the tokens and not read)
 *   slot 4 ids u32 [rows]; slot 7 y f32 [rows, pad8(c)]
 * position = row % length, at most positions; the host checks ids against the vocabulary. */
struct embed_args {
    uint32_t rows, c, length, positions;
    uint32_t first_word; /* an id */
    bool has_words;
};

/* select_row — y = table[step]: slot 0 table f16 [any, pad8(c)], slot 4 step u32 [1],
 * slot 7 y f16 [1, pad8(c)]. */
struct select_row_args {
    uint32_t c;
};

/* latent_in — f32 planes to the padded f16 rows a convolution reads, once per batch entry.
 *   slot 4 x f32 planes of [hw]: at least c, and with extra at least extra_at + extra; with by_step
 *   slot 5 step rows (shaders/abi/step.h), slot 6 step u32 [1]
 *   slot 7 y f16 [batch, hw, pad8(c + extra)]: x * (by_step ? rows[step].input_scale : scale), then
 *   the planes extra_at, extra_at + 1 … as they are (an inpainting U-Net's mask and picture) */
struct latent_in_args {
    uint32_t batch, hw, c;
    bool by_step;
    float scale;
    uint32_t extra, extra_at; /* extra_at >= c */
};

/* sampler_step — guidance and one scheduler call, element by element (vk/sample/sched.h has the
 * formula).
 *   slot 4 model output f32 [batch, hw, pad8(c)]; batch 2: unconditional first, e = u + g * (c - u)
 *   slot 5 step rows, slot 6 step u32 [1]
 *   slot 7 state f32 [groups][c, hw], the groups of shaders/abi/step.h: STATE_PLAIN of them, or
 *   STATE_MASKED with is_masked; read and written in place */
struct sampler_step_args {
    uint32_t batch, hw, c;
    bool is_masked; /* masked inpainting */
};

/* advance — step = step + 1: slot 7 step u32 [1], read and written. */
struct advance_args {
    uint32_t unused;
};

union op_args {
#define OP(name) struct name##_args name;
#include "vk/ops/ops.def"
#undef OP
};

/* A kernel launch, decided. */
struct dispatch {
    const char *kernel;  /* "gemm"; the recorder appends ".texel" or ".ssbo" */
    bool texel;          /* slots 0…3 through texel buffers */
    uint32_t spec_count; /* specialization constants 0…spec_count-1 */
    uint32_t spec[DISPATCH_MAX_SPEC];
    uint32_t push_count; /* at least OP_TEXEL_SLOTS */
    uint32_t push[DISPATCH_MAX_PUSH];
    uint32_t groups[3];
};

/* What a launch costs, from its arguments alone; bytes count every operand once. */
struct op_cost {
    uint64_t macs;        /* multiply-adds of the operation as defined */
    uint64_t macs_issued; /* with padding and tile edges of the default tile */
    uint64_t bytes_read, bytes_written;
};

struct op {
    const char *name;
    uint32_t reads, writes; /* bit s: slot s (where a tensor is there); a slot may be in both */
    /* -EINVAL + fault naming the argument. */
    int (*check)(const union op_args *args, struct fault *f);
    /* Fills *ret_dispatch for checked arguments. `texel_ok`: every operand in slots 0…3 fits a
     * texel view. -EFBIG + fault when the device cannot launch it (grid, binding). */
    int (*choose)(const struct caps *caps, const union op_args *args, bool texel_ok,
                  struct dispatch *ret_dispatch, struct fault *f);
    struct op_cost (*cost)(const union op_args *args);
};

extern const struct op ops[OP_KIND_COUNT]; /* ops.c */
