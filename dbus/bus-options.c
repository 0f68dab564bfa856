/* a{sv} both ways. Unknown keys, wrong types and repeated keys are refused by name. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dbus/bus-internal.h"

static const void *field_of(const struct request *q, const struct request_row *row)
{
    return (const char *)q + row->offset;
}

static void free_strv(char ***list)
{
    for (char **p = *list; p && *p; p++)
        free(*p);
    free(*list);
}

static int read_list(sd_bus_message *m, struct request *q, const struct request_row *row,
                     struct fault *f)
{
    _cleanup_(free_strv) char **list = NULL;
    size_t n = 0;

    if (sd_bus_message_read_strv(m, &list) < 0)
        return fault_set(f, -EINVAL, "%s: cannot be read", row->name);
    while (list && list[n])
        n++;
    return request_set_list(q, row, (const char *const *)list, n, f);
}

/* A row of type F counts as given once its descriptor is here; its name is the spool's to find. */
static int read_input(sd_bus_message *m, struct job_input *inputs, const struct request_row *row,
                      struct fault *f)
{
    int fd = -1;

    for (unsigned i = 0; i < JOB_INPUT_COUNT; i++) {
        if (row != &request_rows[job_input_row(i)])
            continue;
        if (sd_bus_message_read_basic(m, 'h', &fd) < 0)
            return fault_set(f, -EINVAL, "%s: cannot be read", row->name);
        if (inputs[i].fd >= 0)
            return fault_set(f, -EINVAL, "%s: given twice", row->name);
        return bus_take_input(fd, row->name, &inputs[i], f);
    }
    return fault_set(f, -EINVAL, "%s: takes no descriptor", row->name);
}

/* Reads the value of type `type` inside an entered variant into the row. */
static int read_value(sd_bus_message *m, struct request *q, struct job_input *inputs,
                      const struct request_row *row, struct fault *f)
{
    union {
        const char *s;
        uint32_t u;
        uint64_t t;
        double d;
        int b;
    } value;
    const char *type = request_row_signature(row);

    if (row->type == REQUEST_TYPE_L)
        return read_list(m, q, row, f);
    if (row->type == REQUEST_TYPE_F)
        return read_input(m, inputs, row, f);
    int r = sd_bus_message_read_basic(m, *type, &value);
    if (r < 0)
        return fault_set(f, -EINVAL, "%s: cannot be read", row->name);
    switch (*type) {
    case 's':
        return request_set_text(q, row, value.s, strlen(value.s), f);
    case 'u':
        return request_set_uint(q, row, value.u, f);
    case 't':
        return request_set_uint(q, row, value.t, f);
    case 'b':
        return request_set_uint(q, row, (uint64_t)value.b, f);
    default:
        return request_set_double(q, row, value.d, f);
    }
}

static const struct request_row *find_option(const struct request *q, const char *key,
                                             struct fault *f)
{
    const struct request_row *row = request_row_find(key);

    if (!row || strcmp(row->name, key) != 0)
        (void)fault_set(f, -EINVAL, "unknown option \"%.64s\": see the property Options", key);
    else if (row == &request_rows[REQUEST_prompt])
        (void)fault_set(f, -EINVAL, "prompt is no option: it is the first argument");
    else if (request_is_set(q, (enum request_row_id)(row - request_rows)))
        (void)fault_set(f, -EINVAL, "%s: given twice", key);
    else
        return row;
    return NULL;
}

/* One entered dictionary entry. Bad data are in `f`, errors of the message itself are returned. */
static int read_entry(sd_bus_message *m, struct request *q, struct job_input *inputs,
                      struct fault *f)
{
    const char *key, *contents;

    int r = sd_bus_message_read_basic(m, 's', &key);
    if (r < 0)
        return r;
    const struct request_row *row = find_option(q, key, f);
    if (!row)
        return f->err;
    r = sd_bus_message_peek_type(m, NULL, &contents);
    if (r < 0)
        return r;
    const char *want = request_row_signature(row);
    if (strcmp(contents, want) != 0)
        return fault_set(f, -EINVAL, "%s: type is \"%.16s\", want \"%s\"", key, contents, want);
    r = sd_bus_message_enter_container(m, 'v', contents);
    if (r < 0)
        return r;
    r = read_value(m, q, inputs, row, f);
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

int bus_read_options(sd_bus_message *m, struct request *q, struct job_input *inputs,
                     sd_bus_error *error)
{
    struct fault f = {0};

    int r = sd_bus_message_enter_container(m, 'a', "{sv}");
    if (r < 0)
        return r;
    while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = read_entry(m, q, inputs, &f);
        if (r < 0)
            return f.err ? bus_error_set(error, r, &f) : r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
            return r;
    }
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

static const struct bus_key *find_key(const struct bus_key *keys, const char *name)
{
    for (; keys->name; keys++)
        if (strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

/* `seen`: bit i is set when keys[i] was read. */
static int read_key(sd_bus_message *m, const struct bus_key *keys, unsigned *seen,
                    sd_bus_error *error)
{
    const char *name, *contents;

    int r = sd_bus_message_read_basic(m, 's', &name);
    if (r < 0)
        return r;
    const struct bus_key *key = find_key(keys, name);
    if (!key)
        return bus_error_setf(error, -EINVAL, "unknown key \"%.64s\"", name);
    const unsigned bit = 1u << (key - keys);
    if (*seen & bit)
        return bus_error_setf(error, -EINVAL, "%s: given twice", name);
    *seen |= bit;
    r = sd_bus_message_peek_type(m, NULL, &contents);
    if (r < 0)
        return r;
    const char want[] = {key->type, '\0'};
    if (strcmp(contents, want) != 0)
        return bus_error_setf(error, -EINVAL, "%s: type is \"%.16s\", want \"%s\"", name, contents,
                              want);
    return sd_bus_message_read(m, "v", want, key->value);
}

int bus_read_keys(sd_bus_message *m, const struct bus_key *keys, sd_bus_error *error)
{
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");
    unsigned seen = 0;

    if (r < 0)
        return r;
    while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = read_key(m, keys, &seen, error);
        if (r < 0)
            return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
            return r;
    }
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int append_texts(sd_bus_message *reply, const struct text_list *list)
{
    int r = sd_bus_message_open_container(reply, 'a', "s");

    for (size_t i = 0; r >= 0 && i < list->count; i++)
        r = sd_bus_message_append_basic(reply, 's', list->items[i]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_list(sd_bus_message *reply, const struct request *q,
                       const struct request_row *row)
{
    _cleanup_(text_list_done) struct text_list list = {0};

    int r = request_list(q, row, &list);
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'e', "sv");
    if (r >= 0)
        r = sd_bus_message_append_basic(reply, 's', row->name);
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'v', "as");
    if (r >= 0)
        r = append_texts(reply, &list);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_value(sd_bus_message *reply, const struct request *q,
                        const struct request_row *row)
{
    _cleanup_(freep) char *text = NULL;

    switch (row->type) {
    case REQUEST_TYPE_U:
        return sd_bus_message_append(reply, "{sv}", row->name, "u",
                                     *(const uint32_t *)field_of(q, row));
    case REQUEST_TYPE_T:
        return sd_bus_message_append(reply, "{sv}", row->name, "t",
                                     *(const uint64_t *)field_of(q, row));
    case REQUEST_TYPE_D:
        return sd_bus_message_append(reply, "{sv}", row->name, "d",
                                     *(const double *)field_of(q, row));
    case REQUEST_TYPE_B:
        return sd_bus_message_append(reply, "{sv}", row->name, "b",
                                     (int)*(const uint32_t *)field_of(q, row));
    case REQUEST_TYPE_L:
        return append_list(reply, q, row);
    case REQUEST_TYPE_F:
        return 0; /* the picture is the job's, not the client's */
    case REQUEST_TYPE_S:
    case REQUEST_TYPE_E:
        break;
    }
    int r = request_format(q, row, &text);
    return r < 0 ? r : sd_bus_message_append(reply, "{sv}", row->name, "s", text);
}

int bus_append_options(sd_bus_message *reply, const struct request *q)
{
    int r = sd_bus_message_open_container(reply, 'a', "{sv}");

    for (unsigned i = 0; r >= 0 && i < REQUEST_ROW_COUNT; i++)
        if (i != REQUEST_prompt && job_row_is_told(q, i))
            r = append_value(reply, q, &request_rows[i]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_words(sd_bus_message *reply, const char *list)
{
    char word[64];

    int r = sd_bus_message_open_container(reply, 'a', "s");
    for (const char *p = list; r >= 0 && *p;) {
        size_t n = strcspn(p, " ");
        (void)snprintf(word, sizeof word, "%.*s", (int)n, p);
        r = sd_bus_message_append_basic(reply, 's', word);
        p += n + (p[n] == ' ');
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static void format_range(const struct request_row *row, char *min, char *max, size_t size)
{
    *min = *max = '\0';
    if (row->type == REQUEST_TYPE_E || row->type == REQUEST_TYPE_B || row->type == REQUEST_TYPE_F)
        return;
    (void)snprintf(min, size, "%.17g", row->min);
    if (row->type == REQUEST_TYPE_T)
        (void)snprintf(max, size, "%" PRIu64, row->max_integer);
    else
        (void)snprintf(max, size, "%.17g", row->max);
}

static int append_row(sd_bus_message *reply, const struct request_row *row,
                      const struct request *defaults)
{
    _cleanup_(freep) char *text = NULL;
    char min[32], max[32];

    int r = sd_bus_message_open_container(reply, 'r', "ssssssass");
    if (r < 0)
        return r;
    if (request_is_set(defaults, (enum request_row_id)(row - request_rows)) &&
        request_format(defaults, row, &text) < 0)
        return -ENOMEM;
    format_range(row, min, max, sizeof min);
    r = sd_bus_message_append(reply, "ssssss", row->name, request_row_signature(row),
                              text ? text : row->default_text, min, max, row->unit);
    if (r >= 0)
        r = append_words(reply, row->values);
    if (r >= 0)
        r = sd_bus_message_append_basic(reply, 's', row->help);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

int bus_append_option_table(sd_bus_message *reply, const struct request *defaults)
{
    int r = sd_bus_message_open_container(reply, 'a', "(ssssssass)");

    for (unsigned i = 0; r >= 0 && i < REQUEST_ROW_COUNT; i++)
        r = append_row(reply, &request_rows[i], defaults);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}
