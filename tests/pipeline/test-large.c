/* A VAE of Stable Diffusion's widths where the picture is large, with random weights, on a device
 * of 128 MiB bindings and 1 GiB allocations without texel views: 1024x1024 pixels, decoded and
 * encoded. With LARGE=1 just that (half an hour of a software device; a sixteenth of the widths
 * and of the limits where DIFFUSED_SLOW_DEVICE is set); without, 192x192 pixels, a quarter of the
 * widths and as much less of the limits, where the same decisions fall, and compared with the same
 * VAE whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/bench.h"
#include "tests/support/folder.h"
#include "tests/support/safetensors_write.h"
#include "vk/base/half.h"
#include "vk/pipeline/decode.h"
#include "vk/pipeline/encode.h"
#include "vk/sample/rng.h"

#define MIB       (1ull << 20)
#define PSNR_MIN  45.0
#define WIDTH_MIN 8u

#define LEVELS 4
static uint32_t widths[LEVELS] = {128, 256, 32, 32};

/* What is run: the picture's side, and what the widths and the device's limits are divided by. */
struct scale {
    uint32_t side;
    unsigned widths, limits;
    bool is_compared; /* with the VAE whole */
};
static const struct scale scale_full = {.side = 1024, .widths = 1, .limits = 1},
                          scale_slow = {.side = 1024, .widths = 16, .limits = 16},
                          scale_small = {.side = 192,
                                         .widths = 4,
                                         .limits = 112, /* 192 * 192 / 4 of 1024 * 1024 */
                                         .is_compared = true};

static const struct scale *choose_scale(void)
{
    bool is_slow = is_slow_device();

    if (getenv("LARGE"))
        return is_slow ? &scale_slow : &scale_full;
    return is_slow ? NULL : &scale_small;
}

/* --- the VAE's file --------------------------------------------------------------------------- */

struct file {
    struct safetensors_item items[256];
    char names[256][96];
    size_t count;
    struct rng rng;
};

/* name.suffix of [n, k, taps, taps] (k 0: a vector) with normal values about `mean`. */
static void add(struct file *f, const char *name, const char *suffix, const uint64_t dims[4],
                double mean, double deviation)
{
    struct safetensors_item *item = &f->items[f->count];
    size_t n = 1;

    assert_true(f->count < ARRAY_SIZE(f->items));
    (void)snprintf(f->names[f->count], sizeof f->names[0], "%s.%s", name, suffix);
    *item = (struct safetensors_item){.name = f->names[f->count++], .dtype = "F16"};
    for (; item->rank < 4 && dims[item->rank]; item->rank++) {
        item->dims[item->rank] = dims[item->rank];
        n *= dims[item->rank];
    }
    float *values = malloc(n * sizeof *values);
    uint16_t *halves = malloc(n * sizeof *halves);
    assert_true(values && halves);
    rng_normal(&f->rng, values, n);
    for (size_t i = 0; i < n; i++)
        halves[i] = half_from_float((float)(mean + deviation * (double)values[i]));
    free(values);
    item->data = halves;
}

static void add_layer(struct file *f, const char *name, uint32_t n, uint32_t k, uint32_t taps)
{
    uint64_t dims[4] = {n, k, taps, taps};
    double fan = (double)k * taps * taps;

    if (taps == 0) {
        dims[2] = 0;
        fan = k;
    }
    add(f, name, "weight", dims, 0, sqrt(1 / fan));
    add(f, name, "bias", (uint64_t[4]){n}, 0, 0.05);
}

static void add_norm(struct file *f, const char *name, uint32_t c)
{
    add(f, name, "weight", (uint64_t[4]){c}, 1, 0.1);
    add(f, name, "bias", (uint64_t[4]){c}, 0, 0.1);
}

static const char *join(const char *scope, const char *name)
{
    static char texts[4][96];
    static unsigned next;
    char *text = texts[next++ % ARRAY_SIZE(texts)];

    (void)snprintf(text, sizeof texts[0], "%s.%s", scope, name);
    return text;
}

static void add_resnet(struct file *f, const char *scope, uint32_t in, uint32_t out)
{
    add_norm(f, join(scope, "norm1"), in);
    add_layer(f, join(scope, "conv1"), out, in, 3);
    add_norm(f, join(scope, "norm2"), out);
    add_layer(f, join(scope, "conv2"), out, out, 3);
    if (in != out)
        add_layer(f, join(scope, "conv_shortcut"), out, in, 1);
}

static void add_mid(struct file *f, const char *side)
{
    static const char *const parts[] = {"to_q", "to_k", "to_v", "to_out.0"};
    uint32_t c = widths[LEVELS - 1];
    char scope[64];

    for (int j = 0; j < 2; j++) {
        (void)snprintf(scope, sizeof scope, "%s.mid_block.resnets.%d", side, j);
        add_resnet(f, scope, c, c);
    }
    (void)snprintf(scope, sizeof scope, "%s.mid_block.attentions.0", side);
    add_norm(f, join(scope, "group_norm"), c);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        add_layer(f, join(scope, parts[i]), c, c, 0);
}

static void add_side(struct file *f, bool decoder)
{
    const char *side = decoder ? "decoder" : "encoder";
    uint32_t first = decoder ? widths[LEVELS - 1] : widths[0], in = first;
    char scope[64];

    add_layer(f, join(side, "conv_in"), first, decoder ? 4 : 3, 3);
    add_mid(f, side);
    for (unsigned i = 0; i < LEVELS; i++) {
        uint32_t out = widths[decoder ? LEVELS - 1 - i : i];
        for (unsigned j = 0; j < (decoder ? 2 : 1); j++, in = out) {
            (void)snprintf(scope, sizeof scope, "%s.%s_blocks.%u.resnets.%u", side,
                           decoder ? "up" : "down", i, j);
            add_resnet(f, scope, in, out);
        }
        (void)snprintf(scope, sizeof scope, "%s.%s_blocks.%u.%ssamplers.0.conv", side,
                       decoder ? "up" : "down", i, decoder ? "up" : "down");
        if (i + 1 < LEVELS)
            add_layer(f, scope, out, out, 3);
    }
    add_norm(f, join(side, "conv_norm_out"), in);
    add_layer(f, join(side, "conv_out"), decoder ? 3 : 8, in, 3);
}

static void write_vae(const char *directory)
{
    static struct file f;
    char path[600];
    struct fault fault = {0};

    rng_init(&f.rng, 17);
    f.count = 0;
    add_side(&f, true);
    add_side(&f, false);
    add_layer(&f, "quant_conv", 8, 8, 1);
    add_layer(&f, "post_quant_conv", 4, 4, 1);
    (void)snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", directory);
    if (safetensors_write(path, f.items, f.count, &fault) < 0)
        fail_msg("%s", fault.text);
    for (size_t i = 0; i < f.count; i++)
        free((void *)(uintptr_t)f.items[i].data);
    (void)snprintf(path, sizeof path, "%s/config.json", directory);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fprintf(out,
                        "{\"block_out_channels\": [%u, %u, %u, %u], \"layers_per_block\": 1,"
                        " \"norm_num_groups\": %u, \"latent_channels\": 4}\n",
                        widths[0], widths[1], widths[2], widths[3], widths[3]) > 0);
    assert_int_equal(fclose(out), 0);
}

/* The model "four" with another VAE. */
static void write_model(const char *directory)
{
    static const char *const parts[] = {"text_encoder", "unet", "tokenizer", "scheduler"};
    char from[512], to[512], here[256];

    assert_non_null(getcwd(here, sizeof here));
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        (void)snprintf(from, sizeof from, "%s/tests/golden/models/four/%s", here, parts[i]);
        (void)snprintf(to, sizeof to, "%s/%s", directory, parts[i]);
        assert_int_equal(symlink(from, to), 0);
    }
    (void)snprintf(to, sizeof to, "%s/vae", directory);
    assert_int_equal(mkdir(to, 0700), 0);
    write_vae(to);
}

/* --- on the device ---------------------------------------------------------------------------- */

static float *normal(size_t n, uint64_t seed)
{
    float *values = malloc(n * sizeof *values);
    struct rng rng;

    assert_non_null(values);
    rng_init(&rng, seed);
    rng_normal(&rng, values, n);
    return values;
}

/* A picture and the moments of another, side by side: f32 [3 * side * side + 8 * side * side / 64].
 */
static float *run(struct bench *b, uint32_t side, size_t *ret_picture, size_t *ret_count)
{
    struct session_shape shape = {.width = side, .height = side, .batch = 1, .chunks = 1};
    size_t pixels = (size_t)side * side, latents = pixels / 64;
    float *drawn = normal(4 * latents, 1), *picture = normal(3 * pixels, 2);
    struct fault f = {0};

    b->p.session = session_free(b->p.session);
    must(pipeline_prepare(&b->p, &shape, &f), &f);
    const struct session *s = b->p.session;
    (void)printf("%ux%u: %llu MB of activations\n", side, side,
                 (unsigned long long)(gpu_buffer_size(s->arena) / MIB));
    float *values = malloc(s->image_size + 8 * latents * sizeof *values);
    assert_non_null(values);
    must(gpu_upload(b->gpu, s->arena, s->layout.state.offset, drawn, 4 * latents * sizeof *drawn,
                    &f),
         &f);
    must(decode_picture(&b->p, values, NULL, &f), &f);
    for (size_t i = 0; i < 3 * pixels; i++)
        picture[i] = tanhf(picture[i] / 2);
    must(encode_image(&b->p, picture, values + 3 * pixels, NULL, &f), &f);
    free(drawn);
    free(picture);
    *ret_picture = 3 * pixels;
    *ret_count = 3 * pixels + 8 * latents;
    return values;
}

static struct caps narrowed(const struct gpu *gpu, unsigned part)
{
    struct caps caps = *gpu_get_caps(gpu);

    caps.max_binding = 128 * MIB / part;
    caps.max_texels = 65536 / part;
    caps.max_allocation = 1024 * MIB / part;
    caps.max_buffer = caps.max_allocation;
    return caps;
}

/* Something is drawn: numbers, and not all the same. */
static void check_values(const float *values, size_t n)
{
    double sum = 0, squares = 0;

    for (size_t i = 0; i < n; i++) {
        assert_true(isfinite(values[i]));
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    assert_true(squares / (double)n - pow(sum / (double)n, 2) > 1e-4);
}

static void compare(const float *cut, const float *whole, size_t n, size_t count)
{
    double picture = psnr(whole, cut, n), moments = psnr(whole + n, cut + n, count - n);

    (void)printf("picture %.1f dB, moments %.1f dB from whole\n", picture, moments);
    assert_true(picture >= PSNR_MIN);
    assert_true(moments >= PSNR_MIN);
}

static void test_narrow(void **state)
{
    const struct scale *scale = choose_scale();
    struct bench b = {0};
    size_t n, count;

    if (!scale) {
        (void)printf("SKIP: minutes on this driver; make check-large does more\n");
        skip();
    }
    for (int i = 0; i < LEVELS; i++)
        widths[i] = widths[i] / scale->widths < WIDTH_MIN ? WIDTH_MIN : widths[i] / scale->widths;
    write_model(*state);
    bench_open(&b, *state);
    struct caps caps = *gpu_get_caps(b.gpu), narrow = narrowed(b.gpu, scale->limits);
    gpu_narrow_caps(b.gpu, &narrow);
    float *cut = run(&b, scale->side, &n, &count);
    check_values(cut, n);
    check_values(cut + n, count - n);
    assert_true(gpu_buffer_size(b.p.session->arena) <= narrow.max_allocation);
    assert_true(b.p.session->layout.decode.keep > 0);
    gpu_narrow_caps(b.gpu, &caps);
    if (scale->is_compared) {
        float *whole = run(&b, scale->side, &n, &count);
        assert_int_equal(b.p.session->layout.decode.keep, 0);
        compare(cut, whole, n, count);
        free(whole);
    }
    free(cut);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_narrow, folder_setup, folder_teardown),
    };

    return cmocka_run_group_tests_name("large", tests, NULL, NULL);
}
