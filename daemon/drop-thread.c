/* A turn of the loop: orders from the mailbox, events, a scan when one is due, some files taken up,
 * some work on tickets. A ticket that has been taken up holds a slot until the event loop's thread
 * has answered for it, so that only a few are ahead of the queue, and only some of one user. What
 * the file system refuses stays on the work list and is tried again later. */
#include "daemon/drop-thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/drop-intake.h"
#include "daemon/drop-key.h"
#include "daemon/drop-publish.h"
#include "daemon/event.h"

#define SEC            UINT64_C(1000000)
#define SLOTS_MAX      128u
#define SLOTS_USER_MAX 32u
#define WORK_MAX       256u /* no more is taken up while so much waits to be done */
#define TURN_MAX       32u  /* files taken up, tickets worked on in a turn */
#define DELAY_MAX      (60 * SEC)
#define SCAN_GAP       (SEC / 10)
#define GOING_DELAY    (SEC / 2)
#define SCAN_BLIND     (5 * SEC) /* between scans where there are no events */

/* What may be wrong, worst first. */
enum trouble {
    TROUBLE_FOLDER,
    TROUBLE_WORK,
    TROUBLE_INTAKE,
    TROUBLE_COUNT,
};

struct slot {
    char key[DROP_KEY_SIZE]; /* "": free */
    uint32_t uid;
};

struct state {
    struct drop_mailbox *box;
    const struct drop_thread_options *options;
    struct drop_folder folder;
    struct drop_intake intake;
    struct letters work;
    struct slot slots[SLOTS_MAX];
    uint32_t slots_used, room;
    struct ARRAY(struct drop_message *) found; /* keys of an earlier run, not looked at yet */
    uint64_t open_due, scan_due, scanned, take_due;
    unsigned open_attempts, take_attempts, unsure_attempts;
    char troubles[TROUBLE_COUNT][256];
    bool is_blind; /* no inotify */
};

uint64_t drop_now(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* always there */
    return (uint64_t)t.tv_sec * SEC + (uint64_t)t.tv_nsec / 1000;
}

uint64_t drop_delay(unsigned attempts, uint64_t most)
{
    uint64_t delay = attempts < 16 ? SEC << attempts : most;

    return delay < most ? delay : most;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void set_trouble(struct state *s, enum trouble which, const char *text)
{
    const char *worst = "";

    if (strcmp(s->troubles[which], text) != 0 && *text)
        event_log(EVENT_DROP_DEGRADED, EVENT_OF_NONE, "%s; will be tried again", text);
    (void)snprintf(s->troubles[which], sizeof s->troubles[which], "%s", text);
    for (size_t i = TROUBLE_COUNT; i-- > 0;)
        worst = *s->troubles[i] ? s->troubles[i] : worst;
    drop_mailbox_set_health(s->box, worst);
}

static void set_trouble_errno(struct state *s, enum trouble which, const char *what, int err)
{
    char text[256];

    (void)snprintf(text, sizeof text, "drop: %.128s: %s: %s", s->folder.path, what, strerror(-err));
    set_trouble(s, which, text);
}

/* --- slots ------------------------------------------------------------------------------------ */

static struct slot *find_slot(struct state *s, const char *key)
{
    for (size_t i = 0; i < SLOTS_MAX; i++) {
        if (strcmp(s->slots[i].key, key) == 0)
            return &s->slots[i];
    }
    return NULL;
}

static void take_slot(struct state *s, const char *key, uint32_t uid)
{
    struct slot *slot = find_slot(s, "");

    if (!slot) /* callers look first */
        return;
    memcpy(slot->key, key, sizeof slot->key);
    slot->uid = uid;
    s->slots_used++;
}

static void give_slot(struct state *s, const char *key)
{
    struct slot *slot = find_slot(s, key);

    if (!slot)
        return;
    slot->key[0] = '\0';
    s->slots_used--;
}

static bool may_take(uid_t uid, void *userdata)
{
    const struct state *s = userdata;
    unsigned used = 0;

    for (size_t i = 0; i < SLOTS_MAX; i++)
        used += s->slots[i].key[0] && s->slots[i].uid == uid;
    return used < SLOTS_USER_MAX;
}

static bool has_slot(const struct state *s)
{
    return s->slots_used < SLOTS_MAX && s->work.count < WORK_MAX;
}

/* --- opening ---------------------------------------------------------------------------------- */

static void forget_found(struct state *s)
{
    for (size_t i = 0; i < s->found.count; i++)
        drop_message_free(s->found.items[i]);
    s->found.count = 0;
}

/* Whether a ticket is being dealt with already. */
static bool is_known(struct state *s, const char *key)
{
    for (const struct letter *l = s->work.first; l; l = l->next) {
        if (strcmp(((const struct drop_message *)l)->key, key) == 0)
            return true;
    }
    return find_slot(s, key);
}

/* Remembers what an earlier run has left in working/. */
static int find_keys(struct state *s)
{
    _cleanup_(closedirp) DIR *list = drop_open_list(s->folder.dirs[DROP_DIR_WORKING]);
    const char *name;
    int r;

    if (!list)
        return -errno;
    forget_found(s);
    while ((r = drop_list_next(list, &name)) > 0) {
        if (!drop_key_is_valid(name) || is_known(s, name))
            continue;
        struct drop_message *m = drop_message_new(DROP_MESSAGE_LOOK, name);
        struct drop_message **at = m ? array_push(&s->found) : NULL;
        if (!at) {
            drop_message_free(m);
            return -ENOMEM;
        }
        *at = m;
    }
    return r;
}

static int try_open(struct state *s, struct fault *f)
{
    int r = drop_folder_open(&s->folder, f);

    if (r < 0)
        return r;
    r = find_keys(s);
    if (r < 0)
        return fault_set(f, r, "drop: %.128s/working: %s", s->folder.path, strerror(-r));
    r = drop_intake_watch(&s->intake, &s->folder);
    if (r < 0 && !s->is_blind)
        log_warning("drop: %s: not watched: %s; looking through it instead", s->folder.path,
                    strerror(-r));
    s->is_blind = r < 0;
    if (!drop_folder_is_current(&s->folder)) /* exchanged in between: watched another one */
        return fault_set(f, -ESTALE, "drop: %.160s: has just been replaced", s->folder.path);
    return 0;
}

static void open_folder(struct state *s, uint64_t now)
{
    struct fault f = {0};

    if (try_open(s, &f) < 0) {
        drop_folder_close(&s->folder);
        s->open_due = now + drop_delay(s->open_attempts++, DELAY_MAX);
        set_trouble(s, TROUBLE_FOLDER, f.text);
        return;
    }
    s->open_attempts = 0;
    s->scan_due = now;
    set_trouble(s, TROUBLE_FOLDER, "");
}

static void close_folder(struct state *s, uint64_t now)
{
    log_warning("drop: %s: the folder has gone or was replaced; opening it again", s->folder.path);
    drop_folder_close(&s->folder);
    s->open_due = now;
}

/* --- taking up -------------------------------------------------------------------------------- */

/* Files beside a ticket that belong to it: of the same owner, and only to tickets. Their number, or
 * an error: none is left behind because it could not be looked at. */
static int gather(struct state *s, const struct drop_entry *entry, int capacity,
                  char (*ret_names)[DROP_NAME_SIZE])
{
    size_t length;
    struct stat st;
    int count = 0;

    (void)drop_name_split(entry->name, &length);
    for (size_t i = 0; i < drop_suffix_count && drop_kind_is_ticket(entry->kind); i++) {
        const char *suffix = drop_suffixes[i].text;
        char *name = ret_names[count];
        if (length + strlen(suffix) >= DROP_NAME_SIZE || count + 1 >= capacity)
            continue;
        (void)snprintf(name, DROP_NAME_SIZE, "%.*s%s", (int)length, entry->name, suffix);
        if (strcmp(name, entry->name) == 0)
            continue;
        if (fstatat(s->folder.intake, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            count += st.st_uid == entry->uid;
        else if (drop_is_passing(-errno))
            return -errno;
    }
    (void)snprintf(ret_names[count++], DROP_NAME_SIZE, "%s", entry->name);
    return count;
}

static void on_stuck(struct drop_entry *entry, int err)
{
    char shown[DROP_SHOWN_SIZE];

    entry->is_stuck = true;
    drop_name_show(entry->name, shown, sizeof shown);
    log_warning("drop: %s: cannot be moved: %s; left where it is", shown, strerror(-err));
}

static int take_up(struct state *s, struct drop_entry *entry)
{
    char names[DROP_KEY_INPUTS_MAX][DROP_NAME_SIZE];
    const char *list[DROP_KEY_INPUTS_MAX];
    _cleanup_(drop_message_freep) struct drop_message *m = drop_message_new(DROP_MESSAGE_LOOK, "");
    char key[DROP_KEY_SIZE];

    if (!m)
        return -ENOMEM;
    int count = gather(s, entry, DROP_KEY_INPUTS_MAX, names);
    if (count < 0)
        return count;
    for (int i = 0; i < count; i++)
        list[i] = names[i];
    bool stuck = false;
    int r = drop_key_take(&s->folder, list, (size_t)count, key, &stuck);
    if (key[0]) {
        take_slot(s, key, entry->uid);
        memcpy(m->key, key, sizeof key);
        m->due_usec = r < 0 ? drop_now() + drop_delay(m->attempts++, DELAY_MAX) : 0;
        drop_list_push(&s->work, TAKE_PTR(m));
    }
    if (r < 0 && !stuck)
        return r;
    if (r < 0 && r != -ENOENT) {
        on_stuck(entry, r);
        return 0;
    }
    drop_intake_forget(&s->intake, entry);
    return 0;
}

/* Returns when to come again. */
static uint64_t take_some(struct state *s, uint64_t now)
{
    uint64_t due = UINT64_MAX;

    if (now < s->take_due)
        return s->take_due;
    for (unsigned i = 0; i < TURN_MAX; i++) {
        if (!has_slot(s) || s->slots_used >= s->room)
            return UINT64_MAX; /* an answer wakes us */
        struct drop_entry *entry = drop_intake_next(&s->intake, &s->folder, now, may_take, s, &due);
        if (!entry && due == UINT64_MAX)
            set_trouble(s, TROUBLE_INTAKE, "");
        if (!entry)
            return due;
        int r = take_up(s, entry);
        if (r < 0) {
            set_trouble_errno(s, TROUBLE_INTAKE, "cannot take up files", r);
            s->take_due = now + drop_delay(s->take_attempts++, DELAY_MAX);
            return s->take_due;
        }
        s->take_attempts = 0;
        set_trouble(s, TROUBLE_INTAKE, "");
    }
    return now;
}

/* --- work on tickets -------------------------------------------------------------------------- */

/* Each returns 0 when the message has been passed on or is to be freed (*ret_done), or an error
 * after which it stays. */
static int to_failed(struct state *s, struct drop_message *m)
{
    give_slot(s, m->key);
    drop_message_clear(m);
    m->kind = DROP_MESSAGE_FAIL;
    drop_list_push(&s->work, m);
    return 1;
}

static int work_look(struct state *s, struct drop_message *m)
{
    int r = drop_key_look(&s->folder, m);

    if (r < 0)
        return r;
    if (r == DROP_LOOK_REFUSED)
        return to_failed(s, m);
    if (r == DROP_LOOK_THROUGH) {
        give_slot(s, m->key);
        return 0;
    }
    m->kind = DROP_MESSAGE_FOUND;
    m->attempts = 0;
    drop_mailbox_put(&s->box->to_loop, m);
    return 1;
}

static int work_read(struct state *s, struct drop_message *m)
{
    int r = m->was_published ? drop_publish_rest(&s->folder, m->key) : 1;

    if (r == 0) {
        give_slot(s, m->key);
        return 0;
    }
    if (r == 1 && m->was_published) {
        (void)fault_set(&m->fault, -ENOENT, "its job was deleted before all of it was here");
        return to_failed(s, m);
    }
    if (r == 1)
        r = drop_key_read(&s->folder, m);
    if (r == -ENOTRECOVERABLE)
        return to_failed(s, m);
    if (r < 0)
        return r;
    m->kind = DROP_MESSAGE_OFFER;
    m->attempts = 0;
    drop_mailbox_put(&s->box->to_loop, m);
    return 1;
}

static int work_fail(struct state *s, struct drop_message *m)
{
    int r = drop_publish_failed(&s->folder, m);

    if (r == 0)
        event_log(EVENT_TICKET_REFUSED, EVENT_OF_NONE, "drop: to failed/: %s", m->fault.text);
    return r;
}

static int work_publish(struct state *s, struct drop_message *m)
{
    int r = drop_publish_done(&s->folder, m);

    if (r == -EBADMSG) {
        struct drop_message *gone = drop_message_new(DROP_MESSAGE_GONE, m->key);
        if (!gone)
            return -ENOMEM;
        gone->sent_pictures = m->sent_pictures;
        drop_mailbox_put(&s->box->to_loop, gone);
        return to_failed(s, m);
    }
    if (r < 0)
        return r;
    drop_message_clear(m);
    m->kind = DROP_MESSAGE_PUBLISHED;
    drop_mailbox_put(&s->box->to_loop, m);
    return 1;
}

/* There is no such KEY or it has no inputs: the folder was replaced, or an earlier attempt came
 * through to the last step. */
static int work_gone(struct state *s, struct drop_message *m)
{
    int r = drop_key_remove(&s->folder, m->key);

    if (r < 0 && drop_is_passing(r))
        return r;
    give_slot(s, m->key);
    if (m->kind != DROP_MESSAGE_PUBLISH)
        return 0;
    log_warning("drop: %s: not in working/ any more; its results stay in the spool", m->key);
    drop_message_clear(m);
    m->kind = DROP_MESSAGE_GONE;
    drop_mailbox_put(&s->box->to_loop, m);
    return 1;
}

static int work_on(struct state *s, struct drop_message *m)
{
    int r = -EPROTO;

    if (m->kind == DROP_MESSAGE_LOOK)
        r = work_look(s, m);
    else if (m->kind == DROP_MESSAGE_READ)
        r = work_read(s, m);
    else if (m->kind == DROP_MESSAGE_FAIL)
        r = work_fail(s, m);
    else if (m->kind == DROP_MESSAGE_PUBLISH)
        r = work_publish(s, m);
    return r == -ENOENT ? work_gone(s, m) : r;
}

/* Puts it back on the list, for later. */
static void postpone(struct state *s, struct drop_message *m, int err, uint64_t now)
{
    if (err == -EAGAIN) { /* somebody still writes */
        m->due_usec = now + s->options->settle_usec;
    } else {
        set_trouble_errno(s, TROUBLE_WORK, "cannot go on", err);
        m->due_usec = now + drop_delay(m->attempts++, DELAY_MAX);
    }
    drop_list_push(&s->work, m);
}

/* Returns when to come again. */
static uint64_t work_some(struct state *s, uint64_t now)
{
    uint64_t due = UINT64_MAX;
    size_t count = s->work.count;

    if (count == 0)
        set_trouble(s, TROUBLE_WORK, "");
    for (unsigned done = 0; count-- > 0;) {
        struct drop_message *m = drop_list_pop(&s->work);
        if (m->due_usec > now || done == TURN_MAX) {
            due = m->due_usec < due ? m->due_usec : due;
            drop_list_push(&s->work, m);
            continue;
        }
        int r = work_on(s, m);
        done++;
        if (r < 0)
            postpone(s, m, r, now);
        else
            set_trouble(s, TROUBLE_WORK, "");
        if (r == 0)
            drop_message_free(m);
        due = s->work.count ? now : due;
    }
    return due;
}

/* Keys of an earlier run, as slots allow. */
static void feed_found(struct state *s)
{
    while (s->found.count > 0 && has_slot(s)) {
        struct drop_message *m = s->found.items[--s->found.count];
        take_slot(s, m->key, UINT32_MAX);
        drop_list_push(&s->work, m);
    }
}

/* --- the loop --------------------------------------------------------------------------------- */

static bool take_orders(struct state *s)
{
    struct drop_mailbox *box = s->box;
    struct drop_message *m;

    mailbox_hush(&box->to_folder);
    (void)pthread_mutex_lock(&box->lock);
    bool stop = box->stop, recover = box->recover;
    box->recover = false;
    s->room = box->room;
    (void)pthread_mutex_unlock(&box->lock);
    while (!stop && (m = drop_mailbox_take(&box->to_folder))) {
        if (m->kind != DROP_MESSAGE_READ)
            give_slot(s, m->key);
        if (m->kind == DROP_MESSAGE_ACCEPTED)
            drop_message_free(m);
        else
            drop_list_push(&s->work, m);
    }
    if (recover && s->folder.intake >= 0 && find_keys(s) < 0)
        close_folder(s, 0);
    return !stop;
}

/* What an event told of is not forgotten because it could not be looked at. */
static void scan_unsure(struct state *s, uint64_t now)
{
    if (!s->intake.is_unsure)
        return;
    s->intake.is_unsure = false;
    s->scan_due =
        earlier(s->scan_due, now + drop_delay(s->unsure_attempts++, s->options->rescan_usec));
}

static uint64_t watch_and_scan(struct state *s, uint64_t now)
{
    unsigned events = drop_intake_read_events(&s->intake, &s->folder, now);

    scan_unsure(s, now);
    if (events & DROP_EVENTS_REOPEN && !drop_folder_is_current(&s->folder)) {
        close_folder(s, now);
        return now;
    }
    if (events & DROP_EVENTS_GOING) /* not at once: let it go in peace */
        s->scan_due = earlier(s->scan_due, now + GOING_DELAY);
    if (events & DROP_EVENTS_RESCAN || drop_intake_wants_scan(&s->intake))
        s->scan_due = earlier(s->scan_due, s->scanned + SCAN_GAP);
    if (now < s->scan_due)
        return s->scan_due;
    if (!drop_folder_is_current(&s->folder)) {
        close_folder(s, now);
        return now;
    }
    int r = drop_intake_scan(&s->intake, &s->folder, now);
    if (r < 0) {
        set_trouble_errno(s, TROUBLE_FOLDER, "cannot be listed", r);
        drop_folder_close(&s->folder);
        s->open_due = now + drop_delay(s->open_attempts++, DELAY_MAX);
        return s->open_due;
    }
    s->scanned = drop_now();
    s->scan_due = s->scanned + (s->is_blind ? SCAN_BLIND : s->options->rescan_usec);
    if (!s->intake.is_unsure)
        s->unsure_attempts = 0;
    scan_unsure(s, s->scanned);
    return s->scan_due;
}

/* One turn; when the next one is due. */
static uint64_t turn(struct state *s)
{
    uint64_t now = drop_now();

    if (s->folder.intake < 0 && now >= s->open_due)
        open_folder(s, now);
    if (s->folder.intake < 0)
        return s->open_due;
    uint64_t due = watch_and_scan(s, now);
    if (s->folder.intake < 0)
        return now;
    feed_found(s);
    due = earlier(due, take_some(s, now));
    due = earlier(due, work_some(s, now));
    return s->found.count > 0 && has_slot(s) ? now : due;
}

static void wait_until(struct state *s, uint64_t due)
{
    uint64_t now = drop_now();
    struct pollfd fds[] = {{.fd = s->box->to_folder.bell, .events = POLLIN},
                           {.fd = s->intake.inotify, .events = POLLIN}};
    struct timespec t = {0};

    if (due > now) {
        uint64_t usec = due - now < 3600 * SEC ? due - now : 3600 * SEC;
        t = (struct timespec){(time_t)(usec / SEC), (long)(usec % SEC * 1000)};
    }
    (void)ppoll(fds, 2, &t, NULL); /* interrupted or not: a turn does no harm */
}

void drop_thread_run(struct drop_mailbox *box, const struct drop_thread_options *options)
{
    struct state s = {
        .box = box,
        .options = options,
        .intake = {.settle_usec = options->settle_usec, .orphan_usec = options->orphan_usec},
    };

    drop_folder_init(&s.folder, options->path);
    int r = drop_intake_init(&s.intake);
    if (r < 0) /* as without a watch */
        log_warning("drop: no inotify: %s; looking through the folder instead", strerror(-r));
    while (take_orders(&s))
        wait_until(&s, turn(&s));
    forget_found(&s);
    array_done(&s.found);
    drop_list_done(&s.work);
    drop_intake_done(&s.intake);
    drop_folder_close(&s.folder);
}
