/* Tensors as f32 on the CPU: what is too small to be worth a kernel, or is computed with before it
 * is packed. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/half.h"
#include "vk/weights/safetensors.h"
#include "vk/weights/weights-private.h"

#define CHUNK_ELEMENTS 65536u

#define AS(type)                                                                                   \
    __extension__({                                                                                \
        type as_;                                                                                  \
        memcpy(&as_, at, sizeof as_);                                                              \
        as_;                                                                                       \
    })

/* One element; NaN for a type that is not taken. */
static float element(enum safetensors_dtype type, const char *at)
{
    switch (type) {
    case SAFETENSORS_F16:
        return half_to_float(AS(uint16_t));
    case SAFETENSORS_BF16:
        return bfloat_to_float(AS(uint16_t));
    case SAFETENSORS_F32:
        return AS(float);
    case SAFETENSORS_F64:
        return (float)AS(double);
    case SAFETENSORS_U8:
        return (float)AS(uint8_t);
    case SAFETENSORS_I8:
        return (float)AS(int8_t);
    case SAFETENSORS_I16:
        return (float)AS(int16_t);
    case SAFETENSORS_I32:
        return (float)AS(int32_t);
    case SAFETENSORS_I64:
        return (float)AS(int64_t);
    default:
        return NAN;
    }
}

static bool is_taken(enum safetensors_dtype type)
{
    const char zero[8] = {0};

    return !isnan(element(type, zero));
}

/* The same, kept apart for the two types that nearly all files are of: these loops run over whole
 * models. */
static void convert(enum safetensors_dtype type, const char *raw, size_t count, float *values)
{
    size_t size = safetensors_dtype_size(type);

    if (type == SAFETENSORS_F32) {
        memcpy(values, raw, count * sizeof *values);
        return;
    }
    for (size_t i = 0; i < count; i++)
        values[i] = element(type, raw + i * size);
}

static int check_finite(const struct safetensors *s, const struct safetensors_tensor *t,
                        const float *values, uint64_t first, size_t count, struct fault *f)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return fault_set(f, -EINVAL, "%s: %.120s: element %" PRIu64 " is %g",
                             safetensors_label(s), t->name, first + i, (double)values[i]);
    return 0;
}

int safetensors_read_floats(struct safetensors *s, const struct safetensors_tensor *t,
                            uint64_t first, size_t count, float *ret_values, struct fault *f)
{
    size_t size = safetensors_dtype_size(t->dtype);
    size_t chunk = count < CHUNK_ELEMENTS ? count : CHUNK_ELEMENTS;
    _cleanup_(freep) char *raw = malloc(chunk * size + 1);
    int r = 0;

    if (!raw)
        return fault_set(f, -ENOMEM, "out of memory");
    if (!is_taken(t->dtype))
        return fault_set(f, -EINVAL, "%s: %.120s: want F16, BF16 or F32, file has %s",
                         safetensors_label(s), t->name, safetensors_dtype_to_string(t->dtype));
    for (size_t done = 0; done < count && r >= 0; done += chunk) {
        size_t n = count - done < chunk ? count - done : chunk;
        r = safetensors_read(s, t, (first + done) * size, raw, n * size, f);
        if (r < 0)
            return r;
        convert(t->dtype, raw, n, ret_values + done);
        r = check_finite(s, t, ret_values + done, first + done, n, f);
    }
    return r;
}

/* --- of a component --------------------------------------------------------------------------- */

static bool is_table(const struct safetensors_tensor *t, const struct weight_table *table)
{
    uint32_t rank = table->columns ? 2 : 1;

    return t->rank == rank && t->dims[0] >= 1 && t->dims[0] <= table->rows_max &&
           (rank == 1 || t->dims[1] == table->columns);
}

static int refuse(const struct safetensors *file, const struct safetensors_tensor *t,
                  const struct weight_table *table, struct fault *f)
{
    char found[SAFETENSORS_SHAPE_TEXT], columns[16] = "";

    if (table->columns)
        (void)snprintf(columns, sizeof columns, ",%u", table->columns);
    return fault_set(f, -EINVAL, "%s: %.100s: want [1…%u%s], file has %.48s",
                     safetensors_label(file), t->name, table->rows_max, columns,
                     safetensors_format_shape(t->dims, t->rank, found));
}

int weights_read_table(struct weights *w, const struct weight_table *table, float **ret_values,
                       uint32_t *ret_rows, struct fault *f)
{
    const struct weight_known known = {.component = table->component, .name = table->name};
    struct found found;

    if (w->components[table->component].count == 0)
        return fault_set(f, -ENOENT, "no weight files were opened");
    if (!weights_find(w, table->component, table->name, &found))
        return fault_set(f, -EINVAL, "%s: tensor \"%.120s\" is missing",
                         w->components[table->component].label, table->name);
    struct safetensors *file = w->files.items[found.file];
    const struct safetensors_tensor *t = found.tensor;
    if (!is_table(t, table))
        return refuse(file, t, table, f);
    size_t count = (size_t)t->dims[0] * (table->columns ? table->columns : 1);
    _cleanup_(freep) float *values = malloc(count * sizeof *values);
    if (!values)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = safetensors_read_floats(file, t, 0, count, values, f);
    if (r >= 0)
        r = weights_know(w, &known, f);
    if (r < 0)
        return r;
    *ret_values = TAKE_PTR(values);
    *ret_rows = (uint32_t)t->dims[0];
    return 0;
}
