/* One pass over the file. inih is told to use the heap for lines (its default silently cuts them at
 * 200 bytes) and hands us (section, key, value); the line number comes from our own reader, which
 * feeds it. */
#include "daemon/config.h"

#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "vk/base/file.h"

#define LINE_MAX_BYTES 65536 /* a default negative prompt of the longest kind fits three times */

#define FIELD(name) offsetof(struct config, name)

#define ROW_TEXT(s, k, field, when, fallback, help)                                                \
    {                                                                                              \
        s, k, CONFIG_TYPE_TEXT, CONFIG_WHEN_##when, FIELD(field), fallback, 0, 0, "", help         \
    }
#define ROW_PATH(s, k, field, when, fallback, help)                                                \
    {                                                                                              \
        s, k, CONFIG_TYPE_PATH, CONFIG_WHEN_##when, FIELD(field), fallback, 0, 0, "", help         \
    }
#define ROW_NUMBER(s, k, field, when, fallback, min, max, help)                                    \
    {                                                                                              \
        s, k, CONFIG_TYPE_NUMBER, CONFIG_WHEN_##when, FIELD(field), fallback, min, max, "", help   \
    }
#define ROW_WORD(s, k, field, when, fallback, values, help)                                        \
    {                                                                                              \
        s, k, CONFIG_TYPE_WORD, CONFIG_WHEN_##when, FIELD(field), fallback, 0, 0, values, help     \
    }

const struct config_row config_rows[] = {
    ROW_PATH("model", "path", model_path, WORKER, "",
             "directory of the model: tokenizer, text_encoder, unet, vae, scheduler"),
    ROW_TEXT("device", "node", device_node, RESTART, "",
             "render nodes, PCI ids or indices, one worker each; empty: the best device"),
    ROW_WORD("device", "allow_cpu", allow_cpu, WORKER, "auto", "auto yes no",
             "whether a software device may be used; auto: if nothing else exists"),
    ROW_WORD("device", "pause_when_hot", pause_when_hot, LIVE, "yes", "no yes",
             "wait between steps while a thermal zone is over its passive trip point"),
    ROW_PATH("spool", "path", spool_path, RESTART, "/var/spool/diffused",
             "where jobs and pictures are kept"),
    ROW_NUMBER("spool", "retain_minutes", retain_minutes, LIVE, "10080", 0, 100 * 525960,
               "minutes of the service's own running time a finished job is kept; 0: no limit"),
    ROW_NUMBER("spool", "retain_jobs", retain_jobs, LIVE, "1000", 0, 1000000,
               "finished jobs that are kept, the oldest goes first; 0: no limit"),
    ROW_NUMBER("spool", "retain_megabytes", retain_megabytes, LIVE, "1024", 0, 1u << 30,
               "MB that finished jobs may take, the oldest goes first; 0: no limit"),
    ROW_NUMBER("spool", "keep_free_megabytes", keep_free_megabytes, LIVE, "64", 0, 1u << 30,
               "MB to keep free: below them finished jobs go and no job is taken in; 0: none"),
    ROW_WORD("spool", "group_readable", spool_group_readable, RESTART, "no", "no yes",
             "whether the group of [access] may read the pictures' files"),
    ROW_PATH("drop", "path", drop_path, RESTART, "/var/lib/diffused/drop",
             "drop folder: what is put there becomes a job; empty: none"),
    ROW_NUMBER("limits", "queue", limit_queue, LIVE, "100", 1, 100000, "jobs that may wait"),
    ROW_NUMBER("limits", "pixels", limit_pixels, LIVE, "0", 0, 2048 * 2048,
               "width * height of one picture at most; 0: what the device can hold"),
    ROW_NUMBER("limits", "user_jobs", limit_user_jobs, LIVE, "50", 0, 100000,
               "jobs of one user that may wait or run; 0: no limit"),
    ROW_NUMBER("limits", "user_megabytes", limit_user_megabytes, LIVE, "0", 0, 1u << 30,
               "MB of the spool one user may fill; 0: no limit"),
    ROW_NUMBER("limits", "user_descriptors", limit_user_descriptors, LIVE, "64", 0, 100000,
               "pictures on their way to one user as descriptors; 0: no limit"),
    ROW_NUMBER("limits", "calls_per_second", limit_calls_per_second, LIVE, "200", 0, 1000000,
               "calls of one user over the bus; 0: no limit"),
    ROW_NUMBER("limits", "calls_burst", limit_calls_burst, LIVE, "500", 1, 1000000,
               "calls of one user at once before calls_per_second counts"),
    ROW_WORD("png", "metadata", png_metadata, WORKER, "full", "full provenance none",
             "what a PNG says about its making"),
    ROW_TEXT(
        "access", "group", access_group, LIVE, "diffused",
        "members may submit jobs; where it does not exist only root and the daemon's own user"),
    ROW_PATH("access", "word_list", word_list, LIVE, "",
             "file of words, one a line: prompts with one of them are refused; empty: none"),
};
const size_t config_row_count = ARRAY_SIZE(config_rows);

struct reading {
    const char *text, *end; /* what is left */
    const char *name, *directory;
    unsigned line;
    bool too_long;
    struct config *config;
    struct fault *fault;
    int r;
};

static int bad(struct reading *in, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int bad(struct reading *in, const char *format, ...)
{
    char text[192];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    in->r = fault_set(in->fault, -EINVAL, "%s:%u: %s", in->name, in->line, text);
    return in->r;
}

static int replace_text(char **field, const char *value)
{
    char *copy = NULL;

    if (*value) {
        copy = strdup(value);
        if (!copy)
            return -ENOMEM;
    }
    free(*field);
    *field = copy;
    return 0;
}

static int replace_path(char **field, const char *value, const char *directory)
{
    char joined[PATH_MAX];

    if (!*value || *value == '/')
        return replace_text(field, value);
    if (snprintf(joined, sizeof joined, "%s/%s", directory, value) >= (int)sizeof joined)
        return -ENAMETOOLONG;
    return replace_text(field, joined);
}

static int parse_number(const char *text, const struct config_row *row, uint64_t *ret_value)
{
    char *end;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || value < row->min || value > row->max)
        return -EINVAL;
    *ret_value = value;
    return 0;
}

/* Index of `word` in a blank separated list. */
static int find_word(const char *list, const char *word, uint32_t *ret_index)
{
    size_t length = strlen(word);
    uint32_t index = 0;

    for (const char *p = list; *p; index++) {
        size_t n = strcspn(p, " ");
        if (n == length && strncmp(p, word, n) == 0) {
            *ret_index = index;
            return 0;
        }
        p += n + (p[n] == ' ');
    }
    return -EINVAL;
}

static int set_row(struct config *config, const struct config_row *row, const char *value,
                   const char *directory)
{
    void *field = (char *)config + row->offset;

    switch (row->type) {
    case CONFIG_TYPE_TEXT:
        return replace_text(field, value);
    case CONFIG_TYPE_PATH:
        return replace_path(field, value, directory);
    case CONFIG_TYPE_NUMBER:
        return parse_number(value, row, field);
    case CONFIG_TYPE_WORD:
        return find_word(row->values, value, field);
    }
    return -EINVAL;
}

static void warn(struct reading *in, const char *what, const char *which)
{
    struct config *c = in->config;
    char *text = NULL;

    if (c->warning_count == CONFIG_WARNINGS_MAX)
        return;
    if (asprintf(&text, "%s:%u: unknown %s \"%s\", ignoring", in->name, in->line, what, which) >= 0)
        c->warnings[c->warning_count++] = text;
}

/* Rows that belong to one job alone. */
static bool is_of_one_job(const struct request_row *row)
{
    static const char *const names[] = {"prompt", "token", "preset"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(row->name, names[i]) == 0)
            return true;
    return false;
}

static int set_request_row(struct reading *in, struct request *request, const char *section,
                           const char *key, const char *value)
{
    const struct request_row *row = request_row_find(key);
    struct fault f = {0};

    if (!row || is_of_one_job(row)) {
        warn(in, "key in a section of job options:", key);
        return 0;
    }
    int r = request_set_text(request, row, value, strlen(value), &f);
    if (r < 0)
        return bad(in, "[%s] %s", section, f.text);
    return 0;
}

static bool is_preset_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return n >= 1 && n <= CONFIG_NAME_MAX && !name[n] && name[0] != '.' && name[0] != '-';
}

static struct config_preset *find_preset(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->preset_count; i++)
        if (strcmp(config->presets[i].name, name) == 0)
            return (struct config_preset *)&config->presets[i];
    return NULL;
}

/* NULL: in->r says why. */
static struct config_preset *get_preset(struct reading *in, const char *name)
{
    struct config *c = in->config;
    struct config_preset *preset = find_preset(c, name);

    if (preset)
        return preset;
    if (!is_preset_name(name))
        (void)bad(in, "[preset %.40s]: want a name of letters, digits, '.', '_', '-'", name);
    else if (c->preset_count == CONFIG_PRESETS_MAX)
        (void)bad(in, "[preset %.40s]: more than %u presets", name, CONFIG_PRESETS_MAX);
    else if (!(c->presets[c->preset_count].name = strdup(name)))
        (void)bad(in, "out of memory");
    if (in->r < 0)
        return NULL;
    return &c->presets[c->preset_count++];
}

static int set_preset_row(struct reading *in, const char *section, const char *key,
                          const char *value)
{
    struct config_preset *preset = get_preset(in, section + strlen("preset "));

    return preset ? set_request_row(in, &preset->request, section, key, value) : in->r;
}

static const struct config_row *find_row(const char *section, const char *key, bool *ret_section)
{
    *ret_section = false;
    for (size_t i = 0; i < config_row_count; i++) {
        if (strcmp(config_rows[i].section, section) != 0)
            continue;
        *ret_section = true;
        if (strcmp(config_rows[i].key, key) == 0)
            return &config_rows[i];
    }
    return NULL;
}

static void explain_bad_value(struct reading *in, const struct config_row *row, const char *value)
{
    if (row->type == CONFIG_TYPE_NUMBER)
        (void)bad(in, "[%s] %s = \"%.40s\": want a number from %" PRIu64 " to %" PRIu64,
                  row->section, row->key, value, row->min, row->max);
    else if (row->type == CONFIG_TYPE_WORD)
        (void)bad(in, "[%s] %s = \"%.40s\": want one of: %s", row->section, row->key, value,
                  row->values);
    else
        (void)bad(in, "[%s] %s: cannot be taken", row->section, row->key);
}

/* inih's convention: 0 is an error, anything else goes on. */
static int on_value(void *userdata, const char *section, const char *key, const char *value)
{
    struct reading *in = userdata;
    bool section_known;

    if (strcmp(section, "defaults") == 0)
        return set_request_row(in, &in->config->defaults, section, key, value) >= 0;
    if (strncmp(section, "preset ", strlen("preset ")) == 0)
        return set_preset_row(in, section, key, value) >= 0;
    const struct config_row *row = find_row(section, key, &section_known);
    if (!row) {
        warn(in, section_known ? "key" : "section of key", key);
        return 1;
    }
    int r = set_row(in->config, row, value, in->directory);
    if (r == -ENOMEM)
        in->r = fault_set(in->fault, r, "%s: out of memory", in->name);
    else if (r < 0)
        explain_bad_value(in, row, value);
    return r >= 0;
}

/* fgets over memory that counts lines and refuses those that would be cut. */
static char *read_line(char *line, int size, void *userdata)
{
    struct reading *in = userdata;

    if (in->text == in->end)
        return NULL;
    const char *newline = memchr(in->text, '\n', (size_t)(in->end - in->text));
    size_t n = newline ? (size_t)(newline - in->text) + 1 : (size_t)(in->end - in->text);
    in->line++;
    if (n + 1 > (size_t)size) {
        in->too_long = true;
        return NULL;
    }
    memcpy(line, in->text, n);
    line[n] = '\0';
    in->text += n;
    return line;
}

static void set_up_inih(void)
{
    ini_use_stack = false;
    ini_allow_realloc = false;
    ini_initial_alloc = LINE_MAX_BYTES;
    ini_max_line = LINE_MAX_BYTES;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_stop_on_first_error = true;
}

int config_init(struct config *ret_config)
{
    struct config config = {0};

    for (size_t i = 0; i < config_row_count; i++) {
        int r = set_row(&config, &config_rows[i], config_rows[i].default_text, "/");
        if (r < 0) {
            config_done(&config);
            return r;
        }
    }
    *ret_config = config;
    return 0;
}

/* Fills device_nodes[] from device_node. */
static int split_devices(struct config *config, struct fault *f)
{
    for (const char *p = config->device_node ? config->device_node : ""; *p;) {
        p += strspn(p, " \t");
        size_t n = strcspn(p, " \t");
        if (n == 0)
            return 0;
        if (config->device_node_count == CONFIG_DEVICES_MAX)
            return fault_set(f, -EINVAL, "[device] node: more than %u devices", CONFIG_DEVICES_MAX);
        config->device_nodes[config->device_node_count] = strndup(p, n);
        if (!config->device_nodes[config->device_node_count])
            return fault_set(f, -ENOMEM, "out of memory");
        config->device_node_count++;
        p += n;
    }
    return 0;
}

int config_parse(const char *text, size_t length, const char *name, const char *directory,
                 struct config *ret_config, struct fault *f)
{
    struct config config;
    struct reading in = {.text = text,
                         .end = text + length,
                         .name = name,
                         .directory = directory,
                         .config = &config,
                         .fault = f};

    if (memchr(text, '\0', length))
        return fault_set(f, -EINVAL, "%s: holds a NUL byte; want a text file", name);
    if (config_init(&config) < 0)
        return fault_set(f, -ENOMEM, "%s: out of memory", name);
    set_up_inih();
    int r = ini_parse_stream(read_line, &in, on_value, &in);
    if (in.r == 0 && in.too_long)
        (void)bad(&in, "line longer than %d bytes", LINE_MAX_BYTES - 1);
    if (in.r == 0 && r != 0) {
        in.line = r > 0 ? (unsigned)r : in.line;
        (void)bad(&in, "want [section], key = value, or a comment");
    }
    if (in.r == 0)
        in.r = split_devices(&config, f);
    if (in.r < 0) {
        config_done(&config);
        return in.r;
    }
    *ret_config = config;
    return 0;
}

int config_read(const char *path, struct config *ret_config, struct fault *f)
{
    _cleanup_(freep) char *text = NULL;
    size_t length;

    int r = file_read(path, CONFIG_FILE_MAX, &text, &length, f);
    if (r < 0)
        return r;
    _cleanup_(freep) char *full = realpath(path, NULL);
    if (!full)
        return fault_set(f, -errno, "%s: %s", path, strerror(errno));
    *strrchr(full, '/') = '\0';
    return config_parse(text, length, path, full, ret_config, f);
}

const struct request *config_find_preset(const struct config *config, const char *name)
{
    const struct config_preset *preset = find_preset(config, name);

    return preset ? &preset->request : NULL;
}

const char *config_refused_word(const struct config *config, const char *text)
{
    (void)config;
    (void)text;
    return NULL;
}

const char *config_word(const char *section, const char *key, uint32_t value, char *buffer,
                        size_t size)
{
    bool section_known;
    const struct config_row *row = find_row(section, key, &section_known);
    const char *p = row ? row->values : "";

    for (; value > 0 && *p; value--) {
        p += strcspn(p, " ");
        p += *p == ' ';
    }
    (void)snprintf(buffer, size, "%.*s", (int)strcspn(p, " "), p);
    return buffer;
}

void config_done(struct config *config)
{
    free(config->model_path);
    free(config->device_node);
    free(config->spool_path);
    for (size_t i = 0; i < config->device_node_count; i++)
        free(config->device_nodes[i]);
    free(config->drop_path);
    free(config->access_group);
    free(config->word_list);
    request_done(&config->defaults);
    for (size_t i = 0; i < config->preset_count; i++) {
        free(config->presets[i].name);
        request_done(&config->presets[i].request);
    }
    for (size_t i = 0; i < config->warning_count; i++)
        free(config->warnings[i]);
    *config = (struct config){0};
}
