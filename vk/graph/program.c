/* The pure half of record.h: from nodes to launches, barriers and cuts. */
#include "vk/graph/record.h"

#include <errno.h>

/* --- what a launch touches -------------------------------------------------------------------- */

static struct access access_of(const struct graph *g, tensor t, bool is_write)
{
    const struct tensor_info *info = &g->tensors.items[t];

    if (info->kind == TENSOR_WEIGHT) {
        struct weight_place place = weights_place(g->weights, info->weight);
        return (struct access){.buffer = 1 + place.buffer,
                               .offset = place.offset + info->part_offset,
                               .size = info->part_size ? info->part_size : place.size,
                               .is_write = is_write};
    }
    return (struct access){.offset = info->offset, .size = info->size, .is_write = is_write};
}

/* A texel operand in the arena is bound as the whole arena (op.h), so all of it counts as read:
 * what the kernel is told to read is less, but what is bound is what validation and drivers go
 * by. */
static struct access read_of(const struct graph *g, const struct node *node, uint32_t slot,
                             bool texel)
{
    bool is_weight = g->tensors.items[node->slot[slot]].kind == TENSOR_WEIGHT;

    if (texel && slot < OP_TEXEL_SLOTS && !is_weight)
        return (struct access){.size = g->arena_size};
    struct access a = access_of(g, node->slot[slot], false);
    a.size += a.offset % GPU_OFFSET_ALIGNMENT; /* see fill_bases */
    a.offset -= a.offset % GPU_OFFSET_ALIGNMENT;
    return a;
}

static void list_accesses(const struct graph *g, const struct node *node, struct command *c)
{
    for (uint32_t s = 0; s < OP_SLOTS; s++) {
        if (!node->slot[s])
            continue;
        if (ops[node->op].reads >> s & 1)
            c->access[c->access_count++] = read_of(g, node, s, c->dispatch.texel);
        if (ops[node->op].writes >> s & 1)
            c->access[c->access_count++] = access_of(g, node->slot[s], true);
    }
}

/* --- hazards ---------------------------------------------------------------------------------- */

static bool is_hazard(const struct access *a, const struct access *b)
{
    return (a->is_write || b->is_write) && a->buffer == b->buffer &&
           a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

/* Does `c` touch what a launch since the last barrier (commands from `since` on) touches? */
static bool needs_barrier(const struct program *p, uint32_t since, const struct command *c)
{
    for (uint32_t i = since; i < p->count; i++) {
        for (uint32_t a = 0; a < p->commands[i].access_count; a++) {
            for (uint32_t b = 0; b < c->access_count; b++) {
                if (is_hazard(&p->commands[i].access[a], &c->access[b]))
                    return true;
            }
        }
    }
    return false;
}

/* --- operands through texel buffers ----------------------------------------------------------- */

#define TEXEL_BYTES 16u

/* Slots 0…3 hold nothing that a texel view cannot span: the arena as a whole, each weight by
 * itself. */
static bool is_texel_ok(const struct graph *g, const struct node *node, const struct caps *caps)
{
    uint64_t limit = caps->max_texels * TEXEL_BYTES;

    for (uint32_t s = 0; s < OP_TEXEL_SLOTS; s++) {
        const struct tensor_info *t = &g->tensors.items[node->slot[s]];
        if (t->kind == TENSOR_NONE)
            continue;
        uint64_t size =
            t->kind == TENSOR_WEIGHT ? weights_size(g->weights, t->weight) : g->arena_size;
        if (size > limit)
            return false;
    }
    return true;
}

/* Where each operand of slots 0…3 begins within what is bound: the arena, or (a view may begin
 * anywhere) the bytes from the last offset that may be bound. */
static void fill_bases(const struct graph *g, const struct node *node, struct dispatch *d)
{
    for (uint32_t s = 0; s < OP_TEXEL_SLOTS; s++) {
        const struct tensor_info *t = &g->tensors.items[node->slot[s]];
        uint64_t begin = d->texel ? 0 : t->offset / GPU_OFFSET_ALIGNMENT * GPU_OFFSET_ALIGNMENT;
        if (t->kind == TENSOR_TRANSIENT || t->kind == TENSOR_PINNED || t->kind == TENSOR_VIEW)
            d->push[s] = (uint32_t)((t->offset - begin) / TEXEL_BYTES);
    }
}

/* What is bound as a storage buffer must fit one. */
static int check_bindings(const struct graph *g, const struct node *node, const struct caps *caps,
                          bool texel, struct fault *f)
{
    for (uint32_t s = texel ? OP_TEXEL_SLOTS : 0; s < OP_SLOTS; s++) {
        if (!node->slot[s])
            continue;
        struct access a = access_of(g, node->slot[s], false);
        if (s >= OP_TEXEL_SLOTS && a.offset % GPU_OFFSET_ALIGNMENT)
            return fault_set(f, -EINVAL, "%s: slot %u begins at byte %llu", node->name, s,
                             (unsigned long long)a.offset);
        if (a.offset % GPU_OFFSET_ALIGNMENT + a.size > caps->max_binding)
            return fault_set(
                f, -EFBIG,
                "%s: a tensor of %llu MB; this device binds at most %llu MB: ask for a "
                "smaller picture",
                node->name, (unsigned long long)(a.size >> 20),
                (unsigned long long)(caps->max_binding >> 20));
    }
    return 0;
}

/* --- the program ------------------------------------------------------------------------------ */

static int make_launch(const struct graph *g, uint32_t index, const struct caps *caps,
                       struct command *ret, struct fault *f)
{
    const struct node *node = &g->nodes.items[index];
    const struct op *op = &ops[node->op];
    struct command c = {.kind = COMMAND_LAUNCH, .node = index};
    int r = op->check(&node->args, f);

    if (r >= 0)
        r = op->choose(caps, &node->args, is_texel_ok(g, node, caps), &c.dispatch, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", node->name);
    fill_bases(g, node, &c.dispatch);
    list_accesses(g, node, &c);
    *ret = c;
    return check_bindings(g, node, caps, c.dispatch.texel, f);
}

/* Appends a barrier or a cut before `c` where one is due. *since: first command after the last one.
 */
static void separate(struct program *p, const struct command *c, bool cut, uint32_t *since)
{
    if (cut) {
        p->commands[p->count++] = (struct command){.kind = COMMAND_CUT};
        p->chunks++;
        *since = p->count;
    } else if (needs_barrier(p, *since, c)) {
        p->commands[p->count++] = (struct command){.kind = COMMAND_BARRIER};
        p->barriers++;
        *since = p->count;
    }
}

int program_make(const struct graph *g, const struct caps *caps, uint64_t max_macs,
                 struct program *ret_program, struct fault *f)
{
    _cleanup_(program_done) struct program p = {.chunks = 1};
    uint64_t macs = 0;
    uint32_t since = 0;

    p.commands = calloc(2 * g->nodes.count + 1, sizeof *p.commands);
    if (!p.commands)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < g->nodes.count; i++) {
        struct command c;
        int r = make_launch(g, i, caps, &c, f);
        if (r < 0)
            return r;
        uint64_t cost = node_cost(&g->nodes.items[i]).macs_issued;
        bool cut = max_macs && macs && macs + cost > max_macs;
        separate(&p, &c, cut, &since);
        macs = cut ? cost : macs + cost;
        p.commands[p.count++] = c;
        p.launches++;
    }
    *ret_program = p;
    p.commands = NULL;
    return 0;
}

void program_done(struct program *p)
{
    free(p->commands);
    p->commands = NULL;
    p->count = 0;
}
