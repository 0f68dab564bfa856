#include "tests/support/powercut_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NONE     UINT_MAX
#define SIZE_CAP (1u << 20)

/* --- the tree --------------------------------------------------------------------------------- */

const struct powercut_link *powercut_find(const struct powercut_links *links, unsigned directory,
                                          const char *name)
{
    for (size_t i = 0; i < links->count; i++)
        if (links->items[i].directory == directory && strcmp(links->items[i].name, name) == 0)
            return &links->items[i];
    return NULL;
}

static void clear(struct powercut_links *links, unsigned directory, const char *name)
{
    const struct powercut_link *link = powercut_find(links, directory, name);

    if (link)
        links->items[link - links->items] = links->items[--links->count];
}

void powercut_apply(struct powercut_links *links, const struct powercut_change *change)
{
    if (change->kind == POWERCUT_CLEAR || change->kind == POWERCUT_SET)
        clear(links, change->directory, change->name);
    if (change->kind != POWERCUT_SET)
        return;
    if (change->from != NONE)
        clear(links, change->from, change->from_name);
    struct powercut_link *link = array_push(links);
    if (!link)
        return;
    *link = (struct powercut_link){.directory = change->directory, .node = change->node};
    memcpy(link->name, change->name, sizeof link->name);
}

static unsigned new_node(struct powercut_record *r, bool is_directory)
{
    bool *slot = array_push(&r->nodes);

    if (slot)
        *slot = is_directory;
    return (unsigned)r->nodes.count - 1;
}

static struct powercut_change *add(struct powercut_record *r, enum powercut_kind kind,
                                   unsigned node, const struct inject_call *call)
{
    struct powercut_change *change = array_push(&r->changes);

    if (!change) {
        r->is_broken = true;
        return NULL;
    }
    *change = (struct powercut_change){
        .kind = kind, .node = node, .directory = NONE, .from = NONE, .told = r->shared->length};
    (void)snprintf(change->call, sizeof change->call, "%s", call ? call->name : "start");
    return change;
}

/* --- what lies there when the watching begins: all of it durable ------------------------------ */

static void snapshot(struct powercut_record *r, const char *path, unsigned directory);

static void snapshot_one(struct powercut_record *r, const char *path, unsigned directory,
                         const char *name)
{
    char full[PATH_MAX];
    struct stat st;

    (void)snprintf(full, sizeof full, "%s/%s", path, name);
    if (lstat(full, &st) < 0)
        return;
    unsigned node = new_node(r, S_ISDIR(st.st_mode));
    struct powercut_change set = {
        .kind = POWERCUT_SET, .node = node, .directory = directory, .from = NONE};
    (void)snprintf(set.name, sizeof set.name, "%s", name);
    powercut_apply(&r->first, &set);
    powercut_apply(&r->links, &set);
    if (S_ISDIR(st.st_mode)) {
        snapshot(r, full, node);
        return;
    }
    struct powercut_change *data = add(r, POWERCUT_DATA, node, NULL);
    _cleanup_(closep) int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (data && fd >= 0 && (data->data = malloc((size_t)st.st_size + 1)))
        data->size = (size_t)read(fd, data->data, (size_t)st.st_size);
    (void)add(r, POWERCUT_SYNC, node, NULL);
}

static void snapshot(struct powercut_record *r, const char *path, unsigned directory)
{
    _cleanup_(closedirp) DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            snapshot_one(r, path, directory, entry->d_name);
}

static void begin(struct powercut_record *r)
{
    r->has_begun = true;
    (void)new_node(r, true); /* POWERCUT_ROOT */
    snapshot(r, r->folder, POWERCUT_ROOT);
}

/* --- arguments of a call ---------------------------------------------------------------------- */

static bool peek(pid_t pid, uint64_t address, void *to, size_t size)
{
    struct iovec local = {to, size}, remote = {(void *)(uintptr_t)address, size};

    return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static bool peek_text(pid_t pid, uint64_t address, char *to, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!peek(pid, address + i, to + i, 1))
            return false;
        if (!to[i])
            return true;
    }
    return false;
}

/* A path of ours as directory and last name; false for other places. */
static bool resolve_path(const struct powercut_record *r, const char *path, unsigned *ret_directory,
                         char name[POWERCUT_NAME])
{
    size_t n = strlen(r->folder);
    unsigned directory = POWERCUT_ROOT;

    if (strncmp(path, r->folder, n) != 0 || path[n] != '/')
        return false;
    for (const char *at = path + n + 1;;) {
        const char *slash = strchrnul(at, '/');
        (void)snprintf(name, POWERCUT_NAME, "%.*s", (int)(slash - at), at);
        if (!*slash) {
            *ret_directory = directory;
            return *name != '\0';
        }
        const struct powercut_link *link = powercut_find(&r->links, directory, name);
        if (!link)
            return false;
        directory = link->node;
        at = slash + 1;
    }
}

static bool resolve_at(const struct powercut_record *r, const struct inject_call *call, int fd,
                       uint64_t address, unsigned *ret_directory, char name[POWERCUT_NAME])
{
    char text[PATH_MAX], link[64], path[2 * PATH_MAX];

    if (!peek_text(call->pid, address, text, sizeof text))
        return false;
    if (text[0] == '/')
        return resolve_path(r, text, ret_directory, name);
    (void)snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)call->pid, fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0)
        return false;
    (void)snprintf(path + n, PATH_MAX, "/%.255s", text);
    return strcmp(text, ".") != 0 && resolve_path(r, path, ret_directory, name);
}

/* The node of an open descriptor; NONE when it is none of ours. */
static unsigned node_of(const struct powercut_record *r, const struct inject_call *call, int fd)
{
    char link[64], path[PATH_MAX], name[POWERCUT_NAME];
    unsigned directory;

    (void)snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)call->pid, fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return NONE;
    path[n] = '\0';
    if (strcmp(path, r->folder) == 0)
        return POWERCUT_ROOT;
    if (!resolve_path(r, path, &directory, name))
        return NONE;
    const struct powercut_link *found = powercut_find(&r->links, directory, name);
    return found ? found->node : NONE;
}

/* --- calls ------------------------------------------------------------------------------------ */

static void link_new(struct powercut_record *r, const struct inject_call *call, unsigned directory,
                     const char *name, bool is_directory)
{
    unsigned node = new_node(r, is_directory);
    struct powercut_change *set = add(r, POWERCUT_SET, node, call);

    if (!set)
        return;
    set->directory = directory;
    (void)snprintf(set->name, sizeof set->name, "%s", name);
    powercut_apply(&r->links, set);
}

/* The node's content so far, malloc'd with room for `more`. */
static char *content_of(const struct powercut_record *r, unsigned node, size_t more,
                        size_t *ret_size)
{
    const struct powercut_change *last = NULL;

    for (size_t i = 0; i < r->changes.count; i++)
        if (r->changes.items[i].kind == POWERCUT_DATA && r->changes.items[i].node == node)
            last = &r->changes.items[i];
    *ret_size = last ? last->size : 0;
    char *copy = malloc(*ret_size + more + 1);
    if (copy && last)
        memcpy(copy, last->data, last->size);
    return copy;
}

static void set_data(struct powercut_record *r, const struct inject_call *call, unsigned node,
                     char *data, size_t size)
{
    struct powercut_change *change = add(r, POWERCUT_DATA, node, call);

    if (!change) {
        free(data);
        return;
    }
    change->data = data;
    change->size = size;
}

static void on_open(struct powercut_record *r, const struct inject_call *call, int fd,
                    uint64_t path, uint64_t flags)
{
    char name[POWERCUT_NAME];
    unsigned directory;

    if (!(flags & (O_CREAT | O_TRUNC)) || !resolve_at(r, call, fd, path, &directory, name))
        return;
    const struct powercut_link *old = powercut_find(&r->links, directory, name);
    if (!old && flags & O_CREAT)
        link_new(r, call, directory, name, false);
    else if (old && flags & O_TRUNC)
        set_data(r, call, old->node, calloc(1, 1), 0);
}

static void on_mkdir(struct powercut_record *r, const struct inject_call *call, int fd,
                     uint64_t path)
{
    char name[POWERCUT_NAME];
    unsigned directory;

    if (resolve_at(r, call, fd, path, &directory, name) &&
        !powercut_find(&r->links, directory, name))
        link_new(r, call, directory, name, true);
}

static void on_write(struct powercut_record *r, const struct inject_call *call, size_t count)
{
    unsigned node = node_of(r, call, (int)call->args[0]);
    size_t size = 0;

    if (node == NONE)
        return;
    char *data = content_of(r, node, count, &size);
    r->is_broken |=
        !data || count > SIZE_CAP || !peek(call->pid, call->args[1], data + size, count);
    set_data(r, call, node, data, size + count);
}

static void on_sendfile(struct powercut_record *r, const struct inject_call *call)
{
    unsigned node = node_of(r, call, (int)call->args[0]);
    size_t size = 0, count = call->args[3];
    char path[64];
    off_t offset = 0;

    if (node == NONE)
        return;
    (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)call->pid, (int)call->args[1]);
    _cleanup_(closep) int from = open(path, O_RDONLY | O_CLOEXEC);
    char *data = content_of(r, node, count, &size);
    bool has_offset = !call->args[2] || peek(call->pid, call->args[2], &offset, sizeof offset);
    ssize_t n = data && from >= 0 && has_offset && count < SIZE_CAP
                    ? pread(from, data + size, count, offset)
                    : -1;
    r->is_broken |= n < 0;
    set_data(r, call, node, data, size + (n > 0 ? (size_t)n : 0));
}

static void on_rename(struct powercut_record *r, const struct inject_call *call, int from_fd,
                      uint64_t from_path, int to_fd, uint64_t to_path, unsigned flags)
{
    char from_name[POWERCUT_NAME], name[POWERCUT_NAME];
    unsigned from, directory;

    if (!resolve_at(r, call, from_fd, from_path, &from, from_name) ||
        !resolve_at(r, call, to_fd, to_path, &directory, name))
        return;
    const struct powercut_link *link = powercut_find(&r->links, from, from_name);
    if (!link || (flags & RENAME_NOREPLACE && powercut_find(&r->links, directory, name)))
        return;
    struct powercut_change *set = add(r, POWERCUT_SET, link->node, call);
    if (!set)
        return;
    set->directory = directory;
    set->from = from;
    memcpy(set->name, name, sizeof name);
    memcpy(set->from_name, from_name, sizeof from_name);
    powercut_apply(&r->links, set);
}

static void on_unlink(struct powercut_record *r, const struct inject_call *call, int fd,
                      uint64_t path, bool is_directory)
{
    char name[POWERCUT_NAME];
    unsigned directory;

    if (!resolve_at(r, call, fd, path, &directory, name))
        return;
    const struct powercut_link *link = powercut_find(&r->links, directory, name);
    if (!link || r->nodes.items[link->node] != is_directory)
        return;
    for (size_t i = 0; is_directory && i < r->links.count; i++)
        if (r->links.items[i].directory == link->node)
            return; /* not empty */
    struct powercut_change *gone = add(r, POWERCUT_CLEAR, link->node, call);
    if (!gone)
        return;
    gone->directory = directory;
    memcpy(gone->name, name, sizeof name);
    powercut_apply(&r->links, gone);
}

static void on_sync(struct powercut_record *r, const struct inject_call *call)
{
    unsigned node = node_of(r, call, (int)call->args[0]);

    if (node != NONE)
        (void)add(r, POWERCUT_SYNC, node, call);
}

int powercut_on_call(const struct inject_call *call, void *userdata)
{
    struct powercut_record *r = userdata;
    const uint64_t *a = call->args;

    if (!r->has_begun)
        begin(r);
    switch (call->number) {
    case SYS_openat:
        on_open(r, call, (int)a[0], a[1], a[2]);
        break;
    case SYS_mkdirat:
        on_mkdir(r, call, (int)a[0], a[1]);
        break;
    case SYS_write:
        on_write(r, call, a[2]);
        break;
    case SYS_sendfile:
        on_sendfile(r, call);
        break;
    case SYS_renameat2:
        on_rename(r, call, (int)a[0], a[1], (int)a[2], a[3], (unsigned)a[4]);
        break;
    case SYS_unlinkat:
        on_unlink(r, call, (int)a[0], a[1], a[2] & AT_REMOVEDIR);
        break;
    case SYS_fsync:
    case SYS_fdatasync:
        on_sync(r, call);
        break;
#ifdef SYS_renameat
    case SYS_renameat:
        on_rename(r, call, (int)a[0], a[1], (int)a[2], a[3], 0);
        break;
#endif
#ifdef SYS_mkdir
    case SYS_mkdir:
        on_mkdir(r, call, AT_FDCWD, a[0]);
        break;
    case SYS_rename:
        on_rename(r, call, AT_FDCWD, a[0], AT_FDCWD, a[1], 0);
        break;
    case SYS_unlink:
        on_unlink(r, call, AT_FDCWD, a[0], false);
        break;
#endif
    default: /* reads; and writers nobody uses here yet */
        r->is_broken |= (call->classes & INJECT_CHANGES) != 0;
    }
    return INJECT_GO;
}

void powercut_record_done(struct powercut_record *r)
{
    for (size_t i = 0; i < r->changes.count; i++)
        free(r->changes.items[i].data);
    array_done(&r->changes);
    array_done(&r->nodes);
    array_done(&r->first);
    array_done(&r->links);
}
