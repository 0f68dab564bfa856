/* clip_image — a picture as CLIP's picture encoder wants it: the shorter side resized to a size
 * with PIL's antialiased bicubic filter, the middle cut out, mean and deviation taken out.
 *
 * Bit for bit what transformers 4.23.1 feature_extraction_clip.py does with a PIL image up to the
 * 8-bit crop. Pure. */
#pragma once

#include "vk/base/json.h"
#include "vk/pipeline/resample.h"

#define CLIP_IMAGE_SIDE_MAX 1024u

struct clip_image_config {
    uint32_t size;      /* 224: of the shorter side after resizing */
    uint32_t crop_size; /* 224: of the square cut out; at most size */
    float mean[3], deviation[3];
};

/* feature_extractor/preprocessor_config.json, of the old kind ("size": 224) or the new one
 * ("size": {"shortest_edge": 224}); NULL: the defaults. -EINVAL + fault naming the key, also for a
 * step that is switched off and for another filter. */
int clip_image_config_parse(const json_t *root, struct clip_image_config *ret_config,
                            struct fault *f);

/* An RGB picture -> f32 [crop_size, crop_size, 3]. -ENOMEM, or -EINVAL + fault for no such picture.
 */
int clip_image_make(const struct clip_image_config *config, const struct engine_raster *picture,
                    float *ret_values, struct fault *f);
