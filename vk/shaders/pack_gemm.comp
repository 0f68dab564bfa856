#version 450
#extension GL_GOOGLE_include_directive : require
/* pack_gemm — rows of a tensor [n, k, taps] into [N/64][tap][K/8][j 8][lane 8] uvec4 of 8
 * consecutive k. One invocation writes one uvec4, so none shares a word with another. weights.h has
 * the picture. */
#include "lib/pack.glsl"

layout(std430, binding = 7) writeonly buffer Destination {
    uvec4 destination[];
};

void main()
{
    uint index = thread_index();
    if (index >= push[PACK_THREADS])
        return;
    uint k8_count = push[PACK_K_PADDED] / 8u;
    uint k8 = index % k8_count;
    uint tap = index / k8_count % push[PACK_TAPS];
    uint row = index / k8_count / push[PACK_TAPS];
    uint column = column_of(push[PACK_FIRST_ROW] + row);
    uint lane = column % 64u / 8u;
    uint j = column % 8u;
    uint line = (column / 64u * push[PACK_TAPS] + tap) * k8_count + k8;
    destination[(line * 8u + j) * 8u + lane] = eight_halves(row, k8, tap);
}
