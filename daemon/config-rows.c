/* The table of keys, and a row's value from text and to text. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "daemon/config-internal.h"

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

#define MINUTES_MAX   52596000 /* a hundred years */
#define MEGABYTES_MAX 1073741824

/* After a change here: make tables. */
const struct config_row config_rows[] = {
    ROW_PATH(
        "model", "path", model_path, WORKER, "",
        "Directory of a Stable Diffusion model in Hugging Face layout (tokenizer/, "
        "text_encoder/, unet/, vae/, scheduler/), or with one checkpoint file and tokenizer/. "
        "The default model; others are sections [model NAME] with a path of their own. Without "
        "it the daemon stays up, refuses jobs and says why."),
    ROW_PATH(
        "model", "loras", loras_path, WORKER, "",
        "Directory of LoRAs: a request names NAME for the file NAME.safetensors. Empty: loras/ "
        "in the model's own directory."),
    ROW_TEXT("device", "node", device_node, RESTART, "",
             "Render nodes (/dev/dri/renderD128), PCI ids (0000:01:00.0) or indices, separated by "
             "blanks, one worker each. Empty: the best device there is."),
    ROW_WORD("device", "allow_cpu", allow_cpu, WORKER, "auto", "auto yes no",
             "Whether a software device may be used; auto: if nothing else exists."),
    ROW_WORD("device", "pause_when_hot", pause_when_hot, LIVE, "yes", "no yes",
             "Wait between two steps while a thermal zone is over its passive trip point."),
    ROW_PATH("spool", "path", spool_path, RESTART, "/var/spool/diffused",
             "Where jobs and pictures are kept."),
    ROW_NUMBER("spool", "retain_minutes", retain_minutes, LIVE, "10080", 0, MINUTES_MAX,
               "How long a finished job is kept, in minutes of the service's own running time. 0: "
               "no limit."),
    ROW_NUMBER("spool", "retain_jobs", retain_jobs, LIVE, "1000", 0, 1000000,
               "How many finished jobs are kept; the oldest go first. 0: no limit."),
    ROW_NUMBER("spool", "retain_megabytes", retain_megabytes, LIVE, "1024", 0, MEGABYTES_MAX,
               "How much space finished jobs may take; the oldest go first. 0: no limit."),
    ROW_NUMBER("spool", "keep_free_megabytes", keep_free_megabytes, LIVE, "64", 0, MEGABYTES_MAX,
               "Space to keep free: below it no job is taken in, while running ones may finish. 0: "
               "none."),
    ROW_WORD("spool", "group_readable", spool_group_readable, RESTART, "no", "no yes",
             "Whether the group of [access] may read the files of finished pictures."),
    ROW_PATH("drop", "path", drop_path, RESTART, "/var/lib/diffused/drop",
             "The drop folder: tickets put there become jobs. Empty: none."),
    ROW_NUMBER("limits", "queue", limit_queue, LIVE, "100", 1, 100000, "Jobs that may wait."),
    ROW_NUMBER("limits", "pixels", limit_pixels, LIVE, "0", 0, 2048 * 2048,
               "width * height of one picture at most. 0: what the device can hold."),
    ROW_NUMBER("limits", "user_jobs", limit_user_jobs, LIVE, "50", 0, 100000,
               "Jobs of one user that may wait or run. 0: no limit."),
    ROW_NUMBER("limits", "user_megabytes", limit_user_megabytes, LIVE, "0", 0, MEGABYTES_MAX,
               "Space of the spool that one user's jobs may take. 0: no limit."),
    ROW_NUMBER("limits", "user_descriptors", limit_user_descriptors, LIVE, "16", 1, 16,
               "Descriptors of pictures that one user may have open at a time, 16 at most."),
    ROW_NUMBER("limits", "calls_per_second", limit_calls_per_second, LIVE, "200", 0, 1000000,
               "Calls over the bus of one user, on average. 0: no limit."),
    ROW_NUMBER("limits", "calls_burst", limit_calls_burst, LIVE, "500", 1, 1000000,
               "Calls of one user at once before calls_per_second counts."),
    ROW_WORD("png", "metadata", png_metadata, WORKER, "full", "full provenance none",
             "What a PNG says about its making: full with the prompt, provenance without, none."),
    ROW_TEXT("access", "group", access_group, LIVE, "diffused",
             "Members of this group may submit jobs; where it does not exist only root and the "
             "daemon's own user. The bus has a say too: see org.diffused.Diffused1.conf."),
    ROW_PATH(
        "access", "word_list", word_list, LIVE, "",
        "File of words and phrases, one a line, # before a comment: a prompt that holds one of "
        "them is refused. Case, accents and compatibility forms make no difference, only whole "
        "words count. Empty: none."),
};
const size_t config_row_count = ARRAY_SIZE(config_rows);

_Static_assert(ARRAY_SIZE(config_rows) <= CONFIG_ROWS_MAX, "raise CONFIG_ROWS_MAX");

/* --- from text -------------------------------------------------------------------------------- */

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

int config_set_path(char **field, const char *value, const char *directory)
{
    char joined[PATH_MAX];

    if (strlen(value) >= sizeof joined)
        return -ENAMETOOLONG;
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

int config_row_set(struct config *config, const struct config_row *row, const char *value,
                   const char *directory)
{
    void *field = (char *)config + row->offset;

    switch (row->type) {
    case CONFIG_TYPE_TEXT:
        return replace_text(field, value);
    case CONFIG_TYPE_PATH:
        return config_set_path(field, value, directory);
    case CONFIG_TYPE_NUMBER:
        return parse_number(value, row, field);
    case CONFIG_TYPE_WORD:
        return find_word(row->values, value, field);
    }
    return -EINVAL;
}

/* --- to text ---------------------------------------------------------------------------------- */

/* The word of a blank separated list; its length, 0 beyond the end. */
static size_t word_at(const char *list, uint32_t index, const char **ret_word)
{
    const char *p = list;

    for (; index > 0 && *p; index--) {
        p += strcspn(p, " ");
        p += *p == ' ';
    }
    *ret_word = p;
    return strcspn(p, " ");
}

int config_row_format(const struct config *config, const struct config_row *row, char **ret_text)
{
    const void *field = (const char *)config + row->offset;
    const char *word;
    char *text = NULL;
    size_t n;

    switch (row->type) {
    case CONFIG_TYPE_TEXT:
    case CONFIG_TYPE_PATH:
        text = strdup(*(char *const *)field ? *(char *const *)field : "");
        break;
    case CONFIG_TYPE_NUMBER:
        if (asprintf(&text, "%" PRIu64, *(const uint64_t *)field) < 0)
            text = NULL;
        break;
    case CONFIG_TYPE_WORD:
        n = word_at(row->values, *(const uint32_t *)field, &word);
        text = strndup(word, n);
        break;
    }
    if (!text)
        return -ENOMEM;
    *ret_text = text;
    return 0;
}

const char *config_word(const char *section, const char *key, uint32_t value, char *buffer,
                        size_t size)
{
    bool section_known;
    const struct config_row *row = config_row_find(section, key, &section_known);
    const char *word;
    size_t n = word_at(row ? row->values : "", value, &word);

    (void)snprintf(buffer, size, "%.*s", (int)n, word);
    return buffer;
}

/* --- devices ---------------------------------------------------------------------------------- */

void config_forget_devices(struct config *config)
{
    for (size_t i = 0; i < config->device_node_count; i++)
        free(config->device_nodes[i]);
    config->device_node_count = 0;
}

int config_split_devices(struct config *config, struct fault *f)
{
    config_forget_devices(config);
    for (const char *p = config->device_node ? config->device_node : ""; *p;) {
        p += strspn(p, " \t");
        size_t n = strcspn(p, " \t");
        if (n == 0)
            return 0;
        if (config->device_node_count == CONFIG_DEVICES_MAX)
            return fault_set(f, -EINVAL, "more than %u devices", CONFIG_DEVICES_MAX);
        config->device_nodes[config->device_node_count] = strndup(p, n);
        if (!config->device_nodes[config->device_node_count])
            return fault_set(f, -ENOMEM, "out of memory");
        config->device_node_count++;
        p += n;
    }
    return 0;
}

/* --- rows ------------------------------------------------------------------------------------- */

const struct config_row *config_row_find(const char *section, const char *key,
                                         bool *ret_section_known)
{
    *ret_section_known = false;
    for (size_t i = 0; i < config_row_count; i++) {
        if (strcmp(config_rows[i].section, section) != 0)
            continue;
        *ret_section_known = true;
        if (strcmp(config_rows[i].key, key) == 0)
            return &config_rows[i];
    }
    return NULL;
}

bool config_is_of_one_job(const struct request_row *row)
{
    static const enum request_row_id ids[] = {REQUEST_prompt, REQUEST_token, REQUEST_preset,
                                              REQUEST_image, REQUEST_mask};

    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        if (row == &request_rows[ids[i]])
            return true;
    return false;
}

int config_init(struct config *ret_config)
{
    struct config config = {0};

    for (size_t i = 0; i < config_row_count; i++) {
        int r = config_row_set(&config, &config_rows[i], config_rows[i].default_text, "/");
        if (r < 0) {
            config_done(&config);
            return r;
        }
    }
    *ret_config = config;
    return 0;
}

int config_keep(struct config *config, const struct config *running, enum config_when when)
{
    for (size_t i = 0; i < config_row_count; i++) {
        const struct config_row *row = &config_rows[i];
        _cleanup_(freep) char *text = NULL;
        if (row->when != when)
            continue;
        int r = config_row_format(running, row, &text);
        if (r < 0 || (r = config_row_set(config, row, text, "/")) < 0)
            return r;
    }
    return config_split_devices(config, NULL);
}
