/* ops-private — what the files of vk/ops/ share: the table's parts, and decisions every op takes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/ops/op.h"

#define SLOT(s) (1u << (s))

/* Each op: check, choose, cost (op.h). */
#define OP(name)                                                                                   \
    int name##_check(const union op_args *args, struct fault *f);                                  \
    int name##_choose(const struct caps *caps, const union op_args *args, bool texel_ok,           \
                      struct dispatch *ret_dispatch, struct fault *f);                             \
    struct op_cost name##_cost(const union op_args *args);
#include "vk/ops/ops.def"
#undef OP

/* A condition that arguments must meet, and what to say when they do not. */
struct rule {
    bool is_met;
    const char *text;
};

/* -EINVAL + fault "OP: TEXT" of the first rule that is not met. */
int ops_check(const char *op, const struct rule *rules, size_t count, struct fault *f);

/* What choose() asks of a device beside the tile. */
struct launch_need {
    const char *op;
    uint64_t texel_uvec4;   /* the largest operand in slots 0…3, in uvec4; 0: there is none */
    uint64_t binding_bytes; /* the largest operand in slots 4…7 */
    uint32_t invocations;   /* per workgroup */
};

/* Which variant: texel buffers where they pay (software devices that hold large views) or where the
 * operand is too large for a storage binding; storage buffers otherwise. -EFBIG + fault when
 * neither fits, or another need or the grid of *d is not met. Sets d->texel. */
int ops_settle(const struct caps *caps, const struct launch_need *need, bool texel_ok,
               struct dispatch *d, struct fault *f);

/* Lanes of a workgroup of simple kernels: one vector on a CPU, two subgroups or so on a GPU. */
uint32_t ops_lanes(const struct caps *caps);

/* Splits `count` workgroups over dimensions x and `other` (1 or 2) where x alone cannot hold them;
 * the kernel computes x + other * gl_NumWorkGroups.x and leaves what is beyond alone. */
void ops_fold(const struct caps *caps, uint64_t count, int other, uint32_t ret_groups[3]);

static inline uint64_t div_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The bits of an f32 push constant. */
uint32_t ops_float_bits(float x);
