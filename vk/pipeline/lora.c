#include "vk/pipeline/lora.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vk/base/array.h"
#include "vk/base/file.h"
#include "vk/pipeline/request.h"
#include "vk/weights/lora_file.h"

#define HALF_END 65520.0f /* what rounds to infinity in half precision */

struct lora_state {
    struct weights *weights;
    struct gpu *gpu;
    struct lora_names *names;
    char *directory, *beside; /* may be NULL */
    bool strict_owner;
    char *applied;     /* identity of what is merged; NULL: nothing */
    uint32_t *touched; /* parts that differ, or may, from the files; ascending */
    size_t touched_count;
    bool is_dirty;   /* a change was not finished: `touched` says where */
    bool is_unsound; /* what the device holds is not what the files say: for good */
    bool has_base;
    uint8_t base[SHA256_SIZE]; /* of the weights without any */
    uint8_t sum[SHA256_SIZE];  /* of the weights as they are, with `applied` */
    uint64_t generation;
};

/* --- files ------------------------------------------------------------------------------------ */

/* The file is not there: is there something else by which the person can be helped? */
static int explain_absence(const struct lora_state *l, const char *name, struct fault *f)
{
    char path[PATH_MAX];
    struct stat st;

    for (size_t i = 0; file_pickles[i]; i++) {
        int n = snprintf(path, sizeof path, "%s/%s%s", l->directory, name, file_pickles[i]);
        if (n < PATH_MAX && stat(path, &st) == 0)
            return fault_set(f, -EINVAL, "lora: %.100s%s: a pickle: convert to safetensors", name,
                             file_pickles[i]);
    }
    const char *ending = file_has_ending(name, ".safetensors") ? "" : ".safetensors";
    return fault_set(f, -ENOENT, "lora: %.80s: no such LoRA (%.80s/%.40s%s)", name, l->directory,
                     name, ending);
}

static bool is_file(const char *path, struct stat *ret_stat)
{
    return stat(path, ret_stat) == 0 && S_ISREG(ret_stat->st_mode);
}

/* Is `name` a path to a file, as seen from `from` ("" or a directory)? */
static bool find_path(const char *from, const char *name, char ret_path[PATH_MAX],
                      struct stat *ret_stat)
{
    static const char *const endings[] = {"", ".safetensors"};
    bool is_beside = *from && name[0] != '/';

    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        int n = snprintf(ret_path, PATH_MAX, "%s%s%s%s", is_beside ? from : "",
                         is_beside ? "/" : "", name, endings[i]);
        if (n < PATH_MAX && is_file(ret_path, ret_stat))
            return true;
    }
    return false;
}

static int locate(const struct lora_state *l, const char *name, char ret_path[PATH_MAX],
                  struct stat *ret_stat, struct fault *f)
{
    const char *ending = file_has_ending(name, ".safetensors") ? "" : ".safetensors";

    if (l->beside &&
        (find_path(l->beside, name, ret_path, ret_stat) || find_path("", name, ret_path, ret_stat)))
        return 0;
    if (l->beside && strchr(name, '/'))
        return fault_set(f, -ENOENT, "lora: %.150s: no such file", name);
    int r = request_check_lora_name(name, f);
    if (r < 0)
        return r;
    if (!l->directory)
        return fault_set(f, -ENOENT, "lora: %.100s: no directory of LoRAs is configured", name);
    r = file_path(ret_path, f, "%s/%s%s", l->directory, name, ending);
    if (r < 0)
        return fault_prefix(f, r, "lora");
    return is_file(ret_path, ret_stat) ? 0 : explain_absence(l, name, f);
}

/* --- a plan: files, and which of their modules change which part ------------------------------ */

struct delta {
    uint32_t part, use;
    size_t module;
};

struct use {
    char path[PATH_MAX];
    struct request_lora entry;
    struct lora_file *file;
};

struct plan {
    const struct lora_state *state;
    struct use *uses; /* count */
    uint32_t count;
    char *identity;                    /* tells this set from every other; NULL for the empty one */
    struct ARRAY(struct delta) deltas; /* by part */
    const atomic_bool *cancel;         /* may be NULL */
    bool *is_changed;                  /* of each part: it may differ from the files */
    /* Of the part that is being packed. */
    size_t first, end; /* its deltas */
    struct lora_matrices matrices[REQUEST_LORAS_MAX];
};

static void drop_matrices(struct plan *p)
{
    for (size_t i = 0; i < REQUEST_LORAS_MAX; i++)
        lora_matrices_done(&p->matrices[i]);
    p->first = p->end = 0;
}

static void plan_done(struct plan *p)
{
    drop_matrices(p);
    for (uint32_t i = 0; i < p->count && p->uses; i++)
        (void)lora_file_close(p->uses[i].file);
    free(p->uses);
    free(p->identity);
    free(p->is_changed);
    array_done(&p->deltas);
}

/* One line a LoRA: which file, as it is now, and how much of it. */
static int identify(struct plan *p, const struct use *use, const struct stat *st, struct fault *f)
{
    char *longer;

    if (asprintf(&longer, "%s%s %ju %ju %jd %jd.%09ld %a\n", p->identity ? p->identity : "",
                 use->path, (uintmax_t)st->st_dev, (uintmax_t)st->st_ino, (intmax_t)st->st_size,
                 (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, use->entry.weight) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    free(p->identity);
    p->identity = longer;
    return 0;
}

/* Names, paths, identity; nothing is opened. */
static int plan_start(struct plan *p, const char *spec, struct fault *f)
{
    _cleanup_(freep) struct request_lora *entries = calloc(REQUEST_LORAS_MAX, sizeof *entries);
    struct stat st;

    if (!entries)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = request_loras(spec, entries, &p->count, f);
    if (r < 0)
        return r;
    p->uses = calloc(p->count + 1, sizeof *p->uses);
    if (!p->uses)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < p->count && r >= 0; i++) {
        p->uses[i].entry = entries[i];
        r = locate(p->state, entries[i].name, p->uses[i].path, &st, f);
        if (r >= 0)
            r = identify(p, &p->uses[i], &st, f);
    }
    return r;
}

static int compare_deltas(const void *a, const void *b)
{
    const struct delta *x = a, *y = b;

    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return x->use < y->use ? -1 : x->use > y->use;
}

static int open_use(struct plan *p, uint32_t index, struct fault *f)
{
    const struct lora_state *l = p->state;
    struct use *use = &p->uses[index];
    char label[128];

    (void)snprintf(label, sizeof label, "lora: %.100s", use->entry.name);
    int r = lora_file_open(use->path, label, l->weights, l->names, &use->file, f);
    if (r >= 0 && l->strict_owner)
        r = lora_file_check_owner(use->file, f);
    if (r < 0)
        return r;
    for (size_t i = 0; i < lora_file_count(use->file); i++) {
        struct delta *d = array_push(&p->deltas);
        if (!d)
            return fault_set(f, -ENOMEM, "out of memory");
        *d = (struct delta){lora_file_module(use->file, i)->part, index, i};
    }
    return 0;
}

static int plan_open(struct plan *p, struct fault *f)
{
    int r = 0;

    for (uint32_t i = 0; i < p->count && r >= 0; i++)
        r = open_use(p, i, f);
    if (r >= 0 && p->deltas.count > 0)
        qsort(p->deltas.items, p->deltas.count, sizeof p->deltas.items[0], compare_deltas);
    p->is_changed = calloc(weights_part_count(p->state->weights) + 1, sizeof *p->is_changed);
    return r >= 0 && !p->is_changed ? fault_set(f, -ENOMEM, "out of memory") : r;
}

/* --- changing the weights --------------------------------------------------------------------- */

/* Finds the part's deltas and reads their matrices; at most one a LoRA. */
static int begin_part(struct plan *p, uint32_t part, struct fault *f)
{
    size_t low = 0, high = p->deltas.count;

    drop_matrices(p);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->deltas.items[middle].part < part)
            low = middle + 1;
        else
            high = middle;
    }
    for (p->first = p->end = low; p->end < p->deltas.count && p->deltas.items[p->end].part == part;
         p->end++) {
        const struct delta *d = &p->deltas.items[p->end];
        int r = lora_file_read(p->uses[d->use].file, d->module, p->state->weights,
                               &p->matrices[p->end - p->first], f);
        if (r < 0)
            return r;
    }
    return 0;
}

static int edit(uint32_t part, uint32_t first, uint32_t rows, float *values, void *userdata,
                struct fault *f)
{
    struct plan *p = userdata;
    struct weight_part w = weights_part(p->state->weights, part);
    uint64_t columns = (uint64_t)w.k * w.taps_h * w.taps_w;

    if (p->cancel && atomic_load(p->cancel))
        return fault_set(f, -ECANCELED, "cancelled");
    p->is_changed[part] = true;
    int r = first == 0 ? begin_part(p, part, f) : 0;
    if (r < 0)
        return r;
    for (size_t i = p->first; i < p->end; i++) {
        const struct delta *d = &p->deltas.items[i];
        const struct use *use = &p->uses[d->use];
        float scale = lora_file_module(use->file, d->module)->scale;
        lora_add(&p->matrices[i - p->first], (float)use->entry.weight * scale, first, rows, values);
    }
    for (uint64_t i = 0; i < rows * columns; i++)
        if (!(fabsf(values[i]) < HALF_END))
            return fault_set(f, -ERANGE, "lora: %.150s becomes %g, beyond half precision", w.name,
                             (double)values[i]);
    return 0;
}

/* The touched parts and the plan's, each once, ascending. malloc'd. */
static uint32_t *all_parts(const struct lora_state *l, const struct plan *p, size_t *ret_count)
{
    uint32_t *parts = calloc(l->touched_count + p->deltas.count + 1, sizeof *parts);
    size_t n = 0, a = 0, b = 0;

    while (parts && (a < l->touched_count || b < p->deltas.count)) {
        uint32_t x = a < l->touched_count ? l->touched[a] : UINT32_MAX;
        uint32_t y = b < p->deltas.count ? p->deltas.items[b].part : UINT32_MAX;
        parts[n] = x < y ? x : y;
        a += x == parts[n];
        while (b < p->deltas.count && p->deltas.items[b].part == parts[n])
            b++;
        n++;
    }
    *ret_count = n;
    return parts;
}

static void set_touched(struct lora_state *l, uint32_t *parts, size_t count)
{
    free(l->touched);
    l->touched = parts;
    l->touched_count = count;
}

/* Puts the files' own numbers back after a change that failed. The first fault stays. */
static int put_back(struct lora_state *l, const struct plan *p, int r, struct fault *f)
{
    struct fault second = {0};
    size_t count = 0;

    for (size_t i = 0; i < l->touched_count; i++)
        if (p->is_changed[l->touched[i]])
            l->touched[count++] = l->touched[i];
    l->touched_count = count;
    free(l->applied);
    l->applied = NULL;
    const struct weights_change change = {.parts = l->touched, .count = count};
    int again = weights_repack(l->weights, l->gpu, &change, &second);
    if (again == -EIO)
        return fault_set(f, again, "%s", second.text); /* the device is lost: nothing else counts */
    if (again < 0) {
        l->is_unsound = true;
        return fault_set(f, -EBADMSG, "lora: the weights cannot be put back: %s", second.text);
    }
    set_touched(l, NULL, 0);
    l->is_dirty = false;
    return r;
}

/* The weights without any must be the old ones. */
static int check_base(struct lora_state *l, struct fault *f)
{
    if (memcmp(l->sum, l->base, sizeof l->base) == 0)
        return 0;
    l->is_unsound = true;
    return fault_set(f, -EBADMSG,
                     "lora: taken out, but the weights are not what they were: the model's files "
                     "were changed, or device memory is not sound");
}

static int take_base(struct lora_state *l, struct fault *f)
{
    int r = l->has_base ? 0 : weights_sum(l->weights, l->gpu, l->base, f);

    l->has_base |= r >= 0;
    return r;
}

/* Parts that the plan changes: what is touched from now on. */
static int keep_touched(struct lora_state *l, const struct plan *p, struct fault *f)
{
    const struct lora_state nothing = {0};
    size_t count;
    uint32_t *parts = all_parts(&nothing, p, &count);

    if (!parts)
        return fault_set(f, -ENOMEM, "out of memory");
    set_touched(l, parts, count);
    return 0;
}

static int change(struct lora_state *l, struct plan *p, struct fault *f)
{
    size_t count;
    uint32_t *parts = all_parts(l, p, &count);

    if (!parts)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < l->touched_count; i++)
        p->is_changed[l->touched[i]] = true;
    set_touched(l, parts, count);
    l->is_dirty = true;
    l->generation++;
    const struct weights_change all = {
        .parts = parts, .count = count, .edit = p->count ? edit : NULL, .userdata = p};
    int r = weights_repack(l->weights, l->gpu, &all, f);
    if (r >= 0)
        r = weights_sum(l->weights, l->gpu, l->sum, f);
    if (r >= 0)
        r = keep_touched(l, p, f);
    if (r < 0)
        return put_back(l, p, r, f);
    l->is_dirty = false;
    free(l->applied);
    l->applied = TAKE_PTR(p->identity);
    return l->applied ? 0 : check_base(l, f);
}

int lora_apply(struct lora_state *l, const char *spec, const atomic_bool *cancel, struct fault *f)
{
    _cleanup_(plan_done) struct plan p = {.state = l, .cancel = cancel};

    if (l->is_unsound)
        return fault_set(f, -EBADMSG, "lora: the weights are not sound since one was taken out");
    int r = plan_start(&p, spec, f);
    if (r < 0)
        return r;
    if (!l->is_dirty && (l->applied == p.identity ||
                         (l->applied && p.identity && strcmp(l->applied, p.identity) == 0)))
        return 0;
    r = plan_open(&p, f);
    if (r >= 0)
        r = take_base(l, f);
    return r < 0 ? r : change(l, &p, f);
}

/* --- its life --------------------------------------------------------------------------------- */

int lora_new(struct weights *w, struct gpu *gpu, const struct lora_options *options,
             struct lora_state **ret_state, struct fault *f)
{
    _cleanup_(lora_freep) struct lora_state *l = calloc(1, sizeof *l);

    if (!l)
        return fault_set(f, -ENOMEM, "out of memory");
    l->weights = w;
    l->gpu = gpu;
    l->strict_owner = options->strict_owner;
    l->directory = options->directory ? strdup(options->directory) : NULL;
    l->beside = options->beside ? strdup(options->beside) : NULL;
    if ((options->directory && !l->directory) || (options->beside && !l->beside))
        return fault_set(f, -ENOMEM, "out of memory");
    int r = lora_names_new(w, &l->names, f);
    if (r < 0)
        return r;
    *ret_state = TAKE_PTR(l);
    return 0;
}

struct lora_state *lora_free(struct lora_state *l)
{
    if (!l)
        return NULL;
    (void)lora_names_free(l->names);
    free(l->directory);
    free(l->beside);
    free(l->applied);
    free(l->touched);
    free(l);
    return NULL;
}

uint64_t lora_id(const struct lora_state *l)
{
    return l->applied || l->is_dirty ? l->generation : 0;
}

const uint8_t *lora_sum(const struct lora_state *l)
{
    return l->applied ? l->sum : NULL;
}
