/* weights-private — what weights.c (declarations, files, checks) and load.c (places, packing)
 * share. */
#pragma once

#include "vk/base/array.h"
#include "vk/base/sha256.h"
#include "vk/weights/pack.h"
#include "vk/weights/safetensors.h"
#include "vk/weights/weights.h"

/* One tensor of a file that is wanted. */
struct part {
    struct weight_want want;                 /* completed; its strings are owned */
    uint32_t hash;                           /* of component and name: a quick no */
    uint32_t weight;                         /* index into weights.packed */
    const struct safetensors_tensor *tensor; /* by check_files() */
};

/* One packed weight: the place of its parts. */
struct packed {
    enum weights_component component;
    char *key;
    uint32_t hash;
    enum pack_kind pack;
    uint64_t size;
    struct weight_place place;
};

struct known {
    enum weights_component component;
    char *name, *old_name;
    uint32_t rank;
    uint64_t dims[4];
    bool shape_checked, required;
};

struct weights {
    struct safetensors *files[WEIGHTS_COMPONENT_COUNT];
    struct ARRAY(struct part) parts;
    struct ARRAY(struct packed) packed;
    struct ARRAY(struct known) known;
    struct ARRAY(struct gpu_buffer *) buffers;
    struct gpu_buffer *sums; /* of weights_sum() */
    uint64_t total;          /* bytes of the packed weights, each aligned */
    bool is_loaded;
    char hash[SHA256_HEX_SIZE];
};

/* sum.c: makes w->sums, once the buffers are there. */
int weights_prepare_sum(struct weights *w, struct gpu *gpu, struct fault *f);
