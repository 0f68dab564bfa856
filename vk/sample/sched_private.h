/* sched_private — what the schedulers' files share. Included by vk/sample only. */
#pragma once

#include "vk/base/cleanup.h"
#include "vk/sample/sched.h"

extern const char *const sched_pndm_classes[],
    *const sched_ddim_classes[], *const sched_lms_classes[], *const sched_euler_classes[];

int sched_pndm_make(const struct sched_config *c, const struct sched_spec *spec,
                    struct sched_table *ret_table, struct fault *f);
int sched_ddim_make(const struct sched_config *c, const struct sched_spec *spec,
                    struct sched_table *ret_table, struct fault *f);
int sched_lms_make(const struct sched_config *c, const struct sched_spec *spec,
                   struct sched_table *ret_table, struct fault *f);
int sched_euler_make(const struct sched_config *c, const struct sched_spec *spec,
                     struct sched_table *ret_table, struct fault *f);

/* sqrt((1 - a) / a) for every training step, malloc'd. */
int sched_sigmas(const struct sched_config *c, double **ret_sigmas, struct fault *f);

/* table at a fractional index, linearly; held at the end. */
double sched_interpolate(const double *table, uint32_t count, double at);

/* `count` rows of input_scale 1 and conv_e 1, all else zero; init_noise_sigma 1. */
int sched_table_new(uint32_t count, struct sched_table *ret_table, struct fault *f);
