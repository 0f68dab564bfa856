/* op_run — runs one op on the device the way record.c does, over operands given as host memory.
 *
 * Tensors lie in an arena whose first 256 bytes are zero; all other bytes no tensor covers are NaN
 * as halves and floats, so that a read beside an operand poisons the result, and are looked at
 * afterwards, so that a write beside the result is seen. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tests/support/tensors.h"
#include "vk/gpu/gpu.h"
#include "vk/ops/op.h"

/* What choose() is made to believe, so that every device runs every variant. */
enum op_variant {
    OP_VARIANT_CPU_TEXEL,
    OP_VARIANT_CPU_SSBO,
    OP_VARIANT_GPU_SSBO,
    OP_VARIANT_COUNT,
};

struct op_slot {
    const void *data; /* NULL: the slot is unused (OP_OUT: starts as NaN) */
    size_t size;
    bool is_weight; /* in a buffer of its own kind, its texel view spanning just it */
};

/* Rows as an operand of slots 0…3, in halves or as f32. */
static inline struct op_slot op_slot_rows(const struct rows *r, bool is_f32)
{
    return is_f32 ? (struct op_slot){r->floats, 2 * r->bytes, false}
                  : (struct op_slot){r->halves, r->bytes, false};
}

/* The device all tests of a program share; prints why and ends the test when there is none. */
struct gpu *op_run_gpu(void);
int op_run_teardown(void **state); /* of a group of tests: closes it */

const char *op_variant_name(enum op_variant variant);

/* Checks, chooses, launches once; ret_out gets out_size bytes of slot 7. Returns 0 or -errno, the
 * reason in f (-EBADMSG: the kernel wrote beside its result). */
int op_run(enum op_variant variant, enum op_kind op, const union op_args *args,
           const struct op_slot slots[OP_SLOTS], void *ret_out, size_t out_size, struct fault *f);
