/* step_row — a scheduler's row in the device's layout (vk/shaders/abi/step.h). */
#pragma once

#include "vk/sample/sched.h"

/* Writes STEP_ROW_FLOATS floats. */
void step_row_fill(const struct sched_row *row, double guidance, float *ret_floats);
