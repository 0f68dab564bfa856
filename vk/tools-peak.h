/* tools-peak — the yardsticks of tools_bench: what the device does when it only multiplies and
 * adds, and what the host's own cores do in a native SIMD loop. Both in GFLOP/s (an FMA is two). */
#pragma once

#include <stdint.h>

#include "vk/base/fault.h"
#include "vk/gpu/gpu.h"

struct peak;

/* Prepares the scalar and the vec4 shader and keeps the faster one. */
int peak_new(struct gpu *gpu, struct peak **ret_peak, struct fault *f);
struct peak *peak_free(struct peak *p);
DEFINE_FREEP(struct peak *, peak_free)

/* Runs it once, some 10 ms. */
int peak_run(struct peak *p, double *ret_gflops, struct fault *f);
const char *peak_kernel(const struct peak *p);

/* A loop of fused multiply-adds in the widest registers the host has, on all its cores, some 10 ms.
 * 0 where there is none for this processor. */
double peak_native(void);
const char *peak_native_kind(void);
