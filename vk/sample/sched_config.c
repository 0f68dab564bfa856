/* sched_config — scheduler_config.json, read.
 *
 * The reference writes infinities (lambda_min_clipped), which are no JSON: they are read as null.
 * Keys under which the formulas here would give wrong pictures are refused, those of one class only
 * where the file is of that class. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/json.h"
#include "vk/sample/sched_private.h"

#define ANY_SCHED -1

struct sched_config sched_config_default(void)
{
    return (struct sched_config){.train_steps = 1000,
                                 .beta_start = 0.00085,
                                 .beta_end = 0.012,
                                 .beta_schedule = SCHED_BETA_SCALED_LINEAR,
                                 .clip_range = 1,
                                 .steps_offset = 1,
                                 .skip_prk_steps = true,
                                 .lower_order_final = true,
                                 .original_steps = 50,
                                 .timestep_scaling = 10,
                                 .prediction = SCHED_PREDICTION_EPSILON};
}

/* The word's place in the list; what the message calls them is the list itself. */
static int parse_word(const json_t *root, const char *key, const char *const *words, size_t count,
                      size_t *ret_index, struct fault *f)
{
    const char *word = NULL;
    char list[96] = "";
    int r = json_get_string(root, key, &word, f);

    if (r <= 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(word, words[i]) == 0) {
            *ret_index = i;
            return 1;
        }
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i]);
    }
    return fault_set(f, -EINVAL, "%s: %.40s is not supported; what is: %s", key, word, list);
}

/* --- keys that are kept ----------------------------------------------------------------------- */

static int parse_words(const json_t *root, struct sched_config *c, struct fault *f)
{
    static const char *const schedules[] = {
        [SCHED_BETA_LINEAR] = "linear",
        [SCHED_BETA_SCALED_LINEAR] = "scaled_linear",
        [SCHED_BETA_SQUAREDCOS_CAP_V2] = "squaredcos_cap_v2",
    };
    static const char *const spacings[] = {"leading", "linspace", "trailing"};
    static const char *const predictions[] = {"epsilon", "v_prediction"};
    static const char *const ends[] = {"zero", "sigma_min"};
    size_t i = 0;
    int r = parse_word(root, "beta_schedule", schedules, ARRAY_SIZE(schedules), &i, f);

    if (r > 0)
        c->beta_schedule = (enum sched_beta_schedule)i;
    if (r >= 0)
        r = parse_word(root, "timestep_spacing", spacings, ARRAY_SIZE(spacings), &i, f);
    if (r > 0)
        c->spacing = (enum sched_spacing)(SCHED_SPACING_LEADING + i);
    if (r >= 0)
        r = parse_word(root, "prediction_type", predictions, ARRAY_SIZE(predictions), &i, f);
    if (r > 0)
        c->prediction = (enum sched_prediction)(SCHED_PREDICTION_EPSILON + i);
    if (r >= 0)
        r = parse_word(root, "final_sigmas_type", ends, ARRAY_SIZE(ends), &i, f);
    if (r > 0)
        c->is_final_sigma_min = i == 1;
    return r;
}

static int parse_numbers(const json_t *root, struct sched_config *c, struct fault *f)
{
    uint32_t offset = 0; /* looked at, not taken */
    int r = json_get_u32(root, "num_train_timesteps", 2, SCHED_TRAIN_MAX, &c->train_steps, f);

    if (r >= 0)
        r = json_get_double(root, "beta_start", 1e-8, 0.999, &c->beta_start, f);
    if (r >= 0)
        r = json_get_double(root, "beta_end", 1e-8, 0.999, &c->beta_end, f);
    if (r >= 0)
        r = json_get_double(root, "clip_sample_range", 1e-6, 1e6, &c->clip_range, f);
    if (r >= 0)
        r = json_get_u32(root, "steps_offset", 0, c->train_steps - 1, &offset, f);
    if (r >= 0)
        r = json_get_u32(root, "original_inference_steps", 1, SCHED_TRAIN_MAX, &c->original_steps,
                         f);
    if (r >= 0)
        r = json_get_double(root, "timestep_scaling", 1e-6, 1e6, &c->timestep_scaling, f);
    return r;
}

static int parse_flags(const json_t *root, struct sched_config *c, struct fault *f)
{
    const struct {
        const char *key;
        bool *flag;
    } rows[] = {
        {"set_alpha_to_one", &c->set_alpha_to_one},   {"clip_sample", &c->clip_sample},
        {"skip_prk_steps", &c->skip_prk_steps},       {"rescale_betas_zero_snr", &c->is_zero_snr},
        {"lower_order_final", &c->lower_order_final}, {"use_karras_sigmas", &c->is_karras},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++)
        r = json_get_bool(root, rows[i].key, rows[i].flag, f);
    return r;
}

/* Of a file of one of our classes, keys that two classes take for granted in different ways. */
static void note_absence(const json_t *root, struct sched_config *c)
{
    bool is_there = false;

    c->lacks_alpha_to_one = json_get_bool(root, "set_alpha_to_one", &is_there, NULL) == 0;
    c->lacks_skip_prk = json_get_bool(root, "skip_prk_steps", &is_there, NULL) == 0;
}

/* A list of train_steps betas, each between 0 and 1. */
static int parse_trained_betas(const json_t *root, uint32_t train_steps, float **ret_betas,
                               struct fault *f)
{
    const json_t *list = json_object_get(root, "trained_betas");

    *ret_betas = NULL;
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list) || json_array_size(list) != train_steps)
        return fault_set(f, -EINVAL, "trained_betas: want null or a list of %u numbers",
                         train_steps);
    _cleanup_(freep) float *betas = calloc(train_steps, sizeof *betas);
    if (!betas)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < train_steps; i++) {
        double beta = json_number_value(json_array_get(list, i));
        if (!(beta > 0 && beta < 1))
            return fault_set(f, -EINVAL, "trained_betas: entry %u is not between 0 and 1", i);
        betas[i] = (float)beta;
    }
    *ret_betas = TAKE_PTR(betas);
    return 0;
}

/* --- keys that must not be there -------------------------------------------------------------- */

static int refuse_flags(const json_t *root, int sched, struct fault *f)
{
    static const struct {
        int sched;
        const char *key;
    } rows[] = {
        {ANY_SCHED, "thresholding"},        {ANY_SCHED, "use_exponential_sigmas"},
        {ANY_SCHED, "use_beta_sigmas"},     {SCHED_DPMPP_2M, "euler_at_final"},
        {SCHED_DPMPP_2M, "use_lu_lambdas"},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++) {
        bool is_on = false;
        if (rows[i].sched != ANY_SCHED && rows[i].sched != sched)
            continue;
        r = json_get_bool(root, rows[i].key, &is_on, f);
        if (is_on)
            return fault_set(f, -EINVAL, "%s: true is not supported", rows[i].key);
    }
    return r;
}

static int refuse_numbers(const json_t *root, int sched, struct fault *f)
{
    static const struct {
        int sched;
        const char *key;
    } rows[] = {
        {SCHED_EULER, "sigma_min"},
        {SCHED_EULER, "sigma_max"},
        {SCHED_DPMPP_2M, "lambda_min_clipped"},
    };
    uint32_t order = 2;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const json_t *value = json_object_get(root, rows[i].key);
        if (rows[i].sched == sched && value && !json_is_null(value))
            return fault_set(f, -EINVAL, "%s: only null is supported", rows[i].key);
    }
    return sched == SCHED_DPMPP_2M ? json_get_u32(root, "solver_order", 2, 2, &order, f) : 0;
}

static int refuse_words(const json_t *root, int sched, struct sched_config *c, struct fault *f)
{
    static const char *const linear[] = {"linear"}, *const discrete[] = {"discrete"};
    static const char *const algorithms[] = {"dpmsolver++", "deis"};
    static const char *const solvers[] = {"midpoint", "logrho", "bh1", "bh2"};
    static const char *const variances[] = {"fixed_small", "fixed_small_log", "fixed_large"};
    struct fault variance = {0};
    size_t i = 0;
    int r = parse_word(root, "interpolation_type", linear, ARRAY_SIZE(linear), &i, f);

    if (r >= 0)
        r = parse_word(root, "timestep_type", discrete, ARRAY_SIZE(discrete), &i, f);
    if (r >= 0 && sched == SCHED_DPMPP_2M)
        r = parse_word(root, "algorithm_type", algorithms, ARRAY_SIZE(algorithms), &i, f);
    if (r >= 0 && sched == SCHED_DPMPP_2M)
        r = parse_word(root, "solver_type", solvers, ARRAY_SIZE(solvers), &i, f);
    if (r < 0)
        return r;
    r = parse_word(root, "variance_type", variances, ARRAY_SIZE(variances), &i, &variance);
    c->is_variance_large = r > 0 && i == 2;
    if (r < 0 && sched == SCHED_DDPM) /* elsewhere it is another class's business */
        return fault_set(f, r, "%s", variance.text);
    return 0;
}

/* --- the file --------------------------------------------------------------------------------- */

static int find_class(const char *name)
{
    size_t length = name ? strlen(name) : 0;

    for (int i = 0; length && i < SCHED_COUNT; i++) {
        const char *at = strstr(scheds[i].class_names, name);
        if (at && (at == scheds[i].class_names || at[-1] == ' ') &&
            (at[length] == 0 || at[length] == ' '))
            return i;
    }
    return -1;
}

/* Overwrites Infinity and -Infinity outside of strings with null. */
static void blank_infinities(char *text, size_t length)
{
    static const char word[] = "Infinity", null[] = "null    ";
    size_t n = sizeof word - 1;
    bool is_string = false;

    for (size_t i = 0; i < length; i++) {
        if (text[i] == '"')
            is_string = !is_string;
        else if (text[i] == '\\')
            i++;
        else if (!is_string && i + n <= length && memcmp(text + i, word, n) == 0) {
            memcpy(text + i, null, n);
            if (i > 0 && text[i - 1] == '-')
                text[i - 1] = ' ';
        }
    }
}

static int parse_text(const char *json, size_t length, json_t **ret_root, struct fault *f)
{
    _cleanup_(freep) char *text = malloc(length + 1);

    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    memcpy(text, json, length);
    blank_infinities(text, length);
    int r = json_parse(text, length, ret_root, f);
    if (r >= 0 && !json_is_object(*ret_root))
        return fault_set(f, -EINVAL, "want an object");
    return r;
}

int sched_config_parse(const char *json, size_t length, struct sched_config *ret_config,
                       int *ret_sched, float **ret_betas, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    struct sched_config c = sched_config_default();
    const char *class_name = NULL;
    int r = parse_text(json, length, &root, f);

    if (r >= 0)
        r = json_get_string(root, "_class_name", &class_name, f);
    int sched = find_class(class_name);
    if (r >= 0)
        r = parse_numbers(root, &c, f);
    if (r >= 0)
        r = parse_words(root, &c, f);
    if (r >= 0)
        r = parse_flags(root, &c, f);
    if (r >= 0)
        r = refuse_flags(root, sched, f);
    if (r >= 0)
        r = refuse_numbers(root, sched, f);
    if (r >= 0)
        r = refuse_words(root, sched, &c, f);
    if (r >= 0)
        r = parse_trained_betas(root, c.train_steps, ret_betas, f);
    if (r < 0)
        return r;
    if (sched >= 0)
        note_absence(root, &c);
    c.trained_betas = *ret_betas;
    *ret_sched = sched;
    *ret_config = c;
    return 0;
}
