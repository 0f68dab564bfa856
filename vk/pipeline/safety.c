#include "vk/pipeline/safety.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/graph/plan.h"
#include "vk/graph/record.h"
#include "vk/models/clip_vision.h"
#include "vk/pipeline/clip_image.h"
#include "vk/pipeline/session.h"

struct safety {
    struct gpu *gpu;
    struct safety_options options;
    struct clip_vision_config vision;
    struct clip_image_config image;
    struct safety_concepts special, concepts;
    struct weights *weights;
    struct pinned patches, first;
    uint64_t pinned_end;
    /* Made by make_resident(), gone with safety_release(). */
    struct gpu_buffer *arena;
    struct recording *recording;
    uint64_t embedding_offset; /* in the arena: f32 [projection] */
    uint8_t sum[SHA256_SIZE];  /* of the weights as they were loaded */
    bool is_resident;
};

/* --- the rule --------------------------------------------------------------------------------- */

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* In f32 as the reference has it. 1e-12: torch's normalize(). */
static float cosine(const float *a, const float *b, uint32_t n)
{
    double norms = fmax(sqrt(dot(a, a, n)), 1e-12) * fmax(sqrt(dot(b, b, n)), 1e-12);

    return (float)(dot(a, b, n) / norms);
}

static double round_score(double score)
{
    return rint(score * 1000) / 1000;
}

void safety_score(const struct safety_concepts *special, const struct safety_concepts *concepts,
                  const float *embedding, uint32_t width, struct safety_result *ret_result)
{
    struct safety_result result = {.special_count = special->count,
                                   .concept_count = concepts->count};
    double *score = result.scores, adjustment = 0;

    for (uint32_t i = 0; i < special->count; i++, score++) {
        float cos = cosine(embedding, special->embeds + (size_t)i * width, width);
        *score = round_score((double)cos - (double)special->thresholds[i] + adjustment);
        adjustment = *score > 0 ? 0.01 : adjustment;
    }
    for (uint32_t i = 0; i < concepts->count; i++, score++) {
        float cos = cosine(embedding, concepts->embeds + (size_t)i * width, width);
        *score = round_score((double)cos - (double)concepts->thresholds[i] + adjustment);
        result.is_nsfw |= *score > 0;
    }
    *ret_result = result;
}

/* --- what the directory has ------------------------------------------------------------------- */

/* "safety_checker": [null, null] means none, and so does its absence; ["library", "Class"] means
 * one. */
static bool names_checker(const json_t *index)
{
    const json_t *entry = json_object_get(index, "safety_checker");

    return json_is_array(entry) && json_is_string(json_array_get(entry, 1));
}

int safety_probe(const char *model_directory, bool *ret_has_checker, struct fault *f)
{
    _cleanup_(json_freep) json_t *index = NULL;
    char path[PATH_MAX];
    struct stat st;
    int r = json_read_config(model_directory, "model_index.json", &index, f);

    if (r < 0 && r != -ENOENT)
        return r;
    r = file_path(path, f, "%s/safety_checker", model_directory);
    if (r < 0)
        return r;
    *ret_has_checker = (!index || names_checker(index)) && stat(path, &st) == 0;
    return 0;
}

static int read_vision(struct safety *s, const char *directory, struct fault *f)
{
    static const char file[] = "safety_checker/config.json";
    _cleanup_(json_freep) json_t *root = NULL;
    int r = json_read_config(directory, file, &root, f);

    if (r < 0)
        return r;
    r = clip_vision_config_parse(root, &s->vision, f);
    return r < 0 ? fault_prefix(f, r, "%s", file) : 0;
}

/* Without a file: the values that every Stable Diffusion has. */
static int read_image(struct safety *s, const char *directory, struct fault *f)
{
    static const char file[] = "feature_extractor/preprocessor_config.json";
    _cleanup_(json_freep) json_t *root = NULL;
    int r = json_read_config(directory, file, &root, f);

    if (r < 0 && r != -ENOENT)
        return r;
    r = clip_image_config_parse(root, &s->image, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", file);
    if (s->image.crop_size != s->vision.image_size)
        return fault_set(f, -EINVAL,
                         "%s: crop_size %u, but safety_checker/config.json has image_size %u", file,
                         s->image.crop_size, s->vision.image_size);
    return 0;
}

static int read_concepts(struct safety *s, const char *name, struct safety_concepts *ret,
                         struct fault *f)
{
    char thresholds[64];
    struct weight_table embeds = {.component = WEIGHTS_SAFETY,
                                  .name = name,
                                  .columns = s->vision.projection,
                                  .rows_max = SAFETY_EMBEDS_MAX};
    struct weight_table weights = {
        .component = WEIGHTS_SAFETY, .name = thresholds, .rows_max = SAFETY_EMBEDS_MAX};
    uint32_t rows = 0;

    (void)snprintf(thresholds, sizeof thresholds, "%s_weights", name);
    int r = weights_read_table(s->weights, &embeds, &ret->embeds, &ret->count, f);
    if (r >= 0)
        r = weights_read_table(s->weights, &weights, &ret->thresholds, &rows, f);
    if (r < 0)
        return r;
    if (rows != ret->count)
        return fault_set(f, -EINVAL, "safety_checker: %s has %u rows, %s %u", name, ret->count,
                         thresholds, rows);
    return 0;
}

/* --- the graph -------------------------------------------------------------------------------- */

static void place_inputs(struct safety *s)
{
    struct pinned p = {.element = ELEMENT_F32, .n = 1, .h = clip_vision_tokens(&s->vision), .w = 1};

    s->pinned_end = GPU_OFFSET_ALIGNMENT; /* zeros first: vk/ops/op.h */
    p.layout = layout_plain(clip_vision_patch_values(&s->vision));
    s->patches = pinned_at(&s->pinned_end, &p);
    p.element = ELEMENT_F16;
    p.layout = layout_plain(1);
    s->first = pinned_at(&s->pinned_end, &p);
}

/* Declares the weights, too. */
static int build(const struct safety *s, struct graph **ret_graph, tensor *ret_out, struct fault *f)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = graph_new(s->weights, WEIGHTS_SAFETY, s->pinned_end, &g);

    if (r < 0)
        return fault_set(f, r, "out of memory");
    tensor out =
        build_clip_vision(g, &s->vision, build_pinned(g, &s->patches), build_pinned(g, &s->first));
    r = graph_fault(g, f);
    if (r < 0)
        return r;
    g->tensors.items[out].keep = true; /* read back after the run */
    r = graph_plan(g, f);
    if (r < 0)
        return r;
    *ret_out = out;
    *ret_graph = TAKE_PTR(g);
    return 0;
}

/* --- its life --------------------------------------------------------------------------------- */

static int open_all(struct safety *s, const char *directory, struct fault *f)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    tensor out;
    int r = read_vision(s, directory, f);

    if (r >= 0)
        r = read_image(s, directory, f);
    if (r >= 0)
        r = weights_open_safety(directory, &s->weights, f);
    if (r >= 0)
        r = read_concepts(s, "special_care_embeds", &s->special, f);
    if (r >= 0)
        r = read_concepts(s, "concept_embeds", &s->concepts, f);
    if (r < 0)
        return r;
    if (s->special.count + s->concepts.count > SAFETY_EMBEDS_MAX)
        return fault_set(f, -EINVAL, "safety_checker: %u embeddings, at most %u are possible",
                         s->special.count + s->concepts.count, SAFETY_EMBEDS_MAX);
    place_inputs(s);
    r = build(s, &g, &out, f);
    return r < 0 ? r : weights_check_files(s->weights, f);
}

int safety_open(const char *model_directory, struct gpu *gpu, const struct safety_options *options,
                struct safety **ret_safety, struct fault *f)
{
    _cleanup_(safety_freep) struct safety *s = NULL;
    bool has_checker = false;
    int r = safety_probe(model_directory, &has_checker, f);

    if (r < 0)
        return r;
    if (has_checker) {
        s = calloc(1, sizeof *s);
        if (!s)
            return fault_set(f, -ENOMEM, "out of memory");
        s->gpu = gpu;
        s->options = options ? *options : (struct safety_options){0};
        r = open_all(s, model_directory, f);
    }
    if (r < 0)
        return r;
    *ret_safety = TAKE_PTR(s);
    return 0;
}

static void concepts_done(struct safety_concepts *c)
{
    free(c->embeds);
    free(c->thresholds);
}

struct safety *safety_free(struct safety *s)
{
    if (!s)
        return NULL;
    (void)safety_release(s);
    concepts_done(&s->special);
    concepts_done(&s->concepts);
    (void)weights_free(s->weights);
    free(s);
    return NULL;
}

int safety_check_owner(const struct safety *s, struct fault *f)
{
    return weights_check_owner(s->weights, f);
}

struct weights *safety_weights(struct safety *s)
{
    return s->weights;
}

bool safety_is_resident(const struct safety *s)
{
    return s->is_resident;
}

/* What is there of a half-made one, too. */
bool safety_release(struct safety *s)
{
    bool was_resident = s->is_resident;

    s->recording = recording_free(s->recording);
    s->arena = gpu_buffer_free(s->arena);
    if (s->weights)
        weights_unload(s->weights);
    s->is_resident = false;
    return was_resident;
}

/* The row of ones and zeros that never changes. */
static int upload_first(const struct safety *s, struct fault *f)
{
    const uint16_t one = 0x3c00; /* 1 as binary16 */

    return gpu_upload(s->gpu, s->arena, s->first.offset, &one, sizeof one, f);
}

static int make_resident(struct safety *s, struct fault *f)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    uint64_t chunk = session_chunk_macs(gpu_get_caps(s->gpu));
    tensor out = 0;
    int r = weights_load(s->weights, s->gpu, NULL, NULL, f);

    if (r >= 0)
        r = weights_sum(s->weights, s->gpu, s->sum, f);
    if (r >= 0)
        r = build(s, &g, &out, f);
    if (r >= 0)
        r = gpu_buffer_new(s->gpu, GPU_LIFETIME_ARENA, g->arena_size, &s->arena, f);
    if (r >= 0)
        r = gpu_clear(s->gpu, s->arena, 0, s->pinned_end, f);
    if (r >= 0)
        r = upload_first(s, f);
    if (r >= 0)
        r = graph_record(g, s->gpu, s->arena, chunk, &s->recording, f);
    if (r < 0) {
        (void)safety_release(s);
        return r;
    }
    s->embedding_offset = graph_tensor(g, out)->offset;
    s->is_resident = true;
    return 0;
}

static bool make_room(const struct safety *s)
{
    return s->options.make_room && s->options.make_room(s->options.userdata);
}

/* *ret_is_guest: there was no room for it; it must go after the check. */
static int ensure_resident(struct safety *s, bool *ret_is_guest, struct fault *f)
{
    *ret_is_guest = false;
    if (s->is_resident)
        return 0;
    int r = make_resident(s, f);
    if (r != -ENOMEM || !make_room(s))
        return r;
    *ret_is_guest = true;
    return make_resident(s, f);
}

int safety_verify(struct safety *s, struct fault *f)
{
    uint8_t now[SHA256_SIZE];

    if (!s->is_resident)
        return 0;
    int r = weights_sum(s->weights, s->gpu, now, f);
    if (r < 0 || memcmp(now, s->sum, sizeof now) == 0)
        return r;
    return fault_set(f, -EBADMSG,
                     "the safety checker's weights in device memory changed since they were "
                     "loaded; device memory or driver is not sound");
}

/* --- a check ---------------------------------------------------------------------------------- */

static int upload_picture(const struct safety *s, const struct engine_raster *picture,
                          struct fault *f)
{
    uint32_t side = s->image.crop_size, padded = layout_padded(s->patches.layout);
    size_t rows_size = (size_t)s->patches.h * padded * sizeof(float);
    _cleanup_(freep) float *image = malloc((size_t)3 * side * side * sizeof *image);
    _cleanup_(freep) float *rows = malloc(rows_size);

    if (!image || !rows)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = clip_image_make(&s->image, picture, image, f);
    if (r < 0)
        return r;
    clip_vision_unfold(&s->vision, image, rows);
    return gpu_upload(s->gpu, s->arena, s->patches.offset, rows, rows_size, f);
}

static int read_embedding(const struct safety *s, float **ret_embedding, struct fault *f)
{
    size_t size = s->vision.projection * sizeof(float);
    _cleanup_(freep) float *embedding = malloc(size);

    if (!embedding)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = gpu_download(s->gpu, s->arena, s->embedding_offset, embedding, size, f);
    for (uint32_t i = 0; i < s->vision.projection && r >= 0; i++)
        if (!isfinite(embedding[i]))
            return fault_set(f, -EBADMSG, "its result holds %g", (double)embedding[i]);
    if (r < 0)
        return r;
    *ret_embedding = TAKE_PTR(embedding);
    return 0;
}

static int check_resident(const struct safety *s, const struct engine_raster *picture,
                          const atomic_bool *cancel, struct safety_result *ret_result,
                          struct fault *f)
{
    _cleanup_(freep) float *embedding = NULL;
    int r = upload_picture(s, picture, f);

    if (r >= 0)
        r = recording_run(s->recording, cancel, f);
    if (r >= 0)
        r = read_embedding(s, &embedding, f);
    if (r < 0)
        return r;
    safety_score(&s->special, &s->concepts, embedding, s->vision.projection, ret_result);
    return 0;
}

int safety_check(struct safety *s, const struct engine_raster *picture, const atomic_bool *cancel,
                 struct safety_result *ret_result, struct fault *f)
{
    bool is_guest;
    int r = ensure_resident(s, &is_guest, f);

    if (r >= 0)
        r = check_resident(s, picture, cancel, ret_result, f);
    if (is_guest)
        (void)safety_release(s);
    return r;
}
