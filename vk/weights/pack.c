#include "vk/weights/pack.h"

#define BLOCK_COLUMNS 64u
#define GROUPS_X      32768u /* below the 65535 every device has */

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

struct weight_want pack_complete(const struct weight_want *want)
{
    struct weight_want w = *want;

    w.taps_h = w.taps_h ? w.taps_h : 1;
    w.taps_w = w.taps_w ? w.taps_w : 1;
    w.n_layout.count = w.n;
    w.k_layout.count = w.k;
    return w;
}

uint64_t pack_columns(const struct weight_want *w)
{
    if (w->geglu) /* a block of 64 columns covers 32 values and their gates */
        return round_up(w->n / 2, BLOCK_COLUMNS / 2) * 2;
    return layout_padded(w->n_layout);
}

static uint64_t total_columns(const struct weight_want *w)
{
    return round_up(w->n_total ? w->n_total : pack_columns(w), BLOCK_COLUMNS);
}

uint64_t pack_size(const struct weight_want *w)
{
    uint64_t taps = (uint64_t)w->taps_h * w->taps_w;

    switch (w->pack) {
    case PACK_ROWS:
        return (uint64_t)w->n * layout_padded(w->k_layout) * 2;
    case PACK_VECTOR:
        return total_columns(w) * 4;
    default:
        return total_columns(w) * taps * layout_padded(w->k_layout) * 2;
    }
}

bool pack_takes(enum safetensors_dtype type)
{
    return type == SAFETENSORS_F16 || type == SAFETENSORS_BF16 || type == SAFETENSORS_F32;
}

enum safetensors_range pack_range(const struct weight_want *w)
{
    return w->pack == PACK_VECTOR ? SAFETENSORS_FINITE : SAFETENSORS_HALF;
}

uint64_t pack_row_elements(const struct weight_want *w)
{
    return w->pack == PACK_VECTOR ? 1 : (uint64_t)w->k * w->taps_h * w->taps_w;
}

static uint32_t type_code(enum safetensors_dtype type)
{
    return type == SAFETENSORS_F16    ? PACK_TYPE_F16
           : type == SAFETENSORS_BF16 ? PACK_TYPE_BF16
                                      : PACK_TYPE_F32;
}

struct pack_launch pack_rows(const struct weight_want *w, enum safetensors_dtype type,
                             uint32_t first, uint32_t count)
{
    static const char *const kernels[] = {
        [PACK_GEMM] = "pack_gemm.ssbo",
        [PACK_ROWS] = "pack_rows.ssbo",
        [PACK_VECTOR] = "pack_vector.ssbo",
    };
    uint32_t taps = w->taps_h * w->taps_w;
    uint32_t k_padded = layout_padded(w->k_layout);
    uint32_t threads = w->pack == PACK_VECTOR ? count : count * taps * (k_padded / 8);
    uint32_t groups = (threads + PACK_LOCAL - 1) / PACK_LOCAL;
    struct pack_launch launch = {.kernel = kernels[w->pack]};

    launch.groups[0] = groups < GROUPS_X ? groups : GROUPS_X;
    launch.groups[1] = (groups + launch.groups[0] - 1) / launch.groups[0];
    launch.groups[2] = 1;
    launch.push[PACK_TYPE] = type_code(type);
    launch.push[PACK_FIRST_ROW] = first;
    launch.push[PACK_ROW_COUNT] = count;
    launch.push[PACK_N] = w->n;
    launch.push[PACK_K] = w->k;
    launch.push[PACK_TAPS] = taps;
    launch.push[PACK_K_PADDED] = k_padded;
    launch.push[PACK_K_FIRST] = w->k_layout.first;
    launch.push[PACK_K_RUN] = w->k_layout.run;
    launch.push[PACK_N_FIRST] = w->n_layout.first;
    launch.push[PACK_N_RUN] = w->n_layout.run;
    launch.push[PACK_N_OFFSET] = w->n_offset;
    launch.push[PACK_GEGLU] = w->geglu;
    launch.push[PACK_THREADS] = threads;
    return launch;
}
