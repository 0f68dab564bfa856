/* sampler_step — guidance and one scheduler call (vk/sample/sched.h), in place. Contract:
 * vk/ops/op.h.
 *
 *     e0   = u + guidance * (c - u)          base = use_saved ? saved : x      saved = x if save
 *     base = clamp(clip_x * base + clip_e * e0, -1, 1) if clip
 *     x    = x_scale * base + e_scale[0] * e0 + … + e_scale[3] * e3            e1, e2, e3 = e0, e1,
 *     e2 if push
 *
 * State: planes x, saved, e1, e2, e3 of [c, hw] f32. Lanes along pixels; grid y: channels. */
#version 450
#extension GL_GOOGLE_include_directive : require

#include "abi/sampler_step.h"
#include "abi/step.h"

layout(local_size_x_id = SAMPLER_STEP_SPEC_LX) in;
layout(constant_id = SAMPLER_STEP_SPEC_GUIDED) const bool GUIDED = false;

layout(push_constant) uniform Push { int push[SAMPLER_STEP_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Estimate { float estimate[]; };
layout(set = 0, binding = 5, std430) readonly buffer Rows { float rows[]; };
layout(set = 0, binding = 6, std430) readonly buffer Step { uint step_now; };
layout(set = 0, binding = 7, std430) buffer State { float state[]; };

/* A history that no row has filled yet may hold anything: a weight of zero does not touch it. */
float weighted(float weight, float e)
{
    return weight == 0.0 ? 0.0 : weight * e;
}

void main()
{
    int hw = push[SAMPLER_STEP_PUSH_HW], c = push[SAMPLER_STEP_PUSH_C], row = (c + 7) / 8 * 8;
    int pixel = int(gl_GlobalInvocationID.x), channel = int(gl_WorkGroupID.y);
    if (pixel >= hw)
        return;

    int r = int(step_now) * STEP_ROW_FLOATS;
    float e0 = estimate[pixel * row + channel];
    if (GUIDED) {
        float conditional = estimate[(hw + pixel) * row + channel];
        e0 += rows[r + STEP_GUIDANCE] * (conditional - e0);
    }

    int plane = c * hw, at = channel * hw + pixel;
    float x = state[at], saved = state[plane + at];
    float e1 = state[2 * plane + at], e2 = state[3 * plane + at], e3 = state[4 * plane + at];
    float base = rows[r + STEP_USE_SAVED] != 0.0 ? saved : x;
    if (rows[r + STEP_CLIP] != 0.0)
        base = clamp(rows[r + STEP_CLIP_X] * base + rows[r + STEP_CLIP_E] * e0, -1.0, 1.0);
    state[at] = rows[r + STEP_X_SCALE] * base + weighted(rows[r + STEP_E_SCALE], e0) +
                weighted(rows[r + STEP_E_SCALE + 1], e1) +
                weighted(rows[r + STEP_E_SCALE + 2], e2) +
                weighted(rows[r + STEP_E_SCALE + 3], e3);
    if (rows[r + STEP_SAVE] != 0.0)
        state[plane + at] = x;
    if (rows[r + STEP_PUSH] != 0.0) {
        state[2 * plane + at] = e0;
        state[3 * plane + at] = e1;
        state[4 * plane + at] = e2;
    }
}
