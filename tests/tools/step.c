/* step — the time of one guided step, to be alternated with another engine's.
 *
 *     build/tests/step MODELDIR [WIDTH HEIGHT [RUNS]]
 *
 * Loads the model, makes the session of that size (default 128 128), runs one step to warm up, then
 * RUNS (default 5) steps, and the decoder once: a line of seconds each, as
 * tests/golden/torch_step.py prints. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vk/gpu/gpu.h"
#include "vk/pipeline/session.h"

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int time_graph(struct session *s, enum session_graph which, const char *name, int runs,
                      struct fault *f)
{
    int r = recording_run(s->recordings[which], NULL, f);

    for (int i = 0; i < runs && r >= 0; i++) {
        double start = now();
        r = recording_run(s->recordings[which], NULL, f);
        (void)printf("%s %.4f s\n", name, now() - start);
        (void)fflush(stdout);
    }
    return r;
}

static int run(const char *directory, const struct session_shape *shape, int runs, struct fault *f)
{
    struct gpu_options options = {.device = getenv("DIFFUSED_DEVICE"), .allow_cpu = 1};
    _cleanup_(gpu_closep) struct gpu *gpu = NULL;
    _cleanup_(model_freep) struct model *model = NULL;
    _cleanup_(weights_freep) struct weights *weights = NULL;
    _cleanup_(session_freep) struct session *session = NULL;
    double start = now();
    int r = model_open(directory, &model, f);

    if (r >= 0)
        r = weights_open(directory, &weights, f);
    if (r >= 0)
        r = session_declare_weights(model, weights, f);
    if (r >= 0)
        r = gpu_open(&options, &gpu, f);
    if (r >= 0)
        r = weights_load(weights, gpu, NULL, NULL, f);
    if (r < 0)
        return r;
    (void)printf("load %.2f s, weights %.1f MB\n", now() - start,
                 1e-6 * (double)weights_total_bytes(weights));
    r = session_new(model, weights, gpu, shape, &session, f);
    if (r >= 0)
        r = time_graph(session, SESSION_DENOISE, "step", runs, f);
    if (r >= 0)
        r = time_graph(session, SESSION_DECODE, "decode", 1, f);
    (void)printf("device memory peak %.1f MB\n", 1e-6 * (double)gpu_memory_peak(gpu));
    return r;
}

int main(int argc, char **argv)
{
    struct session_shape shape = {.width = 128, .height = 128, .batch = 2};
    struct fault f = {0};

    if (argc < 2 || argc == 3 || argc > 5) {
        (void)fprintf(stderr, "usage: step MODELDIR [WIDTH HEIGHT [RUNS]]\n");
        return 2;
    }
    if (argc > 3) {
        shape.width = (uint32_t)strtoul(argv[2], NULL, 10);
        shape.height = (uint32_t)strtoul(argv[3], NULL, 10);
    }
    int r = run(argv[1], &shape, argc > 4 ? (int)strtol(argv[4], NULL, 10) : 5, &f);
    if (r < 0)
        (void)fprintf(stderr, "step: %s\n", f.text[0] ? f.text : strerror(-r));
    return r < 0;
}
