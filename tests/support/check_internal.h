/* check — what its files share: the findings. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/support/check.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define CHECK_FILE_MAX  (64u << 20) /* bytes */
#define CHECK_NAME_SIZE 320

enum check_state {
    CHECK_STATE_QUEUED,
    CHECK_STATE_RUNNING,
    CHECK_STATE_DONE,
    CHECK_STATE_FAILED,
    CHECK_STATE_CANCELLED,
    CHECK_STATE_CORRUPT,
    CHECK_STATE_COUNT,
};
extern const char *const check_state_names[CHECK_STATE_COUNT];
/* -1 when it is none. */
int check_state_from_word(const char *word);
static inline bool check_state_is_final(int state)
{
    return state >= CHECK_STATE_DONE && state <= CHECK_STATE_CANCELLED;
}

/* A job directory. Texts are "" where the record has none. */
struct check_job {
    uint64_t id, owner, seed, count, bytes, starts;
    unsigned inputs; /* pictures it starts from */
    enum check_state state;
    bool has_seed;
    char token[80], origin[80];
};

struct check {
    const struct check_options *options;
    int violations;
    uint64_t uid;
    uint64_t last_id; /* the highest that is known on disk, by the file or by a job */
    struct ARRAY(struct check_job) jobs;
};

void check_violation(struct check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A regular file below `directory`, whole, with a NUL behind; its owner and mode are checked. A
 * violation and NULL when it cannot be had. `where` stands in messages. */
char *check_read_file(struct check *check, int directory, const char *name, const char *where,
                      size_t *ret_size);
/* Owner and mode of an open file or directory. */
void check_owner(struct check *check, int fd, const char *where);

/* What lies in a job's directory; fills `job`. */
void check_job_directory(struct check *check, int directory, struct check_job *job);
/* The PNG's own structure; 0 and its size, or -1 after a violation. */
int check_png(struct check *check, const uint8_t *data, size_t size, const char *where,
              uint32_t *ret_width, uint32_t *ret_height);
/* Whether the history says that the test broke this job. */
bool check_is_damaged(const struct check *check, uint64_t id);
/* The jobs found against what clients were told. */
void check_history(struct check *check, const char *text);
void check_drop(struct check *check, const char *path, const char *history);
