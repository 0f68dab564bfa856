/* select_row — y = table[step]. Contract: vk/ops/op.h. Lanes along the uvec4 of the row. */
#version 450
#extension GL_GOOGLE_include_directive : require

#include "abi/select_row.h"

layout(local_size_x_id = SELECT_ROW_SPEC_LX) in;

layout(push_constant) uniform Push { int push[SELECT_ROW_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Step { uint step_now; };
layout(set = 0, binding = 7, std430) writeonly buffer Result { uvec4 y[]; };

#include "lib/operand.glsl"

void main()
{
    int count = push[SELECT_ROW_PUSH_V], v = int(gl_GlobalInvocationID.x);
    if (v < count)
        y[v] = OPERAND(0, int(step_now) * count + v);
}
