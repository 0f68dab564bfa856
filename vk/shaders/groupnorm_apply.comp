/* groupnorm_apply — y = act((x - mean) * rstd * gamma + beta), writing the concat. Contract:
 * vk/ops/op.h.
 *
 * Lanes lie along the uvec4 of a row of y; an invocation keeps mean, scale and shift of its 8
 * channels and walks down PIXELS pixels. Grid: x uvec4, y runs of pixels, z batch. Padding: scale
 * and shift are zero. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/groupnorm_apply.h"

layout(local_size_x_id = GROUPNORM_APPLY_SPEC_LX) in;
layout(constant_id = GROUPNORM_APPLY_SPEC_SOURCES) const int SOURCES = 1;
layout(constant_id = GROUPNORM_APPLY_SPEC_SILU) const bool SILU = false;
layout(constant_id = GROUPNORM_APPLY_SPEC_X_F32) const bool X_F32 = false;

layout(push_constant) uniform Push { int push[GROUPNORM_APPLY_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Stats { vec2 stats[]; };
layout(set = 0, binding = 5, std430) readonly buffer Gamma { float gamma[]; };
layout(set = 0, binding = 6, std430) readonly buffer Beta { float beta[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Result { uvec4 y[]; };

#include "lib/operand.glsl"
#include "lib/half.glsl"
#include "lib/activation.glsl"

void fetch(bool second, int at, out vec4 low, out vec4 high)
{
    if (SOURCES == 2 && second)
        OPERAND_EIGHT(1, X_F32, at, low, high);
    else
        OPERAND_EIGHT(0, X_F32, at, low, high);
}

float finish(float x, vec3 norm)
{
    float n = (x - norm.x) * norm.y + norm.z;
    return SILU ? n * activation_sigmoid(n) : n;
}

void main()
{
    int hw = push[GROUPNORM_APPLY_PUSH_HW], groups = push[GROUPNORM_APPLY_PUSH_GROUPS];
    int c0 = push[GROUPNORM_APPLY_PUSH_C0], c1 = push[GROUPNORM_APPLY_PUSH_C1];
    int row0 = (c0 + 7) / 8, row1 = (c1 + 7) / 8, row = row0 + row1;
    int size = (c0 + c1) / groups, batch = int(gl_WorkGroupID.z);
    int v = int(gl_GlobalInvocationID.x);
    if (v >= row)
        return;

    bool second = v >= row0;
    int local_v = second ? v - row0 : v, local_c = second ? c1 : c0;
    vec3 norm[8]; /* mean, scale, shift */
    [[unroll]] for (int j = 0; j < 8; j++) {
        bool real = local_v * 8 + j < local_c;
        int c = real ? local_v * 8 + j + (second ? c0 : 0) : 0;
        vec2 s = stats[batch * groups + c / size];
        norm[j] = real ? vec3(s.x, s.y * gamma[c], beta[c]) : vec3(0.0);
    }

    int local_row = second ? row1 : row0;
    int pixel = int(gl_WorkGroupID.y) * push[GROUPNORM_APPLY_PUSH_PIXELS];
    int end = min(pixel + push[GROUPNORM_APPLY_PUSH_PIXELS], hw);
    for (; pixel < end; pixel++) {
        vec4 low, high;
        fetch(second, (batch * hw + pixel) * local_row + local_v, low, high);
        uvec4 result;
        [[unroll]] for (int q = 0; q < 4; q++) {
            vec2 x = q < 2 ? vec2(low[2 * q % 4], low[(2 * q + 1) % 4])
                           : vec2(high[2 * q % 4], high[(2 * q + 1) % 4]);
            result[q] = half_pair(finish(x.x, norm[2 * q]), finish(x.y, norm[2 * q + 1]));
        }
        y[(batch * hw + pixel) * row + v] = result;
    }
}
