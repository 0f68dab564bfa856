/* fit — how a session's graphs are made to fit a device.
 *
 * The text encoder and the U-Net are built one way. The VAE's two graphs are tried in order of
 * their cost: every launch bounded in work and in what it binds, all planes kept; then, plane
 * size by plane size, the larger ones made again band by band (vae_plane.h), until the
 * activations fit into one allocation and the room there is. Pure: nothing is allocated on a
 * device. */
#pragma once

#include "vk/pipeline/session.h"

/* Planes above 1/2, 1/4, … 1/2^FIT_KEEP_STEPS of the largest are made again. */
#define FIT_KEEP_STEPS 8u

struct fit {
    struct graph *graphs[SESSION_GRAPH_COUNT];
    uint64_t arena_size; /* of the largest */
};

void fit_done(struct fit *fit);

/* Plans all graphs of the shape in *layout and fills its `decode` and `image`. `room`: bytes that
 * may be allocated. -EFBIG + fault that says what it would take and what size of the same shape
 * would fit. */
int fit_session(const struct model *m, struct weights *w, struct session_layout *layout,
                const struct caps *caps, uint64_t room, struct fit *ret_fit, struct fault *f);
