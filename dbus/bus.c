/* Connection, objects, and what the manager tells the world. */
#include "dbus/bus.h"

#include <errno.h>
#include <string.h>

#include "dbus/bus-internal.h"

/* --- the observer: broadcasts carry ids, paths and states, nothing else ----------------------- */

static void emit_job_signal(struct bus *bus, const char *member, const struct job *job)
{
    char path[BUS_JOB_PATH_SIZE];

    bus_job_path(job, path);
    (void)sd_bus_emit_signal(bus->connection, BUS_PATH, BUS_MANAGER_INTERFACE, member, "to",
                             job->id, path); /* fails with the connection, which ends the loop */
}

static void on_job_added(struct job *job, void *userdata)
{
    struct bus *bus = userdata;
    char path[BUS_JOB_PATH_SIZE];

    bus_job_path(job, path);
    (void)sd_bus_emit_object_added(bus->connection, path);
    emit_job_signal(bus, "JobAdded", job);
}

static void on_job_changed(struct job *job, void *userdata)
{
    struct bus *bus = userdata;
    char path[BUS_JOB_PATH_SIZE];

    bus_job_path(job, path);
    (void)sd_bus_emit_properties_changed(bus->connection, path, BUS_JOB_INTERFACE, "State", NULL);
}

static void on_job_step(struct job *job, double timestep, void *userdata)
{
    bus_send_step(userdata, job, timestep);
}

static void on_job_preview(struct job *job, void *userdata)
{
    bus_send_preview(userdata, job);
}

static void on_job_finished(struct job *job, void *userdata)
{
    struct bus *bus = userdata;

    bus_send_finished(bus, job);
    bus_forget_job(bus, job->id); /* nothing more will be said of it */
}

static void on_job_removed(struct job *job, void *userdata)
{
    struct bus *bus = userdata;
    char path[BUS_JOB_PATH_SIZE];

    bus_job_path(job, path);
    bus_forget_job(bus, job->id);
    emit_job_signal(bus, "JobRemoved", job);
    (void)sd_bus_emit_object_removed(bus->connection, path);
}

static void on_changed(unsigned changes, void *userdata)
{
    bus_manager_changed(userdata, changes);
}

/* --- sleep: login1 says it before and after. Only a broadcast gets here, see bus-gate.c. ------ */

static int on_prepare_for_sleep(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    int is_sleeping;

    (void)error;
    if (sd_bus_message_read(m, "b", &is_sleeping) > 0)
        manager_on_sleep(bus->manager, is_sleeping != 0);
    return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

static int add_objects(struct bus *bus)
{
    sd_bus *c = bus->connection;
    int r;

    if ((r = sd_bus_add_object_manager(c, NULL, BUS_PATH)) < 0 ||
        (r = sd_bus_add_object_vtable(c, NULL, BUS_PATH, BUS_MANAGER_INTERFACE, bus_manager_vtable,
                                      bus)) < 0 ||
        (r = sd_bus_add_object_vtable(c, NULL, BUS_LOG_PATH, BUS_LOG_INTERFACE, bus_log_vtable,
                                      bus)) < 0 ||
        (r = sd_bus_add_fallback_vtable(c, NULL, BUS_JOB_PREFIX, BUS_JOB_INTERFACE, bus_job_vtable,
                                        bus_on_find_job, bus)) < 0)
        return r;
    return sd_bus_add_node_enumerator(c, NULL, BUS_JOB_PREFIX, bus_on_enumerate_jobs, bus);
}

static int add_ears(struct bus *bus)
{
    int r = bus_gate_open(bus);

    if (r >= 0)
        r = bus_peers_open(bus);
    if (r < 0)
        return r;
    return sd_bus_match_signal(bus->connection, NULL, "org.freedesktop.login1",
                               "/org/freedesktop/login1", "org.freedesktop.login1.Manager",
                               "PrepareForSleep", on_prepare_for_sleep, bus);
}

static int connect_bus(struct bus *bus, sd_event *event, struct fault *f)
{
    int r = sd_bus_open_system(&bus->connection);

    if (r < 0)
        return fault_set(f, r, "no connection to the system bus: %s", strerror(-r));
    r = add_objects(bus);
    if (r >= 0)
        r = add_ears(bus);
    if (r >= 0)
        r = sd_bus_set_exit_on_disconnect(bus->connection, 1);
    if (r >= 0)
        r = sd_bus_attach_event(bus->connection, event, SD_EVENT_PRIORITY_NORMAL);
    if (r < 0)
        return fault_set(f, r, "bus: %s", strerror(-r));
    r = sd_bus_request_name(bus->connection, BUS_NAME, 0);
    if (r == -EEXIST)
        return fault_set(f, r, "the bus name %s is taken: does another daemon run?", BUS_NAME);
    if (r < 0)
        return fault_set(f, r, "the bus does not give us the name %s: %s", BUS_NAME, strerror(-r));
    return 0;
}

int bus_open(sd_event *event, struct manager *manager, struct bus **ret_bus, struct fault *f)
{
    _cleanup_(bus_closep) struct bus *bus = calloc(1, sizeof *bus);

    if (!bus)
        return fault_set(f, -ENOMEM, "out of memory");
    bus->found.bus = bus;
    bus->event = event;
    bus->manager = manager;
    int r = connect_bus(bus, event, f);
    if (r < 0)
        return r;
    bus->observer = (struct manager_observer){
        .on_job_added = on_job_added,
        .on_job_changed = on_job_changed,
        .on_job_step = on_job_step,
        .on_job_preview = on_job_preview,
        .on_job_finished = on_job_finished,
        .on_job_removed = on_job_removed,
        .on_changed = on_changed,
        .userdata = bus,
    };
    manager_add_observer(manager, &bus->observer);
    *ret_bus = TAKE_PTR(bus);
    return 0;
}

struct bus *bus_close(struct bus *bus)
{
    if (!bus)
        return NULL;
    manager_remove_observer(bus->manager, &bus->observer);
    bus_results_done(bus);
    bus_watchers_done(bus);
    bus_authorizations_done(bus);
    bus_loans_done(bus);
    bus_peers_done(bus);
    bus_gate_close(bus);
    if (!bus->is_stalled)
        (void)sd_bus_flush(bus->connection); /* the connection may be gone */
    sd_bus_close_unref(bus->connection);
    free(bus);
    return NULL;
}
