/* golden — stored tensors to compare with, and how comparisons are made.
 *
 * Reads a safetensors file of tests/golden (files of ours: a malformed one ends the test). */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct golden;

enum golden_element {
    GOLDEN_F32,
    GOLDEN_I32,
};

struct golden_tensor {
    const char *name;
    enum golden_element element;
    uint32_t rank, dims[8];
    size_t count;     /* elements */
    const float *f32; /* one of the two, by element */
    const int32_t *i32;
};

/* NULL with a message on stderr when the file cannot be read. */
struct golden *golden_open(const char *path);
struct golden *golden_free(struct golden *g);
/* NULL when there is no such tensor. */
const struct golden_tensor *golden_find(const struct golden *g, const char *name);
size_t golden_count(const struct golden *g);
const struct golden_tensor *golden_at(const struct golden *g, size_t i);

/* |a - b| / |b|, Euclidean; infinite when a holds NaN. */
double golden_relative_l2(const float *a, const float *b, size_t n);
/* 10 log10(1 / mean squared difference) for values in 0…1; 200 when equal. */
double golden_psnr(const float *a, const float *b, size_t n);
