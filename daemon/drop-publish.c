#include "daemon/drop-publish.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/file.h"
#include "vk/base/sha256.h"

#define COPY_BYTES   65536u
#define NUMBER_MAX   99999u
#define COMPARED_MAX (1u << 20) /* bytes of a JSON or reason that may already be there */
#define JSON_FLAGS   (JSON_INDENT(2) | JSON_REAL_PRECISION(17))

/* Everything that belongs to one publication. */
struct publication {
    struct drop_folder *folder;
    const char *key;
    int directory, inputs_directory; /* working/KEY, working/KEY/d */
    struct drop_inputs inputs;
    struct drop_target target;
    uint32_t picture_count;
};

static void publication_done(struct publication *p)
{
    closep(&p->directory);
    closep(&p->inputs_directory);
}

static int out_directory(const struct publication *p)
{
    return p->folder->dirs[p->target.where];
}

/* Longer than any name when it does not fit, which then fails with ENAMETOOLONG. */
static void join_name(char name[DROP_NAME_SIZE + 32], const char *base, const char *suffix)
{
    (void)snprintf(name, DROP_NAME_SIZE + 32, "%s%s", base, suffix);
}

static void picture_suffix(const struct publication *p, uint32_t index, char suffix[16])
{
    if (p->picture_count > 1)
        (void)snprintf(suffix, 16, ".%" PRIu32 ".png", index);
    else
        (void)snprintf(suffix, 16, ".png");
}

/* --- names ------------------------------------------------------------------------------------ */

static bool is_taken(const struct publication *p, const char *suffix)
{
    char name[DROP_NAME_SIZE + 32];

    join_name(name, p->target.base, suffix);
    return drop_exists(out_directory(p), name);
}

static const char *input_suffix(const char *name)
{
    size_t length;

    (void)drop_name_split(name, &length);
    return name + length;
}

static bool is_base_free(const struct publication *p)
{
    char suffix[16];

    if (p->target.where == DROP_DIR_FAILED) {
        for (size_t i = 0; i < p->inputs.count; i++) {
            if (is_taken(p, input_suffix(p->inputs.names[i])))
                return false;
        }
        return !is_taken(p, ".error.txt");
    }
    for (uint32_t i = 0; i < p->picture_count; i++) {
        picture_suffix(p, i, suffix);
        if (is_taken(p, suffix))
            return false;
    }
    return !is_taken(p, ".json") && !is_taken(p, ".d");
}

/* Decides where it all goes, for good. */
static int choose_target(struct publication *p)
{
    const char *name = p->inputs.names[0];
    size_t length;

    (void)drop_name_split(name, &length);
    for (unsigned n = 0; n <= NUMBER_MAX; n++) {
        drop_name_base(name, length, n, p->target.base);
        if (is_base_free(p))
            return drop_target_write(p->directory, p->key, &p->target);
    }
    return -ENOSPC;
}

/* The target of this ticket: as decided before, else decided now. */
static int begin(struct publication *p, enum drop_dir where, const char *reason)
{
    p->inputs_directory = -1;
    p->directory = drop_key_open(p->folder, p->key);
    if (p->directory < 0)
        return p->directory;
    p->inputs_directory = drop_open_directory(p->directory, "d");
    int r = p->inputs_directory < 0 ? p->inputs_directory
                                    : drop_key_list(p->inputs_directory, &p->inputs);
    if (r < 0)
        return r;
    r = drop_target_read(p->directory, &p->target);
    if (r < 0 || (r == 0 && p->target.where == where))
        return r;
    p->target.where = where;
    (void)snprintf(p->target.reason, sizeof p->target.reason, "%s", reason);
    return choose_target(p);
}

/* --- files ------------------------------------------------------------------------------------ */

/* Copies a descriptor from its beginning; the SHA-256 of what was copied. */
static int copy_bytes(int from, int to, char ret_sha256[SHA256_HEX_SIZE])
{
    _cleanup_(freep) char *buffer = malloc(COPY_BYTES);
    uint8_t digest[SHA256_SIZE];
    struct sha256 sum;
    off_t at = 0;

    if (!buffer)
        return -ENOMEM;
    sha256_init(&sum);
    for (;;) {
        ssize_t n = pread(from, buffer, COPY_BYTES, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        int r = file_write_all(to, buffer, (size_t)n);
        if (r < 0)
            return r;
        sha256_feed(&sum, buffer, (size_t)n);
        at += n;
    }
    sha256_finish(&sum, digest);
    sha256_format(digest, ret_sha256);
    return 0;
}

/* SHA-256 of a file that is there already. */
static int sum_file(int directory, const char *name, char ret_sha256[SHA256_HEX_SIZE])
{
    _cleanup_(closep) int fd = drop_open_input(directory, name);
    _cleanup_(closep) int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || nowhere < 0)
        return fd < 0 ? fd : -errno;
    return copy_bytes(fd, nowhere, ret_sha256);
}

/* 0; 1 when the name is somebody else's. */
static int publish_picture(const struct publication *p, struct drop_message *m, uint32_t index)
{
    char suffix[16], name[DROP_NAME_SIZE + 32], sum[SHA256_HEX_SIZE], there[SHA256_HEX_SIZE];
    int out = out_directory(p);
    _cleanup_(closep) int fd = drop_begin_file(out, p->key, DROP_MODE_RESULT);

    if (fd < 0)
        return fd;
    picture_suffix(p, index, suffix);
    join_name(name, p->target.base, suffix);
    int r = copy_bytes(m->pictures[index], fd, sum);
    if (r == 0 && m->sha256[index][0] && strcmp(sum, m->sha256[index]) != 0)
        r = fault_set(&m->fault, -EBADMSG, "picture %" PRIu32 " is damaged in the spool", index);
    if (r == 0)
        r = drop_finish_file(out, p->key, name, fd);
    if (r < 0)
        drop_abandon_file(out, p->key);
    if (r != -EEXIST)
        return r;
    r = sum_file(out, name, there);
    return r < 0 && drop_is_passing(r) ? r : r < 0 || strcmp(sum, there) != 0;
}

static int add_files(const struct publication *p, json_t *json)
{
    char suffix[16], name[DROP_NAME_SIZE + 32], shown[4 * DROP_NAME_SIZE];
    json_t *pictures = json_object_get(json, "pictures");

    for (uint32_t i = 0; i < p->picture_count; i++) {
        picture_suffix(p, i, suffix);
        join_name(name, p->target.base, suffix);
        drop_name_show(name, shown, sizeof shown);
        if (json_object_set_new(json_array_get(pictures, i), "file", json_string(shown)) < 0)
            return -ENOMEM;
    }
    drop_name_show(p->inputs.names[0], shown, sizeof shown);
    return json_object_set_new(json, "ticket", json_string(shown)) < 0 ? -ENOMEM : 0;
}

/* Whether the file that has our name is of this KEY: its text says so. */
static bool is_ours(int directory, const char *name, const char *mark)
{
    _cleanup_(closep) int fd = drop_open_input(directory, name);
    _cleanup_(freep) char *text = malloc(COMPARED_MAX);

    ssize_t n = fd >= 0 && text ? read(fd, text, COMPARED_MAX) : -1;
    return n > 0 && memmem(text, (size_t)n, mark, strlen(mark));
}

/* 0; 1 when the name is somebody else's. */
static int publish_text(const struct publication *p, const char *suffix, const char *text,
                        const char *mark)
{
    char name[DROP_NAME_SIZE + 32];
    int out = out_directory(p);

    join_name(name, p->target.base, suffix);
    int r = drop_write_file(out, p->key, name, text, strlen(text), DROP_MODE_RESULT);
    if (r == -EEXIST)
        return !is_ours(out, name, mark);
    return r;
}

static int publish_json(const struct publication *p, struct drop_message *m)
{
    int r = add_files(p, m->json);
    _cleanup_(freep) char *text = r < 0 ? NULL : json_dumps(m->json, JSON_FLAGS);
    _cleanup_(freep) char *lines = NULL;

    if (!text || asprintf(&lines, "%s\n", text) < 0) {
        lines = NULL;
        return -ENOMEM;
    }
    return publish_text(p, ".json", lines, p->key);
}

/* d/ becomes done/NAME.d: all inputs in one rename. */
static int move_inputs(const struct publication *p)
{
    char name[DROP_NAME_SIZE + 32], base[DROP_NAME_SIZE];
    size_t length;

    join_name(name, p->target.base, ".d");
    int r = drop_move(p->directory, "d", out_directory(p), name);
    (void)drop_name_split(p->inputs.names[0], &length);
    for (unsigned n = 1; n <= NUMBER_MAX && r == -EEXIST; n++) { /* made by hand meanwhile */
        drop_name_base(p->inputs.names[0], length, n, base);
        join_name(name, base, ".d");
        r = drop_move(p->directory, "d", out_directory(p), name);
    }
    if (r == 0)
        r = drop_sync(out_directory(p));
    return r == 0 ? drop_sync(p->directory) : r;
}

/* 0; 1 when one of the names is somebody else's. */
static int publish_files(const struct publication *p, struct drop_message *m)
{
    int r = 0;

    for (uint32_t i = 0; i < p->picture_count && r == 0; i++)
        r = publish_picture(p, m, i);
    if (r == 0)
        r = drop_sync(out_directory(p)); /* a JSON never speaks of pictures that are not there */
    if (r == 0)
        r = publish_json(p, m);
    return r == 0 ? drop_sync(out_directory(p)) : r;
}

int drop_publish_done(struct drop_folder *folder, struct drop_message *m)
{
    _cleanup_(publication_done) struct publication p = {
        .folder = folder, .key = m->key, .picture_count = m->picture_count};

    int r = begin(&p, DROP_DIR_DONE, "");
    for (unsigned tries = 0; r == 0 && tries < NUMBER_MAX; tries++) {
        r = publish_files(&p, m);
        if (r <= 0)
            break;
        r = choose_target(&p);
    }
    if (r == 0)
        r = move_inputs(&p);
    return r < 0 ? r : drop_key_remove(folder, m->key);
}

int drop_publish_rest(struct drop_folder *folder, const char *key)
{
    _cleanup_(publication_done) struct publication p = {.folder = folder, .key = key};
    char name[DROP_NAME_SIZE + 32];

    int r = begin(&p, DROP_DIR_DONE, "");
    if (r < 0)
        return r;
    join_name(name, p.target.base, ".json");
    if (!is_ours(out_directory(&p), name, key))
        return 1;
    r = move_inputs(&p);
    return r < 0 ? r : drop_key_remove(folder, key);
}

/* --- failed ----------------------------------------------------------------------------------- */

static int move_input(const struct publication *p, const char *input)
{
    char name[DROP_NAME_SIZE + 32], base[DROP_NAME_SIZE];
    size_t length;

    join_name(name, p->target.base, input_suffix(input));
    int r = drop_move(p->inputs_directory, input, out_directory(p), name);
    (void)drop_name_split(input, &length);
    for (unsigned n = 1; n <= NUMBER_MAX && r == -EEXIST; n++) { /* made by hand meanwhile */
        drop_name_base(input, length, n, base);
        join_name(name, base, input_suffix(input));
        r = drop_move(p->inputs_directory, input, out_directory(p), name);
    }
    return r;
}

static int publish_reason(struct publication *p)
{
    char text[sizeof p->target.reason + 2];
    int r = 1;

    (void)snprintf(text, sizeof text, "%s\n", p->target.reason);
    for (unsigned tries = 0; tries < NUMBER_MAX; tries++) {
        r = publish_text(p, ".error.txt", text, text);
        if (r <= 0)
            return r;
        r = choose_target(p);
        if (r < 0)
            return r;
    }
    return -EEXIST;
}

int drop_publish_failed(struct drop_folder *folder, const struct drop_message *m)
{
    _cleanup_(publication_done) struct publication p = {.folder = folder, .key = m->key};

    int r = begin(&p, DROP_DIR_FAILED, m->fault.text);
    if (r == 0)
        r = publish_reason(&p);
    if (r == 0)
        r = drop_sync(out_directory(&p));
    for (size_t i = 0; i < p.inputs.count && r == 0; i++)
        r = move_input(&p, p.inputs.names[i]);
    if (r == 0)
        r = drop_sync(out_directory(&p));
    if (r == 0)
        r = drop_sync(p.inputs_directory);
    return r < 0 ? r : drop_key_remove(folder, m->key);
}
