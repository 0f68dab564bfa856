/* LoRAs on small models: pictures as the reference merges them, under the names of every trainer;
 * taken out the weights are bit for bit what they were; what is wrong with a file is told, and
 * leaves the weights as they are. */
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
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/device.h"
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "tests/support/safetensors_write.h"
#include "vk/base/file.h"
#include "vk/pipeline/check.h"
#include "vk/pipeline/lora.h"
#include "vk/pipeline/pipeline.h"
#include "vk/weights/lora_names.h"

#define FOLDER "tests/golden/lora"

/* --- a model on the device -------------------------------------------------------------------- */

struct rig {
    struct model *model;
    struct weights *weights;
    struct pipeline pipeline;
    struct lora_state *lora;
    uint8_t sum[SHA256_SIZE]; /* of the weights as they were loaded */
};

static void take_sum(const struct rig *rig, uint8_t ret_sum[SHA256_SIZE])
{
    struct fault f = {0};

    must(weights_sum(rig->weights, gpu, ret_sum, &f), &f);
}

static struct rig rig_open(const char *model, const char *folder)
{
    const struct lora_options options = {.directory = folder, .beside = ""};
    struct rig rig = {0};
    struct fault f = {0};
    char path[256];

    (void)snprintf(path, sizeof path, "tests/golden/models/%s", model);
    must(model_open(path, &rig.model, &f), &f);
    must(weights_open(path, &rig.weights, &f), &f);
    must(session_declare_weights(rig.model, rig.weights, &f), &f);
    must(weights_load(rig.weights, gpu, NULL, NULL, &f), &f);
    must(lora_new(rig.weights, gpu, &options, &rig.lora, &f), &f);
    rig.pipeline = (struct pipeline){.gpu = gpu, .model = rig.model, .weights = rig.weights};
    take_sum(&rig, rig.sum);
    return rig;
}

static void rig_close(struct rig *rig)
{
    pipeline_done(&rig->pipeline);
    lora_free(rig->lora);
    weights_free(rig->weights);
    model_free(rig->model);
}

static void apply(const struct rig *rig, const char *spec)
{
    struct fault f = {0};

    must(lora_apply(rig->lora, spec, NULL, &f), &f);
}

static bool is_as_loaded(const struct rig *rig)
{
    uint8_t now[SHA256_SIZE];

    take_sum(rig, now);
    return memcmp(now, rig->sum, sizeof now) == 0;
}

static void refuses(const struct rig *rig, const char *spec, int err, const char *what)
{
    struct fault f = {0};

    int r = lora_apply(rig->lora, spec, NULL, &f);
    if (r != err || !strstr(f.text, what))
        fail_msg("%s: %d, \"%s\"; want %d, \"%s\"", spec, r, f.text, err, what);
}

/* --- names ------------------------------------------------------------------------------------ */

#define BLOCK       "down_blocks.0.attentions.1.transformer_blocks.0."
#define KOHYA_BLOCK "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_"
#define LAYER       "text_model.encoder.layers.3."
#define KOHYA_LAYER "lora_te_text_model_encoder_layers_3_"

static void names(void **state)
{
    static const struct {
        const char *tensor, *module;
        enum lora_role role;
    } rows[] = {
        {KOHYA_BLOCK "attn1_to_q.lora_down.weight", KOHYA_BLOCK "attn1_to_q", LORA_DOWN},
        {KOHYA_BLOCK "attn1_to_out_0.lora_up.weight", KOHYA_BLOCK "attn1_to_out_0", LORA_UP},
        {KOHYA_BLOCK "ff_net_0_proj.alpha", KOHYA_BLOCK "ff_net_0_proj", LORA_ALPHA},
        {"unet." BLOCK "attn2.to_k.lora.down.weight", KOHYA_BLOCK "attn2_to_k", LORA_DOWN},
        {"unet." BLOCK "attn2.to_out.0.lora_A.weight", KOHYA_BLOCK "attn2_to_out_0", LORA_DOWN},
        {"unet." BLOCK "attn1.processor.to_out_lora.up.weight", KOHYA_BLOCK "attn1_to_out_0",
         LORA_UP},
        {BLOCK "attn1.processor.to_v_lora.down.weight", KOHYA_BLOCK "attn1_to_v", LORA_DOWN},
        {"base_model.model." BLOCK "ff.net.2.lora_B.weight", KOHYA_BLOCK "ff_net_2", LORA_UP},
        {"base_model.model.unet." BLOCK "ff.net.2.lora_B.default.weight", KOHYA_BLOCK "ff_net_2",
         LORA_UP},
        {"text_encoder." LAYER "self_attn.to_q_lora.down.weight", KOHYA_LAYER "self_attn_q_proj",
         LORA_DOWN},
        {"text_encoder." LAYER "self_attn.to_out_lora.up.weight", KOHYA_LAYER "self_attn_out_proj",
         LORA_UP},
        {"text_encoder." LAYER "mlp.fc1.lora_linear_layer.up.weight", KOHYA_LAYER "mlp_fc1",
         LORA_UP},
        {LAYER "mlp.fc2.lora_A.weight", KOHYA_LAYER "mlp_fc2", LORA_DOWN},
        {KOHYA_BLOCK "attn1_to_q.hada_w1_a", "", LORA_FOREIGN},
        {KOHYA_BLOCK "attn1_to_q.lokr_w1", "", LORA_FOREIGN},
        {KOHYA_BLOCK "attn1_to_q.dora_scale", "", LORA_FOREIGN},
        {KOHYA_BLOCK "attn1_to_q.diff_b", "", LORA_FOREIGN},
        {BLOCK "attn1.to_q.weight", "", LORA_NO_ROLE},
    };
    char module[LORA_NAME_MAX], endless[600];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(lora_parse_name(rows[i].tensor, module), rows[i].role);
        assert_string_equal(module, rows[i].module);
    }
    memset(endless, 'x', sizeof endless); /* longer than any name of a file may be */
    (void)snprintf(endless + 500, 100, "self_attn.to_out.lora_up.weight");
    assert_int_equal(lora_parse_name(endless, module), LORA_UP);
    assert_true(strlen(module) < LORA_NAME_MAX);
}

/* --- bits ------------------------------------------------------------------------------------- */

/* The same numbers under other names are the same weights, and nothing is left of them. */
static void every_name(void **state)
{
    static const char *const full[] = {"full", "full-peft", "full-diffusers"};
    static const char *const attention[] = {"attention", "attention-processors"};
    struct rig rig = rig_open("two", FOLDER);
    uint8_t first[SHA256_SIZE], now[SHA256_SIZE];
    uint64_t used = gpu_memory_used(gpu);

    (void)state;
    assert_int_equal(lora_id(rig.lora), 0);
    assert_null(lora_sum(rig.lora));
    for (size_t i = 0; i < ARRAY_SIZE(full) + ARRAY_SIZE(attention); i++) {
        size_t k = i < ARRAY_SIZE(full) ? i : i - ARRAY_SIZE(full);
        apply(&rig, i == k ? full[k] : attention[k]);
        take_sum(&rig, now);
        assert_memory_equal(lora_sum(rig.lora), now, sizeof now);
        assert_memory_not_equal(now, rig.sum, sizeof now);
        if (k == 0)
            memcpy(first, now, sizeof now);
        assert_memory_equal(now, first, sizeof now);
        if (k > 0) { /* straight from one to the next, and over the plain model */
            apply(&rig, "");
            assert_true(is_as_loaded(&rig));
            assert_null(lora_sum(rig.lora));
            assert_int_equal(lora_id(rig.lora), 0);
        }
    }
    assert_int_equal(gpu_memory_used(gpu), used);
    rig_close(&rig);
}

static void ldm_names(void **state)
{
    struct rig rig = rig_open("four", FOLDER);
    uint8_t first[SHA256_SIZE], now[SHA256_SIZE];

    (void)state;
    apply(&rig, "sd");
    take_sum(&rig, first);
    assert_memory_not_equal(first, rig.sum, sizeof first);
    apply(&rig, NULL);
    assert_true(is_as_loaded(&rig));
    apply(&rig, FOLDER "/sd-ldm.safetensors");
    take_sum(&rig, now);
    assert_memory_equal(now, first, sizeof now);
    rig_close(&rig);
}

/* What is merged already costs no submission; a file that was replaced is read again. */
static void again(void **state)
{
    struct rig rig = rig_open("two", *state);
    uint8_t first[SHA256_SIZE], now[SHA256_SIZE];
    char path[256], *data = NULL;
    struct fault f = {0};
    size_t size;

    (void)snprintf(path, sizeof path, "%s/mine.safetensors", (char *)*state);
    must(file_read(FOLDER "/attention.safetensors", 1u << 20, &data, &size, &f), &f);
    must(file_write_atomic(path, data, size, &f), &f);
    free(data);
    apply(&rig, "mine:0.5");
    take_sum(&rig, first);
    uint64_t id = lora_id(rig.lora), progress = gpu_progress(gpu);
    apply(&rig, " mine:0.50 ");
    assert_int_equal(gpu_progress(gpu), progress);
    assert_int_equal(lora_id(rig.lora), id);
    apply(&rig, "mine:0.25,mine:0.25"); /* the sum is the same but for rounding */
    assert_true(lora_id(rig.lora) > id);
    must(file_read(FOLDER "/full.safetensors", 1u << 20, &data, &size, &f), &f);
    must(file_write_atomic(path, data, size, &f), &f);
    free(data);
    apply(&rig, "mine:0.5");
    take_sum(&rig, now);
    assert_memory_not_equal(now, first, sizeof now);
    apply(&rig, FOLDER "/full.safetensors:0.5");
    take_sum(&rig, first);
    assert_memory_equal(now, first, sizeof now);
    rig_close(&rig);
}

/* --- ended in the middle ---------------------------------------------------------------------- */

#define DEMO "../../../packaging/demo-model" /* several staging blocks */

static float small[32768], large[32768];

/* Every matrix of the U-Net, rank 1; with `breaks` the last one is beyond half precision. */
static void write_whole(const struct rig *rig, const char *folder, const char *name, bool breaks)
{
    size_t parts = weights_part_count(rig->weights), count = 0, last = 0;
    struct safetensors_item *items = calloc(2 * parts, sizeof *items);
    struct fault f = {0};
    char path[256], *text;

    assert_non_null(items);
    for (size_t i = 0; i < ARRAY_SIZE(small); i++)
        small[i] = 0.05f, large[i] = 1e30f;
    for (uint32_t i = 0; i < parts; i++) {
        struct weight_part w = weights_part(rig->weights, i);
        if (w.component != WEIGHTS_UNET || !w.is_matrix)
            continue;
        uint32_t rank = w.taps_h > 1 ? 4 : 2;
        int stem = (int)(strlen(w.name) - strlen(".weight"));
        assert_true(w.n <= ARRAY_SIZE(small) && w.k * w.taps_h * w.taps_w <= ARRAY_SIZE(small));
        assert_true(asprintf(&text, "unet.%.*s.lora_A.weight", stem, w.name) > 0);
        items[count++] =
            (struct safetensors_item){text, "F32", rank, {1, w.k, w.taps_h, w.taps_w}, small};
        last = strcmp(text, items[last].name) > 0 ? count - 1 : last;
        assert_true(asprintf(&text, "unet.%.*s.lora_B.weight", stem, w.name) > 0);
        items[count++] = (struct safetensors_item){text, "F32", rank, {w.n, 1, 1, 1}, small};
    }
    items[last].data = breaks ? large : small;
    (void)snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    must(safetensors_write(path, items, count, &f), &f);
    while (count > 0)
        free((char *)(uintptr_t)items[--count].name);
    free(items);
}

/* An error behind matrices that the device has already. */
static void broken_off(void **state)
{
    skip_when_slow(); /* pipelines and megabytes take minutes there */
    struct rig rig = rig_open(DEMO, *state);
    write_whole(&rig, *state, "broken", true);
    uint64_t progress = gpu_progress(gpu);
    refuses(&rig, "broken", -ERANGE, "beyond half precision");
    assert_true(gpu_progress(gpu) - progress > 2);
    assert_true(is_as_loaded(&rig));
    rig_close(&rig);
}

struct canceller {
    atomic_bool cancel;
    unsigned usec;
};

static void *cancel_later(void *userdata)
{
    struct canceller *c = userdata;

    (void)usleep(c->usec);
    atomic_store(&c->cancel, true);
    return NULL;
}

/* At once, and later and later until it comes too late: nothing stays of what was merged by then,
 * nor of what was merged before. */
static void cancelled(void **state)
{
    unsigned count = 0;
    int r = -ECANCELED;

    skip_when_slow();
    struct rig rig = rig_open(DEMO, *state);
    write_whole(&rig, *state, "before", false);
    write_whole(&rig, *state, "whole", false);
    for (unsigned usec = 0; r < 0; usec = 4 * usec + 1000, count++) {
        struct canceller c = {.cancel = usec == 0, .usec = usec};
        struct fault f = {0};
        pthread_t thread;
        if (count < 2)
            apply(&rig, "before:0.5");
        assert_int_equal(pthread_create(&thread, NULL, cancel_later, &c), 0);
        r = lora_apply(rig.lora, "whole", &c.cancel, &f);
        assert_int_equal(pthread_join(thread, NULL), 0);
        if (r == 0)
            continue;
        assert_int_equal(r, -ECANCELED);
        assert_true(is_as_loaded(&rig));
        assert_int_equal(lora_id(rig.lora), 0);
        assert_null(lora_sum(rig.lora));
    }
    assert_true(count > 1);
    assert_false(is_as_loaded(&rig));
    apply(&rig, "");
    assert_true(is_as_loaded(&rig));
    rig_close(&rig);
}

/* What is damaged while a LoRA is merged is told when it is taken out, and at every attempt to draw
 * on. */
static void unsound(void **state)
{
    static const uint8_t flip[4] = {0x5a, 0xa5, 0x5a, 0xa5};
    struct rig rig = rig_open("two", FOLDER);
    struct fault f = {0};

    (void)state;
    apply(&rig, "attention");
    must(gpu_upload(gpu, weights_buffer(rig.weights, 0), 8192, flip, sizeof flip, &f), &f);
    refuses(&rig, "", -EBADMSG, "not what they were");
    refuses(&rig, "", -EBADMSG, "not sound");
    refuses(&rig, "attention", -EBADMSG, "not sound");
    rig_close(&rig);
}

/* --- pictures --------------------------------------------------------------------------------- */

struct drawn {
    const struct golden *golden;
    char digest[SHA256_HEX_SIZE]; /* of the picture's bytes */
    double text, latents, psnr;
};

static void on_tensor(uint32_t picture, const struct engine_tensor *t, void *userdata)
{
    struct drawn *d = userdata;
    const struct golden_tensor *want = golden_find(d->golden, t->name);

    (void)picture;
    if (!want)
        return;
    if (strcmp(t->name, "image") == 0)
        d->psnr = golden_psnr(t->data, want->f32, want->count);
    else if (strcmp(t->name, "text") == 0)
        d->text = golden_relative_l2(t->data, want->f32, want->count);
    else if (strncmp(t->name, "latents.", 8) == 0)
        d->latents = fmax(d->latents, golden_relative_l2(t->data, want->f32, want->count));
}

static int on_picture(const struct engine_picture *p, void *userdata)
{
    struct drawn *d = userdata;

    sha256_hex(p->rgb, (size_t)3 * p->width * p->height, d->digest);
    return 0;
}

struct job {
    const char *name, *spec, *prompt;
    uint32_t width, height, steps;
    double guidance;
    uint64_t seed;
};

static struct drawn run(struct rig *rig, const struct job *job)
{
    static const struct engine_observer observer = {.on_tensor = on_tensor,
                                                    .on_picture = on_picture};
    char path[256], negative[] = "blurry";
    struct request q = {.prompt = strdup(job->prompt),
                        .negative_prompt = negative,
                        .width = job->width,
                        .height = job->height,
                        .steps = job->steps,
                        .guidance_scale = job->guidance,
                        .seed = job->seed,
                        .count = 1,
                        .scheduler = SCHEDULER_DDIM};
    struct fault f = {0};

    (void)snprintf(path, sizeof path, FOLDER "/%s.golden.safetensors", job->name);
    struct golden *golden = golden_open(path);
    assert_non_null(golden);
    struct drawn d = {.golden = golden};
    apply(rig, job->spec);
    must(pipeline_run(&rig->pipeline, &q, NULL, &observer, &d, NULL, &f), &f);
    print_message("%-10s \"%s\": text %.1e, latents %.1e, %.1f dB\n", job->name, job->spec, d.text,
                  d.latents, d.psnr);
    if (!(d.text <= 2e-3 && d.latents <= 5e-3 && d.psnr >= 45))
        fail_msg("%s: text %.1e, latents %.1e, %.1f dB", job->name, d.text, d.latents, d.psnr);
    golden_free(golden);
    free(q.prompt);
    return d;
}

/* With and without, one after the other, in one session. */
static void pictures(void **state)
{
    static const char fox[] = "a red fox in deep snow";
    static const struct job plain = {"two-plain", "", fox, 24, 16, 4, 5, 11};
    static const struct job full = {"two-full", "full:0.75", fox, 24, 16, 4, 5, 11};
    static const struct job both = {"two-both", "full:0.5,attention:-0.6", fox, 24, 16, 4, 5, 11};
    struct rig rig = rig_open("two", FOLDER);

    (void)state;
    struct drawn before = run(&rig, &plain);
    struct drawn with = run(&rig, &full);
    struct drawn between = run(&rig, &plain);
    (void)run(&rig, &both);
    struct drawn with_again = run(&rig, &full);
    struct drawn after = run(&rig, &plain);
    assert_string_equal(before.digest, between.digest);
    assert_string_equal(before.digest, after.digest);
    assert_string_equal(with.digest, with_again.digest);
    assert_string_not_equal(before.digest, with.digest);
    rig_close(&rig);
}

static void picture_sd(void **state)
{
    static const struct job sd = {"four-sd", "sd-ldm", "an old lighthouse", 40, 24, 3, 4, 3};

    (void)state;
    skip_when_slow();
    struct rig rig = rig_open("four", FOLDER);
    (void)run(&rig, &sd);
    rig_close(&rig);
}

/* --- the known answer, with a LoRA ------------------------------------------------------------ */

struct job_state {
    char digest[SHA256_HEX_SIZE];
    struct engine *engine;
    unsigned checks;
};

static int keep_digest(const struct engine_picture *p, void *userdata)
{
    struct job_state *s = userdata;

    sha256_hex(p->rgb, (size_t)3 * p->width * p->height, s->digest);
    return 0;
}

static void check_at_step(const struct engine_step *step, void *userdata)
{
    struct job_state *s = userdata;
    struct fault f = {0};

    (void)step;
    must(engine_check(s->engine, &f), &f);
    s->checks++;
}

static int engine_tries(struct engine *e, const char *lora, bool checked, struct job_state *s,
                        struct fault *f)
{
    const struct engine_observer observer = {.on_picture = keep_digest,
                                             .on_step = checked ? check_at_step : NULL};
    char prompt[] = "a fox";
    struct request q = {.prompt = prompt,
                        .width = 32, /* the model's own: no other session is made */
                        .height = 32,
                        .steps = 2,
                        .guidance_scale = 3,
                        .count = 1,
                        .scheduler = SCHEDULER_DDIM,
                        .lora = strdup(lora)};

    s->engine = e;
    int r = engine_run(e, &q, NULL, &observer, s, f);
    free(q.lora);
    return r;
}

static void engine_draws(struct engine *e, const char *lora, bool checked, struct job_state *s)
{
    struct fault f = {0};

    must(engine_tries(e, lora, checked, s, &f), &f);
}

/* The check holds with a LoRA merged, within its picture and after it, and disturbs none. */
static void known_answer(void **state)
{
    const struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES, .loras = FOLDER};
    struct job_state plain = {0}, with = {0}, checked = {0}, after = {0};
    struct engine *e = NULL;
    struct fault f = {0};

    (void)state;
    skip_when_slow();
    must(engine_open("tests/golden/models/two", &options, &e, &f), &f);
    must(engine_check(e, &f), &f);
    engine_draws(e, "", false, &plain);
    engine_draws(e, "full", false, &with);
    must(engine_check(e, &f), &f);
    engine_draws(e, "full", true, &checked);
    assert_int_equal(checked.checks, 2);
    assert_int_equal(engine_tries(e, "none", false, &after, &f), -ENOENT);
    assert_string_equal(after.digest, "");
    engine_draws(e, "", true, &after);
    assert_string_equal(with.digest, checked.digest);
    assert_string_equal(plain.digest, after.digest);
    assert_string_not_equal(plain.digest, with.digest);
    engine_close(e);
}

/* Damage under a LoRA is told, as without one. */
static void known_answer_damaged(void **state)
{
    static const uint8_t flip[4] = {0x5a, 0xa5, 0x5a, 0xa5};
    struct rig rig = rig_open("two", FOLDER);
    struct check check;
    struct fault f = {0};

    (void)state;
    rig.pipeline.lora = rig.lora;
    must(check_init(&check, &rig.pipeline, NULL, &f), &f);
    apply(&rig, "attention");
    must(check_run(&check, &f), &f);
    must(check_run(&check, &f), &f);
    must(gpu_upload(gpu, weights_buffer(rig.weights, 0), 8192, flip, sizeof flip, &f), &f);
    assert_int_equal(check_run(&check, &f), -EBADMSG);
    assert_non_null(strstr(f.text, "the weights in device memory"));
    check_done(&check);
    rig_close(&rig);
}

/* --- what is wrong with a file ---------------------------------------------------------------- */

static const float zeros[4096];
static const float not_finite[64] = {[5] = NAN}, huge[64] = {[0] = 1e30f};

#define Q       KOHYA_Q
#define KOHYA_Q "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
#define DOWN                                                                                       \
    {                                                                                              \
        Q ".lora_down.weight", "F32", 2, {4, 16}, zeros                                            \
    }
#define UP                                                                                         \
    {                                                                                              \
        Q ".lora_up.weight", "F32", 2, {16, 4}, zeros                                              \
    }

struct bad_file {
    int err;
    const char *fault;
    struct safetensors_item items[3];
};

static const struct bad_file bad_files[] = {
    {-EINVAL,
     "lora_te_text_model_encoder_layers_9_mlp_fc1.lora_up.weight: this model has no such module",
     {DOWN,
      UP,
      {"lora_te_text_model_encoder_layers_9_mlp_fc1.lora_up.weight", "F32", 2, {4, 4}, zeros}}},
    {-EINVAL, "conv_in.weight: is no tensor of a LoRA", {{"conv_in.weight", "F32", 1, {4}, zeros}}},
    {-EINVAL, "only plain LoRA", {{Q ".hada_w1_a", "F32", 2, {4, 16}, zeros}}},
    {-EINVAL, Q ": its lora_up is missing", {DOWN}},
    {-EINVAL, Q ": its lora_down is missing", {UP}},
    {-EINVAL,
     Q ".lora_down.weight: want [4,16], file has [4,24]",
     {{Q ".lora_down.weight", "F32", 2, {4, 24}, zeros}, UP}},
    {-EINVAL,
     Q ".lora_up.weight: want [16,4], file has [16,5]",
     {DOWN, {Q ".lora_up.weight", "F32", 2, {16, 5}, zeros}}},
    {-EINVAL,
     Q ".lora_up.weight: want [16,4], file has [16,4,3,3]",
     {DOWN, {Q ".lora_up.weight", "F32", 4, {16, 4, 3, 3}, zeros}}},
    {-EINVAL,
     "want F16, BF16 or F32, file has I32",
     {DOWN, {Q ".lora_up.weight", "I32", 2, {16, 4}, zeros}}},
    {-EINVAL, Q ".alpha: want a single number", {DOWN, UP, {Q ".alpha", "F32", 1, {2}, zeros}}},
    {-EINVAL,
     Q ".alpha: element 0 is nan",
     {DOWN, UP, {Q ".alpha", "F32", 0, {0}, not_finite + 5}}},
    {-EINVAL,
     "is there twice",
     {DOWN,
      UP,
      {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
       "F32",
       2,
       {4, 16},
       zeros}}},
    {-EINVAL,
     Q ".lora_up.weight: element 5 is nan",
     {DOWN, {Q ".lora_up.weight", "F32", 2, {16, 4}, not_finite}}},
    {-ERANGE,
     "attn1.to_q.weight becomes",
     {{Q ".lora_down.weight", "F32", 2, {4, 16}, huge},
      {Q ".lora_up.weight", "F32", 2, {16, 4}, huge}}},
};

static void write_bad(const char *folder, const struct bad_file *bad)
{
    struct fault f = {0};
    char path[256];
    size_t count = 0;

    while (count < ARRAY_SIZE(bad->items) && bad->items[count].name)
        count++;
    (void)snprintf(path, sizeof path, "%s/bad.safetensors", folder);
    must(safetensors_write(path, bad->items, count, &f), &f);
}

static void bad_file(void **state)
{
    struct rig rig = rig_open("two", *state);

    for (size_t i = 0; i < ARRAY_SIZE(bad_files); i++) {
        write_bad(*state, &bad_files[i]);
        refuses(&rig, "bad", bad_files[i].err, bad_files[i].fault);
        assert_true(is_as_loaded(&rig));
    }
    /* An error in the middle: nothing is left of the one before, and the next one is right. */
    apply(&rig, FOLDER "/full.safetensors");
    refuses(&rig, FOLDER "/full.safetensors,bad", -ERANGE, "beyond half precision");
    assert_true(is_as_loaded(&rig));
    assert_null(lora_sum(rig.lora));
    apply(&rig, FOLDER "/full.safetensors");
    assert_false(is_as_loaded(&rig));
    apply(&rig, "");
    assert_true(is_as_loaded(&rig));
    rig_close(&rig);
}

static void put(const char *folder, const char *file)
{
    struct fault f = {0};
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    must(file_write_atomic(path, "x", 1, &f), &f);
}

static void bad_name(void **state)
{
    struct rig rig = rig_open("two", *state);
    const struct lora_options names_only = {.directory = *state};
    const struct lora_options strict = {.directory = *state, .strict_owner = true};
    struct fault f = {0};
    char path[256];

    put(*state, "old.pt");
    put(*state, "broken.safetensors");
    refuses(&rig, "none", -ENOENT, "lora: none: no such LoRA");
    refuses(&rig, "old", -EINVAL, "lora: old.pt: a pickle");
    refuses(&rig, "broken", -EINVAL, "lora: broken: truncated");
    refuses(&rig, "/nowhere/x.safetensors", -ENOENT, "lora: /nowhere/x.safetensors: no such");
    (void)snprintf(path, sizeof path, "%s/old.pt", (char *)*state);
    refuses(&rig, path, -EINVAL, "a pickle");
    lora_free(rig.lora);
    must(lora_new(rig.weights, gpu, &(struct lora_options){.beside = FOLDER}, &rig.lora, &f), &f);
    apply(&rig, "full");
    apply(&rig, "full.safetensors:0.5,attention");
    apply(&rig, "../lora/full.safetensors," FOLDER "/attention");
    apply(&rig, "");
    assert_true(is_as_loaded(&rig));
    lora_free(rig.lora);
    must(lora_new(rig.weights, gpu, &names_only, &rig.lora, &f), &f);
    refuses(&rig, "../broken", -EINVAL, "want a name, not a path");
    refuses(&rig, path, -EINVAL, "want a name, not a path");
    refuses(&rig, ".hidden", -EINVAL, "want a name, not a path");
    refuses(&rig, "a\nb", -EINVAL, "control character");
    refuses(&rig, "none.safetensors", -ENOENT, "no such LoRA");
    lora_free(rig.lora);
    must(lora_new(rig.weights, gpu, &strict, &rig.lora, &f), &f);
    write_bad(*state, &bad_files[0]);
    (void)snprintf(path, sizeof path, "%s/bad.safetensors", (char *)*state);
    assert_int_equal(chmod(path, 0666), 0);
    refuses(&rig, "bad", -EINVAL, "no such module");
    must(safetensors_write(path, (struct safetensors_item[]){DOWN, UP}, 2, &f), &f);
    refuses(&rig, "bad", -EPERM, "everybody may write it");
    lora_free(rig.lora);
    must(lora_new(rig.weights, gpu, &(struct lora_options){0}, &rig.lora, &f), &f);
    refuses(&rig, "x", -ENOENT, "no directory of LoRAs");
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(every_name),
        cmocka_unit_test(ldm_names),
        cmocka_unit_test_setup_teardown(again, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(broken_off, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(cancelled, folder_setup, folder_teardown),
        cmocka_unit_test(unsound),
        cmocka_unit_test(pictures),
        cmocka_unit_test(picture_sd),
        cmocka_unit_test(known_answer),
        cmocka_unit_test(known_answer_damaged),
        cmocka_unit_test_setup_teardown(bad_file, folder_setup, folder_teardown),
        cmocka_unit_test_setup_teardown(bad_name, folder_setup, folder_teardown),
    };

    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
