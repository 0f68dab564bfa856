/* check-spool — the invariants of a spool, on the command line; see tests/support/check.h. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/support/check.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

#define HISTORY_MAX  (256u << 20) /* bytes */
#define LIVE_RETRIES 20           /* a walk may meet a job on its way from one state to the next */

static const char usage[] =
    "usage: check-spool [--history FILE] [--drop DIR] [--running | --live] [--drained]\n"
    "                   [--group-readable] [--uid UID] [--user-jobs N] [--user-bytes N]\n"
    "                   [--canary TEXT --log FILE]… SPOOL\n"
    "Exit status 1 and a line for each violation; 0 when there is none; 2 when it cannot look.\n"
    "  --running  the daemon was killed and has not recovered yet: tmp/ may hold something\n"
    "  --live     the daemon is at work: the same, and what is seen once only does not count\n"
    "  --drained  nothing may wait or run any more\n";

struct arguments {
    struct check_options check;
    const char *history, *canary;
    struct ARRAY(const char *) logs;
    bool live;
};

static int parse(int argc, char **argv, struct arguments *a)
{
    static const struct option options[] = {
        {"history", required_argument, NULL, 'h'},    {"drop", required_argument, NULL, 'd'},
        {"running", no_argument, NULL, 'r'},          {"live", no_argument, NULL, 'L'},
        {"drained", no_argument, NULL, 'D'},          {"group-readable", no_argument, NULL, 'g'},
        {"uid", required_argument, NULL, 'u'},        {"user-jobs", required_argument, NULL, 'j'},
        {"user-bytes", required_argument, NULL, 'b'}, {"canary", required_argument, NULL, 'c'},
        {"log", required_argument, NULL, 'l'},        {0},
    };
    int option;

    a->check = (struct check_options){.uid = -1, .out = stdout};
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        const char **log;
        switch (option) {
        case 'h':
            a->history = optarg;
            break;
        case 'd':
            a->check.drop = optarg;
            break;
        case 'L':
            a->live = true;
            a->check.flags |= CHECK_RUNNING;
            break;
        case 'r':
            a->check.flags |= CHECK_RUNNING;
            break;
        case 'D':
            a->check.flags |= CHECK_DRAINED;
            break;
        case 'g':
            a->check.flags |= CHECK_GROUP_READABLE;
            break;
        case 'u':
            a->check.uid = strtoll(optarg, NULL, 10);
            break;
        case 'j':
            a->check.user_jobs = strtoull(optarg, NULL, 10);
            break;
        case 'b':
            a->check.user_bytes = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            a->canary = optarg;
            break;
        case 'l':
            if ((log = array_push(&a->logs)))
                *log = optarg;
            break;
        default:
            return -EINVAL;
        }
    }
    if (optind + 1 != argc)
        return -EINVAL;
    a->check.spool = argv[optind];
    return 0;
}

/* Findings of one walk, written only when they count. */
static int look(struct arguments *a)
{
    int found = 0;

    for (int tries = a->live ? LIVE_RETRIES : 1; tries > 0; tries--) {
        _cleanup_(freep) char *text = NULL;
        size_t size = 0;
        a->check.out = open_memstream(&text, &size);
        if (!a->check.out)
            return -ENOMEM;
        found = check_spool(&a->check);
        (void)fclose(a->check.out);
        if (found == 0)
            return 0;
        if (tries == 1)
            (void)fputs(text, stdout);
        else
            (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return found;
}

static int run(struct arguments *a)
{
    _cleanup_(freep) char *history = NULL;
    struct fault f = {0};
    size_t size;

    if (a->history && file_read(a->history, HISTORY_MAX, &history, &size, &f) < 0) {
        (void)fprintf(stderr, "check-spool: %s\n", f.text);
        return 2;
    }
    a->check.history = history;
    int found = look(a);
    for (size_t i = 0; a->canary && i < a->logs.count && found >= 0; i++) {
        int r = check_file_for_text(a->logs.items[i], a->canary, stdout);
        found = r < 0 ? r : found + r;
    }
    return found < 0 ? 2 : found > 0;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {0};
    int status = 2;

    if (parse(argc, argv, &arguments) < 0)
        (void)fputs(usage, stderr);
    else
        status = run(&arguments);
    array_done(&arguments.logs);
    return status;
}
