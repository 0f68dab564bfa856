/* diffusectl-follow — stands by a job until it ends. Its Step and Finished signals are unicast to
 * us, so nothing is missed between Submit and the first look; what came in during a call waits in
 * sd-bus. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>

#include "dbus/diffusectl-progress.h"
#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"

#define LOOK_USEC UINT64_C(1000000) /* between looks at the queue while nothing moves */
#define OWNER_MATCH                                                                                \
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"                \
    "member='NameOwnerChanged',arg0='" CTL_BUS_NAME "'"

struct follow {
    const struct ctl_follow *what;
    sd_bus *bus;
    char path[CTL_PATH_MAX];
    struct progress progress;
    char state[16];   /* the last known */
    bool gone;        /* the daemon lost its name */
    bool moving;      /* a step was seen: no need to ask how the queue stands */
    bool cancelled;   /* by us */
    bool has_preview; /* one that was not fetched yet */
    uint64_t next_look_usec;
};

static void unref_slot(sd_bus_slot **slot)
{
    (void)sd_bus_slot_unref(*slot);
}

static uint64_t now_usec(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with a clock that exists */
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

bool ctl_is_end_state(const char *state)
{
    return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 ||
           strcmp(state, "cancelled") == 0;
}

/* --- signals of the bus ----------------------------------------------------------------------- */

static void on_step(struct follow *f, sd_bus_message *m)
{
    struct progress_step s = {.now_usec = now_usec()};
    double timestep;

    if (sd_bus_message_read(m, "uuudt", &s.picture, &s.step, &s.steps, &timestep, &s.eta_usec) < 0)
        return; /* not of this version: the end is what counts */
    f->moving = true;
    progress_step(&f->progress, &s);
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
    struct follow *f = userdata;
    const char *path = sd_bus_message_get_path(m), *state;

    (void)ret_error;
    if (!path || strcmp(path, f->path) != 0)
        return 0;
    if (sd_bus_message_is_signal(m, CTL_JOB, "Step"))
        on_step(f, m);
    else if (sd_bus_message_is_signal(m, CTL_JOB, "Preview"))
        f->has_preview = f->what->preview != NULL;
    else if (sd_bus_message_is_signal(m, CTL_JOB, "Finished") &&
             sd_bus_message_read(m, "s", &state) >= 0)
        (void)snprintf(f->state, sizeof f->state, "%s", state);
    return 0;
}

static int on_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
    struct follow *f = userdata;

    (void)m;
    (void)ret_error;
    f->gone = true; /* whoever has the name now does not know that we watch */
    return 0;
}

/* --- looks ------------------------------------------------------------------------------------ */

/* Asks how the job stands. */
static int look(struct follow *f)
{
    _cleanup_(freep) char *state = NULL;
    int code = ctl_get_basic(f->bus, f->path, CTL_JOB, "State", 's', &state);

    if (code)
        return code;
    (void)snprintf(f->state, sizeof f->state, "%s", state);
    return 0;
}

/* Texts in an entered variant of a list. */
static int count_texts(sd_bus_message *m, uint32_t *ret_count)
{
    const char *text;
    uint32_t count = 0;

    int r = sd_bus_message_enter_container(m, 'v', "as");
    if (r >= 0)
        r = sd_bus_message_enter_container(m, 'a', "s");
    while (r >= 0 && (r = sd_bus_message_read_basic(m, 's', &text)) > 0)
        count++;
    if (r >= 0)
        r = sd_bus_message_exit_container(m);
    if (r >= 0)
        r = sd_bus_message_exit_container(m);
    if (r >= 0 && count > 0)
        *ret_count = count;
    return r;
}

/* How many pictures the job will make; stays unknown when the daemon does not tell. */
static void learn_count(struct follow *f)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    uint32_t count = 0, prompts = 1;
    sd_bus_message *m = NULL;
    const char *key;

    int r =
        sd_bus_call_method(f->bus, CTL_BUS_NAME, f->path, CTL_JOB, "GetRequest", &error, &m, "");
    if (r >= 0)
        r = sd_bus_message_skip(m, "s");
    if (r >= 0)
        r = sd_bus_message_enter_container(m, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = sd_bus_message_read_basic(m, 's', &key);
        if (r < 0)
            break;
        if (strcmp(key, "count") == 0)
            r = sd_bus_message_read(m, "v", "u", &count);
        else if (strcmp(key, "prompts") == 0)
            r = count_texts(m, &prompts);
        else
            r = sd_bus_message_skip(m, "v");
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    if (r >= 0)
        f->progress.pictures = count * prompts;
    (void)sd_bus_message_unref(m);
}

/* Says what the job waits for. */
static int describe_wait(struct follow *f)
{
    _cleanup_(freep) char *daemon = NULL;
    char text[96];
    uint32_t position;

    int code = ctl_get_basic(f->bus, CTL_ROOT, CTL_MANAGER, "State", 's', &daemon);
    if (code)
        return code;
    if (strcmp(f->state, "running") == 0)
        (void)snprintf(text, sizeof text, "job %" PRIu64 ": running", f->what->id);
    else if (strcmp(daemon, "loading") == 0)
        (void)snprintf(text, sizeof text, "job %" PRIu64 ": queued, the model is loading",
                       f->what->id);
    else {
        code = ctl_get_basic(f->bus, f->path, CTL_JOB, "QueuePosition", 'u', &position);
        if (code)
            return code;
        (void)snprintf(text, sizeof text, "job %" PRIu64 ": queued, %u before it", f->what->id,
                       position);
    }
    progress_wait(&f->progress, text);
    return 0;
}

/* Once a second, and at the start: a signal may have been sent before we watched. */
static int look_around(struct follow *f)
{
    f->next_look_usec = now_usec() + LOOK_USEC;
    int code = look(f);
    if (code || ctl_is_end_state(f->state) || f->moving)
        return code;
    return describe_wait(f);
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* Ctrl-C. Returns an exit code, 0 to go on. */
static int on_interrupt(struct follow *f)
{
    uint64_t id = f->what->id;

    progress_clear(&f->progress);
    if (f->what->interrupt == CTL_INTERRUPT_LEAVES)
        return ctl_error(CTL_EXIT_FAILED, "no longer waiting; job %" PRIu64 " goes on", id);
    if (f->cancelled)
        return ctl_error(CTL_EXIT_FAILED, "not waiting for the end of job %" PRIu64, id);
    f->cancelled = true;
    (void)ctl_error(0, "cancelling job %" PRIu64 " (again to leave at once)", id);
    return ctl_call(f->bus, CTL_ROOT, CTL_MANAGER, "Cancel", NULL, "t", id);
}

/* Sleeps until the bus or a signal has something, or until `until_usec`. */
static int sleep_until(struct follow *f, int signals, uint64_t until_usec)
{
    struct pollfd fds[] = {{.fd = sd_bus_get_fd(f->bus)}, {.fd = signals, .events = POLLIN}};
    struct signalfd_siginfo info;
    uint64_t now = now_usec(), bus_usec = UINT64_MAX;

    int events = sd_bus_get_events(f->bus);
    if (events < 0 || sd_bus_get_timeout(f->bus, &bus_usec) < 0)
        return ctl_bus_failed(NULL, -ENOTCONN);
    fds[0].events = (short)events;
    until_usec = bus_usec < until_usec ? bus_usec : until_usec;
    uint64_t wait = until_usec > now ? until_usec - now : 0;
    struct timespec t = {(time_t)(wait / 1000000), (long)(wait % 1000000) * 1000};
    if (ppoll(fds, ARRAY_SIZE(fds), &t, NULL) < 0 && errno != EINTR)
        return ctl_error(CTL_EXIT_FAILED, "poll: %s", strerror(errno));
    if (fds[1].revents && read(signals, &info, sizeof info) == sizeof info)
        return on_interrupt(f);
    return 0;
}

static int follow_to_end(struct follow *f, int signals)
{
    uint64_t start = now_usec(), limit = f->what->timeout_usec;
    uint64_t deadline = limit > UINT64_MAX - start ? UINT64_MAX : start + limit;

    for (;;) {
        int r = sd_bus_process(f->bus, NULL);
        if (r < 0)
            return ctl_bus_failed(NULL, r);
        if (ctl_is_end_state(f->state))
            return 0;
        if (f->gone)
            return ctl_error(CTL_EXIT_UNREACHABLE,
                             "the daemon went away; look with: diffusectl wait %" PRIu64,
                             f->what->id);
        if (r > 0)
            continue;
        if (f->has_preview) {
            f->has_preview = false;
            int code = ctl_save_preview(f->bus, f->what->id, f->what->preview);
            if (code)
                return code;
            continue; /* the call may have taken messages in */
        }
        uint64_t now = now_usec();
        if (now >= deadline)
            return ctl_error(CTL_EXIT_TIMEOUT, "job %" PRIu64 " is still %s", f->what->id,
                             f->state);
        if (now >= f->next_look_usec) {
            int code = look_around(f);
            if (code)
                return code;
            continue; /* the calls may have taken messages in */
        }
        uint64_t until = deadline < f->next_look_usec ? deadline : f->next_look_usec;
        int code = sleep_until(f, signals, until);
        if (code)
            return code;
    }
}

int ctl_follow(sd_bus *bus, const struct ctl_follow *what, char ret_state[16])
{
    _cleanup_(unref_slot) sd_bus_slot *filter = NULL, *owner = NULL;
    _cleanup_(closep) int signals = -1;
    struct follow f = {.what = what, .bus = bus, .state = "queued"};
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    ctl_job_path(what->id, f.path);
    progress_init(&f.progress, what->id);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || (signals = signalfd(-1, &set, SFD_CLOEXEC)) < 0)
        return ctl_error(CTL_EXIT_FAILED, "signalfd: %s", strerror(errno));
    int r = sd_bus_add_filter(bus, &filter, on_message, &f);
    if (r >= 0)
        r = sd_bus_add_match(bus, &owner, OWNER_MATCH, on_owner_changed, &f);
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    learn_count(&f);
    int code = follow_to_end(&f, signals);
    progress_clear(&f.progress);
    if (code == 0)
        (void)snprintf(ret_state, 16, "%s", f.state);
    return code;
}
