/* dump — a graph for people: launches, MACs, bytes, arena; the body of `diffused-worker --explain`.
 */
#pragma once

#include <stdio.h>

#include "vk/graph/record.h"

/* A line per op kind and a total; with `verbose` a line per node. */
void graph_dump(const struct graph *g, const struct program *p, bool verbose, FILE *out);
