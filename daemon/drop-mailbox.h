/* drop-mailbox — where the event loop's thread and the drop folder's meet: messages either way
 * (mailbox.h) and a few facts. Replies reuse the message they answer, so that an answer never wants
 * for memory. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/drop-name.h"
#include "daemon/job.h"
#include "daemon/mailbox.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/base/json.h"
#include "vk/pipeline/request.h"

struct drop;

enum drop_message_kind {
    /* from the folder */
    DROP_MESSAGE_FOUND,     /* working/KEY with a ticket of `owner`: is there a job? */
    DROP_MESSAGE_OFFER,     /* its text: submit it */
    DROP_MESSAGE_PUBLISHED, /* all is in done/ */
    DROP_MESSAGE_GONE,      /* could not be published: working/KEY is not there, or it has failed */
    /* the folder's own */
    DROP_MESSAGE_LOOK, /* has just been taken up, or was left by an earlier run */
    /* to the folder */
    DROP_MESSAGE_ACCEPTED, /* there is a job */
    DROP_MESSAGE_READ,     /* there is none, and `owner` may submit: offer the ticket */
    DROP_MESSAGE_FAIL,     /* inputs to failed/, with the fault's text */
    DROP_MESSAGE_PUBLISH,  /* pictures and JSON to done/ */
};

struct drop_message {
    struct letter letter;
    enum drop_message_kind kind;
    char key[DROP_KEY_SIZE];
    uint32_t owner;
    enum drop_kind ticket; /* OFFER */
    char *text;            /* OFFER: `length` bytes */
    size_t length;
    struct job_input
        inputs[JOB_INPUT_COUNT];        /* OFFER: the pictures beside it, owned; fd -1: none */
    struct fault fault;                 /* FAIL */
    json_t *json;                       /* PUBLISH: what is known of the job */
    int pictures[REQUEST_PICTURES_MAX]; /* descriptors; -1: none */
    char sha256[REQUEST_PICTURES_MAX][72];
    uint32_t picture_count;
    uint32_t sent_pictures; /* how many there were when it was sent */
    uint64_t due_usec;      /* CLOCK_MONOTONIC: not before; whoever holds it waits */
    unsigned attempts;
    struct drop *drop;  /* the event loop's side, while it submits */
    bool was_published; /* target of done/ was already written by an earlier run */
};

/* NULL when out of memory. */
struct drop_message *drop_message_new(enum drop_message_kind kind, const char *key);
/* Closes pictures of either kind, forgets text and JSON; what is left can be sent again. */
void drop_message_clear(struct drop_message *m);
struct drop_message *drop_message_free(struct drop_message *m);
DEFINE_FREEP(struct drop_message *, drop_message_free)

/* Lists of messages; pop: NULL when empty. */
static inline void drop_list_push(struct letters *list, struct drop_message *m)
{
    letters_put(list, &m->letter);
}
static inline struct drop_message *drop_list_pop(struct letters *list)
{
    return (struct drop_message *)letters_take(list);
}
void drop_list_done(struct letters *list);

struct drop_mailbox {
    struct mailbox to_folder, to_loop;
    pthread_mutex_t lock;
    /* under the lock */
    uint32_t room;       /* jobs the queue would take */
    bool stop, recover;  /* to the folder: end; look through working/ again */
    bool health_changed; /* to the loop */
    char health[256];
};

int drop_mailbox_init(struct drop_mailbox *box);
/* Both threads are through. */
void drop_mailbox_done(struct drop_mailbox *box);

static inline void drop_mailbox_put(struct mailbox *box, struct drop_message *m)
{
    mailbox_put(box, &m->letter);
}
static inline struct drop_message *drop_mailbox_take(struct mailbox *box)
{
    return (struct drop_message *)mailbox_take(box);
}

/* Both tell the other side. */
void drop_mailbox_set_room(struct drop_mailbox *box, uint32_t room);
void drop_mailbox_set_health(struct drop_mailbox *box, const char *text);
