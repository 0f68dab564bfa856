/* The VAE in bands against the VAE whole: every way of cutting and of not keeping gives the same
 * picture and the same moments, on a device that binds little, too. Models with factor 8 and 4, odd
 * widths, one to three layers; pictures whose upper levels are halves and whose lower ones are f32.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/bench.h"
#include "vk/base/half.h"
#include "vk/gpu/gpu.h"
#include "vk/graph/plan.h"
#include "vk/pipeline/session.h"

#define NARROW   7    /* latents */
#define PSNR_MIN 60.0 /* of a range of 2; the gate of the project is 45 */

enum { DECODER, ENCODER, PARTS };

struct grid {
    struct bench on;
    uint32_t h, w; /* latent */
};

/* A run's result and what it took. */
struct outcome {
    float *values;
    size_t count;
    uint32_t launches;
    uint64_t arena, macs;
};

static tensor build(const struct grid *b, struct graph *g, int part,
                    const struct band_limits *limits, tensor *ret_in)
{
    uint32_t factor = vae_factor(&b->on.model->vae);
    bool decode = part == DECODER;
    struct pinned p = {.element = ELEMENT_F16,
                       .n = 1,
                       .h = decode ? b->h : b->h * factor,
                       .w = decode ? b->w : b->w * factor,
                       .layout = layout_plain(decode ? 4 : 3)};

    *ret_in = build_given(g, &p);
    tensor out = decode ? build_vae_decoder(g, &b->on.model->vae, *ret_in, limits)
                        : build_vae_encoder(g, &b->on.model->vae, *ret_in, limits);
    if (!g->fault.err)
        g->tensors.items[out].keep = true;
    return out;
}

/* Smooth noise of the right scale in every channel; the same for every run. */
static uint16_t *input(const struct tensor_info *t, double scale)
{
    uint32_t padded = layout_padded(t->layout);
    uint16_t *rows = calloc((size_t)t->h * t->w * padded, sizeof *rows);

    assert_non_null(rows);
    for (uint32_t y = 0; y < t->h; y++)
        for (uint32_t x = 0; x < t->w; x++)
            for (uint32_t c = 0; c < t->layout.count; c++) {
                double fine = sin(12.9898 * x + 78.233 * y + 37.719 * c) * 43758.5453;
                double v = sin(0.31 * x + c) * cos(0.17 * y - c) + (fine - floor(fine) - 0.5);
                rows[((size_t)y * t->w + x) * padded + c] = half_from_float((float)(scale * v));
            }
    return rows;
}

static struct outcome run(const struct grid *b, int part, const struct band_limits *limits)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(gpu_buffer_freep) struct gpu_buffer *arena = NULL;
    _cleanup_(recording_freep) struct recording *recording = NULL;
    struct outcome o = {0};
    struct fault f = {0};
    tensor in;

    assert_int_equal(graph_new(b->on.weights, WEIGHTS_VAE, 256, &g), 0);
    tensor out = build(b, g, part, limits, &in);
    must(graph_fault(g, &f), &f);
    must(graph_plan(g, &f), &f);
    must(gpu_buffer_new(b->on.gpu, GPU_LIFETIME_ARENA, g->arena_size, &arena, &f), &f);
    must(gpu_clear(b->on.gpu, arena, 0, g->arena_size, &f), &f);
    must(graph_record(g, b->on.gpu, arena, 0, &recording, &f), &f);
    const struct tensor_info *from = graph_tensor(g, in), *to = graph_tensor(g, out);
    uint16_t *rows = input(from, part == DECODER ? 4 : 0.7);
    must(gpu_upload(b->on.gpu, arena, from->offset, rows, tensor_bytes(from), &f), &f);
    free(rows);
    must(recording_run(recording, NULL, &f), &f);
    o.count = tensor_bytes(to) / sizeof *o.values;
    o.values = malloc(o.count * sizeof *o.values);
    assert_non_null(o.values);
    must(gpu_download(b->on.gpu, arena, to->offset, o.values, tensor_bytes(to), &f), &f);
    o.launches = recording_program(recording)->launches;
    o.arena = g->arena_size;
    o.macs = graph_cost(g).macs;
    return o;
}

static double outcome_psnr(const struct outcome *a, const struct outcome *b)
{
    double sum = 0;

    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        double d = (double)a->values[i] - (double)b->values[i];
        sum += d * d;
    }
    return 10 * log10(4 * (double)a->count / (sum + 1e-30));
}

/* Fractions of the largest plane, for its bytes and (times 100) its work. */
static const struct {
    const char *name;
    uint32_t macs, bytes, keep; /* 1 / n of the largest plane's; 0: no limit */
    bool wide;                  /* done with wide pictures, too */
} ways[] = {
    {"by work", 9, 0, 0, true},
    {"by bytes", 0, 3, 0, false},
    {"large ones made again", 0, 3, 2, true},
    {"most made again", 5, 0, 20, false},
    {"all made again", 4, 0, UINT32_MAX, false},
};

static struct band_limits limits_of(const struct grid *b, size_t way)
{
    const struct vae_config *c = &b->on.model->vae;
    uint32_t factor = vae_factor(c);
    uint64_t pixels = (uint64_t)b->h * factor * b->w * factor;
    uint64_t wide = pad8(c->channels[1]), bytes = pixels * wide * 2,
             macs = pixels * wide * wide * 9;

    return (struct band_limits){.macs = ways[way].macs ? macs / ways[way].macs : 0,
                                .bytes = ways[way].bytes ? bytes / ways[way].bytes : 0,
                                .keep = ways[way].keep ? bytes / ways[way].keep + 1 : 0};
}

static void compare(const struct grid *b, const char *model, int part, bool wide)
{
    struct outcome whole = run(b, part, NULL);

    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        struct band_limits limits = limits_of(b, i);
        if ((wide && !ways[i].wide) || (i > 0 && is_slow_device()))
            continue;
        struct outcome cut = run(b, part, &limits);
        double db = outcome_psnr(&whole, &cut);
        (void)printf("%s %s, %s: %.1f dB, %u launches for %u, %.2f x work, %.2f x memory\n", model,
                     part == DECODER ? "decoder" : "encoder", ways[i].name, db, cut.launches,
                     whole.launches, (double)cut.macs / (double)whole.macs,
                     (double)cut.arena / (double)whole.arena);
        assert_true(cut.launches > whole.launches);
        assert_true(ways[i].keep > 2 ? cut.macs > whole.macs : cut.macs >= whole.macs);
        assert_true(limits.keep || cut.macs == whole.macs);
        if (!(db >= PSNR_MIN))
            fail_msg("%s, %s: %.1f dB from whole", model, ways[i].name, db);
        free(cut.values);
    }
    free(whole.values);
}

static void check_model(const char *directory, uint32_t h, uint32_t w)
{
    struct grid b = {.h = h, .w = w};

    bench_open(&b.on, directory);
    for (int part = DECODER; part < PARTS; part++)
        compare(&b, strrchr(directory, '/') + 1, part, w > NARROW);
    bench_close(&b.on);
}

static void test_four(void **state)
{
    (void)state;
    skip_when_slow();
    check_model("tests/golden/models/four", 29, 20);
}

static void test_odd(void **state)
{
    (void)state;
    check_model("tests/golden/models/odd", 37, NARROW);
}

static void test_three_layers(void **state)
{
    (void)state;
    skip_when_slow();
    check_model("tests/golden/models/three-layers", 34, NARROW);
}

static uint32_t count_named(const struct graph *g, const char *ending)
{
    uint32_t count = 0;

    for (size_t i = 0; i < g->nodes.count; i++) {
        const char *name = g->nodes.items[i].name;
        size_t n = strlen(name), m = strlen(ending);
        count += n >= m && strcmp(name + n - m, ending) == 0;
    }
    return count;
}

/* Queries, keys and values that cannot be bound as one are three tensors of the same weight. */
static void test_parts(void **state)
{
    struct grid b = {.h = 12, .w = 10};
    struct band_limits limits = {.bytes = 3 * 12 * 10 * 128 * 2 - 1};
    _cleanup_(graph_freep) struct graph *g = NULL;
    tensor in;

    (void)state;
    skip_when_slow();
    bench_open(&b.on, "packaging/demo-model");
    assert_int_equal(graph_new(b.on.weights, WEIGHTS_VAE, 256, &g), 0);
    (void)build(&b, g, DECODER, &limits, &in);
    assert_int_equal(g->fault.err, 0);
    assert_int_equal(count_named(g, "to_qkv"), 3);
    struct outcome whole = run(&b, DECODER, NULL), cut = run(&b, DECODER, &limits);
    (void)printf("three tensors: %.1f dB\n", outcome_psnr(&whole, &cut));
    assert_true(outcome_psnr(&whole, &cut) >= PSNR_MIN);
    free(whole.values);
    free(cut.values);
    bench_close(&b.on);
}

/* A device that binds 128 KiB and has no texel views to speak of: whole there is no decoder, and in
 * bands the same one as without the limit. */
static void test_narrow(void **state)
{
    struct grid b = {.h = 29, .w = 10};
    struct band_limits limits = {.bytes = 1u << 17};
    struct fault f = {0};
    tensor in;

    (void)state;
    skip_when_slow();
    bench_open(&b.on, "tests/golden/models/four");
    for (int part = DECODER; part < PARTS; part++) {
        struct caps caps = *gpu_get_caps(b.on.gpu), narrow = caps;
        struct outcome whole = run(&b, part, NULL);
        _cleanup_(graph_freep) struct graph *g = NULL;
        struct program p;
        narrow.max_binding = 1u << 17;
        narrow.max_texels = 4096;
        assert_int_equal(graph_new(b.on.weights, WEIGHTS_VAE, 256, &g), 0);
        (void)build(&b, g, part, NULL, &in);
        assert_int_equal(graph_plan(g, &f), 0);
        assert_int_equal(program_make(g, &narrow, 0, &p, &f), -EFBIG);
        gpu_narrow_caps(b.on.gpu, &narrow);
        struct outcome cut = run(&b, part, &limits);
        gpu_narrow_caps(b.on.gpu, &caps);
        double db = outcome_psnr(&whole, &cut);
        (void)printf("%s on a narrow device: %.1f dB\n", part == DECODER ? "decoder" : "encoder",
                     db);
        assert_true(db >= PSNR_MIN);
        free(whole.values);
        free(cut.values);
    }
    bench_close(&b.on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_four),         cmocka_unit_test(test_odd),
        cmocka_unit_test(test_three_layers), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_narrow),
    };

    return cmocka_run_group_tests_name("bands", tests, NULL, NULL);
}
