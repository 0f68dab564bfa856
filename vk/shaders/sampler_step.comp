/* sampler_step — guidance and one scheduler call (vk/sample/sched.h), in place. Contract:
 * vk/ops/op.h.
 *
 *     m     = u + guidance * (c - u)            clean = clean_x * x + clean_m * m
 *     e0    = conv_x * x + conv_m * m           e0 = clamp(e0, -clip, clip) if clip
 *     base  = use_saved ? saved : x
 *     x'    = x_scale * base + plain_x * x + m_scale * m + e_scale[0] * e0 + … + e_scale[3] * e3
 *             + sum_scale * sum + noise_scale * noise
 *     sum   = sum_keep * sum + sum_e * e0       saved = x if save
 *     e1, e2, e3 = e0, e1, e2 if push
 *     masked: x' = mask * x' + (1 - mask) * (keep_image * original + keep_noise * original_noise)
 *
 * State: the groups of abi/step.h, [c, hw] f32 each. Lanes along pixels; grid y: channels. */
#version 450
#extension GL_GOOGLE_include_directive : require

#include "abi/sampler_step.h"
#include "abi/step.h"

layout(local_size_x_id = SAMPLER_STEP_SPEC_LX) in;
layout(constant_id = SAMPLER_STEP_SPEC_GUIDED) const bool GUIDED = false;
layout(constant_id = SAMPLER_STEP_SPEC_MASKED) const bool MASKED = false;

layout(push_constant) uniform Push { int push[SAMPLER_STEP_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Estimate { float estimate[]; };
layout(set = 0, binding = 5, std430) readonly buffer Rows { float rows[]; };
layout(set = 0, binding = 6, std430) readonly buffer Step { uint step_now; };
layout(set = 0, binding = 7, std430) buffer State { float state[]; };

/* What no call has written yet may hold anything: a weight of zero does not touch it. */
float weighted(float weight, float value)
{
    return weight == 0.0 ? 0.0 : weight * value;
}

float guided(int at_u, int at_c, float guidance)
{
    float u = estimate[at_u];
    return GUIDED ? u + guidance * (estimate[at_c] - u) : u;
}

void main()
{
    int hw = push[SAMPLER_STEP_PUSH_HW], c = push[SAMPLER_STEP_PUSH_C], row = (c + 7) / 8 * 8;
    int pixel = int(gl_GlobalInvocationID.x), channel = int(gl_WorkGroupID.y);
    if (pixel >= hw)
        return;

    int r = int(step_now) * STEP_ROW_FLOATS;
    int plane = c * hw, at = channel * hw + pixel, history = STATE_E * plane + at;
    float m = guided(pixel * row + channel, (hw + pixel) * row + channel, rows[r + STEP_GUIDANCE]);
    float x = state[at], saved = state[STATE_SAVED * plane + at];
    float e0 = rows[r + STEP_CONV_X] * x + rows[r + STEP_CONV_M] * m;
    float e1 = state[history], e2 = state[history + plane], e3 = state[history + 2 * plane];
    float total = state[STATE_SUM * plane + at], clip = rows[r + STEP_CLIP];

    if (clip != 0.0)
        e0 = clamp(e0, -clip, clip);
    float next = rows[r + STEP_X_SCALE] * (rows[r + STEP_USE_SAVED] != 0.0 ? saved : x) +
                 rows[r + STEP_PLAIN_X] * x + rows[r + STEP_M_SCALE] * m +
                 rows[r + STEP_E_SCALE] * e0 + weighted(rows[r + STEP_E_SCALE + 1], e1) +
                 weighted(rows[r + STEP_E_SCALE + 2], e2) +
                 weighted(rows[r + STEP_E_SCALE + 3], e3) +
                 weighted(rows[r + STEP_SUM_SCALE], total) +
                 weighted(rows[r + STEP_NOISE_SCALE], state[STATE_NOISE * plane + at]);
    if (MASKED) {
        float paint = state[STATE_MASK * plane + pixel];
        float keep = rows[r + STEP_KEEP_IMAGE] * state[STATE_ORIGINAL * plane + at] +
                     rows[r + STEP_KEEP_NOISE] * state[STATE_ORIGINAL_NOISE * plane + at];
        next = weighted(paint, next) + weighted(1.0 - paint, keep);
    }
    state[at] = next;
    state[STATE_CLEAN * plane + at] = rows[r + STEP_CLEAN_X] * x + rows[r + STEP_CLEAN_M] * m;
    state[STATE_SUM * plane + at] =
        weighted(rows[r + STEP_SUM_KEEP], total) + rows[r + STEP_SUM_E] * e0;
    if (rows[r + STEP_SAVE] != 0.0)
        state[STATE_SAVED * plane + at] = x;
    if (rows[r + STEP_PUSH] != 0.0) {
        state[history] = e0;
        state[history + plane] = e1;
        state[history + 2 * plane] = e2;
    }
}
