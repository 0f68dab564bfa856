#include "vk/graph/build.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- errors, labels --------------------------------------------------------------------------- */

static tensor fail(struct graph *g, int err, const char *what)
{
    if (!g->fault.err)
        (void)fault_set(&g->fault, err, "%s%s", g->scope, what);
    return 0;
}

void build_label(struct graph *g, tensor t, const char *label)
{
    if (g->fault.err)
        return;
    char *copy = strdup(label ? label : g->scope);
    if (!copy) {
        (void)fail(g, -ENOMEM, "out of memory");
        return;
    }
    size_t n = strlen(copy);
    if (!label && n > 0)
        copy[n - 1] = '\0'; /* the scope's last dot */
    struct tensor_info *info = &g->tensors.items[t];
    free(info->label);
    info->label = copy;
    if (g->keep_labelled && info->kind == TENSOR_TRANSIENT)
        info->keep = true;
}

/* --- tensors and nodes ------------------------------------------------------------------------ */

static tensor add_tensor(struct graph *g, const struct tensor_info *info)
{
    if (g->fault.err)
        return 0;
    struct tensor_info *t = array_push(&g->tensors);
    if (!t)
        return fail(g, -ENOMEM, "out of memory");
    *t = *info;
    t->size = tensor_bytes(t);
    return (tensor)(g->tensors.count - 1);
}

tensor build_pinned(struct graph *g, const struct pinned *p)
{
    return add_tensor(g, &(struct tensor_info){.kind = TENSOR_PINNED,
                                               .element = p->element,
                                               .n = p->n,
                                               .h = p->h,
                                               .w = p->w,
                                               .layout = p->layout,
                                               .offset = p->offset});
}

tensor build_given(struct graph *g, const struct pinned *p)
{
    return add_tensor(g, &(struct tensor_info){.kind = TENSOR_TRANSIENT,
                                               .element = p->element,
                                               .n = p->n,
                                               .h = p->h,
                                               .w = p->w,
                                               .layout = p->layout,
                                               .given = true});
}

static tensor add_transient(struct graph *g, enum element element, uint32_t n, uint32_t h,
                            uint32_t w, struct layout layout)
{
    return add_tensor(g, &(struct tensor_info){.kind = TENSOR_TRANSIENT,
                                               .element = element,
                                               .n = n,
                                               .h = h,
                                               .w = w,
                                               .layout = layout});
}

tensor build_sheet(struct graph *g, enum element element, uint32_t h, uint32_t w, uint32_t c)
{
    return add_transient(g, element, 1, h, w, layout_plain(c));
}

tensor build_rows(struct graph *g, tensor x, uint32_t first, uint32_t rows)
{
    const struct tensor_info in = *graph_tensor(g, x);

    if (g->fault.err)
        return 0;
    if (in.n != 1 || rows == 0 || rows > in.h || first > in.h - rows)
        return fail(g, -EINVAL, "rows that the picture does not have");
    struct tensor_info view = {.kind = TENSOR_VIEW,
                               .element = in.element,
                               .n = 1,
                               .h = rows,
                               .w = in.w,
                               .layout = in.layout,
                               .whole = in.kind == TENSOR_VIEW ? in.whole : x,
                               .first_row = in.kind == TENSOR_VIEW ? in.first_row + first : first};
    return add_tensor(g, &view);
}

/* Appends a checked node named scope + name. The slots are filled by the caller. */
static struct node *add_node(struct graph *g, enum op_kind op, const char *name,
                             const union op_args *args)
{
    char full[256];

    if (g->fault.err)
        return NULL;
    (void)snprintf(full, sizeof full, "%s%s", g->scope, name);
    if (ops[op].check && ops[op].check(args, &g->fault) < 0) {
        (void)fault_prefix(&g->fault, -EINVAL, "%s", full);
        return NULL;
    }
    struct node *node = array_push(&g->nodes);
    char *copy = strdup(full);
    if (!node || !copy) {
        free(copy);
        if (node)
            g->nodes.count--;
        (void)fail(g, -ENOMEM, "out of memory");
        return NULL;
    }
    node->op = op;
    node->args = *args;
    node->name = copy;
    return node;
}

/* --- weights ---------------------------------------------------------------------------------- */

struct weight_names {
    char name[256], old_name[256], key[256];
};

/* scope + name + suffix for name, old name and key. */
static void spell(const struct graph *g, const char *name, const char *old_name, const char *key,
                  const char *suffix, struct weight_names *ret)
{
    (void)snprintf(ret->name, sizeof ret->name, "%s%s%s", g->scope, name, suffix);
    (void)snprintf(ret->old_name, sizeof ret->old_name, "%s%s%s", g->scope,
                   old_name ? old_name : name, suffix);
    (void)snprintf(ret->key, sizeof ret->key, "%s%s%s", g->scope, key ? key : name, suffix);
}

/* Declares a weight (part) of this scope and returns its tensor. `want` lacks component and names.
 */
static tensor add_weight(struct graph *g, struct weight_want *want, const char *name,
                         const char *old_name, const char *key, const char *suffix)
{
    struct weight_names names;
    uint32_t id = 0;

    if (g->fault.err)
        return 0;
    spell(g, name, old_name, key, suffix, &names);
    want->component = g->component;
    want->name = names.name;
    want->old_name = old_name ? names.old_name : NULL;
    want->key = names.key;
    if (weights_want(g->weights, want, &id, &g->fault) < 0)
        return 0;
    return add_tensor(
        g, &(struct tensor_info){.kind = TENSOR_WEIGHT,
                                 .element = want->pack == PACK_VECTOR ? ELEMENT_F32 : ELEMENT_F16,
                                 .n = 1,
                                 .h = want->n,
                                 .w = 1,
                                 .layout = layout_plain(want->k),
                                 .weight = id});
}

static tensor add_vector(struct graph *g, const char *name, const char *suffix, uint32_t n)
{
    struct weight_want want = {.pack = PACK_VECTOR, .n = n, .k = 1, .n_layout = layout_plain(n)};

    return add_weight(g, &want, name, NULL, NULL, suffix);
}

/* What the stream is stored as: see build.h. */
enum element build_stream_element(uint32_t n, uint32_t h, uint32_t w)
{
    return n * h * w <= BUILD_WIDE_ROWS ? ELEMENT_F32 : ELEMENT_F16;
}

static bool is_f32(const struct graph *g, tensor t)
{
    return t && graph_tensor(g, t)->element == ELEMENT_F32;
}

/* --- gemm: linear, fused linear, convolution -------------------------------------------------- */

/* The weight of one GEMM and what its node needs beside the input. */
struct gemm_node {
    struct gemm_args args;
    tensor x, x1, weight, bias, row_add, residual, out;
};

static tensor add_gemm(struct graph *g, const char *name, const struct gemm_node *n)
{
    struct node *node = add_node(g, OP_gemm, name, &(union op_args){.gemm = n->args});

    if (!node)
        return 0;
    node->slot[0] = n->x;
    node->slot[1] = n->x1;
    node->slot[2] = n->weight;
    node->slot[3] = n->residual;
    node->slot[4] = n->bias;
    node->slot[5] = n->row_add;
    node->slot[OP_OUT] = n->out;
    return n->out;
}

/* Arguments of a one-tap GEMM over the rows of x. */
static struct gemm_args linear_args(const struct tensor_info *x, uint32_t n)
{
    return (struct gemm_args){.batch = x->n,
                              .height = x->h,
                              .width = x->w,
                              .in_height = x->h,
                              .in_width = x->w,
                              .k0 = layout_padded(x->layout),
                              .n = n,
                              .taps_h = 1,
                              .taps_w = 1,
                              .stride = 1,
                              .scale = 1};
}

static struct layout heads_layout(uint32_t count, uint32_t head_dim)
{
    return (struct layout){.count = count, .run = head_dim};
}

tensor build_linear(struct graph *g, tensor x, const char *name, const struct linear_params *p)
{
    const struct tensor_info in = *graph_tensor(g, x);
    struct layout columns = heads_layout(p->out, p->head_dim);
    struct layout result = p->geglu ? layout_plain(p->out / 2) : columns;
    struct weight_want want = {.pack = PACK_GEMM,
                               .n = p->out,
                               .k = in.layout.count,
                               .n_layout = columns,
                               .k_layout = in.layout,
                               .geglu = p->geglu};
    struct weight_want bias = {
        .pack = PACK_VECTOR, .n = p->out, .k = 1, .n_layout = columns, .geglu = p->geglu};
    struct gemm_node n = {.x = x, .residual = p->residual};
    enum element element = p->residual ? build_stream_element(in.n, in.h, in.w) : ELEMENT_F16;

    if (p->into)
        element = graph_tensor(g, p->into)->element;

    n.args = linear_args(&in, p->geglu ? 2 * layout_padded(result) : layout_padded(columns));
    n.args.has_bias = p->bias;
    n.args.has_residual = p->residual != 0;
    n.args.geglu = p->geglu;
    n.args.x_f32 = in.element == ELEMENT_F32;
    n.args.residual_f32 = is_f32(g, p->residual);
    n.args.f32_out = element == ELEMENT_F32;
    n.args.activation = p->activation;
    n.weight = add_weight(g, &want, name, p->old_name, NULL, ".weight");
    n.bias = p->bias ? add_weight(g, &bias, name, p->old_name, NULL, ".bias") : 0;
    n.out = p->into ? p->into : add_transient(g, element, in.n, in.h, in.w, result);
    return add_gemm(g, name, &n);
}

/* Declares every part's weight and bias; the tensors of the last part stand for the whole. */
static void add_fused_weights(struct graph *g, const struct tensor_info *in,
                              const struct fused_params *p, uint32_t total, struct gemm_node *n)
{
    uint32_t offset = 0;

    for (uint32_t i = 0; i < p->count; i++) {
        const struct linear_part *part = &p->parts[i];
        struct layout columns = heads_layout(part->out, p->head_dim);
        struct weight_want want = {.pack = PACK_GEMM,
                                   .n = part->out,
                                   .k = in->layout.count,
                                   .n_layout = columns,
                                   .k_layout = in->layout,
                                   .n_offset = offset,
                                   .n_total = total};
        struct weight_want bias = {.pack = PACK_VECTOR,
                                   .n = part->out,
                                   .k = 1,
                                   .n_layout = columns,
                                   .n_offset = offset,
                                   .n_total = total};
        n->weight = add_weight(g, &want, part->name, part->old_name, p->key, ".weight");
        if (p->bias)
            n->bias = add_weight(g, &bias, part->name, part->old_name, p->key, ".bias");
        offset += layout_padded(columns);
    }
}

/* Narrows the node of all parts to one of them: a run of blocks of columns. */
static void pick_part(struct graph *g, const struct fused_params *p, struct gemm_node *n)
{
    uint32_t offset = 0, columns = layout_padded(heads_layout(p->parts[0].out, p->head_dim));
    uint64_t depth = n->args.k0;

    for (uint32_t i = 0; i + 1 < p->only; i++) {
        offset += columns;
        columns = layout_padded(heads_layout(p->parts[i + 1].out, p->head_dim));
    }
    if (g->fault.err)
        return;
    if (offset % 64 || columns % 64) {
        (void)fail(g, -EINVAL, "parts that are no whole blocks of columns");
        return;
    }
    n->args.n = columns;
    g->tensors.items[n->weight].part_offset = offset * depth * 2;
    g->tensors.items[n->weight].part_size = columns * depth * 2;
    if (!n->bias)
        return;
    g->tensors.items[n->bias].part_offset = offset * 4ull;
    g->tensors.items[n->bias].part_size = columns * 4ull;
}

tensor build_fused_linear(struct graph *g, tensor x, const struct fused_params *p)
{
    const struct tensor_info in = *graph_tensor(g, x);
    struct gemm_node n = {.x = x, .out = p->into};
    uint32_t total = 0;

    for (uint32_t i = 0; i < p->count; i++)
        total += layout_padded(heads_layout(p->parts[i].out, p->head_dim));
    n.args = linear_args(&in, total);
    n.args.has_bias = p->bias;
    n.args.x_f32 = in.element == ELEMENT_F32;
    n.args.f32_out = p->f32_out;
    add_fused_weights(g, &in, p, total, &n);
    if (p->only)
        pick_part(g, p, &n);
    if (!n.out)
        n.out = add_transient(g, p->f32_out ? ELEMENT_F32 : ELEMENT_F16, in.n, in.h, in.w,
                              layout_plain(n.args.n));
    return add_gemm(g, p->key, &n);
}

/* Output side of a convolution along one axis. */
static uint32_t conv_side(uint32_t in, const struct conv2d_params *p)
{
    uint32_t stride = p->stride ? p->stride : 1;

    return (in + p->pad + p->pad_end - p->taps) / stride + 1;
}

void conv2d_reads(const struct conv2d_params *p, uint32_t height, uint32_t first, uint32_t end,
                  uint32_t *ret_first, uint32_t *ret_end)
{
    uint32_t stride = p->stride ? p->stride : 1, shift = p->upsample ? 1 : 0;
    uint32_t seen = p->upsample ? p->upsampled_height : height;
    uint32_t top = first * stride, bottom = (end - 1) * stride + p->taps;

    top = top > p->pad ? top - p->pad : 0;
    bottom = bottom > p->pad ? bottom - p->pad : 1;
    *ret_first = top >> shift;
    *ret_end = (((bottom < seen ? bottom : seen) - 1) >> shift) + 1;
}

/* Turns the arguments for a whole picture into those of the band that p asks for. */
static void conv_narrow(struct gemm_args *a, const struct conv2d_params *p)
{
    uint32_t shift = p->upsample ? 1 : 0, seen_first = p->x_row << shift;

    a->height = p->rows;
    a->pad_top = (int32_t)(seen_first + p->pad) - (int32_t)(p->first_row * a->stride);
    if (p->upsample)
        a->upsampled_height = p->upsampled_height - seen_first < 2 * a->in_height
                                  ? p->upsampled_height - seen_first
                                  : 2 * a->in_height;
}

static struct gemm_args conv_args(const struct tensor_info *in, uint32_t k1,
                                  const struct conv2d_params *p)
{
    struct gemm_args a = {.batch = in->n,
                          .height = conv_side(p->upsample ? p->upsampled_height : in->h, p),
                          .width = conv_side(p->upsample ? p->upsampled_width : in->w, p),
                          .in_height = in->h,
                          .in_width = in->w,
                          .k0 = layout_padded(in->layout),
                          .k1 = k1,
                          .n = pad8(p->out),
                          .taps_h = p->taps,
                          .taps_w = p->taps,
                          .stride = p->stride ? p->stride : 1,
                          .pad_top = (int32_t)p->pad,
                          .pad_left = p->pad,
                          .upsample = p->upsample,
                          .upsampled_height = p->upsampled_height,
                          .upsampled_width = p->upsampled_width,
                          .has_bias = !p->no_bias,
                          .has_row_add = p->row_add != 0,
                          .has_residual = p->residual != 0,
                          .row_add_offset = p->row_add_offset,
                          .activation = p->activation,
                          .last_activation = p->last_activation,
                          .scale = 1};

    if (p->rows)
        conv_narrow(&a, p);
    return a;
}

/* Channels of x ++ concat. Both are plain when there are two. */
static struct layout concat_layout(const struct tensor_info *x, const struct tensor_info *concat)
{
    if (concat->kind == TENSOR_NONE)
        return x->layout;
    return (struct layout){.count = x->layout.count + concat->layout.count,
                           .first = x->layout.count};
}

tensor build_conv2d(struct graph *g, tensor x, const char *name, const struct conv2d_params *p)
{
    const struct tensor_info in = *graph_tensor(g, x), second = *graph_tensor(g, p->concat);
    struct layout rows = concat_layout(&in, &second);
    struct weight_want want = {.pack = PACK_GEMM,
                               .n = p->out,
                               .k = rows.count,
                               .taps_h = p->taps,
                               .taps_w = p->taps,
                               .n_layout = layout_plain(p->out),
                               .k_layout = rows};
    struct weight_want bias = {
        .pack = PACK_VECTOR, .n = p->out, .k = 1, .n_layout = layout_plain(p->out)};
    struct gemm_node n = {.x = x, .x1 = p->concat, .residual = p->residual, .row_add = p->row_add};

    if (g->fault.err)
        return 0;
    if (p->concat && second.element != in.element)
        return fail(g, -EINVAL, "the two sources are of different elements");
    n.args = conv_args(&in, p->concat ? layout_padded(second.layout) : 0, p);
    enum element element = p->into      ? graph_tensor(g, p->into)->element
                           : p->f32_out ? ELEMENT_F32
                                        : build_stream_element(in.n, n.args.height, n.args.width);
    n.args.x_f32 = in.element == ELEMENT_F32;
    n.args.residual_f32 = is_f32(g, p->residual);
    n.args.f32_out = element == ELEMENT_F32;
    n.weight = add_weight(g, &want, name, p->old_name, NULL, ".weight");
    n.bias = p->no_bias ? 0 : add_weight(g, &bias, name, p->old_name, NULL, ".bias");
    n.out = p->into ? p->into
                    : add_transient(g, element, in.n, n.args.height, n.args.width,
                                    layout_plain(p->out));
    return add_gemm(g, name, &n);
}

/* --- norms ------------------------------------------------------------------------------------ */

static int add_groupnorm_stats(struct graph *g, tensor x, const char *name,
                               const struct groupnorm_params *p, bool is_part, tensor stats)
{
    const struct tensor_info *in = graph_tensor(g, x), *second = graph_tensor(g, p->concat);
    struct groupnorm_stats_args args = {.batch = in->n,
                                        .hw = in->h * in->w,
                                        .c0 = in->layout.count,
                                        .c1 = second->layout.count,
                                        .groups = p->groups,
                                        .eps = p->eps,
                                        .x_f32 = in->element == ELEMENT_F32,
                                        .is_part = is_part};
    struct node *node =
        add_node(g, OP_groupnorm_stats, name, &(union op_args){.groupnorm_stats = args});

    if (!node)
        return -EINVAL;
    node->slot[0] = x;
    node->slot[1] = p->concat;
    node->slot[OP_OUT] = stats;
    return 0;
}

static tensor add_stats(struct graph *g, uint32_t batch, uint32_t groups)
{
    return add_transient(g, ELEMENT_F32, batch, groups, 1, layout_plain(2));
}

tensor build_groupnorm_stats(struct graph *g, tensor x, const char *name,
                             const struct groupnorm_params *p)
{
    tensor stats = add_stats(g, graph_tensor(g, x)->n, p->groups);

    return add_groupnorm_stats(g, x, name, p, false, stats) < 0 ? 0 : stats;
}

/* A part is a row of the table: (mean, variance) of every group, and room to where the next may
 * begin. */
#define PART_STEP (GPU_OFFSET_ALIGNMENT / 8)

tensor build_groupnorm_parts(struct graph *g, const struct groupnorm_params *p, uint32_t parts)
{
    uint32_t row = (p->groups + PART_STEP - 1) / PART_STEP * PART_STEP;

    return add_transient(g, ELEMENT_F32, 1, parts, 1, layout_plain(2 * row));
}

void build_groupnorm_part(struct graph *g, tensor x, const char *name,
                          const struct groupnorm_params *p, tensor parts, uint32_t part)
{
    /* an error stays in the graph */
    (void)add_groupnorm_stats(g, x, name, p, true, build_rows(g, parts, part, 1));
}

tensor build_groupnorm_merge(struct graph *g, tensor parts, const char *name,
                             const struct groupnorm_params *p, uint32_t hw, uint32_t pixels)
{
    const struct tensor_info *in = graph_tensor(g, parts);
    struct groupnorm_merge_args args = {.hw = hw,
                                        .pixels = pixels,
                                        .parts = in->h,
                                        .groups = p->groups,
                                        .row = in->layout.count,
                                        .eps = p->eps};
    tensor stats = add_stats(g, 1, p->groups);
    struct node *node =
        add_node(g, OP_groupnorm_merge, name, &(union op_args){.groupnorm_merge = args});

    if (!node)
        return 0;
    node->slot[4] = parts;
    node->slot[OP_OUT] = stats;
    return stats;
}

tensor build_groupnorm_apply(struct graph *g, tensor x, tensor stats, const char *name,
                             const struct groupnorm_params *p)
{
    const struct tensor_info in = *graph_tensor(g, x), second = *graph_tensor(g, p->concat);
    struct layout layout = concat_layout(&in, &second);
    struct groupnorm_apply_args args = {.batch = in.n,
                                        .hw = in.h * in.w,
                                        .c0 = in.layout.count,
                                        .c1 = second.layout.count,
                                        .groups = p->groups,
                                        .silu = p->silu,
                                        .x_f32 = in.element == ELEMENT_F32};
    tensor gamma = add_vector(g, name, ".weight", layout.count);
    tensor beta = add_vector(g, name, ".bias", layout.count);
    tensor out = add_transient(g, ELEMENT_F16, in.n, in.h, in.w, layout);
    struct node *node =
        add_node(g, OP_groupnorm_apply, name, &(union op_args){.groupnorm_apply = args});

    if (!node)
        return 0;
    node->slot[0] = x;
    node->slot[1] = p->concat;
    node->slot[4] = stats;
    node->slot[5] = gamma;
    node->slot[6] = beta;
    node->slot[OP_OUT] = out;
    return out;
}

tensor build_groupnorm(struct graph *g, tensor x, const char *name,
                       const struct groupnorm_params *p)
{
    const struct tensor_info in = *graph_tensor(g, x), second = *graph_tensor(g, p->concat);
    uint32_t channels = in.layout.count + second.layout.count;

    if (g->fault.err)
        return 0;
    if (p->concat && second.element != in.element)
        return fail(g, -EINVAL, "the two sources are of different elements");
    if (p->groups == 0 || channels % p->groups != 0)
        return fail(g, -EINVAL, "group norm: the channels do not divide into the groups");
    tensor stats = build_groupnorm_stats(g, x, name, p);
    return build_groupnorm_apply(g, x, stats, name, p);
}

tensor build_layernorm(struct graph *g, tensor x, const char *name,
                       const struct layernorm_params *p)
{
    const struct tensor_info in = *graph_tensor(g, x);
    enum element element = p->into      ? graph_tensor(g, p->into)->element
                           : p->f32_out ? ELEMENT_F32
                                        : ELEMENT_F16;
    struct layernorm_args args = {.rows = tensor_rows(&in),
                                  .c = in.layout.count,
                                  .eps = p->eps,
                                  .f32_out = element == ELEMENT_F32,
                                  .x_f32 = in.element == ELEMENT_F32};
    tensor gamma = add_vector(g, name, ".weight", in.layout.count);
    tensor beta = add_vector(g, name, ".bias", in.layout.count);
    tensor out = p->into ? p->into : add_transient(g, element, in.n, in.h, in.w, in.layout);
    struct node *node = add_node(g, OP_layernorm, name, &(union op_args){.layernorm = args});

    if (!node)
        return 0;
    node->slot[0] = x;
    node->slot[5] = gamma;
    node->slot[6] = beta;
    node->slot[OP_OUT] = out;
    return out;
}

/* --- attention, embeddings -------------------------------------------------------------------- */

static uint32_t row_vectors(const struct graph *g, tensor t)
{
    return layout_padded(graph_tensor(g, t)->layout) / 8;
}

tensor build_attention(struct graph *g, const struct attention_params *p)
{
    const struct tensor_info q = *graph_tensor(g, p->q.t), k = *graph_tensor(g, p->k.t);
    struct attention_args args = {.batch = q.n,
                                  .heads = p->heads,
                                  .q_tokens = q.h * q.w,
                                  .k_tokens = k.h * k.w,
                                  .head_dim = p->head_dim,
                                  .head_padded = pad8(p->head_dim),
                                  .q_stride = row_vectors(g, p->q.t),
                                  .k_stride = row_vectors(g, p->k.t),
                                  .v_stride = row_vectors(g, p->v.t),
                                  .q_offset = p->q.channel / 8,
                                  .k_offset = p->k.channel / 8,
                                  .v_offset = p->v.channel / 8,
                                  .causal = p->causal,
                                  .scale = 1 / sqrtf((float)p->head_dim)};
    tensor out = p->into ? p->into
                         : add_transient(g, ELEMENT_F16, q.n, q.h, q.w,
                                         heads_layout(p->heads * p->head_dim, p->head_dim));
    struct node *node = add_node(g, OP_attention, "attention", &(union op_args){.attention = args});

    if (!node)
        return 0;
    node->slot[0] = p->q.t;
    node->slot[1] = p->k.t;
    node->slot[2] = p->v.t;
    node->slot[OP_OUT] = out;
    return out;
}

static tensor add_rows_weight(struct graph *g, const char *name, uint32_t n, uint32_t k)
{
    struct weight_want want = {.pack = PACK_ROWS,
                               .n = n,
                               .k = k,
                               .n_layout = layout_plain(n),
                               .k_layout = layout_plain(k)};

    return add_weight(g, &want, name, NULL, NULL, ".weight");
}

tensor build_embed(struct graph *g, tensor ids, const struct embed_params *p)
{
    const struct tensor_info in = *graph_tensor(g, ids);
    struct embed_args args = {.rows = tensor_rows(&in),
                              .c = p->c,
                              .length = in.h,
                              .positions = p->position_count,
                              .has_words = p->words != 0,
                              .first_word = p->first_word};
    tensor tokens = add_rows_weight(g, p->tokens, p->vocab, p->c);
    tensor positions = add_rows_weight(g, p->positions, p->position_count, p->c);
    tensor out = add_transient(g, ELEMENT_F32, in.n, in.h, in.w, layout_plain(p->c));
    struct node *node = add_node(g, OP_embed, "embed", &(union op_args){.embed = args});

    if (!node)
        return 0;
    node->slot[0] = tokens;
    node->slot[1] = positions;
    node->slot[2] = p->words ? p->words : tokens;
    node->slot[4] = ids;
    node->slot[OP_OUT] = out;
    return out;
}

tensor build_patch_embed(struct graph *g, tensor patches, tensor first,
                         const struct patch_embed_params *p)
{
    const struct tensor_info in = *graph_tensor(g, patches), mark = *graph_tensor(g, first);
    struct weight_want kernel = {.pack = PACK_GEMM,
                                 .n = p->c,
                                 .k = in.layout.count,
                                 .k_layout = in.layout,
                                 .file_rank = 4,
                                 .file_dims = {p->c, 3, p->patch, p->patch}};
    struct weight_want token = {.pack = PACK_GEMM,
                                .n = p->c,
                                .k = 1,
                                .k_layout = mark.layout,
                                .file_rank = 1,
                                .file_dims = {p->c}};
    struct gemm_node n = {.x = patches};

    n.args = linear_args(&in, pad8(p->c));
    n.args.has_residual = true;
    n.args.x_f32 = in.element == ELEMENT_F32;
    n.args.f32_out = true;
    n.weight = add_weight(g, &kernel, "patch_embedding", NULL, NULL, ".weight");
    n.residual = add_rows_weight(g, "position_embedding", tensor_rows(&in), p->c);
    n.out = add_transient(g, ELEMENT_F32, in.n, in.h, in.w, layout_plain(p->c));
    tensor patched = add_gemm(g, "patch_embedding", &n);
    n.x = first;
    n.args.k0 = layout_padded(mark.layout);
    n.args.x_f32 = mark.element == ELEMENT_F32;
    n.args.residual_f32 = true;
    n.weight = add_weight(g, &token, "class_embedding", NULL, NULL, "");
    n.residual = patched;
    n.out = add_transient(g, ELEMENT_F32, in.n, in.h, in.w, layout_plain(p->c));
    return add_gemm(g, "class_embedding", &n);
}

/* --- sampling --------------------------------------------------------------------------------- */

tensor build_select_row(struct graph *g, tensor table, tensor step)
{
    const struct tensor_info in = *graph_tensor(g, table);
    struct select_row_args args = {.c = in.layout.count};
    tensor out = add_transient(g, ELEMENT_F16, 1, 1, 1, in.layout);
    struct node *node =
        add_node(g, OP_select_row, "select_row", &(union op_args){.select_row = args});

    if (!node)
        return 0;
    node->slot[0] = table;
    node->slot[4] = step;
    node->slot[OP_OUT] = out;
    return out;
}

tensor build_latent_in(struct graph *g, tensor x, const struct latent_in_params *p)
{
    const struct tensor_info in = *graph_tensor(g, x);
    struct latent_in_args args = {.batch = p->batch,
                                  .hw = in.h * in.w,
                                  .c = in.layout.count,
                                  .by_step = p->rows != 0,
                                  .scale = p->scale,
                                  .extra = p->extra,
                                  .extra_at = p->extra_at};
    tensor out = add_transient(g, ELEMENT_F16, p->batch, in.h, in.w,
                               layout_plain(in.layout.count + p->extra));
    struct node *node = add_node(g, OP_latent_in, "latent_in", &(union op_args){.latent_in = args});

    if (!node)
        return 0;
    node->slot[4] = x;
    node->slot[5] = p->rows;
    node->slot[6] = p->step;
    node->slot[OP_OUT] = out;
    return out;
}

void build_sampler_step(struct graph *g, tensor model_output, const struct sampler_step_params *p)
{
    const struct tensor_info in = *graph_tensor(g, model_output);
    struct sampler_step_args args = {
        .batch = in.n, .hw = in.h * in.w, .c = in.layout.count, .is_masked = p->is_masked};
    struct node *node =
        add_node(g, OP_sampler_step, "sampler_step", &(union op_args){.sampler_step = args});

    if (!node)
        return;
    node->slot[4] = model_output;
    node->slot[5] = p->rows;
    node->slot[6] = p->step;
    node->slot[OP_OUT] = p->state;
}

void build_advance(struct graph *g, tensor step)
{
    struct node *node = add_node(g, OP_advance, "advance", &(union op_args){.advance = {0}});

    if (node)
        node->slot[OP_OUT] = step;
}
