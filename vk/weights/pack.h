/* pack — one tensor's rows into its packed weight: sizes, and the launch that does it. Pure. */
#pragma once

#include "vk/shaders/abi/pack.h"
#include "vk/weights/safetensors.h"
#include "vk/weights/weights.h"

/* `want` with what it leaves open filled in: taps, layouts. */
struct weight_want pack_complete(const struct weight_want *want);

/* Padded columns of this part alone, before the padding to 64. Completed wants only, here and
 * below. */
uint64_t pack_columns(const struct weight_want *want);
/* Bytes of the packed weight. */
uint64_t pack_size(const struct weight_want *want);

/* May the file's elements be packed? */
bool pack_takes(enum safetensors_dtype type);
/* What the elements must be: vectors stay f32, all else becomes f16. */
enum safetensors_range pack_range(const struct weight_want *want);
/* Elements of one row of the file's tensor. */
uint64_t pack_row_elements(const struct weight_want *want);

/* Packing rows first … first + count - 1 that lie side by side in the source buffer. */
struct pack_launch {
    const char *kernel; /* as in gen/kernels.inc */
    uint32_t push[PACK_PUSH];
    uint32_t groups[3];
};
struct pack_launch pack_rows(const struct weight_want *want, enum safetensors_dtype type,
                             uint32_t first, uint32_t count);
