/* advance — step = step + 1. Contract: vk/ops/op.h. One lane does it. */
#version 450

layout(local_size_x = 1) in;
layout(set = 0, binding = 7, std430) buffer Step { uint step_now; };

void main()
{
    step_now = step_now + 1u;
}
