/* split — nodes too large for a device into several, over views of the same tensors.
 *
 * A node that binds or computes more than the limits becomes one node a batch entry, and each of
 * those one a band of pixel rows where that is still too much: GEMMs and convolutions (a band reads
 * its neighbours' rows, too), attention (bands of queries; every one sees all keys), layer norm,
 * group norm (statistics stay whole within a batch entry). The values are the same, bit by bit,
 * where the kernels' tiles are. A node stays whole where a batch entry of its result does not begin
 * at a multiple of GPU_OFFSET_ALIGNMENT bytes (sides that are no multiples of 4). To be called on a
 * built graph, before graph_plan(). Pure. */
#pragma once

#include "vk/graph/graph.h"

/* 0: no limit. */
struct split_limits {
    uint64_t bytes; /* of an operand or the result */
    uint64_t macs;
};

/* Errors: -ENOMEM. What cannot be split further stays as it is; recording says what is too big. */
int graph_split(struct graph *g, const struct split_limits *limits, struct fault *f);
