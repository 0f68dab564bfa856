#include "vk/graph/plan.h"

#include <errno.h>

#define NEVER UINT32_MAX

/* --- lifetimes -------------------------------------------------------------------------------- */

static int touch(struct graph *g, uint32_t index, uint32_t slot, struct fault *f)
{
    const struct node *node = &g->nodes.items[index];
    const struct tensor_info *used = &g->tensors.items[node->slot[slot]];
    struct tensor_info *t =
        &g->tensors.items[used->kind == TENSOR_VIEW ? used->whole : node->slot[slot]];
    const struct op *op = &ops[node->op];

    if (t->kind != TENSOR_TRANSIENT)
        return 0;
    if ((op->reads >> slot & 1) && t->first == NEVER)
        return fault_set(f, -EINVAL, "%s: slot %u reads tensor %u before it is written", node->name,
                         slot, node->slot[slot]);
    if (t->first == NEVER)
        t->first = index;
    t->last = index;
    return 0;
}

static int find_lifetimes(struct graph *g, struct fault *f)
{
    for (size_t i = 0; i < g->tensors.count; i++) {
        g->tensors.items[i].first = g->tensors.items[i].given ? 0 : NEVER;
        g->tensors.items[i].last = 0;
        if (g->tensors.items[i].kind == TENSOR_TRANSIENT)
            g->tensors.items[i].size = tensor_bytes(&g->tensors.items[i]);
    }
    for (uint32_t i = 0; i < g->nodes.count; i++) {
        /* reads before writes: a result must not stand in for an operand of the same node */
        for (uint32_t s = 0; s < OP_SLOTS; s++) {
            int r = g->nodes.items[i].slot[s] ? touch(g, i, s, f) : 0;
            if (r < 0)
                return r;
        }
    }
    for (size_t i = 0; i < g->tensors.count; i++) {
        if (g->tensors.items[i].keep)
            g->tensors.items[i].last = NEVER;
    }
    return 0;
}

/* --- offsets ---------------------------------------------------------------------------------- */

static bool is_alive_together(const struct tensor_info *a, const struct tensor_info *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static uint64_t aligned(uint64_t n)
{
    return (n + GPU_OFFSET_ALIGNMENT - 1) / GPU_OFFSET_ALIGNMENT * GPU_OFFSET_ALIGNMENT;
}

/* Tensors to place, largest first; equal sizes in order of their first write. */
static int compare_size(const void *a, const void *b)
{
    const struct tensor_info *x = *(struct tensor_info *const *)a;
    const struct tensor_info *y = *(struct tensor_info *const *)b;

    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int compare_offset(const void *a, const void *b)
{
    const struct tensor_info *x = *(struct tensor_info *const *)a;
    const struct tensor_info *y = *(struct tensor_info *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest gap among `placed` (sorted by offset) that no tensor alive together with t touches. */
static uint64_t find_gap(const struct tensor_info *t, struct tensor_info *const *placed,
                         size_t count, uint64_t base)
{
    uint64_t offset = base;

    for (size_t i = 0; i < count; i++) {
        if (!is_alive_together(t, placed[i]))
            continue;
        if (offset + t->size <= placed[i]->offset)
            return offset;
        uint64_t end = aligned(placed[i]->offset + placed[i]->size);
        if (end > offset)
            offset = end;
    }
    return offset;
}

/* Puts t among `placed`, which stays sorted by offset. */
static void insert(struct tensor_info *t, struct tensor_info **placed, size_t count)
{
    size_t at = count;

    while (at > 0 && compare_offset(&placed[at - 1], &t) > 0) {
        placed[at] = placed[at - 1];
        at--;
    }
    placed[at] = t;
}

static void place_views(struct graph *g)
{
    for (size_t i = 0; i < g->tensors.count; i++) {
        struct tensor_info *t = &g->tensors.items[i];
        if (t->kind != TENSOR_VIEW)
            continue;
        const struct tensor_info *whole = &g->tensors.items[t->whole];
        t->offset = whole->offset + tensor_bytes(whole) / whole->h * t->first_row;
        t->first = whole->first;
        t->last = whole->last;
    }
}

static void place_all(struct graph *g, struct tensor_info **order, struct tensor_info **placed,
                      size_t count)
{
    g->arena_size = g->transient_base;
    for (size_t i = 0; i < count; i++) {
        order[i]->offset = find_gap(order[i], placed, i, g->transient_base);
        insert(order[i], placed, i);
        uint64_t end = aligned(order[i]->offset + order[i]->size);
        if (end > g->arena_size)
            g->arena_size = end;
    }
}

int graph_plan(struct graph *g, struct fault *f)
{
    int r = find_lifetimes(g, f);

    if (r < 0)
        return r;
    _cleanup_(freep) struct tensor_info **order = calloc(2 * g->tensors.count, sizeof *order);
    if (!order)
        return fault_set(f, -ENOMEM, "out of memory");
    g->transient_base = aligned(g->transient_base);
    size_t count = 0;
    for (size_t i = 0; i < g->tensors.count; i++) {
        struct tensor_info *t = &g->tensors.items[i];
        if (t->kind == TENSOR_TRANSIENT && t->first != NEVER)
            order[count++] = t;
    }
    qsort(order, count, sizeof *order, compare_size);
    place_all(g, order, order + g->tensors.count, count);
    place_views(g);
    return 0;
}
