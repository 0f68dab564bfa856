#include "vk/base/fault.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the UTF-8 sequence at `s`, 0 where none begins. Source: RFC 3629. */
static size_t sequence_length(const unsigned char *s)
{
    static const struct {
        unsigned char first, last;     /* lead bytes */
        unsigned char lowest, highest; /* of the second byte: no overlong forms, no surrogates */
        size_t length;
    } rows[] = {
        {0x01, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    size_t row = 0, i = 2;

    while (row < sizeof rows / sizeof rows[0] && (s[0] < rows[row].first || s[0] > rows[row].last))
        row++;
    if (row == sizeof rows / sizeof rows[0])
        return 0;
    size_t length = rows[row].length;
    if (length > 1 && (s[1] < rows[row].lowest || s[1] > rows[row].highest))
        return 0;
    while (i < length && (s[i] & 0xc0) == 0x80)
        i++;
    return i >= length ? length : 0;
}

/* D-Bus refuses text that is no UTF-8, so a message must be some whatever it repeats: a sequence
 * that is cut off or broken becomes a '?', one at the very end is dropped. */
void fault_mend(char *text)
{
    unsigned char *to = (unsigned char *)text;
    const unsigned char *from = to;

    while (*from) {
        size_t n = sequence_length(from);
        if (n > 0) {
            memmove(to, from, n);
            to += n;
            from += n;
            continue;
        }
        do
            from++;
        while ((*from & 0xc0) == 0x80);
        if (*from)
            *to++ = '?';
    }
    *to = '\0';
}

int fault_set(struct fault *f, int err, const char *format, ...)
{
    va_list args;

    if (!f)
        return err;
    f->err = err;
    va_start(args, format);
    (void)vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
    fault_mend(f->text);
    return err;
}

int fault_prefix(struct fault *f, int err, const char *format, ...)
{
    char prefix[128];
    char old[sizeof f->text];
    va_list args;

    if (!f)
        return err;
    va_start(args, format);
    (void)vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    memcpy(old, f->text, sizeof old);
    return fault_set(f, f->err ? f->err : err, "%s: %s", prefix, old);
}
