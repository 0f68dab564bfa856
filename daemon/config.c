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

const struct config_row config_rows[] = {
    {"model", "path", CONFIG_TYPE_PATH, FIELD(model_path), "", 0, 0, "",
     "directory of the model: tokenizer, text_encoder, unet, vae, scheduler"},
    {"device", "node", CONFIG_TYPE_TEXT, FIELD(device_node), "", 0, 0, "",
     "render node, PCI id or index; empty: the best device"},
    {"device", "allow_cpu", CONFIG_TYPE_WORD, FIELD(allow_cpu), "auto", 0, 0, "auto yes no",
     "whether a software device may be used; auto: if nothing else exists"},
    {"spool", "path", CONFIG_TYPE_PATH, FIELD(spool_path), "/var/spool/diffused", 0, 0, "",
     "where jobs and pictures are kept"},
    {"limits", "queue", CONFIG_TYPE_NUMBER, FIELD(limit_queue), "100", 1, 100000, "",
     "jobs that may wait"},
    {"limits", "pixels", CONFIG_TYPE_NUMBER, FIELD(limit_pixels), "0", 0, 2048 * 2048, "",
     "width * height of one picture at most; 0: what the device can hold"},
    {"png", "metadata", CONFIG_TYPE_WORD, FIELD(png_metadata), "full", 0, 0, "full provenance none",
     "what a PNG says about its making"},
    {"access", "group", CONFIG_TYPE_TEXT, FIELD(access_group), "diffused", 0, 0, "",
     "members may submit jobs; where it does not exist only root and the daemon's own user"},
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

static int set_default(struct reading *in, const char *key, const char *value)
{
    const struct request_row *row = request_row_find(key);
    struct fault f = {0};

    if (!row || row == &request_rows[REQUEST_prompt]) {
        warn(in, "key in [defaults]:", key);
        return 0;
    }
    int r = request_set_text(&in->config->defaults, row, value, strlen(value), &f);
    if (r < 0)
        return bad(in, "[defaults] %s", f.text);
    return 0;
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
        return set_default(in, key, value) >= 0;
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
    free(config->access_group);
    request_done(&config->defaults);
    for (size_t i = 0; i < config->warning_count; i++)
        free(config->warnings[i]);
    *config = (struct config){0};
}
