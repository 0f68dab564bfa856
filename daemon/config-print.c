/* The configuration as a file, and what differs between two of them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/config-internal.h"

#define COLUMNS 100

/* --- printing --------------------------------------------------------------------------------- */

/* Comment lines, broken at blanks. */
static void print_comment(FILE *to, const char *text)
{
    size_t room = COLUMNS - strlen("# ");

    while (*text) {
        size_t n = strlen(text);
        if (n > room) {
            for (n = room; n > 0 && text[n] != ' '; n--)
                ;
            n = n ? n : strcspn(text, " ");
        }
        (void)fprintf(to, "# %.*s\n", (int)n, text);
        text += n;
        text += strspn(text, " ");
    }
}

static void print_origin(FILE *to, const struct config *config, const struct config_origin *origin)
{
    if (origin->file)
        (void)fprintf(to, "# set in %s:%" PRIu32 "\n", config->files[origin->file - 1],
                      origin->line);
}

static void print_value(FILE *to, const char *key, const char *value, bool is_comment)
{
    (void)fprintf(to, "%s%s =%s%s\n", is_comment ? "#" : "", key, *value ? " " : "", value);
}

static int print_row(FILE *to, const struct config *config, const struct config_row *row)
{
    static const char *const whens[] = {
        [CONFIG_WHEN_LIVE] = "",
        [CONFIG_WHEN_WORKER] = " A change replaces the worker.",
        [CONFIG_WHEN_RESTART] = " A change counts when the service starts.",
    };
    const struct config_origin *origin = &config->row_origins[row - config_rows];
    _cleanup_(freep) char *text = NULL, *value = NULL;
    char legal[128] = "";

    if (row->type == CONFIG_TYPE_NUMBER)
        (void)snprintf(legal, sizeof legal, " (%" PRIu64 " to %" PRIu64 ")", row->min, row->max);
    else if (row->type == CONFIG_TYPE_WORD)
        (void)snprintf(legal, sizeof legal, " (one of: %s)", row->values);
    if (asprintf(&text, "%s%s%s", row->help, legal, whens[row->when]) < 0)
        return -ENOMEM;
    int r = config_row_format(config, row, &value);
    if (r < 0)
        return r;
    print_comment(to, text);
    print_origin(to, config, origin);
    print_value(to, row->key, value, !origin->file && strcmp(value, row->default_text) == 0);
    return 0;
}

/* The rows of [defaults]: all; of a preset: those it sets. */
static int print_request(FILE *to, const struct config *config, const struct request *request,
                         const struct config_origin *origins, bool with_unset)
{
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        const struct request_row *row = &request_rows[i];
        _cleanup_(freep) char *value = NULL;
        bool is_set = request_is_set(request, (enum request_row_id)i);
        if (config_is_of_one_job(row) || (!is_set && !with_unset))
            continue;
        int r = is_set ? request_format(request, row, &value) : 0;
        if (r < 0)
            return r;
        if (with_unset)
            print_comment(to, row->help);
        print_origin(to, config, &origins[i]);
        print_value(to, row->name, value ? value : row->default_text, !is_set);
    }
    return 0;
}

static int print_presets(FILE *to, const struct config *config)
{
    print_comment(to, "[preset NAME]: the same options, for jobs that name the preset. A job's own "
                      "options come first, then its preset's, then [defaults].");
    if (config->preset_count == 0)
        (void)fputs("#[preset draft]\n#steps = 12\n", to);
    for (size_t i = 0; i < config->preset_count; i++) {
        const struct config_preset *preset = &config->presets[i];
        (void)fprintf(to, "%s[preset %s]\n", i ? "\n" : "", preset->name);
        int r = print_request(to, config, &preset->request, preset->row_origins, false);
        if (r < 0)
            return r;
    }
    return 0;
}

static void print_models(FILE *to, const struct config *config)
{
    print_comment(to, "[model NAME]: path = DIR: another model, for jobs that name it in their "
                      "option model. One is in memory at a time.");
    if (config->model_count == 0)
        (void)fputs("#[model inpainting]\n#path = /var/lib/diffused/models/inpainting\n", to);
    for (size_t i = 0; i < config->model_count; i++) {
        const struct config_model *model = &config->models[i];
        (void)fprintf(to, "%s[model %s]\n", i ? "\n" : "", model->name);
        print_origin(to, config, &model->path_origin);
        print_value(to, "path", model->path, false);
    }
}

int config_print(const struct config *config, FILE *to)
{
    const char *section = "";
    int r = 0;

    for (size_t i = 0; i < config_row_count && r >= 0; i++) {
        const struct config_row *row = &config_rows[i];
        bool ends_model = strcmp(section, "model") == 0 && strcmp(row->section, "model") != 0;
        if (ends_model) {
            (void)fputs("\n", to);
            print_models(to, config);
        }
        if (strcmp(row->section, section) != 0)
            (void)fprintf(to, "%s[%s]\n", *section ? "\n" : "", row->section);
        section = row->section;
        r = print_row(to, config, row);
    }
    (void)fputs("\n[defaults]\n", to);
    print_comment(to, "Options of a job, for jobs that do not say otherwise.");
    if (r >= 0)
        r = print_request(to, config, &config->defaults, config->default_origins, true);
    (void)fputs("\n", to);
    if (r >= 0)
        r = print_presets(to, config);
    if (fflush(to) != 0 || ferror(to))
        return -EIO;
    return r;
}

/* --- comparing -------------------------------------------------------------------------------- */

struct changes {
    char *buffer;
    size_t size, length, count;
};

static void add_change(struct changes *changes, const char *name)
{
    static const char more[] = ", …";
    const char *comma = changes->count++ ? ", " : "";
    size_t n = strlen(comma) + strlen(name);

    if (changes->length + n + sizeof more <= changes->size) {
        changes->length += (size_t)sprintf(changes->buffer + changes->length, "%s%s", comma, name);
    } else if (changes->length < changes->size) {
        (void)snprintf(changes->buffer + changes->length, changes->size - changes->length, "%s",
                       *comma ? more : "…");
        changes->size = changes->length; /* full */
    }
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* One that cannot be formatted counts as another. */
static bool is_same_row(const struct config *a, const struct config *b,
                        const struct config_row *row)
{
    _cleanup_(freep) char *x = NULL, *y = NULL;

    return config_row_format(a, row, &x) >= 0 && config_row_format(b, row, &y) >= 0 &&
           is_same_text(x, y);
}

static bool is_same_option(const struct request *a, const struct request *b, size_t i)
{
    _cleanup_(freep) char *x = NULL, *y = NULL;
    enum request_row_id id = (enum request_row_id)i;

    if (request_is_set(a, id) != request_is_set(b, id))
        return false;
    if (!request_is_set(a, id))
        return true;
    return request_format(a, &request_rows[i], &x) >= 0 &&
           request_format(b, &request_rows[i], &y) >= 0 && is_same_text(x, y);
}

static bool is_same_request(const struct request *a, const struct request *b)
{
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++)
        if (!is_same_option(a, b, i))
            return false;
    return true;
}

static void compare_defaults(const struct config *a, const struct config *b, struct changes *to)
{
    char name[64];

    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        if (is_same_option(&a->defaults, &b->defaults, i))
            continue;
        (void)snprintf(name, sizeof name, "[defaults] %s", request_rows[i].name);
        add_change(to, name);
    }
}

/* Presets of `a` that `b` has not, or, unless `only_missing`, has otherwise. */
static void compare_presets(const struct config *a, const struct config *b, bool only_missing,
                            struct changes *to)
{
    char name[64];

    for (size_t i = 0; i < a->preset_count; i++) {
        const struct config_preset *preset = &a->presets[i];
        const struct request *other = config_find_preset(b, preset->name);
        if (other && (only_missing || is_same_request(&preset->request, other)))
            continue;
        (void)snprintf(name, sizeof name, "[preset %s]", preset->name);
        add_change(to, name);
    }
}

static const struct config_model *find_model(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->model_count; i++)
        if (strcmp(config->models[i].name, name) == 0)
            return &config->models[i];
    return NULL;
}

/* As compare_presets(). */
static void compare_models(const struct config *a, const struct config *b, bool only_missing,
                           struct changes *to)
{
    char name[64];

    for (size_t i = 0; i < a->model_count; i++) {
        const struct config_model *other = find_model(b, a->models[i].name);
        if (other && (only_missing || is_same_text(a->models[i].path, other->path)))
            continue;
        (void)snprintf(name, sizeof name, "[model %s]", a->models[i].name);
        add_change(to, name);
    }
}

size_t config_changes(const struct config *old_config, const struct config *new_config,
                      enum config_when when, char *buffer, size_t size)
{
    struct changes changes = {.buffer = buffer, .size = size};
    char name[64];

    if (size > 0)
        buffer[0] = '\0';
    for (size_t i = 0; i < config_row_count; i++) {
        const struct config_row *row = &config_rows[i];
        if (row->when != when || is_same_row(old_config, new_config, row))
            continue;
        (void)snprintf(name, sizeof name, "[%s] %s", row->section, row->key);
        add_change(&changes, name);
    }
    if (when == CONFIG_WHEN_LIVE) {
        compare_defaults(old_config, new_config, &changes);
        compare_presets(old_config, new_config, false, &changes);
        compare_presets(new_config, old_config, true, &changes);
        compare_models(old_config, new_config, false, &changes);
        compare_models(new_config, old_config, true, &changes);
    }
    return changes.count;
}
