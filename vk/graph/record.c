#include "vk/graph/record.h"

#include <errno.h>
#include <stdio.h>

#include "vk/gpu/gpu.h"

struct recording {
    struct gpu *gpu;
    struct program program;
    struct gpu_commands *commands;
};

/* What the walk over the commands needs. */
struct writer {
    const struct graph *g;
    struct gpu *gpu;
    const struct gpu_buffer *arena;
    struct gpu_commands *commands;
};

/* Texel operands of the arena are bound as a whole (op.h), all else as the tensor itself. */
static struct gpu_binding binding_of(const struct writer *w, tensor t, uint32_t slot, bool texel)
{
    const struct tensor_info *info = &w->g->tensors.items[t];
    struct gpu_binding b = {.slot = slot, .texel = texel};

    if (info->kind == TENSOR_WEIGHT) {
        struct weight_place place = weights_place(w->g->weights, info->weight);
        b.buffer = weights_buffer(w->g->weights, place.buffer);
        b.offset = place.offset + info->part_offset;
        b.size = info->part_size ? info->part_size : place.size;
    } else {
        b.buffer = w->arena;
        b.offset = texel ? 0 : info->offset / GPU_OFFSET_ALIGNMENT * GPU_OFFSET_ALIGNMENT;
        b.size = texel ? w->g->arena_size : info->offset - b.offset + info->size;
    }
    return b;
}

static int write_launch(const struct writer *w, const struct command *c, struct fault *f)
{
    const struct node *node = &w->g->nodes.items[c->node];
    const struct dispatch *d = &c->dispatch;
    struct gpu_binding bindings[OP_SLOTS];
    struct gpu_launch launch = {.bindings = bindings,
                                .push = d->push,
                                .push_count = d->push_count,
                                .groups = {d->groups[0], d->groups[1], d->groups[2]}};
    char name[64];

    for (uint32_t s = 0; s < OP_SLOTS; s++) {
        if (node->slot[s])
            bindings[launch.binding_count++] =
                binding_of(w, node->slot[s], s, d->texel && s < OP_TEXEL_SLOTS);
    }
    (void)snprintf(name, sizeof name, "%s.%s", d->kernel, d->texel ? "texel" : "ssbo");
    int r = gpu_kernel_get(w->gpu, name, d->spec, d->spec_count, &launch.kernel, f);
    if (r >= 0)
        r = gpu_commands_launch(w->commands, &launch, f);
    return r < 0 ? fault_prefix(f, r, "%s", node->name) : 0;
}

static int write_command(const struct writer *w, const struct command *c, struct fault *f)
{
    switch (c->kind) {
    case COMMAND_BARRIER:
        gpu_commands_barrier(w->commands);
        return 0;
    case COMMAND_CUT:
        return gpu_commands_cut(w->commands, f);
    default:
        return write_launch(w, c, f);
    }
}

int graph_record(const struct graph *g, struct gpu *gpu, const struct gpu_buffer *arena,
                 uint64_t max_macs, struct recording **ret_recording, struct fault *f)
{
    _cleanup_(recording_freep) struct recording *rec = calloc(1, sizeof *rec);

    if (!rec)
        return fault_set(f, -ENOMEM, "out of memory");
    rec->gpu = gpu;
    int r = program_make(g, gpu_get_caps(gpu), max_macs, &rec->program, f);
    if (r >= 0)
        r = gpu_commands_new(gpu, rec->program.launches, &rec->commands, f);
    if (r < 0)
        return r;
    struct writer w = {.g = g, .gpu = gpu, .arena = arena, .commands = rec->commands};
    for (uint32_t i = 0; i < rec->program.count && r >= 0; i++)
        r = write_command(&w, &rec->program.commands[i], f);
    if (r >= 0)
        r = gpu_commands_end(rec->commands, f);
    if (r < 0)
        return r;
    *ret_recording = TAKE_PTR(rec);
    return 0;
}

struct recording *recording_free(struct recording *r)
{
    if (!r)
        return NULL;
    (void)gpu_commands_free(r->commands);
    program_done(&r->program);
    free(r);
    return NULL;
}

const struct program *recording_program(const struct recording *r)
{
    return &r->program;
}

int recording_run(struct recording *r, const atomic_bool *cancel, struct fault *f)
{
    uint32_t chunks = gpu_commands_chunks(r->commands);

    for (uint32_t i = 0; i < chunks; i++) {
        if (cancel && atomic_load(cancel))
            return fault_set(f, -ECANCELED, "cancelled");
        int e = gpu_submit(r->gpu, r->commands, i, f);
        if (e < 0)
            return e;
    }
    return 0;
}
