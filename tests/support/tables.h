/* tables — the parts of shipped texts that are made from tables of the code.
 *
 * In a manual (mdoc) a table stands between the comment lines
 *     .\" table NAME
 *     .\" end of table
 * and in etc/diffused.conf it is everything from the first [section] on. "make tables" puts them in
 * anew, a test compares. */
#pragma once

#include <stddef.h>

#include "vk/base/fault.h"

/* The files that hold tables, from the root of the tree on. */
extern const char *const tables_files[];
extern const size_t tables_file_count;

/* The text of a file as the tables want it, malloc'd; what is outside of tables stays. -EINVAL for
 * a mark that is unknown or has no end. */
int tables_render(const char *path, char **ret_text, struct fault *f);
