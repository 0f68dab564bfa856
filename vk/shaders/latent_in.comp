/* latent_in — f32 planes [c, hw], scaled, and extra planes as they are to f16 rows [batch, hw,
 * pad8(c + extra)], every batch entry the same. Contract: vk/ops/op.h. Lanes along pixels; grid y:
 * the uvec4 of a row. Padding channels are zero. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/latent_in.h"
#include "abi/step.h"

layout(local_size_x_id = LATENT_IN_SPEC_LX) in;
layout(constant_id = LATENT_IN_SPEC_BY_STEP) const bool BY_STEP = false;

layout(push_constant) uniform Push { int push[LATENT_IN_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Planes { float x[]; };
layout(set = 0, binding = 5, std430) readonly buffer Rows { float rows[]; };
layout(set = 0, binding = 6, std430) readonly buffer Step { uint step_now; };
layout(set = 0, binding = 7, std430) writeonly buffer Result { uvec4 y[]; };

#include "lib/half.glsl"

void main()
{
    int hw = push[LATENT_IN_PUSH_HW], c = push[LATENT_IN_PUSH_C];
    int all = c + push[LATENT_IN_PUSH_EXTRA], row = (all + 7) / 8;
    int pixel = int(gl_GlobalInvocationID.x), v = int(gl_WorkGroupID.y);
    if (pixel >= hw)
        return;

    float scale = intBitsToFloat(push[LATENT_IN_PUSH_SCALE]);
    if (BY_STEP)
        scale = rows[int(step_now) * STEP_ROW_FLOATS + STEP_INPUT_SCALE];
    float value[8];
    [[unroll]] for (int j = 0; j < 8; j++) {
        int channel = v * 8 + j;
        value[j] = 0.0;
        if (channel < c)
            value[j] = x[channel * hw + pixel] * scale;
        else if (channel < all)
            value[j] = x[(push[LATENT_IN_PUSH_AT] + channel - c) * hw + pixel];
    }
    uvec4 result;
    [[unroll]] for (int q = 0; q < 4; q++)
        result[q] = half_pair(value[2 * q], value[2 * q + 1]);
    for (int batch = 0; batch < push[LATENT_IN_PUSH_BATCH]; batch++)
        y[(batch * hw + pixel) * row + v] = result;
}
