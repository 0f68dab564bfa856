/* sched_lms — linear multi-step in sigma, order 4.
 *
 * Coefficients are integrals of Lagrange polynomials, exact by quadrature. A run started inside the
 * list takes the weights of its place there and leaves out those of estimates it has not made, as
 * the reference does. Source: diffusers 0.6.0 scheduling_lms_discrete.py. */
#include <math.h>

#include "vk/sample/sched_private.h"

#define ORDER 4u

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

int sched_lms_list(struct sched_run *run, struct fault *f)
{
    return sched_list_sigma_steps(run, false, f);
}

void sched_lms_fill(const struct sched_run *run, uint32_t call, struct sched_row *row)
{
    uint32_t order = call + 1 < ORDER ? call + 1 : ORDER, made = call - run->begin + 1;
    struct sched_pair derivative = sched_ve_noise(run, run->sigmas[call]);

    row->conv_x = derivative.x;
    row->conv_m = derivative.m;
    row->x_scale = 1;
    row->push = true;
    for (uint32_t k = 0; k < order && k < made; k++)
        row->e_scale[k] = coefficient(run->sigmas, call, order, k);
}
