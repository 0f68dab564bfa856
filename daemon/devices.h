/* devices — what `diffused-worker --probe --json` printed, as a list. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/array.h"
#include "vk/base/fault.h"

#define DEVICES_MAX      64u
#define DEVICES_TEXT_MAX (1u << 20) /* bytes of JSON */

struct device {
    char name[128], node[64], driver[128], type[32];
    uint64_t memory; /* bytes */
    bool chosen;
};

struct device_list ARRAY(struct device);

/* {"devices": [{"name", "node", "driver", "type", "memory", "chosen"}, …]}. Names that occur twice
 * get " (2)" and so on: they are dictionary keys on the bus. */
int devices_parse(const char *text, size_t length, struct device_list *ret_list, struct fault *f);
