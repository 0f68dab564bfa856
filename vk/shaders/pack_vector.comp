#version 450
#extension GL_GOOGLE_include_directive : require
/* pack_vector — a tensor [n] into f32 at the packed columns: biases, norm gains. */
#include "lib/pack.glsl"

layout(std430, binding = 7) writeonly buffer Destination {
    uint destination[];
};

void main()
{
    uint index = thread_index();
    if (index < push[PACK_THREADS])
        destination[column_of(push[PACK_FIRST_ROW] + index)] = source_float(index);
}
