/* gpu — one open device: the only door to Vulkan.
 *
 * Everything here hides Vulkan's types; <vulkan/vulkan.h> is included by the .c files of vk/gpu
 * only. A `struct gpu` is used by one thread at a time, except gpu_progress(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/base/sha256.h"
#include "vk/gpu/caps.h"

struct gpu;
struct gpu_launch;

/* --- choosing (device.c) ---------------------------------------------------------------------- */

enum gpu_type { /* in order of preference */
                GPU_TYPE_DISCRETE,
                GPU_TYPE_INTEGRATED,
                GPU_TYPE_VIRTUAL,
                GPU_TYPE_CPU,
};

/* What is known of a device before it is opened: Vulkan's facts joined with libdrm's. */
struct gpu_facts {
    char name[128], driver[128];
    char node[64]; /* render node, "/dev/dri/renderD128"; "" when the driver does not tell */
    char pci[16];  /* "0000:01:00.0"; "" likewise */
    enum gpu_type type;
    uint64_t memory; /* bytes of the largest device-local heap */
    uint32_t api_version;
    bool usable; /* compute queue, Vulkan 1.1 */
};

/* Lists all devices; *ret_facts is malloc'd. -ENODEV + fault when there is no Vulkan driver at
 * all. */
int gpu_list(struct gpu_facts **ret_facts, size_t *ret_count, struct fault *f);

/* Pure: which of `facts` to open. `wanted`: node, PCI id, decimal index, or NULL: discrete before
 * integrated before virtual; a CPU device only with allow_cpu 1, or with -1 (auto) when nothing
 * else is usable; 0: never. -ENODEV + fault saying what there is and what would help. */
int gpu_choose(const struct gpu_facts *facts, size_t count, const char *wanted, int allow_cpu,
               size_t *ret_index, struct fault *f);

struct gpu_options {
    const char *device;                /* see gpu_choose */
    int allow_cpu;                     /* -1 auto, 0 no, 1 yes */
    const char *cache;                 /* directory for the pipeline cache, NULL: none */
    void (*on_kernel)(void *userdata); /* after each pipeline made: it may take seconds; or NULL */
    void *userdata;
};

int gpu_open(const struct gpu_options *options, struct gpu **ret_gpu, struct fault *f);
struct gpu *gpu_close(struct gpu *gpu); /* saves the pipeline cache */
DEFINE_FREEP(struct gpu *, gpu_close)

const struct gpu_facts *gpu_get_facts(const struct gpu *gpu);
const struct caps *gpu_get_caps(const struct gpu *gpu);
/* Device, driver version, kernels, and for a CPU device the processor: where this is the same, the
 * same work gives the same bits. */
void gpu_identity(const struct gpu *gpu, uint8_t ret_digest[SHA256_SIZE]);
/* For tests: replaces what choose() sees. Only narrower values are legal. */
void gpu_narrow_caps(struct gpu *gpu, const struct caps *caps);

/* --- memory (memory.c) ------------------------------------------------------------------------ */

enum gpu_lifetime { /* for the counters: who owns the bytes */
                    GPU_LIFETIME_WEIGHTS,
                    GPU_LIFETIME_ARENA,
                    GPU_LIFETIME_STAGING,
                    GPU_LIFETIME_COUNT,
};

/* A buffer bound to memory of its own, or a window of nothing: `size` 0. Opaque but embeddable by
 * pointer. */
struct gpu_buffer;

/* Device-local, usable as storage and texel buffer, copy source and target. -ENOMEM + fault naming
 * size and what is left; -EFBIG over the device's limits. */
int gpu_buffer_new(struct gpu *gpu, enum gpu_lifetime lifetime, uint64_t size,
                   struct gpu_buffer **ret_buffer, struct fault *f);
struct gpu_buffer *gpu_buffer_free(struct gpu_buffer *buffer);
DEFINE_FREEP(struct gpu_buffer *, gpu_buffer_free)
uint64_t gpu_buffer_size(const struct gpu_buffer *buffer);

/* Synchronous copies through the staging ring (any size). Fill writes zeros. */
int gpu_upload(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset, const void *data,
               uint64_t size, struct fault *f);
int gpu_download(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset, void *ret_data,
                 uint64_t size, struct fault *f);
int gpu_clear(struct gpu *gpu, const struct gpu_buffer *buffer, uint64_t offset, uint64_t size,
              struct fault *f);

/* The two blocks behind these copies, for loaders that fill them in place: map a block (waits until
 * the device is done with it), write to it, submit launches that read it at slots 4…7 (no texel
 * views) from gpu_staging_buffer(), offset index * GPU_STAGING_BLOCK; the submission is not waited
 * for. The launches of one submission run in any order; submissions are ordered. gpu_staging_wait()
 * waits for both blocks. */
#define GPU_STAGING_BLOCK    (16u << 20) /* bytes */
#define GPU_STAGING_LAUNCHES 256u        /* in one submission */
const struct gpu_buffer *gpu_staging_buffer(const struct gpu *gpu);
int gpu_staging_map(struct gpu *gpu, uint32_t index, void **ret_data, struct fault *f);
int gpu_staging_submit(struct gpu *gpu, uint32_t index, const struct gpu_launch *launches,
                       uint32_t count, struct fault *f);
int gpu_staging_wait(struct gpu *gpu, struct fault *f);

/* Device bytes held now, in all and by lifetime, and the heap's size. */
uint64_t gpu_memory_used(const struct gpu *gpu);
uint64_t gpu_memory_used_for(const struct gpu *gpu, enum gpu_lifetime lifetime);
uint64_t gpu_memory_peak(const struct gpu *gpu);
uint64_t gpu_memory_total(const struct gpu *gpu);
/* Bytes the heap still has: the driver's word where it gives one. */
uint64_t gpu_memory_left(struct gpu *gpu);

/* --- kernels and commands (kernel.c, cmd.c) --------------------------------------------------- */

/* A pipeline: shader binary and specialization constants; owned and cached by the gpu. */
struct gpu_kernel;

/* `name` as in gen/kernels.inc: "gemm.texel". -ENOENT + fault for an unknown one. */
int gpu_kernel_get(struct gpu *gpu, const char *name, const uint32_t *spec, uint32_t spec_count,
                   struct gpu_kernel **ret_kernel, struct fault *f);

struct gpu_binding {
    uint32_t slot; /* 0…7 */
    bool texel;    /* through the RGBA32UI texel view at binding 8 + slot (slots 0…3) */
    const struct gpu_buffer *buffer;
    uint64_t offset, size; /* bytes; multiples of 256 and 4 */
};

struct gpu_launch {
    struct gpu_kernel *kernel;
    const struct gpu_binding *bindings;
    uint32_t binding_count;
    const uint32_t *push;
    uint32_t push_count;
    uint32_t groups[3];
};

/* A sequence of launches and barriers, recorded once and submitted any number of times. Holds its
 * descriptor sets and texel views. */
struct gpu_commands;
int gpu_commands_new(struct gpu *gpu, uint32_t max_launches, struct gpu_commands **ret_commands,
                     struct fault *f);
struct gpu_commands *gpu_commands_free(struct gpu_commands *c);
DEFINE_FREEP(struct gpu_commands *, gpu_commands_free)
int gpu_commands_launch(struct gpu_commands *c, const struct gpu_launch *launch, struct fault *f);
void gpu_commands_barrier(
    struct gpu_commands *c); /* all compute and copy writes before all after */
int gpu_commands_cut(struct gpu_commands *c, struct fault *f); /* ends a chunk, begins the next */
int gpu_commands_end(struct gpu_commands *c, struct fault *f);
uint32_t gpu_commands_chunks(const struct gpu_commands *c);

/* Submits chunk i and waits for it (in slices, never spinning). -EIO + fault: device lost. */
int gpu_submit(struct gpu *gpu, struct gpu_commands *c, uint32_t chunk, struct fault *f);

/* Submissions finished since open; safe from any thread. */
uint64_t gpu_progress(const struct gpu *gpu);

/* Nanoseconds of the last submitted chunk by GPU timestamps, or by the wall clock where there are
 * none. */
uint64_t gpu_last_nsec(const struct gpu *gpu);

/* --- the table of Vulkan entry points (table.c): counted, and open to tests ------------------- */

enum gpu_call { /* the calls that must not happen between two steps, and the two that carry work */
                GPU_CALL_ALLOCATE_MEMORY,
                GPU_CALL_BEGIN_COMMAND_BUFFER,
                GPU_CALL_UPDATE_DESCRIPTOR_SETS,
                GPU_CALL_CREATE_PIPELINES,
                GPU_CALL_QUEUE_SUBMIT,
                GPU_CALL_CMD_DISPATCH,
                GPU_CALL_CMD_BARRIER,
                GPU_CALL_COUNT,
};

/* How often each entry point was called on this device so far. */
uint64_t gpu_call_count(const struct gpu *gpu, enum gpu_call call);
