/* config-internal — what the files of config share. */
#pragma once

#include <stdbool.h>

#include "daemon/config.h"

/* --- config-rows.c ---------------------------------------------------------------------------- */

/* Parses `value` into the row's field. -EINVAL when it is not legal. */
int config_row_set(struct config *config, const struct config_row *row, const char *value,
                   const char *directory);
/* The field in the notation of the file, malloc'd. */
int config_row_format(const struct config *config, const struct config_row *row, char **ret_text);
/* `value` into a field of a path; relative ones count from `directory`. -ENAMETOOLONG, -ENOMEM. */
int config_set_path(char **field, const char *value, const char *directory);
const struct config_row *config_row_find(const char *section, const char *key,
                                         bool *ret_section_known);
/* Fills device_nodes[] from device_node. -EINVAL for too many. */
int config_split_devices(struct config *config, struct fault *f);
void config_forget_devices(struct config *config);
/* The rows of request.def that make no sense for more than one job. */
bool config_is_of_one_job(const struct request_row *row);

/* --- config-files.c --------------------------------------------------------------------------- */

struct config_files {
    char *paths[CONFIG_FILES_MAX];
    size_t count;
};

/* The drop-ins of FILE in the order they are to be read. */
int config_find_dropins(const char *file, struct config_files *ret_files, struct fault *f);
/* The same over these directories; of two files with one name that of the later one counts. */
int config_find_dropins_in(const char *const *directories, size_t count,
                           struct config_files *ret_files, struct fault *f);
void config_files_done(struct config_files *files);
