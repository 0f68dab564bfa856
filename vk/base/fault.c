#include "vk/base/fault.h"

#include <stdio.h>
#include <string.h>

/* A message cut inside a UTF-8 sequence would be refused by D-Bus: drop the broken tail. */
static void cut_at_character(char *text)
{
    size_t n = strlen(text);
    size_t start = n;

    while (start > 0 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    if (n - (start - 1) < want)
        text[start - 1] = '\0';
}

int fault_set(struct fault *f, int err, const char *format, ...)
{
    va_list args;

    if (!f)
        return err;
    f->err = err;
    va_start(args, format);
    int n = vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
    if (n >= (int)sizeof f->text)
        cut_at_character(f->text);
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
