#include "tests/support/tables.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "daemon/config-internal.h"
#include "daemon/event.h"
#include "vk/base/file.h"

#define FILE_MAX   (1u << 20)
#define COLUMNS    78
#define BEGIN_MARK ".\\\" table "
#define END_MARK   ".\\\" end of table"

const char *const tables_files[] = {
    "etc/diffused.conf",
    "etc/man/diffused.8",
    "etc/man/diffused.conf.5",
    "etc/man/diffusectl.1",
    "etc/man/org.diffused.Diffused1.5",
};
const size_t tables_file_count = ARRAY_SIZE(tables_files);

/* --- mdoc ------------------------------------------------------------------------------------- */

/* One word of running text; what begins like a request or holds a backslash is escaped. */
static void put_word(FILE *to, const char *word, size_t n, bool begins_line)
{
    if (begins_line && (*word == '.' || *word == '\''))
        (void)fputs("\\&", to);
    for (size_t i = 0; i < n; i++) {
        if (word[i] == '\\')
            (void)fputs("\\e", to);
        else
            (void)fputc(word[i], to);
    }
}

/* Running text: broken at blanks, a new line for a new sentence, as mdoc wants it. */
static void put_text(FILE *to, const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > 0 && column + 1 + n > COLUMNS) {
            (void)fputc('\n', to);
            column = 0;
        }
        if (column > 0)
            (void)fputc(' ', to);
        put_word(to, text, n, column == 0);
        column += n + (column > 0);
        bool ends_sentence = text[n - 1] == '.';
        text += n;
        text += strspn(text, " ");
        if (!*text || ends_sentence) {
            (void)fputc('\n', to);
            column = 0;
        }
    }
}

static void putf(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void putf(FILE *to, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_text(to, text);
}

/* "a, b, c" of "a b c". */
static void list_words(const char *words, char *ret_text, size_t size)
{
    size_t n = 0;

    for (; *words && n + 3 < size; words++) {
        if (*words == ' ')
            ret_text[n++] = ',';
        ret_text[n++] = *words;
    }
    ret_text[n] = '\0';
}

/* --- keys of the configuration ---------------------------------------------------------------- */

static void put_key(FILE *to, const struct config_row *row)
{
    static const char *const whens[] = {
        [CONFIG_WHEN_LIVE] = "",
        [CONFIG_WHEN_WORKER] = "A change replaces the worker as soon as it has no job.",
        [CONFIG_WHEN_RESTART] = "A change counts when the service starts.",
    };
    char words[128];

    (void)fprintf(to, ".It Va %s Ns =%s%s\n", row->key, *row->default_text ? " Ns " : "",
                  row->default_text);
    put_text(to, row->help);
    if (row->type == CONFIG_TYPE_NUMBER)
        putf(to, "A number from %" PRIu64 " to %" PRIu64 ".", row->min, row->max);
    list_words(row->values, words, sizeof words);
    if (row->type == CONFIG_TYPE_WORD)
        putf(to, "One of: %s.", words);
    put_text(to, whens[row->when]);
}

static void put_keys(FILE *to)
{
    const char *section = "";

    for (size_t i = 0; i < config_row_count; i++) {
        const struct config_row *row = &config_rows[i];
        if (strcmp(section, row->section) != 0)
            (void)fprintf(to, "%s.Ss [%s]\n.Bl -tag -width Ds\n", *section ? ".El\n" : "",
                          row->section);
        section = row->section;
        put_key(to, row);
    }
    (void)fputs(".El\n", to);
}

/* --- options of a request --------------------------------------------------------------------- */

static void put_option_text(FILE *to, const struct request_row *row)
{
    const char *unit = *row->unit ? row->unit : "";
    char words[128];

    putf(to, "%c%s.", toupper((unsigned char)row->help[0]), row->help + 1);
    list_words(row->values, words, sizeof words);
    if (row->type == REQUEST_TYPE_E)
        putf(to, "One of: %s.", words);
    else if (row->type == REQUEST_TYPE_B)
        putf(to, "Default: %s.", row->default_text);
    else if (row->type == REQUEST_TYPE_F)
        putf(to, "At most 32 MiB.");
    else if (row->type == REQUEST_TYPE_S || row->type == REQUEST_TYPE_L)
        putf(to, "At most %" PRIu64 " %s.", row->max_integer, unit);
    else
        putf(to, "A number from %.0f to %" PRIu64 "%s%s.", row->min, row->max_integer,
             *unit ? " " : "", unit);
    if (row->type != REQUEST_TYPE_B && *row->default_text)
        putf(to, "Default: %s.", row->default_text);
}

/* In [defaults], [preset NAME] and tickets. */
static void put_option_keys(FILE *to)
{
    (void)fputs(".Bl -tag -width Ds\n", to);
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        const struct request_row *row = &request_rows[i];
        if (config_is_of_one_job(row))
            continue;
        (void)fprintf(to, ".It Va %s Ns =\n", row->name);
        put_option_text(to, row);
    }
    (void)fputs(".El\n", to);
}

static void put_option_flags(FILE *to)
{
    static const char *const arguments[] = {
        [REQUEST_TYPE_S] = " Ar TEXT",   [REQUEST_TYPE_U] = " Ar N",    [REQUEST_TYPE_T] = " Ar N",
        [REQUEST_TYPE_D] = " Ar X",      [REQUEST_TYPE_E] = " Ar NAME", [REQUEST_TYPE_B] = "",
        [REQUEST_TYPE_L] = " Ar TEXT|…", [REQUEST_TYPE_F] = " Ar FILE",
    };

    (void)fputs(".Bl -tag -width Ds\n", to);
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        const struct request_row *row = &request_rows[i];
        (void)fputs(".It Fl -", to);
        for (const char *p = row->name; *p; p++)
            (void)fputc(*p == '_' ? '-' : *p, to);
        /* as dbus/diffusectl-generate.c reads it */
        bool is_time = row->type == REQUEST_TYPE_T && strcmp(row->unit, "usec") == 0;
        (void)fprintf(to, "%s\n", is_time ? " Ar TIME" : arguments[row->type]);
        if (is_time)
            putf(to,
                 "%c%s. Seconds, or a number with us, ms, s, min, h or d, at most %" PRIu64 "d.",
                 toupper((unsigned char)row->help[0]), row->help + 1,
                 row->max_integer / UINT64_C(86400000000));
        else
            put_option_text(to, row);
    }
    (void)fputs(".El\n", to);
}

static void put_options(FILE *to)
{
    (void)fputs(".Bl -tag -width Ds\n", to);
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        const struct request_row *row = &request_rows[i];
        if (row == &request_rows[REQUEST_prompt])
            continue;
        (void)fprintf(to, ".It Va %s Pq %s\n", row->name, request_row_signature(row));
        put_option_text(to, row);
    }
    (void)fputs(".El\n", to);
}

/* --- events ----------------------------------------------------------------------------------- */

static void put_events(FILE *to)
{
    static const char *const levels[] = {
        [LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning", [LOG_LEVEL_NOTICE] = "notice",
        [LOG_LEVEL_INFO] = "info",   [LOG_LEVEL_DEBUG] = "debug",
    };

    (void)fputs(".Bl -tag -width Ds\n", to);
    for (size_t i = 0; i < EVENT_KIND_COUNT; i++) {
        const struct event_row *row = &event_rows[i];
        (void)fprintf(to, ".It Sy %s Pq %s\n", row->name, levels[row->level]);
        putf(to, "%c%s.", toupper((unsigned char)row->what[0]), row->what + 1);
        (void)fprintf(to, ".br\n.Li %s\n", row->message_id);
    }
    (void)fputs(".El\n", to);
}

/* --- files ------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    void (*put)(FILE *to);
} tables[] = {
    {"configuration keys", put_keys},
    {"option keys", put_option_keys},
    {"option flags", put_option_flags},
    {"options", put_options},
    {"events", put_events},
};

/* Copies a manual and puts the tables between their marks. */
static int render_manual(const char *path, const char *text, FILE *to, struct fault *f)
{
    const char *mark;

    while ((mark = strstr(text, BEGIN_MARK))) {
        const char *name = mark + strlen(BEGIN_MARK), *end = strstr(name, END_MARK);
        size_t n = strcspn(name, "\n"), i = 0;
        while (i < ARRAY_SIZE(tables) &&
               (strlen(tables[i].name) != n || strncmp(tables[i].name, name, n) != 0))
            i++;
        if (i == ARRAY_SIZE(tables) || !end)
            return fault_set(f, -EINVAL, "%s: table \"%.*s\": %s", path, (int)n, name,
                             end ? "unknown" : "has no end");
        (void)fwrite(text, 1, (size_t)(name + n + 1 - text), to);
        tables[i].put(to);
        text = end;
        (void)fwrite(text, 1, strlen(END_MARK), to);
        text += strlen(END_MARK);
    }
    (void)fputs(text, to);
    return 0;
}

/* The head of the file stays, up to its first section. */
static int render_conf(const char *text, FILE *to, struct fault *f)
{
    const char *section = strstr(text, "\n[");
    struct config built_in;
    int r;

    if (!section || config_init(&built_in) < 0)
        return fault_set(f, -EINVAL, "no [section], or out of memory");
    (void)fwrite(text, 1, (size_t)(section + 1 - text), to);
    r = config_print(&built_in, to);
    config_done(&built_in);
    return r;
}

int tables_render(const char *path, char **ret_text, struct fault *f)
{
    _cleanup_(freep) char *text = NULL, *made = NULL;
    size_t length, made_length;
    const char *dot = strrchr(path, '.');

    int r = file_read(path, FILE_MAX, &text, &length, f);
    if (r < 0)
        return r;
    FILE *to = open_memstream(&made, &made_length);
    if (!to)
        return fault_set(f, -ENOMEM, "out of memory");
    r = strcmp(dot, ".conf") == 0 ? render_conf(text, to, f) : render_manual(path, text, to, f);
    if (fclose(to) != 0 && r == 0)
        r = fault_set(f, -ENOMEM, "out of memory");
    if (r < 0)
        return r;
    *ret_text = TAKE_PTR(made);
    return 0;
}
