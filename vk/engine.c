#include "vk/engine.h"

#include <errno.h>
#include <stdatomic.h>

#include "vk/gpu/gpu.h"
#include "vk/pipeline/check.h"
#include "vk/pipeline/lora.h"
#include "vk/pipeline/pipeline.h"
#include "vk/pipeline/safety.h"

struct engine {
    struct gpu *gpu;
    struct model *model;
    struct weights *weights;
    struct context_cache *contexts;
    struct tiny *tiny;     /* NULL: the model has no small VAE */
    struct safety *safety; /* NULL: the model has no checker */
    struct pipeline pipeline;
    struct lora_state *lora;
    struct check check;
    atomic_bool cancel;
    const struct engine_options *opening; /* weights are loaded and the rest is not; else NULL */
};

static void on_kernel(void *userdata)
{
    const struct engine *e = userdata;

    if (e->opening && e->opening->on_load)
        e->opening->on_load(1, e->opening->userdata);
}

static int allow_cpu_value(enum engine_allow_cpu allow)
{
    return allow == ENGINE_ALLOW_CPU_AUTO ? -1 : allow == ENGINE_ALLOW_CPU_YES;
}

/* The model's own size with guidance is what the first job will most likely ask for. */
static int prepare_default(struct engine *e, struct fault *f)
{
    struct request_context context = model_request_context(e->model);
    struct session_shape shape = {
        .width = context.width, .height = context.height, .batch = model_batch(e->model, 7.5)};
    int r = pipeline_prepare(&e->pipeline, &shape, f);

    /* A model made for a larger size than this device holds still serves smaller ones. */
    return r == -EFBIG || r == -ENOMEM ? 0 : r;
}

static bool make_room(void *userdata)
{
    struct engine *e = userdata;

    return pipeline_make_room(&e->pipeline);
}

static int check_owner(const struct engine *e, const struct engine_options *options,
                       struct fault *f)
{
    struct fault why = {0};
    int r = weights_check_owner(e->weights, &why);

    if (r == 0 && e->model->embeddings.owner.err) {
        why = e->model->embeddings.owner;
        r = why.err;
    }
    if (r >= 0 && e->safety)
        r = safety_check_owner(e->safety, &why);
    if (r >= 0 && e->tiny)
        r = weights_check_owner(e->tiny->weights, &why);
    if (r < 0 && options->strict_owner)
        return fault_set(f, r, "%s", why.text);
    if (r < 0 && options->on_warning)
        options->on_warning(why.text, options->userdata);
    return 0;
}

static int open_loras(struct engine *e, const struct engine_options *options, struct fault *f)
{
    _cleanup_(freep) char *directory = NULL;
    struct lora_options lora = {.directory = options->loras,
                                .beside = options->loras_beside,
                                .strict_owner = options->strict_owner};

    if (!lora.directory && asprintf(&directory, "%s/loras", e->model->directory) < 0) {
        directory = NULL;
        return fault_set(f, -ENOMEM, "out of memory");
    }
    if (directory)
        lora.directory = directory;
    return lora_new(e->weights, e->gpu, &lora, &e->lora, f);
}

static int load(struct engine *e, const char *model_directory, const struct engine_options *options,
                struct fault *f)
{
    struct gpu_options gpu = {.device = options->device,
                              .allow_cpu = allow_cpu_value(options->allow_cpu),
                              .cache = options->cache,
                              .on_kernel = on_kernel,
                              .userdata = e};
    struct safety_options safety = {.make_room = make_room, .userdata = e};
    int r = model_open(model_directory, &e->model, f);

    if (r >= 0)
        r = weights_open(model_directory, &e->weights, f);
    if (r >= 0)
        r = session_declare_weights(e->model, e->weights, f);
    if (r >= 0)
        r = gpu_open(&gpu, &e->gpu, f);
    if (r >= 0 && e->model->has_safety)
        r = safety_open(model_directory, e->gpu, &safety, &e->safety, f);
    if (r >= 0)
        r = tiny_open(model_directory, &e->tiny, f);
    if (r >= 0)
        r = check_owner(e, options, f);
    if (r >= 0)
        r = weights_load(e->weights, e->gpu, options->on_load, options->userdata, f);
    if (r >= 0)
        r = open_loras(e, options, f);
    if (r >= 0 && e->tiny)
        r = tiny_load(e->tiny, e->gpu, f);
    if (r < 0)
        return r;
    e->pipeline = (struct pipeline){.gpu = e->gpu,
                                    .model = e->model,
                                    .weights = e->weights,
                                    .safety = e->safety,
                                    .tiny = e->tiny,
                                    .lora = e->lora,
                                    .contexts = e->contexts};
    e->opening = options;
    r = check_init(&e->check, &e->pipeline, options->cache, f);
    if (r >= 0)
        r = prepare_default(e, f);
    e->opening = NULL;
    return r;
}

int engine_open(const char *model_directory, const struct engine_options *options,
                struct engine **ret_engine, struct fault *f)
{
    static const struct engine_options defaults = {0};
    _cleanup_(engine_closep) struct engine *e = calloc(1, sizeof *e);

    if (!e || context_cache_new(CONTEXT_CACHE_BYTES, &e->contexts) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = load(e, model_directory, options ? options : &defaults, f);
    if (r < 0)
        return r;
    *ret_engine = TAKE_PTR(e);
    return 0;
}

struct engine *engine_close(struct engine *e)
{
    if (!e)
        return NULL;
    check_done(&e->check);
    pipeline_done(&e->pipeline);
    (void)context_cache_free(e->contexts);
    (void)safety_free(e->safety);
    (void)lora_free(e->lora);
    (void)tiny_free(e->tiny);
    (void)weights_free(e->weights);
    (void)gpu_close(e->gpu);
    (void)model_free(e->model);
    free(e);
    return NULL;
}

void engine_get_info(const struct engine *e, struct engine_info *ret_info)
{
    const struct gpu_facts *facts = gpu_get_facts(e->gpu);

    *ret_info = (struct engine_info){.device = facts->name,
                                     .device_node = facts->node,
                                     .driver = facts->driver,
                                     .is_cpu = facts->type == GPU_TYPE_CPU,
                                     .model = e->model->name,
                                     .model_hash = weights_hash(e->weights),
                                     .memory_used = gpu_memory_used(e->gpu),
                                     .memory_total = gpu_memory_total(e->gpu),
                                     .context = model_request_context(e->model)};
}

int engine_run(struct engine *e, const struct request *request, const struct engine_inputs *inputs,
               const struct engine_observer *observer, void *userdata, struct fault *f)
{
    int r = pipeline_run(&e->pipeline, request, inputs, observer, userdata, &e->cancel, f);

    atomic_store(&e->cancel, false);
    return r == -ECANCELED ? fault_set(f, r, "cancelled") : r;
}

int engine_check(struct engine *e, struct fault *f)
{
    int r = e->pipeline.session ? session_check(e->pipeline.session, e->gpu, f) : 0;

    if (r >= 0 && e->safety)
        r = safety_verify(e->safety, f);
    return r < 0 ? r : check_run(&e->check, f);
}

void engine_cancel(struct engine *e)
{
    atomic_store(&e->cancel, true);
}

uint64_t engine_progress(const struct engine *e)
{
    return gpu_progress(e->gpu);
}

int engine_read_context(const char *model_directory, struct request_context *ret_context,
                        struct fault *f)
{
    _cleanup_(model_freep) struct model *m = NULL;
    int r = model_open(model_directory, &m, f);

    if (r < 0)
        return r;
    *ret_context = model_request_context(m);
    return 0;
}
