/* image — between pictures as people keep them and the numbers that a model sees. Pure.
 *
 * What comes out: the decoder's f32 to 8 bits. What goes in: a picture of any size is brought to
 * the run's (`fit`), then to -1…1; a mask beside it becomes ones where the picture is made anew, at
 * the size of pixels and at that of latents.
 * Source: diffusers 0.31.0, image_processor.py, VaeImageProcessor and the inpainting pipeline's
 * mask_processor; 0.6.0, preprocess*() of pipeline_stable_diffusion_{img2img,inpaint,
 * inpaint_legacy}.py. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/base/fault.h"
#include "vk/engine.h"
#include "vk/pipeline/request.h"

/* --- out -------------------------------------------------------------------------------------- */

/* values f32 [pixels, 8] (three used) in about -1…1 -> f32 [pixels, 3] = clamp(x / 2 + 0.5, 0, 1);
 * NaN becomes 0. */
void image_from_decoder(const float *values, size_t pixels, float *ret_rgb);

/* round(255 * v), ties to even, as the reference's numpy does. */
void image_to_bytes(const float *rgb, size_t count, uint8_t *ret_bytes);

/* --- in --------------------------------------------------------------------------------------- */

enum mask_rule {
    MASK_BINARY, /* 0.31.0, and 0.6.0's nine channels: Lanczos, then >= 0.5; latents take the pixel
                    at the upper left of their square */
    MASK_LEGACY, /* 0.6.0's four channels: nearest, straight to each size, gray values kept */
};

/* Where a picture or its mask goes. FIT_STRETCH: each side by itself (the reference's "default").
 * FIT_COVER: the shape is kept, what overlaps is cut off on both sides alike ("crop"). FIT_CONTAIN:
 * the shape is kept, and the bars repeat the picture's outermost line, 1.125 of it - 0.125 of the
 * one before ("fill": bicubic of an empty box). */
struct image_target {
    uint32_t width, height; /* pixels */
    enum request_fit fit;
};

/* The run's size: a side that is given, or (0) the picture's own down to a multiple of `multiple`:
 * the context's, and under compat 0.6 that and 32. Whether a model or device can do it is for
 * request_check(). -EINVAL when the picture is smaller than one multiple. */
int image_size(const struct engine_raster *in, uint32_t multiple, uint32_t *width, uint32_t *height,
               struct fault *f);

/* An 8-bit picture of 1 or 3 channels -> width * height pixels of as many channels, by Lanczos.
 * -EINVAL for an empty picture, -ENOMEM; f does not say which picture it is. */
int image_fit(const struct engine_raster *in, const struct image_target *to, uint8_t *ret_pixels,
              struct fault *f);

/* A picture -> f32 [3, height, width] in -1…1: Lanczos, v / 255 * 2 - 1; gray becomes three equal
 * planes. Errors as of image_fit(). */
int image_prepare(const struct engine_raster *in, const struct image_target *to, float *ret_planes,
                  struct fault *f);

/* A mask of 1 or 3 channels (gray after the resizing, by Pillow's luma) -> what is to be repainted
 * is 1, what is kept 0. ret_pixels f32 [height, width], ret_latents f32 [height / factor,
 * width / factor]; either may be NULL. `factor`: pixels a side of one latent. Errors as of
 * image_fit(). */
int mask_prepare(const struct engine_raster *in, const struct image_target *to, uint32_t factor,
                 enum mask_rule rule, float *ret_pixels, float *ret_latents, struct fault *f);

/* What a nine-channel model is shown of the picture: planes f32 [3, count], 0 where the mask's
 * pixel is 0.5 or more. */
void image_blank(float *planes, const float *mask_pixels, size_t count);
