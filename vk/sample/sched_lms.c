/* sched_lms — linear multi-step in sigma, order 4.
 *
 * Timesteps fall evenly from the last training step to 0 and are fractional; sigmas are
 * interpolated on them, zero appended. Coefficients are integrals of Lagrange polynomials, exact by
 * quadrature. Source: diffusers 0.6.0 scheduling_lms_discrete.py. */
#include <errno.h>
#include <math.h>

#include "vk/sample/sched_private.h"

#define ORDER 4u

const char *const sched_lms_classes[] = {"LMSDiscreteScheduler", NULL};

/* The k-th basis polynomial over sigmas[i], sigmas[i-1], … (order of them) at x. */
static double basis(const double *sigmas, uint32_t i, uint32_t order, uint32_t k, double x)
{
    double product = 1;

    for (uint32_t j = 0; j < order; j++) {
        if (j != k)
            product *= (x - sigmas[i - j]) / (sigmas[i - k] - sigmas[i - j]);
    }
    return product;
}

/* Its integral from sigmas[i] to sigmas[i+1]: two Gauss points are exact up to degree 3. */
static double coefficient(const double *sigmas, uint32_t i, uint32_t order, uint32_t k)
{
    double middle = (sigmas[i] + sigmas[i + 1]) / 2, half = (sigmas[i + 1] - sigmas[i]) / 2;
    double offset = half / sqrt(3);

    return half * (basis(sigmas, i, order, k, middle - offset) +
                   basis(sigmas, i, order, k, middle + offset));
}

static void fill_rows(const double *sigmas, struct sched_table *table)
{
    for (uint32_t i = 0; i < table->count; i++) {
        struct sched_row *row = &table->rows[i];
        uint32_t order = i + 1 < ORDER ? i + 1 : ORDER;
        row->input_scale = 1 / sqrt(sigmas[i] * sigmas[i] + 1);
        row->x_scale = 1;
        row->push = true;
        for (uint32_t k = 0; k < order; k++)
            row->e_scale[k] = coefficient(sigmas, i, order, k);
    }
}

int sched_lms_make(const struct sched_config *c, const struct sched_spec *spec,
                   struct sched_table *ret_table, struct fault *f)
{
    uint32_t steps = spec->steps;
    _cleanup_(freep) double *all = NULL;
    _cleanup_(freep) double *sigmas = calloc(steps + 1, sizeof *sigmas);

    if (!sigmas)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = sched_sigmas(c, &all, f);
    if (r >= 0)
        r = sched_table_new(steps, ret_table, f);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < steps; i++) {
        /* numpy's linspace(0, T-1, n) read backwards; n = 1 is its start, 0 */
        double t = steps > 1 ? (double)(c->train_steps - 1) * (steps - 1 - i) / (steps - 1) : 0;
        ret_table->rows[i].timestep = t;
        sigmas[i] = sched_interpolate(all, c->train_steps, t);
    }
    ret_table->init_noise_sigma = all[c->train_steps - 1];
    fill_rows(sigmas, ret_table);
    return 0;
}
