/* png — pictures as PNG files in memory; the only place that knows libpng, linked into the worker
 * only.
 *
 * What a picture tells about itself stands in text chunks before the pixels, so that a reader of
 * the first kilobytes finds it:
 *     full        Software, XMP, and `parameters` as the AUTOMATIC1111 web UI writes and reads it
 *     provenance  Software and XMP (IPTC DigitalSourceType: trainedAlgorithmicMedia, or
 *                 compositeWithTrainedAlgorithmicMedia where it started from a picture that was
 *                 handed in); no prompt
 *     none        nothing
 * `Software` is Latin-1 tEXt; `parameters` is tEXt where Latin-1 can hold it, else iTXt; XMP is
 * iTXt. There is no time in the file: same input and same zlib, same bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/fault.h"
#include "vk/pipeline/request.h"

enum png_metadata {
    PNG_METADATA_FULL,
    PNG_METADATA_PROVENANCE,
    PNG_METADATA_NONE,
};

/* What made the picture. Texts are UTF-8 and may be NULL. */
struct png_facts {
    const char *prompt, *negative_prompt;
    const char *model, *model_hash; /* name; SHA-256 in hex, of which ten digits are shown */
    const struct request *options;  /* completed: what else decides the picture; NULL: not told */
    uint32_t width, height, steps;
    double guidance_scale;
    uint64_t seed; /* of this picture */
    enum scheduler_kind scheduler;
    bool is_composite; /* made from a picture that was handed in */
};

/* 8-bit RGB, rows of 3 * width bytes, into a malloc'd PNG file. -EINVAL for an empty or absurd
 * size, and when libpng refuses; -ENOMEM. */
int png_encode(const uint8_t *rgb, uint32_t width, uint32_t height, const struct png_facts *facts,
               enum png_metadata metadata, uint8_t **ret_data, size_t *ret_size, struct fault *f);

/* "full", "provenance", "none". -EINVAL for any other. */
int png_metadata_from_string(const char *text, enum png_metadata *ret_metadata);
