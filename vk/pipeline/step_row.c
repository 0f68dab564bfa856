#include "vk/pipeline/step_row.h"

#include <string.h>

#include "vk/shaders/abi/step.h"

void step_row_fill(const struct sched_row *row, double guidance, float *ret_floats)
{
    const struct {
        int at;
        double value;
    } cells[] = {
        {STEP_TIMESTEP, row->timestep},
        {STEP_INPUT_SCALE, row->input_scale},
        {STEP_GUIDANCE, guidance},
        {STEP_CONV_X, row->conv_x},
        {STEP_CONV_M, row->conv_m},
        {STEP_CLIP, row->clip},
        {STEP_X_SCALE, row->x_scale},
        {STEP_PLAIN_X, row->plain_x},
        {STEP_M_SCALE, row->m_scale},
        {STEP_SUM_SCALE, row->sum_scale},
        {STEP_NOISE_SCALE, row->noise_scale},
        {STEP_SUM_KEEP, row->sum_keep},
        {STEP_SUM_E, row->sum_e},
        {STEP_USE_SAVED, row->use_saved},
        {STEP_SAVE, row->save},
        {STEP_PUSH, row->push},
        {STEP_CLEAN_X, row->clean_x},
        {STEP_CLEAN_M, row->clean_m},
        {STEP_KEEP_IMAGE, row->keep_image},
        {STEP_KEEP_NOISE, row->keep_noise},
    };

    memset(ret_floats, 0, STEP_ROW_FLOATS * sizeof *ret_floats);
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++)
        ret_floats[cells[i].at] = (float)cells[i].value;
    for (uint32_t k = 0; k <= SCHED_HISTORY; k++)
        ret_floats[STEP_E_SCALE + k] = (float)row->e_scale[k];
}
