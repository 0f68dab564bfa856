#include "tests/support/sched_walk.h"

#include <math.h>
#include <string.h>

static double clamp(double x, double limit)
{
    return x < -limit ? -limit : x > limit ? limit : x;
}

/* What the kernel does with a row, for one value. */
static void apply(struct walk *w, const struct sched_row *row, size_t i)
{
    double scaled = w->x[i] * row->input_scale, m = scaled * row->timestep / (row->timestep + 1);
    double x = w->is_fed_scaled ? scaled : w->x[i];
    double e0 = row->conv_x * x + row->conv_m * m;

    w->clean[i] = row->clean_x * x + row->clean_m * m;
    if (row->clip != 0)
        e0 = clamp(e0, row->clip);
    double next = row->x_scale * (row->use_saved ? w->saved[i] : x) + row->plain_x * x +
                  row->m_scale * m + row->e_scale[0] * e0 + row->sum_scale * w->sum[i] +
                  row->noise_scale * (double)w->noise[i];
    for (size_t k = 0; k < SCHED_HISTORY; k++)
        next += row->e_scale[k + 1] * w->history[k][i];
    if (w->is_masked) {
        double paint = (double)(i % 64 % 3) / 2;
        double kept = row->keep_image * w->original[i] + row->keep_noise * w->original_noise[i];
        next = paint * next + (1 - paint) * kept;
    }
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

void walk_start(struct walk *w, double init_noise_sigma)
{
    memset(w, 0, sizeof *w);
    for (size_t i = 0; i < WALK_SAMPLE; i++) {
        size_t n = i / 192, c = i / 64 % 3, pixel = i % 64; /* of [4,3,64] */
        w->original[i] = (double)((c * 64 + pixel) * 4 + n) / WALK_SAMPLE;
        w->x[i] = w->original[i] * init_noise_sigma;
    }
}

void walk_start_from(struct walk *w, const struct sched_table *table)
{
    for (size_t i = 0; i < WALK_SAMPLE; i++)
        w->x[i] = table->start_image * w->original[i] + table->start_noise * w->original_noise[i];
}

void walk_call(struct walk *w, const struct sched_row *row)
{
    for (size_t i = 0; i < WALK_SAMPLE; i++)
        apply(w, row, i);
}

double walk_sum(const struct walk *w)
{
    double total = 0;

    for (size_t i = 0; i < WALK_SAMPLE; i++)
        total += fabs(w->x[i]);
    return total;
}
