/* Declarations against files: every wanted tensor is there in the right shape, every tensor there
 * is known. load.c brings them to the device. */
#include "vk/weights/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vk/gpu/gpu.h"
#include "vk/weights/weights-private.h"

static void part_done(struct part *p)
{
    free((void *)(uintptr_t)p->want.name);
    free((void *)(uintptr_t)p->want.old_name);
    free((void *)(uintptr_t)p->want.key);
}

struct weights *weights_free(struct weights *w)
{
    if (!w)
        return NULL;
    for (size_t i = 0; i < w->parts.count; i++)
        part_done(&w->parts.items[i]);
    for (size_t i = 0; i < w->packed.count; i++)
        free(w->packed.items[i].key);
    for (size_t i = 0; i < w->known.count; i++) {
        free(w->known.items[i].name);
        free(w->known.items[i].old_name);
    }
    for (size_t i = 0; i < w->buffers.count; i++)
        (void)gpu_buffer_free(w->buffers.items[i]);
    (void)gpu_buffer_free(w->sums);
    for (size_t i = 0; i < w->files.count; i++)
        (void)safetensors_close(w->files.items[i]);
    array_done(&w->files);
    free(w->single);
    array_done(&w->parts);
    array_done(&w->packed);
    array_done(&w->known);
    array_done(&w->buffers);
    free(w);
    return NULL;
}

/* --- declarations ----------------------------------------------------------------------------- */

/* FNV-1a. */
static uint32_t hash_name(enum weights_component component, const char *name)
{
    uint32_t h = 2166136261u ^ (uint32_t)component;

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

static bool is_same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_same_layout(struct layout a, struct layout b)
{
    return a.count == b.count && a.first == b.first && a.run == b.run;
}

static bool is_alike(const struct weight_want *a, const struct weight_want *b)
{
    return is_same_text(a->old_name, b->old_name) && is_same_text(a->key, b->key) &&
           a->pack == b->pack && a->n == b->n && a->k == b->k && a->taps_h == b->taps_h &&
           a->taps_w == b->taps_w && is_same_layout(a->n_layout, b->n_layout) &&
           is_same_layout(a->k_layout, b->k_layout) && a->geglu == b->geglu &&
           a->n_offset == b->n_offset && a->n_total == b->n_total && a->file_rank == b->file_rank &&
           memcmp(a->file_dims, b->file_dims, sizeof a->file_dims) == 0;
}

static struct part *find_part(const struct weights *w, enum weights_component component,
                              const char *name, uint32_t hash)
{
    for (size_t i = 0; i < w->parts.count; i++) {
        struct part *p = &w->parts.items[i];
        if (p->hash == hash && p->want.component == component && strcmp(p->want.name, name) == 0)
            return p;
    }
    return NULL;
}

static bool is_sane_layout(struct layout l)
{
    return l.first <= l.count && (l.run == 0 || l.count % l.run == 0) && !(l.first && l.run);
}

/* What no model can mean. */
static int check_want(const struct weight_want *w, struct fault *f)
{
    uint64_t end = w->n_offset + pack_columns(w);

    if (w->n == 0 || w->k == 0 || (w->pack == PACK_VECTOR && w->k != 1))
        return fault_set(f, -EINVAL, "%.150s: %u rows of %u", w->name, w->n, w->k);
    if (!is_sane_layout(w->n_layout) || !is_sane_layout(w->k_layout))
        return fault_set(f, -EINVAL, "%.150s: layout does not fit its channels", w->name);
    if (w->geglu && (w->n % 2 || w->n_offset || w->n_total))
        return fault_set(f, -EINVAL, "%.150s: geglu with an odd width or with parts", w->name);
    if (w->n_total && end > w->n_total)
        return fault_set(f, -EINVAL, "%.150s: part ends at column %" PRIu64 " of %u", w->name, end,
                         w->n_total);
    return 0;
}

/* The weight that parts with this key share, made when it is new. */
static int get_packed(struct weights *w, const struct weight_want *want, uint32_t *ret_index,
                      struct fault *f)
{
    uint32_t hash = hash_name(want->component, want->key);
    uint64_t size = pack_size(want);

    for (size_t i = 0; i < w->packed.count; i++) {
        const struct packed *p = &w->packed.items[i];
        if (p->hash != hash || p->component != want->component || strcmp(p->key, want->key) != 0)
            continue;
        if (p->pack != want->pack || p->size != size)
            return fault_set(f, -EINVAL, "%.150s: differs from the other parts of %.60s",
                             want->name, want->key);
        *ret_index = (uint32_t)i;
        return 0;
    }
    struct packed *p = array_push(&w->packed);
    if (!p)
        return fault_set(f, -ENOMEM, "out of memory");
    p->component = want->component;
    p->hash = hash;
    p->pack = want->pack;
    p->size = size;
    p->key = strdup(want->key);
    if (!p->key) {
        w->packed.count--;
        return fault_set(f, -ENOMEM, "out of memory");
    }
    p->place = (struct weight_place){.offset = w->total, .size = size};
    w->total += (size + 255) / 256 * 256;
    *ret_index = (uint32_t)(w->packed.count - 1);
    return 0;
}

static int add_part(struct weights *w, const struct weight_want *want, uint32_t hash,
                    uint32_t *ret_id, struct fault *f)
{
    uint32_t index = 0;

    int r = check_want(want, f);
    if (r == 0)
        r = get_packed(w, want, &index, f);
    if (r < 0)
        return r;
    struct part *p = array_push(&w->parts);
    if (!p)
        return fault_set(f, -ENOMEM, "out of memory");
    p->want = *want;
    p->want.name = strdup(want->name);
    p->want.key = strdup(want->key);
    p->want.old_name = want->old_name ? strdup(want->old_name) : NULL;
    p->hash = hash;
    p->weight = index;
    if (!p->want.name || !p->want.key || (want->old_name && !p->want.old_name)) {
        part_done(p);
        w->parts.count--;
        return fault_set(f, -ENOMEM, "out of memory");
    }
    *ret_id = index;
    return 0;
}

int weights_want(struct weights *w, const struct weight_want *want, uint32_t *ret_id,
                 struct fault *f)
{
    struct weight_want complete = pack_complete(want);
    uint32_t hash = hash_name(want->component, want->name);
    const struct part *p = find_part(w, want->component, want->name, hash);

    if (!complete.key)
        complete.key = complete.name;
    if (p && !is_alike(&p->want, &complete))
        return fault_set(f, -EINVAL, "%.200s: wanted twice, and differently", want->name);
    if (p) {
        *ret_id = p->weight;
        return 0;
    }
    if (w->is_loaded)
        return fault_set(f, -ENOENT, "%.200s: was not declared before the model was loaded",
                         want->name);
    return add_part(w, &complete, hash, ret_id, f);
}

int weights_know(struct weights *w, const struct weight_known *known, struct fault *f)
{
    for (size_t i = 0; i < w->known.count; i++)
        if (w->known.items[i].component == known->component &&
            strcmp(w->known.items[i].name, known->name) == 0)
            return 0;
    struct known *k = array_push(&w->known);
    if (!k)
        return fault_set(f, -ENOMEM, "out of memory");
    k->component = known->component;
    k->rank = known->rank;
    k->shape_checked = known->shape_checked;
    k->required = known->required;
    for (uint32_t i = 0; i < ARRAY_SIZE(k->dims); i++)
        k->dims[i] = known->dims[i];
    k->name = strdup(known->name);
    k->old_name = known->old_name ? strdup(known->old_name) : NULL;
    if (k->name && (k->old_name || !known->old_name))
        return 0;
    free(k->name);
    free(k->old_name);
    w->known.count--;
    return fault_set(f, -ENOMEM, "out of memory");
}

uint64_t weights_size(const struct weights *w, uint32_t id)
{
    return w->packed.items[id].size;
}

uint64_t weights_total_bytes(const struct weights *w)
{
    return w->total;
}

struct weight_place weights_place(const struct weights *w, uint32_t id)
{
    return w->packed.items[id].place;
}

/* --- declarations against files --------------------------------------------------------------- */

/* Equal, or rank 2 against a shape with two more dimensions of 1. */
static bool is_shape(const struct safetensors_tensor *t, uint32_t rank, const uint64_t *dims)
{
    if (t->rank != rank && !(rank == 2 && t->rank == 4 && t->dims[2] == 1 && t->dims[3] == 1))
        return false;
    return memcmp(t->dims, dims, rank * sizeof dims[0]) == 0;
}

static int check_shape(const struct safetensors *file, const struct safetensors_tensor *t,
                       uint32_t rank, const uint64_t *dims, struct fault *f)
{
    char want[SAFETENSORS_SHAPE_TEXT], found[SAFETENSORS_SHAPE_TEXT];

    if (is_shape(t, rank, dims))
        return 0;
    return fault_set(f, -EINVAL, "%s: %.100s: want %.48s, file has %.48s", safetensors_label(file),
                     t->name, safetensors_format_shape(dims, rank, want),
                     safetensors_format_shape(t->dims, t->rank, found));
}

/* The tensor of a name or of its older one. */
static bool find_either(const struct weights *w, enum weights_component component, const char *name,
                        const char *old_name, struct found *ret)
{
    return weights_find(w, component, name, ret) ||
           (old_name && weights_find(w, component, old_name, ret));
}

static int missing(const struct weights *w, enum weights_component component, const char *name,
                   struct fault *f)
{
    struct single_name single;

    if (w->components[component].count == 0)
        return fault_set(f, -ENOENT, "no weight files were opened");
    if (w->single) {
        single_translate(w->single, component, name, &single);
        name = single.text;
    }
    return fault_set(f, -EINVAL, "%s: tensor \"%.120s\" is missing", w->components[component].label,
                     name);
}

/* The shape of the part's tensor in the file. Returns its rank. */
static uint32_t want_shape(const struct weight_want *w, uint64_t ret_dims[4])
{
    for (uint32_t i = 0; i < w->file_rank; i++)
        ret_dims[i] = w->file_dims[i];
    if (w->file_rank)
        return w->file_rank;
    ret_dims[0] = w->n;
    ret_dims[1] = w->k;
    ret_dims[2] = w->taps_h;
    ret_dims[3] = w->taps_w;
    if (w->pack == PACK_VECTOR)
        return 1;
    return w->taps_h * w->taps_w > 1 ? 4 : 2;
}

static int check_part(struct weights *w, struct part *p, struct fault *f)
{
    struct found found;
    uint64_t dims[4];

    if (!find_either(w, p->want.component, p->want.name, p->want.old_name, &found))
        return missing(w, p->want.component, p->want.name, f);
    p->file = w->files.items[found.file];
    p->tensor = found.tensor;
    p->first_row = (uint64_t)found.slice * p->want.n;
    if (!pack_takes(p->tensor->dtype))
        return fault_set(f, -EINVAL, "%s: %.100s: want F16, BF16 or F32, file has %s",
                         safetensors_label(p->file), p->tensor->name,
                         safetensors_dtype_to_string(p->tensor->dtype));
    uint32_t rank = want_shape(&p->want, dims);
    dims[0] *= found.slices;
    return check_shape(p->file, p->tensor, rank, dims, f);
}

static int check_known(const struct weights *w, const struct known *k,
                       const struct safetensors_tensor **ret_tensor, struct fault *f)
{
    struct found found;
    uint64_t dims[4];

    if (!find_either(w, k->component, k->name, k->old_name, &found))
        return k->required ? missing(w, k->component, k->name, f) : 0;
    *ret_tensor = found.tensor;
    memcpy(dims, k->dims, sizeof dims);
    dims[0] *= found.slices;
    return k->shape_checked
               ? check_shape(w->files.items[found.file], found.tensor, k->rank, dims, f)
               : 0;
}

/* One flag per tensor of each file: seen by a declaration. */
struct seen {
    bool **flags;
    size_t count;
};

static void seen_done(struct seen *seen)
{
    for (size_t i = 0; i < seen->count; i++)
        free(seen->flags[i]);
    free(seen->flags);
}

static int seen_init(const struct weights *w, struct seen *seen, struct fault *f)
{
    seen->flags = calloc(w->files.count + 1, sizeof *seen->flags);
    if (!seen->flags)
        return fault_set(f, -ENOMEM, "out of memory");
    for (; seen->count < w->files.count; seen->count++) {
        size_t n = safetensors_count(w->files.items[seen->count]);
        seen->flags[seen->count] = calloc(n + 1, sizeof(bool));
        if (!seen->flags[seen->count])
            return fault_set(f, -ENOMEM, "out of memory");
    }
    return 0;
}

/* The tensor lies in one of the files: its address says in which. */
static void mark(const struct weights *w, struct seen *seen, const struct safetensors_tensor *t)
{
    for (size_t i = 0; t && i < w->files.count; i++) {
        size_t n = safetensors_count(w->files.items[i]);
        const struct safetensors_tensor *first = n ? safetensors_get(w->files.items[i], 0) : NULL;
        if (n && t >= first && t < first + n)
            seen->flags[i][t - first] = true;
    }
}

static int check_unknown(const struct weights *w, const struct seen *seen, struct fault *f)
{
    for (size_t i = 0; i < w->files.count; i++) {
        const struct safetensors *file = w->files.items[i];
        for (size_t k = 0; k < safetensors_count(file); k++) {
            const char *name = safetensors_get(file, k)->name;
            if (seen->flags[i][k] || (w->single && single_ignores(w->single, name)))
                continue;
            return fault_set(f, -EINVAL, "%s: tensor \"%.120s\" is not part of this model",
                             safetensors_label(file), name);
        }
    }
    return 0;
}

int weights_check_files(struct weights *w, struct fault *f)
{
    _cleanup_(seen_done) struct seen seen = {0};
    int r = seen_init(w, &seen, f);

    for (size_t i = 0; r == 0 && i < w->parts.count; i++) {
        struct part *p = &w->parts.items[i];
        r = check_part(w, p, f);
        if (r == 0)
            mark(w, &seen, p->tensor);
    }
    for (size_t i = 0; r == 0 && i < w->known.count; i++) {
        const struct safetensors_tensor *t = NULL;
        r = check_known(w, &w->known.items[i], &t, f);
        if (r == 0)
            mark(w, &seen, t);
    }
    return r < 0 ? r : check_unknown(w, &seen, f);
}
