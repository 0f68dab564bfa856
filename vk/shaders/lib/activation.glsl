/* activation.glsl — the activations of op.h, safe for any finite x: exponents are clamped, so
 * nothing overflows on the way. */
#ifndef LIB_ACTIVATION_GLSL
#define LIB_ACTIVATION_GLSL

#define ACTIVATION_SILU       1 /* as enum activation, op.h */
#define ACTIVATION_GELU       2
#define ACTIVATION_QUICK_GELU 3
#define ACTIVATION_RELU       4

float activation_sigmoid(float x)
{
    return 1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0)));
}

/* x * Phi(x). 1 - erf(z) for z >= 0 after Abramowitz and Stegun 7.1.26: off by at most 1.5e-7. */
float activation_gelu(float x)
{
    float z = min(abs(x) * 0.70710678, 9.0);
    float t = 1.0 / (1.0 + 0.3275911 * z);
    float p = t * (0.254829592 +
                   t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    float tail = 0.5 * x * p * exp(-z * z);
    return x < 0.0 ? tail : x - tail;
}

float activation_apply(int kind, float x)
{
    if (kind == ACTIVATION_SILU)
        return x * activation_sigmoid(x);
    if (kind == ACTIVATION_GELU)
        return activation_gelu(x);
    if (kind == ACTIVATION_QUICK_GELU)
        return x * activation_sigmoid(1.702 * x);
    if (kind == ACTIVATION_RELU)
        return max(x, 0.0);
    return x;
}

#endif
