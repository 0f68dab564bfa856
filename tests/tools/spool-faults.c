/* spool-faults — kills and errors at every file system call of every change of a spool; see
 * tests/support/faults.h. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tests/support/faults.h"
#include "vk/base/array.h"

static const char usage[] =
    "usage: spool-faults [--stride N] [--pairs N] [--seed N] [--only SCENARIO] FOLDER\n"
    "FOLDER is on the file system to test; the spool in it is made and removed again and again.\n"
    "  --stride N   every N-th call only\n"
    "  --pairs N    N random pairs for each scenario: a kill, then a kill or an error in the "
    "start\n"
    "               after it (default 100)\n"
    "Exit status 1 and a line for each violation.\n";

struct arguments {
    const char *folder, *only;
    unsigned stride, pairs;
    uint64_t seed;
};

static int parse(int argc, char **argv, struct arguments *a)
{
    static const struct option options[] = {
        {"stride", required_argument, NULL, 's'},
        {"pairs", required_argument, NULL, 'p'},
        {"seed", required_argument, NULL, 'S'},
        {"only", required_argument, NULL, 'o'},
        {0},
    };
    int option;

    *a = (struct arguments){.stride = 1, .pairs = 100, .seed = 1};
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            a->stride = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'p')
            a->pairs = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'S')
            a->seed = strtoull(optarg, NULL, 10);
        else if (option == 'o')
            a->only = optarg;
        else
            return -EINVAL;
    }
    if (optind + 1 != argc || a->stride == 0)
        return -EINVAL;
    a->folder = argv[optind];
    return 0;
}

static void say(const char *what, const struct faults *c, const struct faults *before)
{
    (void)printf("  %-16s %5u points %6u trials %6u kills %6u refusals %3u violations\n", what,
                 c->points - before->points, c->trials - before->trials, c->kills - before->kills,
                 c->refusals - before->refusals, c->violations - before->violations);
    (void)fflush(stdout);
}

static void run_scenario(struct faults *c, const struct scenario *scenario, unsigned pairs)
{
    struct faults before = *c;

    (void)printf("%s\n", scenario->name);
    faults_kill(c, scenario);
    say("SIGKILL", c, &before);
    for (size_t i = 0; i < faults_error_count; i++) {
        before = *c;
        faults_fail(c, scenario, &faults_errors[i]);
        say(faults_errors[i].name, c, &before);
    }
    before = *c;
    faults_kill_twice(c, scenario, 0);
    if (pairs > 0) {
        faults_kill_twice(c, scenario, pairs);
        faults_kill_and_fail(c, scenario, pairs);
    }
    say("pairs", c, &before);
}

int main(int argc, char **argv)
{
    struct arguments a;
    struct faults c;
    const char *why;

    if (parse(argc, argv, &a) < 0)
        return fputs(usage, stderr) < 0 ? 2 : 2;
    if (!inject_is_possible(&why)) {
        (void)printf("skipped: %s\n", why);
        return 77;
    }
    if (faults_init(&c, a.folder, stdout) < 0)
        return 2;
    c.stride = a.stride;
    c.random = a.seed;
    for (size_t i = 0; i < scenario_count; i++)
        if (!a.only || strcmp(a.only, scenarios[i].name) == 0)
            run_scenario(&c, &scenarios[i], a.pairs);
    (void)printf("spool-faults: %u points, %u trials, %u kills, %u refusals, %u violations; with 0 "
                 "failures the 95 %% bound is %.4f %%\n",
                 c.points, c.trials, c.kills, c.refusals, c.violations, 300.0 / c.trials);
    faults_done(&c);
    return c.violations > 0;
}
