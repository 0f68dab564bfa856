/* sd_journal_sendv() says success where there is no journal at all, so whether there is one is
 * asked of standard error first: systemd tells its device and inode in JOURNAL_STREAM. */
#include "daemon/event.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "vk/base/cleanup.h"

#define LINE_SIZE  1024
#define FIELD_SIZE 64
#define FIELDS_MAX 8

const struct event_row event_rows[EVENT_KIND_COUNT] = {
#define EVENT_ROW(row, level_, id, what_)                                                          \
    {.name = #row, .level = LOG_LEVEL_##level_, .message_id = id, .what = what_},
#include "daemon/events.def"
#undef EVENT_ROW
};

static bool is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    uint64_t device, inode;
    struct stat st;
    int length = 0;

    return stream && sscanf(stream, "%" SCNu64 ":%" SCNu64 "%n", &device, &inode, &length) == 2 &&
           !stream[length] && fstat(fd, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

/* The fields of one entry, each "NAME=value". */
struct entry {
    char text[FIELDS_MAX][FIELD_SIZE];
    struct iovec vectors[FIELDS_MAX + 1]; /* the message comes on top */
    int count;
};

static void add(struct entry *entry, const char *name, const char *value)
{
    char *text = entry->text[entry->count];
    int n = snprintf(text, FIELD_SIZE, "%s=%s", name, value);

    if (n < FIELD_SIZE)
        entry->vectors[entry->count++] = (struct iovec){text, (size_t)n};
}

static void add_number(struct entry *entry, const char *name, bool is_known, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    if (is_known)
        add(entry, name, text);
}

static int send(const struct event_row *row, const struct event_fields *f, char *message)
{
    struct entry entry = {0};

    add(&entry, "MESSAGE_ID", row->message_id);
    add_number(&entry, "PRIORITY", true, row->level);
    add(&entry, "DIFFUSED_EVENT", row->name);
    add_number(&entry, "DIFFUSED_JOB_ID", f->has_job, f->job);
    add_number(&entry, "DIFFUSED_UID", f->has_uid, f->uid);
    add_number(&entry, "DIFFUSED_STEP", f->has_step, f->step);
    entry.vectors[entry.count++] = (struct iovec){message, strlen(message)};
    return sd_journal_sendv(entry.vectors, entry.count);
}

void event_log(enum event_kind kind, struct event_fields fields, const char *format, ...)
{
    static const char prefix[] = "MESSAGE=";
    const struct event_row *row = &event_rows[kind];
    char message[sizeof prefix + LINE_SIZE];
    va_list args;

    if (!log_is_on(row->level))
        return;
    memcpy(message, prefix, sizeof prefix);
    va_start(args, format);
    log_format(message + strlen(prefix), LINE_SIZE, format, args);
    va_end(args);
    if (!is_journal(STDERR_FILENO) || send(row, &fields, message) < 0)
        log_line(row->level, "%s", message + strlen(prefix));
}
