/* power-cut — replays every change of a spool as a disk might hold it after the power went; see
 * tests/support/powercut.h. usage: power-cut [SHUFFLES [SEED]], shuffles for each prefix */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/faults.h"
#include "tests/support/folder.h"
#include "tests/support/powercut.h"

static int run(struct powercut *p)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < scenario_count; i++)
        r = powercut_run(p, &scenarios[i]);
    (void)printf("power-cut: %u prefixes, %u disks replayed, %u violations; with 0 failures the "
                 "95 %% bound is %.4f %%\n",
                 p->calls, p->replays, p->violations, 300.0 / (p->replays ? p->replays : 1));
    struct powercut without = *p;
    without.syncs = without.needless = 0;
    for (size_t i = 0; r == 0 && i < scenario_count; i++)
        r = powercut_without_syncs(&without, &scenarios[i]);
    (void)printf("power-cut: %u fsyncs left out one at a time, %u of them without a trace\n",
                 without.syncs, without.needless);
    if (r < 0)
        (void)printf("power-cut: %s\n", strerror(-r));
    return r < 0 ? 2 : p->violations > 0;
}

int main(int argc, char **argv)
{
    struct powercut p = {.out = stdout, .shuffles = 20, .random = 1};
    const char *why;
    void *folder = NULL;

    if (argc > 1)
        p.shuffles = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        p.random = strtoull(argv[2], NULL, 10);
    if (!inject_is_possible(&why)) {
        (void)printf("skipped: %s\n", why);
        return 77;
    }
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1);
    p.shared = steps_share();
    if (!p.shared || folder_setup(&folder) < 0)
        return 2;
    p.folder = folder;
    int status = run(&p);
    steps_unshare(p.shared);
    return folder_teardown(&folder) < 0 ? 2 : status;
}
