/* embed — y[row] = tokens[ids[row]] + positions[row % length], where ids from a first one on are
 * rows of a table of their own (slot 2). Contract: vk/ops/op.h.
 * Lanes along the uvec4 of a row; grid y: rows. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/embed.h"

layout(local_size_x_id = EMBED_SPEC_LX) in;

layout(push_constant) uniform Push { int push[EMBED_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Ids { uint ids[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Result { uvec4 y[]; };

#include "lib/operand.glsl"

void main()
{
    int count = push[EMBED_PUSH_V], v = int(gl_GlobalInvocationID.x), row = int(gl_WorkGroupID.y);
    if (v >= count)
        return;
    int id = int(ids[row]), first = push[EMBED_PUSH_WORDS];
    uvec4 token;
    if (id < first)
        token = OPERAND(0, id * count + v);
    else
        token = OPERAND(2, (id - first) * count + v);
    uvec4 position = OPERAND(1, row % push[EMBED_PUSH_LENGTH] * count + v);
    [[unroll]] for (int q = 0; q < 2; q++) {
        vec4 a = vec4(unpackHalf2x16(token[2 * q]), unpackHalf2x16(token[2 * q + 1]));
        vec4 b = vec4(unpackHalf2x16(position[2 * q]), unpackHalf2x16(position[2 * q + 1]));
        y[2 * (row * count + v) + q] = floatBitsToUint(a + b);
    }
}
