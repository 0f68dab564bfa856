/* layernorm — y = (x - mean) / sqrt(var + eps) * gamma + beta over the channels of a row. op.h.
 *
 * A workgroup takes LY rows, LX lanes each, lane l the uvec4 l, l + LX, … On CPU devices LX is 1: a
 * lane is a row, nothing is shared. Two passes and a correction as in groupnorm_stats.comp. Padding
 * channels count for nothing; their gamma and beta are zero, so they stay zero. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/layernorm.h"

layout(local_size_x_id = LAYERNORM_SPEC_LX, local_size_y_id = LAYERNORM_SPEC_LY) in;
layout(constant_id = LAYERNORM_SPEC_LX) const int LX = 1;
layout(constant_id = LAYERNORM_SPEC_LY) const int LY = 8;
layout(constant_id = LAYERNORM_SPEC_F32_OUT) const bool F32_OUT = false;
layout(constant_id = LAYERNORM_SPEC_X_F32) const bool X_F32 = false;

layout(push_constant) uniform Push { int push[LAYERNORM_PUSH_COUNT]; };
layout(set = 0, binding = 5, std430) readonly buffer Gamma { vec4 gamma[]; };
layout(set = 0, binding = 6, std430) readonly buffer Beta { vec4 beta[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Halves { uvec4 y_halves[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Floats { vec4 y_floats[]; };

#define REDUCE_X LX
#define REDUCE_Y LY
#include "lib/operand.glsl"
#include "lib/half.glsl"
#include "lib/reduce.glsl"

/* Sums x - shift and its square over the row that starts at uvec4 `first`. */
vec2 sum_row(int first, int count, float shift)
{
    vec2 sum = vec2(0.0);
    for (int v = int(gl_LocalInvocationID.x); v < count; v += LX) {
        vec4 low, high;
        OPERAND_EIGHT(0, X_F32, first + v, low, high);
        vec2 eight = vec2(0.0);
        [[unroll]] for (int j = 0; j < 8; j++) {
            bool real = v * 8 + j < push[LAYERNORM_PUSH_C];
            float d = real ? (j < 4 ? low[j % 4] : high[j % 4]) - shift : 0.0;
            eight += vec2(d, d * d);
        }
        sum += eight;
    }
    return reduce_sum(sum);
}

void write_eight(int at, vec4 low, vec4 high)
{
    if (F32_OUT) {
        y_floats[2 * at] = low;
        y_floats[2 * at + 1] = high;
    } else {
        y_halves[at] = uvec4(half_pair(low.x, low.y), half_pair(low.z, low.w),
                             half_pair(high.x, high.y), half_pair(high.z, high.w));
    }
}

void main()
{
    int group = int(gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x);
    int row = group * LY + int(gl_LocalInvocationID.y);
    bool exists = row < push[LAYERNORM_PUSH_ROWS];
    int count = (push[LAYERNORM_PUSH_C] + 7) / 8;
    int first = exists ? row * count : 0; /* all lanes meet in the sums */
    float c = float(push[LAYERNORM_PUSH_C]);

    float mean = sum_row(first, count, 0.0).x / c;
    vec2 about = sum_row(first, count, mean) / c;
    mean += about.x;
    float variance = max(about.y - about.x * about.x, 0.0);
    float rstd = 1.0 / sqrt(variance + intBitsToFloat(push[LAYERNORM_PUSH_EPS]));
    if (!exists)
        return;
    for (int v = int(gl_LocalInvocationID.x); v < count; v += LX) {
        vec4 low, high;
        OPERAND_EIGHT(0, X_F32, first + v, low, high);
        write_eight(first + v, (low - mean) * rstd * gamma[2 * v] + beta[2 * v],
                    (high - mean) * rstd * gamma[2 * v + 1] + beta[2 * v + 1]);
    }
}
