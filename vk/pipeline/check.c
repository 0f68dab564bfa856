#include "vk/pipeline/check.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/pipeline/lora.h"

#define ANSWER_LIMIT 4096u /* bytes of the file */
#define LATENT_SIDE  4u    /* of the picture; four levels end at one pixel */

static const struct {
    const char *name, *what;
} parts[CHECK_PART_COUNT] = {
    [CHECK_WEIGHTS] = {"weights", "the weights in device memory"},
    [CHECK_TEXT] = {"text", "the text encoder's result"},
    [CHECK_LATENTS] = {"latents", "the U-Net's latents"},
    [CHECK_IMAGE] = {"image", "the decoder's picture"},
};

/* What one run gathers. */
struct gathering {
    struct sha256 sums[CHECK_PART_COUNT];
    char trouble[96];
};

static int wrong(struct fault *f, const char *why)
{
    return fault_set(f, -EBADMSG, "known-answer picture: %s; device memory or driver is not sound",
                     why);
}

/* --- drawing ---------------------------------------------------------------------------------- */

/* Notes values that no sound device computes: none that is no number, and not `width` values
 * repeated over and over. */
static void inspect(struct gathering *g, enum check_part part, const float *values, size_t count,
                    size_t width)
{
    bool is_constant = true;

    for (size_t i = 0; i < count && !g->trouble[0]; i++) {
        if (!isfinite(values[i]))
            (void)snprintf(g->trouble, sizeof g->trouble, "%s holds %g", parts[part].what,
                           (double)values[i]);
        is_constant &= values[i] == values[i % width];
    }
    if (is_constant && !g->trouble[0])
        (void)snprintf(g->trouble, sizeof g->trouble, "%s is the same everywhere: %g",
                       parts[part].what, (double)values[0]);
}

static void gather(struct gathering *g, enum check_part part, const float *values, size_t count,
                   size_t width)
{
    inspect(g, part, values, count, width);
    sha256_feed(&g->sums[part], values, count * sizeof *values);
}

static void on_tensor(uint32_t picture, const struct engine_tensor *t, void *userdata)
{
    size_t count = 1;

    (void)picture;
    for (uint32_t i = 0; i < t->rank; i++)
        count *= t->dims[i];
    if (strcmp(t->name, "text") == 0)
        gather(userdata, CHECK_TEXT, t->data, count, t->dims[t->rank - 1]);
    else if (strncmp(t->name, "latents.", 8) == 0)
        gather(userdata, CHECK_LATENTS, t->data, count, 1);
}

/* The decoder's own values: in the picture they are clipped, which hides a NaN. */
static int gather_image(const struct check *c, struct gathering *g, struct fault *f)
{
    const struct session *s = c->pipeline.session;
    size_t pixels = s->image_size / (8 * sizeof(float));
    _cleanup_(freep) float *image = malloc(s->image_size);

    if (!image)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = gpu_download(c->pipeline.gpu, s->arena, s->image_offset, image, s->image_size, f);
    if (r < 0)
        return r;
    for (size_t i = 0; i < pixels; i++) /* three of eight channels are the picture */
        memmove(image + 3 * i, image + 8 * i, 3 * sizeof *image);
    gather(g, CHECK_IMAGE, image, 3 * pixels, 3);
    return 0;
}

/* A model made for inpainting is given a picture to draw into: four colours, one half anew. */
static void give_pictures(struct request *request, struct engine_inputs *inputs)
{
    static const uint8_t image[] = {200, 40, 40, 40, 160, 60, 50, 70, 190, 230, 220, 90};
    static const uint8_t mask[] = {255, 0, 255, 0};
    static char image_name[] = "image", mask_name[] = "mask";

    request->image = image_name;
    request->mask = mask_name;
    request->strength = 1;
    inputs->image = (struct engine_raster){image, 2, 2, 3};
    inputs->mask = (struct engine_raster){mask, 2, 2, 1};
}

/* Without guidance: the unconditional half would read the same weights. Euler begins at the largest
 * noise, so that every bit of the U-Net's result counts. */
static int draw(struct check *c, struct gathering *g, struct fault *f)
{
    static const struct engine_observer observer = {.on_tensor = on_tensor};
    char prompt[] = "a red apple on a table";
    uint32_t side = LATENT_SIDE * vae_factor(&c->pipeline.model->vae);
    struct engine_inputs inputs = {0};
    struct request request = {.prompt = prompt,
                              .width = side,
                              .height = side,
                              .steps = 1,
                              .guidance_scale = 1,
                              .seed = 1,
                              .count = 1,
                              .scheduler = SCHEDULER_EULER};
    if (c->pipeline.model->is_inpainting)
        give_pictures(&request, &inputs);
    int r = pipeline_run(&c->pipeline, &request, &inputs, &observer, g, NULL, f);

    if (r >= 0)
        r = session_check(c->pipeline.session, c->pipeline.gpu, f);
    if (r >= 0)
        r = gather_image(c, g, f);
    if (r < 0)
        return fault_prefix(f, r, "known-answer picture");
    return g->trouble[0] ? wrong(f, g->trouble) : 0;
}

/* --- comparing -------------------------------------------------------------------------------- */

static void finish(struct sha256 *s, char ret_text[SHA256_HEX_SIZE])
{
    uint8_t digest[SHA256_SIZE];

    sha256_finish(s, digest);
    sha256_format(digest, ret_text);
}

static int changed(enum check_part part, struct fault *f)
{
    char why[96];

    (void)snprintf(why, sizeof why, "%s changed since the start", parts[part].what);
    return wrong(f, why);
}

/* Weights that are gone need no picture to prove it. `want`: their sum; NULL: not known yet. */
static int answer_now(struct check *c, const char *want, struct check_answer *ret_answer,
                      struct fault *f)
{
    struct gathering g = {0};
    uint8_t weights[SHA256_SIZE];
    int r = weights_sum(c->pipeline.weights, c->pipeline.gpu, weights, f);

    if (r < 0)
        return fault_prefix(f, r, "known-answer picture");
    sha256_format(weights, ret_answer->digest[CHECK_WEIGHTS]);
    if (want && strcmp(ret_answer->digest[CHECK_WEIGHTS], want) != 0)
        return changed(CHECK_WEIGHTS, f);
    for (int i = CHECK_TEXT; i < CHECK_PART_COUNT; i++)
        sha256_init(&g.sums[i]);
    r = draw(c, &g, f);
    for (int i = CHECK_TEXT; i < CHECK_PART_COUNT; i++)
        finish(&g.sums[i], ret_answer->digest[i]);
    return r;
}

/* CHECK_PART_COUNT when all are alike. */
static enum check_part first_difference(const struct check_answer *a, const struct check_answer *b)
{
    int part = 0;

    while (part < CHECK_PART_COUNT && strcmp(a->digest[part], b->digest[part]) == 0)
        part++;
    return (enum check_part)part;
}

char *check_format(const char *key, const struct check_answer *answer)
{
    char sum[SHA256_HEX_SIZE], *body = NULL, *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&body, &size);

    if (!out)
        return NULL;
    (void)fprintf(out, "diffused answer 1\nkey %s\n", key);
    for (int i = 0; i < CHECK_PART_COUNT; i++)
        (void)fprintf(out, "%s %s\n", parts[i].name, answer->digest[i]);
    if (fclose(out) == 0) {
        sha256_hex(body, size, sum);
        if (asprintf(&text, "%ssum %s\n", body, sum) < 0)
            text = NULL;
    }
    free(body);
    return text;
}

bool check_parse(const char *text, const char *key, struct check_answer *ret_answer)
{
    struct check_answer answer = {0};
    const char *line = text;

    for (int i = 0; i < CHECK_PART_COUNT; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "\n%s ", parts[i].name);
        line = strstr(line, name);
        if (!line || strlen(line) < strlen(name) + SHA256_HEX_SIZE)
            return false;
        line += strlen(name);
        memcpy(answer.digest[i], line, SHA256_HEX_SIZE - 1);
    }
    _cleanup_(freep) char *want = check_format(key, &answer); /* key, sum, and nothing else */
    if (!want || strcmp(want, text) != 0)
        return false;
    *ret_answer = answer;
    return true;
}

/* Against the answer of an earlier process, which is left alone when it differs. */
static int compare_kept(const struct check *c, const struct check_answer *answer, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;
    struct check_answer kept;
    size_t size;

    if (!c->path || file_read(c->path, ANSWER_LIMIT, &text, &size, NULL) < 0 ||
        strlen(text) != size || !check_parse(text, c->key, &kept)) {
        _cleanup_(freep) char *fresh = c->path ? check_format(c->key, answer) : NULL;
        if (fresh) /* an answer that cannot be kept costs a comparison at the next start */
            (void)file_write_atomic(c->path, fresh, strlen(fresh), NULL);
        return 0;
    }
    enum check_part part = first_difference(answer, &kept);
    return part == CHECK_PART_COUNT
               ? 0
               : fault_set(f, -EBADMSG,
                           "known-answer picture: %s is not what it was at an earlier start "
                           "(%.100s); device or driver is not sound",
                           parts[part].what, c->path);
}

/* With LoRAs merged: `sum` is of the weights as they were then. */
static int check_merged(struct check *c, const uint8_t *sum, struct fault *f)
{
    uint64_t id = lora_id(c->lora);
    struct check_answer answer = {0};
    char want[SHA256_HEX_SIZE];

    sha256_format(sum, want);
    int r = answer_now(c, want, &answer, f);
    if (r < 0)
        return r;
    if (c->merged_id != id) {
        c->merged_id = id;
        c->merged = answer;
        return 0;
    }
    enum check_part part = first_difference(&answer, &c->merged);
    return part == CHECK_PART_COUNT ? 0 : changed(part, f);
}

int check_run(struct check *c, struct fault *f)
{
    const uint8_t *merged = c->lora ? lora_sum(c->lora) : NULL;
    struct check_answer answer = {0};

    if (merged)
        return check_merged(c, merged, f);
    int r = answer_now(c, c->has_answer ? c->answer.digest[CHECK_WEIGHTS] : NULL, &answer, f);
    if (r < 0)
        return r;
    if (!c->has_answer) {
        r = compare_kept(c, &answer, f);
        c->has_answer = r == 0;
        c->answer = answer;
        return r;
    }
    enum check_part part = first_difference(&answer, &c->answer);
    return part == CHECK_PART_COUNT ? 0 : changed(part, f);
}

/* --- its life --------------------------------------------------------------------------------- */

static void feed_text(struct sha256 *s, const char *text)
{
    sha256_feed(s, text, strlen(text) + 1);
}

static void make_key(struct check *c)
{
    uint64_t content[WEIGHTS_COMPONENT_COUNT];
    uint8_t identity[SHA256_SIZE];
    struct sha256 s;

    weights_content(c->pipeline.weights, content);
    gpu_identity(c->pipeline.gpu, identity);
    sha256_init(&s);
    sha256_feed(&s, identity, sizeof identity);
    feed_text(&s, weights_hash(c->pipeline.weights));
    sha256_feed(&s, content, sizeof content);
    finish(&s, c->key);
}

/* One file for a model on a board: a new driver takes it over. */
static int make_path(struct check *c, const char *cache, struct fault *f)
{
    const struct gpu_facts *facts = gpu_get_facts(c->pipeline.gpu);
    char name[SHA256_HEX_SIZE];
    struct sha256 s;

    sha256_init(&s);
    feed_text(&s, facts->name);
    feed_text(&s, facts->pci);
    feed_text(&s, weights_hash(c->pipeline.weights));
    finish(&s, name);
    if (asprintf(&c->path, "%s/answer-%.16s.txt", cache, name) >= 0)
        return 0;
    c->path = NULL;
    return fault_set(f, -ENOMEM, "out of memory");
}

int check_init(struct check *c, const struct pipeline *like, const char *cache, struct fault *f)
{
    *c = (struct check){.pipeline = *like, .lora = like->lora};
    c->pipeline.session = NULL;
    c->pipeline.lora = NULL;     /* the check draws with the weights as they are */
    c->pipeline.contexts = NULL; /* the text encoder must run */
    make_key(c);
    return cache && *cache ? make_path(c, cache, f) : 0;
}

void check_done(struct check *c)
{
    pipeline_done(&c->pipeline);
    free(c->path);
    c->path = NULL;
}
