/* gemm.comp — y = act(x W + bias + row_add) * scale + residual, linear or convolution as implicit
 * GEMM. The direct flavour (tier T0): halves are unpacked to f32 registers, no shared memory, no
 * subgroup operations, lanes need not run in step. Contract: vk/ops/op.h.
 *
 *   x  f16 [batch, in_height, in_width, K]    W f16 [N / 64][tap][K / 8][j 8][lane 8] uvec4 of 8 k
 *
 *                 N: a workgroup covers 64 columns, lane l the columns 8 l … 8 l + 7
 *           +--------+--------+-- … --+--------+
 *      TM   | lane 0 | lane 1 |       | lane 7 |   LY such tiles below each other per workgroup;
 *     rows  | TM x 8 | TM x 8 |       | TM x 8 |   M runs fastest over workgroups, so that those
 *           +--------+--------+-- … --+--------+   that run together share the block of W
 *
 * K loop: taps, then sources, then 8 k (one uvec4) at a time: TM rows of x and 8 columns of W are
 * fetched and unpacked, then every sub-block of BI x BJ accumulators runs over all 8 k before the
 * next one starts, so that accumulators stay in registers where there are few of them. */
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

#include "abi/gemm.h"

#define TN 8

layout(local_size_x = GEMM_LANES, local_size_y_id = GEMM_SPEC_LY) in;
layout(constant_id = GEMM_SPEC_TM) const int TM = 8;
layout(constant_id = GEMM_SPEC_BI) const int BI = 8;
layout(constant_id = GEMM_SPEC_BJ) const int BJ = 1;
layout(constant_id = GEMM_SPEC_PICTURE) const bool PICTURE = false;
layout(constant_id = GEMM_SPEC_UPSAMPLE) const bool UPSAMPLE = false;
layout(constant_id = GEMM_SPEC_SOURCES) const int SOURCES = 1;
layout(constant_id = GEMM_SPEC_BIAS) const bool BIAS = false;
layout(constant_id = GEMM_SPEC_ROW_ADD) const bool ROW_ADD = false;
layout(constant_id = GEMM_SPEC_RESIDUAL) const bool RESIDUAL = false;
layout(constant_id = GEMM_SPEC_GEGLU) const bool GEGLU = false;
layout(constant_id = GEMM_SPEC_F32_OUT) const bool F32_OUT = false;
layout(constant_id = GEMM_SPEC_ACTIVATION) const int ACTIVATION = 0;
layout(constant_id = GEMM_SPEC_X_F32) const bool X_F32 = false;
layout(constant_id = GEMM_SPEC_RES_F32) const bool RES_F32 = false;
layout(constant_id = GEMM_SPEC_LAST) const int LAST_ACTIVATION = 0;

layout(push_constant) uniform Push { int push[GEMM_PUSH_COUNT]; };
layout(set = 0, binding = 4, std430) readonly buffer Bias { vec4 bias[]; };
layout(set = 0, binding = 5, std430) readonly buffer RowAdd { float row_add[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Halves { uvec4 y_halves[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Gated { uvec2 y_gated[]; };
layout(set = 0, binding = 7, std430) writeonly buffer Floats { vec4 y_floats[]; };

#include "lib/operand.glsl"
#include "lib/half.glsl"
#include "lib/activation.glsl"

float acc[TM * TN];
int row_y[TM], row_x[TM]; /* first tap's point of the row's picture */
int row_image[TM];        /* rows of x before the row's picture */
int row_first[TM], row_step[TM];

/* Where the rows m0 … m0 + TM - 1 stand: one division, then pixel by pixel. */
void place_rows(int m0)
{
    int width = push[GEMM_PUSH_WIDTH], height = push[GEMM_PUSH_HEIGHT];
    int line = m0 / width, x = m0 - line * width;
    int image = line / height, y = line - image * height;
    int area = push[GEMM_PUSH_IN_HEIGHT] * push[GEMM_PUSH_IN_WIDTH];
    [[unroll]] for (int i = 0; i < TM; i++) {
        bool exists = m0 + i < push[GEMM_PUSH_M];
        row_y[i] = exists ? y * push[GEMM_PUSH_STRIDE] - push[GEMM_PUSH_PAD_TOP] : -0x10000;
        row_x[i] = x * push[GEMM_PUSH_STRIDE] - push[GEMM_PUSH_PAD_LEFT];
        row_image[i] = image * area;
        x++;
        y += x == width ? 1 : 0;
        x = x == width ? 0 : x;
        image += y == height ? 1 : 0;
        y = y == height ? 0 : y;
    }
}

/* Points every row at its pixel for one tap, or at zeros. */
void aim_rows(int m0, int tap_y, int tap_x, int base, int k)
{
    [[unroll]] for (int i = 0; i < TM; i++) {
        int at = m0 + i;
        bool inside = m0 + i < push[GEMM_PUSH_M];
        if (PICTURE) {
            int y = row_y[i] + tap_y, x = row_x[i] + tap_x;
            inside = uint(y) < uint(push[GEMM_PUSH_SEEN_HEIGHT]) &&
                     uint(x) < uint(push[GEMM_PUSH_SEEN_WIDTH]);
            if (UPSAMPLE) {
                y >>= 1;
                x >>= 1;
            }
            at = row_image[i] + y * push[GEMM_PUSH_IN_WIDTH] + x;
        }
        row_first[i] = inside ? base + at * k * (X_F32 ? 2 : 1) : 0;
        row_step[i] = inside ? 1 : 0;
    }
}

uvec4 fetch_x(int i, int k, int source)
{
    int at = row_first[i] + k * row_step[i];
#ifdef TEXEL
    return OPERAND_AT(0, at); /* both sources lie in the arena, and so in this view */
#else
    if (row_step[i] == 0)
        return uvec4(0);
    if (SOURCES == 2 && source == 1)
        return OPERAND_AT(1, at);
    return OPERAND_AT(0, at);
#endif
}

/* Channels 2 q and 2 q + 1 of eight f32. */
vec2 eight_pair(uvec4 low, uvec4 high, int q)
{
    return uintBitsToFloat(q < 2 ? uvec2(low[2 * q], low[2 * q + 1])
                                 : uvec2(high[2 * q - 4], high[2 * q - 3]));
}

/* Eight k: fetch everything, unpack x, then column by column of W. (This order is worth 15 % on
 * lavapipe against unpacking each row where it is fetched.) */
void step_k(int k, int source, int w)
{
    uvec4 x[TM], x_high[TM], y[TN]; /* x_high: with X_F32, where eight k take two uvec4 */
    vec2 a[TM * 4], b[TN * 4];
    [[unroll]] for (int i = 0; i < TM; i++)
        x[i] = fetch_x(i, X_F32 ? 2 * k : k, source);
    if (X_F32)
        [[unroll]] for (int i = 0; i < TM; i++)
            x_high[i] = fetch_x(i, 2 * k + 1, source);
    [[unroll]] for (int j = 0; j < TN; j++)
        y[j] = OPERAND_AT(2, w + j * GEMM_LANES);
    [[unroll]] for (int i = 0; i < TM; i++)
        [[unroll]] for (int q = 0; q < 4; q++)
            a[i * 4 + q] = X_F32 ? eight_pair(x[i], x_high[i], q) : unpackHalf2x16(x[i][q]);
    [[unroll]] for (int jb = 0; jb < TN; jb += BJ) {
        [[unroll]] for (int j = 0; j < BJ; j++)
            [[unroll]] for (int q = 0; q < 4; q++)
                b[(jb + j) * 4 + q] = unpackHalf2x16(y[jb + j][q]);
        [[unroll]] for (int ib = 0; ib < TM; ib += BI)
            [[unroll]] for (int q = 0; q < 8; q++)
                [[unroll]] for (int j = 0; j < BJ; j++)
                    [[unroll]] for (int i = 0; i < BI; i++) {
                        int at = (ib + i) * TN + jb + j;
                        acc[at] = fma(a[(ib + i) * 4 + q / 2][q % 2],
                                      b[(jb + j) * 4 + q / 2][q % 2], acc[at]);
                    }
    }
}

/* The whole K loop. */
void multiply(int m0, int block, int lane)
{
    int taps = PICTURE ? push[GEMM_PUSH_TAPS_H] * push[GEMM_PUSH_TAPS_W] : 1;
    int w = push[2] + lane +
            block * GEMM_BLOCK * taps * (push[GEMM_PUSH_K0] + push[GEMM_PUSH_K1]);
    int tap_y = 0, tap_x = 0;
    for (int tap = 0; tap < taps; tap++) {
        for (int source = 0; source < SOURCES; source++) {
            int k_count = source == 0 ? push[GEMM_PUSH_K0] : push[GEMM_PUSH_K1];
            aim_rows(m0, tap_y, tap_x, source == 0 ? push[0] : push[1], k_count);
            for (int k = 0; k < k_count; k++) {
                step_k(k, source, w);
                w += GEMM_BLOCK;
            }
        }
        tap_x++;
        tap_y += tap_x == push[GEMM_PUSH_TAPS_W] ? 1 : 0;
        tap_x = tap_x == push[GEMM_PUSH_TAPS_W] ? 0 : tap_x;
    }
}

/* Row m, columns n … n + 7 of the accumulators' row i (in GEGLU: 4 values, then their 4 gates). */
void finish_row(int i, int m, int n, float add[TN])
{
    float scale = intBitsToFloat(push[GEMM_PUSH_SCALE]);
    float v[TN];
    [[unroll]] for (int j = 0; j < TN; j++)
        v[j] = acc[i * TN + j] + add[j];
    if (GEGLU) {
        [[unroll]] for (int j = 0; j < 4; j++)
            v[j] = v[j] * activation_gelu(v[j + 4]) * scale;
        if (F32_OUT)
            y_floats[(m * (push[GEMM_PUSH_N] / 2) + n / 2) / 4] = vec4(v[0], v[1], v[2], v[3]);
        else
            y_gated[(m * (push[GEMM_PUSH_N] / 2) + n / 2) / 4] =
                uvec2(half_pair(v[0], v[1]), half_pair(v[2], v[3]));
        return;
    }
    int at = (m * push[GEMM_PUSH_N] + n) / 8;
    [[unroll]] for (int j = 0; j < TN; j++)
        v[j] = activation_apply(ACTIVATION, v[j]) * scale;
    if (RESIDUAL) {
        vec4 low, high;
        OPERAND_EIGHT(3, RES_F32, at, low, high);
        [[unroll]] for (int j = 0; j < TN; j++)
            v[j] += j < 4 ? low[j % 4] : high[j % 4];
    }
    [[unroll]] for (int j = 0; j < TN; j++)
        v[j] = activation_apply(LAST_ACTIVATION, v[j]);
    if (F32_OUT) {
        y_floats[2 * at] = vec4(v[0], v[1], v[2], v[3]);
        y_floats[2 * at + 1] = vec4(v[4], v[5], v[6], v[7]);
    } else {
        y_halves[at] = uvec4(half_pair(v[0], v[1]), half_pair(v[2], v[3]), half_pair(v[4], v[5]),
                             half_pair(v[6], v[7]));
    }
}

void main()
{
    int tile = int(gl_WorkGroupID.x + gl_WorkGroupID.z * gl_NumWorkGroups.x);
    int m0 = (tile * int(gl_WorkGroupSize.y) + int(gl_LocalInvocationID.y)) * TM;
    int block = int(gl_WorkGroupID.y), lane = int(gl_LocalInvocationID.x);
    int n = block * GEMM_BLOCK + lane * TN;
    if (m0 >= push[GEMM_PUSH_M])
        return;

    [[unroll]] for (int i = 0; i < TM * TN; i++)
        acc[i] = 0.0;
    if (PICTURE)
        place_rows(m0);
    multiply(m0, block, lane);
    if (n >= push[GEMM_PUSH_N])
        return;

    float add[TN];
    [[unroll]] for (int j = 0; j < TN; j++) {
        add[j] = BIAS ? bias[(n + j) / 4][j % 4] : 0.0;
        if (ROW_ADD)
            add[j] += row_add[push[GEMM_PUSH_ROW_ADD_OFFSET] + n + j];
    }
    [[unroll]] for (int i = 0; i < TM; i++)
        if (m0 + i < push[GEMM_PUSH_M])
            finish_row(i, m0 + i, n, add);
}
