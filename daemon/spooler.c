#include "daemon/spooler.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

struct letter {
    struct letter *next;
    enum spool_change change;
    struct job *job; /* owned; NULL for some changes */
    uint64_t argument;
    spooler_done_t *done;
    void *userdata;
    int r;
    struct fault fault;
};

/* First in, first out. */
struct letters {
    struct letter *first, **end;
};

struct spooler {
    struct spool *spool;
    sd_event_source *source;
    int bell; /* eventfd: something was answered */
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock;
    pthread_cond_t posted, idle;
    /* under the lock */
    struct letters to_do, answered;
    bool stop, is_busy;
};

static void letters_init(struct letters *letters)
{
    letters->first = NULL;
    letters->end = &letters->first;
}

static void letters_put(struct letters *letters, struct letter *letter)
{
    letter->next = NULL;
    *letters->end = letter;
    letters->end = &letter->next;
}

static struct letter *letters_take(struct letters *letters)
{
    struct letter *letter = letters->first;

    if (!letter)
        return NULL;
    letters->first = letter->next;
    if (!letters->first)
        letters->end = &letters->first;
    return letter;
}

static struct letter *letter_free(struct letter *letter)
{
    if (!letter)
        return NULL;
    job_free(letter->job);
    free(letter);
    return NULL;
}
DEFINE_FREEP(struct letter *, letter_free)

static void letters_done(struct letters *letters)
{
    struct letter *letter;

    while ((letter = letters_take(letters)))
        letter_free(letter);
}

/* --- the spool's thread ----------------------------------------------------------------------- */

static int carry_out(struct spool *spool, const struct letter *l, struct fault *f)
{
    switch (l->change) {
    case SPOOL_CHANGE_SUBMIT:
        return spool_submit(spool, l->job, f);
    case SPOOL_CHANGE_UPDATE:
        return spool_update(spool, l->job, f);
    case SPOOL_CHANGE_START:
        return spool_start(spool, l->job, f);
    case SPOOL_CHANGE_REQUEUE:
        return spool_requeue(spool, l->job, f);
    case SPOOL_CHANGE_STORE:
        return spool_store_picture(spool, l->job, (uint32_t)l->argument, f);
    case SPOOL_CHANGE_FINISH:
        return spool_finish(spool, l->job, (enum job_state)l->argument, f);
    case SPOOL_CHANGE_DELETE:
        return spool_delete(spool, l->job, f);
    case SPOOL_CHANGE_UPTIME:
        return spool_write_uptime(spool, l->argument, f);
    case SPOOL_CHANGE_PROBE:
        return spool_probe(spool, f);
    }
    return fault_set(f, -EINVAL, "spool: no such change");
}

static struct letter *wait_for_letter(struct spooler *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->is_busy = false;
    (void)pthread_cond_signal(&s->idle);
    while (!s->to_do.first && !s->stop)
        (void)pthread_cond_wait(&s->posted, &s->lock);
    struct letter *letter = letters_take(&s->to_do);
    s->is_busy = letter != NULL;
    (void)pthread_mutex_unlock(&s->lock);
    return letter;
}

static void *thread_main(void *userdata)
{
    struct spooler *s = userdata;
    struct letter *letter;

    while ((letter = wait_for_letter(s))) {
        letter->r = carry_out(s->spool, letter, &letter->fault);
        (void)pthread_mutex_lock(&s->lock);
        letters_put(&s->answered, letter);
        (void)pthread_mutex_unlock(&s->lock);
        (void)eventfd_write(s->bell, 1); /* fails only at 2^64 rings */
    }
    return NULL;
}

/* --- the loop's thread ------------------------------------------------------------------------ */

/* Tells of one change; false when there was none to tell of. */
static bool tell_one(struct spooler *s)
{
    (void)pthread_mutex_lock(&s->lock);
    _cleanup_(letter_freep) struct letter *letter = letters_take(&s->answered);
    (void)pthread_mutex_unlock(&s->lock);
    if (letter && letter->done)
        letter->done(letter->r, letter->job, &letter->fault, letter->userdata);
    return letter != NULL;
}

static int on_bell(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    eventfd_t rings;

    (void)source, (void)events;
    (void)eventfd_read(fd, &rings);
    while (tell_one(userdata))
        continue;
    return 0;
}

void spooler_drain(struct spooler *s)
{
    do {
        (void)pthread_mutex_lock(&s->lock);
        while (s->to_do.first || s->is_busy)
            (void)pthread_cond_wait(&s->idle, &s->lock);
        (void)pthread_mutex_unlock(&s->lock);
    } while (tell_one(s)); /* which may have posted more */
}

/* Signals are the loop's: the thread blocks them all. */
static int start_thread(struct spooler *s)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    int r = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (r != 0)
        return -r;
    r = pthread_create(&s->thread, NULL, thread_main, s);
    s->has_thread = r == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

int spooler_new(sd_event *event, struct spool *spool, struct spooler **ret_spooler)
{
    _cleanup_(spooler_freep) struct spooler *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->spool = spool;
    letters_init(&s->to_do);
    letters_init(&s->answered);
    (void)pthread_mutex_init(&s->lock, NULL); /* never fail with default attributes */
    (void)pthread_cond_init(&s->posted, NULL);
    (void)pthread_cond_init(&s->idle, NULL);
    s->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->bell < 0)
        return -errno;
    int r = sd_event_add_io(event, &s->source, s->bell, EPOLLIN, on_bell, s);
    if (r >= 0)
        r = start_thread(s);
    if (r < 0)
        return r;
    *ret_spooler = TAKE_PTR(s);
    return 0;
}

struct spooler *spooler_free(struct spooler *s)
{
    if (!s)
        return NULL;
    sd_event_source_disable_unref(s->source);
    (void)pthread_mutex_lock(&s->lock);
    s->stop = true; /* once nothing is left to do */
    (void)pthread_cond_signal(&s->posted);
    (void)pthread_mutex_unlock(&s->lock);
    if (s->has_thread)
        (void)pthread_join(s->thread, NULL);
    letters_done(&s->to_do);
    letters_done(&s->answered);
    (void)pthread_cond_destroy(&s->posted);
    (void)pthread_cond_destroy(&s->idle);
    (void)pthread_mutex_destroy(&s->lock);
    closep(&s->bell);
    free(s);
    return NULL;
}

int spooler_post(struct spooler *s, enum spool_change change, const struct job *job,
                 uint64_t argument, spooler_done_t *done, void *userdata)
{
    _cleanup_(letter_freep) struct letter *letter = calloc(1, sizeof *letter);

    if (!letter)
        return -ENOMEM;
    letter->change = change;
    letter->argument = argument;
    letter->done = done;
    letter->userdata = userdata;
    int r = job ? job_copy(job, &letter->job) : 0;
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&s->lock);
    letters_put(&s->to_do, TAKE_PTR(letter));
    (void)pthread_cond_signal(&s->posted);
    (void)pthread_mutex_unlock(&s->lock);
    return 0;
}
