/* diffusectl generate — every row of the request table is a flag. Only what the user gave is sent,
 * so that the daemon's defaults stay the daemon's; ranges are the daemon's to judge, notation is
 * ours. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"
#include "vk/pipeline/request.h"

#define PROMPT_FILE_MAX                                                                            \
    (64u << 20) /* bytes we read; how long a prompt may be is the daemon's to say */

#define PREVIEW_STEPS "5" /* how often, where only --preview is given */

/* Values of getopt_long(): rows are OPTION_ROW + number. */
enum option_id {
    OPTION_HELP = 'h',
    OPTION_OUTPUT = 'o',
    OPTION_PROMPT_FILE = 256,
    OPTION_NO_WAIT,
    OPTION_TIMEOUT,
    OPTION_SIZE,
    OPTION_NEGATIVE,
    OPTION_PROMPTS_FILE,
    OPTION_PREVIEW,
    OPTION_ROW,
};

static const struct option fixed_options[] = {
    {"help", no_argument, NULL, OPTION_HELP},
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"prompt-file", required_argument, NULL, OPTION_PROMPT_FILE},
    {"no-wait", no_argument, NULL, OPTION_NO_WAIT},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"negative", required_argument, NULL, OPTION_NEGATIVE},
    {"prompts-file", required_argument, NULL, OPTION_PROMPTS_FILE},
    {"preview", required_argument, NULL, OPTION_PREVIEW},
};

struct option_table {
    struct option options[ARRAY_SIZE(fixed_options) + REQUEST_ROW_COUNT + 1];
    char names[REQUEST_ROW_COUNT][32]; /* the rows' with '-' for '_' */
};

struct generate {
    const struct ctl_verb *verb;
    const char *values[REQUEST_ROW_COUNT]; /* as given; NULL: not given */
    uint64_t integers[REQUEST_ROW_COUNT];  /* what they say, by the row's type */
    double doubles[REQUEST_ROW_COUNT];
    char size[32];                   /* --size: both numbers, NUL between */
    struct request lists;            /* the rows of type L: flags may be repeated */
    int pictures[REQUEST_ROW_COUNT]; /* of the rows of type F; -1: not given */
    const char *output, *prompt_file, *preview;
    bool no_wait, helped;
    uint64_t timeout_usec;
};

static void unref_bus(sd_bus **bus)
{
    (void)sd_bus_flush_close_unref(*bus);
}

static void unref_message(sd_bus_message **m)
{
    (void)sd_bus_message_unref(*m);
}

static void row_flag(const struct request_row *row, char *name, size_t size)
{
    (void)snprintf(name, size, "%s", row->name);
    for (char *p = name; *p; p++)
        *p = *p == '_' ? '-' : *p;
}

static void fill_options(struct option_table *t)
{
    size_t n = ARRAY_SIZE(fixed_options);

    memset(t, 0, sizeof *t);
    memcpy(t->options, fixed_options, sizeof fixed_options);
    for (int i = 0; i < REQUEST_ROW_COUNT; i++) {
        row_flag(&request_rows[i], t->names[i], sizeof t->names[i]);
        bool needs_value = request_rows[i].type != REQUEST_TYPE_B; /* --flag alone means yes */
        t->options[n++] =
            (struct option){t->names[i], needs_value ? required_argument : optional_argument, NULL,
                            OPTION_ROW + (int)i};
    }
}

/* Times are given as people write them; without a unit they are seconds, as --timeout's. */
static bool is_time(const struct request_row *row)
{
    return row->type == REQUEST_TYPE_T && strcmp(row->unit, "usec") == 0;
}

static int help(const struct ctl_verb *verb)
{
    char name[32], flag[64];

    (void)ctl_help(verb);
    (void)puts("\nThe request; what is not given is the daemon's default:");
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        const struct request_row *row = &request_rows[i];
        const char *const what[] = {
            [REQUEST_TYPE_S] = "TEXT", [REQUEST_TYPE_U] = "N",    [REQUEST_TYPE_T] = "N",
            [REQUEST_TYPE_D] = "X",    [REQUEST_TYPE_E] = "NAME", [REQUEST_TYPE_L] = "TEXT|…",
            [REQUEST_TYPE_F] = "FILE"};
        row_flag(row, name, sizeof name);
        if (row->type == REQUEST_TYPE_B)
            (void)snprintf(flag, sizeof flag, "--%s[=yes|no]", name);
        else
            (void)snprintf(flag, sizeof flag, "--%s %s", name,
                           is_time(row) ? "TIME" : what[row->type]);
        (void)printf("  %-24s %s", flag, row->help);
        if (row->values[0])
            (void)printf(" (%s)", row->values);
        else if (row->type == REQUEST_TYPE_U || row->type == REQUEST_TYPE_D)
            (void)printf(" (%g to %g)", row->min, row->max);
        (void)putchar('\n');
    }
    (void)puts("TIME: seconds, or a number with us, ms, s, min, h or d.");
    return ctl_finish_output();
}

static int set_size(struct generate *g, const char *text)
{
    char *x;

    (void)snprintf(g->size, sizeof g->size, "%s", text);
    x = strchr(g->size, 'x');
    if (!x || strlen(text) >= sizeof g->size)
        return ctl_usage(g->verb, "--size %s: want WIDTHxHEIGHT, like 512x512", text);
    *x = '\0';
    g->values[REQUEST_width] = g->size;
    g->values[REQUEST_height] = x + 1;
    return 0;
}

static int set_timeout(struct generate *g, const char *text)
{
    if (!ctl_parse_duration(text, 1000000, &g->timeout_usec))
        return ctl_usage(g->verb, "--timeout %s: want a time, like 90s or 10min", text);
    return 0;
}

/* Standard input to its end; a prompt may be long, but not endless. */
static int read_standard_input(char **ret_text, size_t *ret_size)
{
    _cleanup_(freep) char *text = malloc(PROMPT_FILE_MAX + 1);

    if (!text)
        return ctl_error(CTL_EXIT_FAILED, "out of memory");
    size_t n = fread(text, 1, PROMPT_FILE_MAX + 1, stdin);
    if (ferror(stdin))
        return ctl_error(CTL_EXIT_FAILED, "standard input: %s", strerror(errno));
    if (n > PROMPT_FILE_MAX)
        return ctl_error(CTL_EXIT_REFUSED, "standard input: longer than %u bytes", PROMPT_FILE_MAX);
    text[n] = '\0';
    *ret_size = n;
    *ret_text = TAKE_PTR(text);
    return 0;
}

/* The line end that editors put last is none of the prompt's. */
static int read_prompt_file(const char *path, char **ret_text)
{
    _cleanup_(freep) char *text = NULL;
    struct fault f = {0};
    size_t size;
    int code = 0;

    if (strcmp(path, "-") == 0)
        code = read_standard_input(&text, &size);
    else if (file_read(path, PROMPT_FILE_MAX, &text, &size, &f) < 0)
        code = ctl_error(CTL_EXIT_FAILED, "%s", f.text);
    if (code)
        return code;
    if (strlen(text) != size)
        return ctl_error(CTL_EXIT_USAGE, "%s: a prompt cannot hold a NUL byte", path);
    if (size > 0 && text[size - 1] == '\n')
        text[--size] = '\0';
    if (size > 0 && text[size - 1] == '\r')
        text[--size] = '\0';
    *ret_text = TAKE_PTR(text);
    return 0;
}

/* One text more. What stands alone may be several: a JSON array, or texts between bars. */
static int add_text(struct generate *g, const struct request_row *row, const char *text)
{
    _cleanup_(text_list_done) struct text_list list = {0};
    struct fault f = {0};

    int r = request_list(&g->lists, row, &list);
    if (r == 0 && list.count == 0) {
        r = request_set_text(&g->lists, row, text, strlen(text), &f);
    } else if (r == 0) {
        char **items = reallocarray(list.items, list.count + 1, sizeof *items);
        r = items ? 0 : -ENOMEM;
        if (items) {
            list.items = items;
            items[list.count] = (char *)(uintptr_t)text; /* only lent: not counted */
            r = request_set_list(&g->lists, row, (const char *const *)items, list.count + 1, &f);
        }
    }
    g->values[row - request_rows] = "";
    return r < 0 ? ctl_error(CTL_EXIT_USAGE, "%s", f.text[0] ? f.text : strerror(-r)) : 0;
}

/* A prompt a line; empty lines do not count. */
static int add_lines(struct generate *g, const struct request_row *row, char *text)
{
    char *line, *rest = text;
    int code = 0;

    while (code == 0 && (line = strsep(&rest, "\n"))) {
        size_t n = strlen(line);
        if (n > 0 && line[n - 1] == '\r')
            line[--n] = '\0';
        if (n > 0)
            code = add_text(g, row, line);
    }
    return code;
}

static int set_prompts_file(struct generate *g, const char *path)
{
    _cleanup_(freep) char *text = NULL;

    int code = read_prompt_file(path, &text);
    return code ? code : add_lines(g, &request_rows[REQUEST_prompts], text);
}

static int set_row(struct generate *g, const struct request_row *row, const char *text)
{
    size_t i = (size_t)(row - request_rows);

    if (row->type == REQUEST_TYPE_L)
        return add_text(g, row, text);
    if (row->type == REQUEST_TYPE_F && g->pictures[i] >= 0)
        return ctl_usage(g->verb, "%s: two pictures are given", row->name);
    g->values[i] = text;
    return row->type == REQUEST_TYPE_F ? ctl_open_picture(text, &g->pictures[i]) : 0;
}

static int set_option(struct generate *g, int option)
{
    switch (option) {
    case OPTION_OUTPUT:
        g->output = optarg;
        return 0;
    case OPTION_PROMPT_FILE:
        g->prompt_file = optarg;
        return 0;
    case OPTION_NO_WAIT:
        g->no_wait = true;
        return 0;
    case OPTION_TIMEOUT:
        return set_timeout(g, optarg);
    case OPTION_SIZE:
        return set_size(g, optarg);
    case OPTION_NEGATIVE:
        g->values[REQUEST_negative_prompt] = optarg;
        return 0;
    case '?':
        return ctl_usage(g->verb, "the flags are not right");
    case OPTION_PROMPTS_FILE:
        return set_prompts_file(g, optarg);
    case OPTION_PREVIEW:
        g->preview = optarg;
        return 0;
    default:
        return set_row(g, &request_rows[option - OPTION_ROW], optarg ? optarg : "yes");
    }
}

/* A prompt comes from exactly one place. *ret_text is malloc'd only when it was read from a
 * file. */
static int find_prompt(struct generate *g, int argc, char **argv, char **ret_text)
{
    int sources = (argc > optind) + (g->prompt_file != NULL) + (g->values[REQUEST_prompt] != NULL) +
                  (g->values[REQUEST_prompts] != NULL);

    if (argc > optind + 1)
        return ctl_usage(g->verb, "one PROMPT, please: put it in quotes");
    if (sources != 1)
        return ctl_usage(g->verb, sources ? "two prompts are given" : "PROMPT is missing");
    if (g->values[REQUEST_prompts])
        g->values[REQUEST_prompt] = "";
    if (argc > optind)
        g->values[REQUEST_prompt] = argv[optind];
    if (!g->prompt_file)
        return 0;
    int code = read_prompt_file(g->prompt_file, ret_text);
    g->values[REQUEST_prompt] = *ret_text;
    return code;
}

/* An unsigned number in decimal, at most `max`. */
static bool parse_unsigned(const char *text, uint64_t max, uint64_t *ret_value)
{
    char *end;

    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9' || *end || n > max)
        return false;
    *ret_value = n;
    return true;
}

static bool parse_double(const char *text, double *ret_value)
{
    char *end;

    *ret_value = strtod(text, &end);
    return end != text && !*end && isfinite(*ret_value);
}

static bool parse_boolean(const char *text, uint64_t *ret_value)
{
    *ret_value = strcmp(text, "yes") == 0;
    return *ret_value || strcmp(text, "no") == 0;
}

/* Reads the numbers given; nothing is sent before all of them are numbers. */
static int parse_values(struct generate *g)
{
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        const struct request_row *row = &request_rows[i];
        const char *text = g->values[i];
        uint64_t max = row->type == REQUEST_TYPE_U ? UINT32_MAX : UINT64_MAX;
        bool is_unsigned = row->type == REQUEST_TYPE_U || row->type == REQUEST_TYPE_T;

        if (text && is_time(row)) {
            if (!ctl_parse_duration(text, 1000000, &g->integers[i]))
                return ctl_usage(g->verb, "%s '%s': want a time, like 90s or 10min", row->name,
                                 text);
            continue;
        }
        if (text && is_unsigned && !parse_unsigned(text, max, &g->integers[i]))
            return ctl_usage(g->verb, "%s '%s': want a whole number", row->name, text);
        if (text && row->type == REQUEST_TYPE_D && !parse_double(text, &g->doubles[i]))
            return ctl_usage(g->verb, "%s '%s': want a number", row->name, text);
        if (text && row->type == REQUEST_TYPE_B && !parse_boolean(text, &g->integers[i]))
            return ctl_usage(g->verb, "%s '%s': want yes or no", row->name, text);
    }
    return 0;
}

static int append_list(const struct generate *g, sd_bus_message *m, const struct request_row *row)
{
    _cleanup_(text_list_done) struct text_list list = {0};

    int r = request_list(&g->lists, row, &list);
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'e', "sv");
    if (r >= 0)
        r = sd_bus_message_append_basic(m, 's', row->name);
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'v', "as");
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'a', "s");
    for (size_t i = 0; r >= 0 && i < list.count; i++)
        r = sd_bus_message_append_basic(m, 's', list.items[i]);
    for (unsigned i = 0; r >= 0 && i < 3; i++)
        r = sd_bus_message_close_container(m);
    return r;
}

static int append_row(const struct generate *g, sd_bus_message *m, size_t i)
{
    const char *name = request_rows[i].name;
    int r;

    switch (request_rows[i].type) {
    case REQUEST_TYPE_U:
        r = sd_bus_message_append(m, "{sv}", name, "u", (uint32_t)g->integers[i]);
        break;
    case REQUEST_TYPE_T:
        r = sd_bus_message_append(m, "{sv}", name, "t", g->integers[i]);
        break;
    case REQUEST_TYPE_D:
        r = sd_bus_message_append(m, "{sv}", name, "d", g->doubles[i]);
        break;
    case REQUEST_TYPE_B:
        r = sd_bus_message_append(m, "{sv}", name, "b", (int)g->integers[i]);
        break;
    case REQUEST_TYPE_L:
        r = append_list(g, m, &request_rows[i]);
        break;
    case REQUEST_TYPE_F:
        r = sd_bus_message_append(m, "{sv}", name, "h", g->pictures[i]);
        break;
    default:
        r = sd_bus_message_append(m, "{sv}", name, "s", g->values[i]);
        break;
    }
    if (r == -EINVAL)
        return ctl_error(CTL_EXIT_USAGE, "%s: the text is not valid UTF-8", name);
    return r < 0 ? ctl_bus_failed(NULL, r) : 0;
}

static int append_request(const struct generate *g, sd_bus_message *m)
{
    int r = sd_bus_message_append(m, "s", g->values[REQUEST_prompt]);

    if (r == -EINVAL)
        return ctl_error(CTL_EXIT_USAGE, "the prompt is not valid UTF-8");
    if (r >= 0)
        r = sd_bus_message_open_container(m, 'a', "{sv}");
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++) {
        if (i == REQUEST_prompt || !g->values[i])
            continue;
        int code = append_row(g, m, i);
        if (code)
            return code;
    }
    r = sd_bus_message_close_container(m);
    return r < 0 ? ctl_bus_failed(NULL, r) : 0;
}

static int submit(const struct generate *g, sd_bus *bus, uint64_t *ret_id)
{
    _cleanup_(unref_message) sd_bus_message *m = NULL, *reply = NULL;
    const char *path;

    int r = sd_bus_message_new_method_call(bus, &m, CTL_BUS_NAME, CTL_ROOT, CTL_MANAGER, "Submit");
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    int code = append_request(g, m);
    if (code == 0)
        code = ctl_send(bus, m, &reply);
    if (code)
        return code;
    r = sd_bus_message_read_basic(reply, 'o', &path);
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    return ctl_parse_id(g->verb, strrchr(path, '/') + 1, ret_id);
}

/* Prints where the pictures went. */
static int wait_and_save(const struct generate *g, sd_bus *bus, uint64_t id)
{
    char state[16];
    struct ctl_follow what = {.id = id,
                              .timeout_usec = g->timeout_usec,
                              .interrupt = CTL_INTERRUPT_CANCELS,
                              .preview = g->preview};

    int code = ctl_follow(bus, &what, state);
    if (code == 0)
        code = ctl_report_end(bus, id, state);
    return code ? code : ctl_save_results(bus, id, g->output);
}

static void generate_done(struct generate *g)
{
    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++)
        closep(&g->pictures[i]);
    request_done(&g->lists);
}

/* Who wants to see previews wants them made. */
static int want_previews(struct generate *g)
{
    if (!g->preview || g->values[REQUEST_preview_steps])
        return 0;
    if (g->no_wait)
        return ctl_usage(g->verb, "--preview goes with waiting, not with --no-wait");
    g->values[REQUEST_preview_steps] = PREVIEW_STEPS;
    return 0;
}

static int read_command_line(struct generate *g, int argc, char **argv, char **ret_prompt)
{
    struct option_table table;
    int option, code = 0;

    fill_options(&table);
    while (code == 0 && (option = getopt_long(argc, argv, "ho:", table.options, NULL)) != -1) {
        if (option == OPTION_HELP) {
            g->helped = true;
            return help(g->verb);
        }
        code = set_option(g, option);
    }
    if (code == 0)
        code = want_previews(g);
    if (code == 0)
        code = parse_values(g);
    return code ? code : find_prompt(g, argc, argv, ret_prompt);
}

int verb_generate(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(generate_done) struct generate g = {.verb = verb, .timeout_usec = UINT64_MAX};
    _cleanup_(freep) char *prompt = NULL;
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    uint64_t id;

    for (size_t i = 0; i < REQUEST_ROW_COUNT; i++)
        g.pictures[i] = -1;
    int code = read_command_line(&g, argc, argv, &prompt);
    if (code || g.helped)
        return code;
    code = ctl_connect(&bus);
    if (code == 0)
        code = submit(&g, bus, &id);
    if (code || !g.no_wait)
        return code ? code : wait_and_save(&g, bus, id);
    (void)printf("%" PRIu64 "\n", id);
    return ctl_finish_output();
}
