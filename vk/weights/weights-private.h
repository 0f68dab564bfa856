/* weights-private — what files.c (which files there are), weights.c (declarations, checks) and
 * load.c (places, packing) share. */
#pragma once

#include "vk/base/array.h"
#include "vk/base/sha256.h"
#include "vk/weights/pack.h"
#include "vk/weights/safetensors.h"
#include "vk/weights/single.h"
#include "vk/weights/weights.h"

/* One tensor of a file that is wanted. */
struct part {
    struct weight_want want;                 /* completed; its strings are owned */
    uint32_t hash;                           /* of component and name: a quick no */
    uint32_t weight;                         /* index into weights.packed */
    struct safetensors *file;                /* by check_files(), as the next two */
    const struct safetensors_tensor *tensor; /* of it */
    uint64_t first_row;                      /* of the tensor's, where the part begins */
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

/* Which of the files a component is in: one, its shards, or the single file of all. */
struct component_files {
    size_t first, count; /* count 0: not opened */
    char label[128];     /* for what no file has */
};

struct weights {
    struct ARRAY(struct safetensors *) files; /* each once */
    struct component_files components[WEIGHTS_COMPONENT_COUNT];
    struct single_facts *single; /* NULL: Hugging Face layout */
    struct ARRAY(struct part) parts;
    struct ARRAY(struct packed) packed;
    struct ARRAY(struct known) known;
    struct ARRAY(struct gpu_buffer *) buffers;
    struct gpu_buffer *sums; /* of weights_sum() */
    uint64_t total;          /* bytes of the packed weights, each aligned */
    bool is_loaded;
    char hash[SHA256_HEX_SIZE];
};

/* files.c: the tensor of a Hugging Face name, wherever the component's files have it: rows
 * slice/slices of it. */
struct found {
    size_t file; /* index into weights.files */
    const struct safetensors_tensor *tensor;
    uint32_t slice, slices; /* 0, 1: all of it */
};
bool weights_find(const struct weights *w, enum weights_component component, const char *name,
                  struct found *ret_found);

/* sum.c: makes w->sums, once the buffers are there. */
int weights_prepare_sum(struct weights *w, struct gpu *gpu, struct fault *f);
