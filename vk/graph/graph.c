#include "vk/graph/graph.h"

#include <errno.h>

#include "vk/gpu/caps.h"

int graph_new(struct weights *weights, enum weights_component component, uint64_t transient_base,
              struct graph **ret_graph)
{
    _cleanup_(graph_freep) struct graph *g = calloc(1, sizeof *g);

    if (!g || !array_push(&g->tensors)) /* the null tensor */
        return -ENOMEM;
    g->weights = weights;
    g->component = component;
    g->transient_base = transient_base;
    *ret_graph = TAKE_PTR(g);
    return 0;
}

struct graph *graph_free(struct graph *g)
{
    if (!g)
        return NULL;
    for (size_t i = 0; i < g->nodes.count; i++)
        free(g->nodes.items[i].name);
    for (size_t i = 0; i < g->tensors.count; i++)
        free(g->tensors.items[i].label);
    array_done(&g->nodes);
    array_done(&g->tensors);
    free(g);
    return NULL;
}

uint64_t pinned_bytes(const struct pinned *p)
{
    const struct tensor_info t = {
        .element = p->element, .n = p->n, .h = p->h, .w = p->w, .layout = p->layout};

    return tensor_bytes(&t);
}

struct pinned pinned_at(uint64_t *end, const struct pinned *p)
{
    struct pinned placed = *p;
    uint64_t mask = GPU_OFFSET_ALIGNMENT - 1;

    placed.offset = *end;
    *end += (pinned_bytes(p) + mask) & ~mask;
    return placed;
}

struct op_cost node_cost(const struct node *node)
{
    return ops[node->op].cost(&node->args);
}

struct op_cost graph_cost(const struct graph *g)
{
    struct op_cost sum = {0};

    for (size_t i = 0; i < g->nodes.count; i++) {
        struct op_cost c = node_cost(&g->nodes.items[i]);
        sum.macs += c.macs;
        sum.macs_issued += c.macs_issued;
        sum.bytes_read += c.bytes_read;
        sum.bytes_written += c.bytes_written;
    }
    return sum;
}
