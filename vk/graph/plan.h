/* plan — liveness to arena offsets.
 *
 * Greedy by size: the largest transient first, each at the lowest offset free of every tensor alive
 * at the same time; a `keep` tensor is alive from its first write to the end of the graph, a
 * `given` one from the graph's begin. Offsets are multiples of GPU_OFFSET_ALIGNMENT from
 * graph.transient_base on. Fills offset, size, first, last of transients and graph.arena_size.
 * Pure. Errors: -EINVAL + fault (node and tensor) for a tensor read before it is written, -ENOMEM.
 */
#pragma once

#include "vk/graph/graph.h"

int graph_plan(struct graph *g, struct fault *f);
