#include "daemon/drop-name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <utf8proc.h>

#define SUFFIX_ROOM  16u /* "~99999" and ".error.txt": the longest that comes after NAME */
#define SUFFIX_OTHER 10u /* a longer ending of an unknown file counts as a part of its NAME */

#define BOTH(lower, upper, kind)                                                                   \
    {lower, kind},                                                                                 \
    {                                                                                              \
        upper, kind                                                                                \
    }

const struct drop_suffix drop_suffixes[] = {
    BOTH(".mask.png", ".MASK.PNG", DROP_KIND_MASK), BOTH(".jpeg", ".JPEG", DROP_KIND_PICTURE),
    BOTH(".png", ".PNG", DROP_KIND_PICTURE),        BOTH(".jpg", ".JPG", DROP_KIND_PICTURE),
    BOTH(".txt", ".TXT", DROP_KIND_TEXT),           BOTH(".ini", ".INI", DROP_KIND_INI),
};
const size_t drop_suffix_count = sizeof drop_suffixes / sizeof *drop_suffixes;

static const char *const ignored_endings[] = {".part", ".tmp", ".crdownload", "~"};

static bool ends_with(const char *name, size_t length, const char *ending)
{
    size_t n = strlen(ending);

    return length > n && memcmp(name + length - n, ending, n) == 0;
}

enum drop_kind drop_name_split(const char *name, size_t *ret_base_length)
{
    size_t length = strlen(name);
    const char *dot = strrchr(name, '.');

    *ret_base_length = length;
    if (name[0] == '.' || name[0] == '\0')
        return DROP_KIND_IGNORED;
    for (size_t i = 0; i < sizeof ignored_endings / sizeof *ignored_endings; i++) {
        if (ends_with(name, length, ignored_endings[i]))
            return DROP_KIND_IGNORED;
    }
    for (size_t i = 0; i < drop_suffix_count; i++) {
        if (!ends_with(name, length, drop_suffixes[i].text))
            continue;
        *ret_base_length = length - strlen(drop_suffixes[i].text);
        return drop_suffixes[i].kind;
    }
    if (dot && strlen(dot) <= SUFFIX_OTHER)
        *ret_base_length = (size_t)(dot - name);
    return DROP_KIND_OTHER;
}

/* The longest length up to `most` that cuts no UTF-8 sequence; other bytes are cut anywhere. */
static size_t cut_at_character(const char *name, size_t most)
{
    size_t start = most;

    while (start > 0 && most - start < 3 && ((unsigned char)name[start] & 0xc0) == 0x80)
        start--;
    return ((unsigned char)name[start] & 0xc0) == 0xc0 ? start : most;
}

void drop_name_base(const char *name, size_t base_length, unsigned n, char ret_base[DROP_NAME_SIZE])
{
    size_t most = DROP_NAME_SIZE - 1 - SUFFIX_ROOM;

    if (base_length > most)
        base_length = cut_at_character(name, most);
    memcpy(ret_base, name, base_length);
    ret_base[base_length] = '\0';
    if (n > 0)
        (void)snprintf(ret_base + base_length, DROP_NAME_SIZE - base_length, "~%u", n);
}

/* What a terminal shows as itself and nothing else. */
static bool is_plain(utf8proc_int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC: /* control */
    case UTF8PROC_CATEGORY_CF: /* format: bidirectional marks among them */
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return c != '\\';
    }
}

void drop_name_show(const char *name, char *ret_text, size_t size)
{
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)name;
    size_t used = 0;

    while (*p) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate(p, -1, &c);
        bool plain = n > 0 && is_plain(c);
        size_t bytes = n > 0 ? (size_t)n : 1, wanted = plain ? bytes : 4 * bytes;
        if (used + wanted + 4 > size) { /* room for the dots and the NUL */
            memcpy(ret_text + used, "\xe2\x80\xa6", 3);
            used += 3;
            break;
        }
        if (plain)
            memcpy(ret_text + used, p, bytes);
        for (size_t i = 0; !plain && i < bytes; i++)
            (void)snprintf(ret_text + used + 4 * i, 5, "\\x%02x", p[i]);
        used += wanted;
        p += bytes;
    }
    ret_text[used] = '\0';
}

int drop_key_make(char ret_key[DROP_KEY_SIZE])
{
    uint8_t bytes[(DROP_KEY_SIZE - 1) / 2];

    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return -EIO;
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)snprintf(ret_key + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

bool drop_key_is_valid(const char *text)
{
    return strlen(text) == DROP_KEY_SIZE - 1 &&
           strspn(text, "0123456789abcdef") == DROP_KEY_SIZE - 1;
}
