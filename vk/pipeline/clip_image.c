#include "vk/pipeline/clip_image.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "vk/pipeline/resample.h"

/* --- configuration ---------------------------------------------------------------------------- */

/* `key`: a number, or an object with the number at `inner` (and, for a crop, at `other` alike). */
static int parse_side(const json_t *root, const char *key, const char *inner, const char *other,
                      uint32_t *ret_side, struct fault *f)
{
    const json_t *value = json_object_get(root, key);
    uint32_t second;

    if (!json_is_object(value)) {
        int r = json_get_u32(root, key, 1, CLIP_IMAGE_SIDE_MAX, ret_side, f);
        return r < 0 ? r : 0;
    }
    int r = json_get_u32(value, inner, 1, CLIP_IMAGE_SIDE_MAX, ret_side, f);
    second = *ret_side;
    if (r > 0 && other)
        r = json_get_u32(value, other, 1, CLIP_IMAGE_SIDE_MAX, &second, f);
    if (r < 0)
        return fault_prefix(f, r, "%s", key);
    if (r == 0)
        return fault_set(f, -EINVAL, "%s: want a number or {\"%s\": …}", key, inner);
    return second == *ret_side ? 0 : fault_set(f, -EINVAL, "%s: only squares are supported", key);
}

static int parse_triple(const json_t *root, const char *key, float values[3], struct fault *f)
{
    const json_t *list = json_object_get(root, key);

    if (!list || json_is_null(list))
        return 0;
    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_array_get(list, i);
        double x = json_number_value(v);
        if (!json_is_number(v) || json_array_size(list) != 3 || !(fabs(x) <= 1000))
            return fault_set(f, -EINVAL, "%s: want three numbers", key);
        values[i] = (float)x;
    }
    return 0;
}

/* Steps that are always done here. */
static int check_steps(const json_t *root, struct fault *f)
{
    static const char *const steps[] = {"do_resize", "do_center_crop", "do_normalize",
                                        "do_rescale"};
    uint32_t resample = 3; /* PIL's number of the bicubic filter */
    double factor = 1 / 255.0;
    bool is_done = true;
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(steps) && r >= 0; i++) {
        r = json_get_bool(root, steps[i], &is_done, f);
        if (r >= 0 && !is_done)
            return fault_set(f, -EINVAL, "%s: only true is supported", steps[i]);
    }
    if (r >= 0)
        r = json_get_u32(root, "resample", 3, 3, &resample, f);
    if (r >= 0)
        r = json_get_double(root, "rescale_factor", 0.0039215, 0.0039216, &factor, f);
    return r < 0 ? r : 0;
}

int clip_image_config_parse(const json_t *root, struct clip_image_config *ret_config,
                            struct fault *f)
{
    struct clip_image_config c = {.size = 224,
                                  .crop_size = 224,
                                  .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                  .deviation = {0.26862954f, 0.26130258f, 0.27577711f}};
    int r = check_steps(root, f);

    if (r >= 0)
        r = parse_side(root, "size", "shortest_edge", NULL, &c.size, f);
    if (r >= 0)
        r = parse_side(root, "crop_size", "height", "width", &c.crop_size, f);
    if (r >= 0)
        r = parse_triple(root, "image_mean", c.mean, f);
    if (r >= 0)
        r = parse_triple(root, "image_std", c.deviation, f);
    if (r < 0)
        return r;
    if (c.crop_size > c.size)
        return fault_set(f, -EINVAL, "crop_size: %u, but size is %u", c.crop_size, c.size);
    for (size_t i = 0; i < 3; i++)
        if (!(c.deviation[i] > 0))
            return fault_set(f, -EINVAL, "image_std: want positive numbers");
    *ret_config = c;
    return 0;
}

/* --- the picture ------------------------------------------------------------------------------ */

/* The side that follows: Python's int(size * long / short). */
static uint32_t longer_side(uint32_t size, uint32_t longer, uint32_t shorter)
{
    return (uint32_t)((double)((uint64_t)size * longer) / shorter);
}

int clip_image_make(const struct clip_image_config *c, const struct engine_raster *picture,
                    float *ret_values, struct fault *f)
{
    uint32_t w = picture->width, h = picture->height, side = c->crop_size;
    struct resample_axis x = {.to = w, .size = c->size, .count = side};
    struct resample_axis y = {.to = h, .size = c->size, .count = side};
    _cleanup_(freep) uint8_t *crop = malloc((size_t)3 * side * side);

    if (!crop)
        return fault_set(f, -ENOMEM, "out of memory");
    if (w == 0 || h == 0 || picture->channels != 3)
        return fault_set(f, -EINVAL, "no RGB picture");
    if (w <= h)
        y.size = longer_side(c->size, h, w);
    else
        x.size = longer_side(c->size, w, h);
    x.first = (x.size - side) / 2;
    y.first = (y.size - side) / 2;
    int r = resample_window(picture, RESAMPLE_BICUBIC, &x, &y, crop);
    if (r < 0)
        return fault_set(f, r, "a picture of %ux%u pixels cannot be resized", w, h);
    for (uint32_t i = 0; i < 3 * side * side; i++)
        ret_values[i] = ((float)crop[i] * (1 / 255.0f) - c->mean[i % 3]) / c->deviation[i % 3];
    return 0;
}
