/* diffusectl doctor — one line for each thing that pictures need, and how to mend it. */
#include "dbus/diffusectl-doctor.h"

#include <getopt.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vk/base/cleanup.h"

static const struct {
    const char *name;
    void (*run)(struct doctor *d);
} checks[] = {
    {"configuration", doctor_configuration},
    {"user", doctor_user},
    {"device", doctor_device},
    {"model", doctor_model},
    {"hashes", doctor_hashes},
    {"spool", doctor_spool},
    {"drop folder", doctor_drop},
    {"bus", doctor_bus},
    {"daemon", doctor_daemon},
    {"access", doctor_access},
    {"unit", doctor_unit},
    {"clock", doctor_clock},
};

static const struct {
    const char *word, *colour;
} levels[] = {
    [DOCTOR_OK] = {"OK", "\033[32m"},
    [DOCTOR_SKIP] = {"--", ""},
    [DOCTOR_WARN] = {"WARN", "\033[33m"},
    [DOCTOR_FAIL] = {"FAIL", "\033[31m"},
};

void doctor_say(struct doctor *d, enum doctor_level level, const char *mend, const char *format,
                ...)
{
    struct doctor_finding *finding = array_push(&d->findings);
    va_list args;

    if (!finding)
        return; /* a page that ends early is seen to be one */
    *finding = (struct doctor_finding){.check = d->check, .level = level};
    va_start(args, format);
    if (vasprintf(&finding->text, format, args) < 0)
        finding->text = NULL;
    va_end(args);
    finding->mend = mend ? strdup(mend) : NULL;
}

static void doctor_done(struct doctor *d)
{
    for (size_t i = 0; i < d->findings.count; i++) {
        free(d->findings.items[i].text);
        free(d->findings.items[i].mend);
    }
    array_done(&d->findings);
    ctl_config_done(&d->config);
    (void)sd_bus_flush_close_unref(d->bus);
}

static void write_text(const struct doctor *d)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    bool colours =
        isatty(STDOUT_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;

    for (size_t i = 0; i < d->findings.count; i++) {
        const struct doctor_finding *f = &d->findings.items[i];
        bool coloured = colours && *levels[f->level].colour;
        (void)printf("%s%-4s%s  %-14s ", coloured ? levels[f->level].colour : "",
                     levels[f->level].word, coloured ? "\033[0m" : "", f->check);
        ctl_write_escaped(stdout, f->text ? f->text : "out of memory");
        if (f->mend) {
            (void)fputs(" -> ", stdout);
            ctl_write_escaped(stdout, f->mend);
        }
        (void)putchar('\n');
    }
}

static void write_json(const struct doctor *d)
{
    for (size_t i = 0; i < d->findings.count; i++) {
        const struct doctor_finding *f = &d->findings.items[i];
        (void)printf("%s{\"Check\": \"%s\", \"Level\": \"%s\", \"Text\": ", i ? ", " : "[",
                     f->check, f->level == DOCTOR_SKIP ? "SKIP" : levels[f->level].word);
        ctl_write_json_string(stdout, f->text ? f->text : "out of memory");
        (void)fputs(", \"Mend\": ", stdout);
        ctl_write_json_string(stdout, f->mend ? f->mend : "");
        (void)putchar('}');
    }
    (void)puts("]");
}

static int parse(const struct ctl_verb *verb, int argc, char **argv, struct doctor *d, bool *json,
                 bool *helped)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},        {"json", no_argument, NULL, 'j'},
        {"quick", no_argument, NULL, 'q'},       {"config", required_argument, NULL, 'c'},
        {"devel", required_argument, NULL, 'd'}, {0}};
    int option;

    *json = *helped = false;
    while ((option = getopt_long(argc, argv, "hc:", options, NULL)) != -1) {
        if (option == 'h') {
            *helped = true;
            return ctl_help(verb);
        }
        if (option == '?')
            return ctl_usage(verb, "the flags are not right");
        *json |= option == 'j';
        d->quick |= option == 'q';
        if (option == 'c')
            d->config.file = optarg;
        if (option == 'd')
            d->config.devel = optarg;
    }
    d->is_devel = d->config.devel != NULL;
    return argc > optind ? ctl_usage(verb, "what is '%s'?", argv[optind]) : 0;
}

int verb_doctor(const struct ctl_verb *verb, int argc, char **argv)
{
    _cleanup_(doctor_done) struct doctor d = {0};
    enum doctor_level worst = DOCTOR_OK;
    bool json, helped;

    int code = parse(verb, argc, argv, &d, &json, &helped);
    if (code || helped)
        return code;
    const struct passwd *user = getpwnam("diffused");
    if (user) {
        d.uid = user->pw_uid;
        d.gid = user->pw_gid;
    }
    if (sd_bus_open_system(&d.bus) < 0)
        d.bus = NULL; /* said by doctor_bus() */
    for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
        d.check = checks[i].name;
        checks[i].run(&d);
    }
    for (size_t i = 0; i < d.findings.count; i++)
        worst = d.findings.items[i].level > worst ? d.findings.items[i].level : worst;
    if (json)
        write_json(&d);
    else
        write_text(&d);
    code = ctl_finish_output();
    return code ? code : worst == DOCTOR_FAIL ? CTL_EXIT_FAILED : 0;
}
