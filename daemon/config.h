/* config — /etc/diffused/diffused.conf: one table of options, read through inih.
 *
 * Every key is a row of config_rows[]; the sections [defaults] and [preset NAME] take rows of
 * request.def (not those of one job alone: prompt, token, preset, pictures); a section [model NAME]
 * has one key, path. Relative paths count from the directory of the file that
 * holds them. Unknown sections and keys are warnings, a value outside a row's type or range is an
 * error that names file and line.
 *
 * After FILE come its drop-ins, *.conf in diffused.conf.d of /usr/lib/diffused, /run/diffused and
 * /etc/diffused when FILE is CONFIG_FILE, in the one directory FILE.d otherwise. They are read in
 * the order of their names; of two with one name only that of the later directory is read, and a
 * link to /dev/null there hides it. Later values win, key by key. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/engine.h"
#include "vk/pipeline/request.h"

#define CONFIG_FILE         "/etc/diffused/diffused.conf"
#define CONFIG_FILE_MAX     (1u << 20) /* bytes */
#define CONFIG_FILES_MAX    64u        /* drop-ins */
#define CONFIG_ROWS_MAX     48u
#define CONFIG_WARNINGS_MAX 32u
#define CONFIG_DEVICES_MAX  8u
#define CONFIG_PRESETS_MAX  64u
#define CONFIG_MODELS_MAX   32u /* [model NAME] */
#define CONFIG_NAME_MAX     40u /* bytes of a preset's or model's name: letters, digits, . _ - */

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

/* When a changed value takes effect. */
enum config_when {
    CONFIG_WHEN_LIVE,    /* with the reload */
    CONFIG_WHEN_WORKER,  /* with the reload, which replaces the workers as they become free */
    CONFIG_WHEN_RESTART, /* with the next start of the daemon */
};

struct config_row {
    const char *section, *key;
    enum config_type type;
    enum config_when when;
    size_t offset; /* of the field in struct config */
    const char *default_text;
    uint64_t min, max;  /* NUMBER, inclusive */
    const char *values; /* WORD: blank separated, in the order of the enum */
    const char *help;
};

/* Where a value was set. */
struct config_origin {
    uint32_t file; /* 1 + index into config.files; 0: nowhere, the built-in value */
    uint32_t line;
};

struct config_preset {
    char *name;
    struct request request; /* the rows it sets */
    struct config_origin origin, row_origins[REQUEST_ROW_COUNT];
};

/* A model besides that of [model]. */
struct config_model {
    char *name, *path;
    struct config_origin origin, path_origin;
};

struct words;

/* Owns its strings. All-zero is valid for config_done(). A field of yes and no is 1 and 0. */
struct config {
    char *model_path; /* of the default model */
    char *loras_path; /* directory; NULL: loras/ of each model */
    struct config_model models[CONFIG_MODELS_MAX];
    size_t model_count;
    char *device_node;                      /* as written; NULL: the best device */
    char *device_nodes[CONFIG_DEVICES_MAX]; /* its words, one worker each */
    size_t device_node_count;               /* 0: one worker on the best device */
    uint32_t allow_cpu;                     /* enum engine_allow_cpu */
    uint32_t pause_when_hot;                /* yes, no */
    char *spool_path;
    uint64_t retain_minutes;         /* of a finished job; 0: no limit */
    uint64_t retain_jobs;            /* finished jobs; 0: no limit */
    uint64_t retain_megabytes;       /* of finished jobs; 0: no limit */
    uint64_t keep_free_megabytes;    /* free space below which no job is taken in */
    uint32_t spool_group_readable;   /* yes, no */
    char *drop_path;                 /* NULL: no drop folder */
    uint64_t limit_queue;            /* jobs that may wait */
    uint64_t limit_pixels;           /* width * height of one picture; 0: no limit */
    uint64_t limit_user_jobs;        /* of one uid, waiting and running; 0: no limit */
    uint64_t limit_user_megabytes;   /* of one uid in the spool; 0: no limit */
    uint64_t limit_user_descriptors; /* open at one uid's clients, 1…16 */
    uint64_t limit_calls_per_second; /* of one uid on the bus; 0: no limit */
    uint64_t limit_calls_burst;      /* calls at once before that rate counts */
    uint32_t png_metadata;           /* enum config_png_metadata */
    char *access_group;              /* NULL: nobody but root and the daemon's own user */
    char *word_list;                 /* NULL: no words are refused */
    struct words *words;             /* what that file holds */
    struct request defaults;
    struct config_preset presets[CONFIG_PRESETS_MAX];
    size_t preset_count;

    char *files[CONFIG_FILES_MAX + 1]; /* those that were read, in that order */
    size_t file_count;
    struct config_origin row_origins[CONFIG_ROWS_MAX], default_origins[REQUEST_ROW_COUNT];
    char *warnings[CONFIG_WARNINGS_MAX]; /* each with file and line */
    size_t warning_count;
};

extern const struct config_row config_rows[];
extern const size_t config_row_count;

/* Built-in values only. 0 or -ENOMEM. */
int config_init(struct config *ret_config);

/* Reads FILE, its drop-ins and the word list over the built-in values. -ENOENT when there is no
 * FILE, but CONFIG_FILE may be absent (a warning says so). -EINVAL for what is wrong with content,
 * drop-ins or word list. */
int config_read(const char *path, struct config *ret_config, struct fault *f);

/* One file from memory; `name` stands in messages, `directory` is what relative paths count from.
 */
int config_parse(const char *text, size_t length, const char *name, const char *directory,
                 struct config *ret_config, struct fault *f);

/* The rows of [preset NAME], NULL when there is no such preset. */
const struct request *config_find_preset(const struct config *config, const char *name);

/* What a request calls the default model: its directory's name, "" when there is none. */
void config_default_model(const struct config *config, char *ret_name, size_t size);

/* NULL when no entry of the operator's word list stands in `text`, else the place of the first one
 * that does, "FILE:LINE". That may be logged: it repeats nothing of the text. Out of memory counts
 * as refused; the text is then "out of memory". */
const char *config_refused_word(const struct config *config, const char *text);

/* The word a WORD row holds, e.g. for a command line: config_word("png", "metadata", 1). */
const char *config_word(const char *section, const char *key, uint32_t value, char *buffer,
                        size_t size);

/* For a reload: puts the running values of the keys with this `when` over those just read, so that
 * what is shown is what is true. 0 or -ENOMEM, then `config` may only be given to config_done(). */
int config_keep(struct config *config, const struct config *running, enum config_when when);

/* How many keys with this `when` differ, and their names in `buffer` (cut with "…" when too long):
 * "[spool] path, [device] node". [defaults], presets and
 * [model NAME] are LIVE. What the caller has overridden in
 * one of the two (--devel) it must override in the other before. */
size_t config_changes(const struct config *old_config, const struct config *new_config,
                      enum config_when when, char *buffer, size_t size);

/* Writes a file that reads back as the same values: each key with its help; a key that has its
 * built-in value by default is a comment, one that was set says where. 0 or -EIO. */
int config_print(const struct config *config, FILE *to);

/* --check-config: reads as config_read() does and says on `err` what is wrong, one line each.
 * 0 (warnings or not) or the error. */
int config_check(const char *path, FILE *err);

void config_done(struct config *config);
