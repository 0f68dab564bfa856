/* A ticket is opened and read, the pictures beside it are opened: what lies in working/ can no
 * longer be exchanged by others, but they may have it open, or it may be a link to something
 * else. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/drop-key.h"
#include "daemon/drop.h"

#define UTF8_BOM "\xef\xbb\xbf"

static int refuse(struct drop_message *m, const char *name, const char *why)
{
    char shown[DROP_SHOWN_SIZE / 2];

    drop_name_show(name, shown, sizeof shown);
    (void)fault_set(&m->fault, -EINVAL, "%s: %s", shown, why);
    return -ENOTRECOVERABLE;
}

static int refuse_unreadable(struct drop_message *m, int inputs, const char *name)
{
    struct stat st = {0};
    char why[128];

    if (fstatat(inputs, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    (void)snprintf(why, sizeof why,
                   "diffused (uid %u) may not read it: mode %04o, group %u; give its group the "
                   "right: chmod g+r",
                   (unsigned)geteuid(), (unsigned)(st.st_mode & 07777), (unsigned)st.st_gid);
    return refuse(m, name, why);
}

static int check_file(struct drop_message *m, const char *name, const struct stat *st,
                      const char *what, uint64_t most)
{
    char why[96];

    if (!S_ISREG(st->st_mode))
        return refuse(m, name, "no regular file");
    if (st->st_nlink != 1)
        return refuse(m, name, "has other names (hard links); copy it instead");
    if (st->st_uid != m->owner)
        return refuse(m, name, "has changed its owner");
    (void)snprintf(why, sizeof why, "%" PRId64 " bytes; a %s has at most %" PRIu64,
                   (int64_t)st->st_size, what, most);
    if ((uint64_t)st->st_size > most)
        return refuse(m, name, why);
    return 0;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* All of it and no byte more than was there before. */
static int read_text(int fd, struct drop_message *m, const char *name)
{
    _cleanup_(freep) char *text = malloc(DROP_TICKET_MAX + 2);
    struct stat before, after;
    size_t used = 0;

    if (!text)
        return -ENOMEM;
    if (fstat(fd, &before) < 0)
        return -errno;
    int r = check_file(m, name, &before, "ticket", DROP_TICKET_MAX);
    while (r == 0 && used <= DROP_TICKET_MAX) {
        ssize_t n = read(fd, text + used, DROP_TICKET_MAX + 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            r = n < 0 ? -errno : 0;
            break;
        }
        used += (size_t)n;
    }
    if (r < 0)
        return r;
    if (fstat(fd, &after) < 0)
        return -errno;
    if (!is_same(&before, &after) || used != (size_t)after.st_size)
        return -EAGAIN;
    text[used] = '\0';
    m->text = TAKE_PTR(text);
    m->length = used;
    return 0;
}

/* What editors put around a text. */
static void trim(struct drop_message *m)
{
    size_t bom = strlen(UTF8_BOM);

    if (m->length >= bom && memcmp(m->text, UTF8_BOM, bom) == 0) {
        m->length -= bom;
        memmove(m->text, m->text + bom, m->length);
    }
    if (m->ticket == DROP_KIND_TEXT && m->length > 0 && m->text[m->length - 1] == '\n') {
        m->length--;
        if (m->length > 0 && m->text[m->length - 1] == '\r')
            m->length--;
    }
    m->text[m->length] = '\0';
}

/* Opens one of the inputs. Refused, or a passing error, or a descriptor. */
static int open_one(struct drop_message *m, int directory, const char *name)
{
    int fd = drop_open_input(directory, name);

    if (fd == -EACCES || fd == -EPERM)
        return refuse_unreadable(m, directory, name);
    if (fd < 0)
        return drop_is_passing(fd) ? fd : refuse(m, name, strerror(-fd));
    return fd;
}

/* A picture beside the ticket: nothing of it is read here, the spool copies it. */
static int take_picture(struct drop_message *m, int directory, const char *name,
                        enum job_input_kind kind)
{
    struct job_input *input = &m->inputs[kind];
    struct stat st;

    if (input->fd >= 0)
        return refuse(m, name, "there were two such pictures for one ticket: drop one");
    _cleanup_(closep) int fd = open_one(m, directory, name);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    int r = check_file(m, name, &st, "picture", JOB_INPUT_BYTES_MAX);
    if (r == 0 && st.st_size == 0)
        r = refuse(m, name, "the file is empty");
    if (r == 0)
        r = drop_sync(fd); /* the job keeps a copy, but the input is not to be lost either */
    if (r < 0)
        return r;
    *input = (struct job_input){.fd = TAKE_FD(fd), .bytes = (uint64_t)st.st_size};
    return 0;
}

static int take_pictures(struct drop_message *m, int directory, const struct drop_inputs *inputs)
{
    size_t length;
    int r = 0;

    for (size_t i = 1; i < inputs->count && r == 0; i++) {
        enum drop_kind kind = drop_name_split(inputs->names[i], &length);
        r = take_picture(m, directory, inputs->names[i],
                         kind == DROP_KIND_MASK ? JOB_INPUT_MASK : JOB_INPUT_IMAGE);
    }
    if (r == 0 && m->inputs[JOB_INPUT_MASK].fd >= 0 && m->inputs[JOB_INPUT_IMAGE].fd < 0)
        return refuse(m, inputs->names[1], "a mask, but there is no picture NAME.png for it");
    return r;
}

static int read_ticket(struct drop_message *m, int directory, const char *name)
{
    size_t length;

    m->ticket = drop_name_split(name, &length);
    _cleanup_(closep) int ticket = open_one(m, directory, name);
    if (ticket < 0)
        return ticket;
    int r = read_text(ticket, m, name);
    if (r == 0)
        r = drop_sync(ticket);
    if (r < 0)
        return r;
    trim(m);
    return 0;
}

int drop_key_read(struct drop_folder *folder, struct drop_message *m)
{
    struct drop_inputs inputs;
    int fd = -1;

    int r = drop_key_open_inputs(folder, m->key, &fd);
    _cleanup_(closep) int directory = fd;
    unsigned attempts = m->attempts;
    drop_message_clear(m); /* of an attempt before this */
    m->attempts = attempts;
    if (r == 0)
        r = drop_key_list(directory, &inputs);
    if (r == 0)
        r = take_pictures(m, directory, &inputs);
    return r < 0 ? r : read_ticket(m, directory, inputs.names[0]);
}
