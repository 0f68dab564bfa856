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

#include "tests/support/sched_walk.h"
#include "vk/base/cleanup.h"
#include "vk/base/json.h"

static int make(uint32_t sched, const struct sched_config *config, uint32_t steps,
                struct sched_table *ret_table, struct fault *f)
{
    return sched_make(&(struct sched_spec){.sched = sched, .steps = steps}, config, ret_table, f);
}

static double sample(uint32_t sched, const struct sched_config *config, uint32_t steps)
{
    static struct walk w;
    struct sched_table table;
    struct fault f;

    if (make(sched, config, steps, &table, &f) < 0)
        fail_msg("%s, %u steps: %s", scheds[sched].name, steps, f.text);
    walk_start(&w, table.init_noise_sigma);
    for (uint32_t k = 0; k < table.count; k++)
        walk_call(&w, &table.rows[k]);
    sched_table_done(&table);
    return walk_sum(&w);
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
        {&sd, SCHED_PNDM, 10, 201.38644},      {&sd, SCHED_DDIM, 10, 183.25821},
        {&sd, SCHED_LMS, 10, 198.55858},       {&sd, SCHED_EULER, 10, 178.77622},
        {&sd, SCHED_PNDM, 1, 381.33580},       {&sd, SCHED_LMS, 1, 5604.71709},
        {&sd, SCHED_EULER, 1, 11.18575},       {&sd, SCHED_PNDM, 60, 203.80465},
        {&linear, SCHED_PNDM, 1, 373.53356},   {&linear, SCHED_PNDM, 7, 207.67512},
        {&linear, SCHED_DDIM, 1, 373.53354},   {&linear, SCHED_DDIM, 7, 159.89786},
        {&linear, SCHED_DDIM, 10, 172.00733},  {&linear, SCHED_DDIM, 60, 197.18827},
        {&linear, SCHED_LMS, 7, 180.71237},    {&linear, SCHED_EULER, 60, 199.21906},
        {&clip, SCHED_DDIM, 7, 151.22451},     {&clip, SCHED_DDIM, 60, 197.37712},
        {&cosine, SCHED_PNDM, 10, 197.27806},  {&cosine, SCHED_DDIM, 60, 193.18377},
        {&cosine, SCHED_EULER, 60, 295.61556}, {&brief, SCHED_PNDM, 60, 244.51149},
        {&brief, SCHED_DDIM, 7, 216.57561},    {&brief, SCHED_LMS, 60, 271.68338},
        {&brief, SCHED_EULER, 10, 214.93300},
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
    walk_start(&w, table.init_noise_sigma);
    for (uint32_t k = 0; k < table.count; k++) {
        check_near(name, table.rows[k].timestep, json_number_value(json_array_get(timesteps, k)),
                   5e-5); /* Euler's are f32 there */
        walk_call(&w, &table.rows[k]);
        const json_t *values = json_array_get(first, k);
        for (size_t i = 0; i < json_array_size(values); i++) {
            double want = json_number_value(json_array_get(values, i));
            check_near(name, w.x[i], want, 2e-6 + 2e-5 * fabs(want));
        }
    }
    double want = json_number_value(json_object_get(entry, "sum"));
    check_near(name, walk_sum(&w), want, 1e-5 * want);
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

/* The published sums of diffusers' own tests, which have no steps_offset. */
static void test_published_sums(void **state)
{
    struct sched_config linear = sched_config_default();
    linear.beta_start = 0.0001;
    linear.beta_end = 0.02;
    linear.beta_schedule = SCHED_BETA_LINEAR;
    linear.steps_offset = 0;
    linear.skip_prk_steps = false;
    struct sched_config clip = linear, one = linear, none = linear, solver = linear;
    clip.clip_sample = clip.set_alpha_to_one = true;
    none.beta_start = one.beta_start = 0.01;
    one.set_alpha_to_one = true;
    solver.is_final_sigma_min = true;
    solver.lower_order_final = false;
    struct sched_config one_clip = one, none_clip = none;
    one_clip.clip_sample = none_clip.clip_sample = true;
    const struct {
        const struct sched_config *config;
        uint32_t sched;
        double sum, tolerance;
    } rows[] = {
        {&clip, SCHED_DDIM, 172.0067, 1e-2},
        {&one_clip, SCHED_DDIM, 149.8295, 1e-2},
        {&none_clip, SCHED_DDIM, 149.0784, 1e-2},
        {&linear, SCHED_PNDM, 198.1318, 1e-2},
        {&one, SCHED_PNDM, 230.0399, 1e-2},
        {&none, SCHED_PNDM, 186.9482, 1e-2},
        {&solver, SCHED_DPMPP_2M, 0.3301 * WALK_SAMPLE, 1e-3 * WALK_SAMPLE},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        check_near(scheds[rows[i].sched].name, sample(rows[i].sched, rows[i].config, 10),
                   rows[i].sum, rows[i].tolerance);
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

static uint32_t calls_of(uint32_t sched, uint32_t steps)
{
    return sched == SCHED_PNDM   ? (steps > 1 ? steps + 1 : 1)
           : sched == SCHED_HEUN ? 2 * steps - 1
                                 : steps;
}

static void check_order(const struct sched_table *t)
{
    for (uint32_t k = 0; k < t->count; k++) {
        assert_true(t->rows[k].timestep >= 0 && t->rows[k].timestep <= 999);
        assert_true(k == 0 || t->rows[k].timestep <= t->rows[k - 1].timestep);
    }
}

static void test_every_number_of_steps(void **state)
{
    const struct sched_config config = sched_config_default();

    (void)state;
    for (uint32_t sched = 0; sched < SCHED_COUNT; sched++) {
        for (uint32_t steps = 1; steps <= (sched == SCHED_LCM ? 50 : 500); steps++) {
            struct sched_table t;
            assert_int_equal(make(sched, &config, steps, &t, NULL), 0);
            assert_int_equal(t.count, calls_of(sched, steps));
            check_order(&t);
            if (sched == SCHED_PNDM || sched == SCHED_DDIM)
                assert_int_equal(t.rows[0].timestep, (steps - 1) * (1000 / steps) + 1);
            sched_table_done(&t);
        }
    }
}

/* Where numpy's arange has one entry too many, at 61 steps and 28 other numbers, we have none. */
static void test_every_spacing(void **state)
{
    const struct sched_config config = sched_config_default();
    struct sched_table t;

    (void)state;
    for (uint32_t sched = 0; sched < SCHED_LCM; sched++) {
        for (uint32_t steps = 1; steps <= 500; steps++) {
            struct sched_spec spec = {.sched = sched, .steps = steps};
            for (spec.spacing = SCHED_SPACING_LEADING; spec.spacing <= SCHED_SPACING_TRAILING;
                 spec.spacing++) {
                assert_int_equal(sched_make(&spec, &config, &t, NULL), 0);
                assert_int_equal(t.count, calls_of(sched, steps));
                check_order(&t);
                if (spec.spacing == SCHED_SPACING_TRAILING)
                    assert_int_equal(t.rows[0].timestep, 999);
                sched_table_done(&t);
            }
        }
    }
}

/* --- starts ----------------------------------------------------------------------------------- */

static void test_strength(void **state)
{
    const struct sched_config config = sched_config_default();
    struct sched_table t;

    (void)state;
    for (uint32_t sched = 0; sched < SCHED_COUNT; sched++) {
        for (int compat = 0; compat < 2; compat++) {
            struct sched_spec spec = {
                .sched = sched, .steps = 20, .from_image = true, .compat = compat};
            assert_int_equal(sched_make(&spec, &config, &t, NULL), 0);
            assert_int_equal(t.count, 0); /* strength 0: the picture as it is */
            assert_true(t.start_image == 1 && t.start_noise == 0);
            sched_table_done(&t);
            for (uint32_t made = 1; made <= 20; made++) {
                spec.strength = made / 20.;
                assert_int_equal(sched_make(&spec, &config, &t, NULL), 0);
                assert_true(t.count <= calls_of(sched, made) + 1);
                assert_true(t.start_image > 0 && t.start_image <= 1 && t.start_noise > 0);
                check_order(&t);
                sched_table_done(&t);
            }
        }
    }
}

/* A strength of less than a step: the list from entry `steps` on, which only pndm has. */
static void test_least_strength(void **state)
{
    const struct sched_config config = sched_config_default();

    (void)state;
    for (uint32_t sched = 0; sched < SCHED_COUNT; sched++) {
        struct sched_spec spec = {
            .sched = sched, .steps = 10, .from_image = true, .strength = 0.05};
        struct sched_table t;
        assert_int_equal(sched_make(&spec, &config, &t, NULL), 0);
        assert_int_equal(t.count, sched == SCHED_PNDM ? 1 : 0);
        assert_true((t.start_noise > 0) == (sched == SCHED_PNDM));
        if (t.count)
            assert_true(t.rows[0].timestep == 1);
        sched_table_done(&t);
    }
}

/* The documented first timesteps and calls of 50 steps, 0.6.0's rule. */
static void test_compat_starts(void **state)
{
    const struct sched_config config = sched_config_default();
    const struct {
        uint32_t sched, steps;
        double strength, timestep;
        uint32_t count;
    } rows[] = {
        {SCHED_PNDM, 50, 0.8, 801, 41},   {SCHED_PNDM, 50, 1, 961, 50},
        {SCHED_DDIM, 50, 0.8, 781, 40},   {SCHED_DDIM, 50, 1, 961, 49},
        {SCHED_LMS, 50, 0.8, 795.12, 40}, {SCHED_PNDM, 20, 0.75, 751, 16},
        {SCHED_DDIM, 20, 0.75, 701, 15},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct sched_spec spec = {.sched = rows[i].sched,
                                  .steps = rows[i].steps,
                                  .from_image = true,
                                  .compat = true,
                                  .strength = rows[i].strength};
        struct sched_table t;
        assert_int_equal(sched_make(&spec, &config, &t, NULL), 0);
        assert_int_equal(t.count, rows[i].count);
        check_near(scheds[spec.sched].name, t.rows[0].timestep, rows[i].timestep, 5e-3);
        sched_table_done(&t);
    }
}

/* --- what is refused -------------------------------------------------------------------------- */

static void check_refused(const struct sched_spec *spec, const struct sched_config *config,
                          const char *says)
{
    struct sched_table table = {0};
    struct fault f = {0};

    assert_int_equal(sched_make(spec, config, &table, &f), -EINVAL);
    assert_null(table.rows);
    if (!strstr(f.text, says))
        fail_msg("\"%s\" does not say \"%s\"", f.text, says);
}

static void test_limits(void **state)
{
    const struct sched_config sd = sched_config_default();
    struct sched_config prk = sd, quiet = sd, loud = sd, late = sd, dark = sd;
    prk.skip_prk_steps = false;
    quiet.beta_start = quiet.beta_end = 0; /* no noise at all */
    loud.beta_start = loud.beta_end = 1;   /* no signal at all */
    late.steps_offset = 700;
    dark.is_zero_snr = true;
    const struct {
        struct sched_spec spec;
        const struct sched_config *config;
        const char *says;
    } rows[] = {
        {{.sched = SCHED_DDIM, .steps = 0}, &sd, "steps: 0 is outside 1…1000 for this model"},
        {{.sched = SCHED_LMS, .steps = 1001}, &sd, "steps: 1001 is outside"},
        {{.sched = SCHED_PNDM, .steps = 1000},
         &sd,
         "steps: 1000 lead pndm to training step 1000 of 0…999"},
        {{.sched = SCHED_COUNT, .steps = 10}, &sd, "scheduler: number 9 is unknown"},
        {{.sched = SCHED_PNDM, .steps = 3}, &prk, "takes at least 4"},
        {{.sched = SCHED_DDIM, .steps = 10}, &quiet, "no noise"},
        {{.sched = SCHED_LMS, .steps = 10}, &loud, "no signal"},
        {{.sched = SCHED_LCM, .steps = 51},
         &sd,
         "steps: lcm takes at most 50 for this model, not 51"},
        {{.sched = SCHED_LCM, .steps = 4, .original_steps = 1001}, &sd, "original_inference_steps"},
        {{.sched = SCHED_LCM, .steps = 4, .spacing = SCHED_SPACING_TRAILING},
         &sd,
         "timestep_spacing: lcm has timesteps of its own"},
        {{.sched = SCHED_DDIM, .steps = 4, .sigmas = SCHED_SIGMAS_KARRAS},
         &sd,
         "sigmas: ddim has no karras"},
        {{.sched = SCHED_EULER_A, .steps = 4, .sigmas = SCHED_SIGMAS_KARRAS},
         &sd,
         "sigmas: euler-a has no karras"},
        {{.sched = SCHED_DDIM, .steps = 4, .eta = 1.5}, &sd, "eta: 1.5 is outside"},
        {{.sched = SCHED_DDIM, .steps = 4, .from_image = true, .strength = -1}, &sd, "strength"},
        {{.sched = SCHED_EULER, .steps = 10, .spacing = SCHED_SPACING_LEADING},
         &late,
         "lead euler to training step 1600"},
        {{.sched = SCHED_DDIM, .steps = 10, .spacing = SCHED_SPACING_TRAILING},
         &dark,
         "call 0 has no finite coefficients"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        check_refused(&rows[i].spec, rows[i].config, rows[i].says);
}

/* What a request asks for overrides the file; what it leaves to the model is the file's. */
static void test_overrides(void **state)
{
    struct sched_config config = sched_config_default();
    struct sched_table a, b;

    (void)state;
    config.is_karras = true;
    config.spacing = SCHED_SPACING_TRAILING;
    config.prediction = SCHED_PREDICTION_V;
    struct sched_spec spec = {.sched = SCHED_EULER, .steps = 10};
    struct sched_spec whole = {.sched = SCHED_EULER,
                               .steps = 10,
                               .sigmas = SCHED_SIGMAS_DEFAULT,
                               .spacing = SCHED_SPACING_LINSPACE,
                               .prediction = SCHED_PREDICTION_EPSILON};
    assert_int_equal(sched_make(&spec, &config, &a, NULL), 0);
    assert_int_equal(sched_make(&whole, &config, &b, NULL), 0);
    assert_true(fabs(a.rows[1].timestep - b.rows[1].timestep) > 1);
    assert_true(a.rows[0].x_scale != 1 && b.rows[0].x_scale == 1);
    sched_table_done(&a);
    config = sched_config_default();
    assert_int_equal(make(SCHED_EULER, &config, 10, &a, NULL), 0);
    assert_memory_equal(a.rows, b.rows, 10 * sizeof *a.rows);
    sched_table_done(&a);
    sched_table_done(&b);
    config.is_karras = true; /* ddim has none and takes no notice */
    assert_int_equal(make(SCHED_DDIM, &config, 10, &a, NULL), 0);
    sched_table_done(&a);
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
    assert_int_equal(sched, SCHED_LMS);
    assert_int_equal(c.train_steps, 3);
    assert_true(c.beta_start == 0.5 && c.beta_end == 0.75);
    assert_int_equal(c.beta_schedule, SCHED_BETA_LINEAR);
    assert_true(c.set_alpha_to_one && c.clip_sample && !c.skip_prk_steps);
    assert_int_equal(c.steps_offset, 1);
    assert_int_equal(c.spacing, SCHED_SPACING_MODEL);
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

/* As diffusers 0.31.0 writes it, infinity and all; and a class of ours with another's keys. */
static void test_config_of_today(void **state)
{
    static const char text[] =
        "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"dpmsolver++\","
        " \"solver_type\": \"midpoint\", \"solver_order\": 2, \"lambda_min_clipped\": -Infinity,"
        " \"variance_type\": null, \"use_karras_sigmas\": true, \"final_sigmas_type\":"
        " \"sigma_min\", \"lower_order_final\": false, \"timestep_spacing\": \"trailing\","
        " \"prediction_type\": \"v_prediction\", \"rescale_betas_zero_snr\": true,"
        " \"steps_offset\": 1, \"note\": \"-Infinity \\\" Infinity\"}";
    static const char unipc[] =
        "{\"_class_name\": \"UniPCMultistepScheduler\", \"solver_order\": 3,"
        " \"solver_type\": \"bh2\", \"variance_type\": \"learned\"}";
    struct sched_config c;
    struct fault f = {0};
    float *betas = NULL;
    int sched;

    (void)state;
    if (sched_config_parse(text, strlen(text), &c, &sched, &betas, &f) < 0)
        fail_msg("%s", f.text);
    assert_int_equal(sched, SCHED_DPMPP_2M);
    assert_true(c.is_karras && c.is_final_sigma_min && !c.lower_order_final && c.is_zero_snr);
    assert_int_equal(c.spacing, SCHED_SPACING_TRAILING);
    assert_int_equal(c.prediction, SCHED_PREDICTION_V);
    assert_int_equal(c.steps_offset, 1);
    if (sched_config_parse(unipc, strlen(unipc), &c, &sched, &betas, &f) < 0)
        fail_msg("%s", f.text);
    assert_int_equal(sched, -1);
}

/* One step: 0.6.0's noise is of all training steps, but it has no Karras sigmas. */
static void test_lms_in_one_step(void **state)
{
    const struct sched_config config = sched_config_default();
    struct sched_spec spec = {.sched = SCHED_LMS, .steps = 1};
    struct sched_table t;

    (void)state;
    assert_int_equal(sched_make(&spec, &config, &t, NULL), 0);
    check_near("default", t.init_noise_sigma, 14.61464, 1e-4);
    sched_table_done(&t);
    spec.sigmas = SCHED_SIGMAS_KARRAS;
    assert_int_equal(sched_make(&spec, &config, &t, NULL), 0);
    check_near("karras", t.init_noise_sigma, 0.0291675, 1e-6);
    sched_table_done(&t);
}

/* Whatever the file's offset, every list of leading timesteps begins behind the first. */
static void test_offset(void **state)
{
    static const char text[] = "{\"_class_name\": \"LCMScheduler\", \"steps_offset\": 0, "
                               "\"timestep_spacing\": \"leading\", \"skip_prk_steps\": true}";
    struct sched_config c;
    struct sched_table t;
    float *betas = NULL;
    int own;

    (void)state;
    assert_int_equal(sched_config_parse(text, strlen(text), &c, &own, &betas, NULL), 0);
    for (uint32_t sched = 0; sched < SCHED_LCM; sched++) {
        struct sched_spec spec = {.sched = sched, .steps = 4};
        assert_int_equal(sched_make(&spec, &c, &t, NULL), 0);
        assert_true(t.rows[0].timestep == (sched == SCHED_DPMPP_2M ? 801 : 751));
        sched_table_done(&t);
    }
}

/* Absent keys mean what they mean to the class that is run: DDIM's last step goes to one, PNDM
 * starts with Runge-Kutta. */
static void test_class_defaults(void **state)
{
    static const char without[] = "{\"_class_name\": \"EulerDiscreteScheduler\"}";
    static const char with[] = "{\"_class_name\": \"EulerDiscreteScheduler\", "
                               "\"skip_prk_steps\": true, \"set_alpha_to_one\": false}";
    const struct {
        const char *text;
        uint32_t pndm_calls;
        bool is_one;
    } rows[] = {{without, 19, true}, {with, 11, false}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct sched_spec spec = {.sched = SCHED_PNDM, .steps = 10};
        struct sched_config c;
        struct sched_table t;
        float *betas = NULL;
        int sched;
        assert_int_equal(
            sched_config_parse(rows[i].text, strlen(rows[i].text), &c, &sched, &betas, NULL), 0);
        assert_int_equal(sched_make(&spec, &c, &t, NULL), 0);
        assert_int_equal(t.count, rows[i].pndm_calls);
        sched_table_done(&t);
        spec.is_inpaint = true; /* never then */
        assert_int_equal(sched_make(&spec, &c, &t, NULL), 0);
        assert_int_equal(t.count, 11);
        sched_table_done(&t);
        spec.sched = SCHED_DDIM;
        assert_int_equal(sched_make(&spec, &c, &t, NULL), 0);
        assert_true((t.rows[9].e_scale[0] == 1) == rows[i].is_one);
        sched_table_done(&t);
    }
}

/* Every class name finds its row, and only whole names do. */
static void test_class_names(void **state)
{
    struct sched_config c;
    float *betas = NULL;
    char text[96];
    int sched;

    (void)state;
    for (int i = 0; i < SCHED_COUNT; i++) {
        (void)snprintf(text, sizeof text, "{\"_class_name\": \"%s\"}", scheds[i].class_names);
        assert_int_equal(sched_config_parse(text, strlen(text), &c, &sched, &betas, NULL), 0);
        assert_int_equal(sched, i);
    }
    (void)snprintf(text, sizeof text, "{\"_class_name\": \"Scheduler\"}");
    assert_int_equal(sched_config_parse(text, strlen(text), &c, &sched, &betas, NULL), 0);
    assert_int_equal(sched, -1);
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
        {"{\"beta_schedule\": \"sigmoid\"}", "beta_schedule: sigmoid is not supported"},
        {"{\"clip_sample\": 1}", "clip_sample: want true or false"},
        {"{\"prediction_type\": \"sample\"}", "is: epsilon, v_prediction"},
        {"{\"thresholding\": true}", "thresholding: true is not supported"},
        {"{\"timestep_spacing\": \"even\"}", "timestep_spacing: even"},
        {"{\"steps_offset\": 1000}", "steps_offset: 1000 is outside 0…999"},
        {"{\"use_beta_sigmas\": true}", "use_beta_sigmas"},
        {"{\"timestep_type\": \"continuous\"}", "timestep_type"},
        {"{\"_class_name\": \"EulerDiscreteScheduler\", \"sigma_max\": 80}", "only null"},
        {"{\"_class_name\": \"DPMSolverMultistepScheduler\", \"solver_order\": 3}", "solver_order"},
        {"{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": "
         "\"sde-dpmsolver++\"}",
         "algorithm_type"},
        {"{\"_class_name\": \"DDPMScheduler\", \"variance_type\": \"learned\"}", "variance_type"},
        {"{\"beta_end\": NaN}", "line 1"},
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

/* The first step without any signal, all of its noise fresh: what is left of the old is nothing. */
static void test_ddim_of_noise_alone(void **state)
{
    struct sched_config config = sched_config_default();

    (void)state;
    config.is_zero_snr = true;
    config.prediction = SCHED_PREDICTION_V;
    for (uint32_t steps = 1; steps <= 100; steps++) {
        const struct sched_spec spec = {
            .sched = SCHED_DDIM, .steps = steps, .eta = 1, .spacing = SCHED_SPACING_TRAILING};
        struct sched_table table = {0};
        struct fault f = {0};
        if (sched_make(&spec, &config, &table, &f) < 0)
            fail_msg("%u steps: %s", steps, f.text);
        assert_true(fabs(table.rows[0].x_scale) < 1e-7 && fabs(table.rows[0].m_scale) < 1e-7);
        sched_table_done(&table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_golden_tables),
        cmocka_unit_test(test_published_sums),
        cmocka_unit_test(test_alphas),
        cmocka_unit_test(test_every_number_of_steps),
        cmocka_unit_test(test_every_spacing),
        cmocka_unit_test(test_strength),
        cmocka_unit_test(test_least_strength),
        cmocka_unit_test(test_compat_starts),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_config_without_keys),
        cmocka_unit_test(test_config_of_today),
        cmocka_unit_test(test_lms_in_one_step),
        cmocka_unit_test(test_offset),
        cmocka_unit_test(test_class_defaults),
        cmocka_unit_test(test_class_names),
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_ddim_of_noise_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
