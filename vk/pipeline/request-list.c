/* Rows of type L: several texts in one field, as a JSON array on one line. */
#include <errno.h>
#include <string.h>

#include "vk/base/json.h"
#include "vk/pipeline/request-private.h"

static const char *field_text(const struct request *q, const struct request_row *row)
{
    return *(char *const *)((const char *)q + row->offset);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Every text is held to the limits of a prompt. */
static int append_text(json_t *list, const struct request_row *row, const char *text, size_t length,
                       struct fault *f)
{
    if (length > REQUEST_PROMPT_MAX)
        return fault_set(f, -E2BIG, "%s: text %zu has %zu bytes; at most %u are possible",
                         row->name, json_array_size(list) + 1, length, REQUEST_PROMPT_MAX);
    if (json_array_size(list) == REQUEST_PICTURES_MAX)
        return fault_set(f, -EINVAL, "%s: more than %u texts", row->name, REQUEST_PICTURES_MAX);
    if (memchr(text, '\0', length))
        return fault_set(f, -EILSEQ, "%s: holds a NUL character", row->name);
    if (!request_is_utf8(text, length))
        return fault_set(f, -EILSEQ, "%s: is not UTF-8", row->name);
    if (json_array_append_new(list, json_stringn_nocheck(text, length)) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    return 0;
}

static int store(struct request *q, const struct request_row *row, const json_t *list,
                 struct fault *f)
{
    _cleanup_(freep) char *text = NULL;

    if (json_array_size(list) == 0)
        return request_set_string(q, row, "", 0, f);
    text = json_dumps(list, JSON_COMPACT);
    if (!text)
        return fault_set(f, -ENOMEM, "out of memory");
    return request_set_string(q, row, text, strlen(text), f);
}

int request_set_list(struct request *q, const struct request_row *row, const char *const *texts,
                     size_t count, struct fault *f)
{
    _cleanup_(json_freep) json_t *list = json_array();
    int r = list ? 0 : fault_set(f, -ENOMEM, "out of memory");

    if (row->type != REQUEST_TYPE_L)
        return fault_set(f, -EINVAL, "%s: is no list of texts", row->name);
    for (size_t i = 0; i < count && r >= 0; i++)
        r = append_text(list, row, texts[i], strlen(texts[i]), f);
    return r < 0 ? r : store(q, row, list, f);
}

/* "a cat | a dog": the texts between the bars, without the blanks around them. */
static int append_between_bars(json_t *list, const struct request_row *row, const char *text,
                               size_t length, struct fault *f)
{
    const char *end = text + length;

    for (;;) {
        const char *bar = memchr(text, '|', (size_t)(end - text));
        const char *first = text, *last = bar ? bar : end;
        while (first < last && *first == ' ')
            first++;
        while (last > first && last[-1] == ' ')
            last--;
        int r = append_text(list, row, first, (size_t)(last - first), f);
        if (r < 0 || !bar)
            return r;
        text = bar + 1;
    }
}

static int append_array(json_t *list, const struct request_row *row, const json_t *from,
                        struct fault *f)
{
    const json_t *value;
    size_t i;

    json_array_foreach(from, i, value)
    {
        if (!json_is_string(value))
            return fault_set(f, -EINVAL, "%s: entry %zu is no text", row->name, i + 1);
        int r = append_text(list, row, json_string_value(value), json_string_length(value), f);
        if (r < 0)
            return r;
    }
    return 0;
}

int request_set_list_text(struct request *q, const struct request_row *row, const char *text,
                          size_t length, struct fault *f)
{
    _cleanup_(json_freep) json_t *list = json_array(), *from = NULL;
    struct fault why = {0};
    int r;

    if (!list)
        return fault_set(f, -ENOMEM, "out of memory");
    if (length == 0)
        return store(q, row, list, f);
    if (text[0] != '[')
        r = append_between_bars(list, row, text, length, f);
    else if (json_parse(text, length, &from, &why) < 0)
        r = fault_set(f, why.err, "%s: is no JSON array: %s", row->name, why.text);
    else
        r = append_array(list, row, from, f);
    return r < 0 ? r : store(q, row, list, f);
}

/* --- reading ---------------------------------------------------------------------------------- */

void text_list_done(struct text_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct text_list){0};
}

int request_list(const struct request *q, const struct request_row *row, struct text_list *ret_list)
{
    const char *text = field_text(q, row);
    _cleanup_(json_freep) json_t *from = NULL;
    _cleanup_(text_list_done) struct text_list list = {0};

    *ret_list = list;
    if (!text || !text[0])
        return 0;
    if (json_parse(text, strlen(text), &from, NULL) < 0) /* our own writing */
        return -ENOMEM;
    list.items = calloc(json_array_size(from), sizeof *list.items);
    while (list.items && list.count < json_array_size(from)) {
        char *copy = strdup(json_string_value(json_array_get(from, list.count)));
        if (!copy)
            return -ENOMEM;
        list.items[list.count++] = copy;
    }
    if (!list.items)
        return -ENOMEM;
    *ret_list = list;
    list = (struct text_list){0};
    return 0;
}

size_t request_list_count(const char *text)
{
    _cleanup_(json_freep) json_t *from = NULL;

    if (!text || !text[0] || json_parse(text, strlen(text), &from, NULL) < 0)
        return 0;
    return json_array_size(from);
}

uint32_t request_prompt_count(const struct request *q)
{
    size_t n = request_list_count(q->prompts);

    return n ? (uint32_t)n : 1;
}

uint32_t request_picture_count(const struct request *q)
{
    return request_prompt_count(q) * q->count;
}
