#include "daemon/drop-mailbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* --- messages --------------------------------------------------------------------------------- */

struct drop_message *drop_message_new(enum drop_message_kind kind, const char *key)
{
    struct drop_message *m = calloc(1, sizeof *m);

    if (!m)
        return NULL;
    m->kind = kind;
    (void)snprintf(m->key, sizeof m->key, "%s", key);
    for (size_t i = 0; i < REQUEST_PICTURES_MAX; i++)
        m->pictures[i] = -1;
    for (size_t i = 0; i < JOB_INPUT_COUNT; i++)
        m->inputs[i].fd = -1;
    return m;
}

void drop_message_clear(struct drop_message *m)
{
    for (size_t i = 0; i < REQUEST_PICTURES_MAX; i++) {
        closep(&m->pictures[i]);
        m->pictures[i] = -1;
    }
    for (size_t i = 0; i < JOB_INPUT_COUNT; i++) {
        closep(&m->inputs[i].fd);
        m->inputs[i].fd = -1;
    }
    m->picture_count = 0;
    m->json = json_free(m->json);
    free(m->text);
    m->text = NULL;
    m->length = 0;
    m->due_usec = 0;
    m->attempts = 0;
}

struct drop_message *drop_message_free(struct drop_message *m)
{
    if (m)
        drop_message_clear(m);
    free(m);
    return NULL;
}

void drop_list_push(struct drop_list *list, struct drop_message *m)
{
    m->next = NULL;
    if (!list->head)
        list->tail = &list->head;
    *list->tail = m;
    list->tail = &m->next;
    list->count++;
}

struct drop_message *drop_list_pop(struct drop_list *list)
{
    struct drop_message *m = list->head;

    if (!m)
        return NULL;
    list->head = m->next;
    list->count--;
    m->next = NULL;
    return m;
}

void drop_list_done(struct drop_list *list)
{
    struct drop_message *m;

    while ((m = drop_list_pop(list)))
        drop_message_free(m);
}

/* --- the box ---------------------------------------------------------------------------------- */

int drop_mailbox_init(struct drop_mailbox *box)
{
    *box = (struct drop_mailbox){.wake_folder = -1, .wake_loop = -1};
    int r = pthread_mutex_init(&box->lock, NULL);
    if (r != 0)
        return -r;
    box->wake_folder = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    box->wake_loop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (box->wake_folder >= 0 && box->wake_loop >= 0)
        return 0;
    r = -errno;
    drop_mailbox_done(box);
    return r;
}

void drop_mailbox_done(struct drop_mailbox *box)
{
    drop_list_done(&box->to_folder);
    drop_list_done(&box->to_loop);
    closep(&box->wake_folder);
    closep(&box->wake_loop);
    (void)pthread_mutex_destroy(&box->lock); /* nobody holds it: both threads are through */
}

void drop_mailbox_wake(int fd)
{
    const uint64_t one = 1;

    (void)!write(fd, &one, sizeof one); /* a full counter wakes as well */
}

void drop_mailbox_rest(int fd)
{
    uint64_t count;

    (void)!read(fd, &count, sizeof count); /* not readable: nothing to do */
}

static void send_message(struct drop_mailbox *box, struct drop_list *list, struct drop_message *m,
                         int wake)
{
    (void)pthread_mutex_lock(&box->lock);
    drop_list_push(list, m);
    (void)pthread_mutex_unlock(&box->lock);
    drop_mailbox_wake(wake);
}

void drop_mailbox_to_folder(struct drop_mailbox *box, struct drop_message *m)
{
    send_message(box, &box->to_folder, m, box->wake_folder);
}

void drop_mailbox_to_loop(struct drop_mailbox *box, struct drop_message *m)
{
    send_message(box, &box->to_loop, m, box->wake_loop);
}

struct drop_message *drop_mailbox_take(struct drop_mailbox *box, struct drop_list *list)
{
    (void)pthread_mutex_lock(&box->lock);
    struct drop_message *m = drop_list_pop(list);
    (void)pthread_mutex_unlock(&box->lock);
    return m;
}

void drop_mailbox_set_room(struct drop_mailbox *box, uint32_t room)
{
    (void)pthread_mutex_lock(&box->lock);
    bool more = room > box->room;
    box->room = room;
    (void)pthread_mutex_unlock(&box->lock);
    if (more)
        drop_mailbox_wake(box->wake_folder);
}

void drop_mailbox_set_health(struct drop_mailbox *box, const char *text)
{
    (void)pthread_mutex_lock(&box->lock);
    bool changed = strcmp(box->health, text) != 0;
    if (changed)
        (void)snprintf(box->health, sizeof box->health, "%s", text);
    box->health_changed |= changed;
    (void)pthread_mutex_unlock(&box->lock);
    if (changed)
        drop_mailbox_wake(box->wake_loop);
}
