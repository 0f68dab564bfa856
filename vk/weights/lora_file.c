#include "vk/weights/lora_file.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/weights/weights-private.h"

struct module {
    char *name; /* in kohya's form */
    struct lora_module m;
};

struct lora_file {
    struct safetensors *file;
    struct ARRAY(struct module) modules;
};

/* --- tensors to modules ----------------------------------------------------------------------- */

static struct module *get_module(struct lora_file *l, const char *name)
{
    for (size_t i = l->modules.count; i-- > 0;) /* a module's tensors are neighbours, as a rule */
        if (strcmp(l->modules.items[i].name, name) == 0)
            return &l->modules.items[i];
    char *copy = strdup(name);
    struct module *m = copy ? array_push(&l->modules) : NULL;
    if (m)
        m->name = copy;
    else
        free(copy);
    return m;
}

static int wrong(const struct lora_file *l, const struct safetensors_tensor *t, const char *what,
                 struct fault *f)
{
    return fault_set(f, -EINVAL, "%s: %.120s: %s", safetensors_label(l->file), t->name, what);
}

static int add_tensor(struct lora_file *l, const struct safetensors_tensor *t,
                      const struct lora_names *names, struct fault *f)
{
    char name[LORA_NAME_MAX];
    enum lora_role role = lora_parse_name(t->name, name);
    uint32_t part;

    if (role == LORA_FOREIGN)
        return wrong(l, t, "only plain LoRA is supported (no LoHa, LoKr, DoRA, …)", f);
    if (role == LORA_NO_ROLE)
        return wrong(l, t, "is no tensor of a LoRA", f);
    if (lora_names_find(names, name, &part) < 0)
        return wrong(l, t, "this model has no such module; is the LoRA for another kind?", f);
    struct module *m = get_module(l, name);
    if (!m)
        return fault_set(f, -ENOMEM, "out of memory");
    m->m.part = part;
    const struct safetensors_tensor **place = role == LORA_DOWN ? &m->m.down
                                              : role == LORA_UP ? &m->m.up
                                                                : &m->m.alpha;
    if (*place)
        return wrong(l, t, "is there twice, under two names", f);
    *place = t;
    return 0;
}

/* --- shapes ----------------------------------------------------------------------------------- */

/* Equal; a shape that ends in 1, 1 is also taken without them, and the other way round. */
static bool is_shape(const struct safetensors_tensor *t, const uint64_t dims[4])
{
    uint32_t rank = dims[2] * dims[3] > 1 ? 4 : 2;

    if (t->rank != rank && !(rank == 2 && t->rank == 4 && t->dims[2] == 1 && t->dims[3] == 1))
        return false;
    return memcmp(t->dims, dims, rank * sizeof dims[0]) == 0;
}

static int check_shape(const struct lora_file *l, const struct safetensors_tensor *t,
                       const uint64_t dims[4], struct fault *f)
{
    char want[SAFETENSORS_SHAPE_TEXT], found[SAFETENSORS_SHAPE_TEXT];

    if (!pack_takes(t->dtype))
        return fault_set(f, -EINVAL, "%s: %.100s: want F16, BF16 or F32, file has %s",
                         safetensors_label(l->file), t->name,
                         safetensors_dtype_to_string(t->dtype));
    if (is_shape(t, dims))
        return 0;
    return fault_set(f, -EINVAL, "%s: %.100s: want %.48s, file has %.48s",
                     safetensors_label(l->file), t->name,
                     safetensors_format_shape(dims, dims[2] * dims[3] > 1 ? 4 : 2, want),
                     safetensors_format_shape(t->dims, t->rank, found));
}

static int read_scale(const struct lora_file *l, struct lora_module *m, struct fault *f)
{
    float alpha;

    m->scale = 1;
    if (!m->alpha)
        return 0;
    if (m->alpha->rank > 1 || (m->alpha->rank == 1 && m->alpha->dims[0] != 1))
        return wrong(l, m->alpha, "want a single number", f);
    int r = safetensors_read_floats(l->file, m->alpha, 0, 1, &alpha, f);
    if (r < 0)
        return r;
    m->scale = alpha / (float)m->rank;
    return 0;
}

static int check_module(const struct lora_file *l, struct module *module, const struct weights *w,
                        struct fault *f)
{
    struct lora_module *m = &module->m;
    struct weight_part p = weights_part(w, m->part);

    if (!m->down || !m->up)
        return fault_set(f, -EINVAL, "%s: %.120s: its %s is missing", safetensors_label(l->file),
                         module->name, m->down ? "lora_up" : "lora_down");
    uint64_t rank = m->down->rank ? m->down->dims[0] : 0;
    if (rank < 1 || rank > LORA_RANK_MAX)
        return fault_set(f, -EINVAL, "%s: %.100s: a rank of %" PRIu64 ", 1 to %u are possible",
                         safetensors_label(l->file), m->down->name, rank, LORA_RANK_MAX);
    m->rank = (uint32_t)rank;
    int r = check_shape(l, m->down, (uint64_t[4]){rank, p.k, p.taps_h, p.taps_w}, f);
    if (r >= 0)
        r = check_shape(l, m->up, (uint64_t[4]){p.n, rank, 1, 1}, f);
    return r < 0 ? r : read_scale(l, m, f);
}

/* Two modules of the file may be one weight under two names. */
static int check_once(const struct lora_file *l, const struct weights *w, struct fault *f)
{
    _cleanup_(freep) bool *seen = calloc(weights_part_count(w) + 1, sizeof *seen);

    if (!seen)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < l->modules.count; i++) {
        const struct lora_module *m = &l->modules.items[i].m;
        if (seen[m->part])
            return wrong(l, m->down, "the same module is there under another name", f);
        seen[m->part] = true;
    }
    return 0;
}

static int read_modules(struct lora_file *l, const struct weights *w,
                        const struct lora_names *names, struct fault *f)
{
    int r = 0;

    for (size_t i = 0; i < safetensors_count(l->file) && r >= 0; i++)
        r = add_tensor(l, safetensors_get(l->file, i), names, f);
    for (size_t i = 0; i < l->modules.count && r >= 0; i++)
        r = check_module(l, &l->modules.items[i], w, f);
    if (r < 0)
        return r;
    if (l->modules.count == 0)
        return fault_set(f, -EINVAL, "%s: no LoRA: the file is empty", safetensors_label(l->file));
    return check_once(l, w, f);
}

int lora_file_open(const char *path, const char *label, const struct weights *w,
                   const struct lora_names *names, struct lora_file **ret_file, struct fault *f)
{
    _cleanup_(lora_file_closep) struct lora_file *l = calloc(1, sizeof *l);

    if (!l)
        return fault_set(f, -ENOMEM, "out of memory");
    if (file_is_pickle(path))
        return fault_set(f, -EINVAL, "%s: a pickle: convert to safetensors", label);
    int r = safetensors_open(path, label, &l->file, f);
    if (r >= 0)
        r = read_modules(l, w, names, f);
    if (r < 0)
        return r;
    *ret_file = TAKE_PTR(l);
    return 0;
}

struct lora_file *lora_file_close(struct lora_file *l)
{
    if (!l)
        return NULL;
    for (size_t i = 0; i < l->modules.count; i++)
        free(l->modules.items[i].name);
    array_done(&l->modules);
    (void)safetensors_close(l->file);
    free(l);
    return NULL;
}

size_t lora_file_count(const struct lora_file *l)
{
    return l->modules.count;
}

const struct lora_module *lora_file_module(const struct lora_file *l, size_t index)
{
    return &l->modules.items[index].m;
}

int lora_file_check_owner(const struct lora_file *l, struct fault *f)
{
    return safetensors_check_owner(l->file, f);
}

/* --- numbers ---------------------------------------------------------------------------------- */

int lora_file_read(struct lora_file *l, size_t index, const struct weights *w,
                   struct lora_matrices *ret_matrices, struct fault *f)
{
    _cleanup_(lora_matrices_done) struct lora_matrices m = {0};
    const struct lora_module *module = lora_file_module(l, index);
    struct weight_part p = weights_part(w, module->part);

    m.rank = module->rank;
    m.columns = (uint64_t)p.k * p.taps_h * p.taps_w;
    m.down = malloc(m.rank * m.columns * sizeof *m.down);
    m.up = malloc((size_t)p.n * m.rank * sizeof *m.up);
    if (!m.down || !m.up)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = safetensors_read_floats(l->file, module->down, 0, m.rank * m.columns, m.down, f);
    if (r >= 0)
        r = safetensors_read_floats(l->file, module->up, 0, (size_t)p.n * m.rank, m.up, f);
    if (r < 0)
        return r;
    *ret_matrices = m;
    m = (struct lora_matrices){0};
    return 0;
}

void lora_matrices_done(struct lora_matrices *m)
{
    free(m->down);
    free(m->up);
    *m = (struct lora_matrices){0};
}

/* Both compilers make these the machine's own four floats, at any level of optimisation. */
typedef float four __attribute__((vector_size(16)));

static four load_four(const float *at)
{
    four v;

    memcpy(&v, at, sizeof v);
    return v;
}

/* values += a[0] d[0] + … + a[3] d[3] for `count` columns, of rows `stride` apart. */
static void add_four(const float a[4], const float *d, uint64_t stride, uint64_t count,
                     float *values)
{
    const float *d1 = d + stride, *d2 = d + 2 * stride, *d3 = d + 3 * stride;
    uint64_t k = 0;

    for (; k + 4 <= count; k += 4) {
        four v = load_four(values + k);
        v += a[0] * load_four(d + k) + a[1] * load_four(d1 + k) + a[2] * load_four(d2 + k) +
             a[3] * load_four(d3 + k);
        memcpy(values + k, &v, sizeof v);
    }
    for (; k < count; k++)
        values[k] += a[0] * d[k] + a[1] * d1[k] + a[2] * d2[k] + a[3] * d3[k];
}

/* One row's columns first … first + count - 1. */
static void add_row(const struct lora_matrices *m, float factor, const float *up, uint64_t first,
                    uint64_t count, float *values)
{
    const float *d = m->down + first;
    uint32_t r = 0;

    for (; r + 4 <= m->rank; r += 4) {
        const float a[4] = {factor * up[r], factor * up[r + 1], factor * up[r + 2],
                            factor * up[r + 3]};
        add_four(a, d + r * m->columns, m->columns, count, values);
    }
    for (; r < m->rank; r++)
        for (uint64_t k = 0; k < count; k++)
            values[k] += factor * up[r] * d[r * m->columns + k];
}

/* Columns at a time, so that their part of `down` stays in the cache for all rows. */
#define TILE_COLUMNS 512u

void lora_add(const struct lora_matrices *m, float factor, uint32_t first, uint32_t rows,
              float *values)
{
    for (uint64_t k = 0; k < m->columns; k += TILE_COLUMNS) {
        uint64_t left = m->columns - k, count = left < TILE_COLUMNS ? left : TILE_COLUMNS;
        for (uint32_t i = 0; i < rows; i++)
            add_row(m, factor, m->up + (size_t)(first + i) * m->rank, k, count,
                    values + i * m->columns + k);
    }
}
