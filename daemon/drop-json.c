#include "daemon/drop-json.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/result-json.h"

/* In JSON's own types: a number's text in a ticket is a number in JSON, too. */
static json_t *row_to_json(const struct request *q, const struct request_row *row)
{
    _cleanup_(freep) char *text = NULL;

    if (request_format(q, row, &text) < 0)
        return NULL;
    switch (row->type) {
    case REQUEST_TYPE_S:
    case REQUEST_TYPE_E:
    case REQUEST_TYPE_F:
        return json_string(text);
    case REQUEST_TYPE_B:
        return json_boolean(strcmp(text, "yes") == 0 || strcmp(text, "true") == 0);
    case REQUEST_TYPE_L:
        return *text ? json_loads(text, 0, NULL) : json_array();
    case REQUEST_TYPE_U:
    case REQUEST_TYPE_T:
    case REQUEST_TYPE_D:
        break;
    }
    return json_loads(text, JSON_DECODE_ANY, NULL);
}

static json_t *options_to_json(const struct request *q)
{
    _cleanup_(json_freep) json_t *object = json_object();

    for (unsigned i = 0; i < REQUEST_ROW_COUNT; i++) {
        if (!job_row_is_told(q, i))
            continue;
        json_t *value = row_to_json(q, &request_rows[i]);
        if (!value || json_object_set_new(object, request_rows[i].name, value) < 0)
            return NULL;
    }
    return TAKE_PTR(object);
}

static json_t *warnings_to_json(const struct job *job)
{
    _cleanup_(json_freep) json_t *list = json_array();

    for (size_t i = 0; i < job->warnings.count; i++) {
        if (json_array_append_new(list, json_string(job->warnings.items[i])) < 0)
            return NULL;
    }
    return TAKE_PTR(list);
}

static json_t *pictures_to_json(const struct job *job)
{
    _cleanup_(json_freep) json_t *list = json_array();

    for (uint32_t i = 0; i < job->picture_count; i++) {
        const struct job_picture *p = &job->pictures[i];
        json_t *one = result_picture_json(p);
        int r = json_object_set_new(one, "sha256", json_string(p->sha256));
        if (json_array_append_new(list, one) < 0 || r < 0)
            return NULL;
    }
    return TAKE_PTR(list);
}

json_t *drop_job_to_json(const struct job *job, const char *key)
{
    uint64_t took = job->finished_usec > job->started_usec && job->started_usec
                        ? job->finished_usec - job->started_usec
                        : 0;

    /* "o" takes its value over, and fails on NULL */
    return json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "state",
                     job_state_to_string(job->state), "id", (json_int_t)job->id, "key", key, "seed",
                     (json_int_t)job->request.seed, "created_usec", (json_int_t)job->created_usec,
                     "started_usec", (json_int_t)job->started_usec, "finished_usec",
                     (json_int_t)job->finished_usec, "duration_usec", (json_int_t)took, "options",
                     options_to_json(&job->request), "warnings", warnings_to_json(job), "pictures",
                     pictures_to_json(job));
}
