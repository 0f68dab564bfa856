/* run — what one run of the pipeline carries from stage to stage. Included by vk/pipeline only.
 *
 *     pipeline.c   size, session, the order of the stages, decoding
 *     start.c      generator, given picture and mask: the first latents of a picture
 *     denoise.c    the table of scheduler calls, and the loop through them */
#pragma once

#include "vk/pipeline/pipeline.h"
#include "vk/sample/noise.h"

struct run {
    struct pipeline *p; /* this and what follows up to `cancel`: the caller's */
    const struct request *request;
    const struct engine_inputs *inputs; /* never NULL */
    const struct engine_observer *observer;
    void *userdata;
    const atomic_bool *cancel;

    uint32_t width, height; /* pixels, multiples of the VAE's factor */
    uint32_t pictures;      /* of all prompts */
    struct prompts prompts;
    struct session *session; /* the pipeline's, for this shape */
    struct sched_table table;

    struct noise noise; /* of the picture that is being made */
    float *latents;     /* [c, h, w]: what was drawn or read back last */
    float *moments;     /* of the given picture, [2 c, h, w]: means, then logarithms of variances */
    float *masked;      /* the same of the picture without what is painted anew */
    float *original;    /* [c, h, w]: the given picture's latents, drawn from its moments */
    float *mask;        /* [h, w]: 1 paint, 0 keep; NULL without a mask */
    float *image;       /* [H, W, 8], then [H, W, 3] */
    uint8_t *bytes;     /* [H, W, 3] */
};

static inline uint32_t run_channels(const struct run *run)
{
    return run->p->model->vae.latent_channels;
}

/* Elements of one channel of the latents, and of all. */
static inline size_t run_plane(const struct run *run)
{
    const struct session_layout *l = &run->session->layout;

    return (size_t)l->latent_width * l->latent_height;
}
static inline size_t run_latents(const struct run *run)
{
    return run_channels(run) * run_plane(run);
}

/* Uploads to the state's group `group` (shaders/abi/step.h), or reads one back. */
int run_write_state(const struct run *run, uint32_t group, const float *values, size_t count,
                    struct fault *f);
int run_read_state(const struct run *run, uint32_t group, float *ret_values, struct fault *f);

/* Tells the observer of latents `data`, [c, h, w]. */
void run_report_latents(const struct run *run, uint32_t picture, const char *name,
                        const float *data);
void run_warn(const struct run *run, const char *text);

/* --- start.c ---------------------------------------------------------------------------------- */

/* Once a run: brings the given picture and mask to size and encodes them. */
int start_prepare(struct run *run, struct fault *f);
/* Seeds the generator, draws, and makes the state on the device ready for the first call. */
int start_picture(struct run *run, uint32_t picture, struct fault *f);
/* One torch.randn() of the latents' shape, as the batch of pictures would see it. */
void start_draw(struct run *run, uint32_t picture, float *ret_values);

/* --- denoise.c -------------------------------------------------------------------------------- */

/* Once a run: the table of scheduler calls, and what the device needs of it. */
int denoise_prepare(struct run *run, struct fault *f);
/* The device's part of that, for a session made anew. */
int denoise_upload(const struct run *run, struct fault *f);
int denoise_picture(struct run *run, uint32_t picture, struct fault *f);
