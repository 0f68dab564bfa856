/* drop-folder — the tree of the drop folder as open directories, and the few ways in which files of
 * it are moved, opened and written. Everything is done below open directories, by single names, and
 * nothing is ever followed or overwritten. Errors are negative errnos. */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "daemon/drop-name.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

enum drop_dir {
    DROP_DIR_WORKING,
    DROP_DIR_DONE,
    DROP_DIR_FAILED,
    DROP_DIR_COUNT,
};

#define DROP_MODE_RESULT 0640u  /* files we make for people */
#define DROP_MODE_INPUTS 02750u /* the directory that becomes done/NAME.d */

struct drop_folder {
    const char *path;
    int intake; /* -1: not open */
    int dirs[DROP_DIR_COUNT];
    dev_t device;
    ino_t inode;
    bool warned; /* of its mode */
};

extern const char *const drop_dir_names[DROP_DIR_COUNT];

void drop_folder_init(struct drop_folder *folder, const char *path);
/* Makes what is missing and sweeps up unfinished files of an earlier run. The fault says what to
 * change. */
int drop_folder_open(struct drop_folder *folder, struct fault *f);
void drop_folder_close(struct drop_folder *folder);
/* Whether the path still names the directory that is open, and our names in it ours. */
bool drop_folder_is_current(const struct drop_folder *folder);
bool drop_folder_is_ours(const char *name); /* working, done, failed */

/* A descriptor of the directory `name`, never through a link. */
int drop_open_directory(int parent, const char *name);
/* A stream over a directory that stays open; NULL and errno. */
DIR *drop_open_list(int directory);
/* 1 and the next name, "." and ".." left out; 0 at the end; or an error. */
int drop_list_next(DIR *list, const char **ret_name);
/* Opens for reading without following anything, waiting for anything, or leaving the directory. */
int drop_open_input(int directory, const char *name);
/* rename() that fails with -EEXIST instead of replacing. */
int drop_move(int from, const char *name, int to, const char *to_name);
/* A file that is complete, on disk and called `name`, or absent: through the hidden name `key` has
 * in that directory. The directory is not synced. -EEXIST when the name is taken. */
int drop_write_file(int directory, const char *key, const char *name, const void *data, size_t size,
                    mode_t mode);
/* The two halves of it, for data that comes in pieces: a descriptor; then 0. */
int drop_begin_file(int directory, const char *key, mode_t mode);
int drop_finish_file(int directory, const char *key, const char *name, int fd);
void drop_abandon_file(int directory, const char *key);
int drop_sync(int fd);
bool drop_exists(int directory, const char *name);

/* Whether an error is the file system's or the system's, so that waiting may help. */
bool drop_is_passing(int err);
