/* Every block of every golden model against the reference: text encoder layer by layer, U-Net at
 * three timesteps and block by block, VAE decoder and encoder block by block. Relative L2 at most
 * 2e-3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/bench.h"
#include "tests/support/golden.h"
#include "vk/base/half.h"
#include "vk/gpu/gpu.h"
#include "vk/graph/plan.h"
#include "vk/graph/split.h"
#include "vk/pipeline/session.h"

#define LIMIT 2e-3

static const struct {
    const char *name, *directory;
    bool output_only;
    bool split; /* the U-Net once more, every node in pieces */
} models[] = {
    {"two", "tests/golden/models/two", false, true},
    {"three-layers", "tests/golden/models/three-layers", false, false},
    {"mid-only", "tests/golden/models/mid-only", false, false},
    {"odd", "tests/golden/models/odd", false, false},
    {"plain-first", "tests/golden/models/plain-first", false, true},
    {"four", "tests/golden/models/four", false, false},
    {"ten", "tests/golden/models/ten", false, false},
    {"demo", "packaging/demo-model", true, false},
};

/* One model on the device, and its golden file. */
struct trial {
    struct bench on;
    struct golden *golden;
    bool output_only;
    double worst;
};

/* A graph on the device: pinned inputs from 256 on, transients behind. */
struct rig {
    struct graph *graph;
    struct gpu_buffer *arena;
    struct recording *recording;
    uint64_t end;
};

static void trial_open(struct trial *b, const char *name, const char *directory)
{
    char path[256];

    (void)snprintf(path, sizeof path, "tests/golden/blocks/%s.safetensors", name);
    b->golden = golden_open(path);
    assert_non_null(b->golden);
    bench_open(&b->on, directory);
}

static void trial_close(struct trial *b)
{
    bench_close(&b->on);
    golden_free(b->golden);
}

static struct pinned rig_place(struct rig *rig, enum element element, uint32_t n, uint32_t h,
                               uint32_t w, uint32_t c)
{
    rig->end = rig->end ? rig->end : GPU_OFFSET_ALIGNMENT;
    return pinned_at(
        &rig->end,
        &(struct pinned){.element = element, .n = n, .h = h, .w = w, .layout = layout_plain(c)});
}

static void rig_start(struct rig *rig, const struct trial *b, enum weights_component component)
{
    assert_int_equal(graph_new(b->on.weights, component, rig->end, &rig->graph), 0);
    rig->graph->keep_labelled = true;
}

static void rig_record(struct rig *rig, const struct trial *b)
{
    struct fault f = {0};

    must(graph_fault(rig->graph, &f), &f);
    must(graph_plan(rig->graph, &f), &f);
    must(gpu_buffer_new(b->on.gpu, GPU_LIFETIME_ARENA, rig->graph->arena_size, &rig->arena, &f),
         &f);
    must(gpu_clear(b->on.gpu, rig->arena, 0, rig->graph->arena_size, &f), &f);
    must(graph_record(rig->graph, b->on.gpu, rig->arena, 0, &rig->recording, &f), &f);
}

static void rig_run(struct rig *rig)
{
    struct fault f = {0};

    must(recording_run(rig->recording, NULL, &f), &f);
}

static void rig_done(struct rig *rig)
{
    recording_free(rig->recording);
    gpu_buffer_free(rig->arena);
    graph_free(rig->graph);
}

/* NCHW f32 -> NHWC f16, padded. Tokens [N, T, C] are [N, C, T, 1] with `tokens`. */
static void put_f16(const struct trial *b, const struct rig *rig, const struct pinned *p,
                    const float *values, bool tokens)
{
    uint32_t hw = p->h * p->w, c = p->layout.count, padded = layout_padded(p->layout);
    size_t n = (size_t)p->n * hw * padded;
    uint16_t *halves = calloc(n, sizeof *halves);
    struct fault f = {0};

    assert_non_null(halves);
    for (size_t i = 0; i < (size_t)p->n * hw; i++) {
        for (uint32_t k = 0; k < c; k++) {
            size_t from = tokens ? i * c + k : (i / hw * c + k) * hw + i % hw;
            halves[i * padded + k] = half_from_float(values[from]);
        }
    }
    must(gpu_upload(b->on.gpu, rig->arena, p->offset, halves, n * sizeof *halves, &f), &f);
    free(halves);
}

/* A tensor of the arena as the golden file stores it. malloc'd. */
static float *get(const struct trial *b, const struct rig *rig, tensor t, bool tokens)
{
    const struct tensor_info *info = graph_tensor(rig->graph, t);
    uint32_t hw = info->h * info->w, c = info->layout.count, padded = layout_padded(info->layout);
    size_t rows = (size_t)info->n * hw, bytes = tensor_bytes(info);
    void *raw = malloc(bytes);
    float *out = malloc(rows * c * sizeof *out);
    struct fault f = {0};

    assert_non_null(raw);
    assert_non_null(out);
    must(gpu_download(b->on.gpu, rig->arena, info->offset, raw, bytes, &f), &f);
    for (size_t i = 0; i < rows; i++) {
        for (uint32_t k = 0; k < c; k++) {
            size_t at = i * padded + k, to = tokens ? i * c + k : (i / hw * c + k) * hw + i % hw;
            out[to] = info->element == ELEMENT_F16 ? half_to_float(((uint16_t *)raw)[at])
                                                   : ((float *)raw)[at];
        }
    }
    free(raw);
    return out;
}

static void compare(struct trial *b, const struct rig *rig, const char *label, const char *golden,
                    bool tokens)
{
    const struct golden_tensor *want = golden_find(b->golden, golden);
    tensor t = graph_find(rig->graph, label);

    if (!want)
        fail_msg("%s: not in the golden file", golden);
    if (!t)
        fail_msg("%s: not in the graph", label);
    const struct tensor_info *info = graph_tensor(rig->graph, t);
    assert_int_equal((size_t)tensor_rows(info) * info->layout.count, want->count);
    float *got = get(b, rig, t, tokens);
    double error = golden_relative_l2(got, want->f32, want->count);
    free(got);
    if (error > b->worst)
        b->worst = error;
    if (!(error <= LIMIT))
        fail_msg("%s: relative L2 error %.2e is over %.0e", golden, error, LIMIT);
}

/* Compares every golden "<prefix><label>" whose label is in the graph and not `out`. */
static void compare_blocks(struct trial *b, const struct rig *rig, const char *prefix, bool tokens)
{
    size_t n = strlen(prefix), compared = 0;

    for (size_t i = 0; i < golden_count(b->golden); i++) {
        const char *name = golden_at(b->golden, i)->name;
        if (strncmp(name, prefix, n) != 0 || !graph_find(rig->graph, name + n))
            continue;
        compare(b, rig, name + n, name, tokens);
        compared++;
    }
    assert_true(compared > 0);
}

static void check_text(struct trial *b)
{
    const struct golden_tensor *ids = golden_find(b->golden, "text.ids");
    struct rig rig = {0};
    struct pinned p = rig_place(&rig, ELEMENT_U32, ids->dims[0], ids->dims[1], 1, 1);
    struct fault f = {0};

    rig_start(&rig, b, WEIGHTS_TEXT_ENCODER);
    build_clip_text(rig.graph, &b->on.model->text,
                    &(struct clip_text_inputs){.ids = build_pinned(rig.graph, &p)});
    rig_record(&rig, b);
    must(gpu_upload(b->on.gpu, rig.arena, p.offset, ids->i32, ids->count * 4, &f), &f);
    rig_run(&rig);
    compare_blocks(b, &rig, "text.", true);
    rig_done(&rig);
}

/* The context keys and values, then the U-Net, in one graph. */
struct unet_rig {
    struct rig rig;
    struct pinned sample, context, embedding, kv[UNET_TRANSFORMERS_MAX];
};

static void unet_build(struct unet_rig *u, const struct trial *b, const struct split_limits *limits)
{
    const struct golden_tensor *sample = golden_find(b->golden, "unet.sample");
    const struct golden_tensor *context = golden_find(b->golden, "unet.context");
    const struct unet_config *c = &b->on.model->unet;
    struct unet_transformer list[UNET_TRANSFORMERS_MAX];
    uint32_t n = unet_transformers(c, list);
    tensor kv[UNET_TRANSFORMERS_MAX];
    struct fault f = {0};

    u->sample = rig_place(&u->rig, ELEMENT_F16, 2, sample->dims[2], sample->dims[3], 4);
    u->context = rig_place(&u->rig, ELEMENT_F16, 2, context->dims[1], 1, context->dims[2]);
    u->embedding = rig_place(&u->rig, ELEMENT_F16, 1, 1, 1, c->channels[0]);
    for (uint32_t i = 0; i < n; i++)
        u->kv[i] = rig_place(&u->rig, ELEMENT_F16, 2, context->dims[1], 1,
                             2 * heads_padded(list[i].channels, list[i].heads));
    rig_start(&u->rig, b, WEIGHTS_UNET);
    struct graph *g = u->rig.graph;
    for (uint32_t i = 0; i < n; i++)
        kv[i] = build_pinned(g, &u->kv[i]);
    build_unet_context(g, c, build_pinned(g, &u->context), kv);
    build_unet(g, c,
               &(struct unet_inputs){.latents = build_pinned(g, &u->sample),
                                     .embedding = build_pinned(g, &u->embedding),
                                     .kv = kv});
    size_t count = g->nodes.count;
    must(graph_split(g, limits, &f), &f);
    assert_true(!limits->bytes || g->nodes.count > 2 * count);
    rig_record(&u->rig, b);
    put_f16(b, &u->rig, &u->sample, sample->f32, false);
    put_f16(b, &u->rig, &u->context, context->f32, true);
}

static void check_unet(struct trial *b, const struct split_limits *limits)
{
    static const uint32_t timesteps[] = {1, 500, 981};
    struct unet_rig u = {0};
    float embedding[MODEL_WIDTH_MAX];
    char golden[32];

    unet_build(&u, b, limits);
    for (size_t i = 0; i < ARRAY_SIZE(timesteps); i++) {
        unet_timestep_embedding(&b->on.model->unet, timesteps[i], embedding);
        put_f16(b, &u.rig, &u.embedding, embedding, true);
        rig_run(&u.rig);
        (void)snprintf(golden, sizeof golden, "unet.%u.out", timesteps[i]);
        compare(b, &u.rig, "out", golden, false);
        if (timesteps[i] == 500 && !b->output_only)
            compare_blocks(b, &u.rig, "unet.500.", false);
    }
    rig_done(&u.rig);
}

static void check_vae(struct trial *b)
{
    const struct golden_tensor *latents = golden_find(b->golden, "vae.latents");
    struct rig rig = {0};
    struct pinned p = rig_place(&rig, ELEMENT_F16, 1, latents->dims[2], latents->dims[3], 4);

    rig_start(&rig, b, WEIGHTS_VAE);
    build_vae_decoder(rig.graph, &b->on.model->vae, build_pinned(rig.graph, &p), NULL);
    rig_record(&rig, b);
    put_f16(b, &rig, &p, latents->f32, false);
    rig_run(&rig);
    compare_blocks(b, &rig, "vae.", false);
    rig_done(&rig);
}

static void check_vae_encoder(struct trial *b)
{
    const struct golden_tensor *image = golden_find(b->golden, "vae.encoder.image");
    struct rig rig = {0};
    struct pinned p = rig_place(&rig, ELEMENT_F16, 1, image->dims[2], image->dims[3], 3);

    rig_start(&rig, b, WEIGHTS_VAE);
    build_vae_encoder(rig.graph, &b->on.model->vae, build_pinned(rig.graph, &p), NULL);
    rig_record(&rig, b);
    put_f16(b, &rig, &p, image->f32, false);
    rig_run(&rig);
    compare_blocks(b, &rig, "vae.encoder.", false);
    rig_done(&rig);
}

static void test_model(void **state)
{
    size_t i = *(const size_t *)*state;
    struct trial b = {.output_only = models[i].output_only};

    trial_open(&b, models[i].name, models[i].directory);
    check_text(&b);
    check_unet(&b, &(struct split_limits){0});
    if (models[i].split)
        check_unet(&b, &(struct split_limits){.bytes = 4000, .macs = 100000});
    check_vae(&b);
    check_vae_encoder(&b);
    (void)printf("%s: worst relative L2 error %.2e\n", models[i].name, b.worst);
    trial_close(&b);
}

int main(void)
{
    struct CMUnitTest tests[ARRAY_SIZE(models)];
    size_t index[ARRAY_SIZE(models)];

    for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
        index[i] = i;
        tests[i] = (struct CMUnitTest){
            .name = models[i].name, .test_func = test_model, .initial_state = &index[i]};
    }
    return cmocka_run_group_tests_name("blocks", tests, NULL, NULL);
}
