/* Weights on the device against the CPU: every layout and type, and what is said about bad
 * models. */
#include "vk/weights/weights.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/device.h"
#include "tests/support/safetensors_write.h"
#include "vk/base/file.h"
#include "vk/base/half.h"
#include "vk/gpu/gpu.h"

/* --- a model directory made up for one test --------------------------------------------------- */

struct model {
    char path[64];
};

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void model_done(struct model *m)
{
    (void)nftw(m->path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const struct safetensors_item filler = {"x", "F32", 1, {1}, (const float[]){1}};

static void model_put(const struct model *m, const char *file, const struct safetensors_item *items,
                      size_t count)
{
    char path[160];
    struct fault f = {0};

    (void)snprintf(path, sizeof path, "%s/%s", m->path, file);
    assert_int_equal(safetensors_write(path, items, count, &f), 0);
}

/* text_encoder and vae hold one tensor "x", the U-Net what is given. */
static struct model model_new(const struct safetensors_item *items, size_t count)
{
    static const char *const folders[] = {"text_encoder", "unet", "vae"};
    struct model m = {"/tmp/test-weights-XXXXXX"};
    char path[160];

    assert_non_null(mkdtemp(m.path));
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", m.path, folders[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    model_put(&m, "text_encoder/model.safetensors", &filler, 1);
    model_put(&m, "vae/diffusion_pytorch_model.fp16.safetensors", &filler, 1);
    if (items)
        model_put(&m, "unet/diffusion_pytorch_model.safetensors", items, count);
    return m;
}

static struct weights *weights_of(const struct model *m)
{
    struct weights *w = NULL;
    struct fault f = {0};
    int r = weights_open(m->path, &w, &f);

    if (r < 0)
        fail_msg("%s", f.text);
    for (int c = 0; c < WEIGHTS_SAFETY; c++)
        if (c != WEIGHTS_UNET)
            assert_int_equal(
                weights_know(
                    w, &(struct weight_known){.component = (enum weights_component)c, .name = "x"},
                    &f),
                0);
    return w;
}

/* --- packing on the CPU, from the words of weights.h ------------------------------------------ */

struct element_type {
    const char *name;
    size_t size;
};
static const struct element_type types[] = {{"F16", 2}, {"BF16", 2}, {"F32", 4}};

static float element(const struct element_type *type, const void *data, size_t index)
{
    uint16_t h;
    float x;

    if (type->size == 4) {
        memcpy(&x, (const char *)data + 4 * index, 4);
        return x;
    }
    memcpy(&h, (const char *)data + 2 * index, 2);
    return type->name[0] == 'F' ? half_to_float(h) : bfloat_to_float(h);
}

/* Bits that meet every case of rounding: subnormals, ties, the largest halves. */
static void fill(const struct element_type *type, uint8_t *data, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t bits = seed ^ seed >> 15;
        /* exponents from 2^-28 to 2^15, and often a tie between two halves */
        uint32_t wide = (bits & 0x80000000u) | (99 + (bits >> 8) % 44) << 23 | (bits & 0x7fffffu);
        if (bits % 5 == 0)
            wide = (wide & ~0x1fffu) | 0x1000u;
        if ((wide & 0x7fffffffu) >= 0x477ff000u)
            wide = (wide & 0x80000000u) | 0x477fefffu; /* 65519.996: the last below infinity */
        uint16_t h = type->name[0] == 'B' ? (uint16_t)(wide >> 16) : (uint16_t)bits;
        if (type->name[0] == 'F' && (h & 0x7c00) == 0x7c00)
            h &= 0xbfff;
        memcpy(data + i * type->size, type->size == 4 ? (void *)&wide : (void *)&h, type->size);
    }
}

static size_t column_of(const struct weight_want *w, uint32_t n)
{
    if (!w->geglu)
        return w->n_offset + layout_position(w->n_layout, n);
    uint32_t half = w->n / 2, o = n % half;
    return o / 32 * 64 + o % 32 / 4 * 8 + o % 4 + (n >= half ? 4 : 0);
}

/* Halves index of (column, tap, padded k): [N/64][tap][K/8][j 8][lane 8] uvec4. */
static size_t gemm_index(size_t column, size_t tap, size_t taps, size_t k, size_t k_padded)
{
    size_t line = (column / 64 * taps + tap) * (k_padded / 8) + k / 8;

    return ((line * 8 + column % 8) * 8 + column % 64 / 8) * 8 + k % 8;
}

static void reference(const struct weight_want *w, const struct element_type *type,
                      const void *data, uint8_t *out)
{
    struct layout k_layout = w->k_layout.count ? w->k_layout : layout_plain(w->k);
    size_t taps = (w->taps_h ? w->taps_h : 1) * (w->taps_w ? w->taps_w : 1);
    size_t k_padded = layout_padded(k_layout);

    for (uint32_t n = 0; n < w->n; n++) {
        for (size_t i = 0; i < w->k * taps; i++) {
            float x = element(type, data, n * w->k * taps + i);
            size_t k = layout_position(k_layout, (uint32_t)(i / taps));
            uint16_t h = half_from_float(x);
            if (w->pack == PACK_VECTOR)
                memcpy(out + 4 * column_of(w, n), &x, 4);
            else if (w->pack == PACK_ROWS)
                memcpy(out + 2 * (n * k_padded + k), &h, 2);
            else
                memcpy(out + 2 * gemm_index(column_of(w, n), i % taps, taps, k, k_padded), &h, 2);
        }
    }
}

/* --- every layout, every type ----------------------------------------------------------------- */

static const struct {
    struct weight_want want;
    uint64_t size; /* bytes expected, by hand */
} rows[] = {
    {{.name = "plain", .pack = PACK_GEMM, .n = 64, .k = 32}, 64 * 32 * 2},
    {{.name = "odd", .pack = PACK_GEMM, .n = 37, .k = 13}, 64 * 16 * 2},
    {{.name = "conv", .pack = PACK_GEMM, .n = 70, .k = 12, .taps_h = 3, .taps_w = 3},
     128 * 9 * 16 * 2},
    {{.name = "tall", .pack = PACK_GEMM, .n = 5, .k = 3, .taps_h = 5, .taps_w = 1}, 64 * 5 * 8 * 2},
    {{.name = "concat",
      .pack = PACK_GEMM,
      .n = 20,
      .k = 23,
      .taps_h = 3,
      .taps_w = 3,
      .k_layout = {.count = 23, .first = 10}},
     64 * 9 * 32 * 2},
    {{.name = "heads in k",
      .pack = PACK_GEMM,
      .n = 9,
      .k = 15,
      .k_layout = {.count = 15, .run = 5}},
     64 * 24 * 2},
    {{.name = "heads in n",
      .pack = PACK_GEMM,
      .n = 33,
      .k = 8,
      .n_layout = {.count = 33, .run = 11}},
     64 * 8 * 2},
    {{.name = "geglu", .pack = PACK_GEMM, .n = 80, .k = 24, .geglu = true}, 128 * 24 * 2},
    {{.name = "geglu odd", .pack = PACK_GEMM, .n = 2 * 37, .k = 7, .geglu = true}, 128 * 8 * 2},
    {{.name = "rows", .pack = PACK_ROWS, .n = 19, .k = 13}, 19 * 16 * 2},
    {{.name = "vector", .pack = PACK_VECTOR, .n = 67, .k = 1}, 128 * 4},
    {{.name = "vector heads", .pack = PACK_VECTOR, .n = 33, .k = 1, .n_layout = {33, 0, 11}},
     64 * 4},
    {{.name = "vector geglu", .pack = PACK_VECTOR, .n = 80, .k = 1, .geglu = true}, 128 * 4},
    /* larger than one staging block of 16 MiB, by rows: 2300 * 2304 * 4 = 20 MiB as F32 */
    {{.name = "large", .pack = PACK_GEMM, .n = 2300, .k = 256, .taps_h = 3, .taps_w = 3},
     2304 * 9 * 256 * 2},
};

static uint64_t elements_of(const struct weight_want *w)
{
    return (uint64_t)w->n * w->k * (w->taps_h ? w->taps_h : 1) * (w->taps_w ? w->taps_w : 1);
}

static struct safetensors_item item_of(const struct weight_want *w, const char *type,
                                       const void *data)
{
    struct safetensors_item item = {.name = w->name, .dtype = type, .rank = 1, .data = data};

    item.dims[0] = w->n;
    if (w->pack != PACK_VECTOR) {
        item.rank = w->taps_h ? 4 : 2;
        item.dims[1] = w->k;
        item.dims[2] = w->taps_h;
        item.dims[3] = w->taps_w;
    }
    return item;
}

static void compare(struct weights *w, uint32_t id, const uint8_t *want, const char *name)
{
    struct weight_place place = weights_place(w, id);
    uint8_t *found = malloc(place.size);
    struct fault f = {0};

    assert_int_equal(place.offset % GPU_OFFSET_ALIGNMENT, 0);
    assert_int_equal(
        gpu_download(gpu, weights_buffer(w, place.buffer), place.offset, found, place.size, &f), 0);
    for (uint64_t i = 0; i < place.size; i++)
        if (found[i] != want[i])
            fail_msg("%s: byte %lu is %02x, want %02x", name, (unsigned long)i, found[i], want[i]);
    free(found);
}

static void packs_one_type(const struct element_type *type)
{
    struct safetensors_item items[ARRAY_SIZE(rows)];
    uint8_t *data[ARRAY_SIZE(rows)];
    uint32_t ids[ARRAY_SIZE(rows)];
    struct fault f = {0};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t count = elements_of(&rows[i].want);
        data[i] = malloc(count * type->size);
        fill(type, data[i], count, (uint32_t)i + 1);
        items[i] = item_of(&rows[i].want, type->name, data[i]);
    }
    struct model m = model_new(items, ARRAY_SIZE(items));
    struct weights *w = weights_of(&m);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct weight_want want = rows[i].want;
        want.component = WEIGHTS_UNET;
        assert_int_equal(weights_want(w, &want, &ids[i], &f), 0);
        assert_int_equal(weights_size(w, ids[i]), rows[i].size);
    }
    if (weights_load(w, gpu, NULL, NULL, &f) < 0)
        fail_msg("%s", f.text);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint8_t *want = calloc(1, rows[i].size);
        reference(&rows[i].want, type, data[i], want);
        compare(w, ids[i], want, rows[i].want.name);
        free(want);
        free(data[i]);
    }
    weights_free(w);
    model_done(&m);
}

static void packs_f16(void **state)
{
    (void)state;
    packs_one_type(&types[0]);
}

static void packs_bf16(void **state)
{
    (void)state;
    packs_one_type(&types[1]);
}

static void packs_f32(void **state)
{
    (void)state;
    packs_one_type(&types[2]);
}

/* q, k and v of different widths side by side; before loading the place is virtual. */
static void packs_parts(void **state)
{
    static const uint32_t widths[] = {16, 24, 40};
    static const char *const names[] = {"q", "k", "v"};
    uint8_t data[3][40 * 9 * 4];
    struct safetensors_item items[3];
    struct weight_want wants[3];
    uint32_t ids[3], offset = 0;
    struct fault f = {0};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        wants[i] = (struct weight_want){.component = WEIGHTS_UNET,
                                        .name = names[i],
                                        .key = "qkv",
                                        .pack = PACK_GEMM,
                                        .n = widths[i],
                                        .k = 9,
                                        .n_offset = offset,
                                        .n_total = 80};
        offset += widths[i];
        fill(&types[2], data[i], widths[i] * 9, (uint32_t)i);
        items[i] = item_of(&wants[i], "F32", data[i]);
    }
    struct model m = model_new(items, 3);
    struct weights *w = weights_of(&m);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(weights_want(w, &wants[i], &ids[i], &f), 0);
    assert_true(ids[0] == ids[1] && ids[1] == ids[2]);
    assert_int_equal(weights_place(w, ids[0]).size, 128 * 16 * 2);
    assert_int_equal(weights_load(w, gpu, NULL, NULL, &f), 0);
    uint8_t *want = calloc(1, 128 * 16 * 2);
    for (size_t i = 0; i < 3; i++)
        reference(&wants[i], &types[2], data[i], want);
    compare(w, ids[0], want, "qkv");
    free(want);
    assert_int_equal(weights_want(w, &wants[1], &ids[1], &f), 0); /* still found */
    struct weight_want late = {.component = WEIGHTS_UNET, .name = "late", .n = 1, .k = 1};
    assert_int_equal(weights_want(w, &late, &ids[1], &f), -ENOENT);
    weights_free(w);
    model_done(&m);
}

/* Data at an odd byte of the file, for every type. */
static void packs_from_odd_offsets(void **state)
{
    static const struct weight_want odd = {
        .component = WEIGHTS_UNET, .name = "odd", .pack = PACK_GEMM, .n = 9, .k = 24};
    const struct weight_known three = {.component = WEIGHTS_UNET, .name = "three"};
    uint8_t data[9 * 24 * 4], want[64 * 24 * 2];
    struct fault f = {0};
    uint32_t id;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        fill(&types[i], data, 9 * 24, (uint32_t)i + 5);
        const struct safetensors_item items[] = {
            {.name = "three", .dtype = "U8", .rank = 1, .dims = {3}, .data = data},
            item_of(&odd, types[i].name, data)};
        struct model m = model_new(items, 2);
        struct weights *w = weights_of(&m);
        assert_int_equal(weights_know(w, &three, &f), 0);
        assert_int_equal(weights_want(w, &odd, &id, &f), 0);
        if (weights_load(w, gpu, NULL, NULL, &f) < 0)
            fail_msg("%s", f.text);
        memset(want, 0, sizeof want);
        reference(&odd, &types[i], data, want);
        compare(w, id, want, types[i].name);
        weights_free(w);
        model_done(&m);
    }
}

/* Slabs are split where the device's limits are narrow, and a weight over a binding is refused. */
static void respects_limits(void **state)
{
    static const float data[64 * 1024];
    const struct safetensors_item items[] = {{"a", "F32", 2, {64, 1024}, data},
                                             {"b", "F32", 2, {64, 1024}, data}};
    const struct caps wide = *gpu_get_caps(gpu);
    struct caps narrow = wide;
    struct fault f = {0};
    uint32_t id;

    (void)state;
    struct model m = model_new(items, 2);
    struct weights *w = weights_of(&m);
    for (size_t i = 0; i < 2; i++) {
        struct weight_want want = {.component = WEIGHTS_UNET,
                                   .name = items[i].name,
                                   .pack = PACK_GEMM,
                                   .n = 64,
                                   .k = 1024};
        assert_int_equal(weights_want(w, &want, &id, &f), 0);
    }
    uint64_t before = gpu_memory_used_for(gpu, GPU_LIFETIME_WEIGHTS);
    narrow.max_binding = 128 * 1024 - 1;
    gpu_narrow_caps(gpu, &narrow);
    assert_int_equal(weights_load(w, gpu, NULL, NULL, &f), -EFBIG);
    assert_int_equal(strncmp(f.text, "a: 131072 bytes", 15), 0);
    assert_int_equal(gpu_memory_used_for(gpu, GPU_LIFETIME_WEIGHTS), before);
    narrow.max_binding = wide.max_binding;
    narrow.max_allocation = 200 * 1024;
    gpu_narrow_caps(gpu, &narrow);
    assert_int_equal(weights_load(w, gpu, NULL, NULL, &f), 0);
    assert_int_equal(weights_buffer_count(w), 2);
    assert_int_equal(weights_load(w, gpu, NULL, NULL, &f), -EALREADY);
    gpu_narrow_caps(gpu, &wide);
    weights_free(w);
    assert_int_equal(gpu_memory_used_for(gpu, GPU_LIFETIME_WEIGHTS), before);
    model_done(&m);
}

/* --- what is said about models that do not fit ------------------------------------------------ */

static const float zeros[4 * 9 * 9];
static const float infinite[4 * 4 * 9] = {[4 * 4 * 9 - 1] = -INFINITY};
static const struct weight_want conv_in = {.component = WEIGHTS_UNET,
                                           .name = "conv_in.weight",
                                           .old_name = "old.weight",
                                           .pack = PACK_GEMM,
                                           .n = 4,
                                           .k = 4,
                                           .taps_h = 3,
                                           .taps_w = 3};

static const struct {
    struct safetensors_item items[2];
    size_t count;
    int err;
    const char *text; /* begins with */
} messages[] = {
    {{{"conv_in.weight", "F32", 4, {4, 4, 3, 3}, zeros}}, 1, 0, ""},
    {{{"old.weight", "F32", 4, {4, 4, 3, 3}, zeros}}, 1, 0, ""},
    {{{"conv_in.weight", "F32", 4, {4, 9, 3, 3}, zeros}},
     1,
     -EINVAL,
     "unet/diffusion_pytorch_model.safetensors: conv_in.weight: want [4,4,3,3], file has "
     "[4,9,3,3]"},
    {{{"conv_in.weight", "F32", 2, {4, 36}, zeros}},
     1,
     -EINVAL,
     "unet/diffusion_pytorch_model.safetensors: conv_in.weight: want [4,4,3,3], file has [4,36]"},
    {{{"other", "F32", 4, {4, 4, 3, 3}, zeros}},
     1,
     -EINVAL,
     "unet/diffusion_pytorch_model.safetensors: tensor \"conv_in.weight\" is missing"},
    {{{"conv_in.weight", "F32", 4, {4, 4, 3, 3}, zeros}, {"lora.up", "F32", 1, {3}, zeros}},
     2,
     -EINVAL,
     "unet/diffusion_pytorch_model.safetensors: tensor \"lora.up\" is not part of this model"},
    {{{"conv_in.weight", "F32", 4, {4, 4, 3, 3}, zeros},
      {"old.weight", "F32", 4, {4, 4, 3, 3}, zeros}},
     2,
     -EINVAL,
     "unet/diffusion_pytorch_model.safetensors: tensor \"old.weight\" is not part of this model"},
    {{{"conv_in.weight", "F32", 4, {4, 4, 3, 3}, infinite}},
     1,
     -EINVAL,
     "unet/diffusion_pytorch_model.safetensors: conv_in.weight: element 143 is -inf; want numbers "
     "below 65520"},
    {{{"conv_in.weight", "I32", 4, {4, 4, 3, 3}, zeros}},
     1,
     -EINVAL,
     "unet/diffusion_pytorch_model.safetensors: conv_in.weight: want F16, BF16 or F32, file has "
     "I32"},
};

static void names_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        struct fault f = {0};
        uint32_t id;
        struct model m = model_new(messages[i].items, messages[i].count);
        struct weights *w = weights_of(&m);
        assert_int_equal(weights_want(w, &conv_in, &id, &f), 0);
        assert_int_equal(weights_load(w, gpu, NULL, NULL, &f), messages[i].err);
        assert_string_equal(f.text, messages[i].text);
        weights_free(w);
        model_done(&m);
    }
}

/* --- shards and variants ---------------------------------------------------------------------- */

static void put_text(const struct model *m, const char *file, const char *text)
{
    char path[160];
    struct fault f = {0};

    (void)snprintf(path, sizeof path, "%s/unet/%s", m->path, file);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &f), 0);
}

#define SHARD(k)      "diffusion_pytorch_model-0000" #k "-of-00002.safetensors"
#define INDEX         "diffusion_pytorch_model.safetensors.index.json"
#define MAP(one, two) "{\"metadata\": {}, \"weight_map\": {\"a\": \"" one "\", \"b\": \"" two "\"}}"

/* Tensor a in the first shard, b in the second, loaded through the index. */
static const struct {
    const char *index; /* NULL: none */
    int err;
    const char *text;
} indices[] = {
    {MAP(SHARD(1), SHARD(2)), 0, ""},
    {NULL, -ENOENT, "unet: " SHARD(2) ", but no " INDEX},
    {MAP(SHARD(1), SHARD(1)), -EINVAL, "unet/" INDEX ": weight_map: b is not in " SHARD(1)},
    {MAP(SHARD(1), SHARD(3)), -EINVAL,
     "unet/" INDEX ": unet/" SHARD(3) ": No such file or directory"},
    {MAP(SHARD(1), "../x.safetensors"), -EINVAL,
     "unet/" INDEX ": \"../x.safetensors\" is no file name of a shard"},
    {MAP(SHARD(1), "b.bin"), -EINVAL, "unet/" INDEX ": \"b.bin\" is no file name of a shard"},
    {"{\"weight_map\": {\"a\": 1}}", -EINVAL, "unet/" INDEX ": weight_map: a: want a file name"},
    {"{\"weight_map\": {}}", -EINVAL, "unet/" INDEX ": weight_map: no tensors"},
    {"{\"weight_map\": []}", -EINVAL, "unet/" INDEX ": weight_map: want an object"},
};

static int load_shards(const struct model *m, struct fault *f)
{
    _cleanup_(weights_freep) struct weights *w = NULL;
    const struct weight_known x[] = {{.component = WEIGHTS_TEXT_ENCODER, .name = "x"},
                                     {.component = WEIGHTS_VAE, .name = "x"}};
    uint32_t ids[2];
    int r = weights_open(m->path, &w, f);

    for (size_t i = 0; i < 2 && r >= 0; i++) {
        struct weight_want want = {
            .component = WEIGHTS_UNET, .name = i ? "b" : "a", .pack = PACK_ROWS, .n = 4, .k = 9};
        r = weights_know(w, &x[i], f);
        if (r >= 0)
            r = weights_want(w, &want, &ids[i], f);
    }
    return r < 0 ? r : weights_load(w, gpu, NULL, NULL, f);
}

static void opens_shards(void **state)
{
    const struct safetensors_item a = {"a", "F32", 2, {4, 9}, zeros};
    const struct safetensors_item b = {"b", "F32", 2, {4, 9}, zeros};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(indices); i++) {
        struct fault f = {0};
        struct model m = model_new(NULL, 0);
        model_put(&m, "unet/" SHARD(1), &a, 1);
        model_put(&m, "unet/" SHARD(2), &b, 1);
        if (indices[i].index)
            put_text(&m, INDEX, indices[i].index);
        int r = load_shards(&m, &f);
        assert_int_equal(r, indices[i].err);
        if (i == 1) /* whichever of the two the directory lists last */
            assert_non_null(strstr(f.text, "-of-00002.safetensors, but no " INDEX));
        else if (r < 0)
            assert_string_equal(f.text, indices[i].text);
        model_done(&m);
    }
}

/* A tensor in both shards; one in none of the index's. */
static void refuses_crossed_shards(void **state)
{
    const struct safetensors_item both[] = {{"a", "F32", 2, {4, 9}, zeros},
                                            {"b", "F32", 2, {4, 9}, zeros}};
    const struct safetensors_item extra[] = {{"b", "F32", 2, {4, 9}, zeros},
                                             {"c", "F32", 2, {4, 9}, zeros}};
    struct model m = model_new(NULL, 0);
    struct fault f = {0};

    (void)state;
    put_text(&m, INDEX, MAP(SHARD(1), SHARD(2)));
    model_put(&m, "unet/" SHARD(1), both, 2);
    model_put(&m, "unet/" SHARD(2), &both[1], 1);
    assert_int_equal(load_shards(&m, &f), -EINVAL);
    assert_string_equal(f.text, "unet/" SHARD(1) ": tensor \"b\" is in unet/" SHARD(2) " too");
    model_put(&m, "unet/" SHARD(1), both, 1);
    model_put(&m, "unet/" SHARD(2), extra, 2);
    assert_int_equal(load_shards(&m, &f), -EINVAL);
    assert_string_equal(f.text, "unet/" SHARD(2) ": tensor \"c\" is not part of this model");
    model_done(&m);
}

/* Half precision before any other; another variant when it is the only one. */
static void chooses_variants(void **state)
{
    static const struct {
        const char *files[3];
        const char *text; /* of the tensor that is in the file not meant to be read */
    } choices[] = {
        {{"diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"}, ""},
        {{"diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.non_ema.safetensors"},
         ""},
        {{"diffusion_pytorch_model.non_ema.safetensors"}, ""},
        {{"diffusion_pytorch_model.bf16.safetensors",
          "diffusion_pytorch_model.non_ema.safetensors"},
         "unet: several variants"},
    };
    const struct safetensors_item good[] = {{"a", "F32", 2, {4, 9}, zeros},
                                            {"b", "F32", 2, {4, 9}, zeros}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(choices); i++) {
        struct model m = model_new(NULL, 0);
        struct fault f = {0};
        char name[128];
        for (size_t k = 0; k < 3 && choices[i].files[k]; k++) {
            (void)snprintf(name, sizeof name, "unet/%s", choices[i].files[k]);
            model_put(&m, name, k == 0 ? good : &filler, k == 0 ? 2 : 1);
        }
        int r = load_shards(&m, &f);
        if (choices[i].text[0] ? strncmp(f.text, choices[i].text, strlen(choices[i].text)) != 0
                               : r < 0)
            fail_msg("%zu: %s", i, f.text);
        model_done(&m);
    }
}

static void touch(const struct model *m, const char *name)
{
    char path[160];

    (void)snprintf(path, sizeof path, "%s/unet/%s", m->path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
}

static void refuses_pickles(void **state)
{
    struct model m = model_new(NULL, 0);
    struct weights *w = NULL;
    struct fault f = {0};

    (void)state;
    assert_int_equal(weights_open(m.path, &w, &f), -ENOENT);
    assert_string_equal(f.text, "unet: no diffusion_pytorch_model.fp16.safetensors or "
                                "diffusion_pytorch_model.safetensors");
    touch(&m, "diffusion_pytorch_model.bin");
    assert_int_equal(weights_open(m.path, &w, &f), -EINVAL);
    assert_string_equal(f.text,
                        "unet: only pickles (diffusion_pytorch_model.bin): convert to safetensors");
    model_done(&m);
}

/* Wanted alike: the same weight. Wanted otherwise: a mistake in a model. Known: never uploaded. */
static void declares(void **state)
{
    struct weight_want want = conv_in;
    struct weights *w = NULL;
    struct fault f = {0};
    uint32_t a = 7, b = 8;

    (void)state;
    assert_int_equal(weights_open(NULL, &w, &f), 0);
    assert_string_equal(weights_hash(w), "");
    assert_int_equal(weights_want(w, &want, &a, &f), 0);
    assert_int_equal(weights_want(w, &want, &b, &f), 0);
    assert_int_equal(a, b);
    want.k = 5;
    assert_int_equal(weights_want(w, &want, &b, &f), -EINVAL);
    want.component = WEIGHTS_VAE; /* a name of its own */
    assert_int_equal(weights_want(w, &want, &b, &f), 0);
    assert_int_not_equal(a, b);
    assert_true(weights_place(w, b).offset >= weights_size(w, a));
    want = (struct weight_want){.name = "p", .n = 64, .k = 8, .n_offset = 32, .n_total = 64};
    assert_int_equal(weights_want(w, &want, &b, &f), -EINVAL);
    assert_int_equal(weights_load(w, gpu, NULL, NULL, &f), -ENOENT);
    weights_free(w);
}

static void knows(void **state)
{
    const struct safetensors_item items[] = {{"used", "F32", 2, {4, 4}, zeros},
                                             {"ids", "I64", 2, {1, 7}, zeros}};
    struct weight_want want = {
        .component = WEIGHTS_UNET, .name = "used", .pack = PACK_ROWS, .n = 4, .k = 4};
    struct weight_known known = {
        .component = WEIGHTS_UNET, .name = "ids", .rank = 2, .dims = {1, 8}};
    struct fault f = {0};
    uint32_t id;

    (void)state;
    struct model m = model_new(items, 2);
    for (int i = 0; i < 3; i++) { /* any shape, the wrong shape, another name that must be there */
        struct weights *w = weights_of(&m);
        known.shape_checked = i == 1;
        assert_int_equal(weights_want(w, &want, &id, &f), 0);
        assert_int_equal(weights_know(w, &known, &f), 0);
        if (i == 2)
            assert_int_equal(weights_know(w,
                                          &(struct weight_known){.component = WEIGHTS_UNET,
                                                                 .name = "absent",
                                                                 .required = true},
                                          &f),
                             0);
        assert_int_equal(weights_load(w, gpu, NULL, NULL, &f), i == 0 ? 0 : -EINVAL);
        assert_int_equal(strlen(weights_hash(w)), 64);
        weights_free(w);
    }
    model_done(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_f16),
        cmocka_unit_test(packs_bf16),
        cmocka_unit_test(packs_f32),
        cmocka_unit_test(packs_from_odd_offsets),
        cmocka_unit_test(packs_parts),
        cmocka_unit_test(respects_limits),
        cmocka_unit_test(names_what_is_wrong),
        cmocka_unit_test(opens_shards),
        cmocka_unit_test(refuses_crossed_shards),
        cmocka_unit_test(chooses_variants),
        cmocka_unit_test(refuses_pickles),
        cmocka_unit_test(declares),
        cmocka_unit_test(knows),
    };
    return cmocka_run_group_tests_name("weights", tests, open_gpu, close_gpu);
}
