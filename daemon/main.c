/* diffused — the manager process: configuration, wiring, event loop. The only file of the daemon
 * that knows both the manager and its bus. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "daemon/config.h"
#include "daemon/manager.h"
#include "daemon/process.h"
#include "dbus/bus.h"
#include "vk/base/file.h"
#include "vk/base/log.h"
#include "vk/base/version.h"

#define DEFAULT_CONFIG "/etc/diffused/diffused.conf"
#define DEFAULT_CACHE  "/var/cache/diffused"
#define EXIT_USAGE     2
#define EXIT_CONFIG    78 /* EX_CONFIG of sysexits.h: systemd does not start us again */

static const char help[] =
    "usage: diffused [-c FILE] [--devel DIR] [--worker PATH]\n"
    "\n"
    "  -c, --config FILE   configuration; default " DEFAULT_CONFIG "\n"
    "      --devel DIR     run uninstalled: DIR/diffused.conf, DIR/spool, DIR/drop, DIR/cache\n"
    "      --worker PATH   the worker's program; default: diffused-worker beside this one\n"
    "      --version, --help\n"
    "\n"
    "DBUS_SYSTEM_BUS_ADDRESS names another bus than the system's.\n";

struct arguments {
    const char *config, *devel, *worker;
    bool help, version;
};

/* Everything that lives as long as the loop. */
struct daemon {
    struct config config;
    char config_path[PATH_MAX], cache[PATH_MAX];
    char *worker;
    sd_event *event;
    struct manager *manager;
    struct bus *bus;
    struct manager_observer observer;
    bool is_ready; /* READY=1 was sent */
};

enum option_id {
    OPTION_DEVEL = 256,
    OPTION_WORKER,
    OPTION_VERSION,
    OPTION_HELP,
};

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"devel", required_argument, NULL, OPTION_DEVEL},
    {"worker", required_argument, NULL, OPTION_WORKER},
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

static int join(char path[PATH_MAX], const char *directory, const char *name, struct fault *f)
{
    if (snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX)
        return 0;
    return fault_set(f, -ENAMETOOLONG, "%.100s…: path too long", directory);
}

/* Paths of a --devel run: only the model is looked for elsewhere. */
static int set_devel_paths(struct daemon *d, const char *directory, struct fault *f)
{
    _cleanup_(freep) char *full = realpath(directory, NULL);
    char spool[PATH_MAX];
    int r;

    if (!full)
        return fault_set(f, -errno, "%s: %s", directory, strerror(errno));
    if ((r = join(d->config_path, full, "diffused.conf", f)) < 0 ||
        (r = join(d->cache, full, "cache", f)) < 0 || (r = join(spool, full, "spool", f)) < 0)
        return r;
    free(d->config.spool_path);
    d->config.spool_path = strdup(spool);
    return d->config.spool_path ? 0 : fault_set(f, -ENOMEM, "out of memory");
}

static void set_installed_paths(struct daemon *d, const char *config)
{
    const char *cache = getenv("CACHE_DIRECTORY"); /* set by systemd */

    (void)snprintf(d->config_path, sizeof d->config_path, "%s", config ? config : DEFAULT_CONFIG);
    (void)snprintf(d->cache, sizeof d->cache, "%s", cache ? cache : DEFAULT_CACHE);
}

static int configure(struct daemon *d, const struct arguments *a, struct fault *f)
{
    struct config config = {0};
    char *devel_spool;
    int r;

    if (a->devel && (r = set_devel_paths(d, a->devel, f)) < 0)
        return r;
    if (!a->devel)
        set_installed_paths(d, a->config);
    r = config_read(a->config ? a->config : d->config_path, &config, f);
    if (r == -ENOENT && !a->devel && !a->config) {
        log_notice("%s; using built-in values", f->text);
        r = config_init(&config);
    }
    if (r < 0)
        return r;
    devel_spool = d->config.spool_path;
    d->config = config;
    if (devel_spool) {
        free(d->config.spool_path);
        d->config.spool_path = devel_spool;
    }
    for (size_t i = 0; i < config.warning_count; i++)
        log_warning("%s", config.warnings[i]);
    if (!d->config.spool_path)
        return fault_set(f, -EINVAL, "%s: [spool] path is empty", d->config_path);
    return 0;
}

/* --- what the service manager is told --------------------------------------------------------- */

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

static int add_signals(sd_event *event)
{
    static const int ends[] = {SIGTERM, SIGINT};
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGCHLD); /* wanted blocked by sd_event_add_child() */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -errno;
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        int r = sd_event_add_signal(event, NULL, ends[i], NULL, NULL); /* default: ends the loop */
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_up(struct daemon *d, const struct arguments *a, struct fault *f)
{
    int r;

    if ((r = sd_event_default(&d->event)) < 0 || (r = add_signals(d->event)) < 0 ||
        (r = sd_event_set_watchdog(d->event, 1)) < 0)
        return fault_set(f, r, "event loop: %s", strerror(-r));
    if (a->worker)
        d->worker = strdup(a->worker);
    else if ((r = process_find_sibling("diffused-worker", &d->worker, f)) < 0)
        return r;
    r = d->worker ? file_make_directories(d->cache) : -ENOMEM;
    if (r < 0)
        log_warning("%s: %s; compiled pipelines are not kept", d->cache, strerror(-r));
    const struct manager_options parts = {
        .config = &d->config, .worker = d->worker, .cache = r < 0 ? NULL : d->cache};
    r = manager_new(d->event, &parts, &d->manager, f);
    if (r < 0)
        return r;
    r = bus_open(d->event, d->manager, "", &d->bus, f);
    if (r < 0)
        return r;
    d->observer = (struct manager_observer){.on_changed = on_changed, .userdata = d};
    manager_add_observer(d->manager, &d->observer);
    return 0;
}

static void tear_down(struct daemon *d)
{
    bus_close(d->bus);
    manager_free(d->manager);
    sd_event_unref(d->event);
    free(d->worker);
    config_done(&d->config);
}

static int run(struct daemon *d, const struct arguments *a)
{
    struct fault f = {0};

    int r = configure(d, a, &f);
    if (r < 0) {
        log_error("diffused: %s", f.text);
        return EXIT_CONFIG;
    }
    r = set_up(d, a, &f);
    if (r < 0) {
        log_error("diffused: %s", f.text);
        return EXIT_FAILURE;
    }
    log_info("diffused %s: spool %s", DIFFUSED_VERSION, d->config.spool_path);
    manager_start(d->manager);
    notify(d);
    r = sd_event_loop(d->event);
    (void)sd_notify(0, "STOPPING=1\nSTATUS=ending"); /* nobody listens: not our concern */
    if (r != 0)
        log_error("diffused: the bus is gone, ending");
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
    int status = run(&daemon, &arguments);
    tear_down(&daemon);
    return status;
}
