#include "daemon/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "vk/base/cleanup.h"

void letters_put(struct letters *list, struct letter *letter)
{
    letter->next = NULL;
    if (!list->first)
        list->end = &list->first;
    *list->end = letter;
    list->end = &letter->next;
    list->count++;
}

struct letter *letters_take(struct letters *list)
{
    struct letter *letter = list->first;

    if (!letter)
        return NULL;
    list->first = letter->next;
    list->count--;
    letter->next = NULL;
    return letter;
}

int mailbox_init(struct mailbox *box)
{
    *box = (struct mailbox){.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    int r = box->bell < 0 ? -errno : 0;
    (void)pthread_mutex_init(&box->lock, NULL); /* never fails with default attributes */
    return r;
}

void mailbox_done(struct mailbox *box)
{
    closep(&box->bell);
    (void)pthread_mutex_destroy(&box->lock);
}

void mailbox_put(struct mailbox *box, struct letter *letter)
{
    (void)pthread_mutex_lock(&box->lock);
    letters_put(&box->letters, letter);
    (void)pthread_mutex_unlock(&box->lock);
    mailbox_ring(box);
}

struct letter *mailbox_take(struct mailbox *box)
{
    (void)pthread_mutex_lock(&box->lock);
    struct letter *letter = letters_take(&box->letters);
    (void)pthread_mutex_unlock(&box->lock);
    return letter;
}

struct letter *mailbox_wait(struct mailbox *box)
{
    struct pollfd fd = {.fd = box->bell, .events = POLLIN};
    struct letter *letter;

    while (!(letter = mailbox_take(box))) {
        (void)poll(&fd, 1, -1); /* interrupted or not: another look does no harm */
        mailbox_hush(box);
    }
    return letter;
}

void mailbox_ring(struct mailbox *box)
{
    (void)eventfd_write(box->bell, 1); /* a full counter rings as well */
}

void mailbox_hush(struct mailbox *box)
{
    eventfd_t rings;

    (void)eventfd_read(box->bell, &rings); /* silent already: nothing to do */
}

int mailbox_thread(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *userdata)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    int r = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (r != 0)
        return -r;
    r = pthread_create(ret_thread, NULL, run, userdata);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        (void)pthread_setname_np(*ret_thread, name); /* a help only */
    return -r;
}
