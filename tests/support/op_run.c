#include "tests/support/op_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/cleanup.h"

#define ALIGN  GPU_OFFSET_ALIGNMENT
#define POISON 0xff /* 0xffff and 0xffffffff are NaN */

static struct gpu *shared_gpu;

/* Host image of a device buffer and where the slots lie in it. */
struct image {
    uint8_t *bytes;
    size_t size;
    struct gpu_buffer *buffer;
};

struct layout_plan {
    struct image arena, weights;
    size_t offset[OP_SLOTS], size[OP_SLOTS];
};

struct gpu *op_run_gpu(void)
{
    struct fault f = {0};
    const struct gpu_options options = {.allow_cpu = -1};

    if (!shared_gpu && gpu_open(&options, &shared_gpu, &f) < 0) {
        (void)fprintf(stderr, "no device: %s\n", f.text);
        abort();
    }
    return shared_gpu;
}

int op_run_teardown(void **state)
{
    (void)state;
    shared_gpu = gpu_close(shared_gpu);
    return 0;
}

const char *op_variant_name(enum op_variant variant)
{
    static const char *const names[] = {"cpu.texel", "cpu.ssbo", "gpu.ssbo"};

    return names[variant];
}

static size_t aligned(size_t size)
{
    return (size + ALIGN - 1) / ALIGN * ALIGN;
}

/* A place for every slot, with a gap after each. */
static void plan_slots(const struct op_slot slots[OP_SLOTS], size_t out_size, struct layout_plan *p)
{
    p->arena.size = ALIGN;
    for (uint32_t s = 0; s < OP_SLOTS; s++) {
        struct image *image = slots[s].is_weight ? &p->weights : &p->arena;
        p->size[s] = s == OP_OUT ? out_size : slots[s].data ? slots[s].size : 0;
        if (p->size[s] == 0)
            continue;
        p->offset[s] = image->size;
        image->size += aligned(p->size[s]) + ALIGN;
    }
    p->weights.size += ALIGN;
}

static int fill_images(const struct op_slot slots[OP_SLOTS], struct layout_plan *p)
{
    p->arena.bytes = malloc(p->arena.size);
    p->weights.bytes = malloc(p->weights.size);
    if (!p->arena.bytes || !p->weights.bytes)
        return -ENOMEM;
    memset(p->arena.bytes, POISON, p->arena.size);
    memset(p->weights.bytes, POISON, p->weights.size);
    memset(p->arena.bytes, 0, ALIGN);
    for (uint32_t s = 0; s < OP_SLOTS; s++) {
        struct image *image = slots[s].is_weight ? &p->weights : &p->arena;
        if (p->size[s] && slots[s].data)
            memcpy(image->bytes + p->offset[s], slots[s].data, p->size[s]);
    }
    return 0;
}

static int upload(struct gpu *gpu, struct image *image, enum gpu_lifetime lifetime, struct fault *f)
{
    int r = gpu_buffer_new(gpu, lifetime, image->size, &image->buffer, f);

    return r < 0 ? r : gpu_upload(gpu, image->buffer, 0, image->bytes, image->size, f);
}

static void plan_done(struct layout_plan *p)
{
    free(p->arena.bytes);
    free(p->weights.bytes);
    (void)gpu_buffer_free(p->arena.buffer);
    (void)gpu_buffer_free(p->weights.buffer);
}

/* The device's caps, as far as the variant lets choose() see them. */
static struct caps caps_for(const struct gpu *gpu, enum op_variant variant)
{
    struct caps caps = *gpu_get_caps(gpu);

    caps.is_cpu = variant != OP_VARIANT_GPU_SSBO;
    caps.max_texels = variant == OP_VARIANT_CPU_TEXEL ? 1u << 27 : 0;
    return caps;
}

/* Bindings as record.c makes them: texel views of activations span the arena. */
static uint32_t bind(const struct op_slot slots[OP_SLOTS], const struct layout_plan *p,
                     struct dispatch *d, struct gpu_binding bindings[OP_SLOTS])
{
    uint32_t count = 0;

    for (uint32_t s = 0; s < OP_SLOTS; s++) {
        if (!p->size[s])
            continue;
        const struct image *image = slots[s].is_weight ? &p->weights : &p->arena;
        bool texel = d->texel && s < OP_TEXEL_SLOTS, whole = texel && !slots[s].is_weight;
        bindings[count++] = (struct gpu_binding){
            .slot = s,
            .texel = texel,
            .buffer = image->buffer,
            .offset = whole ? 0 : p->offset[s],
            .size = whole ? image->size : p->size[s],
        };
        if (s == OP_OUT) /* and the gap after it, so that drivers do not hide what is too much */
            bindings[count - 1].size += ALIGN;
        if (s < OP_TEXEL_SLOTS)
            d->push[s] = whole ? (uint32_t)(p->offset[s] / 16) : 0;
    }
    return count;
}

static int launch(struct gpu *gpu, const struct gpu_launch *launch, struct fault *f)
{
    _cleanup_(gpu_commands_freep) struct gpu_commands *commands = NULL;

    int r = gpu_commands_new(gpu, 1, &commands, f);
    if (r >= 0)
        r = gpu_commands_launch(commands, launch, f);
    if (r >= 0)
        r = gpu_commands_end(commands, f);
    return r < 0 ? r : gpu_submit(gpu, commands, 0, f);
}

/* Everything but the result must be as it was. */
static int collect(struct gpu *gpu, const struct layout_plan *p, void *ret_out, struct fault *f)
{
    size_t start = p->offset[OP_OUT], end = start + p->size[OP_OUT];
    _cleanup_(freep) uint8_t *after = malloc(p->arena.size);

    if (!after)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = gpu_download(gpu, p->arena.buffer, 0, after, p->arena.size, f);
    if (r < 0)
        return r;
    if (memcmp(after, p->arena.bytes, start) != 0 ||
        memcmp(after + end, p->arena.bytes + end, p->arena.size - end) != 0)
        return fault_set(f, -EBADMSG, "bytes beside the result were written");
    memcpy(ret_out, after + start, p->size[OP_OUT]);
    return 0;
}

static int run_planned(enum op_variant variant, enum op_kind op, const union op_args *args,
                       const struct op_slot slots[OP_SLOTS], struct layout_plan *p, void *ret_out,
                       struct fault *f)
{
    struct gpu *gpu = op_run_gpu();
    struct caps caps = caps_for(gpu, variant);
    struct gpu_binding bindings[OP_SLOTS];
    struct dispatch d = {0};
    char name[64];

    int r = ops[op].choose(&caps, args, variant == OP_VARIANT_CPU_TEXEL, &d, f);
    if (r >= 0)
        r = upload(gpu, &p->arena, GPU_LIFETIME_ARENA, f);
    if (r >= 0)
        r = upload(gpu, &p->weights, GPU_LIFETIME_WEIGHTS, f);
    if (r < 0)
        return r;
    struct gpu_launch l = {
        .bindings = bindings,
        .binding_count = bind(slots, p, &d, bindings),
        .push = d.push,
        .push_count = d.push_count,
        .groups = {d.groups[0], d.groups[1], d.groups[2]},
    };
    (void)snprintf(name, sizeof name, "%s.%s", d.kernel, d.texel ? "texel" : "ssbo");
    r = gpu_kernel_get(gpu, name, d.spec, d.spec_count, &l.kernel, f);
    if (r >= 0)
        r = launch(gpu, &l, f);
    return r < 0 ? r : collect(gpu, p, ret_out, f);
}

int op_run(enum op_variant variant, enum op_kind op, const union op_args *args,
           const struct op_slot slots[OP_SLOTS], void *ret_out, size_t out_size, struct fault *f)
{
    struct layout_plan p = {0};

    int r = ops[op].check(args, f);
    if (r < 0)
        return r;
    plan_slots(slots, out_size, &p);
    r = fill_images(slots, &p);
    if (r >= 0)
        r = run_planned(variant, op, args, slots, &p, ret_out, f);
    plan_done(&p);
    return r;
}
