#include "tests/support/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

void bench_open(struct bench *b, const char *directory)
{
    struct gpu_options options = {.allow_cpu = 1};
    struct fault f = {0};

    must(model_open(directory, &b->model, &f), &f);
    must(weights_open(directory, &b->weights, &f), &f);
    must(session_declare_weights(b->model, b->weights, &f), &f);
    must(gpu_open(&options, &b->gpu, &f), &f);
    must(weights_load(b->weights, b->gpu, NULL, NULL, &f), &f);
    b->p = (struct pipeline){.gpu = b->gpu, .model = b->model, .weights = b->weights};
}

void bench_close(struct bench *b)
{
    pipeline_done(&b->p);
    weights_free(b->weights);
    model_free(b->model);
    gpu_close(b->gpu);
}

double psnr(const float *a, const float *b, size_t n)
{
    double sum = 1e-30;

    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return 10 * log10((double)n / sum);
}
