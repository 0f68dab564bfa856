/* json — JSON that others wrote: read with limits, looked up with messages.
 *
 * Nesting over JSON_DEPTH_MAX, duplicate keys and anything RFC 8259 does not allow are refused. The
 * json_get_* functions look up `key` in `object`: 1 and *ret_… filled when it is there, 0 and
 * *ret_… untouched when it is absent or null (so fill in the default first), -EINVAL and a fault
 * naming the key when it has the wrong type or is out of range. Strings are borrowed from the
 * object. Source of the format: RFC 8259, through jansson. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

#define JSON_DEPTH_MAX  64u
#define JSON_CONFIG_MAX (1u << 20) /* bytes */

/* _cleanup_(json_freep) json_t *root = NULL; */
static inline json_t *json_free(json_t *root)
{
    json_decref(root);
    return NULL;
}
DEFINE_FREEP(json_t *, json_free)

/* Parses an object or array. The fault says line, column and what is wrong; the caller adds the
 * name. */
int json_parse(const char *text, size_t length, json_t **ret_root, struct fault *f);

/* The same, and the root must be an object; from a file of at most `limit` bytes, faults begin with
 * its path. Errors of file_read() as they are. */
int json_read_object(const char *path, size_t limit, json_t **ret_root, struct fault *f);

/* The same of a file in a directory, of at most JSON_CONFIG_MAX bytes: a model's configuration. */
int json_read_config(const char *directory, const char *file, json_t **ret_root, struct fault *f);

/* json_read_object() with every number read as a double, for files whose whole numbers exceed 64
 * bits. */
int json_read_object_of_doubles(const char *path, size_t limit, json_t **ret_root, struct fault *f);

/* Whether jansson has asked for memory in vain on this thread since the last call. It does not
 * always say so itself: who builds or writes JSON asks before and after. */
bool json_ran_out(void);

int json_get_uint(const json_t *object, const char *key, uint64_t min, uint64_t max,
                  uint64_t *ret_value, struct fault *f);
int json_get_u32(const json_t *object, const char *key, uint32_t min, uint32_t max,
                 uint32_t *ret_value, struct fault *f);
int json_get_bool(const json_t *object, const char *key, bool *ret_value, struct fault *f);
/* Takes integers too. */
int json_get_double(const json_t *object, const char *key, double min, double max,
                    double *ret_value, struct fault *f);
int json_get_string(const json_t *object, const char *key, const char **ret_value, struct fault *f);

/* Lists of at most `capacity` values; *ret_count says how many. */
int json_get_u32_list(const json_t *object, const char *key, uint32_t min, uint32_t max,
                      size_t capacity, uint32_t *ret_values, size_t *ret_count, struct fault *f);
int json_get_string_list(const json_t *object, const char *key, size_t capacity,
                         const char **ret_values, size_t *ret_count, struct fault *f);
