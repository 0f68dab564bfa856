/* diffused.conf. What is accepted lies within the rows' types and ranges; reading it twice gives
 * the same. */
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

static void check_accepted(const struct config *c, const struct config *again)
{
    for (size_t i = 0; i < config_row_count; i++) {
        check_row(c, &config_rows[i]);
        check_same_row(c, again, &config_rows[i]);
    }
    fuzz_check(c->warning_count <= CONFIG_WARNINGS_MAX && c->warning_count == again->warning_count);
    for (size_t i = 0; i < c->warning_count; i++)
        fuzz_check(strncmp(c->warnings[i], "x.conf:", 7) == 0);
    fuzz_check(c->defaults.set == again->defaults.set);
    fuzz_check(!request_is_set(&c->defaults, REQUEST_prompt));
}

/* What --print-config prints is the same configuration. */
static void check_printed(const struct config *c)
{
    static const enum config_when whens[] = {CONFIG_WHEN_LIVE, CONFIG_WHEN_WORKER,
                                             CONFIG_WHEN_RESTART};
    struct config again = {0};
    struct fault f = {0};
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);

    fuzz_check(to && config_print(c, to) == 0 && fclose(to) == 0);
    fuzz_check(config_parse(text, size, "printed", "/elsewhere", &again, &f) == 0);
    fuzz_check(again.warning_count == 0);
    for (size_t i = 0; i < ARRAY_SIZE(whens); i++)
        fuzz_check(config_changes(c, &again, whens[i], NULL, 0) == 0);
    config_done(&again);
    free(text);
}

static void run(const uint8_t *data, size_t size)
{
    static const int errors[] = {-EINVAL, 0};
    struct config c = {0}, again = {0};
    struct fault f = {0};

    int r = config_parse((const char *)data, size, "x.conf", "/here", &c, &f);
    int second = config_parse((const char *)data, size, "x.conf", "/here", &again, NULL);
    fuzz_check(r == second);
    if (r < 0)
        fuzz_check_fault(r, &f, errors);
    else {
        check_accepted(&c, &again);
        check_printed(&c);
    }
    config_done(&c);
    config_done(&again);
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
                                    "steps = 3\n",
                                    "negative_prompt = a\n",
                                    "prompt = b\n",
                                    "[preset a]\n",
                                    "[preset b]\nsteps = 4\n",
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
