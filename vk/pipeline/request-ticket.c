/* request_parse_ticket: a drop ticket through inih.
 *
 * Debian's inih has run-time switches: lines up to ini_max_line, no continuation lines, no comments
 * within a line (a prompt may hold ';'). They are the library's own globals, set to the same values
 * by everyone here. Lines are handed over one by one so that messages can name their number. */
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "vk/pipeline/request.h"

#define TICKET_LINE_MAX 32768 /* bytes: a prompt of 16 KiB and room for what is around it */

struct ticket {
    const char *next, *end; /* what is not read yet */
    unsigned line;          /* number of the line last handed over */
    const char *const *ignored;
    struct request request;
    unsigned seen_at[REQUEST_ROW_COUNT]; /* line of each row, 0: not seen */
    struct fault fault;
};

static int fault_line(struct ticket *t, int err, const char *what, const char *name)
{
    if (!t->fault.err)
        (void)fault_set(&t->fault, err, "line %u: %s%.64s", t->line, what, name);
    return 0; /* to inih: an error */
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

/* A line that begins with blanks would continue the one before in other readers: refused unless
 * empty or a comment. */
static bool is_continuation(const char *line, size_t n)
{
    size_t i = 0;

    while (i < n && is_blank(line[i]))
        i++;
    return i > 0 && i < n && line[i] != ';' && line[i] != '#';
}

/* fgets over the text, with the checks that need a line number. */
static char *read_line(char *buffer, int size, void *stream)
{
    struct ticket *t = stream;
    size_t left = (size_t)(t->end - t->next);
    const char *newline = left ? memchr(t->next, '\n', left) : NULL;
    size_t n = newline ? (size_t)(newline - t->next) : left;

    if (left == 0 || t->fault.err)
        return NULL;
    t->line++;
    if (n + 2 > (size_t)size || n > TICKET_LINE_MAX)
        (void)fault_line(t, -EFBIG, "longer than 32768 bytes", "");
    else if (memchr(t->next, '\0', n))
        (void)fault_line(t, -EILSEQ, "holds a NUL character", "");
    else if (is_continuation(t->next, n))
        (void)fault_line(t, -EINVAL, "begins with a blank; continuation lines are not known", "");
    if (t->fault.err)
        return NULL;
    memcpy(buffer, t->next, n);
    buffer[n] = '\n';
    buffer[n + 1] = '\0';
    t->next += newline ? n + 1 : n;
    return buffer;
}

static bool is_ignored(const struct ticket *t, const char *section)
{
    for (const char *const *s = t->ignored; s && *s; s++) {
        if (strcmp(*s, section) == 0)
            return true;
    }
    return false;
}

static int on_key(void *userdata, const char *section, const char *key, const char *value)
{
    struct ticket *t = userdata;

    if (is_ignored(t, section))
        return 1;
    if (strcmp(section, "job") != 0)
        return fault_line(t, -EINVAL, section[0] ? "unknown section " : "before the section [job]",
                          section);
    const struct request_row *row = request_row_find(key);
    if (!row)
        return fault_line(t, -EINVAL, "unknown key ", key);
    unsigned *seen = &t->seen_at[row - request_rows];
    if (*seen)
        return fault_line(t, -EINVAL, "given twice: ", key);
    *seen = t->line;
    struct fault f = {0};
    int r = request_set_text(&t->request, row, value, strlen(value), &f);
    if (r < 0 && !t->fault.err)
        (void)fault_set(&t->fault, r, "line %u: %s", t->line, f.text);
    return r >= 0;
}

int request_parse_ticket(const char *text, size_t length, const char *const *ignored,
                         struct request *ret_request, struct fault *f)
{
    struct ticket t = {.next = text, .end = text + length, .ignored = ignored};

    ini_use_stack = true; /* only that form takes lines over 200 bytes */
    ini_max_line = TICKET_LINE_MAX + 2;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_stop_on_first_error = true; /* else a later line's message hides the first one */
    int line = ini_parse_stream(read_line, &t, on_key, &t);
    if (line > 0 && !t.fault.err)
        (void)fault_set(&t.fault, -EINVAL, "line %d: neither a section nor key = value", line);
    if (t.fault.err) {
        request_done(&t.request);
        return fault_set(f, t.fault.err, "%s", t.fault.text);
    }
    *ret_request = t.request;
    return 0;
}
