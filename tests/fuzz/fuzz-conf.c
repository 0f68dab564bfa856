/* diffused.conf. What is accepted lies within the rows' types and ranges; written out as
 * --print-config does and read again it is the same. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "tests/fuzz/fuzz.h"

static uint32_t count_words(const char *values)
{
    uint32_t count = *values ? 1 : 0;

    for (; *values; values++)
        count += *values == ' ';
    return count;
}

static void check_row(const struct config *c, const struct config_row *row)
{
    const char *field = (const char *)c + row->offset;
    const char *text = NULL;

    switch (row->type) {
    case CONFIG_TYPE_NUMBER:
        fuzz_check(*(const uint64_t *)field >= row->min && *(const uint64_t *)field <= row->max);
        break;
    case CONFIG_TYPE_WORD:
        fuzz_check(*(const uint32_t *)field < count_words(row->values));
        break;
    case CONFIG_TYPE_PATH:
        text = *(char *const *)field;
        fuzz_check(!text || text[0] == '/');
        break;
    case CONFIG_TYPE_TEXT:
        text = *(char *const *)field;
        fuzz_check(!text || text[0]);
        break;
    }
}

static void check_same_row(const struct config *a, const struct config *b,
                           const struct config_row *row)
{
    const char *x = (const char *)a + row->offset, *y = (const char *)b + row->offset;

    if (row->type == CONFIG_TYPE_NUMBER) {
        fuzz_check(*(const uint64_t *)x == *(const uint64_t *)y);
    } else if (row->type == CONFIG_TYPE_WORD) {
        fuzz_check(*(const uint32_t *)x == *(const uint32_t *)y);
    } else {
        const char *s = *(char *const *)x, *t = *(char *const *)y;
        fuzz_check(s && t ? strcmp(s, t) == 0 : s == t);
    }
}

static void check_accepted(const struct config *c)
{
    for (size_t i = 0; i < config_row_count; i++)
        check_row(c, &config_rows[i]);
    fuzz_check(c->device_node_count <= CONFIG_DEVICES_MAX && c->spool_path);
    fuzz_check(c->warning_count <= CONFIG_WARNINGS_MAX);
    for (size_t i = 0; i < c->warning_count; i++)
        fuzz_check(strncmp(c->warnings[i], "x.conf:", 7) == 0);
    fuzz_check(!request_is_set(&c->defaults, REQUEST_prompt));
    fuzz_check(c->preset_count <= CONFIG_PRESETS_MAX);
    for (size_t i = 0; i < c->preset_count; i++)
        fuzz_check(config_find_preset(c, c->presets[i].name) == &c->presets[i].request);
}

static void check_same_request(const struct request *a, const struct request *b)
{
    fuzz_check(a->set == b->set);
    for (unsigned i = 0; i < REQUEST_ROW_COUNT; i++) {
        char *x = NULL, *y = NULL;
        if (!request_is_set(a, (enum request_row_id)i))
            continue;
        fuzz_check(request_format(a, &request_rows[i], &x) == 0);
        fuzz_check(request_format(b, &request_rows[i], &y) == 0);
        fuzz_check(strcmp(x, y) == 0);
        free(x);
        free(y);
    }
}

static void check_same(const struct config *a, const struct config *b)
{
    for (size_t i = 0; i < config_row_count; i++)
        check_same_row(a, b, &config_rows[i]);
    check_same_request(&a->defaults, &b->defaults);
    fuzz_check(a->preset_count == b->preset_count);
    for (size_t i = 0; i < a->preset_count; i++) {
        fuzz_check(strcmp(a->presets[i].name, b->presets[i].name) == 0);
        check_same_request(&a->presets[i].request, &b->presets[i].request);
    }
}

/* Written out and read again it is the same configuration. */
static void check_printed(const struct config *c)
{
    struct config again = {0};
    struct fault f = {0};
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    fuzz_check(out && config_print(c, out) == 0);
    fuzz_check(fclose(out) == 0);
    int r = config_parse(text, length, "printed.conf", "/there", &again, &f);
    if (r < 0)
        (void)fprintf(stderr, "%s\n%s", f.text, text);
    fuzz_check(r == 0);
    check_same(c, &again);
    fuzz_check(again.warning_count == 0);
    free(text);
    config_done(&again);
}

static void run(const uint8_t *data, size_t size)
{
    /* the last ones: of the word list's path */
    static const int errors[] = {-EINVAL, -EFBIG, -ENOTDIR, -ENAMETOOLONG, -EACCES, -ELOOP, 0};
    struct config c = {0};
    struct fault f = {0};

    int r = config_parse((const char *)data, size, "x.conf", "/here", &c, &f);
    if (r < 0) {
        fuzz_check_fault(r, &f, errors);
        return;
    }
    check_accepted(&c);
    if (size % 4 == 0)
        check_printed(&c);
    config_done(&c);
}

static size_t mutate(uint8_t *data, size_t size, size_t max_size, uint32_t seed,
                     fuzz_bytes_t *bytes)
{
    static const char *const values[] = {
        "1", "0", "auto", "yes", "no", "full", "100", "/a/b", "a/../b", "", "18446744073709551616"};
    const struct config_row *row = &config_rows[fuzz_below(&seed, (uint32_t)config_row_count)];
    char line[192];

    if (fuzz_below(&seed, 3) == 0)
        return bytes(data, size, max_size);
    int n = snprintf(line, sizeof line, "\n[%s]\n%s = %s\n", row->section, row->key,
                     values[fuzz_below(&seed, sizeof values / sizeof values[0])]);
    return fuzz_insert(data, size, max_size, size, line, (size_t)n);
}

static const char *const words[] = {"[defaults]\n",
                                    "[preset a]\n",
                                    "[preset b.c]\n",
                                    "ephemeral = yes\n",
                                    "steps = 3\n",
                                    "negative_prompt = a\n",
                                    "prompt = b\n",
                                    "=",
                                    ":",
                                    ";",
                                    "#",
                                    "\n",
                                    " ",
                                    "\r\n",
                                    "\xef\xbb\xbf",
                                    "[",
                                    "]",
                                    NULL};

const struct fuzz_target fuzz_conf = {
    .name = "conf", .max_size = 70000, .run = run, .mutate = mutate, .words = words};
