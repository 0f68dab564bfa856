/* The safety checker against the reference on pictures made up here: the same flags, the same
 * scores; what it keeps on the device and when it gives it back; what it says of broken files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/device.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/safetensors_write.h"
#include "tests/support/vulkan_faults.h"
#include "vk/base/file.h"
#include "vk/pipeline/clip_image.h"
#include "vk/pipeline/safety.h"
#include "vk/weights/safetensors.h"
#include "vk/weights/weights.h"

#define PICTURES    60u
#define SCORE_LIMIT 2e-3
#define SEVEN       "tests/golden/safety/seven"
#define TWENTY      "tests/golden/safety/twenty"

/* --- the pictures: as tests/golden/safety.py draws them --------------------------------------- */

struct drawn {
    struct engine_raster raster;
    uint8_t *bytes;
};

static void drawn_done(struct drawn *d)
{
    free(d->bytes);
}

static uint8_t draw_byte(uint32_t k, uint32_t x, uint32_t y, uint32_t c)
{
    uint32_t u =
        (x * (1 + (k * 7 + c * 3) % 11) + y * (1 + (k * 5 + c) % 9) + 37 * k * (c + 1)) % 512;
    uint32_t wave = u < 256 ? u : 511 - u;
    uint32_t checks = ((x >> (k % 5 + 1)) ^ (y >> (k % 3 + 1))) & 1;
    uint64_t mixed = x * 7919ull + y * 104729ull + c * 1299709ull + k * 15485863ull;
    uint32_t noise = (uint32_t)(mixed * 2654435761ull) >> 24;
    uint32_t mix =
        (wave * (4 + k % 7) + 255 * checks * (k % 4) + noise * (k % 3)) / (4 + k % 7 + 3);

    return (uint8_t)(mix < 255 ? mix : 255);
}

static struct drawn draw(uint32_t k)
{
    static const uint32_t wide[] = {64, 35, 128, 24, 97, 40, 256, 72, 64, 17};
    static const uint32_t tall[] = {64, 35, 96, 24, 64, 104, 64, 41, 90, 200};
    uint32_t w = wide[k % 10], h = tall[k / 10 % 5 + k % 5];
    struct drawn d = {.bytes = malloc((size_t)3 * w * h)};

    assert_non_null(d.bytes);
    for (uint32_t i = 0; i < 3 * w * h; i++)
        d.bytes[i] = draw_byte(k, i / 3 % w, i / 3 / w, i % 3);
    d.raster = (struct engine_raster){.pixels = d.bytes, .width = w, .height = h, .channels = 3};
    return d;
}

/* --- the picture as the encoder sees it ------------------------------------------------------- */

static void parse_image(const char *directory, struct clip_image_config *ret)
{
    _cleanup_(json_freep) json_t *root = NULL;
    struct fault f = {0};
    char path[256];

    (void)snprintf(path, sizeof path, "%s/feature_extractor/preprocessor_config.json", directory);
    must(json_read_object(path, 65536, &root, &f), &f);
    must(clip_image_config_parse(root, ret, &f), &f);
}

static void compare_pixels(const char *directory)
{
    static const uint32_t picked[] = {3, 36};
    char path[256];
    struct clip_image_config config;
    struct fault f = {0};

    (void)snprintf(path, sizeof path, "%s.safetensors", directory);
    struct golden *golden = golden_open(path);
    const struct golden_tensor *want = golden_find(golden, "pixels");
    parse_image(directory, &config);
    size_t n = (size_t)3 * config.crop_size * config.crop_size;
    float *got = malloc(n * sizeof *got);
    assert_non_null(got);
    assert_int_equal(want->count, n * ARRAY_SIZE(picked));
    for (size_t i = 0; i < ARRAY_SIZE(picked); i++) {
        _cleanup_(drawn_done) struct drawn d = draw(picked[i]);
        must(clip_image_make(&config, &d.raster, got, &f), &f);
        for (size_t k = 0; k < n; k++)
            if (!(fabsf(got[k] - want->f32[i * n + k]) < 1e-6f))
                fail_msg("%s: picture %u, value %zu: %g, want %g", directory, picked[i], k,
                         (double)got[k], (double)want->f32[i * n + k]);
    }
    free(got);
    golden_free(golden);
}

/* Less than half of one step of 255: the resampled bytes are the same, all of them. */
static void pixels(void **state)
{
    (void)state;
    compare_pixels(SEVEN);
    compare_pixels(TWENTY);
}

static int parse_text(const char *text, struct clip_image_config *ret, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;

    must(json_parse(text, strlen(text), &root, f), f);
    return clip_image_config_parse(root, ret, f);
}

static void preprocessor_keys(void **state)
{
    static const struct {
        const char *text, *fault;
    } bad[] = {
        {"{\"do_resize\": false}", "do_resize"},
        {"{\"resample\": 1}", "resample"},
        {"{\"size\": {\"height\": 224, \"width\": 224}}", "size"},
        {"{\"crop_size\": {\"height\": 224, \"width\": 128}}", "crop_size"},
        {"{\"size\": 100, \"crop_size\": 224}", "crop_size"},
        {"{\"image_std\": [1, 0, 1]}", "image_std"},
        {"{\"image_mean\": [1, 1]}", "image_mean"},
        {"{\"rescale_factor\": 1}", "rescale_factor"},
    };
    struct clip_image_config c;
    struct fault f = {0};

    (void)state;
    must(parse_text("{}", &c, &f), &f);
    assert_int_equal(c.size, 224);
    assert_int_equal(c.crop_size, 224);
    assert_true(c.mean[2] == 0.40821073f && c.deviation[0] == 0.26862954f);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(parse_text(bad[i].text, &c, &f), -EINVAL);
        if (!strstr(f.text, bad[i].fault))
            fail_msg("%s: %s", bad[i].text, f.text);
    }
}

/* --- scores ----------------------------------------------------------------------------------- */

static struct safety *open_checker(const char *directory, const struct safety_options *options)
{
    struct safety *s = NULL;
    struct fault f = {0};

    must(safety_open(directory, gpu, options, &s, &f), &f);
    assert_non_null(s);
    return s;
}

static void check(struct safety *s, uint32_t k, struct safety_result *ret)
{
    _cleanup_(drawn_done) struct drawn d = draw(k);
    struct fault f = {0};

    must(safety_check(s, &d.raster, NULL, ret, &f), &f);
}

/* Scores of picture k, and the largest difference to the reference's. */
static double compare_scores(const struct safety_result *r, const float *want, uint32_t k)
{
    double worst = 0;

    for (uint32_t i = 0; i < r->special_count + r->concept_count; i++) {
        double difference = fabs(r->scores[i] - (double)want[i]);
        if (!(difference <= SCORE_LIMIT))
            fail_msg("picture %u, score %u: %.3f, want %.3f", k, i, r->scores[i], (double)want[i]);
        worst = fmax(worst, difference);
    }
    return worst;
}

static void compare_checker(const char *directory)
{
    _cleanup_(safety_freep) struct safety *s = open_checker(directory, NULL);
    char path[256];
    double worst = 0;
    unsigned flagged = 0, same = 0;

    (void)snprintf(path, sizeof path, "%s.safetensors", directory);
    struct golden *golden = golden_open(path);
    const struct golden_tensor *scores = golden_find(golden, "scores");
    const struct golden_tensor *flags = golden_find(golden, "flags");
    assert_int_equal(scores->count, 20 * PICTURES);
    for (uint32_t k = 0; k < PICTURES; k++) {
        struct safety_result r;
        check(s, k, &r);
        assert_int_equal(r.special_count, 3);
        assert_int_equal(r.concept_count, 17);
        worst = fmax(worst, compare_scores(&r, scores->f32 + (size_t)20 * k, k));
        flagged += r.is_nsfw;
        same += r.is_nsfw == flags->i32[k];
    }
    golden_free(golden);
    print_message("%s: %u of %u flagged, scores differ by at most %.3f\n", directory, flagged,
                  PICTURES, worst);
    assert_int_equal(same, PICTURES);
}

static void scores_seven(void **state)
{
    (void)state;
    compare_checker(SEVEN);
}

static void scores_twenty(void **state)
{
    (void)state;
    compare_checker(TWENTY);
}

/* The rule alone, by hand: cosines of 1, 0.6 and 0.8 on unit vectors. */
static void rule(void **state)
{
    float plain[] = {1, 0, 0.6f, 0.8f, 0, 1}, twice[] = {2, 0};
    float thresholds[3] = {0.5f, 0.601f, 0.004f};
    struct safety_concepts special = {.count = 1, .embeds = plain + 2, .thresholds = thresholds};
    struct safety_concepts concepts = {.count = 3, .embeds = plain, .thresholds = thresholds};
    struct safety_result r;

    (void)state;
    thresholds[0] = 0.6f; /* special care: 0.6 - 0.6 is no hit; concepts: 1 - 0.6 is one */
    safety_score(&special, &concepts, twice, 2, &r);
    assert_true(r.scores[0] == 0 && r.scores[1] == 0.4 && r.scores[2] == -0.001);
    assert_true(r.is_nsfw);
    thresholds[0] = 0.5f; /* special care hits: all that follow rise by 0.01 */
    safety_score(&special, &concepts, twice, 2, &r);
    assert_true(r.scores[0] == 0.1 && r.scores[1] == 0.51 && r.scores[2] == 0.009);
    assert_true(r.scores[3] == 0.006);
    thresholds[0] = 0.5f; /* special care alone never flags */
    concepts = (struct safety_concepts){.count = 1, .embeds = plain + 4, .thresholds = thresholds};
    safety_score(&special, &concepts, twice, 2, &r);
    assert_true(r.scores[0] == 0.1 && r.scores[1] == -0.49);
    assert_false(r.is_nsfw);
    thresholds[0] = 0.99951f; /* 0.00049 is rounded to nothing, 0.00051 to a hit */
    concepts.embeds = plain;
    special.count = 0;
    safety_score(&special, &concepts, twice, 2, &r);
    assert_true(r.scores[0] == 0 && !r.is_nsfw);
    thresholds[0] = 0.99949f;
    safety_score(&special, &concepts, twice, 2, &r);
    assert_true(r.scores[0] == 0.001 && r.is_nsfw);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* The checker's files copied to a folder of the test's own. */
static void copy(const char *from, const char *folder, const char *file)
{
    char path[512], *data = NULL;
    struct fault f = {0};
    size_t size;

    (void)snprintf(path, sizeof path, "%s/%s", from, file);
    must(file_read(path, 1u << 20, &data, &size, &f), &f);
    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    must(file_write_atomic(path, data, size, &f), &f);
    free(data);
}

static void make_folder(const char *folder, const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0755), 0);
}

static void copy_checker(const char *folder)
{
    make_folder(folder, "safety_checker");
    make_folder(folder, "feature_extractor");
    copy(SEVEN, folder, "safety_checker/config.json");
    copy(SEVEN, folder, "safety_checker/model.fp16.safetensors");
    copy(SEVEN, folder, "feature_extractor/preprocessor_config.json");
}

/* Loaded by the first check and by no other; a file that goes bad is noticed when it is read. */
static void resident(void **state)
{
    struct safety_result first, again;
    struct fault f = {0};
    char path[512];
    uint64_t before = gpu_memory_used(gpu);

    copy_checker(*state);
    struct safety *s = open_checker(*state, NULL);
    assert_false(safety_is_resident(s));
    assert_int_equal(gpu_memory_used(gpu), before);
    check(s, 5, &first);
    assert_true(safety_is_resident(s));
    assert_true(gpu_memory_used(gpu) > before + 90000); /* parameters of 48,000 halves, and more */
    (void)snprintf(path, sizeof path, "%s/safety_checker/model.fp16.safetensors", (char *)*state);
    assert_int_equal(truncate(path, 5000), 0);
    check(s, 5, &again);
    assert_memory_equal(&first, &again, sizeof first);
    must(safety_verify(s, &f), &f);
    assert_true(safety_release(s));
    assert_false(safety_release(s));
    assert_int_equal(gpu_memory_used(gpu), before);
    _cleanup_(drawn_done) struct drawn d = draw(5);
    assert_true(safety_check(s, &d.raster, NULL, &again, &f) < 0);
    assert_non_null(strstr(f.text, "safety_checker/model.fp16.safetensors"));
    assert_int_equal(gpu_memory_used(gpu), before);
    safety_free(s);
}

static bool give_room(void *userdata)
{
    vulkan_faults_disarm();
    ++*(unsigned *)userdata;
    return true;
}

/* Where device memory runs out room is made for the checker, and it goes after the check. */
static void without_room(void **state)
{
    unsigned asked = 0;
    const struct safety_options options = {.make_room = give_room, .userdata = &asked};
    const struct vulkan_fault_plan plan = {
        .nth = 1, .fault = VULKAN_OUT_OF_DEVICE_MEMORY, .sticky = true};
    struct safety *s = open_checker(SEVEN, &options);
    struct safety_result usual, r;
    uint64_t before = gpu_memory_used(gpu);

    (void)state;
    check(s, 9, &usual);
    assert_int_equal(asked, 0);
    assert_true(safety_release(s));
    vulkan_faults_arm(&plan);
    check(s, 9, &r);
    vulkan_faults_disarm();
    assert_int_equal(asked, 1);
    assert_false(safety_is_resident(s));
    assert_int_equal(gpu_memory_used(gpu), before);
    assert_memory_equal(&usual, &r, sizeof r);
    safety_free(s);
}

static void nowhere_to_go(void **state)
{
    const struct vulkan_fault_plan plan = {
        .nth = 1, .fault = VULKAN_OUT_OF_DEVICE_MEMORY, .sticky = true};
    struct safety *s = open_checker(SEVEN, NULL);
    _cleanup_(drawn_done) struct drawn d = draw(1);
    struct safety_result r;
    struct fault f = {0};

    (void)state;
    vulkan_faults_arm(&plan);
    assert_int_equal(safety_check(s, &d.raster, NULL, &r, &f), -ENOMEM);
    vulkan_faults_disarm();
    assert_non_null(strstr(f.text, "device memory"));
    check(s, 1, &r); /* and well again */
    safety_free(s);
}

static void damaged(void **state)
{
    static const uint8_t flip[4] = {0x5a, 0xa5, 0x5a, 0xa5};
    struct safety *s = open_checker(SEVEN, NULL);
    struct safety_result r;
    struct fault f = {0};

    (void)state;
    must(safety_verify(s, &f), &f);
    check(s, 0, &r);
    must(safety_verify(s, &f), &f);
    must(gpu_upload(gpu, weights_buffer(safety_weights(s), 0), 4096, flip, sizeof flip, &f), &f);
    assert_int_equal(safety_verify(s, &f), -EBADMSG);
    safety_free(s);
}

static void cancelled(void **state)
{
    atomic_bool cancel = true;
    struct safety *s = open_checker(SEVEN, NULL);
    _cleanup_(drawn_done) struct drawn d = draw(2);
    struct safety_result r;
    struct fault f = {0};

    (void)state;
    assert_int_equal(safety_check(s, &d.raster, &cancel, &r, &f), -ECANCELED);
    d.raster.channels = 1;
    assert_int_equal(safety_check(s, &d.raster, NULL, &r, &f), -EINVAL);
    check(s, 2, &r);
    safety_free(s);
}

/* --- what a directory may hold ---------------------------------------------------------------- */

static void put(const char *folder, const char *file, const char *text)
{
    struct fault f = {0};
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    must(file_write_atomic(path, text, strlen(text), &f), &f);
}

static bool probe(const char *folder)
{
    struct fault f = {0};
    bool has = false;

    must(safety_probe(folder, &has, &f), &f);
    return has;
}

static void presence(void **state)
{
    const char *folder = *state;
    struct safety *s = NULL;
    struct fault f = {0};
    bool has;

    assert_true(probe(SEVEN)); /* no model_index.json at all */
    assert_false(probe(folder));
    assert_int_equal(safety_open(folder, gpu, NULL, &s, &f), 0);
    assert_null(s);
    put(folder, "model_index.json", "{\"safety_checker\": [\"stable_diffusion\", \"X\"]}");
    assert_false(probe(folder)); /* named, but taken out */
    make_folder(folder, "safety_checker");
    assert_true(probe(folder));
    put(folder, "model_index.json", "{\"safety_checker\": [null, null]}");
    assert_false(probe(folder));
    put(folder, "model_index.json", "{}");
    assert_false(probe(folder));
    put(folder, "model_index.json", "[1, 2");
    assert_true(safety_probe(folder, &has, &f) < 0);
    assert_non_null(strstr(f.text, "model_index.json"));
}

static void refuses(const char *folder, const char *what)
{
    struct safety *s = NULL;
    struct fault f = {0};

    if (safety_open(folder, gpu, NULL, &s, &f) >= 0)
        fail_msg("opened; want a fault with %s", what);
    if (!strstr(f.text, what))
        fail_msg("%s; want %s in it", f.text, what);
    assert_null(s);
}

/* Every file in turn absent or wrong; each fault says which and what. */
static void broken(void **state)
{
    static const float zeros[30 * 24] = {0}, nan_row[24] = {[7] = NAN};
    static const struct safetensors_item items[] = {
        {"special_care_embeds", "F32", 2, {3, 24}, zeros},
        {"special_care_embeds_weights", "F32", 1, {3}, zeros},
        {"concept_embeds", "F32", 2, {17, 24}, zeros},
        {"concept_embeds_weights", "F32", 1, {16}, zeros},
        {"concept_embeds_weights", "F32", 1, {17}, zeros},
        {"concept_embeds", "F32", 2, {30, 24}, zeros},
        {"concept_embeds_weights", "F32", 1, {30}, zeros},
    };
    static const struct safetensors_item narrow = {"special_care_embeds", "F32", 2, {3, 23}, zeros};
    static const struct safetensors_item not_finite = {
        "special_care_embeds", "F32", 2, {1, 24}, nan_row};
    const char *folder = *state;
    struct fault f = {0};
    char path[512];

    copy_checker(folder);
    (void)snprintf(path, sizeof path, "%s/safety_checker/model.fp16.safetensors", folder);
    must(safetensors_write(path, &narrow, 1, &f), &f);
    refuses(folder, "special_care_embeds: want [1…32,24], file has [3,23]");
    must(safetensors_write(path, &not_finite, 1, &f), &f);
    refuses(folder, "special_care_embeds: element 7 is nan");
    must(safetensors_write(path, items, 2, &f), &f);
    refuses(folder, "tensor \"concept_embeds\" is missing");
    must(safetensors_write(path, items, 4, &f), &f);
    refuses(folder, "concept_embeds has 17 rows, concept_embeds_weights 16");
    must(safetensors_write(
             path, (struct safetensors_item[]){items[0], items[1], items[2], items[4]}, 4, &f),
         &f);
    refuses(folder, "patch_embedding.weight\" is missing");
    must(safetensors_write(
             path, (struct safetensors_item[]){items[0], items[1], items[5], items[6]}, 4, &f),
         &f);
    refuses(folder, "33 embeddings, at most 32 are possible");
    assert_int_equal(unlink(path), 0);
    put(folder, "safety_checker/pytorch_model.bin", "x");
    refuses(folder, "safety_checker: only pickles (pytorch_model.bin)");
    put(folder, "feature_extractor/preprocessor_config.json", "{\"size\": 224}");
    refuses(folder, "crop_size 224, but safety_checker/config.json has image_size 35");
    put(folder, "safety_checker/config.json", "{\"vision_config\": {\"patch_size\": 0}}");
    refuses(folder, "safety_checker/config.json: vision_config: patch_size");
    put(folder, "safety_checker/config.json", "{}");
    refuses(folder, "safety_checker/config.json: vision_config: is missing");
}

/* --- in a whole model ------------------------------------------------------------------------- */

/* The golden model `two` with a checker that flags what `threshold` lets it: every cosine is over
 * -2. */
static void compose_model(const char *folder, float threshold)
{
    static const char *const parts[] = {"scheduler", "text_encoder", "tokenizer", "unet", "vae"};
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    char here[256], from[512], path[512];
    float values[17];
    struct fault f = {0};
    size_t head;

    assert_non_null(getcwd(here, sizeof here));
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        (void)snprintf(from, sizeof from, "%s/tests/golden/models/two/%s", here, parts[i]);
        (void)snprintf(path, sizeof path, "%s/%s", folder, parts[i]);
        assert_int_equal(symlink(from, path), 0);
    }
    copy_checker(folder);
    put(folder, "model_index.json", "{\"safety_checker\": [\"stable_diffusion\", \"X\"]}");
    (void)snprintf(path, sizeof path, "%s/safety_checker/model.fp16.safetensors", folder);
    must(safetensors_open(path, NULL, &file, &f), &f);
    const struct safetensors_tensor *t = safetensors_find(file, "concept_embeds_weights");
    assert_int_equal(t->size, sizeof values);
    (void)safetensors_header_bytes(file, &head);
    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        values[i] = threshold;
    FILE *out = fopen(path, "r+");
    assert_non_null(out);
    assert_int_equal(fseek(out, (long)(head + t->offset), SEEK_SET), 0);
    assert_int_equal(fwrite(values, sizeof values, 1, out), 1);
    assert_int_equal(fclose(out), 0);
}

struct seen {
    struct engine_picture picture;
    bool is_black;
};

static int see(const struct engine_picture *p, void *userdata)
{
    struct seen *s = userdata;

    s->picture = *p;
    s->is_black = true;
    for (uint32_t i = 0; i < 3 * p->width * p->height; i++)
        s->is_black &= p->rgb[i] == 0;
    return 0;
}

static struct seen run_mode(struct engine *e, uint32_t mode)
{
    static const struct engine_observer observer = {.on_picture = see};
    char prompt[] = "a fox";
    const struct request q = {.prompt = prompt,
                              .width = 32,
                              .height = 32,
                              .steps = 1,
                              .guidance_scale = 3,
                              .count = 1,
                              .scheduler = SCHEDULER_DDIM,
                              .safety = mode};
    struct seen s = {0};
    struct fault f = {0};

    must(engine_run(e, &q, NULL, &observer, &s, &f), &f);
    return s;
}

static void modes_of(const char *folder, bool flags)
{
    const struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};
    struct engine *e = NULL;
    struct fault f = {0};

    must(engine_open(folder, &options, &e, &f), &f);
    struct seen off = run_mode(e, SAFETY_OFF), flag = run_mode(e, SAFETY_FLAG);
    struct seen black = run_mode(e, SAFETY_BLACK);
    assert_false(off.picture.is_checked || off.picture.is_nsfw || off.is_black);
    assert_true(flag.picture.is_checked && !flag.picture.is_blackened && !flag.is_black);
    assert_int_equal(flag.picture.is_nsfw, flags);
    assert_int_equal(flag.picture.score_count, 20);
    assert_true(black.picture.is_checked);
    assert_int_equal(black.picture.is_nsfw, flags);
    assert_int_equal(black.picture.is_blackened, flags);
    assert_int_equal(black.is_black, flags);
    assert_memory_equal(black.picture.scores, flag.picture.scores, 20 * sizeof(double));
    must(engine_check(e, &f), &f);
    engine_close(e);
}

static void modes_flagged(void **state)
{
    compose_model(*state, -2);
    modes_of(*state, true);
}

/* Special care may hit as it likes: it blanks nothing. */
static void modes_clean(void **state)
{
    skip_when_slow(); /* the engine's pipelines take a minute there */
    compose_model(*state, 2);
    modes_of(*state, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels),
        cmocka_unit_test(preprocessor_keys),
        cmocka_unit_test(rule),
        cmocka_unit_test(scores_seven),
        cmocka_unit_test(scores_twenty),
        cmocka_unit_test_setup_teardown(resident, folder_setup, folder_teardown),
        cmocka_unit_test(without_room),
        cmocka_unit_test(nowhere_to_go),
        cmocka_unit_test(damaged),
        cmocka_unit_test(cancelled),
        cmocka_unit_test_setup_teardown(presence, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(broken, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(modes_flagged, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(modes_clean, folder_setup, folder_teardown),
    };

    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
