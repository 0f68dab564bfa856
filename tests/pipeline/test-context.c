/* context: what is remembered of prompts, and that nothing is remembered wrongly: a prompt that was
 * encoded before submits no text encoder and gives the same keys and values, bit for bit; weights
 * and the mean by themselves. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "vk/pipeline/pipeline.h"

#define MODEL "tests/golden/models/two"
#define SIDE  16u

struct rig {
    struct gpu *gpu;
    struct model *model;
    struct weights *weights;
    struct pipeline pipeline;
};

/* What one run tells. */
struct told {
    float text[2 * 3 * 77 * 64];
    size_t values;
    unsigned texts;
};

static int open_rig(void **state)
{
    static struct rig rig;
    struct gpu_options options = {.device = getenv("DIFFUSED_DEVICE"), .allow_cpu = 1};
    struct fault f = {0};
    int r = model_open(MODEL, &rig.model, &f);

    if (r >= 0)
        r = weights_open(MODEL, &rig.weights, &f);
    if (r >= 0)
        r = session_declare_weights(rig.model, rig.weights, &f);
    if (r >= 0)
        r = gpu_open(&options, &rig.gpu, &f);
    if (r >= 0)
        r = weights_load(rig.weights, rig.gpu, NULL, NULL, &f);
    if (r < 0)
        (void)fprintf(stderr, "%s\n", f.text);
    rig.pipeline = (struct pipeline){.gpu = rig.gpu, .model = rig.model, .weights = rig.weights};
    *state = &rig;
    return r;
}

static int close_rig(void **state)
{
    struct rig *rig = *state;

    pipeline_done(&rig->pipeline);
    (void)weights_free(rig->weights);
    (void)gpu_close(rig->gpu);
    (void)model_free(rig->model);
    return 0;
}

static void on_tensor(uint32_t picture, const struct engine_tensor *t, void *userdata)
{
    struct told *told = userdata;

    (void)picture;
    if (strcmp(t->name, "text") != 0)
        return;
    told->texts++;
    told->values = (size_t)t->dims[0] * t->dims[1] * t->dims[2];
    assert_true(told->values <= ARRAY_SIZE(told->text));
    memcpy(told->text, t->data, told->values * sizeof(float));
}

/* Runs a request; returns the submissions it took. */
static uint64_t run(struct rig *rig, struct request *q, struct told *told)
{
    static const struct engine_observer observer = {.on_tensor = on_tensor};
    uint64_t before = gpu_progress(rig->gpu);
    struct fault f = {0};

    q->width = q->height = SIDE;
    q->steps = 1;
    q->count = q->count ? q->count : 1;
    memset(told, 0, sizeof *told);
    if (pipeline_run(&rig->pipeline, q, NULL, &observer, told, NULL, &f) < 0)
        fail_msg("%s", f.text);
    return gpu_progress(rig->gpu) - before;
}

/* Submissions of encoding a text: ids up, the encoder, the result down. */
static uint32_t encoder_cost(const struct rig *rig)
{
    return recording_program(rig->pipeline.session->recordings[SESSION_ENCODE])->chunks + 2;
}

static struct context_facts facts_of(const struct rig *rig)
{
    struct context_facts facts;

    context_cache_get_facts(rig->pipeline.contexts, &facts);
    return facts;
}

static void new_cache(struct rig *rig, size_t limit)
{
    rig->pipeline.contexts = context_cache_free(rig->pipeline.contexts);
    if (limit)
        assert_int_equal(context_cache_new(limit, &rig->pipeline.contexts), 0);
}

/* --- what is remembered ----------------------------------------------------------------------- */

static void test_repeated(void **state)
{
    struct rig *rig = *state;
    char fox[] = "a fox", moon[] = "the moon";
    struct request q = {.prompt = fox, .guidance_scale = 3};
    static struct told first, again, other;

    new_cache(rig, 1u << 20);
    (void)run(rig, &q, &first); /* makes the session too */
    uint64_t quiet = run(rig, &q, &again);
    assert_memory_equal(first.text, again.text, first.values * sizeof(float));
    assert_int_equal(facts_of(rig).hits, 2);
    q.prompt = moon; /* the negative prompt is remembered, the prompt is new */
    assert_int_equal(run(rig, &q, &other), quiet + encoder_cost(rig));
    assert_int_equal(facts_of(rig).hits, 3);
    assert_memory_not_equal(first.text, other.text, first.values * sizeof(float));
    q.prompt = fox;
    assert_int_equal(run(rig, &q, &again), quiet);
    assert_memory_equal(first.text, again.text, first.values * sizeof(float));
    rig->pipeline.encoder = 7; /* other weights: nothing of it holds */
    assert_int_equal(run(rig, &q, &again), quiet + 2 * encoder_cost(rig));
    rig->pipeline.encoder = 0;
    assert_int_equal(run(rig, &q, &again), quiet);
    new_cache(rig, 0);
}

/* Prompts of a list, the second and third alike: two pictures of each, one text told a prompt. */
static void test_list(void **state)
{
    struct rig *rig = *state;
    char prompts[] = "[\"a fox\",\"the moon\",\"the moon\"]";
    struct request q = {.prompts = prompts, .guidance_scale = 3, .count = 2};
    static struct told told;

    new_cache(rig, 1u << 20);
    (void)run(rig, &q, &told);
    assert_int_equal(told.texts, 3);
    assert_int_equal(facts_of(rig).misses, 3); /* "", fox, moon */
    assert_int_equal(facts_of(rig).hits, 3);   /* "", moon, "" */
    new_cache(rig, 0);
}

struct way {
    const char *text;
    uint32_t syntax, long_prompt, clip_skip;
};

static void run_way(struct rig *rig, const struct way *way, struct told *told)
{
    char text[32];
    struct request q = {.prompt = text,
                        .guidance_scale = 3,
                        .prompt_syntax = way->syntax,
                        .long_prompt = way->long_prompt,
                        .clip_skip = way->clip_skip};

    (void)snprintf(text, sizeof text, "%s", way->text);
    (void)run(rig, &q, told);
}

/* Everything that decides tells prompts apart; and what comes from the cache is what comes without
 * one. */
static void test_apart(void **state)
{
    struct rig *rig = *state;
    static const struct way ways[] = {
        {"a fox", 0, 0, 0},       {"a (fox:1.3)", 1, 0, 0}, {"a (fox:1.4)", 1, 0, 0},
        {"(a:1.3) fox", 1, 0, 0}, {"a fox", 0, 0, 1},       {"a (fox:1.3)", 1, 0, 1},
        {"a (fox:1.3)", 0, 0, 0}, {"a BREAK fox", 0, 1, 0}, {"a BREAK [fox]", 1, 1, 0},
    };
    static struct told with[ARRAY_SIZE(ways)], without;

    new_cache(rig, 1u << 20);
    for (size_t round = 0; round < 2; round++)
        for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
            run_way(rig, &ways[i], &with[i]);
    new_cache(rig, 0);
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        run_way(rig, &ways[i], &without);
        assert_int_equal(with[i].values, without.values);
        if (memcmp(with[i].text, without.text, without.values * sizeof(float)) != 0)
            fail_msg("%s (%zu) is another from the cache", ways[i].text, i);
    }
}

/* clip_skip leaves the negative prompt as it is. */
static void test_skip(void **state)
{
    struct rig *rig = *state;
    char fox[] = "a fox";
    struct request q = {.prompt = fox, .negative_prompt = fox, .guidance_scale = 3};
    static struct told plain, skipped;

    (void)run(rig, &q, &plain);
    q.clip_skip = 1;
    (void)run(rig, &q, &skipped);
    size_t half = plain.values / 2;
    assert_memory_equal(plain.text, skipped.text, half * sizeof(float));
    assert_memory_equal(plain.text, plain.text + half, half * sizeof(float));
    assert_memory_not_equal(plain.text + half, skipped.text + half, half * sizeof(float));
}

/* As many entries as the limit holds; the one not used longest goes first. */
static void test_limit(void **state)
{
    struct rig *rig = *state;
    char text[16];
    struct request q = {.prompt = text, .guidance_scale = 1};
    static struct told told;

    new_cache(rig, 1u << 20);
    (void)snprintf(text, sizeof text, "fox");
    (void)run(rig, &q, &told);
    size_t entry = facts_of(rig).bytes;
    new_cache(rig, 3 * entry + entry / 2);
    for (int i = 0; i < 5; i++) {
        (void)snprintf(text, sizeof text, "fox %d", i == 3 ? 0 : i); /* 0 is used again */
        (void)run(rig, &q, &told);
        assert_true(facts_of(rig).bytes <= 3 * entry);
    }
    assert_int_equal(facts_of(rig).entries, 3); /* 0, 2, 4 */
    assert_int_equal(facts_of(rig).hits, 1);
    for (int i = 0; i < 5; i += 2) {
        (void)snprintf(text, sizeof text, "fox %d", i);
        (void)run(rig, &q, &told);
    }
    assert_int_equal(facts_of(rig).hits, 4);
    new_cache(rig, entry - 1); /* not one fits */
    (void)run(rig, &q, &told);
    assert_int_equal(facts_of(rig).entries, 0);
    new_cache(rig, 0);
}

/* --- weights ---------------------------------------------------------------------------------- */

static void test_weigh(void **state)
{
    /* two tokens of three channels, padded to 4; mean 2, after weights 1 and 3: 5 */
    float rows[8] = {1, 2, 0, 99, 4, 2, 3, 99};
    const float weights[2] = {1, 3}, none[2] = {0, 0}, huge[2] = {1, -0.333334f};

    (void)state;
    assert_true(context_weigh(rows, weights, 2, 3, 4));
    for (int i = 0; i < 3; i++) {
        const float want[2][3] = {{0.4f, 0.8f, 0}, {4.8f, 2.4f, 3.6f}};
        assert_true(fabsf(rows[i] - want[0][i]) < 1e-6f);
        assert_true(fabsf(rows[4 + i] - want[1][i]) < 1e-6f);
    }
    assert_true(rows[3] == 99 && rows[7] == 99);
    assert_false(context_weigh(rows, none, 2, 3, 4));
    float cancel[8] = {1, 2, 0, 0, 4, 2, 3, 0};
    assert_false(context_weigh(cancel, huge, 2, 3, 4)); /* 3 - 3: a scale of over a million */
}

static void test_refused(void **state)
{
    struct rig *rig = *state;
    char text[] = "(fox:1.2.3)";
    struct request q = {.prompt = text,
                        .width = SIDE,
                        .height = SIDE,
                        .steps = 1,
                        .count = 1,
                        .prompt_syntax = PROMPT_SYNTAX_WEIGHTED};
    static const struct engine_observer observer = {0};
    struct fault f = {0};

    assert_int_equal(pipeline_run(&rig->pipeline, &q, NULL, &observer, NULL, NULL, &f), -EINVAL);
    assert_string_equal(f.text, "prompt: the weight at byte 4 is no number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeated), cmocka_unit_test(test_list),  cmocka_unit_test(test_apart),
        cmocka_unit_test(test_skip),     cmocka_unit_test(test_limit), cmocka_unit_test(test_weigh),
        cmocka_unit_test(test_refused)};

    return cmocka_run_group_tests_name("context", tests, open_rig, close_rig);
}
