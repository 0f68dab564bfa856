/* Every scheduler in every mode against both references: tests/golden/schedules.json. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/sched_walk.h"
#include "vk/base/cleanup.h"
#include "vk/base/json.h"
#include "vk/sample/rng.h"

/* The references hold sigmas in f32 and multiply samples in f32 here and there. */
#define RELATIVE 2e-5
#define ABSOLUTE 4e-6
#define TIMESTEP 1e-3 /* Karras': from f32 logarithms */

static const size_t shown[] = {0, 1, 100, 767};

static json_t *goldens;

static double number(const json_t *object, const char *key, double missing)
{
    const json_t *value = json_object_get(object, key);

    return value ? json_number_value(value) : missing;
}

static void check_near(const char *name, const char *what, double got, double want,
                       double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %s is %.9g, want %.9g", name, what, got, want);
}

static void check_shown(const char *name, const char *what, const struct walk *w,
                        const json_t *want)
{
    for (size_t k = 0; k < ARRAY_SIZE(shown); k++) {
        double value = json_number_value(json_array_get(want, k));
        check_near(name, what, w->x[shown[k]], value, ABSOLUTE + RELATIVE * fabs(value));
    }
}

/* The file's keys go through the parser, so what a model says is what is tested. */
static void read_config(const json_t *entry, struct sched_config *ret_config)
{
    _cleanup_(json_freep) json_t *config = json_copy(json_object_get(goldens, "base"));
    _cleanup_(freep) float *betas = NULL;
    struct fault f = {0};
    int sched;

    assert_int_equal(json_object_update(config, json_object_get(entry, "config")), 0);
    _cleanup_(freep) char *text = json_dumps(config, 0);
    assert_non_null(text);
    if (sched_config_parse(text, strlen(text), ret_config, &sched, &betas, &f) < 0)
        fail_msg("%s: %s", json_string_value(json_object_get(entry, "name")), f.text);
}

static uint32_t find(const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "scheduler"));
    uint32_t i = 0;

    while (i < SCHED_COUNT && strcmp(name, scheds[i].name) != 0)
        i++;
    assert_true(i < SCHED_COUNT);
    return i;
}

static void walk(const char *name, const json_t *result, const struct sched_table *table,
                 struct walk *w, struct rng *rng)
{
    const json_t *timesteps = json_object_get(result, "timesteps");
    const json_t *calls = json_object_get(result, "calls");
    char what[32];

    if (calls)
        check_shown(name, "start", w, json_object_get(result, "start"));
    if (calls && table->count != json_array_size(calls))
        fail_msg("%s: %u calls, want %zu", name, table->count, json_array_size(calls));
    for (uint32_t k = 0; k < table->count; k++) {
        const struct sched_row *row = &table->rows[k];
        if (row->noise_scale != 0)
            rng_normal(rng, w->noise, WALK_SAMPLE);
        walk_call(w, row);
        if (!calls)
            continue;
        (void)snprintf(what, sizeof what, "call %u", k);
        check_shown(name, what, w, json_array_get(calls, k));
        check_near(name, "timestep", row->timestep, json_number_value(json_array_get(timesteps, k)),
                   TIMESTEP);
    }
    double sum = json_number_value(json_object_get(result, "sum"));
    check_near(name, "the sum", walk_sum(w), sum, RELATIVE * sum);
}

static void check_entry(const json_t *entry)
{
    static struct walk w;
    const char *name = json_string_value(json_object_get(entry, "name"));
    struct sched_config config;
    struct sched_table table;
    struct fault f = {0};
    struct rng rng;
    float noise[WALK_SAMPLE];
    struct sched_spec spec = {
        .sched = find(entry),
        .steps = (uint32_t)number(entry, "steps", 0),
        .eta = number(entry, "eta", 0),
        .compat = json_is_true(json_object_get(entry, "compat")),
        .from_image = json_object_get(entry, "strength") != NULL,
        .is_inpaint = json_is_true(json_object_get(entry, "inpaint")),
        .strength = number(entry, "strength", 0),
    };

    read_config(entry, &config);
    if (sched_make(&spec, &config, &table, &f) < 0)
        fail_msg("%s: %s", name, f.text);
    rng_init(&rng, 0);
    walk_start(&w, table.init_noise_sigma);
    w.is_masked = spec.is_inpaint;
    w.is_fed_scaled = json_is_true(json_object_get(entry, "fed_scaled"));
    if (spec.from_image) {
        rng_normal(&rng, noise, WALK_SAMPLE);
        for (size_t i = 0; i < WALK_SAMPLE; i++)
            w.original_noise[i] = (double)noise[i];
        walk_start_from(&w, &table);
    }
    walk(name, json_object_get(entry, "result"), &table, &w, &rng);
    sched_table_done(&table);
}

static void test_entries(void **state)
{
    const char *name = *state;
    const json_t *cases = json_object_get(goldens, "cases");
    size_t checked = 0, length = strlen(name);

    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *entry = json_array_get(cases, i);
        const char *scheduler = json_string_value(json_object_get(entry, "scheduler"));
        if (strncmp(scheduler, name, length) != 0 || scheduler[length])
            continue;
        check_entry(entry);
        checked++;
    }
    assert_true(checked >= 10);
}

static int setup(void **state)
{
    struct fault f = {0};

    (void)state;
    if (json_read_object("tests/golden/schedules.json", 1 << 22, &goldens, &f) >= 0)
        return 0;
    (void)fprintf(stderr, "%s\n", f.text);
    return -1;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(goldens);
    return 0;
}

int main(void)
{
    struct CMUnitTest tests[SCHED_COUNT];

    for (uint32_t i = 0; i < SCHED_COUNT; i++) {
        tests[i] = (struct CMUnitTest){.name = scheds[i].name,
                                       .test_func = test_entries,
                                       .initial_state = (void *)(uintptr_t)scheds[i].name};
    }
    return _cmocka_run_group_tests("schedules", tests, SCHED_COUNT, setup, teardown);
}
