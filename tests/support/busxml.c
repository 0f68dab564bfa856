#include "tests/support/busxml.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vk/base/cleanup.h"
#include "vk/base/file.h"

static void attribute(const char *tag, const char *name, char *ret_value, size_t size)
{
    const char *end = strchr(tag, '>');
    char key[64];

    ret_value[0] = '\0';
    (void)snprintf(key, sizeof key, " %s=\"", name);
    const char *at = strstr(tag, key);
    if (!at || !end || at > end)
        return;
    at += strlen(key);
    (void)snprintf(ret_value, size, "%.*s", (int)strcspn(at, "\""), at);
}

static int add_member(struct busxml *xml, enum busxml_kind kind, const char *interface,
                      const char *tag)
{
    struct busxml_member *m = array_push(xml);

    if (!m)
        return -ENOMEM;
    *m = (struct busxml_member){.kind = kind};
    (void)snprintf(m->interface, sizeof m->interface, "%s", interface);
    attribute(tag, "name", m->name, sizeof m->name);
    if (kind == BUSXML_PROPERTY)
        attribute(tag, "type", m->out, sizeof m->out);
    attribute(tag, "access", m->access, sizeof m->access);
    return *m->name ? 0 : -EINVAL;
}

static int add_argument(struct busxml *xml, const char *tag)
{
    char type[64], direction[16];

    if (xml->count == 0)
        return -EINVAL;
    struct busxml_member *m = &xml->items[xml->count - 1];
    attribute(tag, "type", type, sizeof type);
    attribute(tag, "direction", direction, sizeof direction);
    char *to = strcmp(direction, "in") == 0 ? m->in : m->out;
    size_t n = strlen(to);
    return snprintf(to + n, sizeof m->in - n, "%s", type) < (int)(sizeof m->in - n) ? 0 : -EINVAL;
}

int busxml_parse(const char *text, struct busxml *xml)
{
    static const char *const kinds[] = {
        [BUSXML_METHOD] = "method", [BUSXML_PROPERTY] = "property", [BUSXML_SIGNAL] = "signal"};
    char interface[96] = "", tag[32];
    int r = 0;

    for (const char *p = text; r >= 0 && (p = strchr(p, '<')); p++) {
        if (strncmp(p, "<!--", 4) == 0) {
            p = strstr(p, "-->");
            if (!p)
                return -EINVAL;
            continue;
        }
        if (sscanf(p, "<%31[a-z]", tag) != 1)
            continue;
        if (strcmp(tag, "interface") == 0)
            attribute(p, "name", interface, sizeof interface);
        else if (strcmp(tag, "arg") == 0)
            r = add_argument(xml, p);
        for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(kinds); i++)
            if (strcmp(tag, kinds[i]) == 0)
                r = add_member(xml, (enum busxml_kind)i, interface, p);
    }
    return r;
}

int busxml_read(const char *path, struct busxml *xml)
{
    _cleanup_(freep) char *text = NULL;
    size_t size;

    int r = file_read(path, 1 << 20, &text, &size, NULL);
    return r < 0 ? r : busxml_parse(text, xml);
}
