/* pack.glsl — shared by the pack kernels: elements of a file as f16 or f32 bits, layouts, the work
 * index.
 *
 * All conversions are integer arithmetic, so they round to nearest even and keep subnormals on
 * every device: packHalf2x16 leaves the rounding, and float arithmetic the subnormals, to the
 * implementation. */
#include "abi/pack.h"

layout(local_size_x = PACK_LOCAL) in;

layout(push_constant) uniform Push {
    uint push[PACK_PUSH];
};

layout(std430, binding = 4) readonly buffer Source {
    uint source[];
};

/* The grid is two-dimensional only because one dimension may be too short. */
uint thread_index()
{
    return (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * PACK_LOCAL +
           gl_LocalInvocationID.x;
}

/* binary32 bits to binary16 bits, nearest even. vk/base/half.c is the same on the CPU. */
uint half_bits(uint bits)
{
    uint sign = bits >> 16 & 0x8000u;
    uint magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) /* NaN stays one: quiet bit set */
        return sign | 0x7e00u;
    if (magnitude >= 0x477ff000u) /* 65520 and more round to infinity */
        return sign | 0x7c00u;
    if (magnitude < 0x33000001u) /* 2^-25 and less round to zero */
        return sign;
    uint exponent = magnitude >> 23;
    uint drop; /* bits that do not fit */
    uint value;
    if (exponent >= 113u) { /* normal in binary16 */
        value = magnitude - (112u << 23);
        drop = 13u;
    } else {
        value = magnitude & 0x7fffffu | 0x800000u;
        drop = 126u - exponent;
    }
    uint result = value >> drop;
    uint rest = value & (1u << drop) - 1u;
    uint tie = 1u << drop - 1u;
    if (rest > tie || rest == tie && (result & 1u) == 1u)
        result++;
    return sign | result;
}

/* binary16 bits to binary32 bits, exact. */
uint float_bits(uint half_value)
{
    uint sign = (half_value & 0x8000u) << 16;
    uint exponent = half_value >> 10 & 31u;
    uint mantissa = half_value & 0x3ffu;
    if (exponent == 31u)
        return sign | 0x7f800000u | mantissa << 13;
    if (exponent > 0u)
        return sign | exponent + 112u << 23 | mantissa << 13;
    if (mantissa == 0u)
        return sign;
    int top = findMSB(mantissa); /* subnormal: value = mantissa * 2^-24 */
    return sign | uint(top + 103) << 23 | mantissa << 23 - top & 0x7fffffu;
}

/* Element `index` of the source rows: 16 bits, or 32. */
uint source_bits(uint index)
{
    if (push[PACK_TYPE] == PACK_TYPE_F32)
        return source[index];
    return source[index >> 1] >> ((index & 1u) * 16u) & 0xffffu;
}

uint source_half(uint index)
{
    uint bits = source_bits(index);
    if (push[PACK_TYPE] == PACK_TYPE_F16)
        return bits;
    return half_bits(push[PACK_TYPE] == PACK_TYPE_BF16 ? bits << 16 : bits);
}

uint source_float(uint index)
{
    uint bits = source_bits(index);
    if (push[PACK_TYPE] == PACK_TYPE_F16)
        return float_bits(bits);
    return push[PACK_TYPE] == PACK_TYPE_BF16 ? bits << 16 : bits;
}

uint pad8(uint n)
{
    return (n + 7u) / 8u * 8u;
}

/* layout_position() of vk/ops/layout.h. */
uint layout_position(uint c, uint first, uint run)
{
    if (first > 0u)
        return c < first ? c : pad8(first) + c - first;
    if (run > 0u)
        return c / run * pad8(run) + c % run;
    return c;
}

/* The inverse for eight positions from `position`, a multiple of 8: every segment and run is padded
 * to 8, so they are consecutive channels of one of them, then padding. Returns (first channel, how
 * many). */
uvec2 layout_channels(uint position, uint count, uint first, uint run)
{
    uint c = position;
    uint end = count;
    if (first > 0u) {
        bool second = position >= pad8(first);
        c = second ? position - pad8(first) + first : position;
        end = second ? count : first;
    } else if (run > 0u) {
        uint head = position / pad8(run);
        c = head * run + position % pad8(run);
        end = head * run + run;
    }
    return uvec2(c, min(end - c, 8u));
}

/* Padded column of row n: within blocks of 64, lane l owns columns 8 l to 8 l + 7. */
uint column_of(uint n)
{
    if (push[PACK_GEGLU] == 0u)
        return push[PACK_N_OFFSET] + layout_position(n, push[PACK_N_FIRST], push[PACK_N_RUN]);
    uint outputs = push[PACK_N] / 2u;
    uint is_gate = n >= outputs ? 1u : 0u;
    uint o = n - is_gate * outputs;
    return o / 32u * 64u + o % 32u / 4u * 8u + o % 4u + is_gate * 4u;
}

/* Eight halves at padded k 8 * k8 … of source row `row` (counted from first_row) and one tap. */
uvec4 eight_halves(uint row, uint k8, uint tap)
{
    uvec2 channels =
        layout_channels(k8 * 8u, push[PACK_K], push[PACK_K_FIRST], push[PACK_K_RUN]);
    uint step = push[PACK_TAPS];
    uint from = (row * push[PACK_K] + channels.x) * step + tap;
    if (push[PACK_TYPE] == PACK_TYPE_F16 && step == 1u && channels.y == 8u && (from & 1u) == 0u) {
        uint word = from / 2u; /* four words, as they are */
        return uvec4(source[word], source[word + 1u], source[word + 2u], source[word + 3u]);
    }
    uint halves[8];
    for (uint i = 0u; i < 8u; i++)
        halves[i] = i < channels.y ? source_half(from + i * step) : 0u;
    return uvec4(halves[0] | halves[1] << 16, halves[2] | halves[3] << 16,
                 halves[4] | halves[5] << 16, halves[6] | halves[7] << 16);
}
