/* mailbox — what one thread leaves for another: letters, first in, first out, and a bell.
 *
 * A letter belongs to whoever holds it: the sender's until it is put, the box's, then the
 * receiver's, who may answer by putting the same one into another box. Putting needs no memory and
 * waits for nobody. The bell is an eventfd: in an event loop or poll() it tells that there is
 * something to look for. Source: eventfd(2). */
#pragma once

#include <pthread.h>
#include <stddef.h>

/* The first member of what is sent. */
struct letter {
    struct letter *next;
};

/* First in, first out; all-zero is empty. Not locked. */
struct letters {
    struct letter *first, **end;
    size_t count;
};
void letters_put(struct letters *list, struct letter *letter);
struct letter *letters_take(struct letters *list); /* NULL when empty */

struct mailbox {
    pthread_mutex_t lock;
    struct letters letters; /* under the lock */
    int bell;
};

/* -EMFILE, -ENFILE, -ENOMEM; mailbox_done() is to be called after an error, too. */
int mailbox_init(struct mailbox *box);
/* When nobody uses it any more; letters in it are not freed. */
void mailbox_done(struct mailbox *box);

void mailbox_put(struct mailbox *box, struct letter *letter); /* and rings */
struct letter *mailbox_take(struct mailbox *box);             /* NULL when empty */
struct letter *mailbox_wait(struct mailbox *box);             /* blocks until there is one */

void mailbox_ring(struct mailbox *box);
/* Until the next ring; to be called before letters are taken. */
void mailbox_hush(struct mailbox *box);

/* Starts the thread at the other end. Signals are the event loop's: it blocks them all. 0 or
 * -errno. `name` is for debuggers. */
int mailbox_thread(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *userdata);
