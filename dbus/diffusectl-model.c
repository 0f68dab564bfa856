/* diffusectl model install, verify, list — models on disk, without the daemon; load, unload — which
 * of its models the daemon has in memory. */
#include "dbus/diffusectl-model.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define USE_FILE  "60-model.conf"      /* in the configuration's drop-in directory */
#define LOAD_USEC UINT64_C(3600000000) /* a slow disk, and a long job before it */

struct model_flags {
    const char *models, *name;
    struct ctl_config config;
    bool json, replaces, uses, helped;
};

static const struct option option_table[] = {
    {"help", no_argument, NULL, 'h'},         {"json", no_argument, NULL, 'j'},
    {"models", required_argument, NULL, 'm'}, {"name", required_argument, NULL, 'n'},
    {"replace", no_argument, NULL, 'r'},      {"use", no_argument, NULL, 'u'},
    {"config", required_argument, NULL, 'c'}, {"devel", required_argument, NULL, 'd'},
};

static void unref_bus(sd_bus **bus)
{
    (void)sd_bus_flush_close_unref(*bus);
}

static void unref_message(sd_bus_message **m)
{
    (void)sd_bus_message_unref(*m);
}

static void flags_done(struct model_flags *f)
{
    ctl_config_done(&f->config);
}

/* Reads the flags in `known` (letters of option_table). */
static int parse_flags(const struct ctl_verb *verb, const char *known, int argc, char **argv,
                       struct model_flags *f)
{
    struct option table[ARRAY_SIZE(option_table) + 1] = {{0}};
    size_t n = 0;
    int option;

    f->models = MODEL_ROOT;
    for (size_t i = 0; i < ARRAY_SIZE(option_table); i++) {
        if (option_table[i].val == 'h' || strchr(known, option_table[i].val))
            table[n++] = option_table[i];
    }
    while ((option = getopt_long(argc, argv, strchr(known, 'c') ? "hc:" : "h", table, NULL)) !=
           -1) {
        const struct {
            int option;
            const char **value;
        } texts[] = {
            {'m', &f->models}, {'n', &f->name}, {'c', &f->config.file}, {'d', &f->config.devel}};
        if (option == '?')
            return ctl_usage(verb, "the flags are not right");
        if (option == 'h') {
            f->helped = true;
            return ctl_help(verb);
        }
        f->json |= option == 'j';
        f->replaces |= option == 'r';
        f->uses |= option == 'u';
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
            if (texts[i].option == option)
                *texts[i].value = optarg;
        }
    }
    return 0;
}

/* --- install ---------------------------------------------------------------------------------- */

/* "…/sd15.tar.gz" -> "sd15". */
static bool name_after(const char *source, char *ret_name, size_t size)
{
    static const char *const endings[] = {".tar",    ".tar.gz", ".tgz",     ".tar.zst",
                                          ".tar.xz", ".txz",    ".tar.zstd"};
    size_t end = strlen(source);

    while (end > 1 && source[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && source[start - 1] != '/')
        start--;
    (void)snprintf(ret_name, size, "%.*s", (int)(end - start), source + start);
    size_t length = strlen(ret_name);
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        size_t n = strlen(endings[i]);
        if (length > n && strcmp(ret_name + length - n, endings[i]) == 0) {
            ret_name[length - n] = '\0';
            break;
        }
    }
    return model_is_plain_name(ret_name);
}

/* Puts the model into the configuration, and sees that it counts there. */
static int use_model(struct model_flags *f, const char *path)
{
    char file[CTL_PATH_SIZE], folder[CTL_PATH_SIZE + 8], name[CTL_PATH_SIZE + 32];
    char counts[PATH_MAX] = "";
    _cleanup_(freep) char *text = NULL;
    struct fault fault = {0};

    ctl_config_path(&f->config, file);
    (void)snprintf(folder, sizeof folder, "%s.d", file);
    (void)snprintf(name, sizeof name, "%s/%s", folder, USE_FILE);
    if (asprintf(&text, "# Written by: diffusectl model install --use\n[model]\npath = %s\n",
                 path) < 0) {
        text = NULL;
        return ctl_error(CTL_EXIT_FAILED, "out of memory");
    }
    int r = file_make_directories(folder);
    if (r < 0)
        return ctl_error(CTL_EXIT_FAILED, "%s: %s", folder, strerror(-r));
    if (file_write_atomic(name, text, strlen(text), &fault) < 0)
        return ctl_error(CTL_EXIT_FAILED, "%s", fault.text);
    int code = ctl_config_read(&f->config);
    if (code)
        return code;
    if (!f->config.text)
        return ctl_error(CTL_EXIT_FAILED, "the configuration is not right: %s",
                         f->config.complaint);
    if (!ctl_config_get(&f->config, "model", "path", counts, sizeof counts) ||
        strcmp(counts, path) != 0)
        return ctl_error(CTL_EXIT_FAILED,
                         "%s is written, but [model] path is '%s': a later file sets it", name,
                         counts);
    (void)printf("%s: written; now run: diffusectl reload\n", name);
    return 0;
}

static int run_install(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(flags_done) struct model_flags f = {0};
    char name[MODEL_PATH_MAX], models[PATH_MAX], path[PATH_MAX + MODEL_PATH_MAX];
    struct fault fault = {0};

    int code = parse_flags(verb, "mnruc", argc, argv, &f);
    if (code || f.helped)
        return code;
    if (argc != optind + 1)
        return ctl_usage(verb, argc > optind ? "one DIR or ARCHIVE, please"
                                             : "DIR or ARCHIVE is missing");
    if (!name_after(f.name ? f.name : argv[optind], name, sizeof name) ||
        (f.name && strcmp(name, f.name) != 0))
        return ctl_usage(verb,
                         "'%s' cannot be a model's name: give --name with letters, digits, "
                         "'.', '_', '-'",
                         f.name ? f.name : name);
    struct model_install install = {
        .source = argv[optind], .models = f.models, .name = name, .replaces = f.replaces};
    if (model_install(&install, &fault) < 0)
        return ctl_error(CTL_EXIT_FAILED, "%s", fault.text);
    if (!realpath(f.models, models))
        return ctl_error(CTL_EXIT_FAILED, "%s: %s", f.models, strerror(errno));
    (void)snprintf(path, sizeof path, "%s/%s", models, name);
    (void)printf("%s: %u files, %.1f MiB, %s\n", path, install.files,
                 (double)install.bytes / (1 << 20),
                 install.is_verified ? "hashes are those of the source"
                                     : "the source had no " MODEL_SUMS ", one was made");
    if (f.uses)
        code = use_model(&f, path);
    else
        (void)printf("to use it, put into /etc/diffused/diffused.conf.d/" USE_FILE
                     " (or install with --use):\n\n[model]\npath = %s\n\n"
                     "and run: diffusectl reload\n",
                     path);
    return code ? code : ctl_finish_output();
}

/* --- verify ----------------------------------------------------------------------------------- */

static void write_report_json(const char *name, const char *path, const struct model_report *report)
{
    (void)fputs("{\"Name\": ", stdout);
    ctl_write_json_string(stdout, name);
    (void)fputs(", \"Path\": ", stdout);
    ctl_write_json_string(stdout, path);
    (void)printf(", \"Files\": %u, \"Size\": %" PRIu64 ", \"Sums\": %s, \"Problems\": [",
                 report->files, report->bytes, report->has_sums ? "true" : "false");
    for (size_t i = 0; i < report->problems.count; i++) {
        (void)fputs(i ? ", " : "", stdout);
        ctl_write_json_string(stdout, report->problems.items[i]);
    }
    (void)putchar(']');
}

static void write_report(const char *name, const struct model_report *report)
{
    for (size_t i = 0; i < report->problems.count; i++) {
        ctl_write_escaped(stdout, name);
        (void)fputs(": ", stdout);
        ctl_write_escaped(stdout, report->problems.items[i]);
        (void)putchar('\n');
    }
    ctl_write_escaped(stdout, name);
    if (report->problems.count > 0)
        (void)printf(": BAD, %zu problems\n", report->problems.count);
    else if (!report->has_sums)
        (void)printf(": no " MODEL_SUMS " to compare with; model install makes one\n");
    else
        (void)printf(": good, %u files, %.1f MiB\n", report->files,
                     (double)report->bytes / (1 << 20));
}

/* What list and verify do with each model; `first` for commas. */
typedef int model_each_t(const char *name, const char *path, bool first,
                         const struct model_flags *f);

static int examine(const char *path, enum model_examine how, struct model_report *ret_report)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct fault f = {0};

    if (fd < 0)
        return ctl_error(errno == ENOENT ? CTL_EXIT_NOT_FOUND : CTL_EXIT_FAILED, "%s: %s", path,
                         strerror(errno));
    if (model_examine(fd, how, ret_report, &f) < 0)
        return ctl_error(CTL_EXIT_FAILED, "%s: %s", path, f.text);
    return 0;
}

static int verify_model(const char *name, const char *path, bool first, const struct model_flags *f)
{
    _cleanup_(model_report_done) struct model_report report = {0};
    int code = examine(path, MODEL_EXAMINE_HASHES, &report);

    if (code)
        return code;
    if (f->json) {
        (void)fputs(first ? "" : ", ", stdout);
        write_report_json(name, path, &report);
        (void)putchar('}');
    } else {
        write_report(name, &report);
    }
    return report.problems.count > 0 || !report.has_sums ? CTL_EXIT_FAILED : 0;
}

static int is_model_name(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* All of the models' directory, by name; one that is bad does not keep the others back. The first
 * exit code that is not 0. */
static int for_each(model_each_t *each, const struct model_flags *f, unsigned *ret_count)
{
    struct dirent **entries = NULL;
    char path[PATH_MAX];
    struct stat st;
    int code = 0, n = scandir(f->models, &entries, is_model_name, alphasort);

    *ret_count = 0;
    if (n < 0 && errno != ENOENT)
        return ctl_error(CTL_EXIT_FAILED, "%s: %s", f->models, strerror(errno));
    for (int i = 0; i < n; i++) {
        int length = snprintf(path, sizeof path, "%s/%s", f->models, entries[i]->d_name);
        if (length < (int)sizeof path && stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            int one = each(entries[i]->d_name, path, *ret_count == 0, f);
            code = code ? code : one;
            (*ret_count)++;
        }
        free(entries[i]);
    }
    free(entries);
    return code;
}

static int verify_one(const char *name, const struct model_flags *f)
{
    char path[PATH_MAX];
    struct stat st;
    bool is_path = strchr(name, '/') || (stat(name, &st) == 0 && S_ISDIR(st.st_mode));

    (void)snprintf(path, sizeof path, "%s%s%s", is_path ? "" : f->models, is_path ? "" : "/", name);
    return verify_model(name, path, true, f);
}

static int run_verify(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(flags_done) struct model_flags f = {0};
    unsigned count = 1;

    int code = parse_flags(verb, "mj", argc, argv, &f);
    if (code || f.helped)
        return code;
    if (argc > optind + 1)
        return ctl_usage(verb, "one NAME or DIR, please");
    (void)fputs(f.json ? "[" : "", stdout);
    code = argc > optind ? verify_one(argv[optind], &f) : for_each(verify_model, &f, &count);
    (void)fputs(f.json ? "]\n" : "", stdout);
    if (code == 0 && count == 0 && !f.json)
        return ctl_error(CTL_EXIT_NOT_FOUND, "%s: no models are installed", f.models);
    return code ? code : ctl_finish_output();
}

/* --- list ------------------------------------------------------------------------------------- */

/* Whether the running daemon has this path resident; no daemon: no. */
static bool is_resident(const char *path)
{
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    _cleanup_(unref_message) sd_bus_message *m = NULL;
    const char *name, *key, *text;
    bool here = false, ready = false;

    if (sd_bus_open_system(&bus) < 0 ||
        sd_bus_call_method(bus, CTL_BUS_NAME, CTL_ROOT, CTL_MANAGER, "ListModels", NULL, &m, NULL) <
            0 ||
        sd_bus_message_enter_container(m, 'a', "{sa{sv}}") < 0)
        return false;
    while (!(here && ready) && sd_bus_message_enter_container(m, 'e', "sa{sv}") > 0) {
        here = ready = false;
        if (sd_bus_message_read_basic(m, 's', &name) < 0 ||
            sd_bus_message_enter_container(m, 'a', "{sv}") < 0)
            return false;
        while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
            bool is_text = sd_bus_message_read_basic(m, 's', &key) > 0 &&
                           (strcmp(key, "path") == 0 || strcmp(key, "state") == 0) &&
                           sd_bus_message_read(m, "v", "s", &text) > 0;
            here |= is_text && strcmp(key, "path") == 0 && strcmp(text, path) == 0;
            ready |= is_text && strcmp(key, "state") == 0 && strcmp(text, "ready") == 0;
            if ((!is_text && sd_bus_message_skip(m, "v") < 0) ||
                sd_bus_message_exit_container(m) < 0)
                return false;
        }
        if (sd_bus_message_exit_container(m) < 0 || sd_bus_message_exit_container(m) < 0)
            return false;
    }
    return here && ready;
}

static int list_model(const char *name, const char *path, bool first, const struct model_flags *f)
{
    _cleanup_(model_report_done) struct model_report report = {0};
    char used[PATH_MAX] = "", real[PATH_MAX], used_real[PATH_MAX];
    int code = examine(path, MODEL_EXAMINE_NAMES, &report);

    if (code)
        return code;
    bool is_configured = ctl_config_get(&f->config, "model", "path", used, sizeof used) &&
                         realpath(path, real) && realpath(used, used_real) &&
                         strcmp(real, used_real) == 0;
    bool resident = is_configured && is_resident(used);
    if (f->json) {
        (void)fputs(first ? "" : ", ", stdout);
        write_report_json(name, path, &report);
        (void)printf(", \"Configured\": %s, \"Resident\": %s}", is_configured ? "true" : "false",
                     resident ? "true" : "false");
        return 0;
    }
    if (first)
        (void)printf("%-24s %10s  %-10s %s\n", "NAME", "MIB", "HASHES", "USE");
    ctl_write_escaped(stdout, name);
    (void)printf("%*s %10.1f  %-10s %s\n", (int)(strlen(name) < 24 ? 24 - strlen(name) : 0), "",
                 (double)report.bytes / (1 << 20),
                 report.problems.count ? "wrong"
                 : report.has_sums     ? "recorded"
                                       : "none",
                 resident        ? "resident"
                 : is_configured ? "configured"
                                 : "-");
    return 0;
}

static int run_list(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(flags_done) struct model_flags f = {0};
    char used[PATH_MAX], models[PATH_MAX];
    unsigned count;

    int code = parse_flags(verb, "mjcd", argc, argv, &f);
    if (code || f.helped)
        return code;
    if (argc > optind)
        return ctl_usage(verb, "what is '%s'?", argv[optind]);
    code = ctl_config_read(&f.config);
    if (code)
        return code;
    (void)fputs(f.json ? "[" : "", stdout);
    code = for_each(list_model, &f, &count);
    bool is_elsewhere = ctl_config_get(&f.config, "model", "path", used, sizeof used) &&
                        (!realpath(f.models, models) || strncmp(used, models, strlen(models)) != 0);
    if (is_elsewhere && access(used, F_OK) == 0) {
        int one = list_model(used, used, count == 0, &f);
        code = code ? code : one;
        count++;
    }
    (void)fputs(f.json ? "]\n" : "", stdout);
    if (count == 0 && !f.json)
        (void)printf("no models in %s; see: diffusectl model --help\n", f.models);
    return code ? code : ctl_finish_output();
}

/* Loading takes as long as the disk does, after the running job. */
static int order(const char *member, const char *name)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(unref_message) sd_bus_message *call = NULL;
    _cleanup_(unref_bus) sd_bus *bus = NULL;

    int code = ctl_connect(&bus);
    if (code)
        return code;
    int r = sd_bus_message_new_method_call(bus, &call, CTL_BUS_NAME, CTL_ROOT, CTL_MANAGER, member);
    if (r >= 0 && name)
        r = sd_bus_message_append(call, "s", name);
    if (r >= 0)
        r = sd_bus_message_set_allow_interactive_authorization(call, 1);
    if (r >= 0)
        r = sd_bus_call(bus, call, LOAD_USEC, &error, NULL);
    return r < 0 ? ctl_bus_failed(&error, r) : 0;
}

static int run_load(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(flags_done) struct model_flags f = {0};

    int code = parse_flags(verb, "", argc, argv, &f);
    if (code || f.helped)
        return code;
    if (argc > optind + 1)
        return ctl_usage(verb, "one NAME, please");
    return order("LoadModel", argc > optind ? argv[optind] : "");
}

static int run_unload(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(flags_done) struct model_flags f = {0};

    int code = parse_flags(verb, "", argc, argv, &f);
    if (code || f.helped)
        return code;
    if (argc > optind)
        return ctl_usage(verb, "what is '%s'?", argv[optind]);
    return order("UnloadModel", NULL);
}

int verb_model(const struct ctl_verb *verb, int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct ctl_verb *verb, int argc, char **argv);
    } verbs[] = {{"install", run_install},
                 {"verify", run_verify},
                 {"list", run_list},
                 {"load", run_load},
                 {"unload", run_unload}};
    const char *name = argc > 1 ? argv[1] : "";

    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return ctl_help(verb);
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
        if (strcmp(verbs[i].name, name) != 0)
            continue;
        argv[1] = argv[0];
        return verbs[i].run(verb, argc - 1, argv + 1);
    }
    return ctl_usage(
        verb, *name ? "model has no verb '%s'" : "install, verify, list, load or unload?%s", name);
}
