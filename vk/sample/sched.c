#include "vk/sample/sched.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/json.h"
#include "vk/sample/sched_private.h"

const struct sched scheds[SCHED_COUNT] = {
    {"pndm", sched_pndm_classes, sched_pndm_make},
    {"ddim", sched_ddim_classes, sched_ddim_make},
    {"lms", sched_lms_classes, sched_lms_make},
    {"euler", sched_euler_classes, sched_euler_make},
};

/* --- configuration ---------------------------------------------------------------------------- */

struct sched_config sched_config_default(void)
{
    return (struct sched_config){.train_steps = 1000,
                                 .beta_start = 0.00085,
                                 .beta_end = 0.012,
                                 .beta_schedule = SCHED_BETA_SCALED_LINEAR,
                                 .clip_range = 1,
                                 .skip_prk_steps = true,
                                 .lower_order_final = true,
                                 .original_steps = 50,
                                 .timestep_scaling = 10,
                                 .prediction = SCHED_PREDICTION_EPSILON};
}

static int parse_beta_schedule(const json_t *root, enum sched_beta_schedule *ret, struct fault *f)
{
    static const char *const names[] = {
        [SCHED_BETA_LINEAR] = "linear",
        [SCHED_BETA_SCALED_LINEAR] = "scaled_linear",
        [SCHED_BETA_SQUAREDCOS_CAP_V2] = "squaredcos_cap_v2",
    };
    const char *name = NULL;
    int r = json_get_string(root, "beta_schedule", &name, f);

    if (r <= 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum sched_beta_schedule)i;
            return 0;
        }
    }
    return fault_set(f, -EINVAL,
                     "beta_schedule: %.40s is unknown; linear, scaled_linear and "
                     "squaredcos_cap_v2 are",
                     name);
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

static int find_class(const char *name)
{
    for (uint32_t i = 0; name && i < SCHED_COUNT; i++) {
        for (const char *const *c = scheds[i].class_names; *c; c++) {
            if (strcmp(*c, name) == 0)
                return (int)i;
        }
    }
    return -1;
}

/* Keys of later versions under which the plain formulas give wrong pictures. */
static int refuse_unbuilt(const json_t *root, struct fault *f)
{
    static const char *const flags[] = {"rescale_betas_zero_snr", "thresholding"};
    const char *prediction = "epsilon";
    int r = json_get_string(root, "prediction_type", &prediction, f);

    if (r < 0)
        return r;
    if (strcmp(prediction, "epsilon") != 0)
        return fault_set(f, -EINVAL, "prediction_type: %.40s; only epsilon is supported",
                         prediction);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        bool is_on = false;
        r = json_get_bool(root, flags[i], &is_on, f);
        if (r < 0)
            return r;
        if (is_on)
            return fault_set(f, -EINVAL, "%s: true is not supported", flags[i]);
    }
    return 0;
}

static int parse_keys(const json_t *root, struct sched_config *c, const char **ret_class,
                      struct fault *f)
{
    int r = json_get_string(root, "_class_name", ret_class, f);

    if (r >= 0)
        r = json_get_u32(root, "num_train_timesteps", 2, SCHED_TRAIN_MAX, &c->train_steps, f);
    if (r >= 0)
        r = json_get_double(root, "beta_start", 1e-8, 0.999, &c->beta_start, f);
    if (r >= 0)
        r = json_get_double(root, "beta_end", 1e-8, 0.999, &c->beta_end, f);
    if (r >= 0)
        r = parse_beta_schedule(root, &c->beta_schedule, f);
    if (r >= 0)
        r = json_get_bool(root, "set_alpha_to_one", &c->set_alpha_to_one, f);
    if (r >= 0)
        r = json_get_bool(root, "clip_sample", &c->clip_sample, f);
    if (r >= 0)
        r = json_get_bool(root, "skip_prk_steps", &c->skip_prk_steps, f);
    if (r >= 0)
        r = refuse_unbuilt(root, f);
    return r;
}

int sched_config_parse(const char *json, size_t length, struct sched_config *ret_config,
                       int *ret_sched, float **ret_betas, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    struct sched_config c = sched_config_default();
    const char *class_name = NULL;
    int r = json_parse(json, length, &root, f);

    if (r < 0)
        return r;
    if (!json_is_object(root))
        return fault_set(f, -EINVAL, "want an object");
    r = parse_keys(root, &c, &class_name, f);
    if (r >= 0)
        r = parse_trained_betas(root, c.train_steps, ret_betas, f);
    if (r < 0)
        return r;
    c.trained_betas = *ret_betas;
    *ret_sched = find_class(class_name);
    *ret_config = c;
    return 0;
}

/* --- noise levels ----------------------------------------------------------------------------- */

/* torch.linspace in f32, bit for bit: symmetric from both ends, each a fused multiply-add. */
static float linspace(float first, float last, uint32_t n, uint32_t i)
{
    double step = (double)((last - first) / (float)(n - 1));

    return (float)(i < n / 2 ? (double)first + step * i : (double)last - step * (n - 1 - i));
}

static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);

    return c * c;
}

static float beta_at(const struct sched_config *c, uint32_t i)
{
    uint32_t n = c->train_steps;

    if (c->trained_betas)
        return c->trained_betas[i];
    if (c->beta_schedule == SCHED_BETA_LINEAR)
        return linspace((float)c->beta_start, (float)c->beta_end, n, i);
    if (c->beta_schedule == SCHED_BETA_SCALED_LINEAR) {
        float root = linspace((float)sqrt(c->beta_start), (float)sqrt(c->beta_end), n, i);
        return root * root;
    }
    double beta = 1 - cosine_alpha_bar((i + 1.0) / n) / cosine_alpha_bar((double)i / n);
    return (float)(beta < 0.999 ? beta : 0.999);
}

int sched_alphas_cumprod(const struct sched_config *c, float **ret_alphas, struct fault *f)
{
    double product = 1;

    if (c->train_steps < 2 || c->train_steps > SCHED_TRAIN_MAX)
        return fault_set(f, -EINVAL, "num_train_timesteps: %u is outside 2…%u", c->train_steps,
                         SCHED_TRAIN_MAX);
    _cleanup_(freep) float *alphas = calloc(c->train_steps, sizeof *alphas);
    if (!alphas)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < c->train_steps; i++) {
        product *= 1 - beta_at(c, i); /* the factor is f32, the product double */
        alphas[i] = (float)product;
        if (!(alphas[i] > 0 && alphas[i] < 1))
            return fault_set(f, -EINVAL, "scheduler: the betas leave no %s at training step %u",
                             alphas[i] > 0 ? "noise" : "signal", i);
    }
    *ret_alphas = TAKE_PTR(alphas);
    return 0;
}

int sched_sigmas(const struct sched_config *c, double **ret_sigmas, struct fault *f)
{
    _cleanup_(freep) float *alphas = NULL;
    int r = sched_alphas_cumprod(c, &alphas, f);

    if (r < 0)
        return r;
    double *sigmas = calloc(c->train_steps, sizeof *sigmas);
    if (!sigmas)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < c->train_steps; i++)
        sigmas[i] = sqrt((1 - (double)alphas[i]) / alphas[i]);
    *ret_sigmas = sigmas;
    return 0;
}

double sched_interpolate(const double *table, uint32_t count, double at)
{
    uint32_t low = (uint32_t)at;

    if (low + 1 >= count)
        return table[count - 1];
    return table[low] + (at - low) * (table[low + 1] - table[low]);
}

/* --- tables ----------------------------------------------------------------------------------- */

int sched_table_new(uint32_t count, struct sched_table *ret_table, struct fault *f)
{
    struct sched_row *rows = calloc(count, sizeof *rows);

    if (!rows)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < count; i++)
        rows[i].input_scale = rows[i].conv_m = 1;
    *ret_table = (struct sched_table){.rows = rows, .count = count, .init_noise_sigma = 1};
    return 0;
}

/* Odd but legal betas must not put an infinity on the device. */
static int check_finite(const struct sched_table *table, struct fault *f)
{
    for (uint32_t i = 0; i < table->count; i++) {
        const struct sched_row *row = &table->rows[i];
        double sum = row->input_scale + row->x_scale;
        for (uint32_t k = 0; k <= SCHED_HISTORY; k++)
            sum += fabs(row->e_scale[k]);
        if (!isfinite((float)sum))
            return fault_set(f, -EINVAL, "scheduler: call %u has no finite coefficients", i);
    }
    return 0;
}

int sched_make(const struct sched_spec *spec, const struct sched_config *config,
               struct sched_table *ret_table, struct fault *f)
{
    uint32_t sched = spec->sched, steps = spec->steps;
    struct sched_table table;

    if (sched >= SCHED_COUNT)
        return fault_set(f, -EINVAL, "scheduler: number %u is unknown", sched);
    if (steps < 1 || steps >= config->train_steps)
        return fault_set(f, -EINVAL, "steps: %u is outside 1…%u for this model", steps,
                         config->train_steps - 1);
    int r = scheds[sched].make(config, spec, &table, f);
    if (r < 0)
        return r;
    r = check_finite(&table, f);
    if (r < 0) {
        sched_table_done(&table);
        return r;
    }
    *ret_table = table;
    return 0;
}

void sched_table_done(struct sched_table *table)
{
    free(table->rows);
    table->rows = NULL;
    table->count = 0;
}
