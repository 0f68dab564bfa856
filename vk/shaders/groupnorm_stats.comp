/* groupnorm_stats — mean and 1 / sqrt(var + eps) of every (batch, group); with IS_PART mean and
 * variance, of one band of a picture. Contract: vk/ops/op.h.
 *
 * One workgroup per (group, batch). A group is channels [first, first + size) of the concat, so per
 * source some uvec4 of each pixel's row, at both ends of which channels of the neighbours are
 * masked:
 *
 *     |  .  .  .  c  c  c  c  c |  c  c  c  .  .  .  .  . |      lanes: pixels; outer loop: the
 *     uvec4
 *
 * Two passes: the mean first, then squares about it; the second also sums the differences
 * themselves, which corrects the rounding of the first: mean += d, var = sum d^2 / n - (sum d /
 * n)^2. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/groupnorm_stats.h"

layout(local_size_x_id = GROUPNORM_STATS_SPEC_LX) in;
layout(constant_id = GROUPNORM_STATS_SPEC_LX) const int LX = 8;
layout(constant_id = GROUPNORM_STATS_SPEC_SOURCES) const int SOURCES = 1;
layout(constant_id = GROUPNORM_STATS_SPEC_X_F32) const bool X_F32 = false;
layout(constant_id = GROUPNORM_STATS_SPEC_IS_PART) const bool IS_PART = false;

layout(push_constant) uniform Push { int push[GROUPNORM_STATS_PUSH_COUNT]; };
layout(set = 0, binding = 7, std430) writeonly buffer Stats { vec2 stats[]; };

#define REDUCE_X LX
#define REDUCE_Y 1
#include "lib/operand.glsl"
#include "lib/reduce.glsl"

void fetch(int source, int at, out vec4 low, out vec4 high)
{
    if (SOURCES == 2 && source == 1)
        OPERAND_EIGHT(1, X_F32, at, low, high);
    else
        OPERAND_EIGHT(0, X_F32, at, low, high);
}

/* Adds x - shift and its square over channels [from, to) of one source. */
vec2 sum_source(int source, int channels, int from, int to, float shift)
{
    int hw = push[GROUPNORM_STATS_PUSH_HW];
    int row = (channels + 7) / 8;
    vec2 sum = vec2(0.0);
    for (int v = from / 8; v * 8 < to; v++) {
        for (int pixel = int(gl_LocalInvocationID.x); pixel < hw; pixel += LX) {
            vec4 low, high;
            fetch(source, (int(gl_WorkGroupID.y) * hw + pixel) * row + v, low, high);
            vec2 eight = vec2(0.0);
            [[unroll]] for (int j = 0; j < 8; j++) {
                bool inside = v * 8 + j >= from && v * 8 + j < to;
                float d = inside ? (j < 4 ? low[j % 4] : high[j % 4]) - shift : 0.0;
                eight += vec2(d, d * d);
            }
            sum += eight;
        }
    }
    return sum;
}

vec2 sum_group(int first, int size, float shift)
{
    int c0 = push[GROUPNORM_STATS_PUSH_C0], c1 = push[GROUPNORM_STATS_PUSH_C1];
    vec2 sum = sum_source(0, c0, first, min(first + size, c0), shift);
    if (SOURCES == 2)
        sum += sum_source(1, c1, max(first - c0, 0), first + size - c0, shift);
    return reduce_sum(sum);
}

void main()
{
    int groups = push[GROUPNORM_STATS_PUSH_GROUPS];
    int size = (push[GROUPNORM_STATS_PUSH_C0] + push[GROUPNORM_STATS_PUSH_C1]) / groups;
    int group = int(gl_WorkGroupID.x), first = group * size;
    float count = float(size) * float(push[GROUPNORM_STATS_PUSH_HW]);

    float mean = sum_group(first, size, 0.0).x / count;
    vec2 about = sum_group(first, size, mean) / count;
    float variance = max(about.y - about.x * about.x, 0.0);
    float rstd = 1.0 / sqrt(variance + intBitsToFloat(push[GROUPNORM_STATS_PUSH_EPS]));
    if (gl_LocalInvocationID.x == 0u)
        stats[int(gl_WorkGroupID.y) * groups + group] =
            vec2(mean + about.x, IS_PART ? variance : rstd);
}
