/* What `diffused-worker --probe --json` printed. What is accepted is fit for D-Bus: names are
 * unique, texts end within their fields and are UTF-8. */
#include <errno.h>
#include <string.h>

#include "daemon/devices.h"
#include "tests/fuzz/fuzz.h"

static void check_text(const char *text, size_t capacity)
{
    size_t length = strnlen(text, capacity);

    fuzz_check(length < capacity);
    fuzz_check(fuzz_is_utf8(text, length));
}

static void check_accepted(const struct device_list *list)
{
    fuzz_check(list->count <= DEVICES_MAX);
    for (size_t i = 0; i < list->count; i++) {
        const struct device *d = &list->items[i];
        check_text(d->name, sizeof d->name);
        check_text(d->node, sizeof d->node);
        check_text(d->driver, sizeof d->driver);
        check_text(d->type, sizeof d->type);
        for (size_t j = 0; j < i; j++)
            fuzz_check(strcmp(d->name, list->items[j].name) != 0);
    }
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-EINVAL, 0};
    struct device_list list = {0};
    struct fault f = {0};

    int r = devices_parse((const char *)data, size, &list, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        fuzz_check(!list.items && list.count == 0);
        return;
    }
    check_accepted(&list);
    array_done(&list);
}

static const char *const words[] = {
    "{\"devices\": [",
    "{\"name\": \"a\"},",
    "{\"name\": \"a (2)\"},",
    "{\"name\": \"a (3)\"},",
    "{},",
    "\"node\": ",
    "\"driver\": ",
    "\"type\": \"gpu\",",
    "\"memory\": 1,",
    "\"chosen\": true",
    "]}",
    "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9",
    NULL};

const struct fuzz_target fuzz_devices = {
    .name = "devices", .max_size = 8192, .run = run, .words = words};
