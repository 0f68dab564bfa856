/* One job directory: request.json, starts, result.json, pictures, and nothing else. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/check_internal.h"
#include "vk/base/json.h"
#include "vk/base/sha256.h"

#define FORMAT       2
#define PICTURES_MAX 64u
#define INPUT_MAX    (32u << 20) /* bytes */

struct place {
    struct check *check;
    int directory;
    struct check_job *job;
    char where[64]; /* "done/17" */
};

/* {"sha256": "<64 hex>",\n and then what the sum is over. */
static bool check_sum(const struct place *p, const char *name, const char *text, size_t size)
{
    static const char opening[] = "{\"sha256\": \"", closing[] = "\",\n";
    const size_t begin = sizeof opening - 1, after = begin + 64 + sizeof closing - 1;
    char sum[SHA256_HEX_SIZE];

    if (size < after || memcmp(text, opening, begin) != 0 ||
        memcmp(text + begin + 64, closing, sizeof closing - 1) != 0) {
        check_violation(p->check, "%s/%s: does not begin with its sum", p->where, name);
        return false;
    }
    sha256_hex(text + after, size - after, sum);
    if (memcmp(sum, text + begin, 64) == 0)
        return true;
    check_violation(p->check, "%s/%s: its sum is wrong", p->where, name);
    return false;
}

static json_t *read_record(const struct place *p, const char *name)
{
    json_error_t error;
    size_t size = 0;
    _cleanup_(freep) char *text = check_read_file(p->check, p->directory, name, p->where, &size);

    if (!text)
        return NULL;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        check_violation(p->check, "%s/%s: no JSON object: %s", p->where, name, error.text);
        json_decref(root);
        return NULL;
    }
    json_int_t format = json_integer_value(json_object_get(root, "format"));
    if (format != FORMAT)
        check_violation(p->check, "%s/%s: format %lld, want %d", p->where, name, (long long)format,
                        FORMAT);
    (void)check_sum(p, name, text, size);
    return root;
}

static uint64_t get_number(const struct place *p, const char *name, const json_t *object,
                           const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        check_violation(p->check, "%s/%s: %s is no number", p->where, name, key);
    return (uint64_t)json_integer_value(value);
}

static void take_text(char *to, size_t size, const json_t *value)
{
    if (json_is_string(value))
        (void)snprintf(to, size, "%s", json_string_value(value));
}

/* A picture that the job starts from: the record's, in full, and a PNG or JPEG by its first
 * bytes. */
static void check_input(const struct place *p, const char *row, const json_t *input)
{
    const char *file = json_string_value(json_object_get(input, "file"));
    const char *wanted = json_string_value(json_object_get(input, "sha256"));
    char sum[SHA256_HEX_SIZE];
    size_t size = 0;

    if (!file || !wanted ||
        (strcmp(file + strlen(file) - 4, ".png") != 0 &&
         strcmp(file + strlen(file) - 4, ".jpg") != 0)) {
        check_violation(p->check, "%s/request.json: input %s says too little", p->where, row);
        return;
    }
    _cleanup_(freep) char *data = check_read_file(p->check, p->directory, file, p->where, &size);
    if (!data)
        return;
    sha256_hex(data, size, sum);
    if (strcmp(sum, wanted) != 0 || size > INPUT_MAX ||
        get_number(p, "request.json", input, "bytes") != size)
        check_violation(p->check, "%s/%s: is not what request.json says", p->where, file);
    const char *head = file[strlen(file) - 3] == 'p' ? "\x89PNG" : "\xff\xd8\xff";
    if (size < 8 || memcmp(data, head, strlen(head)) != 0)
        check_violation(p->check, "%s/%s: is no picture", p->where, file);
    p->job->inputs++;
}

static void check_inputs(const struct place *p, const json_t *root, const json_t *request)
{
    static const char *const rows[] = {"image", "mask"};
    const json_t *inputs = json_object_get(root, "inputs"), *input;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const char *name = json_string_value(json_object_get(request, rows[i]));
        input = json_object_get(inputs, rows[i]);
        if ((name && *name) != (input != NULL))
            check_violation(p->check, "%s/request.json: %s, but its inputs say otherwise", p->where,
                            rows[i]);
        if (input)
            check_input(p, rows[i], input);
    }
}

static size_t count_prompts(const json_t *request)
{
    const char *text = json_string_value(json_object_get(request, "prompts"));
    _cleanup_(json_freep) json_t *list = text && *text ? json_loads(text, 0, NULL) : NULL;
    size_t count = json_array_size(list);

    return count ? count : 1;
}

static void check_request(const struct place *p)
{
    static const char name[] = "request.json";
    _cleanup_(json_freep) json_t *root = read_record(p, name);
    struct check_job *job = p->job;

    job->count = 1;
    if (!root)
        return;
    if (get_number(p, name, root, "id") != job->id)
        check_violation(p->check, "%s/%s: has another id", p->where, name);
    job->owner = get_number(p, name, root, "owner");
    (void)get_number(p, name, root, "created_usec");
    if (!json_is_boolean(json_object_get(root, "resolved")))
        check_violation(p->check, "%s/%s: resolved is no boolean", p->where, name);
    take_text(job->origin, sizeof job->origin, json_object_get(root, "origin"));
    const json_t *request = json_object_get(root, "request");
    if (!json_is_object(request))
        check_violation(p->check, "%s/%s: request is no object", p->where, name);
    take_text(job->token, sizeof job->token, json_object_get(request, "token"));
    const json_t *seed = json_object_get(request, "seed");
    job->has_seed = json_is_integer(seed);
    job->seed = (uint64_t)json_integer_value(seed);
    if (json_is_integer(json_object_get(request, "count")))
        job->count = (uint64_t)json_integer_value(json_object_get(request, "count"));
    job->count *= count_prompts(request);
    check_inputs(p, root, request);
}

static void check_starts(const struct place *p)
{
    unsigned starts, deaths;
    size_t size;
    int end = 0;

    if (faccessat(p->directory, "starts", F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
        if (p->job->state == CHECK_STATE_RUNNING || p->job->state == CHECK_STATE_DONE)
            check_violation(p->check, "%s: was started without a count", p->where);
        return;
    }
    _cleanup_(freep) char *text =
        check_read_file(p->check, p->directory, "starts", p->where, &size);
    if (!text)
        return;
    if (sscanf(text, "%u %u%n", &starts, &deaths, &end) != 2 || strcmp(text + end, "\n") != 0 ||
        deaths > starts)
        check_violation(p->check, "%s/starts: \"%.40s\"", p->where, text);
    else
        p->job->starts = starts;
}

/* want: what result.json says; NULL while the job has none. */
static void check_picture(const struct place *p, uint32_t index, const json_t *want)
{
    char name[16], where[96], sum[SHA256_HEX_SIZE];
    uint32_t width = 0, height = 0;
    size_t size = 0;

    (void)snprintf(name, sizeof name, "%" PRIu32 ".png", index);
    (void)snprintf(where, sizeof where, "%s/%s", p->where, name);
    _cleanup_(freep) char *data = check_read_file(p->check, p->directory, name, p->where, &size);
    if (!data || check_png(p->check, (uint8_t *)data, size, where, &width, &height) < 0 || !want)
        return;
    sha256_hex(data, size, sum);
    const char *wanted = json_string_value(json_object_get(want, "sha256"));
    if (!wanted || strcmp(sum, wanted) != 0)
        check_violation(p->check, "%s: SHA-256 is not result.json's", where);
    if (get_number(p, "result.json", want, "width") != width ||
        get_number(p, "result.json", want, "height") != height)
        check_violation(p->check, "%s: is %" PRIu32 "x%" PRIu32 ", result.json says otherwise",
                        where, width, height);
    if (p->job->has_seed && get_number(p, "result.json", want, "seed") != p->job->seed + index)
        check_violation(p->check, "%s: seed is not the request's", where);
}

/* Which pictures lie there; everything else must be known. */
static uint64_t check_names(const struct place *p)
{
    static const char *const known[] = {"request.json", "starts", "result.json", ".", ".."};
    static const char *const inputs[] = {"input.png", "input.jpg", "mask.png", "mask.jpg"};
    _cleanup_(closep) int fd = openat(p->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(closedirp) DIR *dir = fd < 0 ? NULL : fdopendir(TAKE_FD(fd));
    const struct dirent *entry;
    uint64_t pictures = 0;
    unsigned found = 0;

    while (dir && (entry = readdir(dir))) {
        struct stat st;
        unsigned index = 0;
        int end = 0;
        bool is_known = false;
        for (size_t i = 0; i < ARRAY_SIZE(known); i++)
            is_known |= strcmp(entry->d_name, known[i]) == 0;
        for (size_t i = 0; i < ARRAY_SIZE(inputs); i++) {
            bool is_input = strcmp(entry->d_name, inputs[i]) == 0;
            is_known |= is_input;
            found += is_input;
        }
        if (entry->d_name[0] != '.' &&
            fstatat(p->directory, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            p->job->bytes += (uint64_t)st.st_size;
        if (is_known)
            continue;
        if (sscanf(entry->d_name, "%2u.png%n", &index, &end) == 1 && end > 0 &&
            !entry->d_name[end] && index < PICTURES_MAX)
            pictures |= UINT64_C(1) << index;
        else
            check_violation(p->check, "%s/%s: has no business there", p->where, entry->d_name);
    }
    if (found != p->job->inputs)
        check_violation(p->check, "%s: %u inputs, request.json names %u", p->where, found,
                        p->job->inputs);
    return pictures;
}

static void check_result(const struct place *p, uint64_t pictures)
{
    static const char name[] = "result.json";
    _cleanup_(json_freep) json_t *root = read_record(p, name);

    if (!root)
        return;
    const char *state = json_string_value(json_object_get(root, "state"));
    if (!state || strcmp(state, check_state_names[p->job->state]) != 0)
        check_violation(p->check, "%s/%s: says \"%s\"", p->where, name, state ? state : "");
    const json_t *list = json_object_get(root, "pictures");
    const json_t *error = json_object_get(root, "error");
    const char *word = json_string_value(json_array_get(error, 0));
    size_t count = json_array_size(list);
    if (!word || (*word != '\0') != (p->job->state != CHECK_STATE_DONE))
        check_violation(p->check, "%s/%s: error \"%s\"", p->where, name, word ? word : "missing");
    if (p->job->state == CHECK_STATE_DONE && count != p->job->count)
        check_violation(p->check, "%s/%s: %zu pictures, asked for %" PRIu64, p->where, name, count,
                        p->job->count);
    uint64_t all = count == 0 ? 0 : UINT64_MAX >> (64 - (count < 64 ? count : 64));
    if (count > PICTURES_MAX || pictures != all)
        check_violation(p->check, "%s: %zu pictures in %s, files %#" PRIx64, p->where, count, name,
                        pictures);
    for (uint32_t i = 0; i < count && i < PICTURES_MAX; i++)
        if (pictures >> i & 1)
            check_picture(p, i, json_array_get(list, i));
}

void check_job_directory(struct check *check, int directory, struct check_job *job)
{
    struct place p = {.check = check, .directory = directory, .job = job};

    (void)snprintf(p.where, sizeof p.where, "%s/%" PRIu64, check_state_names[job->state], job->id);
    check_request(&p);
    check_starts(&p);
    uint64_t pictures = check_names(&p);
    if (check_state_is_final(job->state)) {
        check_result(&p, pictures);
        return;
    }
    for (uint32_t i = 0; i < PICTURES_MAX; i++)
        if (pictures >> i & 1)
            check_picture(&p, i, NULL);
}
