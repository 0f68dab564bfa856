/* attention — o = softmax(q k^T * scale) v without writing the scores (flash). Contract:
 * vk/ops/op.h.
 *
 *             keys, BC at a time ->
 *           +----+----+-- … --+       a lane owns TQ queries (lane, lane + LX, …) of one head and
 *   queries | s  | s  |       |  ->   a slice of DV uvec4 of the result; grid x: queries, y: batch
 *     TQ    +----+----+-- … --+       and head, z: slices. Every slice computes the scores again:
 *                                     only heads wider than a lane's registers are cut (the VAE's
 *                                     512, one head).
 * Per block: s = q k over all of the head; the maximum m grows, p = 2^(s - m), and what was summed
 * before shrinks by 2^(old m - m); then o += p v. f32 throughout; scores are scaled by log2(e) for
 * exp2. Keys past the end and, when causal, past the query have p = 0. Key 0 is always seen, so no
 * sum is empty. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/attention.h"

layout(local_size_x_id = ATTENTION_SPEC_LX) in;
layout(constant_id = ATTENTION_SPEC_LX) const int LX = 8;
layout(constant_id = ATTENTION_SPEC_TQ) const int TQ = 4;
layout(constant_id = ATTENTION_SPEC_BC) const int BC = 8;
layout(constant_id = ATTENTION_SPEC_DV) const int DV = 5;
layout(constant_id = ATTENTION_SPEC_CAUSAL) const bool CAUSAL = false;

layout(push_constant) uniform Push { int push[ATTENTION_PUSH_COUNT]; };
layout(set = 0, binding = 7, std430) writeonly buffer Result { uvec4 y[]; };

#include "lib/operand.glsl"
#include "lib/half.glsl"

const float NOT_YET = -1.0e30;

float score[TQ * BC];
float sum[TQ], top[TQ], shrink[TQ];
float o[TQ * DV * 8];

/* score = q k^T of TQ queries and the keys key0 … key0 + BC - 1; rows past the end repeat the
 * last. */
void multiply_keys(int q_row[TQ], int k_row, int key0)
{
    [[unroll]] for (int i = 0; i < TQ * BC; i++)
        score[i] = 0.0;
    int last = push[ATTENTION_PUSH_K_TOKENS] - 1;
    for (int d = 0; d < push[ATTENTION_PUSH_D]; d++) {
        uvec4 q[TQ], k[BC];
        [[unroll]] for (int i = 0; i < TQ; i++)
            q[i] = OPERAND(0, q_row[i] + d);
        [[unroll]] for (int j = 0; j < BC; j++)
            k[j] = OPERAND(1, k_row + min(key0 + j, last) * push[ATTENTION_PUSH_K_STRIDE] + d);
        [[unroll]] for (int z = 0; z < 4; z++) {
            vec2 a[TQ];
            [[unroll]] for (int i = 0; i < TQ; i++)
                a[i] = unpackHalf2x16(q[i][z]);
            [[unroll]] for (int j = 0; j < BC; j++) {
                vec2 b = unpackHalf2x16(k[j][z]);
                [[unroll]] for (int i = 0; i < TQ; i++)
                    score[i * BC + j] =
                        fma(a[i].y, b.y, fma(a[i].x, b.x, score[i * BC + j]));
            }
        }
    }
}

/* Turns scores into weights and updates sum, top and shrink. */
void weigh_keys(int query[TQ], int key0)
{
    float scale = intBitsToFloat(push[ATTENTION_PUSH_SCALE]);
    [[unroll]] for (int i = 0; i < TQ; i++) {
        int end = push[ATTENTION_PUSH_K_TOKENS];
        if (CAUSAL)
            end = min(end, query[i] + 1);
        float old = top[i];
        [[unroll]] for (int j = 0; j < BC; j++) {
            float s = key0 + j < end ? score[i * BC + j] * scale : NOT_YET;
            score[i * BC + j] = s;
            top[i] = max(top[i], s);
        }
        shrink[i] = exp2(max(old - top[i], -126.0));
        sum[i] *= shrink[i];
        [[unroll]] for (int j = 0; j < BC; j++) {
            float p = key0 + j < end ? exp2(max(score[i * BC + j] - top[i], -126.0)) : 0.0;
            score[i * BC + j] = p;
            sum[i] += p;
        }
    }
}

/* o = o * shrink + p v, one uvec4 of the slice after the other. */
void add_values(int v_row, int key0, int first)
{
    int last = push[ATTENTION_PUSH_K_TOKENS] - 1;
    [[unroll]] for (int d = 0; d < DV; d++) {
        int column = min(first + d, push[ATTENTION_PUSH_D] - 1);
        [[unroll]] for (int i = 0; i < TQ; i++)
            [[unroll]] for (int c = 0; c < 8; c++)
                o[(i * DV + d) * 8 + c] *= shrink[i];
        [[unroll]] for (int j = 0; j < BC; j++) {
            uvec4 halves =
                OPERAND(2, v_row + min(key0 + j, last) * push[ATTENTION_PUSH_V_STRIDE] + column);
            [[unroll]] for (int z = 0; z < 4; z++) {
                vec2 v = unpackHalf2x16(halves[z]);
                [[unroll]] for (int i = 0; i < TQ; i++) {
                    int at = (i * DV + d) * 8 + 2 * z;
                    o[at] = fma(score[i * BC + j], v.x, o[at]);
                    o[at + 1] = fma(score[i * BC + j], v.y, o[at + 1]);
                }
            }
        }
    }
}

void main()
{
    int q_tokens = push[ATTENTION_PUSH_Q_TOKENS], d_count = push[ATTENTION_PUSH_D];
    int heads = push[ATTENTION_PUSH_HEADS];
    int batch = int(gl_WorkGroupID.y) / heads, head = int(gl_WorkGroupID.y) - batch * heads;
    int first = int(gl_WorkGroupID.z) * DV;
    int query[TQ], q_row[TQ];
    [[unroll]] for (int i = 0; i < TQ; i++) {
        query[i] = (int(gl_WorkGroupID.x) * TQ + i) * LX + int(gl_LocalInvocationID.x);
        int row = batch * q_tokens + min(query[i], q_tokens - 1);
        q_row[i] = row * push[ATTENTION_PUSH_Q_STRIDE] +
                   push[ATTENTION_PUSH_Q_OFFSET] + head * d_count;
        sum[i] = 0.0;
        top[i] = NOT_YET;
    }
    [[unroll]] for (int i = 0; i < TQ * DV * 8; i++)
        o[i] = 0.0;

    int k_tokens = push[ATTENTION_PUSH_K_TOKENS];
    int k_row = batch * k_tokens * push[ATTENTION_PUSH_K_STRIDE] + push[ATTENTION_PUSH_K_OFFSET] +
                head * d_count;
    int v_row = batch * k_tokens * push[ATTENTION_PUSH_V_STRIDE] + push[ATTENTION_PUSH_V_OFFSET] +
                head * d_count;
    for (int key0 = 0; key0 < k_tokens; key0 += BC) {
        multiply_keys(q_row, k_row, key0);
        weigh_keys(query, key0);
        add_values(v_row, key0, first);
    }

    [[unroll]] for (int i = 0; i < TQ; i++) {
        int row = ((batch * q_tokens + query[i]) * heads + head) * d_count + first;
        [[unroll]] for (int d = 0; d < DV; d++) {
            if (query[i] < q_tokens && first + d < d_count) {
                uvec4 result;
                [[unroll]] for (int z = 0; z < 4; z++) {
                    int at = (i * DV + d) * 8 + 2 * z;
                    result[z] = half_pair(o[at] / sum[i], o[at + 1] / sum[i]);
                }
                y[row + d] = result;
            }
        }
    }
}
