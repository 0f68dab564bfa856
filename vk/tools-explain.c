/* tools-explain — what one picture costs, counted from the graphs a device would replay; and, on
 * the device itself, what happens at the Vulkan entry points between two steps. */
#include "vk/tools.h"

#include <errno.h>

#include "vk/gpu/gpu.h"
#include "vk/graph/dump.h"
#include "vk/pipeline/fit.h"
#include "vk/pipeline/session.h"

/* The calls that must not happen between two steps. */
static const struct {
    enum gpu_call call;
    const char *name, *key;
} quiet_calls[] = {
    {GPU_CALL_ALLOCATE_MEMORY, "allocations", "allocations_between_steps"},
    {GPU_CALL_BEGIN_COMMAND_BUFFER, "recordings", "recordings_between_steps"},
    {GPU_CALL_UPDATE_DESCRIPTOR_SETS, "descriptor writes", "descriptor_writes_between_steps"},
    {GPU_CALL_CREATE_PIPELINES, "pipelines", "pipelines_between_steps"},
};

struct explain {
    const struct tools_options *options;
    struct model *model;
    struct weights *weights;
    struct gpu *gpu;
    struct session_layout layout;
    struct fit fit;
    struct program programs[SESSION_GRAPH_COUNT];
    uint64_t between[ARRAY_SIZE(quiet_calls)];
};

static void explain_done(struct explain *e)
{
    for (int i = 0; i < SESSION_GRAPH_COUNT; i++)
        program_done(&e->programs[i]);
    fit_done(&e->fit);
    (void)weights_free(e->weights);
    (void)gpu_close(e->gpu);
    (void)model_free(e->model);
}

static int open_parts(struct explain *e, struct fault *f)
{
    struct gpu_options gpu = {.device = e->options->device, .allow_cpu = -1};
    int r = model_open(e->options->model, &e->model, f);

    if (e->options->allow_cpu != ENGINE_ALLOW_CPU_AUTO)
        gpu.allow_cpu = e->options->allow_cpu == ENGINE_ALLOW_CPU_YES;
    if (r >= 0)
        r = weights_open(e->options->model, &e->weights, f);
    if (r >= 0)
        r = session_declare_weights(e->model, e->weights, f);
    if (r >= 0)
        r = gpu_open(&gpu, &e->gpu, f);
    return r;
}

static int choose_shape(const struct explain *e, struct session_shape *ret_shape, struct fault *f)
{
    struct request_context c = model_request_context(e->model);
    uint32_t width = e->options->width ? e->options->width : c.width;
    uint32_t height = e->options->height ? e->options->height : c.height;

    if (width % c.multiple || height % c.multiple || width > 2048 || height > 2048)
        return fault_set(f, -EINVAL, "%ux%u: want multiples of %u up to 2048", width, height,
                         c.multiple);
    *ret_shape = (struct session_shape){
        .width = width, .height = height, .batch = model_batch(e->model, 7.5)};
    return 0;
}

static int count_graphs(struct explain *e, struct fault *f)
{
    struct session_shape shape;
    int r = choose_shape(e, &shape, f);

    if (r < 0)
        return r;
    session_layout_make(e->model, &shape, &e->layout);
    r = fit_session(e->model, e->weights, &e->layout, gpu_get_caps(e->gpu), gpu_memory_left(e->gpu),
                    &e->fit, f);
    for (int i = 0; i < SESSION_GRAPH_COUNT && r >= 0; i++)
        r = program_make(e->fit.graphs[i], gpu_get_caps(e->gpu), 0, &e->programs[i], f);
    return r;
}

/* Two steps of the model's smallest picture, the calls counted after the first. */
static int count_calls(struct explain *e, struct fault *f)
{
    uint32_t side = model_request_context(e->model).multiple;
    struct session_shape shape = {
        .width = side, .height = side, .batch = model_batch(e->model, 7.5)};
    _cleanup_(session_freep) struct session *s = NULL;
    int r = weights_load(e->weights, e->gpu, NULL, NULL, f);

    if (r >= 0)
        r = session_new(e->model, e->weights, e->gpu, &shape, &s, f);
    if (r >= 0)
        r = recording_run(s->recordings[SESSION_DENOISE], NULL, f);
    for (size_t i = 0; i < ARRAY_SIZE(quiet_calls); i++)
        e->between[i] = gpu_call_count(e->gpu, quiet_calls[i].call);
    if (r >= 0)
        r = recording_run(s->recordings[SESSION_DENOISE], NULL, f);
    for (size_t i = 0; i < ARRAY_SIZE(quiet_calls); i++)
        e->between[i] = gpu_call_count(e->gpu, quiet_calls[i].call) - e->between[i];
    return r;
}

/* Launches of one evaluation: the step's graph without sampler_step and advance. */
static uint32_t evaluation_launches(const struct explain *e)
{
    return e->programs[SESSION_DENOISE].launches - 2;
}

static void print_text(const struct explain *e, FILE *out)
{
    static const char *const titles[SESSION_GRAPH_COUNT] = {
        "prompts (text encoder)", "prompts (keys and values of the U-Net)",
        "one step (U-Net with guidance as batch 2, scheduler)", "picture (VAE decoder)",
        "given picture (VAE encoder)"};
    struct op_cost step = graph_cost(e->fit.graphs[SESSION_DENOISE]);

    (void)fprintf(out, "%s, %ux%u, guided, on %s\n\n", e->model->name, e->layout.shape.width,
                  e->layout.shape.height, gpu_get_facts(e->gpu)->name);
    for (int i = 0; i < SESSION_GRAPH_COUNT; i++) {
        (void)fprintf(out, "%s\n", titles[i]);
        graph_dump(e->fit.graphs[i], &e->programs[i], false, out);
    }
    (void)fprintf(out,
                  "\ndispatches per U-Net evaluation %u\n"
                  "per step                        %.3f TFLOP (%.3f issued), %.3f GB\n"
                  "memory                          weights %.1f MB, arena %.1f MB\n"
                  "between two steps              ",
                  evaluation_launches(e), 2e-12 * (double)step.macs,
                  2e-12 * (double)step.macs_issued,
                  1e-9 * (double)(step.bytes_read + step.bytes_written),
                  1e-6 * (double)weights_total_bytes(e->weights), 1e-6 * (double)e->fit.arena_size);
    for (size_t i = 0; i < ARRAY_SIZE(quiet_calls); i++)
        (void)fprintf(out, "%s %llu %s", i ? "," : "", (unsigned long long)e->between[i],
                      quiet_calls[i].name);
    (void)fputc('\n', out);
}

static void print_json(const struct explain *e, FILE *out)
{
    struct op_cost step = graph_cost(e->fit.graphs[SESSION_DENOISE]);

    (void)fprintf(out,
                  "{\"width\": %u, \"height\": %u, \"dispatches_per_evaluation\": %u, "
                  "\"barriers_per_step\": %u, \"macs_per_step\": %llu, "
                  "\"macs_issued_per_step\": %llu, \"bytes_per_step\": %llu, "
                  "\"weights_bytes\": %llu, \"arena_bytes\": %llu",
                  e->layout.shape.width, e->layout.shape.height, evaluation_launches(e),
                  e->programs[SESSION_DENOISE].barriers, (unsigned long long)step.macs,
                  (unsigned long long)step.macs_issued,
                  (unsigned long long)(step.bytes_read + step.bytes_written),
                  (unsigned long long)weights_total_bytes(e->weights),
                  (unsigned long long)e->fit.arena_size);
    for (size_t i = 0; i < ARRAY_SIZE(quiet_calls); i++)
        (void)fprintf(out, ", \"%s\": %llu", quiet_calls[i].key, (unsigned long long)e->between[i]);
    (void)fputs("}\n", out);
}

int tools_explain(const struct tools_options *options, FILE *out, struct fault *f)
{
    _cleanup_(explain_done) struct explain e = {.options = options};
    int r = open_parts(&e, f);

    if (r >= 0)
        r = count_graphs(&e, f);
    if (r >= 0)
        r = count_calls(&e, f);
    if (r < 0)
        return r;
    if (options->json)
        print_json(&e, out);
    else
        print_text(&e, out);
    return 0;
}
