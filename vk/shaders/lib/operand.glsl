/* operand.glsl — the large f16 operands of slots 0…3 as uvec4 (8 halves), in two builds: with TEXEL
 * through uniform texel buffers (binding 8 + slot), else through storage buffers (binding slot).
 * Include it after the push block: `int push[…]`, of which push[s] is the first uvec4 of slot s.
 *
 *   OPERAND(s, i)      uvec4 i of slot s, counted from its first
 *   OPERAND_AT(s, at)  by absolute index: texel 0 of an activation's view is zero (vk/ops/op.h)
 *   OPERAND_EIGHT(…)   eight channels, from halves or from f32 */
#ifndef LIB_OPERAND_GLSL
#define LIB_OPERAND_GLSL

#ifdef TEXEL
layout(set = 0, binding = 8) uniform usamplerBuffer operand_view0;
layout(set = 0, binding = 9) uniform usamplerBuffer operand_view1;
layout(set = 0, binding = 10) uniform usamplerBuffer operand_view2;
layout(set = 0, binding = 11) uniform usamplerBuffer operand_view3;
#define OPERAND_AT(s, at) texelFetch(operand_view##s, at)
#else
layout(set = 0, binding = 0, std430) readonly buffer Operand0 { uvec4 operand_view0[]; };
layout(set = 0, binding = 1, std430) readonly buffer Operand1 { uvec4 operand_view1[]; };
layout(set = 0, binding = 2, std430) readonly buffer Operand2 { uvec4 operand_view2[]; };
layout(set = 0, binding = 3, std430) readonly buffer Operand3 { uvec4 operand_view3[]; };
#define OPERAND_AT(s, at) operand_view##s[at]
#endif

#define OPERAND(s, i) OPERAND_AT(s, push[s] + (i))

/* The i-th eight channels of slot s as two vec4, from halves or, where `is_f32`, from two uvec4 of
 * f32 bits. */
#define OPERAND_EIGHT(s, is_f32, i, low, high)                                 \
    do {                                                                       \
        if (is_f32) {                                                          \
            low = uintBitsToFloat(OPERAND(s, 2 * (i)));                        \
            high = uintBitsToFloat(OPERAND(s, 2 * (i) + 1));                   \
        } else {                                                               \
            uvec4 halves_ = OPERAND(s, i);                                     \
            low = vec4(unpackHalf2x16(halves_.x), unpackHalf2x16(halves_.y));  \
            high = vec4(unpackHalf2x16(halves_.z), unpackHalf2x16(halves_.w)); \
        }                                                                      \
    } while (false)

#endif
