/* peak_vec4 — as peak_scalar.comp, the chains four to a vector, for devices that like vectors. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/peak.h"

layout(local_size_x_id = PEAK_SPEC_LX) in;
layout(push_constant) uniform Push { int push[PEAK_PUSH_COUNT]; };
layout(set = 0, binding = 7, std430) writeonly buffer Result { float y[]; };

void main()
{
    vec4 x = vec4(float(gl_GlobalInvocationID.x) * 1e-9 + 0.999), z = vec4(1e-7);
    vec4 a[PEAK_CHAINS / 4];
    [[unroll]] for (int i = 0; i < PEAK_CHAINS / 4; i++)
        a[i] = x + vec4(i, i + 3, i + 6, i + 9);
    for (int round = 0; round < push[PEAK_PUSH_ROUNDS]; round++)
        [[unroll]] for (int j = 0; j < PEAK_FMA_PER_ROUND / PEAK_CHAINS; j++)
            [[unroll]] for (int i = 0; i < PEAK_CHAINS / 4; i++)
                a[i] = fma(a[i], x, z);
    vec4 sum = vec4(0.0);
    [[unroll]] for (int i = 0; i < PEAK_CHAINS / 4; i++)
        sum += a[i];
    y[gl_GlobalInvocationID.x] = dot(sum, vec4(1.0));
}
