/* render — the engine without bus: one ticket in, pictures and every tensor on the way out.
 *
 *     build/tests/render MODELDIR TICKET.ini OUTDIR
 *
 * TICKET.ini is a drop ticket ([job] with any request row; image, mask and the names in lora are
 * file names, beside the ticket or as seen from here; a LoRA may also be one of MODELDIR/loras); a
 * section [golden] is ignored. Writes OUTDIR/0.png, 1.png …, what result.json would say of each as
 * 0.json …, previews as 0.preview.STEP.png,
 * and OUTDIR/tensors.safetensors: tokens, text, original (a given picture's latents),
 * noise, latents.000 …, image; those of picture k > 0 with the prefix "k.". Nothing is written
 * unless everything went well.
 * DIFFUSED_DEVICE chooses the device (node, PCI id, index); a CPU device is welcome. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>

#include "daemon/picture.h"
#include "daemon/png.h"
#include "daemon/result-json.h"
#include "tests/support/safetensors_write.h"
#include "vk/base/array.h"
#include "vk/base/file.h"
#include "vk/base/json.h"
#include "vk/engine.h"

#define TICKET_BYTES_MAX (1u << 20)

struct kept_tensor {
    char name[48];
    enum engine_element element;
    uint32_t rank, dims[4];
    void *data;
};

struct made {
    uint8_t *png;
    size_t size;
    json_t *json;
};

struct shown {
    uint32_t picture, step;
    uint8_t *png;
    size_t size;
};

struct output {
    const struct request *request;
    struct engine_info info;
    struct ARRAY(struct kept_tensor) tensors;
    struct ARRAY(struct shown) previews;
    struct made pictures[REQUEST_PICTURES_MAX];
    json_t *warnings;
    struct fault fault; /* of a callback */
};

static size_t element_count(const struct engine_tensor *t)
{
    size_t n = 1;

    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

static void on_tensor(uint32_t picture, const struct engine_tensor *t, void *userdata)
{
    struct output *out = userdata;
    struct kept_tensor *k = array_push(&out->tensors);
    size_t size = element_count(t) * 4;

    if (k)
        k->data = malloc(size);
    if (!k || !k->data) {
        (void)fault_set(&out->fault, -ENOMEM, "out of memory");
        return;
    }
    if (picture)
        (void)snprintf(k->name, sizeof k->name, "%u.%s", picture, t->name);
    else
        (void)snprintf(k->name, sizeof k->name, "%s", t->name);
    k->element = t->element;
    k->rank = t->rank;
    memcpy(k->dims, t->dims, sizeof k->dims);
    memcpy(k->data, t->data, size);
}

static json_t *describe(const struct engine_picture *done, uint32_t count, json_t *warnings)
{
    struct job_picture picture;

    result_picture_from_engine(done, count, &picture);
    _cleanup_(json_freep) json_t *more =
        json_pack("{s:s, s:s, s:O}", "prompt", done->prompt, "negative_prompt",
                  done->negative_prompt, "warnings", warnings);
    json_t *json = result_picture_json(&picture);
    if (json_object_update(json, more) < 0)
        json = json_free(json);
    return json;
}

static int on_picture(const struct engine_picture *done, void *userdata)
{
    struct output *out = userdata;
    struct made *p = &out->pictures[done->index];
    struct png_facts facts = {.prompt = done->prompt,
                              .negative_prompt = done->negative_prompt,
                              .model = out->info.model,
                              .model_hash = out->info.model_hash,
                              .options = out->request,
                              .width = done->width,
                              .height = done->height,
                              .steps = out->request->steps,
                              .guidance_scale = out->request->guidance_scale,
                              .seed = done->seed,
                              .scheduler = (enum scheduler_kind)out->request->scheduler,
                              .is_composite = request_has_image(out->request)};

    p->json = describe(done, out->request->count, out->warnings);
    if (!p->json)
        return fault_set(&out->fault, -ENOMEM, "out of memory");
    return png_encode(done->rgb, done->width, done->height, &facts, PNG_METADATA_FULL, &p->png,
                      &p->size, &out->fault);
}

static void on_preview(uint32_t picture, uint32_t step, const uint8_t *rgb, uint32_t width,
                       uint32_t height, void *userdata)
{
    static const struct png_facts none = {0};
    struct output *out = userdata;
    struct shown *p = array_push(&out->previews);

    if (!p) {
        (void)fault_set(&out->fault, -ENOMEM, "out of memory");
        return;
    }
    *p = (struct shown){.picture = picture, .step = step};
    (void)png_encode(rgb, width, height, &none, PNG_METADATA_NONE, &p->png, &p->size, &out->fault);
}

static void on_warning(const char *text, void *userdata)
{
    struct output *out = userdata;

    (void)json_array_append_new(out->warnings, json_string(text));
    (void)fprintf(stderr, "render: warning: %s\n", text);
}

static int read_ticket(const char *path, struct request *ret_request, struct fault *f)
{
    static const char *const ignored[] = {"golden", NULL};
    _cleanup_(freep) char *text = NULL;
    size_t length = 0;
    int r = file_read(path, TICKET_BYTES_MAX, &text, &length, f);

    if (r < 0)
        return r;
    r = request_parse_ticket(text, length, ignored, ret_request, f);
    return r < 0 ? fault_prefix(f, r, "%s", path) : 0;
}

static int write_tensors(const struct output *out, const char *directory, struct fault *f)
{
    _cleanup_(freep) struct safetensors_item *list = calloc(out->tensors.count, sizeof *list);
    char path[4096];

    if (!list)
        return fault_set(f, -ENOMEM, "out of memory");
    for (size_t i = 0; i < out->tensors.count; i++) {
        const struct kept_tensor *k = &out->tensors.items[i];
        list[i].name = k->name;
        list[i].dtype = k->element == ENGINE_ELEMENT_F32 ? "F32" : "I32";
        list[i].rank = k->rank;
        for (uint32_t d = 0; d < k->rank; d++)
            list[i].dims[d] = k->dims[d];
        list[i].data = k->data;
    }
    (void)snprintf(path, sizeof path, "%s/tensors.safetensors", directory);
    return safetensors_write(path, list, out->tensors.count, f);
}

static int write_json(const json_t *json, const char *path, struct fault *f)
{
    _cleanup_(freep) char *text = json_dumps(json, JSON_INDENT(1) | JSON_PRESERVE_ORDER);

    return text ? file_write_atomic(path, text, strlen(text), f)
                : fault_set(f, -ENOMEM, "out of memory");
}

static int write_previews(const struct output *out, const char *directory, struct fault *f)
{
    char path[4096];
    int r = 0;

    for (size_t i = 0; i < out->previews.count && r >= 0; i++) {
        const struct shown *p = &out->previews.items[i];
        (void)snprintf(path, sizeof path, "%s/%u.preview.%03u.png", directory, p->picture, p->step);
        r = file_write_atomic(path, p->png, p->size, f);
    }
    return r;
}

static int write_all(const struct output *out, const char *directory, struct fault *f)
{
    char path[4096];
    int r = file_make_directories(directory);

    if (r < 0)
        return fault_set(f, r, "%s: %s", directory, strerror(-r));
    for (uint32_t k = 0; k < request_picture_count(out->request) && r >= 0; k++) {
        (void)snprintf(path, sizeof path, "%s/%u.png", directory, k);
        r = file_write_atomic(path, out->pictures[k].png, out->pictures[k].size, f);
        (void)snprintf(path, sizeof path, "%s/%u.json", directory, k);
        if (r >= 0)
            r = write_json(out->pictures[k].json, path, f);
    }
    if (r >= 0)
        r = write_previews(out, directory, f);
    return r < 0 ? r : write_tensors(out, directory, f);
}

/* --- given pictures --------------------------------------------------------------------------- */

struct given {
    struct picture image, mask;
};

static void given_done(struct given *given)
{
    picture_done(&given->image);
    picture_done(&given->mask);
}

/* A name beside the ticket goes before one as seen from here. */
static int read_beside(const char *ticket, const char *name, char **ret_data, size_t *ret_size,
                       struct fault *f)
{
    const char *slash = strrchr(ticket, '/');
    struct fault why = {0};
    char path[4096];

    (void)snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash - ticket) + 1 : 0, ticket,
                   name);
    if (name[0] != '/' && file_read(path, PICTURE_FILE_MAX, ret_data, ret_size, &why) >= 0)
        return 0;
    return file_read(name, PICTURE_FILE_MAX, ret_data, ret_size, f);
}

static int read_picture(const char *what, const char *ticket, const char *name,
                        struct picture *ret_picture, struct fault *f)
{
    _cleanup_(freep) char *data = NULL;
    size_t size = 0;
    int r = read_beside(ticket, name, &data, &size, f);

    return r < 0 ? fault_prefix(f, r, "%s", what)
                 : picture_decode(what, data, size, ret_picture, f);
}

static int read_given(const char *ticket, const struct request *q, struct given *given,
                      struct fault *f)
{
    int r = 0;

    if (request_has_image(q))
        r = read_picture("image", ticket, q->image, &given->image, f);
    if (r >= 0 && request_has_mask(q))
        r = read_picture("mask", ticket, q->mask, &given->mask, f);
    return r;
}

static struct engine_raster raster(const struct picture *p)
{
    return (struct engine_raster){
        .pixels = p->pixels, .width = p->width, .height = p->height, .channels = 3};
}

/* --- the run ---------------------------------------------------------------------------------- */

static int run(struct engine *engine, const struct request *request, const struct given *given,
               struct output *out, struct fault *f)
{
    struct engine_inputs inputs = {.image = raster(&given->image), .mask = raster(&given->mask)};
    static const struct engine_observer observer = {.on_warning = on_warning,
                                                    .on_picture = on_picture,
                                                    .on_preview = on_preview,
                                                    .on_tensor = on_tensor};
    int r;

    out->request = request;
    engine_get_info(engine, &out->info);
    r = engine_run(engine, request, &inputs, &observer, out, f);
    if (r >= 0 && out->fault.err) {
        *f = out->fault;
        r = f->err;
    }
    return r;
}

static int render(const char *model, const char *ticket, const char *directory, struct output *out,
                  struct fault *f)
{
    struct engine_options options = {.device = getenv("DIFFUSED_DEVICE"),
                                     .allow_cpu = ENGINE_ALLOW_CPU_YES};
    _cleanup_(freep) char *folder = strdup(ticket);
    _cleanup_(request_done) struct request request = {0};
    _cleanup_(engine_closep) struct engine *engine = NULL;
    _cleanup_(given_done) struct given given = {0};
    struct request_context context;
    int r = folder ? read_ticket(ticket, &request, f) : fault_set(f, -ENOMEM, "out of memory");

    options.loras_beside = folder ? dirname(folder) : NULL;
    if (r >= 0)
        r = engine_read_context(model, &context, f);
    if (r >= 0)
        r = request_complete(&request, NULL, &context, f);
    if (r >= 0)
        r = request_check(&request, &context, f);
    if (r >= 0)
        r = read_given(ticket, &request, &given, f);
    if (r >= 0)
        r = engine_open(model, &options, &engine, f);
    if (r >= 0)
        r = run(engine, &request, &given, out, f);
    if (r >= 0)
        r = write_all(out, directory, f);
    return r;
}

int main(int argc, char **argv)
{
    struct output out = {.warnings = json_array()};
    struct fault f = {0};

    if (argc != 4) {
        (void)fprintf(stderr, "usage: render MODELDIR TICKET.ini OUTDIR\n");
        return 2;
    }
    int r = render(argv[1], argv[2], argv[3], &out, &f);
    if (r < 0)
        (void)fprintf(stderr, "render: %s\n", f.text[0] ? f.text : strerror(-r));
    for (size_t i = 0; i < out.tensors.count; i++)
        free(out.tensors.items[i].data);
    array_done(&out.tensors);
    for (size_t i = 0; i < out.previews.count; i++)
        free(out.previews.items[i].png);
    array_done(&out.previews);
    for (uint32_t k = 0; k < REQUEST_PICTURES_MAX; k++)
        free(out.pictures[k].png), json_decref(out.pictures[k].json);
    json_decref(out.warnings);
    return r < 0 ? 1 : 0;
}
