#include "daemon/devices.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/json.h"

static int get_text(const json_t *one, const char *key, char *to, size_t size, struct fault *f)
{
    const char *text = "";

    int r = json_get_string(one, key, &text, f);
    if (r < 0)
        return r;
    size_t n = strlen(text);
    if (n >= size) { /* D-Bus wants whole characters */
        n = size - 1;
        while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
            n--;
    }
    memcpy(to, text, n);
    to[n] = '\0';
    return 0;
}

static int parse_one(const json_t *one, struct device *d, struct fault *f)
{
    int r;

    if (!json_is_object(one))
        return fault_set(f, -EINVAL, "devices: want objects");
    if ((r = get_text(one, "name", d->name, sizeof d->name, f)) < 0 ||
        (r = get_text(one, "node", d->node, sizeof d->node, f)) < 0 ||
        (r = get_text(one, "driver", d->driver, sizeof d->driver, f)) < 0 ||
        (r = get_text(one, "type", d->type, sizeof d->type, f)) < 0 ||
        (r = json_get_uint(one, "memory", 0, INT64_MAX, &d->memory, f)) < 0)
        return r;
    r = json_get_bool(one, "chosen", &d->chosen, f);
    return r < 0 ? r : 0;
}

static bool is_taken(const struct device_list *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return true;
    return false;
}

/* The first of "NAME", "NAME (2)", … that none before has. */
static void make_unique(struct device_list *list)
{
    for (size_t i = 1; i < list->count; i++) {
        char *name = list->items[i].name, base[sizeof list->items[i].name];
        size_t n = strnlen(name, sizeof base - 16);
        while (n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80)
            n--; /* room for a number, whole characters */
        (void)snprintf(base, sizeof base, "%.*s", (int)n, name);
        for (unsigned number = 2; is_taken(list, i, name); number++)
            (void)snprintf(name, sizeof base, "%.*s (%u)", (int)n, base, number);
    }
}

int devices_parse(const char *text, size_t length, struct device_list *ret_list, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    struct device_list list = {0};

    int r = json_parse(text, length, &root, f);
    if (r < 0)
        return r;
    const json_t *array = json_object_get(root, "devices");
    if (!json_is_array(array) || json_array_size(array) > DEVICES_MAX)
        return fault_set(f, -EINVAL, "devices: want a list of at most %u", DEVICES_MAX);
    for (size_t i = 0; r >= 0 && i < json_array_size(array); i++) {
        struct device *d = array_push(&list);
        r = d ? parse_one(json_array_get(array, i), d, f) : -ENOMEM;
    }
    if (r < 0) {
        array_done(&list);
        return r;
    }
    make_unique(&list);
    *ret_list = list;
    return 0;
}
