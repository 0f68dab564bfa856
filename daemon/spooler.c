#include "daemon/spooler.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "daemon/mailbox.h"

/* A change on its way to the disk, and back. */
struct order {
    struct letter letter;
    enum spool_change change;
    struct job *job; /* owned; NULL for some changes */
    uint64_t argument;
    spooler_done_t *done;
    void *userdata;
    int r;
    struct fault fault;
};

struct spooler {
    struct spool *spool;
    sd_event_source *source;
    struct mailbox to_do, answered;
    size_t pending;    /* orders that were posted and not told of */
    struct order stop; /* the last one: the thread ends */
    pthread_t thread;
    bool has_thread;
};

static struct order *order_free(struct order *order)
{
    if (!order)
        return NULL;
    job_free(order->job);
    free(order);
    return NULL;
}
DEFINE_FREEP(struct order *, order_free)

/* --- the spool's thread ----------------------------------------------------------------------- */

static int carry_out(struct spool *spool, const struct order *o, struct fault *f)
{
    switch (o->change) {
    case SPOOL_CHANGE_SUBMIT:
        return spool_submit(spool, o->job, f);
    case SPOOL_CHANGE_UPDATE:
        return spool_update(spool, o->job, f);
    case SPOOL_CHANGE_START:
        return spool_start(spool, o->job, f);
    case SPOOL_CHANGE_REQUEUE:
        return spool_requeue(spool, o->job, f);
    case SPOOL_CHANGE_STORE:
        return spool_store_picture(spool, o->job, (uint32_t)o->argument, f);
    case SPOOL_CHANGE_FINISH:
        return spool_finish(spool, o->job, (enum job_state)o->argument, f);
    case SPOOL_CHANGE_DELETE:
        return spool_delete(spool, o->job, f);
    case SPOOL_CHANGE_UPTIME:
        return spool_write_uptime(spool, o->argument, f);
    case SPOOL_CHANGE_PROBE:
        return spool_probe(spool, f);
    }
    return fault_set(f, -EINVAL, "spool: no such change");
}

static void *thread_main(void *userdata)
{
    struct spooler *s = userdata;
    struct order *order;

    while ((order = (struct order *)mailbox_wait(&s->to_do)) != &s->stop) {
        order->r = carry_out(s->spool, order, &order->fault);
        mailbox_put(&s->answered, &order->letter);
    }
    return NULL;
}

/* --- the loop's thread ------------------------------------------------------------------------ */

/* Tells of one change, which may post more. */
static void tell(struct spooler *s, struct letter *letter)
{
    _cleanup_(order_freep) struct order *order = (struct order *)letter;

    s->pending--;
    if (order->done)
        order->done(order->r, order->job, &order->fault, order->userdata);
}

static int on_bell(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct spooler *s = userdata;
    struct letter *letter;

    (void)source, (void)fd, (void)events;
    mailbox_hush(&s->answered);
    while ((letter = mailbox_take(&s->answered)))
        tell(s, letter);
    return 0;
}

void spooler_drain(struct spooler *s)
{
    while (s->pending > 0)
        tell(s, mailbox_wait(&s->answered));
}

int spooler_new(sd_event *event, struct spool *spool, struct spooler **ret_spooler)
{
    struct spooler *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->spool = spool;
    int r = mailbox_init(&s->to_do), second = mailbox_init(&s->answered);
    if (r >= 0)
        r = second;
    if (r >= 0)
        r = sd_event_add_io(event, &s->source, s->answered.bell, EPOLLIN, on_bell, s);
    if (r >= 0)
        r = mailbox_thread(&s->thread, "spool", thread_main, s);
    s->has_thread = r >= 0;
    if (r < 0)
        spooler_free(s);
    else
        *ret_spooler = s;
    return r < 0 ? r : 0;
}

struct spooler *spooler_free(struct spooler *s)
{
    struct letter *letter;

    if (!s)
        return NULL;
    sd_event_source_disable_unref(s->source);
    if (s->has_thread) {
        mailbox_put(&s->to_do, &s->stop.letter);
        (void)pthread_join(s->thread, NULL);
    }
    while ((letter = mailbox_take(&s->answered)))
        order_free((struct order *)letter);
    mailbox_done(&s->to_do);
    mailbox_done(&s->answered);
    free(s);
    return NULL;
}

int spooler_post(struct spooler *s, enum spool_change change, const struct job *job,
                 uint64_t argument, spooler_done_t *done, void *userdata)
{
    _cleanup_(order_freep) struct order *order = calloc(1, sizeof *order);

    if (!order)
        return -ENOMEM;
    order->change = change;
    order->argument = argument;
    order->done = done;
    order->userdata = userdata;
    int r = job ? job_copy(job, &order->job) : 0;
    if (r < 0)
        return r;
    s->pending++;
    mailbox_put(&s->to_do, &TAKE_PTR(order)->letter);
    return 0;
}
