/* Where a constructor's names are, and what a graph is asked for by name or number. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vk/graph/build.h"

size_t scope_push(struct graph *g, const char *format, ...)
{
    size_t mark = strlen(g->scope);
    va_list args;

    va_start(args, format);
    int n = vsnprintf(g->scope + mark, sizeof g->scope - mark, format, args);
    va_end(args);
    if (n < 0 || mark + (size_t)n + 2 > sizeof g->scope) {
        g->scope[mark] = '\0';
        if (!g->fault.err)
            (void)fault_set(&g->fault, -ENAMETOOLONG, "%s: scope too deep", g->scope);
        return mark;
    }
    g->scope[mark + (size_t)n] = '.';
    g->scope[mark + (size_t)n + 1] = '\0';
    return mark;
}

void scope_pop(struct graph *g, size_t mark)
{
    g->scope[mark] = '\0';
}

int graph_fault(const struct graph *g, struct fault *f)
{
    if (g->fault.err && f)
        *f = g->fault;
    return g->fault.err;
}

const struct tensor_info *graph_tensor(const struct graph *g, tensor t)
{
    return &g->tensors.items[t];
}

tensor graph_find(const struct graph *g, const char *label)
{
    for (size_t i = 1; i < g->tensors.count; i++) {
        if (g->tensors.items[i].label && strcmp(g->tensors.items[i].label, label) == 0)
            return (tensor)i;
    }
    return 0;
}
