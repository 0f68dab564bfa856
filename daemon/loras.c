#include "daemon/loras.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WEIGHT_MAX 100.0 /* either way, as the engine has it */

static bool is_name(const char *name, size_t length)
{
    if (length == 0 || length > LORA_NAME_MAX || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] == '/' || (unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return false;
    return true;
}

static bool is_weight(const char *text)
{
    char *end;

    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text))
        return false;
    double weight = strtod(text, &end);
    return !*end && isfinite(weight) && fabs(weight) <= WEIGHT_MAX;
}

/* One of the list, `length` bytes; blanks around it do not count. */
static int parse_one(const char *text, size_t length, char ret_name[LORA_NAME_MAX + 1],
                     struct fault *f)
{
    char weight[32] = "";

    while (length > 0 && *text == ' ') {
        text++;
        length--;
    }
    while (length > 0 && text[length - 1] == ' ')
        length--;
    const char *colon = memrchr(text, ':', length);
    size_t name = colon ? (size_t)(colon - text) : length;
    if (!is_name(text, name))
        return fault_set(f, -EINVAL,
                         "lora: \"%.*s\" is no name: want NAME or NAME:weight, without a path",
                         (int)(length < 40 ? length : 40), text);
    (void)snprintf(ret_name, LORA_NAME_MAX + 1, "%.*s", (int)name, text);
    if (!colon)
        return 0;
    (void)snprintf(weight, sizeof weight, "%.*s", (int)(text + length - colon - 1), colon + 1);
    if (!is_weight(weight))
        return fault_set(f, -EINVAL, "lora: %s: \"%s\" is no weight from %g to %g", ret_name,
                         weight, -WEIGHT_MAX, WEIGHT_MAX);
    return 0;
}

static int check_file(const char *directory, const char *name, struct fault *f)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/%s.safetensors", directory, name) >= (int)sizeof path)
        return fault_set(f, -EINVAL, "lora: %s: its path is too long", name);
    if (access(path, R_OK) < 0)
        return fault_set(f, -EINVAL, "lora: %s: %s", name,
                         errno == ENOENT ? "there is none of this name" : strerror(errno));
    return 0;
}

int loras_check(const char *text, const char *directory, struct fault *f)
{
    char name[LORA_NAME_MAX + 1];
    unsigned count = 0;
    int r = 0;

    for (const char *at = text && *text ? text : NULL; r == 0 && at; count++) {
        const char *comma = strchr(at, ',');
        size_t length = comma ? (size_t)(comma - at) : strlen(at);
        if (count == LORAS_MAX)
            return fault_set(f, -EINVAL, "lora: more than %u", LORAS_MAX);
        r = parse_one(at, length, name, f);
        if (r == 0)
            r = check_file(directory, name, f);
        at = comma ? comma + 1 : NULL;
    }
    return r;
}
