#include "vk/graph/split.h"

#include <errno.h>
#include <string.h>

/* The graph that is being rewritten: old nodes are taken from `nodes`, new ones go to g->nodes. */
struct splitter {
    struct graph *g;
    const struct split_limits *limits;
    tensor *entry_stats; /* by tensor: the first of its replacements, one a batch entry; or 0 */
    struct fault *f;
};

/* A piece of a node: rows first … first + rows - 1 of batch entry `entry`. */
struct piece {
    uint32_t entry, first, rows;
};

static int no_memory(struct splitter *s)
{
    return fault_set(s->f, -ENOMEM, "out of memory");
}

/* --- views and copies ------------------------------------------------------------------------- */

static int add_view(struct splitter *s, tensor of, uint32_t entry, uint32_t first, uint32_t rows,
                    tensor *ret)
{
    const struct tensor_info *t = &s->g->tensors.items[of];
    struct tensor_info view = {.kind = TENSOR_VIEW,
                               .element = t->element,
                               .n = 1,
                               .h = rows,
                               .w = t->w,
                               .layout = t->layout,
                               .whole = t->kind == TENSOR_VIEW ? t->whole : of,
                               .first_row = t->first_row + entry * t->h + first};

    if (!of) {
        *ret = 0;
        return 0;
    }
    view.size = tensor_bytes(&view);
    struct tensor_info *place = array_push(&s->g->tensors);
    if (!place)
        return no_memory(s);
    *place = view;
    *ret = (tensor)(s->g->tensors.count - 1);
    return 0;
}

static int view_entry(struct splitter *s, tensor of, uint32_t entry, tensor *ret)
{
    return add_view(s, of, entry, 0, s->g->tensors.items[of].h, ret);
}

/* A node as `model`, to be changed; NULL without memory. */
static struct node *add_copy(struct splitter *s, const struct node *model)
{
    char *name = strdup(model->name);
    struct node *node = name ? array_push(&s->g->nodes) : NULL;

    if (!node) {
        free(name);
        (void)no_memory(s);
        return NULL;
    }
    *node = *model;
    node->name = name;
    return node;
}

/* --- how large, how many ---------------------------------------------------------------------- */

static uint64_t operand_bytes(const struct graph *g, const struct node *node)
{
    static const uint32_t large[] = {0, 1, 3, OP_OUT}; /* weights and vectors are not cut */
    uint64_t most = 0;

    for (size_t i = 0; i < ARRAY_SIZE(large); i++) {
        const struct tensor_info *t = &g->tensors.items[node->slot[large[i]]];
        if (t->kind != TENSOR_NONE && t->kind != TENSOR_WEIGHT && tensor_bytes(t) > most)
            most = tensor_bytes(t);
    }
    if (node->op == OP_attention && g->tensors.items[node->slot[2]].size > most)
        most = g->tensors.items[node->slot[2]].size;
    return most;
}

static bool is_too_large(const struct splitter *s, uint64_t bytes, uint64_t macs)
{
    return (s->limits->bytes && bytes > s->limits->bytes) ||
           (s->limits->macs && macs > s->limits->macs);
}

/* Rows of a result of h rows whose bytes and work are what they are: h, or fewer, beginning where
 * results may. */
static uint32_t rows_of_piece(const struct splitter *s, const struct tensor_info *out,
                              uint64_t bytes, uint64_t macs)
{
    uint64_t row = tensor_bytes(out) / ((uint64_t)out->n * out->h), rows = out->h, step = 1;

    if (!is_too_large(s, bytes, macs))
        return out->h;
    while (step * row % GPU_OFFSET_ALIGNMENT)
        step *= 2;
    if (s->limits->bytes && bytes > s->limits->bytes)
        rows = s->limits->bytes / 2 / (bytes / out->h + 1); /* half: neighbours' rows come on top */
    if (s->limits->macs && macs > s->limits->macs && s->limits->macs / (macs / out->h + 1) < rows)
        rows = s->limits->macs / (macs / out->h + 1);
    rows = rows < step ? step : rows / step * step;
    return rows < out->h ? (uint32_t)rows : out->h;
}

/* --- gemm ------------------------------------------------------------------------------------- */

/* Do the tensors have the shape the arguments say? (Tokens of several chunks may not.) */
static bool is_regular(const struct graph *g, const struct node *node)
{
    const struct gemm_args *a = &node->args.gemm;
    const struct tensor_info *x = &g->tensors.items[node->slot[0]];
    const struct tensor_info *y = &g->tensors.items[node->slot[OP_OUT]];
    const struct tensor_info *r = &g->tensors.items[node->slot[3]];

    return x->n == a->batch && x->h == a->in_height && x->w == a->in_width && y->n == a->batch &&
           y->h == a->height && y->w == a->width &&
           (r->kind == TENSOR_NONE || (r->n == y->n && r->h == y->h && r->w == y->w));
}

static int add_gemm_piece(struct splitter *s, const struct node *node, const struct piece *p)
{
    struct gemm_args a = node->args.gemm;
    struct node new = *node;
    uint32_t shift = a.upsample ? 1 : 0, seen = a.upsample ? a.upsampled_height : a.in_height;
    int64_t top = (int64_t)p->first * a.stride - a.pad_top;
    int64_t bottom = (int64_t)(p->first + p->rows - 1) * a.stride - a.pad_top + a.taps_h;
    uint32_t first = (uint32_t)(top > 0 ? top : 0) >> shift;
    uint32_t end = (uint32_t)(((bottom < seen ? bottom : seen) - 1) >> shift) + 1;

    int r = add_view(s, node->slot[0], p->entry, first, end - first, &new.slot[0]);
    if (r >= 0)
        r = add_view(s, node->slot[1], p->entry, first, end - first, &new.slot[1]);
    if (r >= 0)
        r = add_view(s, node->slot[3], p->entry, p->first, p->rows, &new.slot[3]);
    if (r >= 0)
        r = add_view(s, node->slot[OP_OUT], p->entry, p->first, p->rows, &new.slot[OP_OUT]);
    if (r < 0)
        return r;
    a.batch = 1;
    a.height = p->rows;
    a.in_height = end - first;
    a.pad_top = (int32_t)((int64_t)(first << shift) - top);
    if (a.upsample && seen - (first << 1) < 2 * a.in_height)
        a.upsampled_height = seen - (first << 1);
    else if (a.upsample)
        a.upsampled_height = 2 * a.in_height;
    new.args.gemm = a;
    return add_copy(s, &new) ? 0 : -ENOMEM;
}

/* --- attention -------------------------------------------------------------------------------- */

static int add_attention_piece(struct splitter *s, const struct node *node, const struct piece *p)
{
    struct node new = *node;

    int r = add_view(s, node->slot[0], p->entry, p->first, p->rows, &new.slot[0]);
    if (r >= 0)
        r = view_entry(s, node->slot[1], p->entry, &new.slot[1]);
    if (r >= 0)
        r = view_entry(s, node->slot[2], p->entry, &new.slot[2]);
    if (r >= 0)
        r = add_view(s, node->slot[OP_OUT], p->entry, p->first, p->rows, &new.slot[OP_OUT]);
    if (r < 0)
        return r;
    new.args.attention.batch = 1;
    new.args.attention.q_tokens = p->rows * s->g->tensors.items[node->slot[OP_OUT]].w;
    return add_copy(s, &new) ? 0 : -ENOMEM;
}

/* --- norms ------------------------------------------------------------------------------------ */

static int add_layernorm_piece(struct splitter *s, const struct node *node, const struct piece *p)
{
    struct node new = *node;

    int r = add_view(s, node->slot[0], p->entry, p->first, p->rows, &new.slot[0]);
    if (r >= 0)
        r = add_view(s, node->slot[OP_OUT], p->entry, p->first, p->rows, &new.slot[OP_OUT]);
    if (r < 0)
        return r;
    new.args.layernorm.rows = p->rows * s->g->tensors.items[node->slot[OP_OUT]].w;
    return add_copy(s, &new) ? 0 : -ENOMEM;
}

static int add_apply_piece(struct splitter *s, const struct node *node, const struct piece *p)
{
    struct node new = *node;

    int r = add_view(s, node->slot[0], p->entry, p->first, p->rows, &new.slot[0]);
    if (r >= 0)
        r = add_view(s, node->slot[1], p->entry, p->first, p->rows, &new.slot[1]);
    if (r >= 0)
        r = add_view(s, node->slot[OP_OUT], p->entry, p->first, p->rows, &new.slot[OP_OUT]);
    if (r < 0)
        return r;
    new.slot[4] = s->entry_stats[node->slot[4]] + p->entry;
    new.args.groupnorm_apply.batch = 1;
    new.args.groupnorm_apply.hw = p->rows * s->g->tensors.items[node->slot[OP_OUT]].w;
    return add_copy(s, &new) ? 0 : -ENOMEM;
}

/* Statistics of each batch entry by itself, in a tensor of its own. */
static int split_stats(struct splitter *s, const struct node *node)
{
    struct tensor_info one = s->g->tensors.items[node->slot[OP_OUT]];
    uint32_t entries = one.n;

    one.n = 1;
    one.size = tensor_bytes(&one);
    one.label = NULL;
    s->entry_stats[node->slot[OP_OUT]] = (tensor)s->g->tensors.count;
    for (uint32_t b = 0; b < entries; b++) {
        struct tensor_info *place = array_push(&s->g->tensors);
        if (!place)
            return no_memory(s);
        *place = one;
    }
    for (uint32_t b = 0; b < entries; b++) {
        struct node new = *node;
        int r = view_entry(s, node->slot[0], b, &new.slot[0]);
        if (r >= 0)
            r = view_entry(s, node->slot[1], b, &new.slot[1]);
        if (r < 0)
            return r;
        new.slot[OP_OUT] = s->entry_stats[node->slot[OP_OUT]] + b;
        new.args.groupnorm_stats.batch = 1;
        if (!add_copy(s, &new))
            return -ENOMEM;
    }
    return 0;
}

/* --- the pass --------------------------------------------------------------------------------- */

/* What a node's kind needs to be split: NULL: it is not. */
static const struct {
    int (*add)(struct splitter *, const struct node *, const struct piece *);
} kinds[OP_KIND_COUNT] = {
    [OP_gemm] = {add_gemm_piece},
    [OP_attention] = {add_attention_piece},
    [OP_layernorm] = {add_layernorm_piece},
    [OP_groupnorm_apply] = {add_apply_piece},
};

static bool can_split(const struct splitter *s, const struct node *node)
{
    const struct graph *g = s->g;
    const struct tensor_info *out = &g->tensors.items[node->slot[OP_OUT]];

    if (tensor_bytes(out) / out->n % GPU_OFFSET_ALIGNMENT)
        return false; /* a batch entry that may not be bound by itself */
    switch (node->op) {
    case OP_gemm:
        return is_regular(g, node);
    case OP_attention:
        return !node->args.attention.causal && out->n == node->args.attention.batch &&
               g->tensors.items[node->slot[1]].n == out->n;
    case OP_layernorm:
        return true;
    case OP_groupnorm_apply:
        return s->entry_stats[node->slot[4]] != 0;
    default:
        return false;
    }
}

static int split_node(struct splitter *s, const struct node *node)
{
    const struct tensor_info out = s->g->tensors.items[node->slot[OP_OUT]];
    uint64_t bytes = operand_bytes(s->g, node) / out.n, macs = node_cost(node).macs / out.n;
    uint32_t rows = rows_of_piece(s, &out, bytes, macs);

    for (uint32_t b = 0; b < out.n; b++) {
        for (uint32_t first = 0; first < out.h; first += rows) {
            struct piece p = {b, first, first + rows < out.h ? rows : out.h - first};
            int r = kinds[node->op].add(s, node, &p);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* Group norms are cut by what their result takes, which the statistics' node does not show. */
static bool is_norm_large(const struct splitter *s, const struct node *node)
{
    const struct groupnorm_stats_args *a = &node->args.groupnorm_stats;
    uint64_t result = 2ull * a->batch * a->hw * (pad8(a->c0) + pad8(a->c1));
    uint64_t operand = operand_bytes(s->g, node);

    return is_too_large(s, operand > result ? operand : result, 0) &&
           result / a->batch % GPU_OFFSET_ALIGNMENT == 0;
}

/* Takes over the node: as it is, or in pieces. */
static int take(struct splitter *s, const struct node *node)
{
    bool is_large = is_too_large(s, operand_bytes(s->g, node), node_cost(node).macs);

    if (node->op == OP_groupnorm_stats && !node->args.groupnorm_stats.is_part &&
        is_norm_large(s, node))
        return split_stats(s, node);
    if (node->op == OP_groupnorm_apply && s->entry_stats[node->slot[4]])
        return split_node(s, node);
    if (is_large && can_split(s, node))
        return split_node(s, node);
    return add_copy(s, node) ? 0 : -ENOMEM;
}

int graph_split(struct graph *g, const struct split_limits *limits, struct fault *f)
{
    struct splitter s = {.g = g, .limits = limits, .f = f};
    _cleanup_(freep) tensor *entry_stats = calloc(g->tensors.count, sizeof *entry_stats);
    struct node *nodes = g->nodes.items;
    size_t count = g->nodes.count;
    int r = 0;

    if (!limits->bytes && !limits->macs)
        return 0;
    if (!entry_stats)
        return no_memory(&s);
    s.entry_stats = entry_stats;
    memset(&g->nodes, 0, sizeof g->nodes);
    for (size_t i = 0; i < count && r >= 0; i++)
        r = take(&s, &nodes[i]);
    for (size_t i = 0; i < count; i++)
        free(nodes[i].name);
    free(nodes);
    return r;
}
