#include "daemon/drop-key.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/drop.h"

#define TARGET_SIZE_MAX 1024u
#define TARGET_HEAD     "diffused drop target 1\n"

int drop_key_open(const struct drop_folder *folder, const char *key)
{
    return drop_open_directory(folder->dirs[DROP_DIR_WORKING], key);
}

int drop_key_remove(struct drop_folder *folder, const char *key)
{
    int working = folder->dirs[DROP_DIR_WORKING];
    _cleanup_(closep) int directory = drop_key_open(folder, key);

    if (directory < 0)
        return directory == -ENOENT ? 0 : directory;
    (void)unlinkat(directory, "new", AT_REMOVEDIR); /* none, or empty: else the last one fails */
    (void)unlinkat(directory, "d", AT_REMOVEDIR);
    (void)unlinkat(directory, "target", 0);
    drop_abandon_file(directory, key);
    return unlinkat(working, key, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* --- taking up -------------------------------------------------------------------------------- */

static int make_key(struct drop_folder *folder, char key[DROP_KEY_SIZE], int *ret_new)
{
    int working = folder->dirs[DROP_DIR_WORKING];

    int r = drop_key_make(key);
    if (r < 0)
        return r;
    if (mkdirat(working, key, 0700) < 0)
        return -errno;
    _cleanup_(closep) int directory = drop_key_open(folder, key);
    if (directory < 0)
        return directory;
    if (mkdirat(directory, "new", 0700) < 0)
        return -errno;
    int fd = drop_open_directory(directory, "new");
    if (fd < 0)
        return fd;
    *ret_new = fd;
    return fchmod(fd, DROP_MODE_INPUTS) < 0 ? -errno : 0;
}

static int commit(struct drop_folder *folder, const char *key)
{
    _cleanup_(closep) int directory = drop_key_open(folder, key);

    if (directory < 0)
        return directory;
    return drop_move(directory, "new", directory, "d");
}

/* Inputs under way go back where they came from. 1 when one cannot: its name is in use again. */
static int put_back(struct drop_folder *folder, int new)
{
    _cleanup_(closedirp) DIR *list = drop_open_list(new);
    const char *name;
    int r;

    if (!list)
        return -errno;
    while ((r = drop_list_next(list, &name)) > 0) {
        r = drop_move(new, name, folder->intake, name);
        if (r < 0)
            return r == -EEXIST ? 1 : r;
    }
    return r;
}

/* Nothing was taken up after all. What cannot be undone now is left to drop_key_look(). */
static void undo(struct drop_folder *folder, const char *key, int new, char ret_key[DROP_KEY_SIZE])
{
    if ((new < 0 || put_back(folder, new) == 0) && drop_key_remove(folder, key) == 0)
        return;
    memcpy(ret_key, key, DROP_KEY_SIZE);
}

int drop_key_take(struct drop_folder *folder, const char *const *names, size_t count,
                  char ret_key[DROP_KEY_SIZE], bool *ret_stuck)
{
    char key[DROP_KEY_SIZE] = "";
    int fd = -1;
    int r = make_key(folder, key, &fd);
    _cleanup_(closep) int new = fd;

    ret_key[0] = '\0';
    *ret_stuck = false;
    if (r < 0) {
        if (key[0])
            undo(folder, key, -1, ret_key);
        return r;
    }
    for (size_t i = 0; i < count; i++) {
        r = drop_move(folder->intake, names[i], new, names[i]);
        *ret_stuck = r < 0 && !drop_is_passing(r);
        if (r < 0 && (i + 1 == count || drop_is_passing(r)))
            break;
        r = 0; /* something beside the ticket: it stays where it is, or has gone */
    }
    if (r == 0 && (r = commit(folder, key)) < 0)
        *ret_stuck = false;
    if (r == 0) {
        memcpy(ret_key, key, sizeof key);
        return 0;
    }
    undo(folder, key, new, ret_key);
    return r;
}

/* --- the target ------------------------------------------------------------------------------- */

int drop_target_write(int key_directory, const char *key, const struct drop_target *target)
{
    char text[TARGET_SIZE_MAX];

    int n = snprintf(text, sizeof text, TARGET_HEAD "%s %zu\n%s\n%s", drop_dir_names[target->where],
                     strlen(target->base), target->base, target->reason);
    if (unlinkat(key_directory, "target", 0) < 0 && errno != ENOENT)
        return -errno;
    int r = drop_write_file(key_directory, key, "target", text, (size_t)n, 0600);
    return r < 0 ? r : drop_sync(key_directory);
}

static int parse_target(const char *text, struct drop_target *ret)
{
    struct drop_target target = {.where = DROP_DIR_COUNT};
    char word[16];
    size_t length;
    int n = 0;

    if (sscanf(text, TARGET_HEAD "%15s %zu%n", word, &length, &n) != 2 || text[n] != '\n')
        return -EINVAL;
    for (unsigned i = DROP_DIR_DONE; i < DROP_DIR_COUNT; i++) {
        if (strcmp(word, drop_dir_names[i]) == 0)
            target.where = i;
    }
    text += n + 1;
    if (target.where == DROP_DIR_COUNT || length == 0 || length >= sizeof target.base ||
        strlen(text) <= length || text[length] != '\n' || memchr(text, '/', length))
        return -EINVAL;
    memcpy(target.base, text, length);
    (void)snprintf(target.reason, sizeof target.reason, "%s", text + length + 1);
    *ret = target;
    return 0;
}

int drop_target_read(int key_directory, struct drop_target *ret_target)
{
    char text[TARGET_SIZE_MAX];
    _cleanup_(closep) int fd = drop_open_input(key_directory, "target");

    if (fd < 0)
        return fd == -ENOENT ? 1 : fd;
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    return parse_target(text, ret_target) < 0 ? 1 : 0; /* damaged: decided anew */
}

/* --- looking ---------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Tickets before what is beside them, so that the first one gives the name. */
static void put_ticket_first(struct drop_inputs *inputs)
{
    char name[DROP_NAME_SIZE];
    size_t length;

    qsort(inputs->names, inputs->count, sizeof *inputs->names, compare_names);
    for (size_t i = 1; i < inputs->count; i++) {
        if (!drop_kind_is_ticket(drop_name_split(inputs->names[i], &length)) ||
            drop_kind_is_ticket(drop_name_split(inputs->names[0], &length)))
            continue;
        memcpy(name, inputs->names[0], sizeof name);
        memcpy(inputs->names[0], inputs->names[i], sizeof name);
        memcpy(inputs->names[i], name, sizeof name);
    }
}

int drop_key_list(int inputs_directory, struct drop_inputs *ret_inputs)
{
    _cleanup_(closedirp) DIR *list = drop_open_list(inputs_directory);
    const char *name;
    int r = 1;

    if (!list)
        return -errno;
    ret_inputs->count = 0;
    while (ret_inputs->count < DROP_KEY_INPUTS_MAX && (r = drop_list_next(list, &name)) > 0)
        (void)snprintf(ret_inputs->names[ret_inputs->count++], DROP_NAME_SIZE, "%s", name);
    if (r < 0) /* some are not known: this is no ticket without inputs */
        return r;
    put_ticket_first(ret_inputs);
    return ret_inputs->count > 0 ? 0 : -ENOENT;
}

int drop_key_open_inputs(const struct drop_folder *folder, const char *key, int *ret_directory)
{
    _cleanup_(closep) int directory = drop_key_open(folder, key);

    if (directory < 0)
        return directory;
    int fd = drop_open_directory(directory, "d");
    if (fd < 0)
        return fd;
    *ret_directory = fd;
    return 0;
}

/* An earlier run ended while it moved inputs to new/. 0 when they are back, 1 when they had to be
 * taken up as they are. */
static int settle_new(struct drop_folder *folder, int directory, const char *key)
{
    _cleanup_(closep) int new = drop_open_directory(directory, "new");

    if (new < 0)
        return new == -ENOENT ? 0 : new;
    int r = put_back(folder, new);
    if (r <= 0)
        return r;
    r = commit(folder, key);
    return r < 0 ? r : 1;
}

static int sync_all(struct drop_folder *folder, int directory, int inputs)
{
    int r = drop_sync(inputs);

    if (r == 0)
        r = drop_sync(directory);
    if (r == 0)
        r = drop_sync(folder->dirs[DROP_DIR_WORKING]);
    return r == 0 ? drop_sync(folder->intake) : r;
}

static const char *type_name(mode_t mode)
{
    static const struct {
        mode_t type;
        const char *name;
    } types[] = {
        {S_IFLNK, "a symbolic link"},    {S_IFDIR, "a directory"},    {S_IFIFO, "a named pipe"},
        {S_IFCHR, "a character device"}, {S_IFBLK, "a block device"}, {S_IFSOCK, "a socket"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if ((mode & S_IFMT) == types[i].type)
            return types[i].name;
    }
    return "no regular file";
}

static int refuse(struct drop_message *m, const char *name, const char *why)
{
    char shown[DROP_SHOWN_SIZE / 2];

    drop_name_show(name, shown, sizeof shown);
    (void)fault_set(&m->fault, -EINVAL, "%s: %s", shown, why);
    return DROP_LOOK_REFUSED;
}

static int refuse_ticketless(struct drop_message *m, const char *name, enum drop_kind kind)
{
    if (kind == DROP_KIND_PICTURE || kind == DROP_KIND_MASK)
        return refuse(m, name, "a picture for which no ticket came (NAME.txt or NAME.ini)");
    return refuse(m, name,
                  "neither a ticket (NAME.txt, NAME.ini) nor a picture (png, jpg) for one");
}

static int judge(int inputs_directory, struct drop_message *m)
{
    struct drop_inputs inputs;
    unsigned tickets = 0;
    struct stat st;
    size_t length;

    int r = drop_key_list(inputs_directory, &inputs);
    if (r < 0)
        return r;
    for (size_t i = 0; i < inputs.count; i++) {
        if (fstatat(inputs_directory, inputs.names[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
            return -errno;
        char why[96];
        (void)snprintf(why, sizeof why, "%s; only regular files are taken", type_name(st.st_mode));
        if (!S_ISREG(st.st_mode))
            return refuse(m, inputs.names[i], why);
        if (!drop_kind_is_ticket(drop_name_split(inputs.names[i], &length)))
            continue;
        m->owner = st.st_uid;
        tickets++;
    }
    enum drop_kind kind = drop_name_split(inputs.names[0], &length);
    if (tickets == 0)
        return refuse_ticketless(m, inputs.names[0], kind);
    if (tickets > 1)
        return refuse(m, inputs.names[0], "there was a .txt and an .ini of this name: drop one");
    return DROP_LOOK_TICKET;
}

int drop_key_look(struct drop_folder *folder, struct drop_message *ret)
{
    _cleanup_(closep) int directory = drop_key_open(folder, ret->key);
    struct drop_target target = {0};
    int fd = -1;

    if (directory < 0)
        return directory == -ENOENT ? DROP_LOOK_THROUGH : directory;
    int r = settle_new(folder, directory, ret->key);
    if (r >= 0)
        r = drop_key_open_inputs(folder, ret->key, &fd);
    _cleanup_(closep) int inputs = fd;
    if (r == -ENOENT || (r == 0 && unlinkat(directory, "d", AT_REMOVEDIR) == 0)) {
        r = drop_key_remove(folder, ret->key);
        return r < 0 ? r : DROP_LOOK_THROUGH;
    }
    if (r == 0)
        r = sync_all(folder, directory, inputs);
    if (r == 0)
        r = drop_target_read(directory, &target);
    if (r < 0)
        return r;
    ret->was_published = r == 0 && target.where == DROP_DIR_DONE;
    if (r == 0 && target.where == DROP_DIR_FAILED) {
        (void)fault_set(&ret->fault, -EINVAL, "%s", target.reason);
        return DROP_LOOK_REFUSED;
    }
    return judge(inputs, ret);
}
