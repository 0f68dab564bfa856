#version 450
#extension GL_GOOGLE_include_directive : require
/* weight_sum — sums over a stretch of packed weights, to see whether a bit of them has changed.
 *
 * Every word is scrambled together with its place, so that a flipped bit and a swapped word both
 * change the sum of its column (x, y, z, w each have one); whole numbers only: the same on every
 * device. Scrambling: the finalizer of MurmurHash3. */
#include "abi/weight_sum.h"

layout(local_size_x = WEIGHT_SUM_LOCAL) in;

layout(push_constant) uniform Push {
    uint push[WEIGHT_SUM_PUSH];
};

layout(std430, binding = 4) readonly buffer Words {
    uvec4 words[];
};

layout(std430, binding = 7) writeonly buffer Sums {
    uvec4 sums[];
};

shared uvec4 partial[WEIGHT_SUM_LOCAL];

uvec4 scramble(uvec4 h)
{
    h = (h ^ h >> 16u) * 0x85ebca6bu;
    h = (h ^ h >> 13u) * 0xc2b2ae35u;
    return h ^ h >> 16u;
}

void main()
{
    uint lane = gl_LocalInvocationID.x;
    uvec4 sum = uvec4(0);

    for (uint i = gl_GlobalInvocationID.x; i < push[WEIGHT_SUM_VECTORS];
         i += WEIGHT_SUM_LOCAL * WEIGHT_SUM_GROUPS)
        sum += scramble(words[i] + i * 0x9e3779b9u);
    partial[lane] = sum;
    barrier();
    for (uint width = WEIGHT_SUM_LOCAL / 2u; width > 0u; width /= 2u) {
        if (lane < width)
            partial[lane] += partial[lane + width];
        barrier();
    }
    if (lane == 0u)
        sums[push[WEIGHT_SUM_FIRST] + gl_WorkGroupID.x] = partial[0];
}
