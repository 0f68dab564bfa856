/* engine — the picture engine's only public face.
 *
 * One engine owns one device and one model. engine_run() makes the pictures of one request, in
 * order, on the calling thread; only engine_cancel() may be called from another thread or a signal
 * handler. Everything reported to the observer is valid during the call only. No logging, no D-Bus,
 * no spool. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/pipeline/request.h"

struct engine;

enum engine_allow_cpu {
    ENGINE_ALLOW_CPU_AUTO, /* a CPU device only if nothing else exists */
    ENGINE_ALLOW_CPU_YES,
    ENGINE_ALLOW_CPU_NO,
};

struct engine_options {
    const char *device; /* render node path, PCI id (0000:01:00.0), index, or NULL: the best one */
    enum engine_allow_cpu allow_cpu;
    const char *cache; /* directory of the pipeline cache, or NULL: none */
    /* Refuse (-EPERM) weight files that others than root and this user may write; without it they
     * are told to on_warning (may be NULL). */
    bool strict_owner;
    /* Where the LoRAs of the request's row `lora` are, NAME.safetensors each; NULL: loras/ in the
     * model's directory. */
    const char *loras;
    /* That row may also name files, as seen from this directory or from here; NULL: it may not. */
    const char *loras_beside;
    void (*on_warning)(const char *text, void *userdata);
    /* While opening, whenever something got done: a block of weights was loaded, or, with fraction
     * 1, a pipeline compiled. May be NULL. */
    void (*on_load)(double fraction, void *userdata);
    void *userdata;
};

/* Facts about an open engine; strings live as long as it. */
struct engine_info {
    const char *device, *device_node, *driver; /* names for people; node may be "" */
    bool is_cpu;
    const char *model;                  /* the directory's base name */
    const char *model_hash;             /* SHA-256 over the weight files' headers and sizes, hex */
    uint64_t memory_used, memory_total; /* device bytes: ours, and the heap's */
    struct request_context context;
};

enum engine_element {
    ENGINE_ELEMENT_F32,
    ENGINE_ELEMENT_I32,
};

/* A tensor on its way, for goldens and debugging: C order, `rank` dimensions. */
struct engine_tensor {
    const char
        *name; /* "tokens", "text", "noise", "latents.000", …, "image": tests/tools/render.c */
    enum engine_element element;
    uint32_t rank, dims[4];
    const void *data;
};

/* A decoded picture of any size, 8 bit, rows without padding. */
struct engine_raster {
    const uint8_t *pixels; /* NULL: none */
    uint32_t width, height;
    uint32_t channels; /* 3: RGB, 1: gray */
};

/* What the request's rows `image` and `mask` stand for; the engine brings them to size. */
struct engine_inputs {
    struct engine_raster image, mask;
};

#define ENGINE_SCORES_MAX 32u

/* A finished picture. */
struct engine_picture {
    uint32_t index;     /* 0…request_picture_count()-1 */
    const uint8_t *rgb; /* 8 bit, width * height * 3 bytes, rows without padding */
    uint32_t width, height;
    uint64_t seed; /* the request's + index, also where all draw in turn from the first one's */
    const char *prompt, *negative_prompt; /* of this picture; never NULL */
    bool is_checked;                      /* by the safety checker: then the members below count */
    bool is_nsfw, is_blackened;
    uint32_t score_count;             /* 20: 3 of special care, then 17 concepts */
    double scores[ENGINE_SCORES_MAX]; /* rounded to 3 digits; over 0 is a hit */
};

struct engine_step {
    uint32_t picture;     /* 0…request_picture_count()-1 */
    uint32_t step, steps; /* scheduler calls done for this picture, 1…steps */
    double timestep;
};

/* Any member may be NULL. */
struct engine_observer {
    void (*on_warning)(const char *text,
                       void *userdata); /* e.g. the part of a prompt that was dropped */
    void (*on_step)(const struct engine_step *step, void *userdata);
    /* < 0 ends the run with that error. */
    int (*on_picture)(const struct engine_picture *picture, void *userdata);
    /* Every preview_steps steps: what the picture will look like, 8-bit RGB. */
    void (*on_preview)(uint32_t picture, uint32_t step, const uint8_t *rgb, uint32_t width,
                       uint32_t height, void *userdata);
    /* Asked for only when set: it makes every step read its latents back. */
    void (*on_tensor)(uint32_t picture, const struct engine_tensor *tensor, void *userdata);
};

/* Opens device and model; weights are resident when it returns. Errors: -ENODEV no usable device,
 * -EINVAL model, -ENOENT, -EPERM (strict_owner), -ENOMEM host or device memory, -EIO device lost,
 * or file_error(). f says what and where. */
int engine_open(const char *model_directory, const struct engine_options *options,
                struct engine **ret_engine, struct fault *f);
struct engine *engine_close(struct engine *engine);
DEFINE_FREEP(struct engine *, engine_close)

void engine_get_info(const struct engine *engine, struct engine_info *ret_info);

/* Runs a completed and checked request; `inputs` may be NULL when it names no pictures. Errors:
 * -ECANCELED; -EINVAL, -EILSEQ, -ENOENT, -EPERM, -ERANGE, -ESTALE what the request names (f says
 * what); -EFBIG more than this device can hold (f says what would fit); -ENOMEM; -EIO device lost,
 * -EBADMSG it does not hold or compute what it should (close the engine); or the observer's own. */
int engine_run(struct engine *engine, const struct request *request,
               const struct engine_inputs *inputs, const struct engine_observer *observer,
               void *userdata, struct fault *f);

/* Draws a tiny picture of a fixed seed through text encoder, U-Net and decoder, and compares every
 * bit with the answer that the first call on this engine got; that one with the answer kept in the
 * cache directory by an earlier process for the same weights, device, driver and kernels. To be
 * called after engine_open() and after the machine slept, on engine_run()'s thread, from on_step()
 * too; the picture that is being drawn and the next are not affected, and engine_cancel() neither.
 * -EBADMSG: the device draws wrongly (memory lost in sleep, a broken driver); f says where it
 * shows; close the engine. Else errors as of engine_run(). */
int engine_check(struct engine *engine, struct fault *f);

/* Makes the running (or next) engine_run end with -ECANCELED within one step, or, while LoRAs are
 * merged, once they are out again. Async-signal-safe. */
void engine_cancel(struct engine *engine);

/* GPU submissions finished and pipelines compiled since open: the heartbeat's proof of progress.
 * Any thread. */
uint64_t engine_progress(const struct engine *engine);

/* Reads only the model's configuration: what request_complete() needs, without a device. */
int engine_read_context(const char *model_directory, struct request_context *ret_context,
                        struct fault *f);
