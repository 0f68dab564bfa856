/* file — whole small files, and writes that are complete or absent. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "vk/base/fault.h"

/* A path, put together like printf() does. -ENAMETOOLONG + fault when it does not fit. */
int file_path(char ret_path[static PATH_MAX], struct fault *f, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

bool file_has_ending(const char *name, const char *ending);

/* What files of pickles end in, NULL-terminated: they are programs, and are never read. */
extern const char *const file_pickles[];
bool file_is_pickle(const char *name);

/* What a failed call on a file returns for errno: its negative, but -ENODATA for EIO, for -EIO says
 * that the device is lost (vk/engine.h). */
int file_error(int errno_value);

/* Reads a regular file of at most `limit` bytes. *ret_data is malloc'd and ends in a NUL that
 * *ret_size does not count. Errors: -EFBIG when longer, -EINVAL when not a regular file, or
 * file_error(); f names it. */
int file_read(const char *path, size_t limit, char **ret_data, size_t *ret_size, struct fault *f);

/* Writes `path` through a temporary name in the same directory and a rename: readers see the old
 * content or the new, never a part. Does not fsync. Mode 0644. */
int file_write_atomic(const char *path, const void *data, size_t size, struct fault *f);

/* write(2) until done. Returns 0 or -errno. */
int file_write_all(int fd, const void *data, size_t size);

/* mkdir -p, mode 0755. Returns 0 or -errno. */
int file_make_directories(const char *path);
