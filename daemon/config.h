/* config — /etc/diffused/diffused.conf: one table of options, read through inih.
 *
 * Every key is a row of config_rows[]; section [defaults] takes any row of request.def but
 * `prompt`. Relative paths count from the directory of the file. Unknown sections and keys are
 * warnings, a value outside a row's type or range is an error that names file and line. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/engine.h"
#include "vk/pipeline/request.h"

#define CONFIG_FILE_MAX     (1u << 20) /* bytes */
#define CONFIG_WARNINGS_MAX 32u

enum config_type {
    CONFIG_TYPE_TEXT,   /* char *, NULL when empty */
    CONFIG_TYPE_PATH,   /* char *, absolute after reading, NULL when empty */
    CONFIG_TYPE_NUMBER, /* uint64_t */
    CONFIG_TYPE_WORD,   /* uint32_t: index into `values` */
};

enum config_png_metadata {
    CONFIG_PNG_METADATA_FULL,
    CONFIG_PNG_METADATA_PROVENANCE,
    CONFIG_PNG_METADATA_NONE,
};

struct config_row {
    const char *section, *key;
    enum config_type type;
    size_t offset; /* of the field in struct config */
    const char *default_text;
    uint64_t min, max;  /* NUMBER, inclusive */
    const char *values; /* WORD: blank separated, in the order of the enum */
    const char *help;
};

/* Owns its strings. All-zero is valid for config_done(). */
struct config {
    char *model_path;
    char *device_node;  /* NULL: the best device */
    uint32_t allow_cpu; /* enum engine_allow_cpu */
    char *spool_path;
    uint64_t limit_queue;  /* jobs that may wait */
    uint64_t limit_pixels; /* width * height of one picture; 0: no limit */
    uint32_t png_metadata; /* enum config_png_metadata */
    char *access_group;    /* NULL: nobody but root and the daemon's own user */
    struct request defaults;
    char *warnings[CONFIG_WARNINGS_MAX]; /* each with file and line */
    size_t warning_count;
};

extern const struct config_row config_rows[];
extern const size_t config_row_count;

/* Built-in values only. 0 or -ENOMEM. */
int config_init(struct config *ret_config);

/* Reads a file over the built-in values. -ENOENT when there is none, -EINVAL for its content. */
int config_read(const char *path, struct config *ret_config, struct fault *f);

/* The same from memory; `name` stands in messages, `directory` is what relative paths count from.
 */
int config_parse(const char *text, size_t length, const char *name, const char *directory,
                 struct config *ret_config, struct fault *f);

/* The word a WORD row holds, e.g. for a command line: config_word("png", "metadata", 1). */
const char *config_word(const char *section, const char *key, uint32_t value, char *buffer,
                        size_t size);

void config_done(struct config *config);
