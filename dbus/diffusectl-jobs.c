/* diffusectl list, show, cancel, wait, get, delete — the verbs about jobs. */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"

/* What these verbs take besides numbers; each names the flags it knows. */
struct flags {
    bool json, all;
    const char *state, *owner, *limit, *output;
    uint64_t timeout_usec;
};

static const struct option flag_table[] = {
    {"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, 'j'},
    {"all", no_argument, NULL, 'a'},
    {"state", required_argument, NULL, 's'},
    {"owner", required_argument, NULL, 'u'},
    {"limit", required_argument, NULL, 'n'},
    {"output", required_argument, NULL, 'o'},
    {"timeout", required_argument, NULL, 't'},
    {0},
};

static void unref_bus(sd_bus **bus)
{
    (void)sd_bus_flush_close_unref(*bus);
}

static void unref_message(sd_bus_message **m)
{
    (void)sd_bus_message_unref(*m);
}

static int set_flag(const struct ctl_verb *verb, struct flags *f, int flag)
{
    const struct {
        int flag;
        const char **value;
    } texts[] = {{'s', &f->state}, {'u', &f->owner}, {'n', &f->limit}, {'o', &f->output}};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (texts[i].flag == flag)
            *texts[i].value = optarg;
    }
    f->json |= flag == 'j';
    f->all |= flag == 'a';
    if (flag != 't')
        return 0;
    if (!ctl_parse_duration(optarg, 1000000, &f->timeout_usec))
        return ctl_usage(verb, "--timeout %s: want a time, like 90s or 10min", optarg);
    return 0;
}

/* Reads the flags in `known` (letters of flag_table). *ret_help is true when --help was
 * answered. */
static int parse_flags(const struct ctl_verb *verb, const char *known, int argc, char **argv,
                       struct flags *f, bool *ret_help)
{
    struct option table[ARRAY_SIZE(flag_table)] = {{0}};
    size_t n = 0;
    int flag, code = 0;

    *f = (struct flags){.timeout_usec = UINT64_MAX};
    *ret_help = false;
    for (size_t i = 0; flag_table[i].name; i++) {
        if (flag_table[i].val == 'h' || strchr(known, flag_table[i].val))
            table[n++] = flag_table[i];
    }
    const char *letters = strchr(known, 'o') ? "ho:" : "h";
    while (code == 0 && (flag = getopt_long(argc, argv, letters, table, NULL)) != -1) {
        if (flag == '?')
            return ctl_usage(verb, "the flags are not right");
        if (flag == 'h') {
            *ret_help = true;
            return ctl_help(verb);
        }
        code = set_flag(verb, f, flag);
    }
    return code;
}

/* Flags, then exactly one number, then the bus. */
static int begin_one(const struct ctl_verb *verb, const char *known, int argc, char **argv,
                     struct flags *f, bool *ret_help, uint64_t *ret_id, sd_bus **ret_bus)
{
    int code = parse_flags(verb, known, argc, argv, f, ret_help);

    if (code || *ret_help)
        return code;
    if (argc != optind + 1)
        return ctl_usage(verb, argc > optind ? "one ID, please" : "ID is missing");
    code = ctl_parse_id(verb, argv[optind], ret_id);
    return code ? code : ctl_connect(ret_bus);
}

/* --- list ------------------------------------------------------------------------------------- */

static int append_filter(const struct ctl_verb *verb, sd_bus_message *m, const char *key,
                         const char *text, char type)
{
    char *end = NULL;
    unsigned long n = 0;
    int r;

    if (!text)
        return 0;
    if (type == 'u') {
        n = strtoul(text, &end, 10);
        if (text[0] < '0' || text[0] > '9' || *end || n > UINT32_MAX)
            return ctl_usage(verb, "--%s %s: want a number", key, text);
        r = sd_bus_message_append(m, "{sv}", key, "u", (uint32_t)n);
    } else {
        r = sd_bus_message_append(m, "{sv}", key, "s", text);
    }
    return r < 0 ? ctl_bus_failed(NULL, r) : 0;
}

/* ListJobs; the reply stands inside its array. */
static int list_jobs(const struct ctl_verb *verb, sd_bus *bus, const struct flags *f,
                     sd_bus_message **ret_reply)
{
    _cleanup_(unref_message) sd_bus_message *m = NULL;
    int r =
        sd_bus_message_new_method_call(bus, &m, CTL_BUS_NAME, CTL_ROOT, CTL_MANAGER, "ListJobs");

    if (r >= 0)
        r = sd_bus_message_open_container(m, 'a', "{sv}");
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    int code = append_filter(verb, m, "state", f->state, 's');
    if (code == 0)
        code = append_filter(verb, m, "owner", f->owner, 'u');
    if (code == 0)
        code = append_filter(verb, m, "limit", f->limit, 'u');
    if (code)
        return code;
    r = sd_bus_message_close_container(m);
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    code = ctl_send(bus, m, ret_reply);
    if (code)
        return code;
    r = sd_bus_message_enter_container(*ret_reply, 'a', "(tosu)");
    return r < 0 ? ctl_bus_failed(NULL, r) : 0;
}

int verb_list(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    struct flags f;
    bool helped;
    const char *path, *state;
    uint64_t id;
    uint32_t owner;
    int r;

    int code = parse_flags(verb, "jsun", argc, argv, &f, &helped);
    if (code || helped)
        return code;
    if (argc > optind)
        return ctl_usage(verb, "what is '%s'?", argv[optind]);
    code = ctl_connect(&bus);
    if (code == 0)
        code = list_jobs(verb, bus, &f, &reply);
    if (code)
        return code;
    (void)fputs(f.json ? "[" : "      ID  STATE      OWNER\n", stdout);
    for (unsigned n = 0; (r = sd_bus_message_read(reply, "(tosu)", &id, &path, &state, &owner)) > 0;
         n++) {
        if (f.json)
            (void)printf("%s{\"Id\": %" PRIu64 ", \"State\": \"%s\", \"OwnerUid\": %u}",
                         n ? ", " : "", id, state, owner);
        else
            (void)printf("%8" PRIu64 "  %-10s %u\n", id, state, owner);
    }
    (void)fputs(f.json ? "]\n" : "", stdout);
    return r < 0 ? ctl_bus_failed(NULL, r) : ctl_finish_output();
}

/* --- show, wait ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum ctl_unit unit;
} job_properties[] = {
    {"Id", CTL_UNIT_NONE},           {"State", CTL_UNIT_NONE},
    {"OwnerUid", CTL_UNIT_NONE},     {"QueuePosition", CTL_UNIT_NONE},
    {"Step", CTL_UNIT_NONE},         {"Steps", CTL_UNIT_NONE},
    {"Progress", CTL_UNIT_FRACTION}, {"EtaUsec", CTL_UNIT_DURATION},
    {"CreatedUsec", CTL_UNIT_TIME},  {"StartedUsec", CTL_UNIT_TIME},
    {"FinishedUsec", CTL_UNIT_TIME}, {"ResultCount", CTL_UNIT_NONE},
    {"Error", CTL_UNIT_NONE},        {"Warnings", CTL_UNIT_NONE},
};

/* The request's prompt and options, as lines or as members of an object. */
static int write_request(sd_bus_message *m, bool json)
{
    const char *prompt, *key;
    int r = sd_bus_message_read_basic(m, 's', &prompt);

    if (r < 0)
        return r;
    (void)fputs(json ? ", \"Request\": {\"prompt\": " : "prompt           ", stdout);
    if (json)
        ctl_write_json_string(stdout, prompt);
    else
        ctl_write_escaped(stdout, prompt);
    (void)fputs(json ? "" : "\n", stdout);
    r = sd_bus_message_enter_container(m, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = sd_bus_message_read_basic(m, 's', &key);
        if (r < 0)
            break;
        (void)printf(json ? ", \"%s\": " : "%-16s ", key);
        r = json ? ctl_write_json(stdout, m) : ctl_write_value(stdout, m, CTL_UNIT_NONE);
        (void)fputs(json ? "" : "\n", stdout);
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    (void)fputs(json ? "}" : "", stdout);
    return r;
}

static int write_property(sd_bus *bus, const char *path, size_t i, bool json)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;

    int r = ctl_get(bus, path, CTL_JOB, job_properties[i].name, &error, &reply);
    if (r < 0)
        return ctl_bus_failed(&error, r);
    if (json)
        (void)printf("%s\"%s\": ", i ? ", " : "{", job_properties[i].name);
    else
        (void)printf("%-16s ", job_properties[i].name);
    r = json ? ctl_write_json(stdout, reply)
             : ctl_write_value(stdout, reply, job_properties[i].unit);
    if (!json)
        (void)putchar('\n');
    return r < 0 ? ctl_bus_failed(NULL, r) : 0;
}

static int write_job(sd_bus *bus, uint64_t id, bool json)
{
    _cleanup_(unref_message) sd_bus_message *request = NULL;
    char path[CTL_PATH_MAX];

    ctl_job_path(id, path);
    /* first: who may not see the request sees no half answer */
    int code = ctl_call(bus, path, CTL_JOB, "GetRequest", &request, NULL);
    for (size_t i = 0; code == 0 && i < ARRAY_SIZE(job_properties); i++)
        code = write_property(bus, path, i, json);
    if (code)
        return code;
    int r = write_request(request, json);
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    (void)fputs(json ? "}\n" : "", stdout);
    return ctl_finish_output();
}

int verb_show(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    struct flags f;
    uint64_t id;
    bool helped;
    int code = begin_one(verb, "j", argc, argv, &f, &helped, &id, &bus);

    return code || helped ? code : write_job(bus, id, f.json);
}

int verb_wait(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    struct flags f;
    uint64_t id;
    bool helped;
    char path[CTL_PATH_MAX], state[16];

    int code = begin_one(verb, "jt", argc, argv, &f, &helped, &id, &bus);
    if (code || helped)
        return code;
    ctl_job_path(id, path);
    code = ctl_call(bus, CTL_ROOT, CTL_MANAGER, "Watch", NULL, "o", path);
    if (code)
        return code;
    struct ctl_follow what = {
        .id = id, .timeout_usec = f.timeout_usec, .interrupt = CTL_INTERRUPT_LEAVES};
    code = ctl_follow(bus, &what, state);
    if (code == 0 && f.json)
        code = write_job(bus, id, true);
    return code ? code : ctl_report_end(bus, id, state);
}

int verb_get(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    struct flags f;
    uint64_t id;
    bool helped;
    int code = begin_one(verb, "o", argc, argv, &f, &helped, &id, &bus);

    return code || helped ? code : ctl_save_results(bus, id, f.output);
}

/* --- cancel, delete --------------------------------------------------------------------------- */

static int cancel_job(sd_bus *bus, uint64_t id)
{
    return ctl_call(bus, CTL_ROOT, CTL_MANAGER, "Cancel", NULL, "t", id);
}

static int delete_job(sd_bus *bus, uint64_t id)
{
    char path[CTL_PATH_MAX];

    ctl_job_path(id, path);
    return ctl_call(bus, path, CTL_JOB, "Delete", NULL, NULL);
}

static int cancel_all(const struct ctl_verb *verb, sd_bus *bus, const struct flags *f)
{
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    const char *path, *state;
    uint64_t id;
    uint32_t owner;
    int worst = list_jobs(verb, bus, f, &reply), r = 0;

    if (worst)
        return worst;
    while ((r = sd_bus_message_read(reply, "(tosu)", &id, &path, &state, &owner)) > 0) {
        int code = ctl_is_end_state(state) ? 0 : cancel_job(bus, id);
        worst = worst ? worst : code;
    }
    return r < 0 ? ctl_bus_failed(NULL, r) : worst;
}

/* Does one thing to every job named; goes on after a failure and returns the first one. */
static int each_job(const struct ctl_verb *verb, const char *known, int argc, char **argv,
                    int (*act)(sd_bus *bus, uint64_t id))
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    struct flags f;
    uint64_t id;
    bool helped;
    int first = parse_flags(verb, known, argc, argv, &f, &helped);

    if (first || helped)
        return first;
    if (f.all == (argc > optind))
        return ctl_usage(verb, f.all ? "--all or numbers, not both" : "ID is missing");
    for (int i = optind; i < argc; i++) {
        int code = ctl_parse_id(verb, argv[i], &id);
        if (code)
            return code;
    }
    first = ctl_connect(&bus);
    if (first)
        return first;
    if (f.all)
        return cancel_all(verb, bus, &f);
    for (int i = optind; i < argc; i++) {
        (void)ctl_parse_id(verb, argv[i], &id); /* was right a moment ago */
        int code = act(bus, id);
        first = first ? first : code;
    }
    return first;
}

int verb_cancel(const struct ctl_verb *verb, int argc, char **argv)
{
    return each_job(verb, "a", argc, argv, cancel_job);
}

int verb_delete(const struct ctl_verb *verb, int argc, char **argv)
{
    return each_job(verb, "", argc, argv, delete_job);
}
