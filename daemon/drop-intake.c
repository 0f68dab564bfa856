#include "daemon/drop-intake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#define EVENT_BYTES 65536u

#define WATCHED                                                                                    \
    (IN_CREATE | IN_OPEN | IN_CLOSE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF |   \
     IN_MOVE_SELF | IN_ONLYDIR)

/* --- the table -------------------------------------------------------------------------------- */

static unsigned class_of(const struct drop_entry *entry)
{
    return drop_kind_is_ticket(entry->kind) ? 0 : 1;
}

/* The position of `name`, or where it belongs. */
static size_t find(const struct drop_intake *intake, const char *name, bool *ret_found)
{
    size_t low = 0, high = intake->entries.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(intake->entries.items[middle]->name, name);
        *ret_found = order == 0;
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_found = false;
    return low;
}

/* NULL when out of memory. Users without entries make room for others. */
static struct drop_users *user_of(struct drop_intake *intake, uid_t uid)
{
    struct drop_users *empty = NULL;

    for (size_t i = 0; i < intake->users.count; i++) {
        struct drop_users *user = &intake->users.items[i];
        if (user->uid == uid)
            return user;
        if (user->entries[0] + user->entries[1] == 0)
            empty = user;
    }
    if (!empty)
        empty = array_push(&intake->users);
    if (empty)
        empty->uid = uid;
    return empty;
}

static void count_entry(struct drop_intake *intake, const struct drop_entry *entry, int change)
{
    struct drop_users *user = user_of(intake, entry->uid); /* is there: made by has_room() */
    unsigned class = class_of(entry);

    if (user)
        user->entries[class] += (unsigned)change;
    intake->total[class] += (unsigned)change;
}

static bool has_room(struct drop_intake *intake, uid_t uid, unsigned class)
{
    if (intake->total[class] >= DROP_INTAKE_MAX)
        return false;
    const struct drop_users *user = user_of(intake, uid);
    return user && user->entries[class] < DROP_INTAKE_USER_MAX;
}

static struct drop_entry *entry_free(struct drop_entry *entry)
{
    if (entry)
        free(entry->name);
    free(entry);
    return NULL;
}
DEFINE_FREEP(struct drop_entry *, entry_free)

static void remove_at(struct drop_intake *intake, size_t at)
{
    struct drop_entry **items = intake->entries.items;

    count_entry(intake, items[at], -1);
    entry_free(items[at]);
    memmove(items + at, items + at + 1, (--intake->entries.count - at) * sizeof *items);
}

void drop_intake_forget(struct drop_intake *intake, struct drop_entry *entry)
{
    bool found;
    size_t at = find(intake, entry->name, &found);

    if (found)
        remove_at(intake, at);
}

/* NULL when there is no room: the next scan finds it again. */
static struct drop_entry *insert(struct drop_intake *intake, size_t at, const char *name,
                                 enum drop_kind kind, const struct stat *st)
{
    unsigned class = drop_kind_is_ticket(kind) ? 0 : 1;

    if (!has_room(intake, st->st_uid, class)) {
        intake->is_partial |= class == 0;
        return NULL;
    }
    _cleanup_(entry_freep) struct drop_entry *entry = calloc(1, sizeof *entry);
    if (entry)
        entry->name = strdup(name);
    if (!entry || !entry->name || !array_push(&intake->entries)) {
        intake->is_partial = true;
        return NULL;
    }
    struct drop_entry **items = intake->entries.items;
    memmove(items + at + 1, items + at, (intake->entries.count - 1 - at) * sizeof *items);
    items[at] = entry;
    entry->kind = kind;
    entry->uid = st->st_uid;
    entry->scan = intake->scan;
    count_entry(intake, entry, 1);
    return TAKE_PTR(entry);
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Takes note of what a file is now; whether it is another than before. */
static bool note(struct drop_intake *intake, struct drop_entry *entry, const struct stat *st,
                 uint64_t now)
{
    bool same = entry->same_usec && entry->inode == st->st_ino && entry->size == st->st_size &&
                entry->uid == st->st_uid && is_same_time(&entry->modified, &st->st_mtim) &&
                is_same_time(&entry->changed, &st->st_ctim);

    if (same)
        return false;
    if (entry->inode != st->st_ino || !entry->first_usec) {
        entry->first_usec = now;
        entry->is_created = entry->is_open = entry->is_ready = false;
    }
    if (entry->uid != st->st_uid) {
        count_entry(intake, entry, -1);
        entry->uid = st->st_uid;
        (void)user_of(intake, entry->uid);
        count_entry(intake, entry, 1);
    }
    entry->is_regular = S_ISREG(st->st_mode);
    entry->inode = st->st_ino;
    entry->size = st->st_size;
    entry->modified = st->st_mtim;
    entry->changed = st->st_ctim;
    entry->same_usec = now;
    entry->is_stuck = false;
    return true;
}

/* What a file is cannot be learned now: as if it had just become another. */
static void doubt(struct drop_intake *intake, struct drop_entry *entry, uint64_t now)
{
    intake->is_unsure = true;
    if (!entry)
        return;
    entry->is_regular = true;
    entry->size = -1;
    entry->same_usec = now;
}

/* The entry of a name as it is on disk now, or NULL when it is none of ours, gone, or too much. */
static struct drop_entry *look_at(struct drop_intake *intake, const struct drop_folder *folder,
                                  const char *name, uint64_t now)
{
    struct stat st;
    size_t length;
    bool found;

    enum drop_kind kind = drop_name_split(name, &length);
    if (kind == DROP_KIND_IGNORED || drop_folder_is_ours(name))
        return NULL;
    size_t at = find(intake, name, &found);
    if (fstatat(folder->intake, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (found && errno == ENOENT)
            remove_at(intake, at);
        else if (errno != ENOENT)
            doubt(intake, found ? intake->entries.items[at] : NULL, now);
        return NULL;
    }
    struct drop_entry *entry =
        found ? intake->entries.items[at] : insert(intake, at, name, kind, &st);
    if (!entry)
        return NULL;
    (void)note(intake, entry, &st, now);
    entry->scan = intake->scan;
    return entry;
}

/* --- life ------------------------------------------------------------------------------------- */

int drop_intake_init(struct drop_intake *intake)
{
    intake->watch = -1;
    intake->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return intake->inotify < 0 ? -errno : 0;
}

static void forget_all(struct drop_intake *intake)
{
    for (size_t i = 0; i < intake->entries.count; i++)
        entry_free(intake->entries.items[i]);
    intake->entries.count = 0;
    intake->users.count = 0;
    intake->total[0] = intake->total[1] = 0;
    intake->is_partial = false;
}

void drop_intake_done(struct drop_intake *intake)
{
    forget_all(intake);
    array_done(&intake->entries);
    array_done(&intake->users);
    closep(&intake->inotify);
    intake->inotify = -1;
}

int drop_intake_watch(struct drop_intake *intake, const struct drop_folder *folder)
{
    forget_all(intake);
    if (intake->watch >= 0)
        (void)inotify_rm_watch(intake->inotify, intake->watch); /* may have gone with the folder */
    intake->watch = inotify_add_watch(intake->inotify, folder->path, WATCHED);
    return intake->watch < 0 ? -errno : 0;
}

/* --- events ----------------------------------------------------------------------------------- */

/* Events were lost: who still writes is not known any more. */
static void on_overflow(struct drop_intake *intake)
{
    for (size_t i = 0; i < intake->entries.count; i++)
        intake->entries.items[i]->is_created = intake->entries.items[i]->is_open = false;
}

static void on_name(struct drop_intake *intake, const struct drop_folder *folder, uint32_t mask,
                    const char *name, uint64_t now)
{
    bool found;

    if (mask & (IN_OPEN | IN_CLOSE_NOWRITE)) {
        size_t at = find(intake, name, &found);
        struct drop_entry *known = found ? intake->entries.items[at] : NULL;
        if (known && known->is_created && !known->is_ready) /* a reader may be all there is */
            known->is_open = mask & IN_OPEN;
        return;
    }
    struct drop_entry *entry = look_at(intake, folder, name, now);
    if (!entry)
        return;
    if (mask & IN_CREATE) {
        entry->is_created = true;
        entry->is_open = entry->is_ready = false;
    }
    if (mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) {
        entry->is_open = false;
        entry->is_ready = true;
    }
}

unsigned drop_intake_read_events(struct drop_intake *intake, const struct drop_folder *folder,
                                 uint64_t now)
{
    _Alignas(struct inotify_event) char buffer[EVENT_BYTES];
    unsigned result = 0;

    ssize_t n = read(intake->inotify, buffer, sizeof buffer);
    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *event = (const void *)(buffer + at);
        at += (ssize_t)(sizeof *event + event->len);
        if (event->mask & IN_Q_OVERFLOW) {
            on_overflow(intake);
            result |= DROP_EVENTS_RESCAN;
        } else if (event->wd != intake->watch) {
            continue; /* of a folder that was there before */
        } else if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) {
            result |= DROP_EVENTS_REOPEN;
        } else if (event->len > 0 && drop_folder_is_ours(event->name)) {
            if (event->mask & (IN_DELETE | IN_MOVED_FROM))
                result |= DROP_EVENTS_GOING;
        } else if (event->len > 0) {
            on_name(intake, folder, event->mask, event->name, now);
        }
    }
    return result;
}

/* --- scans ------------------------------------------------------------------------------------ */

int drop_intake_scan(struct drop_intake *intake, const struct drop_folder *folder, uint64_t now)
{
    _cleanup_(closedirp) DIR *list = drop_open_list(folder->intake);
    const char *name;
    int r;

    if (!list)
        return -errno;
    intake->scan++;
    intake->is_partial = intake->is_unsure = false;
    while ((r = drop_list_next(list, &name)) > 0)
        (void)look_at(intake, folder, name, now);
    if (r < 0)
        return r;
    for (size_t i = intake->entries.count; i-- > 0;) {
        if (intake->entries.items[i]->scan != intake->scan)
            remove_at(intake, i);
    }
    return 0;
}

bool drop_intake_wants_scan(const struct drop_intake *intake)
{
    return intake->is_partial && intake->total[0] < DROP_INTAKE_USER_MAX / 2;
}

/* --- whose turn it is ------------------------------------------------------------------------- */

/* Is there a ticket of the picture's NAME? */
static bool has_ticket(const struct drop_intake *intake, const struct drop_entry *picture)
{
    char name[DROP_NAME_SIZE];
    size_t length;
    bool found = false;

    (void)drop_name_split(picture->name, &length);
    for (size_t i = 0; i < drop_suffix_count && !found; i++) {
        const struct drop_suffix *suffix = &drop_suffixes[i];
        if (drop_kind_is_ticket(suffix->kind) && length + strlen(suffix->text) < sizeof name) {
            (void)snprintf(name, sizeof name, "%.*s%s", (int)length, picture->name, suffix->text);
            (void)find(intake, name, &found);
        }
    }
    return found;
}

/* When an entry may be taken up; UINT64_MAX: not by waiting. */
static uint64_t due_of(const struct drop_intake *intake, const struct drop_entry *entry,
                       uint64_t now)
{
    if (entry->is_stuck)
        return UINT64_MAX;
    if (!entry->is_regular)
        return 0;
    if (entry->is_open)
        return UINT64_MAX;
    uint64_t settled = entry->same_usec + intake->settle_usec;
    uint64_t late = entry->first_usec + intake->orphan_usec;
    if (drop_kind_is_ticket(entry->kind))
        return entry->is_ready ? 0 : settled;
    late = late > settled ? late : settled;
    return late <= now && has_ticket(intake, entry) ? UINT64_MAX : late;
}

static bool is_before(const struct drop_entry *a, const struct drop_entry *b)
{
    if (a->modified.tv_sec != b->modified.tv_sec)
        return a->modified.tv_sec < b->modified.tv_sec;
    if (a->modified.tv_nsec != b->modified.tv_nsec)
        return a->modified.tv_nsec < b->modified.tv_nsec;
    return strcmp(a->name, b->name) < 0;
}

struct drop_entry *drop_intake_next(struct drop_intake *intake, const struct drop_folder *folder,
                                    uint64_t now, bool (*may_take)(uid_t uid, void *userdata),
                                    void *userdata, uint64_t *ret_due)
{
    struct drop_entry *best = NULL, *asked = NULL;
    bool may = false;

    *ret_due = UINT64_MAX;
    for (size_t i = 0; i < intake->entries.count; i++) {
        struct drop_entry *entry = intake->entries.items[i];
        uint64_t due = due_of(intake, entry, now);
        if (due > now) {
            *ret_due = due < *ret_due ? due : *ret_due;
            continue;
        }
        if (!asked || asked->uid != entry->uid) /* neighbours are mostly of one user */
            may = may_take(entry->uid, userdata);
        asked = entry;
        if (may && (!best || is_before(entry, best)))
            best = entry;
    }
    if (!best || best->is_ready)
        return best;
    uint64_t since = best->same_usec;
    best = look_at(intake, folder, best->name, now); /* still the same? */
    if (best && best->same_usec == since)
        return best;
    *ret_due = now;
    return NULL;
}
