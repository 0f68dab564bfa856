/* diffusectl — what its files share: exit codes, the verbs, the bus, words for people.
 *
 * Functions that return `int` return an exit code of the table below, 0 for success, and have
 * already said what went wrong, unless they say otherwise. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#define CTL_BUS_NAME   "org.diffused.Diffused1"
#define CTL_ROOT       "/org/diffused/Diffused1"
#define CTL_MANAGER    "org.diffused.Diffused1.Manager"
#define CTL_JOB        "org.diffused.Diffused1.Job"
#define CTL_PROPERTIES "org.freedesktop.DBus.Properties"
#define CTL_ERROR      "org.diffused.Diffused1.Error."
#define CTL_PATH_SIZE  4096 /* of a file's path */
#define CTL_PATH_MAX   64   /* a job's object path: the prefix and 20 digits */

enum ctl_exit {
    CTL_EXIT_OK = 0,
    CTL_EXIT_FAILED = 1,
    CTL_EXIT_USAGE = 2,
    CTL_EXIT_TIMEOUT = 3,
    CTL_EXIT_REFUSED = 4,
    CTL_EXIT_UNREACHABLE = 8,
    CTL_EXIT_NOT_FOUND = 10,
};

struct ctl_verb {
    const char *name, *arguments, *summary, *help; /* help: what --help adds; the flags */
    int (*run)(const struct ctl_verb *verb, int argc, char **argv); /* argv[0]: the program */
};

/* The verbs, by file. */
int verb_generate(const struct ctl_verb *verb, int argc, char **argv);
int verb_list(const struct ctl_verb *verb, int argc, char **argv);
int verb_show(const struct ctl_verb *verb, int argc, char **argv);
int verb_cancel(const struct ctl_verb *verb, int argc, char **argv);
int verb_wait(const struct ctl_verb *verb, int argc, char **argv);
int verb_get(const struct ctl_verb *verb, int argc, char **argv);
int verb_delete(const struct ctl_verb *verb, int argc, char **argv);
int verb_watch(const struct ctl_verb *verb, int argc, char **argv);
int verb_status(const struct ctl_verb *verb, int argc, char **argv);
int verb_order(const struct ctl_verb *verb, int argc, char **argv); /* pause, resume, reload */
int verb_model(const struct ctl_verb *verb, int argc, char **argv); /* install, verify, list */
int verb_doctor(const struct ctl_verb *verb, int argc, char **argv);
int verb_models(const struct ctl_verb *verb, int argc, char **argv);
int verb_tool(const struct ctl_verb *verb, int argc, char **argv); /* devices, bench, explain */

/* --- diffusectl.c ----------------------------------------------------------------------------- */

/* Prints "usage: …" and the verb's help to standard output. Returns CTL_EXIT_OK. */
int ctl_help(const struct ctl_verb *verb);

/* Says what is wrong with the command line and where help is. Returns CTL_EXIT_USAGE. */
int ctl_usage(const struct ctl_verb *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "diffusectl: …" on standard error, terminal-safe. Returns `code`. */
int ctl_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A job's number. CTL_EXIT_USAGE when it is none. */
int ctl_parse_id(const struct ctl_verb *verb, const char *text, uint64_t *ret_id);

/* Flushes standard output: a full disk or a closed pipe is a failure. */
int ctl_finish_output(void);

/* --- diffusectl-bus.c ------------------------------------------------------------------------- */

int ctl_connect(sd_bus **ret_bus);

void ctl_job_path(uint64_t id, char ret_path[CTL_PATH_MAX]);

/* Says what the daemon answered and returns the exit code for it. */
int ctl_bus_failed(const sd_bus_error *error, int r);

/* Calls a method of the daemon; *ret_reply may be NULL when nobody reads it. */
int ctl_call(sd_bus *bus, const char *path, const char *interface, const char *member,
             sd_bus_message **ret_reply, const char *types, ...);

/* As above, with a message built by the caller. */
int ctl_send(sd_bus *bus, sd_bus_message *message, sd_bus_message **ret_reply);

/* Properties.Get; the reply stands before its variant. Says nothing: 0 or -errno, and `error`. */
int ctl_get(sd_bus *bus, const char *path, const char *interface, const char *property,
            sd_bus_error *error, sd_bus_message **ret_reply);

/* A basic property (types: "s" gives a malloc'd text, "u", "t", "d"). Says what went wrong. */
int ctl_get_basic(sd_bus *bus, const char *path, const char *interface, const char *property,
                  char type, void *ret_value);

/* Says the job's warnings on standard error and, when the job did not end well, why. The exit code
 * of a job that ended in `state`. */
int ctl_report_end(sd_bus *bus, uint64_t id, const char *state);

/* Writes all pictures of a job and prints their paths: `output` ("-": standard output; NAME.png
 * becomes NAME-K.png where there are several), or ./diffused-ID-K.png when NULL. */
int ctl_save_results(sd_bus *bus, uint64_t id, const char *output);

/* --- diffusectl-picture.c --------------------------------------------------------------------- */

/* A picture for the daemon: the file ("-": standard input) in a sealed memfd, so that nothing that
 * happens to it later matters. */
int ctl_open_picture(const char *path, int *ret_fd);

/* Where previews go: a file, each over the one before, or a directory that gets
 * preview-P-SSS.png of picture P after step S, a strip of its making. Fetches the newest one;
 * that there is none any more is no failure. */
int ctl_save_preview(sd_bus *bus, uint64_t id, const char *where);

/* --- diffusectl-follow.c ---------------------------------------------------------------------- */

enum ctl_interrupt {
    CTL_INTERRUPT_CANCELS, /* Ctrl-C cancels the job and waits for its end */
    CTL_INTERRUPT_LEAVES,  /* Ctrl-C only stops watching */
};

struct ctl_follow {
    uint64_t id;
    uint64_t timeout_usec; /* UINT64_MAX: none */
    enum ctl_interrupt interrupt;
    const char *preview; /* see ctl_save_preview(); NULL: none wanted */
};

/* Shows progress until the job ends; the caller is its submitter or has asked to Watch it. Blocks
 * SIGINT and SIGTERM. *ret_state is the job's last state. */
int ctl_follow(sd_bus *bus, const struct ctl_follow *what, char ret_state[16]);

bool ctl_is_end_state(const char *state);

/* --- diffusectl-program.c --------------------------------------------------------------------- */

/* Becomes a program of the service; `arguments` ends in NULL, [0] is what it is called. Returns on
 * failure only, having said why. */
int ctl_become(const char *name, const char *const *arguments);

/* What a program left behind; texts are malloc'd, at most 1 MiB each, and end in NUL. */
struct ctl_output {
    int status; /* exit status, or 1000 + signal */
    char *out, *err;
};

struct ctl_program {
    const char *name;
    const char *const *arguments; /* as above */
    int directory;                /* its working directory; -1: ours */
    uid_t uid;                    /* whom it runs as where we are root; 0: as we do */
    gid_t gid;
};

/* Runs a program to its end. What it says is not printed. */
int ctl_run(const struct ctl_program *program, struct ctl_output *ret_output);
/* What a program of ours complained about: the first line, without level and name before it.
 * Changes `text`. */
char *ctl_first_line(char *text);
void ctl_output_done(struct ctl_output *o);

/* --- diffusectl-config.c ---------------------------------------------------------------------- */

/* Which configuration: as diffused's own flags. */
struct ctl_config {
    const char *file, *devel; /* NULL: not given */
    char *text;               /* what counts, or NULL: it cannot be read */
    char *complaint;          /* malloc'd; why not; NULL before it was read */
};

/* Path of the configuration file that these flags name. */
void ctl_config_path(const struct ctl_config *c, char ret_path[CTL_PATH_SIZE]);
/* Asks `diffused --print-config`; whom it may read, we may. A bad configuration is no failure. */
int ctl_config_read(struct ctl_config *c);
/* `diffused --check-config`: exit status 0 is good; warnings and faults are in `err`. */
int ctl_config_check(const struct ctl_config *c, struct ctl_output *ret_output);
/* A key's value; false when it is empty or not there. */
bool ctl_config_get(const struct ctl_config *c, const char *section, const char *key,
                    char *ret_value, size_t size);
void ctl_config_done(struct ctl_config *c);

/* --- diffusectl-text.c ------------------------------------------------------------------------ */

/* How a number is shown to people. */
enum ctl_unit {
    CTL_UNIT_NONE,
    CTL_UNIT_TIME,     /* microseconds since 1970 */
    CTL_UNIT_DURATION, /* microseconds */
    CTL_UNIT_FRACTION, /* as per cent */
    CTL_UNIT_BYTES,
};

/* Text of others, with control and bidirectional characters and broken UTF-8 spelt out. */
void ctl_write_escaped(FILE *out, const char *text);

/* A JSON string; pure ASCII where a terminal could be misled. */
void ctl_write_json_string(FILE *out, const char *text);

/* The next value of a message as JSON; variants are what they hold. 0 or -errno. */
int ctl_write_json(FILE *out, sd_bus_message *message);

/* The next value of a message for people. 0 or -errno. */
int ctl_write_value(FILE *out, sd_bus_message *message, enum ctl_unit unit);

/* A span of time: "90", "90s", "1.5min", "2h" and sums of them ("1h 30min"). A number without a
 * unit counts `unit_usec`. False when it is none, or more than fits. */
bool ctl_parse_duration(const char *text, uint64_t unit_usec, uint64_t *ret_usec);

/* "0:07", "1:02:03". */
void ctl_format_duration(uint64_t usec, char *ret_text, size_t size);
