/* The host's own peak: a thread per core, each with 12 chains of fused multiply-adds in vector
 * registers. */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "vk/tools-peak.h"

#define CHAINS      12
#define THREADS_MAX 256
#define TIMES       6000000 /* of all chains; some 20 ms */

#if defined(__x86_64__)
#include <immintrin.h>
#define LANES  8
#define TARGET __attribute__((target("avx2,fma")))
typedef __m256 vector;
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SPREAD(x)    _mm256_set1_ps(x)

static int is_there(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const char *peak_native_kind(void)
{
    return "AVX2 FMA";
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#define LANES 4
#define TARGET
typedef float32x4_t vector;
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define SPREAD(x)    vdupq_n_f32(x)

static int is_there(void)
{
    return 1;
}

const char *peak_native_kind(void)
{
    return "NEON FMA";
}
#else
#define LANES 1
#define TARGET
typedef float vector;
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#define SPREAD(x)    (x)

static int is_there(void)
{
    return 0;
}

const char *peak_native_kind(void)
{
    return "none";
}
#endif

/* A thread's work; the sum is kept so that nothing is left out. */
struct worker {
    pthread_t thread;
    vector sum;
};

TARGET static void *work(void *data)
{
    struct worker *w = data;
    vector a[CHAINS], x = SPREAD(0.999f), y = SPREAD(1e-7f);

    for (int i = 0; i < CHAINS; i++)
        a[i] = SPREAD((float)i);
    for (int t = 0; t < TIMES; t++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            a[i] = FMA(a[i], x, y);
    }
    w->sum = a[0];
    for (int i = 1; i < CHAINS; i++)
        w->sum = FMA(a[i], x, w->sum);
    return NULL;
}

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double peak_native(void)
{
    struct worker workers[THREADS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int count = cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : (int)cores, started = 0;

    if (!is_there())
        return 0;
    double start = now();
    while (started < count &&
           pthread_create(&workers[started].thread, NULL, work, &workers[started]) == 0)
        started++;
    for (int i = 0; i < started; i++)
        (void)pthread_join(workers[i].thread, NULL);
    return 2e-9 * LANES * CHAINS * TIMES * started / (now() - start);
}
