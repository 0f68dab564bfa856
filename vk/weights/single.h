/* single — checkpoints in one file, under the names Stable Diffusion 1 and 2 were published with
 * (LDM), as safetensors.
 *
 * A model directory is one of these when it has neither unet/ nor model_index.json, but one
 * .safetensors file. Its tensors are found through tables from the Hugging Face names; what shapes
 * tell of the networks is in struct single_facts, what they cannot tell is the reader's to know
 * (vk/pipeline/model-single.c). Source: diffusers 0.6.0
 * convert_original_stable_diffusion_to_diffusers.py, 0.31.0 single_file_utils.py. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/weights/weights.h"

#define SINGLE_LEVELS_MAX 4u

struct safetensors;

struct single_facts {
    char file[128];    /* its name, for messages */
    bool is_open_clip; /* the text encoder has OpenCLIP's names (SD 2), else transformers' */
    bool is_v2;        /* OpenCLIP, or a context of 1024 */
    bool is_bare_text; /* transformers' names without "text_model." */
    struct {
        uint32_t levels, channels[SINGLE_LEVELS_MAX], layers;
        bool down_attention[SINGLE_LEVELS_MAX], up_attention[SINGLE_LEVELS_MAX];
        uint32_t context_width, in_channels, out_channels;
        uint32_t condition_width; /* of time_embed.cond_proj (LCM), or 0 */
        bool is_linear;           /* proj_in is a matrix */
    } unet;
    struct {
        uint32_t levels, channels[SINGLE_LEVELS_MAX], layers, latent_channels;
    } vae;
    struct {
        uint32_t vocab_size, positions, width, inner;
        uint32_t layers; /* to be run: OpenCLIP's own last block is left out (penultimate) */
    } text;
    uint64_t global_step; /* 0 where the file does not say */
};

/* The one file of a single-file directory: 1 and *ret_path (malloc'd), 0 for a directory of the
 * Hugging Face layout. -EINVAL + fault: several files, only pickles, nothing; or errno. */
int single_locate(const char *directory, char **ret_path, struct fault *f);

/* The facts of an open file. -EINVAL + fault naming file and tensor. */
int single_describe(struct safetensors *file, struct single_facts *ret_facts, struct fault *f);

/* Both, for a reader of configurations: 1, 0 (Hugging Face layout) or an error. */
int single_read(const char *directory, struct single_facts *ret_facts, struct fault *f);

/* Where the file has the tensor with that Hugging Face name: rows slice/slices of `text`. */
struct single_name {
    char text[256];
    uint32_t slice, slices; /* 0, 1: all of it */
};
void single_translate(const struct single_facts *facts, enum weights_component component,
                      const char *name, struct single_name *ret_name);

/* A tensor that such files carry and no picture needs. */
bool single_ignores(const struct single_facts *facts, const char *name);
