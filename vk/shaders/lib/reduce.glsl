/* reduce.glsl — sums over the lanes along x of a workgroup, in shared memory, in a fixed order.
 * Include it with REDUCE_X and REDUCE_Y naming the specialization constants of the workgroup's
 * sides; all lanes must call it together. With REDUCE_X 1 it is nothing. */
#ifndef LIB_REDUCE_GLSL
#define LIB_REDUCE_GLSL

shared vec2 reduce_partial[REDUCE_X * REDUCE_Y];

/* REDUCE_X is a power of two. */
vec2 reduce_sum(vec2 mine)
{
    if (REDUCE_X == 1)
        return mine;
    uint lane = gl_LocalInvocationID.x, first = gl_LocalInvocationID.y * uint(REDUCE_X);
    reduce_partial[first + lane] = mine;
    barrier();
    for (uint half_width = uint(REDUCE_X) / 2u; half_width > 0u; half_width /= 2u) {
        if (lane < half_width)
            reduce_partial[first + lane] += reduce_partial[first + lane + half_width];
        barrier();
    }
    vec2 sum = reduce_partial[first];
    barrier(); /* before the next sum overwrites it */
    return sum;
}

#endif
