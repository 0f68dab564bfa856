/* sched: the tables, walked in double precision, give the reference's numbers; files that lie are
 * refused.
 *
 * The made-up model of the goldens: e = x * t / (t+1) of the scaled sample, the sample
 * arange(768)/768 laid out (3,8,8,4) and permuted to (4,3,8,8); what counts is sum |x|. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vk/base/cleanup.h"
#include "vk/base/json.h"
#include "vk/sample/sched.h"

#define SAMPLE 768

enum { PNDM, DDIM, LMS, EULER };

struct walk {
    double x[SAMPLE], saved[SAMPLE], sum[SAMPLE], history[SCHED_HISTORY][SAMPLE];
};

static int make(uint32_t sched, const struct sched_config *config, uint32_t steps,
                struct sched_table *ret_table, struct fault *f)
{
    return sched_make(&(struct sched_spec){.sched = sched, .steps = steps}, config, ret_table, f);
}

static double clamp(double x, double limit)
{
    return x < -limit ? -limit : x > limit ? limit : x;
}

/* What the kernel does with a row, for one value. */
static void apply(struct walk *w, const struct sched_row *row, size_t i)
{
    double x = w->x[i], t = row->timestep;
    double m = x * row->input_scale * t / (t + 1);
    double e0 = row->conv_x * x + row->conv_m * m;

    if (row->clip != 0)
        e0 = clamp(e0, row->clip);
    double next = row->x_scale * (row->use_saved ? w->saved[i] : x) + row->plain_x * x +
                  row->m_scale * m + row->e_scale[0] * e0 + row->sum_scale * w->sum[i];
    for (size_t k = 0; k < SCHED_HISTORY; k++)
        next += row->e_scale[k + 1] * w->history[k][i];
    w->x[i] = next;
    w->sum[i] = row->sum_keep * w->sum[i] + row->sum_e * e0;
    if (row->save)
        w->saved[i] = x;
    if (!row->push)
        return;
    for (size_t k = SCHED_HISTORY - 1; k > 0; k--)
        w->history[k][i] = w->history[k - 1][i];
    w->history[0][i] = e0;
}

static void start(struct walk *w, const struct sched_table *table)
{
    memset(w, 0, sizeof *w);
    for (size_t i = 0; i < SAMPLE; i++) {
        size_t n = i / 192, c = i / 64 % 3, pixel = i % 64; /* of [4,3,64] */
        w->x[i] = (double)((c * 64 + pixel) * 4 + n) / SAMPLE * table->init_noise_sigma;
    }
}

static double sum(const struct walk *w)
{
    double total = 0;

    for (size_t i = 0; i < SAMPLE; i++)
        total += fabs(w->x[i]);
    return total;
}

static double sample(uint32_t sched, const struct sched_config *config, uint32_t steps)
{
    static struct walk w;
    struct sched_table table;
    struct fault f;

    if (make(sched, config, steps, &table, &f) < 0)
        fail_msg("%s, %u steps: %s", scheds[sched].name, steps, f.text);
    start(&w, &table);
    for (uint32_t k = 0; k < table.count; k++)
        for (size_t i = 0; i < SAMPLE; i++)
            apply(&w, &table.rows[k], i);
    sched_table_done(&table);
    return sum(&w);
}

static void check_near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, want %.9g", what, got, want);
}

/* --- goldens ---------------------------------------------------------------------------------- */

/* diffusers 0.6.0 and 0.31.0 (Euler), which compute in f32. */
static void test_sums(void **state)
{
    const struct sched_config sd = sched_config_default();
    struct sched_config linear = sd, clip = sd, cosine = sd, brief = sd;
    linear.beta_start = 0.0015;
    linear.beta_end = 0.0195;
    linear.beta_schedule = SCHED_BETA_LINEAR;
    linear.set_alpha_to_one = true;
    clip = linear;
    clip.clip_sample = true;
    clip.beta_end = 0.035;
    cosine.beta_schedule = SCHED_BETA_SQUAREDCOS_CAP_V2;
    brief.train_steps = 77;
    brief.beta_start = 0.01;
    brief.beta_end = 0.1;
    const struct {
        const struct sched_config *config;
        uint32_t sched, steps;
        double sum;
    } rows[] = {
        {&sd, PNDM, 10, 201.38644},      {&sd, DDIM, 10, 183.25821},
        {&sd, LMS, 10, 198.55858},       {&sd, EULER, 10, 178.77622},
        {&sd, PNDM, 1, 381.33580},       {&sd, LMS, 1, 5604.71709},
        {&sd, EULER, 1, 11.18575},       {&sd, PNDM, 60, 203.80465},
        {&linear, PNDM, 1, 373.53356},   {&linear, PNDM, 7, 207.67512},
        {&linear, DDIM, 1, 373.53354},   {&linear, DDIM, 7, 159.89786},
        {&linear, DDIM, 10, 172.00733},  {&linear, DDIM, 60, 197.18827},
        {&linear, LMS, 7, 180.71237},    {&linear, EULER, 60, 199.21906},
        {&clip, DDIM, 7, 151.22451},     {&clip, DDIM, 60, 197.37712},
        {&cosine, PNDM, 10, 197.27806},  {&cosine, DDIM, 60, 193.18377},
        {&cosine, EULER, 60, 295.61556}, {&brief, PNDM, 60, 244.51149},
        {&brief, DDIM, 7, 216.57561},    {&brief, LMS, 60, 271.68338},
        {&brief, EULER, 10, 214.93300},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char what[64];
        snprintf(what, sizeof what, "row %zu, %s, %u steps", i, scheds[rows[i].sched].name,
                 rows[i].steps);
        check_near(what, sample(rows[i].sched, rows[i].config, rows[i].steps), rows[i].sum,
                   1e-5 * rows[i].sum);
    }
}

/* One entry of sched.json: timesteps, first noise, the first values after every call, the sum. */
static void check_entry(const char *name, uint32_t sched, uint32_t steps, const json_t *entry)
{
    static struct walk w;
    const struct sched_config config = sched_config_default();
    const json_t *timesteps = json_object_get(entry, "timesteps");
    const json_t *first = json_object_get(entry, "first");
    struct sched_table table;

    assert_int_equal(make(sched, &config, steps, &table, NULL), 0);
    assert_int_equal(table.count, json_array_size(timesteps));
    check_near(name, table.init_noise_sigma,
               json_number_value(json_object_get(entry, "init_noise_sigma")), 2e-6);
    start(&w, &table);
    for (uint32_t k = 0; k < table.count; k++) {
        check_near(name, table.rows[k].timestep, json_number_value(json_array_get(timesteps, k)),
                   5e-5); /* Euler's are f32 there */
        for (size_t i = 0; i < SAMPLE; i++)
            apply(&w, &table.rows[k], i);
        const json_t *values = json_array_get(first, k);
        for (size_t i = 0; i < json_array_size(values); i++) {
            double want = json_number_value(json_array_get(values, i));
            check_near(name, w.x[i], want, 2e-6 + 2e-5 * fabs(want));
        }
    }
    double want = json_number_value(json_object_get(entry, "sum"));
    check_near(name, sum(&w), want, 1e-5 * want);
    sched_table_done(&table);
}

static void test_golden_tables(void **state)
{
    _cleanup_(json_freep) json_t *root = NULL;
    struct fault f = {0};
    const char *name;
    json_t *entry;

    (void)state;
    if (json_read_object("tests/golden/sched.json", 1 << 22, &root, &f) < 0)
        fail_msg("%s", f.text);
    assert_true(json_object_size(root) >= 28);
    json_object_foreach(root, name, entry)
    {
        char word[16];
        unsigned steps;
        uint32_t sched = 0;
        assert_int_equal(sscanf(name, "%15[a-z].%u", word, &steps), 2);
        while (sched < SCHED_COUNT && strcmp(word, scheds[sched].name) != 0)
            sched++;
        assert_true(sched < SCHED_COUNT);
        check_entry(name, sched, steps, entry);
    }
}

static void test_alphas(void **state)
{
    const struct sched_config config = sched_config_default();
    _cleanup_(freep) float *alphas = NULL;

    (void)state;
    assert_int_equal(sched_alphas_cumprod(&config, &alphas, NULL), 0);
    /* bit for bit torch's */
    assert_true(alphas[0] == 0x1.ff9096p-1f);
    assert_true(alphas[500] == 0x1.1af6e6p-2f);
    assert_true(alphas[999] == 0x1.31676cp-8f);
}

/* --- every number of steps -------------------------------------------------------------------- */

static void test_every_number_of_steps(void **state)
{
    const struct sched_config config = sched_config_default();

    (void)state;
    for (uint32_t sched = 0; sched < SCHED_COUNT; sched++) {
        for (uint32_t steps = 1; steps <= 500; steps++) {
            struct sched_table t;
            assert_int_equal(make(sched, &config, steps, &t, NULL), 0);
            uint32_t calls = sched == PNDM && steps > 1 ? steps + 1 : steps;
            assert_int_equal(t.count, calls);
            for (uint32_t k = 0; k < t.count; k++) {
                assert_true(t.rows[k].timestep >= 0 && t.rows[k].timestep <= 999);
                assert_true(k == 0 || t.rows[k].timestep <= t.rows[k - 1].timestep);
            }
            if (sched == PNDM || sched == DDIM)
                assert_int_equal(t.rows[0].timestep, (steps - 1) * (1000 / steps) + 1);
            sched_table_done(&t);
        }
    }
}

static void test_limits(void **state)
{
    struct sched_config config = sched_config_default();
    struct sched_table table = {0};
    struct fault f;

    (void)state;
    assert_int_equal(make(DDIM, &config, 0, &table, &f), -EINVAL);
    assert_string_equal(f.text, "steps: 0 is outside 1…999 for this model");
    assert_int_equal(make(PNDM, &config, 1000, &table, &f), -EINVAL);
    assert_int_equal(make(SCHED_COUNT, &config, 10, &table, &f), -EINVAL);
    for (uint32_t sched = 0; sched < SCHED_COUNT; sched++) {
        assert_int_equal(make(sched, &config, 999, &table, &f), 0);
        sched_table_done(&table);
    }
    config.skip_prk_steps = false;
    assert_int_equal(make(PNDM, &config, 10, &table, &f), -EINVAL);
    assert_non_null(strstr(f.text, "skip_prk_steps"));
    config = sched_config_default();
    config.beta_start = config.beta_end = 0; /* no noise at all */
    assert_int_equal(make(DDIM, &config, 10, &table, &f), -EINVAL);
    config.beta_start = config.beta_end = 1; /* no signal at all */
    assert_int_equal(make(LMS, &config, 10, &table, &f), -EINVAL);
    assert_null(table.rows);
}

/* --- scheduler_config.json -------------------------------------------------------------------- */

static void test_config(void **state)
{
    static const char text[] =
        "{\"_class_name\": \"LMSDiscreteScheduler\", \"_diffusers_version\": \"0.6.0\","
        " \"num_train_timesteps\": 3, \"beta_start\": 0.5, \"beta_end\": 0.75, \"beta_schedule\":"
        " \"linear\", \"set_alpha_to_one\": true, \"clip_sample\": true, \"skip_prk_steps\": false,"
        " \"steps_offset\": 1, \"prediction_type\": \"epsilon\", \"trained_betas\": [0.1, 0.2, "
        "0.3]}";
    struct sched_config c;
    _cleanup_(freep) float *betas = NULL;
    _cleanup_(freep) float *alphas = NULL;
    int sched;

    (void)state;
    assert_int_equal(sched_config_parse(text, strlen(text), &c, &sched, &betas, NULL), 0);
    assert_int_equal(sched, LMS);
    assert_int_equal(c.train_steps, 3);
    assert_true(c.beta_start == 0.5 && c.beta_end == 0.75);
    assert_int_equal(c.beta_schedule, SCHED_BETA_LINEAR);
    assert_true(c.set_alpha_to_one && c.clip_sample && !c.skip_prk_steps);
    assert_ptr_equal(c.trained_betas, betas);
    assert_int_equal(sched_alphas_cumprod(&c, &alphas, NULL), 0);
    assert_true(fabs((double)alphas[2] - 0.9 * 0.8 * 0.7) < 1e-6);
}

static void test_config_without_keys(void **state)
{
    static const char text[] =
        "{\"_class_name\": \"DEISMultistepScheduler\", \"trained_betas\": null}";
    const struct sched_config want = sched_config_default();
    struct sched_config c;
    float *betas = NULL;
    int sched;

    (void)state;
    assert_int_equal(sched_config_parse(text, strlen(text), &c, &sched, &betas, NULL), 0);
    assert_int_equal(sched, -1);
    assert_null(betas);
    assert_memory_equal(&c, &want, sizeof c);
}

static void test_bad_config(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "line 1"},
        {"[]", "want an object"},
        {"{\"num_train_timesteps\": 1}", "num_train_timesteps: 1 is outside 2…10000"},
        {"{\"num_train_timesteps\": \"many\"}", "num_train_timesteps: want a whole number"},
        {"{\"beta_start\": -0.1}", "beta_start"},
        {"{\"beta_end\": true}", "beta_end: want a number"},
        {"{\"beta_schedule\": \"sigmoid\"}", "beta_schedule: sigmoid is unknown"},
        {"{\"clip_sample\": 1}", "clip_sample: want true or false"},
        {"{\"prediction_type\": \"v_prediction\"}", "v_prediction; only epsilon"},
        {"{\"rescale_betas_zero_snr\": true}", "rescale_betas_zero_snr"},
        {"{\"trained_betas\": [0.1]}", "trained_betas: want null or a list of 1000"},
        {"{\"num_train_timesteps\": 2, \"trained_betas\": [0.1, null]}", "entry 1 is not between"},
        {"{\"_class_name\": 5}", "_class_name: want a string"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct sched_config c;
        struct fault f = {0};
        float *betas = NULL;
        int sched;
        assert_int_equal(
            sched_config_parse(rows[i].text, strlen(rows[i].text), &c, &sched, &betas, &f),
            -EINVAL);
        assert_null(betas);
        if (!strstr(f.text, rows[i].says))
            fail_msg("\"%s\" does not say \"%s\"", f.text, rows[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_golden_tables),
        cmocka_unit_test(test_alphas),
        cmocka_unit_test(test_every_number_of_steps),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_without_keys),
        cmocka_unit_test(test_bad_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
