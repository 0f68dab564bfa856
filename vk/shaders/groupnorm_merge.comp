/* groupnorm_merge — mean and variance of the bands of a picture to mean and 1 / sqrt(var + eps) of
 * the whole. Contract: vk/ops/op.h. An invocation per group walks down the parts twice: the mean
 * first, then what the parts vary in themselves and about it. Parts weigh as many pixels as they
 * have; the last may be smaller. */
#version 450
#extension GL_GOOGLE_include_directive : require

#include "abi/groupnorm_merge.h"

layout(local_size_x_id = GROUPNORM_MERGE_SPEC_LX) in;

layout(push_constant) uniform Push { int push[GROUPNORM_MERGE_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Parts { vec2 parts[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Stats { vec2 stats[]; };

/* Of the picture's pixels, those of part p. */
float weight_of(int p)
{
    int pixels = push[GROUPNORM_MERGE_PUSH_PIXELS], hw = push[GROUPNORM_MERGE_PUSH_HW];
    return float(min(pixels, hw - p * pixels)) / float(hw);
}

void main()
{
    int group = int(gl_GlobalInvocationID.x), count = push[GROUPNORM_MERGE_PUSH_PARTS];
    int row = push[GROUPNORM_MERGE_PUSH_ROW];
    if (group >= push[GROUPNORM_MERGE_PUSH_GROUPS])
        return;

    float mean = 0.0, variance = 0.0;
    for (int p = 0; p < count; p++)
        mean += weight_of(p) * parts[p * row + group].x;
    for (int p = 0; p < count; p++) {
        vec2 part = parts[p * row + group];
        float d = part.x - mean;
        variance += weight_of(p) * (part.y + d * d);
    }
    stats[group] =
        vec2(mean, 1.0 / sqrt(variance + intBitsToFloat(push[GROUPNORM_MERGE_PUSH_EPS])));
}
