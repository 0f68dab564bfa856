/* diffusectl watch — what happens to jobs and to the daemon, as it happens, one line each. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "dbus/diffusectl.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

static const char *const matches[] = {
    "type='signal',sender='" CTL_BUS_NAME "',interface='" CTL_MANAGER "'",
    "type='signal',sender='" CTL_BUS_NAME "',interface='" CTL_PROPERTIES
    "',member='PropertiesChanged'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
    "member='NameOwnerChanged',arg0='" CTL_BUS_NAME "'",
};

struct watch {
    sd_bus *bus;
    bool json;
    struct ARRAY(uint64_t) ids; /* those that have not ended; empty with `every` */
    bool every;                 /* no job was named */
    bool gone;                  /* the daemon lost its name */
};

static void unref_bus(sd_bus **bus)
{
    (void)sd_bus_flush_close_unref(*bus);
}

static void unref_message(sd_bus_message **m)
{
    (void)sd_bus_message_unref(*m);
}

/* The number at the end of a job's object path, 0 for any other path. */
static uint64_t job_of_path(const char *path)
{
    static const char prefix[] = CTL_ROOT "/job/";

    if (strncmp(path, prefix, strlen(prefix)) != 0)
        return 0;
    return strtoull(path + strlen(prefix), NULL, 10);
}

static bool is_wanted(const struct watch *w, uint64_t id)
{
    for (size_t i = 0; i < w->ids.count; i++) {
        if (w->ids.items[i] == id)
            return true;
    }
    return w->every;
}

static void forget(struct watch *w, uint64_t id)
{
    for (size_t i = 0; i < w->ids.count; i++) {
        if (w->ids.items[i] == id)
            w->ids.items[i--] = w->ids.items[--w->ids.count];
    }
}

static void write_clock(void)
{
    time_t now = time(NULL);
    struct tm tm;
    char text[16] = "";

    if (localtime_r(&now, &tm))
        (void)strftime(text, sizeof text, "%H:%M:%S", &tm);
    (void)printf("%s  ", text);
}

/* An event about a job with one word: "added", "running". */
static void write_word(const struct watch *w, const char *event, uint64_t id, const char *word)
{
    if (w->json) {
        (void)printf("{\"Event\": \"%s\", \"Id\": %" PRIu64, event, id);
        if (word)
            (void)fputs(", \"State\": ", stdout);
        if (word)
            ctl_write_json_string(stdout, word);
        (void)puts("}");
        return;
    }
    write_clock();
    (void)printf("job %" PRIu64 "  ", id);
    ctl_write_escaped(stdout, word ? word : event);
    (void)putchar('\n');
}

static void on_step(const struct watch *w, uint64_t id, sd_bus_message *m)
{
    uint32_t picture, step, steps;
    double timestep;
    uint64_t eta;
    char left[32];

    if (sd_bus_message_read(m, "uuudt", &picture, &step, &steps, &timestep, &eta) < 0)
        return;
    if (w->json) {
        (void)printf("{\"Event\": \"Step\", \"Id\": %" PRIu64 ", \"Picture\": %u, \"Step\": %u, "
                     "\"Steps\": %u, \"Timestep\": %.9g, \"EtaUsec\": %" PRIu64 "}\n",
                     id, picture, step, steps, timestep, eta);
        return;
    }
    ctl_format_duration(eta, left, sizeof left);
    write_clock();
    (void)printf("job %" PRIu64 "  picture %u  step %u/%u  %s left\n", id, picture, step, steps,
                 left);
}

/* Asks for a job's Step and Finished signals. */
static int watch_job(sd_bus *bus, uint64_t id, sd_bus_error *error)
{
    char path[CTL_PATH_MAX];

    ctl_job_path(id, path);
    return sd_bus_call_method(bus, CTL_BUS_NAME, CTL_ROOT, CTL_MANAGER, "Watch", error, NULL, "o",
                              path);
}

static void on_added(struct watch *w, uint64_t id)
{
    char path[CTL_PATH_MAX];

    if (!w->every)
        return;
    write_word(w, "JobAdded", id, NULL);
    ctl_job_path(id, path);
    /* Without waiting: another user's job is refused, and that is all right. */
    (void)sd_bus_call_method_async(w->bus, NULL, CTL_BUS_NAME, CTL_ROOT, CTL_MANAGER, "Watch", NULL,
                                   NULL, "o", path);
}

/* PropertiesChanged of the daemon: each as a line. */
static void on_manager_changed(const struct watch *w, sd_bus_message *m)
{
    const char *key;
    unsigned n = 0;
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");

    if (!w->every)
        return;
    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        if (sd_bus_message_read_basic(m, 's', &key) < 0)
            return;
        if (w->json) {
            (void)printf("%s\"%s\": ", n++ ? ", " : "{\"Event\": \"PropertiesChanged\", ", key);
            r = ctl_write_json(stdout, m);
        } else {
            write_clock();
            (void)printf("%s  ", key);
            r = ctl_write_value(stdout, m, CTL_UNIT_NONE);
            (void)putchar('\n');
        }
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    if (n)
        (void)puts("}");
}

static void on_job_changed(const struct watch *w, uint64_t id, sd_bus_message *m)
{
    const char *key, *state;
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");

    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        if (sd_bus_message_read_basic(m, 's', &key) < 0)
            return;
        if (strcmp(key, "State") != 0)
            r = sd_bus_message_skip(m, "v");
        else if ((r = sd_bus_message_read(m, "v", "s", &state)) >= 0)
            write_word(w, "State", id, state);
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
}

static void on_changed(const struct watch *w, sd_bus_message *m, uint64_t id)
{
    const char *interface;

    if (sd_bus_message_read_basic(m, 's', &interface) < 0)
        return;
    if (strcmp(interface, CTL_MANAGER) == 0)
        on_manager_changed(w, m);
    else if (strcmp(interface, CTL_JOB) == 0 && is_wanted(w, id))
        on_job_changed(w, id, m);
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
    struct watch *w = userdata;
    const char *path = sd_bus_message_get_path(m), *state;
    uint64_t id = path ? job_of_path(path) : 0;

    (void)ret_error;
    if (sd_bus_message_is_signal(m, CTL_MANAGER, "JobAdded") &&
        sd_bus_message_read_basic(m, 't', &id) > 0)
        on_added(w, id);
    else if (sd_bus_message_is_signal(m, CTL_MANAGER, "JobRemoved") &&
             sd_bus_message_read_basic(m, 't', &id) > 0) {
        if (is_wanted(w, id))
            write_word(w, "JobRemoved", id, NULL);
        forget(w, id);
    } else if (sd_bus_message_is_signal(m, CTL_PROPERTIES, "PropertiesChanged"))
        on_changed(w, m, id);
    else if (sd_bus_message_is_signal(m, CTL_JOB, "Step") && is_wanted(w, id))
        on_step(w, id, m);
    else if (sd_bus_message_is_signal(m, CTL_JOB, "Finished") && is_wanted(w, id) &&
             sd_bus_message_read_basic(m, 's', &state) > 0) {
        write_word(w, "Finished", id, state);
        forget(w, id);
    } else if (sd_bus_message_is_signal(m, "org.freedesktop.DBus", "NameOwnerChanged"))
        w->gone = true;
    return 0;
}

/* Watches what was named. A job that has ended already is told at once. */
static int watch_named(struct watch *w, uint64_t id)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(freep) char *state = NULL;
    char path[CTL_PATH_MAX];

    int r = watch_job(w->bus, id, &error);
    if (r < 0)
        return ctl_bus_failed(&error, r);
    ctl_job_path(id, path);
    int code = ctl_get_basic(w->bus, path, CTL_JOB, "State", 's', &state);
    if (code)
        return code;
    if (ctl_is_end_state(state)) {
        write_word(w, "Finished", id, state);
        return 0;
    }
    uint64_t *slot = array_push(&w->ids);
    if (!slot)
        return ctl_error(CTL_EXIT_FAILED, "out of memory");
    *slot = id;
    return 0;
}

/* Watches all jobs there are already. */
static int watch_present(struct watch *w)
{
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    const char *path, *state;
    uint64_t id;
    uint32_t owner;
    int r;

    int code = ctl_call(w->bus, CTL_ROOT, CTL_MANAGER, "ListJobs", &reply, "a{sv}", 0);
    if (code)
        return code;
    r = sd_bus_message_enter_container(reply, 'a', "(tosu)");
    while (r >= 0 && (r = sd_bus_message_read(reply, "(tosu)", &id, &path, &state, &owner)) > 0) {
        if (!ctl_is_end_state(state))
            (void)watch_job(w->bus, id, NULL); /* it may have gone meanwhile */
    }
    return r < 0 ? ctl_bus_failed(NULL, r) : 0;
}

static int watch_loop(struct watch *w)
{
    int r = 1;

    while (w->every || w->ids.count > 0) {
        if (fflush(stdout) != 0)
            return ctl_finish_output();
        if (w->gone)
            return ctl_error(CTL_EXIT_UNREACHABLE, "the daemon went away");
        r = sd_bus_process(w->bus, NULL);
        if (r == 0)
            r = sd_bus_wait(w->bus, UINT64_MAX);
        if (r < 0 && r != -EINTR)
            return ctl_bus_failed(NULL, r);
    }
    return ctl_finish_output();
}

static int watch(struct watch *w, const struct ctl_verb *verb, int count, char **names)
{
    uint64_t id;
    int code = 0;

    int r = sd_bus_add_filter(w->bus, NULL, on_message, w);
    for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(matches); i++)
        r = sd_bus_add_match(w->bus, NULL, matches[i], NULL, NULL);
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    w->every = count == 0;
    if (w->every)
        code = watch_present(w);
    for (int i = 0; code == 0 && i < count; i++) {
        code = ctl_parse_id(verb, names[i], &id);
        if (code == 0)
            code = watch_named(w, id);
    }
    return code ? code : watch_loop(w);
}

int verb_watch(const struct ctl_verb *verb, int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"json", no_argument, NULL, 'j'}, {0}};
    _cleanup_(unref_bus) sd_bus *bus = NULL;
    struct watch w = {0};
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h')
            return ctl_help(verb);
        if (option != 'j')
            return ctl_usage(verb, "the flags are not right");
        w.json = true;
    }
    int code = ctl_connect(&bus);
    if (code)
        return code;
    w.bus = bus;
    code = watch(&w, verb, argc - optind, argv + optind);
    array_done(&w.ids);
    return code;
}
