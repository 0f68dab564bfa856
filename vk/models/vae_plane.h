/* vae_plane — a network of convolutions over pictures too large to be held, written as if they
 * were not.
 *
 * A plane is one picture-sized tensor of such a network, made by a layer: y = conv(silu(norm(x)))
 * + residual. How is decided from limits alone:
 *   - in one launch where operands, result and work are within the limits; else in bands of rows,
 *     each launch binding only the rows it reads and writes;
 *   - kept whole in the arena, or, above limits.keep, not held at all: whoever reads some of its
 *     rows has them (and what they are made of) computed again into scratch.
 * Group norm needs statistics of the whole picture: they are summed band by band beforehand, to the
 * same accuracy, so bands change nothing but the last digit of those sums. A network whose planes
 * are all kept costs the same work in bands as whole; every plane that is not kept costs its part
 * of the network once more for each norm behind it.
 *
 *      x  | kept |  --norm1,conv1-->  h | kept |  --norm2,conv2-->  y  in place of x
 *         |======|  rows a-1 … b+1      |======|  rows a … b
 *
 * Errors stay in the graph (build.h). Planes are numbers; 0 is none. */
#pragma once

#include "vk/graph/build.h"

#define PLANES_MAX 128u

/* 0 in any of them: no limit. */
struct band_limits {
    uint64_t bytes; /* of an operand or the result of a launch */
    uint64_t macs;  /* of a launch, if one row is not more */
    uint64_t keep;  /* of a plane that is held whole */
};

typedef uint32_t vae_plane;

struct plane_layer {
    vae_plane src, residual;
    const char *norm, *conv; /* tensor names within the scope, copied; norm NULL: src as it is */
    bool is_kept;            /* whatever its size */
    bool is_fleeting;        /* never held where a reader takes it in bands: cheap to make again */
    struct conv2d_params params; /* without tensors and band */
};

struct planes {
    struct graph *g;
    struct band_limits limits;
    uint32_t groups; /* of every norm */
    float eps;
    uint32_t count, band;
    struct plane_item {
        struct plane_layer layer; /* src 0: given from outside */
        uint32_t h, w, c;
        enum element element;
        tensor whole, stats; /* 0: not held, not known (yet) */
        char scope[96];      /* where the layer's names are */
        char norm[32], conv[32];
        tensor rows; /* of a plane not held: what the band `band` made last, … */
        uint32_t rows_first, rows_end, rows_band;
    } items[PLANES_MAX];
};

void planes_init(struct planes *p, struct graph *g, const struct band_limits *limits,
                 uint32_t groups, float eps);

/* A plane that exists: f16 or f32 [1, h, w, c], pinned or transient. */
vae_plane plane_given(struct planes *p, tensor t);

/* A layer in the current scope. */
vae_plane plane_conv(struct planes *p, const struct plane_layer *layer);

/* The tensor of a plane that is kept; 0 when it is not. */
tensor plane_tensor(const struct planes *p, vae_plane of);

/* Statistics of a plane for the norm `name` in scope. */
tensor plane_stats(struct planes *p, vae_plane of, const char *name);

/* A launch over h rows, and what a row takes. */
struct band_need {
    uint32_t h;
    uint64_t bytes;   /* of its largest operand or result */
    uint64_t written; /* of a result that is written band by band */
    uint64_t macs;
};
/* Rows of a band: h, or so many that every band's result begins where it may. */
uint32_t band_rows(const struct band_limits *limits, const struct band_need *need);
