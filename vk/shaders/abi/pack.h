/* pack.h — push constants of the pack kernels, as indices of 32-bit words. Included by C and GLSL.
 *
 * A launch packs `rows` rows of a tensor [n, k, taps], beginning with row `first_row`; the source
 * buffer (slot 4) holds exactly these rows in the file's element type, the destination (slot 7) is
 * the weight. */
#ifndef ABI_PACK_H
#define ABI_PACK_H

#define PACK_TYPE      0 /* PACK_TYPE_… */
#define PACK_FIRST_ROW 1
#define PACK_ROW_COUNT 2
#define PACK_N         3 /* logical rows of the tensor; geglu: half are values, half gates */
#define PACK_K         4 /* logical columns */
#define PACK_TAPS      5
#define PACK_K_PADDED  6 /* columns in memory */
#define PACK_K_FIRST   7 /* layout of k (vk/ops/layout.h) */
#define PACK_K_RUN     8
#define PACK_N_FIRST   9 /* layout of n */
#define PACK_N_RUN     10
#define PACK_N_OFFSET  11 /* padded column of the weight where this tensor begins */
#define PACK_GEGLU     12
#define PACK_THREADS   13 /* invocations that have something to do */
#define PACK_PUSH      14

#define PACK_TYPE_F16  0
#define PACK_TYPE_BF16 1
#define PACK_TYPE_F32  2

#define PACK_LOCAL 64 /* invocations a workgroup */

#endif
