/* diffusectl status, pause, resume, reload, models, devices, bench, explain — the verbs about the
 * daemon and its device. The last three run diffused-worker: there is no Vulkan in here. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"

#define ARGUMENTS_MAX 16

static void unref_bus(sd_bus **bus)
{
    (void)sd_bus_flush_close_unref(*bus);
}

static void unref_message(sd_bus_message **m)
{
    (void)sd_bus_message_unref(*m);
}

/* --- status, pause, resume, reload, models ---------------------------------------------------- */

/* These take --json only. */
static int parse_json_only(const struct ctl_verb *verb, int argc, char **argv, bool *ret_json,
                           bool *ret_help)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"json", no_argument, NULL, 'j'}, {0}};
    int option;

    *ret_json = *ret_help = false;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            *ret_help = true;
            return ctl_help(verb);
        }
        if (option != 'j')
            return ctl_usage(verb, "the flags are not right");
        *ret_json = true;
    }
    return argc > optind ? ctl_usage(verb, "what is '%s'?", argv[optind]) : 0;
}

/* Properties that people read on a status page; `Options` is the manual's. */
static const struct {
    const char *name;
    enum ctl_unit unit;
} shown[] = {
    {"Version", CTL_UNIT_NONE},        {"State", CTL_UNIT_NONE},
    {"StateReason", CTL_UNIT_NONE},    {"Degraded", CTL_UNIT_NONE},
    {"DegradedReason", CTL_UNIT_NONE}, {"Device", CTL_UNIT_NONE},
    {"DeviceNode", CTL_UNIT_NONE},     {"Driver", CTL_UNIT_NONE},
    {"MemoryUsed", CTL_UNIT_BYTES},    {"MemoryTotal", CTL_UNIT_BYTES},
    {"Model", CTL_UNIT_NONE},          {"ModelHash", CTL_UNIT_NONE},
    {"Schedulers", CTL_UNIT_NONE},     {"QueueLength", CTL_UNIT_NONE},
    {"QueueLimit", CTL_UNIT_NONE},     {"SpoolDirectory", CTL_UNIT_NONE},
    {"DropDirectory", CTL_UNIT_NONE},
};

/* What has happened since the daemon's start; a line each, and none for what never happened. */
static int write_counters(sd_bus *bus)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    const char *name;
    uint64_t value;

    int r = ctl_get(bus, CTL_ROOT, CTL_MANAGER, "Counters", &error, &reply);
    if (r >= 0)
        r = sd_bus_message_enter_container(reply, 'v', "a{st}");
    if (r >= 0)
        r = sd_bus_message_enter_container(reply, 'a', "{st}");
    if (r < 0)
        return ctl_bus_failed(&error, r);
    (void)puts("Counters");
    while ((r = sd_bus_message_read(reply, "{st}", &name, &value)) > 0) {
        if (value == 0)
            continue;
        (void)fputs("  ", stdout);
        ctl_write_escaped(stdout, name);
        (void)printf("%*s %" PRIu64 "\n", (int)(strlen(name) < 22 ? 22 - strlen(name) : 0), "",
                     value);
    }
    return r < 0 ? ctl_bus_failed(NULL, r) : 0;
}

static int write_status(sd_bus *bus)
{
    for (size_t i = 0; i < ARRAY_SIZE(shown); i++) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(unref_message) sd_bus_message *reply = NULL;
        int r = ctl_get(bus, CTL_ROOT, CTL_MANAGER, shown[i].name, &error, &reply);
        if (r < 0)
            return ctl_bus_failed(&error, r);
        (void)printf("%-16s ", shown[i].name);
        r = ctl_write_value(stdout, reply, shown[i].unit);
        if (r < 0)
            return ctl_bus_failed(NULL, r);
        (void)putchar('\n');
    }
    int code = write_counters(bus);
    return code ? code : ctl_finish_output();
}

int verb_status(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    bool json, helped;

    int code = parse_json_only(verb, argc, argv, &json, &helped);
    if (code || helped)
        return code;
    code = ctl_connect(&bus);
    if (code || !json)
        return code ? code : write_status(bus);
    code = ctl_call(bus, CTL_ROOT, CTL_PROPERTIES, "GetAll", &reply, "s", CTL_MANAGER);
    if (code)
        return code;
    int r = ctl_write_json(stdout, reply);
    (void)putchar('\n');
    return r < 0 ? ctl_bus_failed(NULL, r) : ctl_finish_output();
}

/* Verbs that are one call of the manager without arguments. A reload reads files and may have to
 * wait for the running step: the daemon answers within the bus's own patience. */
int verb_order(const struct ctl_verb *verb, int argc, char **argv)
{
    static const struct {
        const char *verb, *member;
    } orders[] = {{"pause", "Pause"}, {"resume", "Resume"}, {"reload", "Reload"}};
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    size_t i = 0;
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        return option == 'h' ? ctl_help(verb) : ctl_usage(verb, "the flags are not right");
    if (argc > optind)
        return ctl_usage(verb, "what is '%s'?", argv[optind]);
    while (strcmp(orders[i].verb, verb->name) != 0)
        i++;
    int code = ctl_connect(&bus);
    return code ? code : ctl_call(bus, CTL_ROOT, CTL_MANAGER, orders[i].member, NULL, NULL);
}

/* "NAME" and its facts below, one a line. */
static int write_models(sd_bus_message *m)
{
    const char *name, *key;
    int r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");

    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sa{sv}")) > 0) {
        r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
            return r;
        ctl_write_escaped(stdout, name);
        (void)putchar('\n');
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
            r = sd_bus_message_read_basic(m, 's', &key);
            if (r < 0)
                return r;
            (void)printf("  %-8s ", key);
            r = ctl_write_value(stdout, m,
                                strcmp(key, "size") == 0 ? CTL_UNIT_BYTES : CTL_UNIT_NONE);
            (void)putchar('\n');
            if (r >= 0)
                r = sd_bus_message_exit_container(m);
        }
        if (r >= 0 && (r = sd_bus_message_exit_container(m)) >= 0)
            r = sd_bus_message_exit_container(m);
    }
    return r;
}

int verb_models(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    bool json, helped;

    int code = parse_json_only(verb, argc, argv, &json, &helped);
    if (code || helped)
        return code;
    code = ctl_connect(&bus);
    if (code == 0)
        code = ctl_call(bus, CTL_ROOT, CTL_MANAGER, "ListModels", &reply, NULL);
    if (code)
        return code;
    int r = json ? ctl_write_json(stdout, reply) : write_models(reply);
    if (json)
        (void)putchar('\n');
    return r < 0 ? ctl_bus_failed(NULL, r) : ctl_finish_output();
}

/* --- devices, bench, explain ------------------------------------------------------------------ */

static const struct {
    const char *verb, *flag;
    const char *known; /* letters of tool_options */
    bool needs_model;
} tools[] = {
    {"devices", "--probe", "hj", false},
    {"bench", "--bench", "hjmd", true},
    {"explain", "--explain", "hjmdWHs", true},
};

static const struct option tool_options[] = {
    {"help", no_argument, NULL, 'h'},        {"json", no_argument, NULL, 'j'},
    {"model", required_argument, NULL, 'm'}, {"device", required_argument, NULL, 'd'},
    {"width", required_argument, NULL, 'W'}, {"height", required_argument, NULL, 'H'},
    {"size", required_argument, NULL, 's'},
};

/* The worker's command line, and room for what it points to. */
struct tool {
    size_t index; /* in tools */
    const char *arguments[ARGUMENTS_MAX];
    size_t count;
    bool has_model, helped;
    char *model;   /* the daemon's; owned */
    char size[32]; /* --size: both numbers, NUL between */
};

static void tool_done(struct tool *t)
{
    free(t->model);
}

static int add(const struct ctl_verb *verb, struct tool *t, const char *flag, const char *value)
{
    if (t->count + 3 > ARGUMENTS_MAX)
        return ctl_usage(verb, "too many flags");
    t->arguments[t->count++] = flag;
    if (value)
        t->arguments[t->count++] = value;
    return 0;
}

static int add_size(const struct ctl_verb *verb, struct tool *t, const char *text)
{
    (void)snprintf(t->size, sizeof t->size, "%s", text);
    char *x = strchr(t->size, 'x');
    if (!x || strlen(text) >= sizeof t->size)
        return ctl_usage(verb, "--size %s: want WIDTHxHEIGHT, like 512x512", text);
    *x = '\0';
    int code = add(verb, t, "--width", t->size);
    return code ? code : add(verb, t, "--height", x + 1);
}

static int add_option(const struct ctl_verb *verb, struct tool *t, int option)
{
    switch (option) {
    case 'h':
        t->helped = true;
        return ctl_help(verb);
    case 'j':
        return add(verb, t, "--json", NULL);
    case 'm':
        t->has_model = true;
        return add(verb, t, "--model", optarg);
    case 'd':
        return add(verb, t, "--device", optarg);
    case 'W':
        return add(verb, t, "--width", optarg);
    case 'H':
        return add(verb, t, "--height", optarg);
    case 's':
        return add_size(verb, t, optarg);
    default:
        return ctl_usage(verb, "the flags are not right");
    }
}

static int parse_tool(const struct ctl_verb *verb, int argc, char **argv, struct tool *t)
{
    struct option table[ARRAY_SIZE(tool_options) + 1] = {{0}};
    size_t n = 0;
    int option, code = 0;

    while (strcmp(tools[t->index].verb, verb->name) != 0)
        t->index++;
    for (size_t i = 0; i < ARRAY_SIZE(tool_options); i++) {
        if (strchr(tools[t->index].known, tool_options[i].val))
            table[n++] = tool_options[i];
    }
    code = add(verb, t, "diffused-worker", tools[t->index].flag);
    while (code == 0 && !t->helped && (option = getopt_long(argc, argv, "h", table, NULL)) != -1)
        code = add_option(verb, t, option);
    if (code == 0 && !t->helped && argc > optind)
        return ctl_usage(verb, "what is '%s'?", argv[optind]);
    return code;
}

/* The path of the daemon's first model. */
static int ask_model(const struct ctl_verb *verb, char **ret_path)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    _cleanup_(unref_message) sd_bus_message *m = NULL;
    const char *name, *key, *path = NULL;

    int code = ctl_connect(&bus);
    if (code == 0)
        code = ctl_call(bus, CTL_ROOT, CTL_MANAGER, "ListModels", &m, NULL);
    if (code) {
        (void)ctl_error(code, "no daemon to ask for its model: give --model DIR");
        return code;
    }
    int r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");
    if (r >= 0)
        r = sd_bus_message_enter_container(m, 'e', "sa{sv}");
    if (r > 0)
        r = sd_bus_message_read_basic(m, 's', &name);
    if (r > 0)
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
    while (r > 0 && !path && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = sd_bus_message_read_basic(m, 's', &key);
        if (r > 0)
            r = strcmp(key, "path") == 0 ? sd_bus_message_read(m, "v", "s", &path)
                                         : sd_bus_message_skip(m, "v");
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    if (!path)
        return ctl_usage(verb, "the daemon has no model: give --model DIR");
    *ret_path = strdup(path);
    return *ret_path ? 0 : ctl_error(CTL_EXIT_FAILED, "out of memory");
}

int verb_tool(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(tool_done) struct tool t = {0};
    int code = parse_tool(verb, argc, argv, &t);

    if (code || t.helped)
        return code;
    if (tools[t.index].needs_model && !t.has_model) {
        code = ask_model(verb, &t.model);
        if (code == 0)
            code = add(verb, &t, "--model", t.model);
        if (code)
            return code;
    }
    return ctl_become("diffused-worker", t.arguments);
}
