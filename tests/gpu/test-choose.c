/* Which device is opened, over made-up boards. */
#include "vk/gpu/gpu.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#define DISCRETE                                                                                   \
    {                                                                                              \
        .name = "Arc", .node = "/dev/dri/renderD129", .pci = "0000:03:00.0",                       \
        .type = GPU_TYPE_DISCRETE, .usable = true                                                  \
    }
#define INTEGRATED                                                                                 \
    {                                                                                              \
        .name = "UHD", .node = "/dev/dri/renderD128", .pci = "0000:00:02.0",                       \
        .type = GPU_TYPE_INTEGRATED, .usable = true                                                \
    }
#define VIRTUAL                                                                                    \
    {                                                                                              \
        .name = "Virtio", .type = GPU_TYPE_VIRTUAL, .usable = true                                 \
    }
#define CPU                                                                                        \
    {                                                                                              \
        .name = "llvmpipe", .type = GPU_TYPE_CPU, .usable = true                                   \
    }
#define OLD                                                                                        \
    {                                                                                              \
        .name = "Old", .node = "/dev/dri/renderD130", .pci = "0000:04:00.0",                       \
        .type = GPU_TYPE_DISCRETE, .usable = false                                                 \
    }

static const struct {
    const char *what;
    struct gpu_facts board[4];
    size_t count;
    const char *wanted;
    int allow_cpu;
    int want;         /* index, or -ENODEV */
    const char *says; /* part of the fault */
} rows[] = {
    {"discrete first", {CPU, INTEGRATED, DISCRETE, VIRTUAL}, 4, NULL, -1, 2, NULL},
    {"then integrated", {CPU, VIRTUAL, INTEGRATED}, 3, NULL, -1, 2, NULL},
    {"then virtual", {CPU, VIRTUAL}, 2, NULL, -1, 1, NULL},
    {"then the CPU", {OLD, CPU}, 2, NULL, -1, 1, NULL},
    {"first of equals", {CPU, DISCRETE, DISCRETE}, 3, NULL, -1, 1, NULL},
    {"no CPU where there is a GPU, even if allowed", {CPU, INTEGRATED}, 2, NULL, 1, 1, NULL},
    {"empty means none wanted", {CPU, DISCRETE}, 2, "", -1, 1, NULL},
    {"CPU never", {CPU}, 1, NULL, 0, -ENODEV, "CPU devices are not allowed"},
    {"unusable never", {OLD}, 1, NULL, -1, -ENODEV, "no compute queue"},
    {"nothing at all", {CPU}, 0, NULL, -1, -ENODEV, "mesa-vulkan-drivers"},
    {"nothing at all, but wanted", {CPU}, 0, "0", 1, -ENODEV, "mesa-vulkan-drivers"},
    {"by node", {DISCRETE, INTEGRATED}, 2, "/dev/dri/renderD128", -1, 1, NULL},
    {"by PCI id", {DISCRETE, INTEGRATED}, 2, "0000:00:02.0", -1, 1, NULL},
    {"by index", {DISCRETE, INTEGRATED}, 2, "1", -1, 1, NULL},
    {"CPU by index", {DISCRETE, CPU}, 2, "1", -1, 1, NULL},
    {"CPU by index, forbidden", {DISCRETE, CPU}, 2, "1", 0, -ENODEV, "CPU device"},
    {"index too large", {DISCRETE}, 1, "1", -1, -ENODEV, "no device \"1\"; there is 0: Arc"},
    {"index absurd", {DISCRETE}, 1, "99999999999999999999", -1, -ENODEV, "no device"},
    {"unknown node", {CPU}, 1, "/dev/dri/renderD128", 1, -ENODEV, "renderD128"},
    {"wanted and unusable", {OLD, DISCRETE}, 2, "/dev/dri/renderD130", -1, -ENODEV, "Vulkan 1.1"},
    {"a device without node is not \"\"", {CPU, VIRTUAL}, 2, "x", -1, -ENODEV, "no device \"x\""},
};

static void chooses(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fault f = {0};
        size_t index = 77;
        int r =
            gpu_choose(rows[i].board, rows[i].count, rows[i].wanted, rows[i].allow_cpu, &index, &f);
        if (rows[i].want >= 0 ? r != 0 || index != (size_t)rows[i].want
                              : r != rows[i].want || index != 77)
            fail_msg("%s: %d, device %zu", rows[i].what, r, index);
        if (rows[i].says && !strstr(f.text, rows[i].says))
            fail_msg("%s: says \"%s\"", rows[i].what, f.text);
    }
}

/* Long names and many boards: the message is cut, nothing else happens. */
static void describes_many(void **state)
{
    struct gpu_facts many[64];
    struct fault f = {0};
    size_t index;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
        many[i] = (struct gpu_facts){.type = GPU_TYPE_DISCRETE};
        memset(many[i].name, 'x', sizeof many[i].name - 1);
        memset(many[i].node, 'y', sizeof many[i].node - 1);
    }
    assert_int_equal(gpu_choose(many, ARRAY_SIZE(many), NULL, -1, &index, &f), -ENODEV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chooses),
        cmocka_unit_test(describes_many),
    };
    return cmocka_run_group_tests_name("choose", tests, NULL, NULL);
}
