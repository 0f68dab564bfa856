/* record — a planned graph into command buffers, once; then replays.
 *
 * First a program is made, pure: one launch per node, a barrier wherever a launch touches bytes
 * with a hazard since the last barrier (read after write, write after write, write after read), cut
 * into chunks of bounded work so that no submission runs long. Then the program is written to
 * Vulkan one to one: pipelines, static descriptor sets, command buffers. Running submits the chunks
 * in order. */
#pragma once

#include <stdatomic.h>

#include "vk/graph/graph.h"

struct gpu;
struct gpu_buffer;
struct recording;

struct access {
    uint32_t buffer; /* 0: the arena, 1 + i: weight buffer i */
    uint64_t offset, size;
    bool is_write;
};

#define COMMAND_MAX_ACCESS 16u

enum command_kind {
    COMMAND_LAUNCH,
    COMMAND_BARRIER,
    COMMAND_CUT, /* end of a command buffer; the next one opens with a barrier of its own */
};

/* One recorded command; the barrier checker in tests/graph reads these. */
struct command {
    enum command_kind kind;
    uint32_t node; /* COMMAND_LAUNCH */
    uint32_t access_count;
    struct access access[COMMAND_MAX_ACCESS];
    struct dispatch dispatch;
};

struct program {
    struct command *commands;
    uint32_t count;
    uint32_t launches, barriers, chunks;
};

/* Pure. `max_macs` bounds the work of a chunk (0: no cuts; a single launch may exceed it).
 * Errors: what check and choose say, with the node's name in front; -ENOMEM. */
int program_make(const struct graph *g, const struct caps *caps, uint64_t max_macs,
                 struct program *ret_program, struct fault *f);
void program_done(struct program *p);

/* Writes the program to Vulkan. `arena` holds at least g->arena_size bytes, its first 256 are zero.
 * The graph may be freed afterwards. */
int graph_record(const struct graph *g, struct gpu *gpu, const struct gpu_buffer *arena,
                 uint64_t max_macs, struct recording **ret_recording, struct fault *f);
struct recording *recording_free(struct recording *r);
DEFINE_FREEP(struct recording *, recording_free)

const struct program *recording_program(const struct recording *r);

/* Submits every chunk and waits for each. `cancel` (may be NULL) is looked at between chunks: true
 * ends with -ECANCELED. -EIO + fault when the device is lost. Allocates nothing, records nothing.
 */
int recording_run(struct recording *r, const atomic_bool *cancel, struct fault *f);
