/* peak_scalar — how many FMAs a second the device does when nothing is in the way: 12 independent
 * chains of scalars per lane. slot 7: one f32 per lane, so that no work is left out.
 * (Mesa 22.3's llvmpipe compiles fma() to a multiplication and an addition, so that this reaches
 * some 62 % of a native loop there: the driver's limit, not the shader's.) */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/peak.h"

layout(local_size_x_id = PEAK_SPEC_LX) in;
layout(push_constant) uniform Push { int push[PEAK_PUSH_COUNT]; };
layout(set = 0, binding = 7, std430) writeonly buffer Result { float y[]; };

void main()
{
    float x = float(gl_GlobalInvocationID.x) * 1e-9 + 0.999, z = 1e-7;
    float a[PEAK_CHAINS];
    [[unroll]] for (int i = 0; i < PEAK_CHAINS; i++)
        a[i] = x + float(i);
    for (int round = 0; round < push[PEAK_PUSH_ROUNDS]; round++)
        [[unroll]] for (int j = 0; j < PEAK_FMA_PER_ROUND / PEAK_CHAINS; j++)
            [[unroll]] for (int i = 0; i < PEAK_CHAINS; i++)
                a[i] = fma(a[i], x, z);
    float sum = 0.0;
    [[unroll]] for (int i = 0; i < PEAK_CHAINS; i++)
        sum += a[i];
    y[gl_GlobalInvocationID.x] = sum;
}
