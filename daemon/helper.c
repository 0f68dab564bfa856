#include "daemon/helper.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/process.h"

struct helper {
    pid_t pid; /* 0 once reaped */
    int output;
    sd_event_source *child, *timeout;
    helper_done_t *on_done;
    void *userdata;
};

struct helper *helper_free(struct helper *helper)
{
    if (!helper)
        return NULL;
    sd_event_source_disable_unref(helper->child);
    sd_event_source_disable_unref(helper->timeout);
    if (helper->pid > 0)
        (void)process_end(helper->pid); /* one that stays behind holds nothing of ours */
    closep(&helper->output);
    free(helper);
    return NULL;
}

static int on_exit_of_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
    struct helper *helper = userdata;
    char why[96] = "";

    (void)source;
    helper->pid = 0; /* reaped by the event loop after this call */
    _cleanup_(closep) int output = TAKE_FD(helper->output);
    bool good = info->si_code == CLD_EXITED && info->si_status == 0;
    if (info->si_code == CLD_EXITED)
        (void)snprintf(why, sizeof why, "ended with status %d", info->si_status);
    else
        (void)snprintf(why, sizeof why, "was killed by signal %d", info->si_status);
    (void)lseek(output, 0, SEEK_SET); /* a memfd can */
    helper->on_done(good ? 0 : -EPIPE, output, why, helper->userdata);
    return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct helper *helper = userdata;

    (void)source, (void)usec;
    (void)kill(helper->pid, SIGKILL); /* its end is then reported as any other */
    return 0;
}

int helper_start(sd_event *event, char *const argv[], int input, helper_done_t *on_done,
                 void *userdata, struct helper **ret_helper, struct fault *f)
{
    _cleanup_(helper_freep) struct helper *helper = calloc(1, sizeof *helper);

    if (!helper)
        return fault_set(f, -ENOMEM, "%s: out of memory", argv[0]);
    helper->on_done = on_done;
    helper->userdata = userdata;
    helper->output = memfd_create("diffused-helper", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (helper->output < 0)
        return fault_set(f, -errno, "memfd: %s", strerror(errno));
    const struct process_files files = {.in = input, .out = helper->output, .ipc = -1};
    int r = process_spawn(argv, &files, &helper->pid, f);
    if (r < 0)
        return r;
    r = sd_event_add_child(event, &helper->child, helper->pid, WEXITED, on_exit_of_child, helper);
    if (r >= 0)
        r = sd_event_add_time_relative(event, &helper->timeout, CLOCK_MONOTONIC,
                                       HELPER_TIMEOUT_USEC, 0, on_timeout, helper);
    if (r < 0)
        return fault_set(f, r, "%s: %s", argv[0], strerror(-r));
    *ret_helper = TAKE_PTR(helper);
    return 0;
}
