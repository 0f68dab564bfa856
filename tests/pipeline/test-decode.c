/* Decoding, encoding and previews of a session: against the reference, cut into bands against
 * whole, and cancelled in the middle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/support/bench.h"
#include "tests/support/golden.h"
#include "vk/base/half.h"
#include "vk/base/json.h"
#include "vk/graph/plan.h"
#include "vk/pipeline/decode.h"
#include "vk/pipeline/encode.h"
#include "vk/sample/rng.h"

#define LIMIT    2e-3
#define PSNR_MIN 45.0

static void prepare(struct bench *b, uint32_t width, uint32_t height)
{
    struct session_shape shape = {.width = width, .height = height, .batch = 1, .chunks = 1};
    struct fault f = {0};

    b->p.session = session_free(b->p.session);
    must(pipeline_prepare(&b->p, &shape, &f), &f);
}

/* Latents of a seed into the session's state; malloc'd. */
static float *put_latents(struct bench *b, uint64_t seed)
{
    const struct session_layout *l = &b->p.session->layout;
    size_t n = (size_t)4 * l->latent_height * l->latent_width;
    float *latents = malloc(n * sizeof *latents);
    struct fault f = {0};
    struct rng rng;

    assert_non_null(latents);
    rng_init(&rng, seed);
    rng_normal(&rng, latents, n);
    must(gpu_upload(b->gpu, b->p.session->arena, l->state.offset, latents, n * sizeof *latents, &f),
         &f);
    return latents;
}

static float *decode(struct bench *b)
{
    float *values = malloc(b->p.session->image_size);
    struct fault f = {0};

    assert_non_null(values);
    must(decode_picture(&b->p, values, NULL, &f), &f);
    return values;
}

/* --- against the reference -------------------------------------------------------------------- */

static void check_encoder(const char *directory, const char *blocks)
{
    struct golden *golden = golden_open(blocks);
    struct bench b = {0};
    struct fault f = {0};

    assert_non_null(golden);
    const struct golden_tensor *image = golden_find(golden, "vae.encoder.image");
    const struct golden_tensor *want = golden_find(golden, "vae.encoder.moments");
    float *got = malloc(want->count * sizeof *got);
    assert_non_null(got);
    bench_open(&b, directory);
    prepare(&b, image->dims[3], image->dims[2]);
    for (int k = 0; k < 2; k++) { /* the second call finds the commands recorded */
        must(encode_image(&b.p, image->f32, got, NULL, &f), &f);
        double error = golden_relative_l2(got, want->f32, want->count);
        (void)printf("%s: relative L2 %.2e\n", directory, error);
        assert_true(error <= LIMIT);
    }
    free(got);
    bench_close(&b);
    golden_free(golden);
}

static void test_encode(void **state)
{
    (void)state;
    check_encoder("tests/golden/models/two", "tests/golden/blocks/two.safetensors");
    if (!is_slow_device())
        check_encoder("tests/golden/models/four", "tests/golden/blocks/four.safetensors");
}

/* --- bands ------------------------------------------------------------------------------------ */

/* A device that binds and allocates so little that the session must cut and make planes again, and
 * has no texel views to speak of. */
static struct caps narrowed(const struct gpu *gpu, uint64_t binding, uint64_t allocation)
{
    struct caps caps = *gpu_get_caps(gpu);

    caps.max_binding = binding;
    caps.max_texels = 4096;
    caps.max_allocation = allocation;
    caps.max_buffer = allocation;
    return caps;
}

static void test_bands(void **state)
{
    struct bench b = {0};
    size_t n = 3 * 256 * 320;

    (void)state;
    skip_when_slow();
    bench_open(&b, "tests/golden/models/four");
    struct caps caps = *gpu_get_caps(b.gpu), narrow = narrowed(b.gpu, 1 << 20, 5 << 20);
    prepare(&b, 320, 256);
    uint64_t whole_size = gpu_buffer_size(b.p.session->arena);
    free(put_latents(&b, 1));
    float *whole = decode(&b);
    gpu_narrow_caps(b.gpu, &narrow);
    prepare(&b, 320, 256);
    free(put_latents(&b, 1));
    float *cut = decode(&b);
    double db = psnr(whole, cut, n);
    (void)printf("%.1f dB, %.1f MB of activations instead of %.1f\n", db,
                 1e-6 * (double)gpu_buffer_size(b.p.session->arena), 1e-6 * (double)whole_size);
    assert_true(b.p.session->layout.decode.keep > 0);
    assert_true(gpu_buffer_size(b.p.session->arena) < whole_size);
    assert_true(db >= PSNR_MIN);
    gpu_narrow_caps(b.gpu, &caps);
    free(whole);
    free(cut);
    bench_close(&b);
}

/* What does not fit is refused with what would. */
static void test_too_large(void **state)
{
    struct bench b = {0};
    struct session_shape shape = {.width = 1024, .height = 512, .batch = 2, .chunks = 1};
    struct fault f = {0};
    unsigned w = 0, h = 0;

    (void)state;
    skip_when_slow();
    bench_open(&b, "tests/golden/models/four");
    struct caps narrow = narrowed(b.gpu, 1 << 20, 3 << 20);
    gpu_narrow_caps(b.gpu, &narrow);
    assert_int_equal(pipeline_prepare(&b.p, &shape, &f), -EFBIG);
    (void)printf("%s\n", f.text);
    assert_int_equal(
        sscanf(f.text, "1024x512 is more than this device holds, %ux%u would fit", &w, &h), 2);
    shape.width = w;
    shape.height = h;
    must(pipeline_prepare(&b.p, &shape, &f), &f);
    bench_close(&b);
}

/* --- cancelling ------------------------------------------------------------------------------- */

struct canceller {
    struct bench *b;
    atomic_bool cancel;
    uint64_t start, at;
    struct timespec when;
};

static void *cancel_in_the_middle(void *userdata)
{
    struct canceller *c = userdata;
    struct timespec pause = {.tv_nsec = 200000};

    while (gpu_progress(c->b->gpu) < c->start + 5)
        (void)nanosleep(&pause, NULL);
    atomic_store(&c->cancel, true);
    c->at = gpu_progress(c->b->gpu);
    (void)clock_gettime(CLOCK_MONOTONIC, &c->when);
    return NULL;
}

/* The demo model's decoder at 512x512 takes a dozen submissions or more: a cancellation ends it
 * with the one that runs, and meanwhile the progress counter moves on. */
static void test_cancel(void **state)
{
    struct bench b = {0};
    struct canceller c = {.b = &b};
    struct timespec end;
    struct fault f = {0};
    pthread_t thread;

    (void)state;
    skip_when_slow();
    bench_open(&b, "packaging/demo-model");
    prepare(&b, 512, 512);
    free(put_latents(&b, 1));
    uint32_t chunks = recording_program(b.p.session->recordings[SESSION_DECODE])->chunks;
    float *values = malloc(b.p.session->image_size);
    assert_non_null(values);
    assert_true(chunks > 12);
    c.start = gpu_progress(b.gpu);
    assert_int_equal(pthread_create(&thread, NULL, cancel_in_the_middle, &c), 0);
    assert_int_equal(decode_picture(&b.p, values, &c.cancel, &f), -ECANCELED);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)printf("cancelled at submission %u of %u, %.0f ms and %u submissions later over\n",
                 (unsigned)(c.at - c.start), chunks,
                 1e3 * (double)(end.tv_sec - c.when.tv_sec) +
                     1e-6 * (double)(end.tv_nsec - c.when.tv_nsec),
                 (unsigned)(gpu_progress(b.gpu) - c.at));
    assert_true(gpu_progress(b.gpu) - c.at <= 1);
    free(values);
    bench_close(&b);
}

/* --- previews --------------------------------------------------------------------------------- */

/* One graph of the small VAE over one golden input; malloc'd rows of 8 floats. */
static float *run_tiny(struct bench *b, const struct tiny *t, const struct golden_tensor *in,
                       bool encode, float (*prepare_value)(float), size_t *ret_pixels)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(gpu_buffer_freep) struct gpu_buffer *arena = NULL;
    _cleanup_(recording_freep) struct recording *recording = NULL;
    size_t hw = (size_t)in->dims[2] * in->dims[3];
    uint16_t *rows = calloc(8 * hw, sizeof *rows);
    struct pinned p = {.element = ELEMENT_F16,
                       .n = 1,
                       .h = in->dims[2],
                       .w = in->dims[3],
                       .layout = layout_plain(in->dims[1])};
    struct fault f = {0};

    assert_non_null(rows);
    assert_int_equal(graph_new(t->weights, WEIGHTS_TAESD, 256, &g), 0);
    tensor from = build_given(g, &p);
    tensor to = encode ? build_taesd_encoder(g, &t->config, from, NULL)
                       : build_taesd_decoder(g, &t->config, from, NULL);
    must(graph_fault(g, &f), &f);
    g->tensors.items[to].keep = true;
    must(graph_plan(g, &f), &f);
    must(gpu_buffer_new(b->gpu, GPU_LIFETIME_ARENA, g->arena_size, &arena, &f), &f);
    must(gpu_clear(b->gpu, arena, 0, g->arena_size, &f), &f);
    must(graph_record(g, b->gpu, arena, 0, &recording, &f), &f);
    for (uint32_t c = 0; c < in->dims[1]; c++)
        for (size_t i = 0; i < hw; i++)
            rows[8 * i + c] = half_from_float(prepare_value(in->f32[c * hw + i]));
    must(gpu_upload(b->gpu, arena, graph_tensor(g, from)->offset, rows, 16 * hw, &f), &f);
    free(rows);
    must(recording_run(recording, NULL, &f), &f);
    *ret_pixels = tensor_rows(graph_tensor(g, to));
    float *out = malloc(tensor_bytes(graph_tensor(g, to)));
    assert_non_null(out);
    must(gpu_download(b->gpu, arena, graph_tensor(g, to)->offset, out,
                      tensor_bytes(graph_tensor(g, to)), &f),
         &f);
    return out;
}

static float itself(float x)
{
    return x;
}

static void check_tiny(struct bench *b, const struct tiny *t, const struct golden *golden,
                       bool encode)
{
    const struct golden_tensor *in = golden_find(golden, encode ? "taesd.image" : "taesd.latents");
    const struct golden_tensor *want = golden_find(golden, encode ? "taesd.encoded" : "taesd.out");
    size_t pixels, channels = want->dims[1];
    float *rows = run_tiny(b, t, in, encode, encode ? itself : taesd_squash, &pixels);
    float *got = malloc(want->count * sizeof *got);

    assert_non_null(got);
    assert_int_equal(pixels * channels, want->count);
    for (size_t i = 0; i < want->count; i++) {
        float v = rows[i % pixels * 8 + i / pixels];
        got[i] = encode ? v : 2 * v - 1;
    }
    double error = golden_relative_l2(got, want->f32, want->count);
    (void)printf("taesd %s: relative L2 %.2e\n", encode ? "encoder" : "decoder", error);
    assert_true(error <= LIMIT);
    free(rows);
    free(got);
}

/* The preview of golden latents by the pipeline: the reference's picture, to the byte or so. */
static void check_tiny_preview(struct bench *b, const struct golden *golden)
{
    const struct golden_tensor *in = golden_find(golden, "taesd.latents");
    const struct golden_tensor *want = golden_find(golden, "taesd.out");
    uint32_t w = want->dims[3], h = want->dims[2];
    size_t hw = (size_t)w * h;
    uint8_t *rgb = malloc(3 * hw);
    float *a = malloc(3 * hw * sizeof *a), *c = malloc(3 * hw * sizeof *c);
    struct fault f = {0};

    assert_true(rgb && a && c);
    prepare(b, w, h);
    for (int k = 0; k < 2; k++) {
        memset(rgb, 0, 3 * hw);
        must(decode_preview(&b->p, in->f32, rgb, NULL, &f), &f);
        for (size_t i = 0; i < 3 * hw; i++) {
            float v = want->f32[i % 3 * hw + i / 3] / 2 + 0.5f;
            a[i] = (float)rgb[i] / 255;
            c[i] = v > 0 ? (v < 1 ? v : 1) : 0;
        }
        (void)printf("preview by the small VAE: %.1f dB\n", psnr(a, c, 3 * hw));
        assert_true(psnr(a, c, 3 * hw) >= PSNR_MIN);
    }
    free(rgb);
    free(a);
    free(c);
}

static void test_tiny(void **state)
{
    struct golden *golden = golden_open("tests/golden/blocks/taesd.safetensors");
    struct bench b = {0};
    struct tiny *tiny = NULL;
    struct fault f = {0};

    (void)state;
    assert_non_null(golden);
    bench_open(&b, "tests/golden/models/four");
    must(tiny_open("tests/golden", &tiny, &f), &f);
    assert_non_null(tiny);
    must(tiny_load(tiny, b.gpu, &f), &f);
    check_tiny(&b, tiny, golden, false);
    check_tiny(&b, tiny, golden, true);
    b.p.tiny = tiny;
    check_tiny_preview(&b, golden);
    pipeline_done(&b.p);
    tiny_free(tiny);
    bench_close(&b);
    golden_free(golden);
}

/* Without one: a map that is nearer to the decoder's picture than its mean colour, and the latents
 * in the session stay what they were. */
static void test_map(void **state)
{
    struct bench b = {0};
    size_t n = 3 * 128 * 128;
    uint8_t *rgb = NULL;
    double map = 0, flat = 0, mean[3] = {0};
    struct fault f = {0};

    (void)state;
    skip_when_slow();
    rgb = malloc(n);
    assert_non_null(rgb);
    bench_open(&b, "packaging/demo-model");
    prepare(&b, 128, 128);
    float *latents = put_latents(&b, 5);
    float *before = decode(&b);
    must(decode_preview(&b.p, latents, rgb, NULL, &f), &f);
    assert_true(b.p.has_preview);
    float *after = decode(&b);
    assert_memory_equal(before, after, n * sizeof *before);
    for (size_t i = 0; i < n; i++)
        mean[i % 3] += 3 * (double)before[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        map += pow((double)rgb[i] / 255 - (double)before[i], 2);
        flat += pow(mean[i % 3] - (double)before[i], 2);
    }
    (void)printf("off by %.3f, the mean colour by %.3f\n", sqrt(map / (double)n),
                 sqrt(flat / (double)n));
    assert_true(map < 0.8 * flat);
    free(latents);
    free(before);
    free(after);
    free(rgb);
    bench_close(&b);
}

/* Configurations of what is not built are refused by their key. */
static void test_tiny_config(void **state)
{
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"{\"act_fn\": \"silu\"}", "act_fn"},
        {"{\"upsample_fn\": \"bilinear\"}", "upsample_fn"},
        {"{\"latent_channels\": 16}", "latent_channels"},
        {"{\"upsampling_scaling_factor\": 4}", "upsampling_scaling_factor"},
        {"{\"decoder_block_out_channels\": [64, 32], \"num_decoder_blocks\": [1, 1]}",
         "decoder_block_out_channels"},
        {"{\"num_decoder_blocks\": [3, 3, 1]}", "num_decoder_blocks"},
        {"{\"encoder_block_out_channels\": [64, 64], \"num_encoder_blocks\": [1, 3]}",
         "num_decoder_blocks"},
    };
    struct taesd_config config;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fault f = {0};
        json_t *root = json_loads(rows[i].json, 0, NULL);
        assert_non_null(root);
        assert_int_equal(taesd_config_parse(root, &config, &f), -EINVAL);
        if (!strstr(f.text, rows[i].says))
            fail_msg("\"%s\" does not say %s", f.text, rows[i].says);
        json_decref(root);
    }
    json_t *empty = json_object();
    assert_int_equal(taesd_config_parse(empty, &config, NULL), 0);
    assert_int_equal(config.decoder.blocks[0], 3);
    assert_int_equal(taesd_factor(&config), 8);
    json_decref(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),      cmocka_unit_test(test_bands),
        cmocka_unit_test(test_too_large),   cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_tiny),        cmocka_unit_test(test_map),
        cmocka_unit_test(test_tiny_config),
    };

    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
