#version 450
#extension GL_GOOGLE_include_directive : require
/* pack_rows — rows of a tensor [n, k] into f16 rows padded to 8: embedding tables. */
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
    uint row = index / k8_count;
    uint k8 = index % k8_count;
    destination[(push[PACK_FIRST_ROW] + row) * k8_count + k8] = eight_halves(row, k8, 0u);
}
