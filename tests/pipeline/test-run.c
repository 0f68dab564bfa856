/* A run as its observer sees it: previews come when they were asked for and change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/bench.h"
#include "vk/base/sha256.h"
#include "vk/engine.h"
#include "vk/pipeline/decode.h"

#define SIDE  32u
#define CALLS 5u

struct seen {
    uint32_t previews[CALLS + 1];  /* per step */
    uint8_t last[3 * SIDE * SIDE]; /* the newest preview */
    char digest[SHA256_HEX_SIZE];  /* of the picture */
    uint32_t different;            /* previews unlike the one before */
};

static void on_preview(uint32_t picture, uint32_t step, const uint8_t *rgb, uint32_t width,
                       uint32_t height, void *userdata)
{
    struct seen *seen = userdata;

    assert_int_equal(picture, 0);
    assert_int_equal(width, SIDE);
    assert_int_equal(height, SIDE);
    assert_in_range(step, 1, CALLS);
    seen->previews[step]++;
    seen->different += memcmp(seen->last, rgb, sizeof seen->last) != 0;
    memcpy(seen->last, rgb, sizeof seen->last);
}

static int on_picture(const struct engine_picture *p, void *userdata)
{
    struct seen *seen = userdata;

    sha256_hex(p->rgb, (size_t)3 * p->width * p->height, seen->digest);
    return 0;
}

static struct seen draw(struct engine *e, uint32_t preview_steps)
{
    static const struct engine_observer observer = {.on_picture = on_picture,
                                                    .on_preview = on_preview};
    char prompt[] = "a fox";
    const struct request q = {.prompt = prompt,
                              .width = SIDE,
                              .height = SIDE,
                              .steps = CALLS,
                              .guidance_scale = 3,
                              .seed = 9,
                              .count = 1,
                              .preview_steps = preview_steps,
                              .scheduler = SCHEDULER_EULER};
    struct seen seen = {0};
    struct fault f = {0};

    must(engine_run(e, &q, NULL, &observer, &seen, &f), &f);
    return seen;
}

static void test_previews(void **state)
{
    const struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};
    struct engine *e = NULL;
    struct fault f = {0};

    (void)state;
    must(engine_open("tests/golden/models/four", &options, &e, &f), &f);
    struct seen without = draw(e, 0), second = draw(e, 2), each = draw(e, 1);
    for (uint32_t step = 1; step <= CALLS; step++) { /* the last is the picture itself */
        assert_int_equal(without.previews[step], 0);
        assert_int_equal(second.previews[step], step == 2 || step == 4);
        assert_int_equal(each.previews[step], step < CALLS);
    }
    assert_int_equal(second.different, 2);
    assert_int_equal(each.different, CALLS - 1);
    assert_memory_equal(second.last, each.last, sizeof each.last); /* both of step 4 */
    assert_string_equal(without.digest, second.digest);
    assert_string_equal(without.digest, each.digest);
    engine_close(e);
}

/* --- what a preview shows --------------------------------------------------------------------- */

#define LATENTS (4u * (SIDE / 8) * (SIDE / 8))

struct watched {
    float latents[2][LATENTS]; /* after calls 1 and 2 */
    uint8_t preview[3 * SIDE * SIDE];
};

static void keep_latents(uint32_t picture, const struct engine_tensor *t, void *userdata)
{
    struct watched *w = userdata;

    (void)picture;
    for (size_t i = 0; i < 2; i++)
        if (strcmp(t->name, i ? "latents.001" : "latents.000") == 0)
            memcpy(w->latents[i], t->data, sizeof w->latents[i]);
}

static void keep_preview(uint32_t picture, uint32_t step, const uint8_t *rgb, uint32_t width,
                         uint32_t height, void *userdata)
{
    struct watched *w = userdata;

    (void)picture, (void)width, (void)height;
    if (step == 2)
        memcpy(w->preview, rgb, sizeof w->preview);
}

/* The noise level that a call begins at. */
static double level_of(const struct sched_row *row)
{
    return sqrt(1 / (row->input_scale * row->input_scale) - 1);
}

/* The second call of Euler went from noise level s to t along e: x2 = x1 + (t - s) e. Where that
 * line reaches level 0 is the estimate: x2 - t e. */
static void estimate(const struct bench *b, const struct request *q, const struct watched *w,
                     float *ret_clean)
{
    const struct sched_spec spec = {.sched = SCHEDULER_EULER, .steps = q->steps};
    struct sched_table table;
    struct fault f = {0};

    must(sched_make(&spec, &b->model->sched, &table, &f), &f);
    double from = level_of(&table.rows[1]), to = level_of(&table.rows[2]);
    for (size_t i = 0; i < LATENTS; i++) {
        double e = (w->latents[1][i] - w->latents[0][i]) / (to - from);
        ret_clean[i] = (float)(w->latents[1][i] - to * e);
    }
    sched_table_done(&table);
}

static void test_estimate(void **state)
{
    static const struct engine_observer observer = {.on_tensor = keep_latents,
                                                    .on_preview = keep_preview};
    char prompt[] = "a fox";
    const struct request q = {.prompt = prompt,
                              .width = SIDE,
                              .height = SIDE,
                              .steps = CALLS,
                              .guidance_scale = 1,
                              .seed = 9,
                              .count = 1,
                              .preview_steps = 2,
                              .scheduler = SCHEDULER_EULER};
    struct bench b = {0};
    struct watched w = {0};
    struct fault f = {0};
    float clean[LATENTS];
    uint8_t want[sizeof w.preview];

    (void)state;
    bench_open(&b, "tests/golden/models/four");
    must(pipeline_run(&b.p, &q, NULL, &observer, &w, NULL, &f), &f);
    estimate(&b, &q, &w, clean);
    b.p.has_preview = true; /* the map of the run, not another fit */
    must(decode_preview(&b.p, clean, want, NULL, &f), &f);
    for (size_t i = 0; i < sizeof want; i++)
        if (abs(want[i] - w.preview[i]) > 2)
            fail_msg("byte %zu: %u, want %u", i, w.preview[i], want[i]);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_previews),
                                       cmocka_unit_test(test_estimate)};

    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
