#include "vk/models/vae_plane.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Where a limit on bytes makes bands, they take this part of it: neighbours' rows come on top, and
 * scratch adds up. */
#define BAND_SHARE 4u

void planes_init(struct planes *p, struct graph *g, const struct band_limits *limits,
                 uint32_t groups, float eps)
{
    *p = (struct planes){.g = g, .groups = groups, .eps = eps, .count = 1};
    if (limits)
        p->limits = *limits;
}

static vae_plane add_plane(struct planes *p, const struct plane_item *item)
{
    if (p->g->fault.err)
        return 0;
    if (p->count == PLANES_MAX) {
        (void)fault_set(&p->g->fault, -E2BIG, "%s: more than %u planes", p->g->scope, PLANES_MAX);
        return 0;
    }
    p->items[p->count] = *item;
    return p->count++;
}

vae_plane plane_given(struct planes *p, tensor t)
{
    const struct tensor_info *info = graph_tensor(p->g, t);

    return add_plane(p, &(struct plane_item){.h = info->h,
                                             .w = info->w,
                                             .c = info->layout.count,
                                             .element = info->element,
                                             .whole = t});
}

tensor plane_tensor(const struct planes *p, vae_plane of)
{
    return p->items[of].whole;
}

/* --- sizes ------------------------------------------------------------------------------------ */

static uint64_t row_bytes(const struct plane_item *i)
{
    return (uint64_t)i->w * pad8(i->c) * (i->element == ELEMENT_F16 ? 2 : 4);
}

static uint64_t row_macs(const struct plane_item *i, const struct plane_item *src)
{
    const struct conv2d_params *c = &i->layer.params;

    return (uint64_t)i->w * c->taps * c->taps * pad8(src->c) * pad8(i->c);
}

/* Rows after which a row of so many bytes (a multiple of 16) begins at an offset that may be bound.
 */
static uint32_t row_step(uint64_t bytes)
{
    uint32_t step = 1;

    while (step * bytes % GPU_OFFSET_ALIGNMENT)
        step *= 2;
    return step;
}

uint32_t band_rows(const struct band_limits *limits, const struct band_need *need)
{
    bool fits = !limits->bytes || need->h * need->bytes <= limits->bytes;
    uint64_t rows = UINT32_MAX, step = row_step(need->written);

    if (fits && (!limits->macs || need->h * need->macs <= limits->macs))
        return need->h;
    if (!fits)
        rows = limits->bytes / BAND_SHARE / need->bytes;
    if (limits->macs && need->macs && limits->macs / need->macs < rows)
        rows = limits->macs / need->macs;
    rows = rows < step ? step : rows / step * step;
    return rows < need->h ? (uint32_t)rows : need->h;
}

static struct band_need need_of(const struct planes *p, const struct plane_item *i);

/* Raises *need by what the rows of `from` take that a row of `i` reads. */
static void need_also(const struct planes *p, const struct plane_item *i, vae_plane from,
                      struct band_need *need)
{
    const struct plane_item *src = &p->items[from];
    struct band_need below = {.bytes = row_bytes(src)};

    if (!src->whole)
        below = need_of(p, src);
    below.bytes = below.bytes * src->h / i->h;
    below.macs = below.macs * src->h / i->h;
    need->bytes = below.bytes > need->bytes ? below.bytes : need->bytes;
    need->macs = below.macs > need->macs ? below.macs : need->macs;
}

/* The most that a launch on the way to a row of the plane takes: its own operands, and those of
 * planes that are made again for it. */
static struct band_need need_of(const struct planes *p, const struct plane_item *i)
{
    struct band_need need = {.h = i->h, .bytes = row_bytes(i), .written = row_bytes(i)};

    if (i->layer.src) {
        need.macs = row_macs(i, &p->items[i->layer.src]);
        need_also(p, i, i->layer.src, &need);
    }
    if (i->layer.residual)
        need_also(p, i, i->layer.residual, &need);
    return need;
}

static uint32_t rows_of_band(const struct planes *p, const struct plane_item *i)
{
    struct band_need need = need_of(p, i);

    return band_rows(&p->limits, &need);
}

/* --- rows of a plane -------------------------------------------------------------------------- */

static tensor part_of(struct graph *g, tensor t, uint32_t first, uint32_t rows)
{
    return rows == graph_tensor(g, t)->h ? t : build_rows(g, t, first, rows);
}

static tensor make_rows(struct planes *p, vae_plane of, uint32_t first, uint32_t end, tensor into);

/* Rows first … end - 1: of the plane where it is held, of what this band made already, or made. */
static tensor rows_of(struct planes *p, vae_plane of, uint32_t first, uint32_t end)
{
    struct plane_item *i = &p->items[of];

    if (p->g->fault.err)
        return 0;
    if (i->whole)
        return part_of(p->g, i->whole, first, end - first);
    if (i->rows && i->rows_band == p->band && i->rows_first <= first && end <= i->rows_end)
        return part_of(p->g, i->rows, first - i->rows_first, end - first);
    i->rows = make_rows(p, of, first, end, 0);
    i->rows_first = first;
    i->rows_end = end;
    i->rows_band = p->band;
    return i->rows;
}

static struct groupnorm_params norm_of(const struct planes *p)
{
    return (struct groupnorm_params){.groups = p->groups, .eps = p->eps, .silu = true};
}

/* Runs the plane's layer for some rows, into `into` or scratch. */
static tensor make_rows(struct planes *p, vae_plane of, uint32_t first, uint32_t end, tensor into)
{
    struct plane_item *i = &p->items[of];
    const struct plane_item *src = &p->items[i->layer.src];
    struct conv2d_params conv = i->layer.params;
    struct groupnorm_params norm = norm_of(p);
    char scope[sizeof p->g->scope];
    uint32_t x_end;

    conv2d_reads(&conv, src->h, first, end, &conv.x_row, &x_end);
    tensor x = rows_of(p, i->layer.src, conv.x_row, x_end);
    (void)snprintf(scope, sizeof scope, "%s", p->g->scope);
    (void)snprintf(p->g->scope, sizeof p->g->scope, "%s", i->scope);
    if (i->layer.norm)
        x = build_groupnorm_apply(p->g, x, src->stats, i->norm, &norm);
    if (i->layer.residual)
        conv.residual = rows_of(p, i->layer.residual, first, end);
    conv.first_row = first;
    conv.rows = end - first;
    conv.picture_height = src->h;
    conv.into = into ? into : build_sheet(p->g, i->element, end - first, i->w, i->c);
    tensor y = build_conv2d(p->g, x, i->conv, &conv);
    (void)snprintf(p->g->scope, sizeof p->g->scope, "%s", scope);
    return y;
}

/* --- statistics ------------------------------------------------------------------------------- */

tensor plane_stats(struct planes *p, vae_plane of, const char *name)
{
    struct plane_item *i = &p->items[of];
    uint32_t rows = rows_of_band(p, i), parts = (i->h + rows - 1) / rows;
    struct groupnorm_params norm = norm_of(p);

    if (p->g->fault.err || i->stats)
        return i->stats;
    if (parts == 1) {
        p->band++;
        i->stats = build_groupnorm_stats(p->g, rows_of(p, of, 0, i->h), name, &norm);
        return i->stats;
    }
    tensor table = build_groupnorm_parts(p->g, &norm, parts);
    for (uint32_t k = 0; k < parts; k++) {
        uint32_t first = k * rows, end = first + rows < i->h ? first + rows : i->h;
        p->band++;
        build_groupnorm_part(p->g, rows_of(p, of, first, end), name, &norm, table, k);
    }
    i->stats = build_groupnorm_merge(p->g, table, name, &norm, i->h * i->w, rows * i->w);
    return i->stats;
}

/* --- layers ----------------------------------------------------------------------------------- */

static uint32_t side(uint32_t in, const struct conv2d_params *c)
{
    uint32_t seen = c->upsample ? 2 * in : in;

    return (seen + c->pad + c->pad_end - c->taps) / (c->stride ? c->stride : 1) + 1;
}

/* May the result overwrite the residual? Row for row it may where bands read nothing else of it,
 * and nobody reads it afterwards (in these networks: nobody does). */
static bool is_in_place(const struct planes *p, const struct plane_item *i)
{
    const struct plane_item *res = &p->items[i->layer.residual];

    return i->layer.residual && !p->g->keep_labelled && res->layer.src && res->whole &&
           p->items[i->layer.src].whole && i->layer.src != i->layer.residual && res->c == i->c &&
           res->element == i->element;
}

static void make_whole(struct planes *p, vae_plane of, uint32_t rows)
{
    struct plane_item *i = &p->items[of];
    tensor whole = is_in_place(p, i) ? p->items[i->layer.residual].whole
                                     : build_sheet(p->g, i->element, i->h, i->w, i->c);

    for (uint32_t first = 0; first < i->h && !p->g->fault.err; first += rows) {
        uint32_t end = first + rows < i->h ? first + rows : i->h;
        p->band++;
        (void)make_rows(p, of, first, end, part_of(p->g, whole, first, end - first));
    }
    i->whole = whole;
}

vae_plane plane_conv(struct planes *p, const struct plane_layer *layer)
{
    const struct plane_item *src = &p->items[layer->src];
    struct plane_item new = {.layer = *layer, .c = layer->params.out};

    if (p->g->fault.err)
        return 0;
    if (layer->params.upsample) {
        new.layer.params.upsampled_height = 2 * src->h;
        new.layer.params.upsampled_width = 2 * src->w;
    }
    new.h = side(src->h, &layer->params);
    new.w = side(src->w, &layer->params);
    new.element = layer->params.f32_out ? ELEMENT_F32 : build_stream_element(1, new.h, new.w);
    if (snprintf(new.scope, sizeof new.scope, "%s", p->g->scope) >= (int)sizeof new.scope)
        (void)fault_set(&p->g->fault, -ENAMETOOLONG, "%s: scope too deep", p->g->scope);
    (void)snprintf(new.conv, sizeof new.conv, "%s", layer->conv);
    (void)snprintf(new.norm, sizeof new.norm, "%s", layer->norm ? layer->norm : "");
    if (layer->norm)
        (void)plane_stats(p, layer->src, layer->norm);
    vae_plane of = add_plane(p, &new);
    bool is_small = !p->limits.keep || new.h *row_bytes(&new) <= p->limits.keep;
    if (of && (layer->is_kept || (is_small && !layer->is_fleeting)))
        make_whole(p, of, rows_of_band(p, &new));
    return of;
}
