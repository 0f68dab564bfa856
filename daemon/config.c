/* Reading: each file in one pass over the values so far, then what needs all of them (devices, word
 * list). inih is told to use the heap for lines (its default silently cuts them at 200 bytes) and
 * hands us (section, key, value); line numbers and the heads of sections come from our own reader,
 * which feeds it. */
#include "daemon/config.h"

#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "daemon/config-internal.h"
#include "daemon/words.h"
#include "vk/base/file.h"

#define LINE_MAX_BYTES 65536 /* a default negative prompt of the longest kind fits three times */
#define PRESET         "preset "
#define MODEL          "model "

struct reading {
    const char *text, *end; /* what is left */
    const char *name, *directory;
    struct config_origin here;
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
    in->r = fault_set(in->fault, -EINVAL, "%s:%u: %s", in->name, in->here.line, text);
    return in->r;
}

static int out_of_memory(struct reading *in)
{
    in->r = fault_set(in->fault, -ENOMEM, "%s: out of memory", in->name);
    return in->r;
}

static void warn(struct reading *in, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(struct reading *in, const char *format, ...)
{
    struct config *c = in->config;
    char text[192], *line = NULL;
    va_list args;

    if (c->warning_count == CONFIG_WARNINGS_MAX)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (asprintf(&line, "%s:%u: %s", in->name, in->here.line, text) >= 0)
        c->warnings[c->warning_count++] = line;
}

/* Remembers where a value was set; a second time in one file is mostly a mistake. */
static void mark(struct reading *in, struct config_origin *origin, const char *section,
                 const char *key)
{
    if (origin->file == in->here.file)
        warn(in, "[%.48s] %.48s was set in line %u already; this one counts", section, key,
             origin->line);
    *origin = in->here;
}

/* --- [defaults] and [preset NAME] ------------------------------------------------------------- */

static int set_request_row(struct reading *in, struct request *request,
                           struct config_origin *origins, const char *section, const char *key,
                           const char *value)
{
    const struct request_row *row = request_row_find(key);
    struct fault f = {0};

    if (!row) {
        warn(in, "unknown key \"%.48s\" in [%.48s], ignoring", key, section);
        return 0;
    }
    if (config_is_of_one_job(row)) {
        warn(in, "[%.48s] %s: belongs to one job alone, ignoring", section, row->name);
        return 0;
    }
    int r = request_set_text(request, row, value, strlen(value), &f);
    if (r == -ENOMEM)
        return out_of_memory(in);
    if (r < 0)
        return bad(in, "[%.48s] %s", section, f.text);
    mark(in, &origins[row - request_rows], section, row->name);
    return 0;
}

static bool is_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return n >= 1 && n <= CONFIG_NAME_MAX && !name[n] && name[0] != '.' && name[0] != '-';
}

static size_t find_preset(const struct config *config, const char *name)
{
    size_t i = 0;

    while (i < config->preset_count && strcmp(config->presets[i].name, name) != 0)
        i++;
    return i;
}

static int begin_preset(struct reading *in, const char *name)
{
    struct config *c = in->config;
    size_t i = find_preset(c, name);
    struct config_preset *preset = &c->presets[i];

    if (i < c->preset_count && preset->origin.file == in->here.file)
        return bad(in, "[preset %.48s] was begun in line %u already", name, preset->origin.line);
    if (i < c->preset_count) { /* a later file goes on with it */
        preset->origin = in->here;
        return 0;
    }
    if (!is_name(name))
        return bad(in, "[preset %.48s]: want a name of 1 to %u letters, digits, '.', '_', '-'",
                   name, CONFIG_NAME_MAX);
    if (i == CONFIG_PRESETS_MAX)
        return bad(in, "[preset %.48s]: more than %u presets", name, CONFIG_PRESETS_MAX);
    preset->name = strdup(name);
    if (!preset->name)
        return out_of_memory(in);
    preset->origin = in->here;
    c->preset_count++;
    return 0;
}

/* --- [model NAME] ----------------------------------------------------------------------------- */

static size_t find_model(const struct config *config, const char *name)
{
    size_t i = 0;

    while (i < config->model_count && strcmp(config->models[i].name, name) != 0)
        i++;
    return i;
}

static int begin_model(struct reading *in, const char *name)
{
    struct config *c = in->config;
    size_t i = find_model(c, name);
    struct config_model *model = &c->models[i];

    if (i < c->model_count && model->origin.file == in->here.file)
        return bad(in, "[model %.48s] was begun in line %u already", name, model->origin.line);
    if (i < c->model_count) { /* a later file goes on with it */
        model->origin = in->here;
        return 0;
    }
    if (!is_name(name))
        return bad(in, "[model %.48s]: want a name of 1 to %u letters, digits, '.', '_', '-'", name,
                   CONFIG_NAME_MAX);
    if (i == CONFIG_MODELS_MAX)
        return bad(in, "[model %.48s]: more than %u models", name, CONFIG_MODELS_MAX);
    model->name = strdup(name);
    if (!model->name)
        return out_of_memory(in);
    model->origin = in->here;
    c->model_count++;
    return 0;
}

static int set_model(struct reading *in, const char *section, const char *key, const char *value)
{
    struct config *c = in->config;
    size_t i = find_model(c, section + strlen(MODEL));
    struct config_model *model = &c->models[i];

    if (i == c->model_count) /* inih and we read the head of the section differently */
        return bad(in, "[%.48s]: cannot be read", section);
    if (strcmp(key, "path") != 0) {
        warn(in, "unknown key \"%.48s\" in [%.48s], ignoring", key, section);
        return 0;
    }
    int r = config_set_path(&model->path, value, in->directory);
    if (r == -ENOMEM)
        return out_of_memory(in);
    if (r < 0)
        return bad(in, "[%.48s] path: path too long", section);
    mark(in, &model->path_origin, section, key);
    return 0;
}

/* --- lines ------------------------------------------------------------------------------------ */

static bool is_section(const char *name)
{
    bool known;

    (void)config_row_find(name, "", &known);
    return known || strcmp(name, "defaults") == 0;
}

/* A line's "[name]", as inih reads it. */
static int begin_section(struct reading *in, const char *line)
{
    char name[128];
    bool has_mark = in->here.line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0;
    const char *p = line + (has_mark ? 3 : 0);

    p += strspn(p, " \t\r\f\v");
    const char *end = *p == '[' ? strchr(p, ']') : NULL;

    if (!end)
        return 0;
    (void)snprintf(name, sizeof name, "%.*s", (int)(end - p - 1), p + 1);
    if (strncmp(name, PRESET, strlen(PRESET)) == 0)
        return begin_preset(in, name + strlen(PRESET));
    if (strncmp(name, MODEL, strlen(MODEL)) == 0)
        return begin_model(in, name + strlen(MODEL));
    if (!is_section(name))
        warn(in, "unknown section [%.48s], ignoring", name);
    return 0;
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
        (void)bad(in, "[%s] %s: path too long", row->section, row->key);
}

static int set_row(struct reading *in, const char *section, const char *key, const char *value)
{
    bool section_known;
    const struct config_row *row = config_row_find(section, key, &section_known);

    if (!row) {
        if (section_known)
            warn(in, "unknown key \"%.48s\" in [%s], ignoring", key, section);
        else if (!*section)
            warn(in, "\"%.48s\" stands before any [section], ignoring", key);
        return 0;
    }
    int r = config_row_set(in->config, row, value, in->directory);
    if (r == -ENOMEM)
        return out_of_memory(in);
    if (r < 0)
        explain_bad_value(in, row, value);
    else
        mark(in, &in->config->row_origins[row - config_rows], section, key);
    return in->r;
}

/* inih's convention: 0 is an error, anything else goes on. */
static int on_value(void *userdata, const char *section, const char *key, const char *value)
{
    struct reading *in = userdata;
    struct config *c = in->config;

    if (strcmp(section, "defaults") == 0)
        return set_request_row(in, &c->defaults, c->default_origins, section, key, value) >= 0;
    if (strncmp(section, MODEL, strlen(MODEL)) == 0)
        return set_model(in, section, key, value) >= 0;
    if (strncmp(section, PRESET, strlen(PRESET)) != 0)
        return set_row(in, section, key, value) >= 0;
    size_t i = find_preset(c, section + strlen(PRESET));
    if (i == c->preset_count) { /* inih and we read the head of the section differently */
        (void)bad(in, "[%.48s]: cannot be read", section);
        return 0;
    }
    struct config_preset *p = &c->presets[i];
    return set_request_row(in, &p->request, p->row_origins, section, key, value) >= 0;
}

/* fgets over memory that counts lines and refuses those that would be cut. */
static char *read_line(char *line, int size, void *userdata)
{
    struct reading *in = userdata;

    if (in->text == in->end || in->r < 0)
        return NULL;
    const char *newline = memchr(in->text, '\n', (size_t)(in->end - in->text));
    size_t n = newline ? (size_t)(newline - in->text) + 1 : (size_t)(in->end - in->text);
    in->here.line++;
    if (n + 1 > (size_t)size) {
        in->too_long = true;
        return NULL;
    }
    memcpy(line, in->text, n);
    line[n] = '\0';
    in->text += n;
    return begin_section(in, line) < 0 ? NULL : line;
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

/* --- files ------------------------------------------------------------------------------------ */

/* -ENOENT and the like are words for FILE alone: what is wrong with another file is a fault of the
 * content. */
static int as_content(int r, struct fault *f)
{
    if (r >= 0 || r == -ENOMEM)
        return r;
    if (f)
        f->err = -EINVAL;
    return -EINVAL;
}

/* Puts one file over the values in `config`. */
static int take_text(struct config *config, const char *text, size_t length, const char *name,
                     const char *directory, struct fault *f)
{
    struct reading in = {.text = text,
                         .end = text + length,
                         .name = name,
                         .directory = directory,
                         .config = config,
                         .fault = f};

    if (memchr(text, '\0', length))
        return fault_set(f, -EINVAL, "%s: holds a NUL byte; want a text file", name);
    config->files[config->file_count] = strdup(name);
    if (!config->files[config->file_count])
        return out_of_memory(&in);
    in.here.file = (uint32_t)++config->file_count;
    set_up_inih();
    int r = ini_parse_stream(read_line, &in, on_value, &in);
    if (in.r == 0 && in.too_long)
        (void)bad(&in, "line longer than %d bytes", LINE_MAX_BYTES - 1);
    if (in.r == 0 && r == -2) /* inih's word for it */
        (void)out_of_memory(&in);
    if (in.r == 0 && r != 0) {
        in.here.line = r > 0 ? (unsigned)r : in.here.line;
        (void)bad(&in, "want [section], key = value, or a comment");
    }
    return in.r;
}

static int take_file(struct config *config, const char *path, struct fault *f)
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
    return take_text(config, text, length, path, full, f);
}

static int take_dropins(struct config *config, const char *path, struct fault *f)
{
    struct config_files files;

    int r = config_find_dropins(path, &files, f);
    if (r < 0)
        return r;
    for (size_t i = 0; i < files.count && r >= 0; i++)
        r = take_file(config, files.paths[i], f);
    config_files_done(&files);
    return r;
}

/* Puts the place of a key before a fault that was found after reading. */
static int blame(const struct config *config, const char *section, const char *key, int err,
                 struct fault *f)
{
    bool known;
    const struct config_row *row = config_row_find(section, key, &known);
    const struct config_origin *at = &config->row_origins[row - config_rows];

    if (at->file)
        return fault_prefix(f, err, "%s:%u: [%s] %s", config->files[at->file - 1], at->line,
                            section, key);
    return fault_prefix(f, err, "[%s] %s", section, key);
}

/* Every model has a path and a name of its own. */
static int check_models(const struct config *config, struct fault *f)
{
    char name[CONFIG_NAME_MAX + 1];

    config_default_model(config, name, sizeof name);
    for (size_t i = 0; i < config->model_count; i++) {
        const struct config_model *model = &config->models[i];
        const char *file = config->files[model->origin.file - 1];
        if (!model->path)
            return fault_set(f, -EINVAL, "%s:%u: [model %s]: path is missing", file,
                             model->origin.line, model->name);
        if (strcmp(model->name, name) == 0)
            return fault_set(f, -EINVAL,
                             "%s:%u: [model %s]: the default model's directory has this name", file,
                             model->origin.line, name);
    }
    return 0;
}

/* What needs all files. */
static int finish(struct config *config, struct fault *f)
{
    int r = config_split_devices(config, f);

    if (r < 0)
        return blame(config, "device", "node", r, f);
    r = check_models(config, f);
    if (r < 0)
        return r;
    if (!config->spool_path) {
        r = fault_set(f, -EINVAL, "must not be empty");
        return blame(config, "spool", "path", r, f);
    }
    if (config->word_list)
        r = as_content(words_read(config->word_list, &config->words, f), f);
    return r < 0 ? blame(config, "access", "word_list", r, f) : 0;
}

int config_parse(const char *text, size_t length, const char *name, const char *directory,
                 struct config *ret_config, struct fault *f)
{
    struct config config;

    if (config_init(&config) < 0)
        return fault_set(f, -ENOMEM, "%s: out of memory", name);
    int r = take_text(&config, text, length, name, directory, f);
    if (r >= 0)
        r = finish(&config, f);
    if (r < 0) {
        config_done(&config);
        return r;
    }
    *ret_config = config;
    return 0;
}

/* FILE itself. The installed one may be absent. */
static int take_main_file(struct config *config, const char *path, struct fault *f)
{
    struct fault own = {0};
    int r = take_file(config, path, &own);

    if (r == -ENOENT && strcmp(path, CONFIG_FILE) == 0) {
        if (asprintf(&config->warnings[0], "%s; built-in values stand for it", own.text) >= 0)
            config->warning_count = 1;
        return 0;
    }
    return r < 0 ? fault_set(f, r, "%s", own.text) : 0;
}

int config_read(const char *path, struct config *ret_config, struct fault *f)
{
    struct config config;

    if (config_init(&config) < 0)
        return fault_set(f, -ENOMEM, "%s: out of memory", path);
    int r = take_main_file(&config, path, f);
    if (r >= 0) {
        r = as_content(take_dropins(&config, path, f), f);
        r = r < 0 ? r : finish(&config, f);
    }
    if (r < 0) {
        config_done(&config);
        return r;
    }
    *ret_config = config;
    return 0;
}

int config_check(const char *path, FILE *err)
{
    struct config config = {0};
    struct fault f = {0};
    int r = config_read(path, &config, &f);

    for (size_t i = 0; i < config.warning_count; i++)
        (void)fprintf(err, "warning: %s\n", config.warnings[i]);
    if (r < 0)
        (void)fprintf(err, "error: %s\n", f.text);
    config_done(&config);
    return r;
}

/* --- questions -------------------------------------------------------------------------------- */

const struct request *config_find_preset(const struct config *config, const char *name)
{
    size_t i = find_preset(config, name);

    return i < config->preset_count ? &config->presets[i].request : NULL;
}

void config_default_model(const struct config *config, char *ret_name, size_t size)
{
    const char *path = config->model_path ? config->model_path : "";
    size_t n = strlen(path);

    while (n > 0 && path[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/')
        start--;
    (void)snprintf(ret_name, size, "%.*s", (int)(n - start), path + start);
}

const char *config_refused_word(const struct config *config, const char *text)
{
    const char *place;
    int r = config->words && text ? words_find(config->words, text, &place) : 0;

    if (r < 0)
        return "out of memory";
    return r > 0 ? place : NULL;
}

void config_done(struct config *config)
{
    free(config->model_path);
    free(config->loras_path);
    for (size_t i = 0; i < config->model_count; i++) {
        free(config->models[i].name);
        free(config->models[i].path);
    }
    free(config->device_node);
    config_forget_devices(config);
    free(config->spool_path);
    free(config->drop_path);
    free(config->access_group);
    free(config->word_list);
    config->words = words_free(config->words);
    request_done(&config->defaults);
    for (size_t i = 0; i < config->preset_count; i++) {
        free(config->presets[i].name);
        request_done(&config->presets[i].request);
    }
    for (size_t i = 0; i < config->file_count; i++)
        free(config->files[i]);
    for (size_t i = 0; i < config->warning_count; i++)
        free(config->warnings[i]);
    *config = (struct config){0};
}
