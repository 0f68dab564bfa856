/* random-graph — graphs of linear nodes over random tensors, for the planner's and recorder's
 * tests. */
#pragma once

#include "vk/graph/graph.h"

/* xorshift; never 0. */
static inline uint32_t random_next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* A graph of `count` one-tap GEMMs without weights: each reads one or two earlier tensors. */
static inline struct graph *random_graph(uint32_t seed, uint32_t count)
{
    struct graph *g = NULL;
    uint32_t state = seed * 2654435761u + 1;

    if (graph_new(NULL, WEIGHTS_UNET, 1024, &g) < 0)
        return NULL;
    *array_push(&g->tensors) = (struct tensor_info){.kind = TENSOR_PINNED,
                                                    .n = 1,
                                                    .h = 4,
                                                    .w = 4,
                                                    .layout = layout_plain(8),
                                                    .offset = 256,
                                                    .size = 256};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t rows = 1 + random_next(&state) % 300;
        tensor from = 1 + random_next(&state) % (tensor)(g->tensors.count - 1);
        tensor residual = random_next(&state) % (tensor)g->tensors.count;
        struct node *node = array_push(&g->nodes);
        *array_push(&g->tensors) = (struct tensor_info){.kind = TENSOR_TRANSIENT,
                                                        .n = 1,
                                                        .h = rows,
                                                        .w = 1,
                                                        .layout = layout_plain(8),
                                                        .keep = random_next(&state) % 20 == 0};
        node->op = OP_gemm;
        node->args.gemm = (struct gemm_args){.batch = 1,
                                             .height = rows,
                                             .width = 1,
                                             .in_height = rows,
                                             .in_width = 1,
                                             .k0 = 8,
                                             .n = 8,
                                             .taps_h = 1,
                                             .taps_w = 1,
                                             .stride = 1,
                                             .has_residual = residual != 0,
                                             .scale = 1};
        node->slot[0] = from;
        node->slot[3] = residual;
        node->slot[OP_OUT] = (tensor)(g->tensors.count - 1);
        node->name = strdup("node");
    }
    return g;
}
