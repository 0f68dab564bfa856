/* Declarations against files: every wanted tensor is there in the right shape, every tensor there
 * is known. load.c brings them to the device. */
#include "vk/weights/weights.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "vk/gpu/gpu.h"
#include "vk/weights/weights-private.h"

/* Where the components lie below a model directory. Source: diffusers' and transformers' save
 * names. */
static const struct {
    const char *directory, *stem;
} components[WEIGHTS_COMPONENT_COUNT] = {
    [WEIGHTS_TEXT_ENCODER] = {"text_encoder", "model"},
    [WEIGHTS_UNET] = {"unet", "diffusion_pytorch_model"},
    [WEIGHTS_VAE] = {"vae", "diffusion_pytorch_model"},
    [WEIGHTS_SAFETY] = {"safety_checker", "model"},
};

/* --- files ------------------------------------------------------------------------------------ */

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);

    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* No safetensors: is there something else by which the person can be helped? */
static int explain_absence(const char *path, enum weights_component c, struct fault *f)
{
    static const char *const pickles[] = {".bin", ".ckpt", ".pt", ".pth"};
    _cleanup_(closedirp) DIR *directory = opendir(path);
    const struct dirent *entry;

    if (!directory)
        return fault_set(f, -errno, "%s: %s", components[c].directory, strerror(errno));
    while ((entry = readdir(directory)))
        for (size_t i = 0; i < ARRAY_SIZE(pickles); i++)
            if (has_suffix(entry->d_name, pickles[i]))
                return fault_set(f, -EINVAL, "%s: only pickles (%.100s): convert to safetensors",
                                 components[c].directory, entry->d_name);
    return fault_set(f, -ENOENT, "%s: no %s.fp16.safetensors or %s.safetensors",
                     components[c].directory, components[c].stem, components[c].stem);
}

static int open_component(const char *model, enum weights_component c,
                          struct safetensors **ret_file, struct fault *f)
{
    static const char *const endings[] = {".fp16.safetensors", ".safetensors"};
    char path[PATH_MAX], label[128];

    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        (void)snprintf(label, sizeof label, "%s/%s%s", components[c].directory, components[c].stem,
                       endings[i]);
        if (snprintf(path, sizeof path, "%s/%s", model, label) >= PATH_MAX)
            return fault_set(f, -ENAMETOOLONG, "%.100s…: path too long", model);
        int r = safetensors_open(path, label, ret_file, f);
        if (r != -ENOENT)
            return r;
    }
    (void)snprintf(path, sizeof path, "%s/%s", model, components[c].directory);
    return explain_absence(path, c, f);
}

static void hash_files(struct weights *w)
{
    uint8_t digest[SHA256_SIZE], size_bytes[8];
    struct sha256 s;

    sha256_init(&s);
    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT; c++) {
        if (!w->files[c])
            continue;
        uint64_t size = safetensors_file_size(w->files[c]);
        for (unsigned i = 0; i < sizeof size_bytes; i++)
            size_bytes[i] = (uint8_t)(size >> 8 * i);
        size_t header_size;
        const void *header = safetensors_header_bytes(w->files[c], &header_size);
        sha256_feed(&s, header, header_size);
        sha256_feed(&s, size_bytes, sizeof size_bytes);
    }
    sha256_finish(&s, digest);
    sha256_format(digest, w->hash);
}

/* Components first … end - 1. */
static int open_components(const char *model_directory, int first, int end,
                           struct weights **ret_weights, struct fault *f)
{
    _cleanup_(weights_freep) struct weights *w = calloc(1, sizeof *w);

    if (!w)
        return fault_set(f, -ENOMEM, "out of memory");
    for (int c = first; model_directory && c < end; c++) {
        int r = open_component(model_directory, (enum weights_component)c, &w->files[c], f);
        if (r < 0)
            return r;
    }
    if (model_directory)
        hash_files(w);
    *ret_weights = TAKE_PTR(w);
    return 0;
}

int weights_open(const char *model_directory, struct weights **ret_weights, struct fault *f)
{
    return open_components(model_directory, 0, WEIGHTS_SAFETY, ret_weights, f);
}

int weights_open_safety(const char *model_directory, struct weights **ret_weights, struct fault *f)
{
    return open_components(model_directory, WEIGHTS_SAFETY, WEIGHTS_SAFETY + 1, ret_weights, f);
}

int weights_check_owner(const struct weights *w, struct fault *f)
{
    int r = 0;

    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT && r == 0; c++)
        r = w->files[c] ? safetensors_check_owner(w->files[c], f) : 0;
    return r;
}

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
    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT; c++)
        (void)safetensors_close(w->files[c]);
    array_done(&w->parts);
    array_done(&w->packed);
    array_done(&w->known);
    array_done(&w->buffers);
    free(w);
    return NULL;
}

bool weights_has(const struct weights *w, enum weights_component component, const char *name)
{
    return w->files[component] && safetensors_find(w->files[component], name);
}

const char *weights_hash(const struct weights *w)
{
    return w->hash;
}

void weights_content(const struct weights *w, uint64_t ret_sums[WEIGHTS_COMPONENT_COUNT])
{
    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT; c++)
        ret_sums[c] = w->files[c] ? safetensors_sum(w->files[c]) : 0;
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

static const struct safetensors_tensor *find_either(const struct safetensors *file,
                                                    const char *name, const char *old_name)
{
    const struct safetensors_tensor *t = safetensors_find(file, name);

    return t || !old_name ? t : safetensors_find(file, old_name);
}

static int missing(const struct safetensors *file, const char *name, struct fault *f)
{
    return fault_set(f, -EINVAL, "%s: tensor \"%.120s\" is missing", safetensors_label(file), name);
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
    const struct safetensors *file = w->files[p->want.component];
    uint64_t dims[4];

    if (!file)
        return fault_set(f, -ENOENT, "no weight files were opened");
    p->tensor = find_either(file, p->want.name, p->want.old_name);
    if (!p->tensor)
        return missing(file, p->want.name, f);
    if (!pack_takes(p->tensor->dtype))
        return fault_set(f, -EINVAL, "%s: %.100s: want F16, BF16 or F32, file has %s",
                         safetensors_label(file), p->tensor->name,
                         safetensors_dtype_to_string(p->tensor->dtype));
    uint32_t rank = want_shape(&p->want, dims);
    return check_shape(file, p->tensor, rank, dims, f);
}

static int check_known(const struct weights *w, const struct known *k,
                       const struct safetensors_tensor **ret_tensor, struct fault *f)
{
    const struct safetensors *file = w->files[k->component];
    const struct safetensors_tensor *t = file ? find_either(file, k->name, k->old_name) : NULL;

    if (!file)
        return k->required ? fault_set(f, -ENOENT, "no weight files were opened") : 0;
    if (!t && k->required)
        return missing(file, k->name, f);
    *ret_tensor = t;
    return t && k->shape_checked ? check_shape(file, t, k->rank, k->dims, f) : 0;
}

/* One flag per tensor of each file: seen by a declaration. */
struct seen {
    bool *flags[WEIGHTS_COMPONENT_COUNT];
};

static void seen_done(struct seen *seen)
{
    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT; c++)
        free(seen->flags[c]);
}

static void mark(const struct weights *w, struct seen *seen, enum weights_component c,
                 const struct safetensors_tensor *t)
{
    if (t)
        seen->flags[c][t - safetensors_get(w->files[c], 0)] = true;
}

static int check_unknown(const struct weights *w, const struct seen *seen, struct fault *f)
{
    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT; c++)
        for (size_t i = 0; w->files[c] && i < safetensors_count(w->files[c]); i++)
            if (!seen->flags[c][i])
                return fault_set(f, -EINVAL, "%s: tensor \"%.120s\" is not part of this model",
                                 safetensors_label(w->files[c]),
                                 safetensors_get(w->files[c], i)->name);
    return 0;
}

int weights_check_files(struct weights *w, struct fault *f)
{
    _cleanup_(seen_done) struct seen seen = {0};
    int r = 0;

    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT; c++) {
        if (!w->files[c])
            continue;
        seen.flags[c] = calloc(safetensors_count(w->files[c]) + 1, sizeof(bool));
        if (!seen.flags[c])
            return fault_set(f, -ENOMEM, "out of memory");
    }
    for (size_t i = 0; r == 0 && i < w->parts.count; i++) {
        struct part *p = &w->parts.items[i];
        r = check_part(w, p, f);
        if (r == 0)
            mark(w, &seen, p->want.component, p->tensor);
    }
    for (size_t i = 0; r == 0 && i < w->known.count; i++) {
        const struct safetensors_tensor *t = NULL;
        r = check_known(w, &w->known.items[i], &t, f);
        if (r == 0)
            mark(w, &seen, w->known.items[i].component, t);
    }
    return r < 0 ? r : check_unknown(w, &seen, f);
}
