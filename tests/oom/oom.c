#include "tests/oom/oom.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/build.h"
#include "vk/base/cleanup.h"

#define TRIALS_MAX 200000u

static struct oom_control *control;
static const char *current = "";

static void show_frames(void)
{
    (void)printf("refused: number %" PRIu64 "%s, asked for at", control->fail_at,
                 control->sticky ? " and all after it" : "");
    for (uint32_t i = 0; i < control->frame_count; i++)
        if (control->frames[i])
            (void)printf(" %#" PRIx64, control->frames[i]);
    (void)printf(" (addr2line -fpe PROGRAM)\n");
    (void)fflush(stdout);
}

static void on_crash(int signal)
{
    control->armed = 0;
    (void)printf("%s: signal %d\n", current, signal);
    show_frames();
    _exit(128 + signal);
}

/* --- start ------------------------------------------------------------------------------------ */

static struct oom_control *map_control(const char *path)
{
    _cleanup_(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED
                        : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return page == MAP_FAILED ? NULL : page;
}

static void start_again(char **argv)
{
    char shim[PATH_MAX], path[] = "/tmp/diffused-oom-XXXXXX";
    _cleanup_(closep) int fd = mkstemp(path);

    build_path("tests/oom.so", shim, sizeof shim);
    if (fd < 0 || ftruncate(fd, sizeof *control) < 0 || access(shim, R_OK) < 0)
        return;
    (void)setenv(OOM_ENVIRONMENT, path, 1);
    (void)setenv("LD_PRELOAD", shim, 1);
    const char *options = getenv("ASAN_OPTIONS");
    char joined[512];
    (void)snprintf(joined, sizeof joined, "%s%sverify_asan_link_order=0", options ? options : "",
                   options ? ":" : "");
    (void)setenv("ASAN_OPTIONS", joined, 1);
    (void)execv("/proc/self/exe", argv);
}

struct oom_control *oom_begin(char **argv)
{
    const char *path = getenv(OOM_ENVIRONMENT);

    if (!path)
        start_again(argv);
    else
        control = map_control(path);
    if (!control || !control->is_loaded) {
        (void)printf("the failing allocator cannot be put before the program's: %s\n",
                     strerror(errno));
        return NULL;
    }
    (void)unlink(path);
    (void)unsetenv("LD_PRELOAD");
    static const int signals[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE};
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        (void)signal(signals[i], on_crash);
    return control;
}

/* --- trials ----------------------------------------------------------------------------------- */

static void arm(uint64_t n, bool sticky)
{
    control->parties = 1u << OOM_PARTY_OURS;
    control->sticky = sticky;
    control->fail_at = n;
    control->count = control->failed = 0;
    control->frame_count = 0;
    __atomic_store_n(&control->armed, 1, __ATOMIC_RELEASE);
}

void oom_disarm(void)
{
    __atomic_store_n(&control->armed, 0, __ATOMIC_RELEASE);
}

void oom_rearm(void)
{
    __atomic_store_n(&control->armed, 1, __ATOMIC_RELEASE);
}

/* The lowest descriptor that is free. */
static int free_descriptor(void)
{
    int fd = fcntl(STDIN_FILENO, F_DUPFD, 3);

    (void)close(fd);
    return fd;
}

/* True when memory was refused. */
static bool try_once(const char *name, oom_operation_t *operation, void *userdata, uint64_t n,
                     bool sticky)
{
    struct fault f = {0};
    int64_t live = control->live;
    int descriptor = free_descriptor();

    arm(n, sticky);
    int r = operation(userdata, &f);
    oom_disarm();
    int64_t lost = control->live - live;
    bool good = (r >= 0 || (r == -ENOMEM && control->failed)) && lost == 0 &&
                free_descriptor() == descriptor;
    if (!good) {
        show_frames();
        fail_msg("%s: returned %d (%s), %" PRId64 " blocks left, descriptor %d -> %d", name, r,
                 f.text, lost, descriptor, free_descriptor());
    }
    return control->failed > 0;
}

unsigned oom_exhaust(const char *name, oom_operation_t *operation, void *userdata)
{
    unsigned trials = 0;
    struct fault f = {0};

    current = name;
    arm(0, false);
    int r = operation(userdata, &f); /* fills what libraries keep for ever */
    oom_disarm();
    if (r < 0)
        fail_msg("%s: fails with all memory there is: %s", name, f.text);
    for (int sticky = 0; sticky <= 1; sticky++) {
        uint64_t n = 1;
        while (try_once(name, operation, userdata, n, sticky)) {
            if (++n > TRIALS_MAX)
                fail_msg("%s: does not end", name);
            trials++;
        }
    }
    (void)printf("%s: %u trials\n", name, trials);
    return trials;
}
