#include "vk/pipeline/tiny.h"

#include <errno.h>
#include <sys/stat.h>

#include "vk/base/file.h"
#include "vk/base/json.h"

static int read_config(struct tiny *t, const char *directory, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    int r = json_read_config(directory, "taesd/config.json", &root, f);

    if (r < 0)
        return r;
    r = taesd_config_parse(root, &t->config, f);
    return r < 0 ? fault_prefix(f, r, "taesd/config.json") : 0;
}

/* Builds both graphs once, at a small size: that names every tensor. */
static int declare(struct tiny *t, struct fault *f)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct pinned small = {.element = ELEMENT_F16, .n = 1, .h = 8, .w = 8};
    int r = graph_new(t->weights, WEIGHTS_TAESD, GPU_OFFSET_ALIGNMENT, &g);

    if (r < 0)
        return fault_set(f, r, "out of memory");
    small.layout = layout_plain(t->config.latent_channels);
    (void)build_taesd_decoder(g, &t->config, build_given(g, &small), NULL);
    small.h = small.w = 8 * taesd_factor(&t->config);
    small.layout = layout_plain(3);
    (void)build_taesd_encoder(g, &t->config, build_given(g, &small), NULL);
    return graph_fault(g, f);
}

int tiny_open(const char *model_directory, struct tiny **ret_tiny, struct fault *f)
{
    _cleanup_(tiny_freep) struct tiny *t = calloc(1, sizeof *t);
    char path[PATH_MAX];
    struct stat st;

    if (!t)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = file_path(path, f, "%s/taesd", model_directory);
    if (r >= 0 && stat(path, &st) < 0 && errno == ENOENT) {
        *ret_tiny = NULL;
        return 0;
    }
    if (r >= 0)
        r = read_config(t, model_directory, f);
    if (r >= 0)
        r = weights_open_taesd(model_directory, &t->weights, f);
    if (r >= 0)
        r = declare(t, f);
    if (r >= 0)
        r = weights_check_files(t->weights, f);
    if (r < 0)
        return r;
    *ret_tiny = TAKE_PTR(t);
    return 0;
}

int tiny_load(struct tiny *t, struct gpu *gpu, struct fault *f)
{
    return weights_load(t->weights, gpu, NULL, NULL, f);
}

struct tiny *tiny_free(struct tiny *t)
{
    if (!t)
        return NULL;
    (void)weights_free(t->weights);
    free(t);
    return NULL;
}
