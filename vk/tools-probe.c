/* What devices there are, and which one would be opened: `diffused-worker --probe`. */
#include "vk/tools.h"

#include <errno.h>
#include <inttypes.h>

#include "vk/base/cleanup.h"
#include "vk/base/json.h"
#include "vk/gpu/gpu.h"

static const char *const type_names[] = {
    [GPU_TYPE_DISCRETE] = "discrete",
    [GPU_TYPE_INTEGRATED] = "integrated",
    [GPU_TYPE_VIRTUAL] = "virtual",
    [GPU_TYPE_CPU] = "cpu",
};

/* Keys as in Manager.ListDevices. */
static json_t *to_json(const struct gpu_facts *d, size_t index, bool chosen)
{
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b}", "index", (json_int_t)index,
                     "name", d->name, "node", d->node, "pci", d->pci, "driver", d->driver, "type",
                     type_names[d->type], "memory", (json_int_t)d->memory, "usable", d->usable,
                     "chosen", chosen);
}

static int print_json(FILE *out, const struct gpu_facts *facts, size_t count, size_t chosen,
                      struct fault *f)
{
    _cleanup_(json_freep) json_t *root = json_pack("{s:[]}", "devices");
    json_t *list = json_object_get(root, "devices");

    for (size_t i = 0; list && i < count; i++)
        if (json_array_append_new(list, to_json(&facts[i], i, i == chosen)) < 0)
            list = NULL;
    _cleanup_(freep) char *text = list ? json_dumps(root, 0) : NULL;
    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    (void)fprintf(out, "%s\n", text);
    return 0;
}

static void print_text(FILE *out, const struct gpu_facts *facts, size_t count, size_t chosen)
{
    if (count == 0)
        (void)fprintf(out, "no Vulkan devices\n");
    for (size_t i = 0; i < count; i++) {
        const struct gpu_facts *d = &facts[i];
        (void)fprintf(out, "%c %zu  %s\n     %s, %s%s%s%s%s, %.1f GiB%s\n", i == chosen ? '*' : ' ',
                      i, d->name, type_names[d->type], d->driver, d->node[0] ? ", " : "", d->node,
                      d->pci[0] ? ", " : "", d->pci, (double)d->memory / (1 << 30),
                      d->usable ? "" : ", not usable (no compute queue or no Vulkan 1.1)");
    }
}

int tools_probe(FILE *out, bool json, struct fault *f)
{
    _cleanup_(freep) struct gpu_facts *facts = NULL;
    struct fault why = {0};
    size_t count = 0, chosen;

    int r = gpu_list(&facts, &count, &why);
    if (r < 0 && r != -ENODEV) /* no driver at all is an answer, not an error */
        return fault_set(f, r, "%s", why.text);
    if (gpu_choose(facts, count, NULL, -1, &chosen, NULL) < 0)
        chosen = count;
    if (json)
        return print_json(out, facts, count, chosen, f);
    print_text(out, facts, count, chosen);
    return 0;
}
