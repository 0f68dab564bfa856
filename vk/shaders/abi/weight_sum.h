/* weight_sum.h — push constants of the weight_sum kernel, as indices of 32-bit words. Included by C
 * and GLSL.
 *
 * A launch sums the WEIGHT_SUM_VECTORS uvec4 at slot 4; every workgroup leaves one uvec4 at slot 7,
 * the first of them at index WEIGHT_SUM_FIRST. */
#ifndef ABI_WEIGHT_SUM_H
#define ABI_WEIGHT_SUM_H

#define WEIGHT_SUM_VECTORS 0
#define WEIGHT_SUM_FIRST   1
#define WEIGHT_SUM_PUSH    2

#define WEIGHT_SUM_LOCAL  64 /* invocations a workgroup */
#define WEIGHT_SUM_GROUPS 64 /* workgroups a launch */

#endif
