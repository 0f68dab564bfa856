/* The event loop's side: answers what the folder's thread asks (is there a job? may this user?),
 * submits tickets, and hands over what has ended, one publication at a time. Nothing here touches
 * the folder. A message that came with a ticket stays until the ticket's fate is known, and then
 * becomes the answer. */
#include "daemon/drop.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/drop-json.h"
#include "daemon/drop-mailbox.h"
#include "daemon/drop-thread.h"
#include "daemon/error.h"
#include "vk/base/log.h"

#define SEC         UINT64_C(1000000)
#define TURN_MAX    32u /* messages answered before other sources have their turn */
#define RETRY_MAX   (10 * SEC)
#define SENT_MAX    32u  /* publications under way … */
#define SENT_FDS    128u /* … and their descriptors; one may always be */
#define ORIGIN_SIZE (sizeof DROP_ORIGIN_PREFIX + DROP_KEY_SIZE)

struct ended {
    char key[DROP_KEY_SIZE];
};

struct drop {
    sd_event *event;
    struct drop_jobs jobs;
    struct drop_thread_options options;
    char *path;
    struct drop_mailbox box;
    bool has_box, has_thread;
    pthread_t thread;
    sd_event_source *mail, *timer;
    uint64_t timer_due;               /* 0: not planned */
    struct letters waiting;           /* tickets the jobs would not take yet */
    struct letters submitted;         /* tickets whose submission is under way */
    struct ARRAY(struct ended) ended; /* to be published, first come first */
    unsigned sent, sent_pictures;     /* publications the folder has, and their pictures */
};

static void key_to_origin(const char *key, char origin[ORIGIN_SIZE])
{
    (void)snprintf(origin, ORIGIN_SIZE, DROP_ORIGIN_PREFIX "%s", key);
}

static struct job *find_job(const struct drop *drop, const char *key)
{
    char origin[ORIGIN_SIZE];

    key_to_origin(key, origin);
    return drop->jobs.find(origin, drop->jobs.userdata);
}

static void tell_room(struct drop *drop)
{
    drop_mailbox_set_room(&drop->box, drop->jobs.room(drop->jobs.userdata));
}

static void answer(struct drop *drop, struct drop_message *m, enum drop_message_kind kind)
{
    drop_message_clear(m);
    m->kind = kind;
    drop_mailbox_put(&drop->box.to_folder, m);
}

/* The text may repeat what stood in a ticket. */
static void answer_fault(struct drop *drop, struct drop_message *m, const struct fault *f)
{
    char shown[sizeof f->text];

    drop_name_show(f->text, shown, sizeof shown);
    (void)fault_set(&m->fault, f->err, "%s: %s", error_to_word(f->err), shown);
    answer(drop, m, DROP_MESSAGE_FAIL);
}

static void plan(struct drop *drop, uint64_t due)
{
    if (drop->timer_due && drop->timer_due <= due)
        return;
    drop->timer_due = due;
    int r = sd_event_source_set_time(drop->timer, due);
    if (r >= 0)
        r = sd_event_source_set_enabled(drop->timer, SD_EVENT_ONESHOT);
    if (r < 0)
        log_error("drop: no timer: %s", strerror(-r));
}

/* --- publishing ------------------------------------------------------------------------------- */

/* Everything of the job that done/ will hold. */
static int pack_job(struct drop *drop, const struct job *job, struct drop_message *m,
                    struct fault *f)
{
    m->json = drop_job_to_json(job, m->key);
    if (!m->json)
        return fault_set(f, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < job->picture_count; i++) {
        int fd = drop->jobs.open_picture(job, i, f, drop->jobs.userdata);
        if (fd < 0)
            return fd;
        m->pictures[i] = fd;
        (void)snprintf(m->sha256[i], sizeof m->sha256[i], "%s", job->pictures[i].sha256);
        m->picture_count = m->sent_pictures = i + 1;
    }
    return 0;
}

static bool is_passing(int err)
{
    return err == -ENOMEM || err == -EMFILE || err == -ENFILE || err == -EBUSY;
}

/* Why there is no picture. */
static void explain(const struct job *job, int r, const struct fault *f, struct fault *ret)
{
    if (!job)
        (void)fault_set(ret, -ENOENT, "its job was deleted before its results were here");
    else if (r < 0)
        (void)fault_set(ret, r, "job %" PRIu64 ": its picture is lost: %.160s", job->id, f->text);
    else
        (void)fault_set(ret, job->error.err, "job %" PRIu64 " %s: %s: %.190s", job->id,
                        job_state_to_string(job->state), error_to_word(job->error.err),
                        job->error.text);
}

/* Sends the folder what has become of a job. 0, or a passing error: later. */
static int publish(struct drop *drop, const char *key)
{
    _cleanup_(drop_message_freep) struct drop_message *m =
        drop_message_new(DROP_MESSAGE_PUBLISH, key);
    const struct job *job = find_job(drop, key);
    struct fault f = {0};
    int r = 0;

    if (!m)
        return -ENOMEM;
    if (job && job->state == JOB_STATE_DONE)
        r = pack_job(drop, job, m, &f);
    if (r < 0 && is_passing(r))
        return r;
    if (!job || r < 0 || job->state != JOB_STATE_DONE) {
        explain(job, r, &f, &m->fault);
        answer(drop, TAKE_PTR(m), DROP_MESSAGE_FAIL);
        return 0;
    }
    drop->sent++;
    drop->sent_pictures += m->picture_count;
    drop_mailbox_put(&drop->box.to_folder, TAKE_PTR(m));
    return 0;
}

static bool may_send(const struct drop *drop)
{
    return drop->sent == 0 ||
           (drop->sent < SENT_MAX && drop->sent_pictures + REQUEST_PICTURES_MAX <= SENT_FDS);
}

static void publish_next(struct drop *drop)
{
    while (may_send(drop) && drop->ended.count > 0) {
        struct ended next = drop->ended.items[0];
        if (publish(drop, next.key) < 0) {
            plan(drop, drop_now() + SEC);
            return;
        }
        memmove(drop->ended.items, drop->ended.items + 1,
                --drop->ended.count * sizeof *drop->ended.items);
    }
}

static void add_ended(struct drop *drop, const char *key)
{
    struct ended *slot;

    for (size_t i = 0; i < drop->ended.count; i++) {
        if (strcmp(drop->ended.items[i].key, key) == 0)
            return;
    }
    slot = array_push(&drop->ended);
    if (slot) {
        (void)snprintf(slot->key, sizeof slot->key, "%s", key);
        return;
    }
    (void)pthread_mutex_lock(&drop->box.lock); /* out of memory: the folder will ask again */
    drop->box.recover = true;
    (void)pthread_mutex_unlock(&drop->box.lock);
    plan(drop, drop_now() + SEC);
}

/* The pictures are in done/. */
static void on_published(struct drop *drop, const struct drop_message *m)
{
    struct job *job = find_job(drop, m->key);

    if (job)
        log_info("job %" PRIu64 ": in the drop folder", job->id);
    for (uint32_t i = 0; job && i < REQUEST_PICTURES_MAX; i++) {
        if (i >= job->picture_count)
            break;
        drop->jobs.fetched(job, i, drop->jobs.userdata);
        job = find_job(drop, m->key); /* the last one may have ended it */
    }
}

/* --- submitting ------------------------------------------------------------------------------- */

static int parse_ticket(const struct drop_message *m, struct request *ret, struct fault *f)
{
    _cleanup_(request_done) struct request q = {0};
    int r;

    if (m->ticket == DROP_KIND_TEXT)
        r = request_set_text(&q, &request_rows[REQUEST_prompt], m->text, m->length, f);
    else
        r = request_parse_ticket(m->text, m->length, NULL, &q, f);
    if (r < 0)
        return r;
    *ret = q;
    q = (struct request){0};
    return 0;
}

/* Refusals that end by themselves. */
static bool is_wait(int err)
{
    static const int waits[] = {EBUSY,  ENOBUFS, EDQUOT, ENOSPC, ENOTRECOVERABLE,
                                ENOMEM, EMFILE,  ENFILE, EROFS};

    for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
        if (err == -waits[i])
            return true;
    }
    return false;
}

static void wait_and_retry(struct drop *drop, struct drop_message *m)
{
    m->due_usec = drop_now() + drop_delay(m->attempts++, RETRY_MAX);
    drop_list_push(&drop->waiting, m);
    plan(drop, drop_now() + SEC);
}

static void remove_from(struct letters *list, struct drop_message *m)
{
    struct drop_message *each;

    for (size_t n = list->count; n > 0; n--) {
        each = drop_list_pop(list);
        if (each != m)
            drop_list_push(list, each);
    }
}

static void on_submitted(int r, struct job *job, const struct fault *f, void *userdata)
{
    struct drop_message *m = userdata;
    struct drop *drop = m->drop;

    if (!drop) { /* closed meanwhile; the next start finds the ticket */
        drop_message_free(m);
        return;
    }
    remove_from(&drop->submitted, m);
    m->drop = NULL;
    tell_room(drop); /* before the answer frees the ticket's slot */
    if (r >= 0) {
        if (job_state_is_final(job->state))
            add_ended(drop, m->key);
        answer(drop, m, DROP_MESSAGE_ACCEPTED);
    } else if (r == -ECANCELED) {
        drop_message_free(m); /* the jobs are ending, and so are we */
    } else if (is_wait(r)) {
        wait_and_retry(drop, m);
    } else {
        answer_fault(drop, m, f);
    }
    publish_next(drop);
}

/* Descriptors of their own for the one who takes them: the ticket may have to be offered again. */
static int copy_inputs(const struct drop_message *m, struct job_input ret_inputs[JOB_INPUT_COUNT])
{
    int r = 0;

    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        ret_inputs[i] = m->inputs[i];
        if (m->inputs[i].fd < 0)
            continue;
        ret_inputs[i].fd = r < 0 ? -1 : fcntl(m->inputs[i].fd, F_DUPFD_CLOEXEC, 3);
        if (r == 0 && ret_inputs[i].fd < 0)
            r = -errno;
    }
    for (unsigned i = 0; r < 0 && i < JOB_INPUT_COUNT; i++)
        closep(&ret_inputs[i].fd);
    return r;
}

static void submit(struct drop *drop, struct drop_message *m)
{
    struct job_input inputs[JOB_INPUT_COUNT];
    struct request request = {0};
    char origin[ORIGIN_SIZE];
    struct fault f = {0};

    int r = parse_ticket(m, &request, &f);
    if (r == -ENOMEM || (r == 0 && copy_inputs(m, inputs) < 0)) {
        request_done(&request);
        wait_and_retry(drop, m);
        return;
    }
    if (r < 0) {
        answer_fault(drop, m, &f);
        return;
    }
    key_to_origin(m->key, origin);
    m->drop = drop;
    drop_list_push(&drop->submitted, m);
    drop->jobs.submit(m->owner, &request, inputs, origin, on_submitted, m, drop->jobs.userdata);
}

/* Tickets whose time has come; all of them when the queue has changed. */
static void submit_waiting(struct drop *drop, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    size_t count = drop->waiting.count;

    while (count-- > 0) {
        struct drop_message *m = drop_list_pop(&drop->waiting);
        if (m->due_usec <= now) {
            submit(drop, m);
            continue;
        }
        next = m->due_usec < next ? m->due_usec : next;
        drop_list_push(&drop->waiting, m);
    }
    if (next != UINT64_MAX)
        plan(drop, next);
}

/* --- mail ------------------------------------------------------------------------------------- */

static void on_found(struct drop *drop, struct drop_message *m)
{
    const struct job *job = find_job(drop, m->key);

    if (job) {
        if (job_state_is_final(job->state))
            add_ended(drop, m->key);
        answer(drop, m, DROP_MESSAGE_ACCEPTED);
    } else if (m->was_published || drop->jobs.may_submit(m->owner, drop->jobs.userdata)) {
        answer(drop, m, DROP_MESSAGE_READ);
    } else {
        (void)fault_set(&m->fault, -EACCES,
                        "its owner, uid %" PRIu32 ", may not submit jobs: only members of the "
                        "service's group and root",
                        m->owner);
        answer(drop, m, DROP_MESSAGE_FAIL);
    }
}

static void on_message(struct drop *drop, struct drop_message *m)
{
    if (m->kind == DROP_MESSAGE_FOUND) {
        on_found(drop, m);
    } else if (m->kind == DROP_MESSAGE_OFFER) {
        submit(drop, m);
    } else {
        drop->sent--;
        drop->sent_pictures -= m->sent_pictures;
        if (m->kind == DROP_MESSAGE_PUBLISHED)
            on_published(drop, m);
        drop_message_free(m);
    }
}

static void take_health(struct drop *drop)
{
    char text[sizeof drop->box.health];

    (void)pthread_mutex_lock(&drop->box.lock);
    bool changed = drop->box.health_changed;
    drop->box.health_changed = false;
    memcpy(text, drop->box.health, sizeof text);
    (void)pthread_mutex_unlock(&drop->box.lock);
    if (changed)
        drop->jobs.health(text, drop->jobs.userdata);
}

static int on_mail(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct drop *drop = userdata;
    struct drop_message *m;
    unsigned done = 0;

    (void)source, (void)fd, (void)events;
    mailbox_hush(&drop->box.to_loop);
    take_health(drop);
    while (done++ < TURN_MAX && (m = drop_mailbox_take(&drop->box.to_loop)))
        on_message(drop, m);
    if (done > TURN_MAX)
        mailbox_ring(&drop->box.to_loop); /* there may be more */
    publish_next(drop);
    tell_room(drop);
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct drop *drop = userdata;

    (void)source, (void)usec;
    drop->timer_due = 0;
    submit_waiting(drop, drop_now());
    publish_next(drop);
    tell_room(drop);
    if (drop->ended.count > 0 && drop->sent == 0)
        plan(drop, drop_now() + SEC);
    mailbox_ring(&drop->box.to_folder); /* box.recover may be set */
    return 0;
}

void drop_on_job_finished(struct drop *drop, const char *origin)
{
    size_t n = strlen(DROP_ORIGIN_PREFIX);

    if (!origin || strncmp(origin, DROP_ORIGIN_PREFIX, n) != 0 || !drop_key_is_valid(origin + n))
        return;
    add_ended(drop, origin + n);
    publish_next(drop);
}

void drop_on_queue_changed(struct drop *drop)
{
    tell_room(drop);
    if (drop->waiting.count == 0 || drop->jobs.room(drop->jobs.userdata) == 0)
        return;
    for (struct letter *l = drop->waiting.first; l; l = l->next)
        ((struct drop_message *)l)->due_usec = 0;
    plan(drop, drop_now()); /* not at once: this may be in the middle of a submission */
}

/* --- life ------------------------------------------------------------------------------------- */

static void *run_thread(void *userdata)
{
    struct drop *drop = userdata;

    drop_thread_run(&drop->box, &drop->options);
    return NULL;
}

static int start(struct drop *drop)
{
    int r = drop_mailbox_init(&drop->box);

    if (r < 0)
        return r;
    drop->has_box = true;
    drop->box.room = drop->jobs.room(drop->jobs.userdata);
    r = sd_event_add_io(drop->event, &drop->mail, drop->box.to_loop.bell, EPOLLIN, on_mail, drop);
    if (r >= 0)
        r = sd_event_add_time(drop->event, &drop->timer, CLOCK_MONOTONIC, 0, 0, on_timer, drop);
    if (r >= 0)
        r = sd_event_source_set_enabled(drop->timer, SD_EVENT_OFF);
    if (r >= 0)
        r = mailbox_thread(&drop->thread, "drop", run_thread, drop);
    drop->has_thread = r >= 0;
    return r;
}

int drop_open(sd_event *event, const struct drop_options *options, struct drop **ret_drop,
              struct fault *f)
{
    _cleanup_(drop_closep) struct drop *drop = calloc(1, sizeof *drop);

    if (drop)
        drop->path = strdup(options->path);
    if (!drop || !drop->path)
        return fault_set(f, -ENOMEM, "drop: out of memory");
    drop->event = sd_event_ref(event);
    drop->jobs = options->jobs;
    drop->options = (struct drop_thread_options){
        .path = drop->path,
        .settle_usec = options->settle_usec ? options->settle_usec : 2 * SEC,
        .orphan_usec = options->orphan_usec ? options->orphan_usec : 3600 * SEC,
        .rescan_usec = options->rescan_usec ? options->rescan_usec : 60 * SEC,
    };
    int r = start(drop);
    if (r < 0)
        return fault_set(f, r, "drop: %s", strerror(-r));
    *ret_drop = TAKE_PTR(drop);
    return 0;
}

struct drop *drop_close(struct drop *drop)
{
    struct drop_message *m;

    if (!drop)
        return NULL;
    if (drop->has_thread) {
        (void)pthread_mutex_lock(&drop->box.lock);
        drop->box.stop = true;
        (void)pthread_mutex_unlock(&drop->box.lock);
        mailbox_ring(&drop->box.to_folder);
        (void)pthread_join(drop->thread, NULL);
    }
    while ((m = drop_list_pop(&drop->submitted)))
        m->drop = NULL; /* freed when its submission ends */
    drop_list_done(&drop->waiting);
    array_done(&drop->ended);
    sd_event_source_disable_unref(drop->mail);
    sd_event_source_disable_unref(drop->timer);
    if (drop->has_box)
        drop_mailbox_done(&drop->box);
    sd_event_unref(drop->event);
    free(drop->path);
    free(drop);
    return NULL;
}
