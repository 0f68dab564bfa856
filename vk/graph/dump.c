#include "vk/graph/dump.h"

#include <inttypes.h>

struct row {
    uint32_t launches;
    struct op_cost cost;
};

static void add(struct row *row, const struct op_cost *c)
{
    row->launches++;
    row->cost.macs += c->macs;
    row->cost.macs_issued += c->macs_issued;
    row->cost.bytes_read += c->bytes_read;
    row->cost.bytes_written += c->bytes_written;
}

static void print_row(FILE *out, const char *name, const struct row *row)
{
    (void)fprintf(
        out, "  %-18s %5u launches %10.3f GMAC %10.3f issued %9.2f MB read %9.2f written\n", name,
        row->launches, (double)row->cost.macs * 1e-9, (double)row->cost.macs_issued * 1e-9,
        (double)row->cost.bytes_read * 1e-6, (double)row->cost.bytes_written * 1e-6);
}

void graph_dump(const struct graph *g, const struct program *p, bool verbose, FILE *out)
{
    struct row rows[OP_KIND_COUNT] = {0}, total = {0};

    for (size_t i = 0; i < g->nodes.count; i++) {
        const struct node *node = &g->nodes.items[i];
        struct op_cost c = node_cost(node);
        add(&rows[node->op], &c);
        add(&total, &c);
        if (verbose)
            (void)fprintf(out, "  %-64s %-16s %9.4f GMAC\n", node->name, ops[node->op].name,
                          (double)c.macs * 1e-9);
    }
    for (int op = 0; op < OP_KIND_COUNT; op++) {
        if (rows[op].launches)
            print_row(out, ops[op].name, &rows[op]);
    }
    print_row(out, "total", &total);
    (void)fprintf(out, "  %u barriers, %u submissions, arena %.1f MB\n", p->barriers, p->chunks,
                  (double)g->arena_size * 1e-6);
}
