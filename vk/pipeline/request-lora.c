/* The row `lora`: names with weights, between commas. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "vk/pipeline/request-private.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static int parse_weight(const char *text, size_t length, double *ret_weight)
{
    char copy[32];

    if (length >= sizeof copy)
        return -EINVAL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    int r = request_parse_double(copy, ret_weight);
    return r == 0 && fabs(*ret_weight) > REQUEST_LORA_WEIGHT_MAX ? -EINVAL : r;
}

/* Bytes text … text + length - 1: NAME[:weight]. */
static int parse_one(const char *text, size_t length, struct request_lora *ret, struct fault *f)
{
    const char *colon = memrchr(text, ':', length);
    size_t n = colon ? (size_t)(colon - text) : length;
    int shown = length < 64 ? (int)length : 64;

    if (n == 0)
        return fault_set(f, -EINVAL, "lora: an empty name");
    if (n >= sizeof ret->name)
        return fault_set(f, -EINVAL, "lora: %.64s…: a name too long", text);
    memcpy(ret->name, text, n);
    ret->name[n] = '\0';
    ret->weight = 1;
    if (colon && parse_weight(colon + 1, length - n - 1, &ret->weight) < 0)
        return fault_set(f, -EINVAL, "lora: %.*s: want NAME:weight, a number from %g to %g", shown,
                         text, -REQUEST_LORA_WEIGHT_MAX, REQUEST_LORA_WEIGHT_MAX);
    return 0;
}

int request_loras(const char *text, struct request_lora ret_loras[REQUEST_LORAS_MAX],
                  uint32_t *ret_count, struct fault *f)
{
    const char *at = text ? text : "";
    uint32_t count = 0;

    while (is_blank(*at))
        at++;
    for (bool is_last = !*at; !is_last; count++) {
        const char *end = strchrnul(at, ',');
        size_t length = (size_t)(end - at);
        while (length > 0 && is_blank(at[length - 1]))
            length--;
        if (count == REQUEST_LORAS_MAX)
            return fault_set(f, -EINVAL, "lora: at most %u are possible", REQUEST_LORAS_MAX);
        int r = parse_one(at, length, &ret_loras[count], f);
        if (r < 0)
            return r;
        is_last = !*end;
        for (at = end + !is_last; is_blank(*at); at++)
            continue;
    }
    *ret_count = count;
    return 0;
}

int request_check_lora_name(const char *name, struct fault *f)
{
    if (strchr(name, '/') || name[0] == '.')
        return fault_set(f, -EINVAL, "lora: %.100s: want a name, not a path", name);
    for (const char *at = name; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return fault_set(f, -EINVAL, "lora: a control character in a name");
    return 0;
}
