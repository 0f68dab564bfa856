#include "daemon/result-json.h"

#include <errno.h>
#include <string.h>

#define INTEGER_MAX INT64_MAX

static json_t *scores_to_json(const struct job_picture *p)
{
    json_t *list = json_array();

    for (uint32_t i = 0; p->is_checked && i < p->score_count; i++)
        (void)json_array_append_new(list, json_real(p->scores[i])); /* whoever dumps it counts */
    return list;
}

json_t *result_picture_json(const struct job_picture *p)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:o}", "seed", (json_int_t)p->seed,
                     "width", (json_int_t)p->width, "height", (json_int_t)p->height, "prompt_index",
                     (json_int_t)p->prompt, "checked", (int)p->is_checked, "nsfw", (int)p->is_nsfw,
                     "blackened", (int)p->is_blackened, "safety_scores", scores_to_json(p));
}

void result_picture_from_engine(const struct engine_picture *from, uint32_t count,
                                struct job_picture *ret)
{
    struct job_picture p = {.width = from->width,
                            .height = from->height,
                            .seed = from->seed,
                            .prompt = count ? from->index / count : 0, /* prompt-major */
                            .is_checked = from->is_checked,
                            .is_nsfw = from->is_checked && from->is_nsfw,
                            .is_blackened = from->is_checked && from->is_blackened};

    if (from->is_checked)
        p.score_count = from->score_count < JOB_SCORES_MAX ? from->score_count : JOB_SCORES_MAX;
    memcpy(p.scores, from->scores, p.score_count * sizeof *p.scores);
    *ret = p;
}

static int parse_scores(const json_t *object, struct job_picture *p, struct fault *f)
{
    const json_t *list = json_object_get(object, "safety_scores");

    if (!list)
        return 0;
    if (!json_is_array(list) || json_array_size(list) > JOB_SCORES_MAX)
        return fault_set(f, -EINVAL, "safety_scores: want a list of at most %u", JOB_SCORES_MAX);
    p->score_count = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < p->score_count; i++) {
        const json_t *score = json_array_get(list, i);
        if (!json_is_number(score))
            return fault_set(f, -EINVAL, "safety_scores: want numbers");
        p->scores[i] = json_number_value(score);
    }
    return 0;
}

static int parse_verdict(const json_t *object, struct job_picture *p, struct fault *f)
{
    int r;

    if ((r = json_get_bool(object, "checked", &p->is_checked, f)) < 0 ||
        (r = json_get_bool(object, "nsfw", &p->is_nsfw, f)) < 0 ||
        (r = json_get_bool(object, "blackened", &p->is_blackened, f)) < 0)
        return r;
    return parse_scores(object, p, f);
}

int result_parse_picture(const json_t *object, struct job_picture *ret_picture, struct fault *f)
{
    struct job_picture p = {0};
    int r;

    if (!json_is_object(object))
        return fault_set(f, -EINVAL, "pictures: want objects");
    if ((r = json_get_u32(object, "width", 1, UINT32_MAX, &p.width, f)) < 0 ||
        (r = json_get_u32(object, "height", 1, UINT32_MAX, &p.height, f)) < 0 ||
        (r = json_get_uint(object, "seed", 0, INTEGER_MAX, &p.seed, f)) < 0 ||
        (r = json_get_u32(object, "prompt_index", 0, REQUEST_PICTURES_MAX - 1, &p.prompt, f)) < 0 ||
        (r = parse_verdict(object, &p, f)) < 0)
        return r;
    if (p.width == 0 || p.height == 0)
        return fault_set(f, -EINVAL, "pictures: want width and height");
    *ret_picture = p;
    return 0;
}
