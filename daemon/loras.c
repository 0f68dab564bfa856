#include "daemon/loras.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vk/base/cleanup.h"

#define SUFFIX     ".safetensors"
#define WEIGHT_MAX 16.0 /* either way; what is of use lies between -2 and 2 */

struct lora {
    char name[LORA_NAME_MAX + 1];
    char weight[32]; /* "": not given */
};

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
static int parse_one(const char *text, size_t length, struct lora *ret, struct fault *f)
{
    while (length > 0 && *text == ' ') {
        text++;
        length--;
    }
    while (length > 0 && text[length - 1] == ' ')
        length--;
    const char *colon = memchr(text, ':', length);
    size_t name = colon ? (size_t)(colon - text) : length;
    if (name > strlen(SUFFIX) && strncmp(text + name - strlen(SUFFIX), SUFFIX, strlen(SUFFIX)) == 0)
        name -= strlen(SUFFIX);
    if (!is_name(text, name))
        return fault_set(f, -EINVAL,
                         "lora: \"%.*s\" is no name: want NAME or NAME:weight, without a path",
                         (int)(length < 40 ? length : 40), text);
    (void)snprintf(ret->name, sizeof ret->name, "%.*s", (int)name, text);
    ret->weight[0] = '\0';
    if (!colon)
        return 0;
    (void)snprintf(ret->weight, sizeof ret->weight, "%.*s", (int)(text + length - colon - 1),
                   colon + 1);
    if (!is_weight(ret->weight))
        return fault_set(f, -EINVAL, "lora: %s: \"%s\" is no weight from %g to %g", ret->name,
                         ret->weight, -WEIGHT_MAX, WEIGHT_MAX);
    return 0;
}

static int put_one(FILE *out, const char *directory, const struct lora *lora, bool is_first,
                   struct fault *f)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/%s" SUFFIX, directory, lora->name) >= (int)sizeof path)
        return fault_set(f, -EINVAL, "lora: %s: its path is too long", lora->name);
    if (access(path, R_OK) < 0)
        return fault_set(f, errno == ENOENT ? -ENOENT : -EINVAL, "lora: %s: %s", lora->name,
                         errno == ENOENT ? "there is none of this name" : strerror(errno));
    (void)fprintf(out, "%s%s%s%s", is_first ? "" : ",", path, lora->weight[0] ? ":" : "",
                  lora->weight);
    return 0;
}

static int put_all(FILE *out, const char *directory, const char *text, struct fault *f)
{
    struct lora lora;
    unsigned count = 0;
    int r = 0;

    for (const char *at = text; r == 0 && at; count++) {
        const char *comma = strchr(at, ',');
        size_t length = comma ? (size_t)(comma - at) : strlen(at);
        if (count == LORAS_MAX)
            return fault_set(f, -EINVAL, "lora: more than %u", LORAS_MAX);
        r = parse_one(at, length, &lora, f);
        if (r == 0)
            r = put_one(out, directory, &lora, count == 0, f);
        at = comma ? comma + 1 : NULL;
    }
    return r;
}

int loras_resolve(const char *text, const char *directory, char **ret_text, struct fault *f)
{
    _cleanup_(freep) char *resolved = NULL;
    size_t size = 0;

    if (text && *text && (!directory || !*directory))
        return fault_set(f, -EINVAL,
                         "lora: this service has none: set loras in section [model] of its "
                         "configuration");
    if (directory && strpbrk(directory, ",:"))
        return fault_set(f, -EINVAL, "lora: the path of [model] loras holds ',' or ':'");
    FILE *out = open_memstream(&resolved, &size);
    if (!out)
        return fault_set(f, -ENOMEM, "out of memory");
    int r = text && *text ? put_all(out, directory, text, f) : 0;
    bool failed = ferror(out);
    if (fclose(out) != 0 || failed)
        r = r < 0 ? r : fault_set(f, -ENOMEM, "out of memory");
    if (r < 0)
        return r;
    *ret_text = TAKE_PTR(resolved);
    return 0;
}
