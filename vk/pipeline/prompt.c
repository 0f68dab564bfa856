/* A prompt to the context that the U-Net attends to, and its keys and values. */
#include <errno.h>
#include <string.h>

#include "vk/base/half.h"
#include "vk/pipeline/run.h"

static int encode_prompt(const struct run *run, const char *row, const char *text, int32_t *ret_ids,
                         struct fault *f)
{
    const struct model *m = run->p->model;
    char warning[768];
    size_t length = text ? strlen(text) : 0, dropped = 0;
    int r = clip_bpe_encode(m->tokenizer, text ? text : "", length, m->text.positions, ret_ids,
                            &dropped, f);

    if (r < 0)
        return fault_prefix(f, r, "%s", row);
    if (dropped) {
        (void)snprintf(warning, sizeof warning, "%s: longer than %u tokens; left out: \"%s\"", row,
                       m->text.positions - 2, text + length - dropped);
        run_warn(run, warning);
    }
    return 0;
}

/* Token ids of both prompts (negative first) or of the one, in the layout of the pinned tensor. */
static int upload_ids(const struct run *run, const int32_t *ids, struct fault *f)
{
    const struct pinned *p = &run->session->layout.ids;
    size_t rows = (size_t)p->n * p->h;

    return gpu_upload(run->p->gpu, run->session->arena, p->offset, ids, rows * sizeof *ids, f);
}

/* The context back from the device: f16 rows of padded channels to f32 [R, tokens, C]. */
static int report_text(const struct run *run, struct fault *f)
{
    const struct pinned *p = &run->session->layout.context;
    size_t rows = (size_t)p->n * p->h, c = p->layout.count, padded = layout_padded(p->layout);
    _cleanup_(freep) uint16_t *halves = malloc(rows * padded * sizeof *halves);
    _cleanup_(freep) float *text = malloc(rows * c * sizeof *text);

    if (!halves || !text)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = gpu_download(run->p->gpu, run->session->arena, p->offset, halves,
                         rows * padded * sizeof *halves, f);
    if (r < 0)
        return r;
    for (size_t i = 0; i < rows * c; i++)
        text[i] = half_to_float(halves[i / c * padded + i % c]);
    run_report(run, 0,
               &(struct engine_tensor){.name = "text",
                                       .element = ENGINE_ELEMENT_F32,
                                       .rank = 3,
                                       .dims = {p->n, p->h, (uint32_t)c},
                                       .data = text});
    return 0;
}

int prompt_encode(const struct run *run, uint32_t prompt, struct fault *f)
{
    (void)prompt;

    uint32_t tokens = run->p->model->text.positions;
    uint32_t batch = run->session->layout.shape.batch;
    _cleanup_(freep) int32_t *ids = calloc((size_t)2 * tokens, sizeof *ids);
    int r = 0;

    if (!ids)
        return fault_set(f, -ENOMEM, "out of memory");
    if (batch == 2)
        r = encode_prompt(run, "negative_prompt", run->request->negative_prompt, ids, f);
    if (r >= 0)
        r = encode_prompt(run, "prompt", run->request->prompt, ids + (size_t)(batch - 1) * tokens,
                          f);
    if (r < 0)
        return r;
    run_report(run, 0,
               &(struct engine_tensor){.name = "tokens",
                                       .element = ENGINE_ELEMENT_I32,
                                       .rank = 2,
                                       .dims = {batch, tokens},
                                       .data = ids});
    r = upload_ids(run, ids, f);
    if (r >= 0)
        r = recording_run(run->session->recordings[SESSION_ENCODE], run->cancel, f);
    if (r >= 0 && run->observer->on_tensor)
        r = report_text(run, f);
    return r;
}
