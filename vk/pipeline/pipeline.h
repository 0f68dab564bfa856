/* pipeline — one request through one model on one device: the sampling loop.
 *
 * Order of operations as diffusers 0.6.0 pipeline_stable_diffusion.py: tokens, text encoder, noise,
 * scheduler calls with guidance, decoder, picture. Picture k draws from a generator of its own,
 * seeded with seed + k. The public face is vk/engine.h; errors are those of engine_run(). */
#pragma once

#include "vk/engine.h"
#include "vk/gpu/gpu.h"
#include "vk/pipeline/context.h"
#include "vk/pipeline/model.h"
#include "vk/pipeline/preview.h"
#include "vk/pipeline/session.h"
#include "vk/pipeline/tiny.h"

struct pipeline {
    struct gpu *gpu; /* the caller's */
    const struct model *model;
    struct weights *weights;        /* loaded; the caller's */
    struct session *session;        /* of the last shape, NULL at first */
    struct safety *safety;          /* the caller's; NULL: the model has no checker */
    struct lora_state *lora;        /* the caller's; NULL: the weights stay as they are */
    struct context_cache *contexts; /* the caller's; NULL: prompts are always encoded anew */
    struct tiny *tiny;              /* the caller's, loaded; NULL: the model has no taesd/ */
    struct preview_map preview;     /* decode.h: fitted once, … */
    bool has_preview;               /* … when this is set */
    uint64_t encoder;               /* which weights the text encoder has: context.h */
};

/* Makes (or keeps) the session for a shape. */
int pipeline_prepare(struct pipeline *p, const struct session_shape *shape, struct fault *f);

int pipeline_run(struct pipeline *p, const struct request *request,
                 const struct engine_inputs *inputs, const struct engine_observer *observer,
                 void *userdata, const atomic_bool *cancel, struct fault *f);

/* Gives the session's memory back; false when there was none. A run makes it again. */
bool pipeline_make_room(struct pipeline *p);

void pipeline_done(struct pipeline *p);
