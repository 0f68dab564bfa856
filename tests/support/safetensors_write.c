#include "tests/support/safetensors_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/cleanup.h"
#include "vk/base/file.h"

uint64_t safetensors_item_size(const struct safetensors_item *item)
{
    static const struct {
        const char *name;
        uint64_t size;
    } rows[] = {
        {"F16", 2}, {"BF16", 2}, {"F32", 4}, {"F64", 8}, {"BOOL", 1}, {"U8", 1},  {"I8", 1},
        {"U16", 2}, {"I16", 2},  {"U32", 4}, {"I32", 4}, {"U64", 8},  {"I64", 8},
    };
    uint64_t size = 0;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (strcmp(rows[i].name, item->dtype) == 0)
            size = rows[i].size;
    }
    for (uint32_t d = 0; d < item->rank; d++)
        size *= item->dims[d];
    return size;
}

static void print_item(FILE *out, const struct safetensors_item *item, uint64_t offset)
{
    (void)fprintf(out, "\"%s\":{\"dtype\":\"%s\",\"shape\":[", item->name, item->dtype);
    for (uint32_t d = 0; d < item->rank; d++)
        (void)fprintf(out, "%s%" PRIu64, d ? "," : "", item->dims[d]);
    (void)fprintf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset,
                  offset + safetensors_item_size(item));
}

/* malloc'd: 8 bytes of length, then the header. Errors of the stream show when it is closed. */
static int format_header(const struct safetensors_item *items, size_t count, char **ret_text,
                         size_t *ret_size)
{
    char *text = NULL;
    size_t size = 0;
    uint64_t offset = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return -ENOMEM;
    (void)fwrite("\0\0\0\0\0\0\0\0", 1, 8, out);
    (void)fputc('{', out);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            (void)fputc(',', out);
        print_item(out, &items[i], offset);
        offset += safetensors_item_size(&items[i]);
    }
    (void)fputc('}', out);
    for (long at = ftell(out); at % 8 != 0; at++)
        (void)fputc(' ', out);
    if (fclose(out) != 0) {
        free(text);
        return -ENOMEM;
    }
    for (int i = 0; i < 8; i++)
        text[i] = (char)((uint64_t)(size - 8) >> (8 * i));
    *ret_text = text;
    *ret_size = size;
    return 0;
}

int safetensors_write_header(int fd, const struct safetensors_item *items, size_t count,
                             struct fault *f)
{
    _cleanup_(freep) char *text = NULL;
    size_t size = 0;

    int r = format_header(items, count, &text, &size);
    if (r < 0)
        return fault_set(f, r, "safetensors header: out of memory");
    r = file_write_all(fd, text, size);
    return r < 0 ? fault_set(f, r, "safetensors header: %s", strerror(-r)) : 0;
}

int safetensors_write(const char *path, const struct safetensors_item *items, size_t count,
                      struct fault *f)
{
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0)
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    int r = safetensors_write_header(fd, items, count, f);
    for (size_t i = 0; i < count && r >= 0; i++)
        r = file_write_all(fd, items[i].data, safetensors_item_size(&items[i]));
    return r < 0 ? fault_set(f, r, "%s: %s", path, strerror(-r)) : 0;
}
