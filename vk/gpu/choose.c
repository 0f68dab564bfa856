/* Which device to open: a decision over plain facts, so that boards can be made up in a test. */
#include "vk/gpu/gpu.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_decimal(const char *text)
{
    if (!*text)
        return false;
    for (; *text; text++)
        if (!isdigit((unsigned char)*text))
            return false;
    return true;
}

/* Index of the device called `wanted`, or `count`. */
static size_t find_wanted(const struct gpu_facts *facts, size_t count, const char *wanted)
{
    if (is_decimal(wanted)) {
        unsigned long index = strlen(wanted) < 6 ? strtoul(wanted, NULL, 10) : count;
        return index < count ? index : count;
    }
    for (size_t i = 0; i < count; i++)
        if ((facts[i].node[0] && strcmp(facts[i].node, wanted) == 0) ||
            (facts[i].pci[0] && strcasecmp(facts[i].pci, wanted) == 0))
            return i;
    return count;
}

/* "0: llvmpipe, 1: …" for messages. */
static void describe(const struct gpu_facts *facts, size_t count, char *text, size_t size)
{
    size_t n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < count && n < size; i++) {
        const struct gpu_facts *d = &facts[i];
        n += (size_t)snprintf(text + n, size - n, "%s%zu: %.48s%s%s%s", i ? "; " : "", i, d->name,
                              d->node[0] ? " at " : "", d->node,
                              d->usable ? "" : " (no compute queue or no Vulkan 1.1)");
    }
}

static int choose_wanted(const struct gpu_facts *facts, size_t count, const char *wanted,
                         int allow_cpu, size_t *ret_index, struct fault *f)
{
    char there[160];

    size_t i = find_wanted(facts, count, wanted);
    describe(facts, count, there, sizeof there);
    if (i == count)
        return fault_set(f, -ENODEV, "no device \"%.40s\"; there is %s", wanted, there);
    if (!facts[i].usable)
        return fault_set(f, -ENODEV,
                         "device \"%.40s\" (%.60s) has no compute queue or no Vulkan 1.1", wanted,
                         facts[i].name);
    if (facts[i].type == GPU_TYPE_CPU && allow_cpu == 0)
        return fault_set(f, -ENODEV,
                         "device \"%.40s\" (%.60s) is a CPU device, and those are not allowed",
                         wanted, facts[i].name);
    *ret_index = i;
    return 0;
}

int gpu_choose(const struct gpu_facts *facts, size_t count, const char *wanted, int allow_cpu,
               size_t *ret_index, struct fault *f)
{
    char there[160];
    size_t best = count;

    if (count == 0)
        return fault_set(f, -ENODEV,
                         "no Vulkan device; install a driver for the GPU, or the "
                         "software driver (package mesa-vulkan-drivers)");
    if (wanted && *wanted)
        return choose_wanted(facts, count, wanted, allow_cpu, ret_index, f);
    for (size_t i = 0; i < count; i++) {
        if (!facts[i].usable || (facts[i].type == GPU_TYPE_CPU && allow_cpu == 0))
            continue;
        if (best == count || facts[i].type < facts[best].type)
            best = i;
    }
    if (best < count) {
        *ret_index = best;
        return 0;
    }
    describe(facts, count, there, sizeof there);
    return fault_set(f, -ENODEV, "no usable device%s; there is %s",
                     allow_cpu == 0 ? " (CPU devices are not allowed)" : "", there);
}
