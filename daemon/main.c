/* diffused — the manager process: configuration, wiring, event loop. The only file of the daemon
 * that knows both the manager and its bus. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "daemon/config.h"
#include "daemon/drop-manager.h"
#include "daemon/event.h"
#include "daemon/manager.h"
#include "daemon/process.h"
#include "dbus/bus.h"
#include "vk/base/file.h"
#include "vk/base/log.h"
#include "vk/base/version.h"

#define DEFAULT_CACHE "/var/cache/diffused"
#define EXIT_USAGE    2
#define EXIT_CONFIG   78 /* EX_CONFIG of sysexits.h: systemd does not start us again */

static const char help[] =
    "usage: diffused [-c FILE] [--devel DIR] [--worker PATH]\n"
    "\n"
    "  -c, --config FILE   configuration; default " CONFIG_FILE "\n"
    "      --devel DIR     run uninstalled: DIR/diffused.conf, DIR/spool, DIR/drop, DIR/cache\n"
    "      --worker PATH   the worker's program; default: diffused-worker beside this one\n"
    "      --check-config  say what is wrong with the configuration and end: 0 good, 78 bad\n"
    "      --print-config  print the configuration as it counts, with help, and end\n"
    "      --version, --help\n"
    "\n"
    "DBUS_SYSTEM_BUS_ADDRESS names another bus than the system's.\n";

struct arguments {
    const char *config, *devel, *worker;
    bool help, version, check_config, print_config;
};

/* Everything that lives as long as the loop. */
struct daemon {
    char config_path[PATH_MAX], cache[PATH_MAX];
    char devel[PATH_MAX]; /* of a --devel run, else "" */
    char *worker;
    sd_event *event;
    struct manager *manager;
    struct bus *bus;
    struct drop_manager *drop;
    struct manager_observer observer;
    sd_event_source *watchdog;
    uint64_t watchdog_usec; /* 0: nobody watches */
    bool is_ready;          /* READY=1 was sent */
};

enum option_id {
    OPTION_DEVEL = 256,
    OPTION_WORKER,
    OPTION_CHECK_CONFIG,
    OPTION_PRINT_CONFIG,
    OPTION_VERSION,
    OPTION_HELP,
};

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"devel", required_argument, NULL, OPTION_DEVEL},
    {"worker", required_argument, NULL, OPTION_WORKER},
    {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
    {"print-config", no_argument, NULL, OPTION_PRINT_CONFIG},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

/* getopt says itself what is wrong. */
static int parse_arguments(int argc, char **argv, struct arguments *a)
{
    int option;

    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            a->config = optarg;
            break;
        case OPTION_DEVEL:
            a->devel = optarg;
            break;
        case OPTION_WORKER:
            a->worker = optarg;
            break;
        case OPTION_CHECK_CONFIG:
            a->check_config = true;
            break;
        case OPTION_PRINT_CONFIG:
            a->print_config = true;
            break;
        case OPTION_VERSION:
            a->version = true;
            break;
        case 'h':
        case OPTION_HELP:
            a->help = true;
            break;
        default:
            return -EINVAL;
        }
    }
    if (optind == argc)
        return 0;
    log_error("diffused: takes no plain arguments; see --help");
    return -EINVAL;
}

/* --- configuration ---------------------------------------------------------------------------- */

static int set_paths(struct daemon *d, const struct arguments *a, struct fault *f)
{
    const char *cache = getenv("CACHE_DIRECTORY"); /* set by systemd */
    int r = 0;

    if (a->devel && !realpath(a->devel, d->devel))
        return fault_set(f, -errno, "%s: %s", a->devel, strerror(errno));
    if (a->devel) {
        r = file_path(d->cache, f, "%s/cache", d->devel);
        if (r == 0)
            r = file_path(d->config_path, f, "%s/diffused.conf", d->devel);
    } else {
        (void)snprintf(d->cache, sizeof d->cache, "%s", cache ? cache : DEFAULT_CACHE);
        (void)snprintf(d->config_path, sizeof d->config_path, "%s", CONFIG_FILE);
    }
    if (a->config)
        (void)snprintf(d->config_path, sizeof d->config_path, "%s", a->config);
    return r;
}

static int replace_path(char **path, const char *directory, const char *name, struct fault *f)
{
    char joined[PATH_MAX];

    int r = file_path(joined, f, "%s/%s", directory, name);
    if (r < 0)
        return r;
    free(*path);
    *path = strdup(joined);
    return *path ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

/* The configuration as it is now: at start, and for each reload. */
static int read_config(void *userdata, struct config *ret_config, struct fault *f)
{
    _cleanup_(config_done) struct config config = {0};
    struct daemon *d = userdata;

    int r = config_read(d->config_path, &config, f);
    if (r >= 0 && *d->devel)
        r = replace_path(&config.spool_path, d->devel, "spool", f);
    if (r >= 0 && *d->devel)
        r = replace_path(&config.drop_path, d->devel, "drop", f);
    if (r < 0)
        return r;
    if (!config.spool_path)
        return fault_set(f, -EINVAL, "%s: [spool] path is empty", d->config_path);
    *ret_config = config;
    config = (struct config){0};
    return 0;
}

static int bad_config(const struct fault *f)
{
    log_error("diffused: %s", f->text);
    return EXIT_CONFIG;
}

static int check_config(struct daemon *d, const struct arguments *a)
{
    struct fault f = {0};

    if (set_paths(d, a, &f) < 0)
        return bad_config(&f);
    if (config_check(d->config_path, stderr) < 0)
        return EXIT_CONFIG;
    return printf("%s: good\n", d->config_path) < 0;
}

static int print_config(struct daemon *d, const struct arguments *a)
{
    _cleanup_(config_done) struct config config = {0};
    struct fault f = {0};

    if (set_paths(d, a, &f) < 0 || read_config(d, &config, &f) < 0)
        return bad_config(&f);
    return config_print(&config, stdout) < 0;
}

/* --- what the service manager is told --------------------------------------------------------- */

static uint64_t now_usec(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with a clock that exists */
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void notify(struct daemon *d)
{
    const struct manager_facts *facts = manager_get_facts(d->manager);
    bool settled = facts->state != MANAGER_STATE_LOADING;
    char reason[400] = "";

    if (*facts->state_reason)
        (void)snprintf(reason, sizeof reason, ": %s", facts->state_reason);
    (void)sd_notifyf(0, "%s%sSTATUS=%s%s, %u waiting", settled && !d->is_ready ? "READY=1\n" : "",
                     settled || d->is_ready ? "" : "EXTEND_TIMEOUT_USEC=60000000\n",
                     manager_state_to_string(facts->state), reason,
                     manager_queue_length(d->manager)); /* nobody listens: not our concern */
    d->is_ready |= settled;
}

static void on_changed(unsigned changes, void *userdata)
{
    (void)changes;
    notify(userdata);
}

/* --- wiring ----------------------------------------------------------------------------------- */

/* Only while the manager judges itself and its workers to be well. */
static int on_watchdog(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct daemon *d = userdata;

    (void)usec;
    if (manager_is_healthy(d->manager))
        (void)sd_notify(0, "WATCHDOG=1"); /* nobody listens: not our concern */
    if (!d->is_ready)
        notify(d); /* extends the time a start may take */
    (void)sd_event_source_set_time_relative(source, d->watchdog_usec / 3);
    return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int add_watchdog(struct daemon *d)
{
    int r = sd_watchdog_enabled(0, &d->watchdog_usec);

    if (r <= 0)
        return r;
    return sd_event_add_time_relative(d->event, &d->watchdog, CLOCK_MONOTONIC, 0, 0, on_watchdog,
                                      d);
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    struct daemon *d = userdata;
    struct fault f = {0};

    (void)source, (void)info;
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, now_usec());
    (void)manager_reload(d->manager, &f); /* says itself what is wrong */
    if (d->is_ready)
        (void)sd_notify(0, "READY=1"); /* ends RELOADING */
    notify(d);
    return 0;
}

/* --- wiring ----------------------------------------------------------------------------------- */

static int add_signals(struct daemon *d)
{
    static const int ends[] = {SIGTERM, SIGINT};
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGCHLD); /* wanted blocked by sd_event_add_child() */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -errno;
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) { /* default: ends the loop */
        int r = sd_event_add_signal(d->event, NULL, ends[i], NULL, NULL);
        if (r < 0)
            return r;
    }
    return sd_event_add_signal(d->event, NULL, SIGHUP, on_hangup, d);
}

static int find_worker(struct daemon *d, const struct arguments *a, struct fault *f)
{
    if (!a->worker)
        return process_find_sibling("diffused-worker", &d->worker, f);
    d->worker = strdup(a->worker);
    return d->worker ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

static int set_up(struct daemon *d, const struct arguments *a, struct config *config,
                  struct fault *f)
{
    int r;

    if ((r = sd_event_default(&d->event)) < 0 || (r = add_signals(d)) < 0)
        return fault_set(f, r, "event loop: %s", strerror(-r));
    r = find_worker(d, a, f);
    if (r < 0)
        return r;
    r = file_make_directories(d->cache);
    if (r < 0)
        log_warning("%s: %s; compiled pipelines are not kept", d->cache, strerror(-r));
    const struct manager_options parts = {.config = config,
                                          .worker = d->worker,
                                          .cache = r < 0 ? NULL : d->cache,
                                          .strict_weights = !*d->devel,
                                          .thermal = *d->devel ? getenv("DIFFUSED_THERMAL") : NULL,
                                          .read_config = read_config,
                                          .userdata = d};
    r = manager_new(d->event, &parts, &d->manager, f);
    if (r < 0)
        return r;
    r = bus_open(d->event, d->manager, &d->bus, f);
    if (r < 0)
        return r;
    r = drop_manager_new(d->event, d->manager, &d->drop, f);
    if (r < 0)
        return r;
    d->observer = (struct manager_observer){.on_changed = on_changed, .userdata = d};
    manager_add_observer(d->manager, &d->observer);
    r = add_watchdog(d);
    return r < 0 ? fault_set(f, r, "watchdog: %s", strerror(-r)) : 0;
}

/* The manager stops before the bus goes, so that its last answers are sent. */
static void tear_down(struct daemon *d)
{
    sd_event_source_disable_unref(d->watchdog);
    if (d->manager)
        manager_stop(d->manager);
    drop_manager_free(d->drop);
    bus_close(d->bus);
    manager_free(d->manager);
    sd_event_unref(d->event);
    free(d->worker);
}

static int run(struct daemon *d, const struct arguments *a)
{
    _cleanup_(config_done) struct config config = {0};
    struct fault f = {0};

    int r = set_paths(d, a, &f);
    if (r >= 0)
        r = read_config(d, &config, &f);
    if (r < 0)
        return bad_config(&f);
    for (size_t i = 0; i < config.warning_count; i++)
        event_log(EVENT_CONFIG_WARNING, EVENT_OF_NONE, "%s", config.warnings[i]);
    r = set_up(d, a, &config, &f);
    if (r < 0) {
        log_error("diffused: %s", f.text);
        return EXIT_FAILURE;
    }
    event_log(EVENT_STARTED, EVENT_OF_NONE, "diffused %s: spool %s", DIFFUSED_VERSION,
              manager_get_config(d->manager)->spool_path);
    manager_start(d->manager);
    notify(d);
    r = sd_event_loop(d->event);
    (void)sd_notify(0, "STOPPING=1\nSTATUS=ending"); /* nobody listens: not our concern */
    if (r != 0)
        event_log(EVENT_BUS_LOST, EVENT_OF_NONE, "diffused: the bus is gone, ending");
    else
        event_log(EVENT_STOPPING, EVENT_OF_NONE, "diffused: ending");
    return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {0};
    struct daemon daemon = {0};

    if (parse_arguments(argc, argv, &arguments) < 0)
        return EXIT_USAGE;
    if (arguments.help)
        return fputs(help, stdout) < 0;
    if (arguments.version)
        return puts("diffused " DIFFUSED_VERSION) < 0;
    if (arguments.check_config)
        return check_config(&daemon, &arguments);
    if (arguments.print_config)
        return print_config(&daemon, &arguments);
    int status = run(&daemon, &arguments);
    tear_down(&daemon);
    return status;
}
