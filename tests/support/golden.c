#include "tests/support/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/base/json.h"

#define GOLDEN_BYTES_MAX (64u << 20)

struct golden {
    char *data;
    json_t *header;
    struct golden_tensor *tensors;
    size_t count;
};

static int read_tensor(struct golden *g, const char *name, const json_t *entry, size_t base)
{
    struct golden_tensor *t = &g->tensors[g->count];
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *range = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    size_t begin = base + (size_t)json_integer_value(json_array_get(range, 0));

    if (!dtype || (strcmp(dtype, "F32") != 0 && strcmp(dtype, "I32") != 0))
        return -1;
    t->name = name;
    t->element = dtype[0] == 'F' ? GOLDEN_F32 : GOLDEN_I32;
    t->rank = (uint32_t)json_array_size(shape);
    t->count = 1;
    for (uint32_t i = 0; i < t->rank && i < 8; i++) {
        t->dims[i] = (uint32_t)json_integer_value(json_array_get(shape, i));
        t->count *= t->dims[i];
    }
    float *copy = malloc(t->count * 4 + 4); /* the file does not align its tensors */
    if (!copy)
        return -1;
    memcpy(copy, g->data + begin, t->count * 4);
    t->f32 = copy;
    t->i32 = (const int32_t *)copy;
    g->count++;
    return 0;
}

static int read_all(struct golden *g, size_t size)
{
    const char *name;
    json_t *entry;
    uint64_t header = 0;

    if (size < 8)
        return -1;
    memcpy(&header, g->data, 8);
    if (header > size - 8 || json_parse(g->data + 8, header, &g->header, NULL) < 0)
        return -1;
    g->tensors = calloc(json_object_size(g->header) + 1, sizeof *g->tensors);
    if (!g->tensors)
        return -1;
    json_object_foreach(g->header, name, entry)
    {
        if (strcmp(name, "__metadata__") != 0 && read_tensor(g, name, entry, 8 + header) < 0)
            return -1;
    }
    return 0;
}

struct golden *golden_open(const char *path)
{
    struct golden *g = calloc(1, sizeof *g);
    struct fault f = {0};
    size_t size = 0;

    if (!g)
        return NULL;
    if (file_read(path, GOLDEN_BYTES_MAX, &g->data, &size, &f) < 0 || read_all(g, size) < 0) {
        (void)fprintf(stderr, "%s: not a golden file %s\n", path, f.text);
        return golden_free(g);
    }
    return g;
}

struct golden *golden_free(struct golden *g)
{
    if (!g)
        return NULL;
    for (size_t i = 0; i < g->count; i++)
        free((void *)g->tensors[i].f32);
    free(g->tensors);
    json_decref(g->header);
    free(g->data);
    free(g);
    return NULL;
}

const struct golden_tensor *golden_find(const struct golden *g, const char *name)
{
    for (size_t i = 0; i < g->count; i++) {
        if (strcmp(g->tensors[i].name, name) == 0)
            return &g->tensors[i];
    }
    return NULL;
}

size_t golden_count(const struct golden *g)
{
    return g->count;
}

const struct golden_tensor *golden_at(const struct golden *g, size_t i)
{
    return &g->tensors[i];
}

double golden_relative_l2(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;

    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return isnan(difference) ? INFINITY : sqrt(difference / (norm > 0 ? norm : 1));
}

double golden_psnr(const float *a, const float *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    if (isnan(sum))
        return -INFINITY;
    return sum > 0 ? 10 * log10((double)n / sum) : 200;
}
