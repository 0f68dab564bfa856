/* result-json — what is told of a finished picture, wherever that is JSON: result.json of the
 * spool, NAME.json of the drop folder, 0.json of tests/tools/render. No I/O.
 *
 *     {"seed": 7, "width": 512, "height": 512, "prompt_index": 0,     which of the prompts
 *      "checked": true, "nsfw": false, "blackened": false, "safety_scores": [20 numbers]}
 *
 * Where no safety checker has looked, nothing is nsfw and safety_scores is empty. */
#pragma once

#include "daemon/job.h"
#include "vk/base/json.h"
#include "vk/engine.h"

/* A new object, or NULL when out of memory. */
json_t *result_picture_json(const struct job_picture *picture);

/* Everything but what its file says about itself (bytes, sha256); `count`: pictures of a prompt. */
void result_picture_from_engine(const struct engine_picture *picture, uint32_t count,
                                struct job_picture *ret_picture);

/* Reads what result_picture_json() wrote; members it lacks are as if no checker had looked. -EINVAL
 * and f. */
int result_parse_picture(const json_t *object, struct job_picture *ret_picture, struct fault *f);
