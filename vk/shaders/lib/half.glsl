/* half.glsl — f32 to f16, rounded to nearest, ties to even, by integer arithmetic alone: the
 * rounding of packHalf2x16 is the implementation's choice. Overflow becomes infinity, NaN stays
 * NaN. */
#ifndef LIB_HALF_GLSL
#define LIB_HALF_GLSL

uint half_from_float(float x)
{
    uint bits = floatBitsToUint(x);
    uint a = bits & 0x7fffffffu;
    /* Normal result: move the exponent's bias from 127 to 15; half a unit, less one unless odd,
     * carries. */
    uint normal = min((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13, 0x7c00u);
    /* Subnormal result (below 2^-14): the significand in units of 2^-24. */
    uint shift = min(126u - (a >> 23), 31u);
    uint significand = (a & 0x7fffffu) | 0x800000u;
    uint small = (significand + (1u << (shift - 1u)) - 1u + ((significand >> shift) & 1u)) >> shift;
    uint magnitude = a < 0x38800000u ? small : normal;
    return ((bits >> 16) & 0x8000u) | (a > 0x7f800000u ? 0x7e00u : magnitude);
}

uint half_pair(float low, float high)
{
    return half_from_float(low) | (half_from_float(high) << 16);
}

#endif
