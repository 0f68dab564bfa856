/* busxml — the members an introspection text names, for tests that walk all of them. Reads what our
 * own XML files and sd-bus write: double quotes, no entities. */
#pragma once

#include <stddef.h>

#include "vk/base/array.h"

enum busxml_kind {
    BUSXML_METHOD,
    BUSXML_PROPERTY,
    BUSXML_SIGNAL,
};

struct busxml_member {
    enum busxml_kind kind;
    char interface[96], name[64];
    char in[64], out[64]; /* of a method; a property's or signal's type is in `out` */
    char access[16];      /* of a property: read, readwrite */
};

struct busxml ARRAY(struct busxml_member);

/* Adds every member of every interface in the text. -EINVAL when it cannot be read. */
int busxml_parse(const char *text, struct busxml *xml);
/* The same from a file. */
int busxml_read(const char *path, struct busxml *xml);
