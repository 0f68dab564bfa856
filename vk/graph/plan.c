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

/* The lowest gap among `others` (sorted by offset), which are all alive together with t. */
static uint64_t find_gap(const struct tensor_info *t, struct tensor_info *const *others,
                         size_t count, uint64_t base)
{
    uint64_t offset = base;

    for (size_t i = 0; i < count; i++) {
        if (offset + t->size <= others[i]->offset)
            return offset;
        uint64_t end = aligned(others[i]->offset + others[i]->size);
        if (end > offset)
            offset = end;
    }
    return offset;
}

static void place_views(struct graph *g)
{
    for (size_t i = 0; i < g->tensors.count; i++) {
        struct tensor_info *t = &g->tensors.items[i];
        if (t->kind != TENSOR_VIEW)
            continue;
        const struct tensor_info *whole = &g->tensors.items[t->whole];
        t->offset = whole->offset + tensor_bytes(whole) / whole->n / whole->h * t->first_row;
        t->first = whole->first;
        t->last = whole->last;
    }
}

/* What is placed, by the nodes it is alive at: most tensors live for a few nodes of very many, so a
 * tensor meets few others. */
#define PERIOD 32u /* nodes */

struct tensor_list {
    struct ARRAY(struct tensor_info *) list;
};

struct calendar {
    struct tensor_list *periods;
    uint32_t count;
    struct tensor_list met; /* scratch */
};

static void calendar_done(struct calendar *c)
{
    for (uint32_t i = 0; i < c->count; i++)
        array_done(&c->periods[i].list);
    free(c->periods);
    array_done(&c->met.list);
}

static uint32_t last_period(const struct calendar *c, const struct tensor_info *t)
{
    return t->last / PERIOD < c->count ? t->last / PERIOD : c->count - 1;
}

static int append(struct tensor_list *to, struct tensor_info *t)
{
    struct tensor_info **place = array_push(&to->list);

    if (!place)
        return -ENOMEM;
    *place = t;
    return 0;
}

/* Lists in c->met what is placed and alive together with t, sorted by offset (some twice). */
static int meet(struct calendar *c, const struct tensor_info *t)
{
    c->met.list.count = 0;
    for (uint32_t i = t->first / PERIOD; i <= last_period(c, t); i++) {
        const struct tensor_list *l = &c->periods[i];
        for (size_t k = 0; k < l->list.count; k++) {
            if (is_alive_together(t, l->list.items[k]) && append(&c->met, l->list.items[k]) < 0)
                return -ENOMEM;
        }
    }
    if (c->met.list.count)
        qsort(c->met.list.items, c->met.list.count, sizeof *c->met.list.items, compare_offset);
    return 0;
}

static int place_all(struct graph *g, struct tensor_info **order, size_t count)
{
    _cleanup_(calendar_done) struct calendar c = {.count = (uint32_t)g->nodes.count / PERIOD + 1};
    int r = 0;

    g->arena_size = g->transient_base;
    c.periods = calloc(c.count, sizeof *c.periods);
    if (!c.periods) {
        c.count = 0;
        return -ENOMEM;
    }
    for (size_t i = 0; i < count && r >= 0; i++) {
        struct tensor_info *t = order[i];
        r = meet(&c, t);
        t->offset = find_gap(t, c.met.list.items, c.met.list.count, g->transient_base);
        for (uint32_t k = t->first / PERIOD; k <= last_period(&c, t) && r >= 0; k++)
            r = append(&c.periods[k], t);
        uint64_t end = aligned(t->offset + t->size);
        if (end > g->arena_size)
            g->arena_size = end;
    }
    return r;
}

int graph_plan(struct graph *g, struct fault *f)
{
    int r = find_lifetimes(g, f);

    if (r < 0)
        return r;
    _cleanup_(freep) struct tensor_info **order = calloc(g->tensors.count, sizeof *order);
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
    r = place_all(g, order, count);
    if (r < 0)
        return fault_set(f, r, "out of memory");
    place_views(g);
    return 0;
}
