#include "vk/tools-peak.h"

#include <errno.h>

#include "vk/shaders/abi/peak.h"

#define LANES_CPU  8u
#define LANES_GPU  64u
#define GROUPS     2048u
#define ROUNDS_CPU 64u
#define ROUNDS_GPU 4096u

struct peak {
    struct gpu *gpu;
    const char *kernel;
    struct gpu_buffer *result;
    struct gpu_commands *commands;
    double gflop; /* of one run */
};

struct peak *peak_free(struct peak *p)
{
    if (!p)
        return NULL;
    (void)gpu_commands_free(p->commands);
    (void)gpu_buffer_free(p->result);
    free(p);
    return NULL;
}

int peak_run(struct peak *p, double *ret_gflops, struct fault *f)
{
    int r = gpu_submit(p->gpu, p->commands, 0, f);

    if (r < 0)
        return r;
    *ret_gflops = p->gflop / (1e-9 * (double)gpu_last_nsec(p->gpu));
    return 0;
}

const char *peak_kernel(const struct peak *p)
{
    return p->kernel;
}

static int prepare(struct gpu *gpu, const char *kernel, struct peak **ret_peak, struct fault *f)
{
    bool is_cpu = gpu_get_caps(gpu)->is_cpu;
    uint32_t lanes = is_cpu ? LANES_CPU : LANES_GPU, rounds = is_cpu ? ROUNDS_CPU : ROUNDS_GPU;
    uint32_t push[PEAK_PUSH_COUNT] = {[PEAK_PUSH_ROUNDS] = rounds};
    uint64_t bytes = (uint64_t)lanes * GROUPS * sizeof(float);
    _cleanup_(peak_freep) struct peak *p = calloc(1, sizeof *p);

    if (!p)
        return fault_set(f, -ENOMEM, "out of memory");
    p->gpu = gpu;
    p->kernel = kernel;
    p->gflop = 2e-9 * lanes * GROUPS * rounds * PEAK_FMA_PER_ROUND;
    int r = gpu_buffer_new(gpu, GPU_LIFETIME_ARENA, bytes, &p->result, f);
    if (r >= 0)
        r = gpu_commands_new(gpu, 1, &p->commands, f);
    if (r < 0)
        return r;
    const struct gpu_binding binding = {.slot = 7, .buffer = p->result, .size = bytes};
    struct gpu_launch launch = {.bindings = &binding,
                                .binding_count = 1,
                                .push = push,
                                .push_count = PEAK_PUSH_COUNT,
                                .groups = {GROUPS, 1, 1}};
    r = gpu_kernel_get(gpu, kernel, &lanes, PEAK_SPEC_COUNT, &launch.kernel, f);
    if (r >= 0)
        r = gpu_commands_launch(p->commands, &launch, f);
    if (r >= 0)
        r = gpu_commands_end(p->commands, f);
    if (r < 0)
        return r;
    *ret_peak = TAKE_PTR(p);
    return 0;
}

int peak_new(struct gpu *gpu, struct peak **ret_peak, struct fault *f)
{
    static const char *const kernels[] = {"peak_scalar.ssbo", "peak_vec4.ssbo"};
    enum { TRIES = 4 }; /* the first compiles */
    double best = 0;
    _cleanup_(peak_freep) struct peak *kept = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
        _cleanup_(peak_freep) struct peak *p = NULL;
        double gflops, fastest = 0;
        int r = prepare(gpu, kernels[i], &p, f);
        for (int j = 0; j < TRIES && r >= 0; j++) {
            r = peak_run(p, &gflops, f);
            fastest = r >= 0 && gflops > fastest ? gflops : fastest;
        }
        if (r < 0)
            return r;
        if (fastest <= best)
            continue;
        best = fastest;
        (void)peak_free(kept);
        kept = TAKE_PTR(p);
    }
    *ret_peak = TAKE_PTR(kept);
    return 0;
}
