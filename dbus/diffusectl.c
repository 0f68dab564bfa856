/* diffusectl — the command line of diffused. Here: the table of verbs, and what they share. */
#include "dbus/diffusectl.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vk/base/cleanup.h"
#include "vk/base/version.h"

#define HELP_JSON "  --json           one JSON value; keys are the names of the D-Bus properties\n"

static const struct ctl_verb verbs[] = {
    {"generate", "PROMPT | --prompt-file FILE|- | --prompts TEXT…  [flags]",
     "draw a picture and save it",
     "  -o, --output FILE        where to; FILE.png becomes FILE-K.png when there are several, - "
     "is\n"
     "                           standard output; default ./diffused-ID-K.png\n"
     "  --prompt-file FILE|-     read the prompt from a file or from standard input\n"
     "  --no-wait                print the job's number and leave\n"
     "  --timeout TIME           stop waiting after this time (exit code 3); the job goes on\n"
     "  --size WxH               the same as --width W --height H\n"
     "  --negative TEXT          the same as --negative-prompt TEXT\n"
     "  --prompts-file FILE|-    --prompts for every line of the file; --prompts TEXT may be "
     "repeated\n"
     "  --preview DIR|FILE       keep the newest look at the picture in FILE, or all in DIR\n"
     "Ctrl-C cancels the job. The path of the picture is printed on standard output, progress on\n"
     "standard error.\n",
     verb_generate},
    {"list", "[--state S] [--owner UID] [--limit N] [--json]", "list jobs",
     "  --state S        queued, running, done, failed or cancelled\n"
     "  --owner UID      jobs of one user (root sees all)\n"
     "  --limit N        only the newest N\n" HELP_JSON,
     verb_list},
    {"show", "ID [--json]", "show all of one job", HELP_JSON, verb_show},
    {"cancel", "ID… | --all", "cancel jobs that wait or run",
     "  --all            all of them that I may see\n", verb_cancel},
    {"wait", "ID [--timeout TIME] [--json]", "wait for a job's end",
     "  --timeout TIME   give up after this time (exit code 3): seconds, or 90s, 10min, "
     "2h\n" HELP_JSON
     "Exits with 0 when the job is done, with 1 when it failed or was cancelled.\n",
     verb_wait},
    {"get", "ID [-o FILE]", "save the pictures of a finished job",
     "  -o, --output FILE  as with generate\n", verb_get},
    {"delete", "ID…", "remove finished jobs and their files", "", verb_delete},
    {"watch", "[ID…] [--json]", "print what happens, as it happens",
     "With numbers: those jobs, until all have ended; else all that I may see, until Ctrl-C.\n"
     "  --json           one JSON object a line\n",
     verb_watch},
    {"status", "[--json]", "show the daemon: state, device, model, queue", HELP_JSON, verb_status},
    {"pause", "", "stop drawing; jobs are still taken in",
     "The picture under way is finished. For root, and whom polkit lets.\n", verb_order},
    {"resume", "", "draw again after a pause", "For root, and whom polkit lets.\n", verb_order},
    {"reload", "", "read the configuration again",
     "When it is bad the old one stays in force; file and line are named, the exit code is 4.\n"
     "For root, and whom polkit lets.\n",
     verb_order},
    {"models", "[--json]", "list the models the daemon knows", HELP_JSON, verb_models},
    {"model", "install DIR|ARCHIVE | verify [NAME|DIR] | list | load [NAME] | unload  [flags]",
     "install, verify and list models on disk; load one of the daemon's",
     "install   copy a model of Hugging Face layout from a directory or a tar archive (.tar,\n"
     "          .tar.gz, .tar.zst, .tar.xz), whole or not at all. Every file is checked; where\n"
     "          the source has SHA256SUMS they are compared, else they are made.\n"
     "  --name NAME      what to call it; default: the source's name\n"
     "  --models DIR     where models are kept; default /var/lib/diffused/models\n"
     "  --replace        one of that name may be there\n"
     "  --use            put it into the configuration (diffused.conf.d/60-model.conf)\n"
     "  -c, --config FILE  the configuration; default /etc/diffused/diffused.conf\n"
     "verify    read all files again and compare their hashes; all models, or one\n"
     "  --models DIR, --json\n"
     "list      name, size, whether hashes are recorded, which one is used\n"
     "  --models DIR, --json, -c FILE\n"
     "  --devel DIR      the configuration of a daemon that runs with --devel DIR\n"
     "load      make a model of the configuration ([model NAME]; without NAME that of [model]) the "
     "one\n"
     "          of jobs that name none; returns when it is loaded\n"
     "unload    free the device; the next job loads what it needs\n"
     "          load and unload are for root, and whom polkit lets\n",
     verb_model},
    {"doctor", "[--quick] [-c FILE] [--json]",
     "check device, model, bus, folders; say how to mend them",
     "  --quick          do not read all of the model's files\n"
     "  -c, --config FILE  the configuration; default /etc/diffused/diffused.conf\n"
     "  --devel DIR      a daemon that runs with --devel DIR\n" HELP_JSON
     "Needs neither the daemon nor root; -- is what could not be seen. Exits with 1 when "
     "something\n"
     "must be mended (FAIL).\n",
     verb_doctor},
    {"devices", "[--json]", "list the graphics devices of this machine", HELP_JSON, verb_tool},
    {"bench", "[--model DIR] [--device D] [--json]", "measure a model's shapes on a device",
     "  --model DIR      default: the daemon's\n"
     "  --device D       render node, PCI id or index; default: the best\n" HELP_JSON,
     verb_tool},
    {"explain", "[--model DIR] [--size WxH] [--device D] [--json]",
     "count what one picture takes: dispatches, bytes, FLOPs",
     "  --model DIR      default: the daemon's\n"
     "  --size WxH       pixels; default: the model's own; or --width W --height H\n"
     "  --device D       render node, PCI id or index; default: the best\n" HELP_JSON,
     verb_tool},
};

static const char general_help[] =
    "\nexit codes: 0 ok, 1 failed, 2 usage, 3 timeout, 4 refused by the daemon,\n"
    "            8 daemon not reachable, 10 not found\n"
    "environment: DBUS_SYSTEM_BUS_ADDRESS names another bus; NO_COLOR switches colours off\n"
    "\n`diffusectl VERB --help` tells more.\n";

int ctl_help(const struct ctl_verb *verb)
{
    (void)printf("usage: diffusectl %s%s%s\n\n%s.\n%s%s", verb->name, verb->arguments[0] ? " " : "",
                 verb->arguments, verb->summary, verb->help[0] ? "\n" : "", verb->help);
    return ctl_finish_output();
}

int ctl_error(int code, const char *format, ...)
{
    _cleanup_(freep) char *text = NULL;
    va_list args;

    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    (void)fputs("diffusectl: ", stderr);
    if (n < 0)
        text = NULL;
    else
        ctl_write_escaped(stderr, text);
    (void)fputc('\n', stderr);
    return code;
}

int ctl_usage(const struct ctl_verb *verb, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ctl_error(CTL_EXIT_USAGE, "%s; see: diffusectl %s --help", text, verb->name);
}

int ctl_parse_id(const struct ctl_verb *verb, const char *text, uint64_t *ret_id)
{
    char *end;

    errno = 0;
    unsigned long long id = strtoull(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9' || *end || id == 0)
        return ctl_usage(verb, "'%s' is no job number", text);
    *ret_id = id;
    return 0;
}

int ctl_finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    return ctl_error(CTL_EXIT_FAILED, "standard output: %s", strerror(errno));
}

static int print_general_help(void)
{
    (void)puts("usage: diffusectl VERB …\n\nDraws pictures through the diffused daemon.\n");
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        (void)printf("  %-9s %s\n", verbs[i].name, verbs[i].summary);
    (void)fputs(general_help, stdout);
    return ctl_finish_output();
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    (void)setlocale(LC_TIME, ""); /* numbers stay as programs read them */
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return print_general_help();
    if (strcmp(name, "--version") == 0) {
        (void)puts("diffusectl " DIFFUSED_VERSION);
        return ctl_finish_output();
    }
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
        if (strcmp(verbs[i].name, name) != 0)
            continue;
        argv[1] = (char *)"diffusectl"; /* what getopt calls us */
        return verbs[i].run(&verbs[i], argc - 1, argv + 1);
    }
    if (!name[0])
        return ctl_error(CTL_EXIT_USAGE, "which verb? See: diffusectl --help");
    return ctl_error(CTL_EXIT_USAGE, "no verb '%s'; see: diffusectl --help", name);
}
