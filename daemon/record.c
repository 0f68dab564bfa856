#include "daemon/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/error.h"
#include "daemon/result-json.h"
#include "vk/base/json.h"
#include "vk/base/sha256.h"

/* jansson's integers end where seeds do. */
#define INTEGER_MAX INT64_MAX

#define SUM_BEGIN  "{\"sha256\": \""
#define SUM_END    "\",\n"
#define SUM_DIGITS 64u
/* Bytes of the first line. */
#define SUM_LENGTH (sizeof SUM_BEGIN - 1 + SUM_DIGITS + sizeof SUM_END - 1)

static void *field_of(const struct request *q, const struct request_row *row)
{
    return (char *)(uintptr_t)q + row->offset;
}

/* A row's value in JSON's own types; texts and words as strings. */
static json_t *row_to_json(const struct request *q, const struct request_row *row)
{
    _cleanup_(freep) char *text = NULL;

    switch (row->type) {
    case REQUEST_TYPE_U:
        return json_integer(*(uint32_t *)field_of(q, row));
    case REQUEST_TYPE_T:
        return json_integer((json_int_t) * (uint64_t *)field_of(q, row));
    case REQUEST_TYPE_D:
        return json_real(*(double *)field_of(q, row));
    case REQUEST_TYPE_B:
        return json_boolean(*(uint32_t *)field_of(q, row));
    case REQUEST_TYPE_S:
    case REQUEST_TYPE_E:
    case REQUEST_TYPE_L:
    case REQUEST_TYPE_F:
        break;
    }
    return request_format(q, row, &text) < 0 ? NULL : json_string(text);
}

static int request_to_json(const struct request *q, json_t **ret_object)
{
    _cleanup_(json_freep) json_t *object = json_object();

    for (unsigned i = 0; i < REQUEST_ROW_COUNT; i++) {
        if (!job_row_is_told(q, i))
            continue;
        json_t *value = row_to_json(q, &request_rows[i]);
        if (!value || json_object_set_new(object, request_rows[i].name, value) < 0)
            return -ENOMEM;
    }
    *ret_object = TAKE_PTR(object);
    return 0;
}

/* -ENOMEM also when memory ran out while `root` was built. */
static int dump(const json_t *root, char **ret_text)
{
    _cleanup_(freep) char *text =
        json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17) | JSON_PRESERVE_ORDER);
    _cleanup_(freep) char *body = NULL;
    char sum[72];

    /* Its first line, "{", gives way to the line with the sum of what follows. */
    if (!text || json_ran_out() || asprintf(&body, "%s\n", text + 2) < 0)
        return -ENOMEM;
    sha256_hex(body, strlen(body), sum);
    if (asprintf(ret_text, SUM_BEGIN "%s" SUM_END "%s", sum, body) < 0)
        return -ENOMEM;
    return 0;
}

static int check_sum(const char *text, size_t length, struct fault *f)
{
    const char *end = text + sizeof SUM_BEGIN - 1 + SUM_DIGITS;
    char sum[72];

    if (length < SUM_LENGTH || memcmp(text, SUM_BEGIN, sizeof SUM_BEGIN - 1) != 0 ||
        memcmp(end, SUM_END, sizeof SUM_END - 1) != 0)
        return fault_set(f, -EINVAL, "has no checksum");
    sha256_hex(text + SUM_LENGTH, length - SUM_LENGTH, sum);
    if (memcmp(sum, end - SUM_DIGITS, SUM_DIGITS) != 0)
        return fault_set(f, -EINVAL, "its checksum is wrong");
    return 0;
}

/* Text with its sum -> object of our format. */
static int parse(const char *text, size_t length, json_t **ret_root, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    uint64_t format = 0;

    int r = check_sum(text, length, f);
    if (r < 0 || (r = json_parse(text, length, &root, f)) < 0 ||
        (r = json_get_uint(root, "format", 0, INTEGER_MAX, &format, f)) < 0)
        return r;
    if (format != RECORD_FORMAT)
        return fault_set(f, -EINVAL, "format %" PRIu64 ", want %d", format, RECORD_FORMAT);
    *ret_root = TAKE_PTR(root);
    return 0;
}

static json_t *inputs_to_json(const struct job *job)
{
    json_t *object = json_object();

    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) { /* dump() knows when one is missing */
        const struct job_input *input = &job->inputs[i];
        if (input->format == JOB_FORMAT_NONE)
            continue;
        json_t *one = json_pack("{s:s, s:I, s:s}", "file", job_input_name(i, input->format),
                                "bytes", (json_int_t)input->bytes, "sha256", input->sha256);
        (void)json_object_set_new(object, request_rows[job_input_row(i)].name, one);
    }
    return object;
}

int record_format_request(const struct job *job, char **ret_text)
{
    json_t *request = NULL;

    (void)json_ran_out();
    int r = request_to_json(&job->request, &request);
    if (r < 0)
        return r;
    _cleanup_(json_freep) json_t *root =
        json_pack("{s:i, s:I, s:I, s:I, s:I, s:s, s:b, s:o, s:o}", "format", RECORD_FORMAT, "id",
                  (json_int_t)job->id, "owner", (json_int_t)job->owner, "created_usec",
                  (json_int_t)job->created_usec, "deadline_uptime_usec",
                  (json_int_t)job->deadline_uptime_usec, "origin", job->origin, "resolved",
                  (int)job->is_resolved, "request", request, "inputs", inputs_to_json(job));
    return root ? dump(root, ret_text) : -ENOMEM;
}

static json_t *warnings_to_json(const struct job *job)
{
    json_t *list = json_array();

    for (size_t i = 0; i < job->warnings.count; i++) /* dump() knows when one is missing */
        (void)json_array_append_new(list, json_string(job->warnings.items[i]));
    return list;
}

static json_t *pictures_to_json(const struct job *job)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < job->picture_count; i++) {
        const struct job_picture *p = &job->pictures[i];
        json_t *one = result_picture_json(p);
        /* dump() knows when something is missing */
        (void)json_object_set_new(one, "bytes", json_integer((json_int_t)p->bytes));
        (void)json_object_set_new(one, "sha256", json_string(p->sha256));
        (void)json_array_append_new(list, one);
    }
    return list;
}

int record_format_result(const struct job *job, enum job_state state, char **ret_text)
{
    const char *word = job->error.err ? error_to_word(job->error.err) : "";

    (void)json_ran_out();
    _cleanup_(json_freep) json_t *root =
        json_pack("{s:i, s:s, s:I, s:I, s:I, s:[s,s], s:o, s:o}", "format", RECORD_FORMAT, "state",
                  job_state_to_string(state), "started_usec", (json_int_t)job->started_usec,
                  "finished_usec", (json_int_t)job->finished_usec, "finished_uptime_usec",
                  (json_int_t)job->finished_uptime_usec, "error", word, job->error.text, "warnings",
                  warnings_to_json(job), "pictures", pictures_to_json(job));
    return root ? dump(root, ret_text) : -ENOMEM;
}

static int set_row_from_json(struct request *q, const struct request_row *row, const json_t *value,
                             struct fault *f)
{
    if (json_is_string(value))
        return request_set_text(q, row, json_string_value(value), json_string_length(value), f);
    if (json_is_boolean(value) && row->type == REQUEST_TYPE_B)
        return request_set_uint(q, row, json_is_true(value), f);
    if (json_is_integer(value) && json_integer_value(value) >= 0 && row->type != REQUEST_TYPE_D)
        return request_set_uint(q, row, (uint64_t)json_integer_value(value), f);
    if (json_is_number(value))
        return request_set_double(q, row, json_number_value(value), f);
    return fault_set(f, -EINVAL, "%s: wrong type", row->name);
}

static int parse_rows(const json_t *rows, struct request *q, struct fault *f)
{
    const char *key;
    json_t *value;

    if (!json_is_object(rows))
        return fault_set(f, -EINVAL, "request: want an object");
    json_object_foreach((json_t *)(uintptr_t)rows, key, value)
    {
        const struct request_row *row = request_row_find(key);
        if (!row)
            return fault_set(f, -EINVAL, "request: unknown row \"%.40s\"", key);
        int r = set_row_from_json(q, row, value, f);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parse_origin(const json_t *root, struct job *job, struct fault *f)
{
    const char *origin = "";

    int r = json_get_string(root, "origin", &origin, f);
    if (r < 0)
        return r;
    if (strlen(origin) > JOB_ORIGIN_MAX)
        return fault_set(f, -EINVAL, "origin: over %u bytes", JOB_ORIGIN_MAX);
    (void)snprintf(job->origin, sizeof job->origin, "%s", origin);
    return 0;
}

static int parse_file(const json_t *one, uint64_t *ret_bytes, char ret_sha256[72], struct fault *f)
{
    const char *sha256 = "";
    int r;

    if ((r = json_get_uint(one, "bytes", 0, INTEGER_MAX, ret_bytes, f)) < 0 ||
        (r = json_get_string(one, "sha256", &sha256, f)) < 0)
        return r;
    if (strlen(sha256) >= 72)
        return fault_set(f, -EINVAL, "sha256 too long");
    (void)snprintf(ret_sha256, 72, "%s", sha256);
    return 0;
}

/* One input, which must have the name that its row of the request says. */
static int parse_input(const json_t *one, struct job *job, enum job_input_kind kind,
                       struct fault *f)
{
    const struct request_row *row = &request_rows[job_input_row(kind)];
    const char *given = kind == JOB_INPUT_IMAGE ? job->request.image : job->request.mask;
    struct job_input *input = &job->inputs[kind];
    const char *file = "";

    if (!one)
        return given && *given ? fault_set(f, -EINVAL, "%s: not among the inputs", row->name) : 0;
    if (!json_is_object(one))
        return fault_set(f, -EINVAL, "inputs: want objects");
    int r = json_get_string(one, "file", &file, f);
    if (r < 0 || (r = parse_file(one, &input->bytes, input->sha256, f)) < 0)
        return r;
    for (unsigned i = JOB_FORMAT_PNG; i <= JOB_FORMAT_JPEG; i++)
        if (strcmp(file, job_input_name(kind, i)) == 0)
            input->format = i;
    if (input->format == JOB_FORMAT_NONE || !given || strcmp(given, file) != 0)
        return fault_set(f, -EINVAL, "inputs: %s: file \"%.32s\"", row->name, file);
    return 0;
}

static int parse_inputs(const json_t *inputs, struct job *job, struct fault *f)
{
    int r = 0;

    if (inputs && !json_is_object(inputs))
        return fault_set(f, -EINVAL, "inputs: want an object");
    for (unsigned i = 0; i < JOB_INPUT_COUNT && r >= 0; i++)
        r = parse_input(json_object_get(inputs, request_rows[job_input_row(i)].name), job, i, f);
    return r;
}

int record_parse_request(const char *text, size_t length, struct job *job, struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    uint64_t id = 0;

    int r = parse(text, length, &root, f);
    if (r < 0 || (r = json_get_uint(root, "id", 0, INTEGER_MAX, &id, f)) < 0 ||
        (r = json_get_u32(root, "owner", 0, UINT32_MAX, &job->owner, f)) < 0 ||
        (r = json_get_uint(root, "created_usec", 0, INTEGER_MAX, &job->created_usec, f)) < 0 ||
        (r = json_get_uint(root, "deadline_uptime_usec", 0, INTEGER_MAX, &job->deadline_uptime_usec,
                           f)) < 0 ||
        (r = parse_origin(root, job, f)) < 0 ||
        (r = json_get_bool(root, "resolved", &job->is_resolved, f)) < 0)
        return r;
    if (id != job->id)
        return fault_set(f, -EINVAL, "id %" PRIu64 " in the folder of %" PRIu64, id, job->id);
    r = parse_rows(json_object_get(root, "request"), &job->request, f);
    return r < 0 ? r : parse_inputs(json_object_get(root, "inputs"), job, f);
}

static int parse_error(const json_t *root, struct job *job, struct fault *f)
{
    const char *pair[2] = {"", ""};
    size_t count = 0;

    int r = json_get_string_list(root, "error", 2, pair, &count, f);
    if (r < 0)
        return r;
    if (*pair[0])
        (void)fault_set(&job->error, error_from_word(pair[0]), "%s", pair[1]);
    return 0;
}

static int parse_warnings(const json_t *root, struct job *job, struct fault *f)
{
    const char *texts[JOB_WARNINGS_MAX];
    size_t count = 0;

    int r = json_get_string_list(root, "warnings", JOB_WARNINGS_MAX, texts, &count, f);
    for (size_t i = 0; r >= 0 && i < count; i++)
        r = job_add_warning(job, texts[i]);
    return r < 0 ? r : 0;
}

static int parse_picture(const json_t *one, struct job_picture *p, struct fault *f)
{
    int r = result_parse_picture(one, p, f);

    return r < 0 ? r : parse_file(one, &p->bytes, p->sha256, f);
}

static int parse_pictures(const json_t *root, struct job *job, struct fault *f)
{
    const json_t *list = json_object_get(root, "pictures");

    if (!json_is_array(list) || json_array_size(list) > REQUEST_PICTURES_MAX)
        return fault_set(f, -EINVAL, "pictures: want a list of at most %u", REQUEST_PICTURES_MAX);
    job->picture_count = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < job->picture_count; i++) {
        int r = parse_picture(json_array_get(list, i), &job->pictures[i], f);
        if (r < 0)
            return r;
    }
    return 0;
}

int record_parse_result(const char *text, size_t length, enum job_state state, struct job *job,
                        struct fault *f)
{
    _cleanup_(json_freep) json_t *root = NULL;
    const char *word = "";

    int r = parse(text, length, &root, f);
    if (r < 0 || (r = json_get_string(root, "state", &word, f)) < 0 ||
        (r = json_get_uint(root, "started_usec", 0, INTEGER_MAX, &job->started_usec, f)) < 0 ||
        (r = json_get_uint(root, "finished_usec", 0, INTEGER_MAX, &job->finished_usec, f)) < 0 ||
        (r = json_get_uint(root, "finished_uptime_usec", 0, INTEGER_MAX, &job->finished_uptime_usec,
                           f)) < 0 ||
        (r = parse_error(root, job, f)) < 0 || (r = parse_warnings(root, job, f)) < 0)
        return r;
    if (strcmp(word, job_state_to_string(state)) != 0)
        return fault_set(f, -EINVAL, "state \"%.40s\" in %s/", word, job_state_to_string(state));
    return parse_pictures(root, job, f);
}
