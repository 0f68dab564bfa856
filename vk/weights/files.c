/* Which files a model's weights are in: one a component, the shards of an index, or one for all. */
#include "vk/weights/weights.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/weights/weights-private.h"

#define INDEX_BYTES_MAX (16u << 20)
#define SHARDS_MAX      256u

/* Where the components lie below a model directory. Source: diffusers' and transformers' save
 * names. */
static const struct {
    const char *directory, *stem;
} components[WEIGHTS_COMPONENT_COUNT] = {
    [WEIGHTS_TEXT_ENCODER] = {"text_encoder", "model"},
    [WEIGHTS_UNET] = {"unet", "diffusion_pytorch_model"},
    [WEIGHTS_VAE] = {"vae", "diffusion_pytorch_model"},
    [WEIGHTS_SAFETY] = {"safety_checker", "model"},
    [WEIGHTS_TAESD] = {"taesd", "diffusion_pytorch_model"},
};

/* --- names ------------------------------------------------------------------------------------ */

/* What else of interest a component's directory holds, when the usual names are not there. */
struct others {
    char variant[256], pickle[256], shard[256];
    uint32_t variants;
};

static int list_others(const char *path, enum weights_component c, struct others *o,
                       struct fault *f)
{
    _cleanup_(closedirp) DIR *directory = opendir(path);
    size_t stem = strlen(components[c].stem);
    const struct dirent *entry;

    if (!directory)
        return fault_set(f, file_error(errno), "%s: %s", components[c].directory, strerror(errno));
    while ((entry = readdir(directory))) {
        const char *name = entry->d_name;
        if (file_is_pickle(name))
            (void)snprintf(o->pickle, sizeof o->pickle, "%s", name);
        if (strncmp(name, components[c].stem, stem) != 0 || !file_has_ending(name, ".safetensors"))
            continue;
        if (strstr(name, "-of-"))
            (void)snprintf(o->shard, sizeof o->shard, "%s", name);
        else if (name[stem] == '.' && o->variants++ == 0)
            (void)snprintf(o->variant, sizeof o->variant, "%s", name);
    }
    return 0;
}

/* No file that could be opened: what would help the person? */
static int explain_absence(const struct others *o, enum weights_component c, struct fault *f)
{
    const char *directory = components[c].directory, *stem = components[c].stem;

    if (o->variants > 1)
        return fault_set(f, -EINVAL, "%s: several variants (%.60s …); keep one, or name it %s",
                         directory, o->variant, stem);
    if (o->shard[0])
        return fault_set(f, -ENOENT, "%s: %.80s, but no %s.safetensors.index.json", directory,
                         o->shard, stem);
    if (o->pickle[0])
        return fault_set(f, -EINVAL, "%s: only pickles (%.100s): convert to safetensors", directory,
                         o->pickle);
    return fault_set(f, -ENOENT, "%s: no %s.fp16.safetensors or %s.safetensors", directory, stem,
                     stem);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Appends directory/name to the files of component c; -ENOENT without a fault when it is absent. */
static int add_file(struct weights *w, const char *model, enum weights_component c,
                    const char *name, struct fault *f)
{
    struct component_files *files = &w->components[c];
    char path[PATH_MAX], label[128];

    (void)snprintf(label, sizeof label, "%s/%.100s", components[c].directory, name);
    int r = file_path(path, f, "%s/%s/%s", model, components[c].directory, name);
    if (r < 0)
        return r;
    if (files->count == 0) {
        files->first = w->files.count;
        (void)snprintf(files->label, sizeof files->label, "%s", label);
    }
    struct safetensors **place = array_push(&w->files);
    if (!place)
        return fault_set(f, -ENOMEM, "out of memory");
    r = safetensors_open(path, label, place, f);
    if (r < 0) {
        w->files.count--;
        return r;
    }
    files->count++;
    return 0;
}

/* The place of an index's file among the component's; it is opened when it is new. */
static int need_shard(struct weights *w, const char *model, enum weights_component c,
                      const char *name, size_t *ret_place, struct fault *f)
{
    const struct component_files *files = &w->components[c];
    char label[128];

    (void)snprintf(label, sizeof label, "%s/%.100s", components[c].directory, name);
    for (size_t i = 0; i < files->count; i++) {
        if (strcmp(safetensors_label(w->files.items[files->first + i]), label) != 0)
            continue;
        *ret_place = files->first + i;
        return 0;
    }
    if (strchr(name, '/') || name[0] == '.' || !file_has_ending(name, ".safetensors"))
        return fault_set(f, -EINVAL, "\"%.80s\" is no file name of a shard", name);
    if (files->count == SHARDS_MAX)
        return fault_set(f, -EINVAL, "more than %u shards", SHARDS_MAX);
    int r = add_file(w, model, c, name, f);
    *ret_place = w->files.count - 1;
    return r;
}

/* Every tensor of weight_map is in the shard it names, and in no other. */
static int open_shards(struct weights *w, const char *model, enum weights_component c,
                       const json_t *map, struct fault *f)
{
    const char *tensor;
    json_t *value;
    size_t place = 0;

    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        const char *name = json_string_value(value);
        int r = name ? need_shard(w, model, c, name, &place, f)
                     : fault_set(f, -EINVAL, "weight_map: %.80s: want a file name", tensor);
        if (r < 0)
            return r;
        if (!safetensors_find(w->files.items[place], tensor))
            return fault_set(f, -EINVAL, "weight_map: %.80s is not in %.80s", tensor, name);
    }
    if (w->components[c].count == 0)
        return fault_set(f, -EINVAL, "weight_map: no tensors");
    return 0;
}

static int check_twice(const struct weights *w, enum weights_component c, struct fault *f)
{
    const struct component_files *files = &w->components[c];

    for (size_t i = 0; i < files->count; i++) {
        const struct safetensors *a = w->files.items[files->first + i];
        for (size_t k = 0; k < safetensors_count(a); k++) {
            const char *name = safetensors_get(a, k)->name;
            for (size_t j = i + 1; j < files->count; j++)
                if (safetensors_find(w->files.items[files->first + j], name))
                    return fault_set(f, -EINVAL, "%s: tensor \"%.80s\" is in %.80s too",
                                     safetensors_label(a), name,
                                     safetensors_label(w->files.items[files->first + j]));
        }
    }
    return 0;
}

static int open_index(struct weights *w, const char *model, enum weights_component c,
                      const char *name, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    char path[PATH_MAX];
    int r = file_path(path, f, "%s/%s/%s", model, components[c].directory, name);

    if (r >= 0)
        r = json_read_object(path, INDEX_BYTES_MAX, &root, f);
    if (r < 0)
        return r;
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map))
        return fault_set(f, -EINVAL, "%s/%s: weight_map: want an object", components[c].directory,
                         name);
    r = open_shards(w, model, c, map, f);
    if (r == -ENOENT && f)
        f->err = -EINVAL; /* the index is there: no reason to look for other files */
    if (r < 0)
        return fault_prefix(f, r == -ENOENT ? -EINVAL : r, "%s/%s", components[c].directory, name);
    (void)snprintf(w->components[c].label, sizeof w->components[c].label, "%s/%.100s",
                   components[c].directory, name);
    return check_twice(w, c, f);
}

static int open_component(struct weights *w, const char *model, enum weights_component c,
                          struct fault *f)
{
    /* Half precision first. The place of the variant's word in an index's name has changed. */
    static const struct {
        const char *ending;
        bool is_index;
    } rows[] = {
        {".fp16.safetensors", false},           {".safetensors.index.fp16.json", true},
        {".fp16.safetensors.index.json", true}, {".safetensors", false},
        {".safetensors.index.json", true},
    };
    struct others others = {0};
    char name[128], path[PATH_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        (void)snprintf(name, sizeof name, "%s%s", components[c].stem, rows[i].ending);
        int r =
            rows[i].is_index ? open_index(w, model, c, name, f) : add_file(w, model, c, name, f);
        if (r != -ENOENT)
            return r;
    }
    int r = file_path(path, f, "%s/%s", model, components[c].directory);
    if (r == 0)
        r = list_others(path, c, &others, f);
    if (r == 0 && others.variants == 1)
        return add_file(w, model, c, others.variant, f);
    return r < 0 ? r : explain_absence(&others, c, f);
}

static int open_single(struct weights *w, const char *path, struct fault *f)
{
    const char *name = strrchr(path, '/') + 1;
    struct safetensors **place = array_push(&w->files);

    w->single = calloc(1, sizeof *w->single);
    if (!place || !w->single)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = safetensors_open(path, name, place, f);
    if (r < 0) {
        w->files.count--;
        return r;
    }
    for (int c = 0; c < WEIGHTS_SAFETY; c++) {
        w->components[c].count = 1;
        (void)snprintf(w->components[c].label, sizeof w->components[c].label, "%s", name);
    }
    return single_describe(*place, w->single, f);
}

static void hash_files(struct weights *w)
{
    uint8_t digest[SHA256_SIZE], size_bytes[8];
    struct sha256 s;

    sha256_init(&s);
    for (size_t i = 0; i < w->files.count; i++) {
        uint64_t size = safetensors_file_size(w->files.items[i]);
        for (unsigned k = 0; k < sizeof size_bytes; k++)
            size_bytes[k] = (uint8_t)(size >> 8 * k);
        size_t header_size;
        const void *header = safetensors_header_bytes(w->files.items[i], &header_size);
        sha256_feed(&s, header, header_size);
        sha256_feed(&s, size_bytes, sizeof size_bytes);
    }
    sha256_finish(&s, digest);
    sha256_format(digest, w->hash);
}

/* Components first … end - 1. */
static int open_components(struct weights *w, const char *model, int first, int end,
                           struct fault *f)
{
    int r = 0;

    for (int c = first; c < end && r >= 0; c++)
        r = open_component(w, model, (enum weights_component)c, f);
    return r;
}

int weights_open(const char *model_directory, struct weights **ret_weights, struct fault *f)
{
    _cleanup_(weights_freep) struct weights *w = calloc(1, sizeof *w);
    _cleanup_(freep) char *path = NULL;

    if (!w)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = model_directory ? single_locate(model_directory, &path, f) : 0;
    if (r > 0)
        r = open_single(w, path, f);
    else if (r == 0 && model_directory)
        r = open_components(w, model_directory, 0, WEIGHTS_SAFETY, f);
    if (r < 0)
        return r;
    if (model_directory)
        hash_files(w);
    *ret_weights = TAKE_PTR(w);
    return 0;
}

static int open_alone(const char *model_directory, enum weights_component c,
                      struct weights **ret_weights, struct fault *f)
{
    _cleanup_(weights_freep) struct weights *w = calloc(1, sizeof *w);

    if (!w)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = open_components(w, model_directory, c, c + 1, f);
    if (r < 0)
        return r;
    hash_files(w);
    *ret_weights = TAKE_PTR(w);
    return 0;
}

int weights_open_safety(const char *model_directory, struct weights **ret_weights, struct fault *f)
{
    return open_alone(model_directory, WEIGHTS_SAFETY, ret_weights, f);
}

int weights_open_taesd(const char *model_directory, struct weights **ret_weights, struct fault *f)
{
    return open_alone(model_directory, WEIGHTS_TAESD, ret_weights, f);
}

int weights_check_owner(const struct weights *w, struct fault *f)
{
    int r = 0;

    for (size_t i = 0; i < w->files.count && r == 0; i++)
        r = safetensors_check_owner(w->files.items[i], f);
    return r;
}

const char *weights_hash(const struct weights *w)
{
    return w->hash;
}

void weights_content(const struct weights *w, uint64_t ret_sums[WEIGHTS_COMPONENT_COUNT])
{
    for (int c = 0; c < WEIGHTS_COMPONENT_COUNT; c++) {
        const struct component_files *files = &w->components[c];
        ret_sums[c] = 0;
        for (size_t i = 0; i < files->count; i++)
            ret_sums[c] = ret_sums[c] * 31 + safetensors_sum(w->files.items[files->first + i]);
    }
}

/* --- looking up ------------------------------------------------------------------------------- */

bool weights_find(const struct weights *w, enum weights_component component, const char *name,
                  struct found *ret_found)
{
    const struct component_files *files = &w->components[component];
    struct single_name single = {.slices = 1};
    struct found found = {.slices = 1};

    if (w->single && component < WEIGHTS_SAFETY) {
        single_translate(w->single, component, name, &single);
        found.slice = single.slice;
        found.slices = single.slices;
        name = single.text;
    }
    for (size_t i = 0; i < files->count && !found.tensor; i++) {
        found.file = files->first + i;
        found.tensor = safetensors_find(w->files.items[found.file], name);
    }
    if (!found.tensor)
        return false;
    *ret_found = found;
    return true;
}
