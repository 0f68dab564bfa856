#include "daemon/drop-mailbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

void drop_list_done(struct letters *list)
{
    struct drop_message *m;

    while ((m = drop_list_pop(list)))
        drop_message_free(m);
}

/* --- the box ---------------------------------------------------------------------------------- */

int drop_mailbox_init(struct drop_mailbox *box)
{
    *box = (struct drop_mailbox){0};
    int r = mailbox_init(&box->to_folder), second = mailbox_init(&box->to_loop);
    (void)pthread_mutex_init(&box->lock, NULL); /* never fails with default attributes */
    if (r >= 0)
        r = second;
    if (r < 0)
        drop_mailbox_done(box);
    return r;
}

void drop_mailbox_done(struct drop_mailbox *box)
{
    drop_list_done(&box->to_folder.letters);
    drop_list_done(&box->to_loop.letters);
    mailbox_done(&box->to_folder);
    mailbox_done(&box->to_loop);
    (void)pthread_mutex_destroy(&box->lock);
}

void drop_mailbox_set_room(struct drop_mailbox *box, uint32_t room)
{
    (void)pthread_mutex_lock(&box->lock);
    bool more = room > box->room;
    box->room = room;
    (void)pthread_mutex_unlock(&box->lock);
    if (more)
        mailbox_ring(&box->to_folder);
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
        mailbox_ring(&box->to_loop);
}
