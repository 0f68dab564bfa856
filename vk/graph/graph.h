/* graph — a list of nodes in execution order, and the tensors between them.
 *
 * Built once per shape (build.h), planned (plan.h: arena offsets from lifetimes), recorded into
 * command buffers (record.h) and replayed. Kinds of tensor:
 *     transient  lives from its first write to its last read; the planner shares memory among them
 *     pinned     has its place in the arena for as long as the shape is in use (latents, step
 *                table, context keys and values); several graphs may name one
 *     weight     a packed weight (weights.h)
 *     view       some pixel rows of a transient, so that an operator can work on a band of a
 *                picture
 * Transient and pinned tensors lie in one arena buffer whose first 256 bytes are zero (op.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/ops/op.h"
#include "vk/weights/weights.h"

typedef uint32_t tensor; /* index into graph.tensors; 0 is "none" */

enum element {
    ELEMENT_F16,
    ELEMENT_F32,
    ELEMENT_U32,
};

enum tensor_kind {
    TENSOR_NONE,
    TENSOR_TRANSIENT,
    TENSOR_PINNED,
    TENSOR_WEIGHT,
    TENSOR_VIEW,
};

struct tensor_info {
    enum tensor_kind kind;
    enum element element;
    uint32_t n, h, w;     /* rows = n * h * w; tokens: h = tokens, w = 1 */
    struct layout layout; /* of the channels */
    uint32_t weight;      /* TENSOR_WEIGHT: id in weights */
    uint64_t part_offset; /* … and, with part_size, the bytes of it that are meant */
    uint64_t part_size;
    bool keep;          /* transient: alive to the end of the graph, so that it can be read back */
    bool given;         /* transient: written from outside before each run; alive from the begin */
    tensor whole;       /* TENSOR_VIEW: the transient it is part of, … */
    uint32_t first_row; /* … and the pixel row (of all n) that is its first; n is 1 */
    uint64_t offset, size; /* bytes in the arena; a weight's offset comes from weights_place */
    uint32_t first, last;  /* nodes of first write and last use, by the planner */
    char *label;           /* for goldens and dumps; owned, NULL without */
};

struct node {
    enum op_kind op;
    union op_args args;
    tensor slot[OP_SLOTS]; /* 0 = unused */
    char *name;            /* "down_blocks.0.resnets.0.conv1"; owned */
};

struct graph {
    struct ARRAY(struct node) nodes;
    struct ARRAY(struct tensor_info) tensors; /* [0] is the null tensor */
    struct weights *weights;                  /* not owned */
    enum weights_component component;         /* whose tensors the names are */
    char scope[192];                          /* "down_blocks.0.resnets.0." */
    bool keep_labelled;                       /* labelled transients are kept: for goldens */
    struct fault fault;      /* the first error of a constructor; later ones do nothing */
    uint64_t transient_base; /* arena bytes before the transients: zeros and pinned tensors */
    uint64_t arena_size;     /* by the planner: transient_base + peak */
};

/* An empty graph naming tensors of `component`. -ENOMEM. */
int graph_new(struct weights *weights, enum weights_component component, uint64_t transient_base,
              struct graph **ret_graph);
struct graph *graph_free(struct graph *g);
DEFINE_FREEP(struct graph *, graph_free)

static inline uint32_t tensor_rows(const struct tensor_info *t)
{
    return t->n * t->h * t->w;
}

/* Bytes of a tensor without alignment. */
static inline uint64_t tensor_bytes(const struct tensor_info *t)
{
    return (uint64_t)tensor_rows(t) * layout_padded(t->layout) *
           (t->element == ELEMENT_F16 ? 2 : 4);
}

/* What a pinned tensor is, and where in the arena: laid out by who owns the arena. */
struct pinned {
    enum element element;
    uint32_t n, h, w;
    struct layout layout;
    uint64_t offset;
};
uint64_t pinned_bytes(const struct pinned *p);
/* *p, placed at *end: a multiple of GPU_OFFSET_ALIGNMENT, which moves to the next one behind it. */
struct pinned pinned_at(uint64_t *end, const struct pinned *p);

struct op_cost node_cost(const struct node *node);
struct op_cost graph_cost(const struct graph *g);
