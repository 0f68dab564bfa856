/* safety — the safety checker: does a finished picture show what must not be shown?
 *
 * CLIP's picture encoder (vk/models/clip_vision.h) makes an embedding of the picture; its cosine to
 * each of the special-care and of the concept embeddings, less that one's threshold, is a score.
 * In order: special care first; a score over 0 there raises all that follow by 0.01. Then the
 * concepts: a score over 0 flags the picture; special care alone never does. Scores are rounded to
 * three decimals as the reference's numpy does it, rint(1000 s) / 1000 in doubles, before they are
 * compared: over 0 means at least 0.001. A score within the error of half precision of a rounding
 * edge (k + 1/2) / 1000 may so come out one thousandth beside the reference's; at 0.0005 that
 * thousandth decides the flag. Source: diffusers 0.6.0 safety_checker.py.
 *
 * The weights are brought to the device by the first check and stay there, where memory suffices;
 * else room is made for them and they go again with the check. The files are opened, and their
 * headers checked, by safety_open(). */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/engine.h"
#include "vk/gpu/gpu.h"

#define SAFETY_EMBEDS_MAX ENGINE_SCORES_MAX /* of both kinds together; diffusers has 3 and 17 */

struct safety;
struct weights;

struct safety_result {
    uint32_t special_count, concept_count;
    double scores[SAFETY_EMBEDS_MAX]; /* special care, then concepts; rounded */
    bool is_nsfw;                     /* a concept's score is over 0 */
};

/* Does the model directory have a checker? True when model_index.json names one, or there is no
 * such file, and safety_checker/ is there. -EINVAL + fault for a model_index.json that is none. */
int safety_probe(const char *model_directory, bool *ret_has_checker, struct fault *f);

/* What the checker needs from outside. `make_room` (may be NULL) gives device memory back that can
 * be made again (the session's), false when there is none. */
struct safety_options {
    bool (*make_room)(void *userdata);
    void *userdata;
};

/* Reads configurations, headers and embeddings; *ret_safety is NULL, and 0 returned, for a model
 * without a checker. `gpu` is the caller's; NULL: only to be freed again. Errors: -EINVAL, -ENOENT,
 * -ENOMEM; f names file, key or tensor. */
int safety_open(const char *model_directory, struct gpu *gpu, const struct safety_options *options,
                struct safety **ret_safety, struct fault *f);
struct safety *safety_free(struct safety *s);
DEFINE_FREEP(struct safety *, safety_free)

/* -EPERM + fault: a file that others than root and this user own or may write. */
int safety_check_owner(const struct safety *s, struct fault *f);

/* Checks one picture (RGB). `cancel` may be NULL. When make_room() was called, what it gave back is
 * to be made again after this. Errors: -ECANCELED, -ENOMEM, -EFBIG, -EIO device lost, -EINVAL a
 * damaged file, -EBADMSG an embedding that is no number. */
int safety_check(struct safety *s, const struct engine_raster *picture, const atomic_bool *cancel,
                 struct safety_result *ret_result, struct fault *f);

bool safety_is_resident(const struct safety *s);
/* Gives the device memory back; the next check loads again. True when there was any. */
bool safety_release(struct safety *s);

/* Are the resident weights, bit by bit, what was loaded? -EBADMSG + fault when not; 0 without any.
 */
int safety_verify(struct safety *s, struct fault *f);

/* For tests. */
struct weights *safety_weights(struct safety *s);

/* Pure. `embedding` [width] against rows of `width` numbers. */
struct safety_concepts {
    uint32_t count;
    float *embeds;     /* [count, width]; owned by the checker */
    float *thresholds; /* [count] */
};
void safety_score(const struct safety_concepts *special, const struct safety_concepts *concepts,
                  const float *embedding, uint32_t width, struct safety_result *ret_result);
