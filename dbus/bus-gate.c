/* The gate: every message is seen here before sd-bus looks for its object.
 *
 * Calls are counted per user, and refused above the limit before their arguments are read. A call
 * whose answer depends on who asks waits here until the bus daemon has said who that is; it is then
 * carried out through the same vtables. All other calls (introspection, public properties) pass at
 * once. Signals sent to us alone are dropped: those we listen to are broadcast, and only of a
 * broadcast does the bus daemon check that its sender has the name we wait for. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "dbus/bus-internal.h"
#include "vk/base/log.h"

#define HELD_PER_PEER 32u
#define HELD_MAX      1024u /* of all peers */
#define JOBS_PER_CALL 64u   /* a list of so many jobs counts as one call more */

/* Messages in our own queue to the bus daemon, which takes them as long as it has room. */
#define QUEUE_CONGESTED 256u   /* progress is no longer sent */
#define QUEUE_MAX       16384u /* nothing is answered any more */

/* A bus daemon that takes nothing from us for so long is of no use to anybody: it may have one
 * client that never reads, and as much on the way to it as it lets us have. A new connection has a
 * new account there: we end, and are started again. */
#define STALL_USEC    20000000u
#define PING_GAP_USEC 5000000u /* between an answer and the next question */

#define PROPERTIES "org.freedesktop.DBus.Properties"

struct held {
    struct held *next;
    sd_bus_message *call;
};

/* --- how many --------------------------------------------------------------------------------- */

bool bus_take_calls(struct bus_account *a, uint64_t now_usec, double per_second, double burst,
                    double calls)
{
    if (per_second <= 0)
        return true;
    if (now_usec > a->filled_usec)
        a->calls += (double)(now_usec - a->filled_usec) * per_second / 1e6;
    a->filled_usec = now_usec;
    if (a->calls > burst)
        a->calls = burst;
    if (calls > burst) /* what costs more than all there can be costs all there is */
        calls = burst;
    if (a->calls < calls)
        return false;
    a->calls -= calls;
    return true;
}

/* A list's cost grows with the jobs in it. */
static double cost_of(const struct bus *bus, const sd_bus_message *m)
{
    const char *member = sd_bus_message_get_member((sd_bus_message *)m);
    size_t jobs;

    if (!member || (strcmp(member, "GetManagedObjects") != 0 && strcmp(member, "ListJobs") != 0))
        return 1;
    (void)manager_jobs(bus->manager, &jobs);
    return 1 + (double)(jobs / JOBS_PER_CALL);
}

static int charge(struct bus *bus, struct bus_account *account, double calls, sd_bus_error *error)
{
    const struct config *config = manager_get_config(bus->manager);
    uint64_t now = 0;

    if (account->uid == 0 || account->uid == getuid())
        return 0;
    (void)sd_event_now(bus->event, CLOCK_MONOTONIC, &now); /* the loop runs: cannot fail */
    if (bus_take_calls(account, now, (double)config->limit_calls_per_second,
                       (double)config->limit_calls_burst, calls))
        return 0;
    return bus_error_setf(error, -EDQUOT, "too many calls: %" PRIu64 " a second are yours",
                          config->limit_calls_per_second);
}

static uint64_t queued_messages(const struct bus *bus)
{
    uint64_t queued = 0;

    return sd_bus_get_n_queued_write(bus->connection, &queued) < 0 ? 0 : queued;
}

static int on_pong(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;

    (void)error;
    bus->ping = sd_bus_slot_unref(bus->ping);
    (void)sd_event_now(bus->event, CLOCK_MONOTONIC, &bus->ponged_usec);
    if (!sd_bus_message_is_method_error(reply, SD_BUS_ERROR_NO_REPLY) &&
        !sd_bus_message_is_method_error(reply, SD_BUS_ERROR_TIMEOUT))
        return 0; /* whatever it says: it has read us */
    log_error("the bus daemon takes nothing from us any more: starting anew");
    bus->is_stalled = true;
    return sd_event_exit(bus->event, EXIT_FAILURE);
}

/* Does the bus daemon still read what we send? Asked while there are calls. */
static void ping(struct bus *bus)
{
    sd_bus_message *call = NULL;
    uint64_t now = 0;

    (void)sd_event_now(bus->event, CLOCK_MONOTONIC, &now); /* the loop runs: cannot fail */
    if (bus->ping || now < bus->ponged_usec + PING_GAP_USEC)
        return;
    int r =
        sd_bus_message_new_method_call(bus->connection, &call, BUS_DRIVER, "/org/freedesktop/DBus",
                                       "org.freedesktop.DBus.Peer", "Ping");
    if (r >= 0)
        r = sd_bus_call_async(bus->connection, &bus->ping, call, on_pong, bus, STALL_USEC);
    sd_bus_message_unref(call);
    if (r < 0)
        log_warning("the bus daemon is not asked whether it listens: %s", strerror(-r));
}

bool bus_is_congested(const struct bus *bus)
{
    return queued_messages(bus) > QUEUE_CONGESTED;
}

void bus_reply_failure(sd_bus_message *call, int r, sd_bus_error *error)
{
    (void)sd_bus_reply_method_errno(call, r, error); /* the caller may be gone */
    sd_bus_error_free(error);
}

/* --- held calls ------------------------------------------------------------------------------- */

static const sd_bus_vtable *find_method(const sd_bus_vtable *row, const char *member)
{
    for (; row->type != _SD_BUS_VTABLE_END; row++)
        if (row->type == _SD_BUS_VTABLE_METHOD && strcmp(row->x.method.member, member) == 0)
            return row;
    return NULL;
}

static int call_method(sd_bus_message *m, const sd_bus_vtable *vtable, void *userdata,
                       sd_bus_error *error)
{
    const char *member = sd_bus_message_get_member(m);
    const sd_bus_vtable *row = find_method(vtable, member);

    if (!row)
        return sd_bus_error_setf(error, SD_BUS_ERROR_UNKNOWN_METHOD, "Unknown method %.64s.",
                                 member);
    if (!sd_bus_message_has_signature(m, row->x.method.signature))
        return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS,
                                 "Invalid arguments to %s(), expecting '%s'.", member,
                                 row->x.method.signature);
    return row->x.method.handler(m, userdata, error);
}

/* As sd-bus would have done, had it known who calls. */
static int carry_out(struct bus *bus, sd_bus_message *m, sd_bus_error *error)
{
    const char *path = sd_bus_message_get_path(m);
    const char *interface = sd_bus_message_get_interface(m);

    if (interface && strcmp(interface, PROPERTIES) == 0)
        return strcmp(sd_bus_message_get_member(m), "Set") == 0 ? bus_log_set(bus, m, error)
                                                                : bus_job_get(bus, m, error);
    bool is_manager = strcmp(path, BUS_PATH) == 0;
    if (!is_manager && strncmp(path, BUS_JOB_PREFIX "/", strlen(BUS_JOB_PREFIX "/")) != 0)
        return sd_bus_error_setf(error, SD_BUS_ERROR_UNKNOWN_OBJECT, "Unknown object '%.128s'.",
                                 path);
    if (interface && strcmp(interface, is_manager ? BUS_MANAGER_INTERFACE : BUS_JOB_INTERFACE) != 0)
        return sd_bus_error_setf(error, SD_BUS_ERROR_UNKNOWN_METHOD,
                                 "Unknown interface %.128s of this object.", interface);
    if (is_manager)
        return call_method(m, bus_manager_vtable, bus, error);
    int r = bus_find_job(bus, path, &bus->found.job, error);
    return r < 0 ? r : call_method(m, bus_job_vtable, &bus->found, error);
}

static struct held *take_held(struct bus *bus, struct bus_peer *peer)
{
    struct held *held = peer->held;

    if (held) {
        peer->held = held->next;
        peer->held_count--;
        bus->held_count--;
    }
    return held;
}

static void release_one(struct bus *bus, struct bus_peer *peer, sd_bus_message *call)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    int r = charge(bus, peer->account, cost_of(bus, call), &error);
    if (r >= 0)
        r = sd_bus_message_rewind(call, true);
    if (r >= 0)
        r = carry_out(bus, call, &error);
    if (r < 0 || sd_bus_error_is_set(&error))
        bus_reply_failure(call, r, &error);
}

void bus_gate_release(struct bus *bus, struct bus_peer *peer)
{
    sd_bus_error error = SD_BUS_ERROR_NULL;
    struct held *held;

    for (; peer->early > 0; peer->early--) /* all were answered: what is not there is not owed */
        if (charge(bus, peer->account, 1, &error) < 0)
            sd_bus_error_free(&error);
    while ((held = take_held(bus, peer))) {
        release_one(bus, peer, held->call);
        sd_bus_message_unref(held->call);
        free(held);
    }
}

void bus_gate_drop(struct bus *bus, struct bus_peer *peer, bool is_gone)
{
    struct held *held;

    while ((held = take_held(bus, peer))) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        if (!is_gone)
            bus_reply_failure(held->call,
                              bus_error_setf(&error, -EACCES, "the bus does not say who you are"),
                              &error);
        sd_bus_message_unref(held->call);
        free(held);
    }
}

static int hold(struct bus *bus, struct bus_peer *peer, sd_bus_message *m, sd_bus_error *error)
{
    struct held **end = &peer->held;

    if (peer->held_count >= HELD_PER_PEER || bus->held_count >= HELD_MAX)
        return bus_error_setf(error, -EDQUOT,
                              "too many calls before the bus daemon has said who you are");
    struct held *held = calloc(1, sizeof *held);
    if (!held)
        return -ENOMEM;
    held->call = sd_bus_message_ref(m);
    while (*end)
        end = &(*end)->next;
    *end = held;
    peer->held_count++;
    bus->held_count++;
    return 1; /* ours now */
}

/* --- the filter ------------------------------------------------------------------------------- */

static bool is_private_get(sd_bus_message *m)
{
    const char *interface, *property;

    if (!sd_bus_message_has_signature(m, "ss"))
        return false; /* sd-bus refuses it */
    bool is_private = sd_bus_message_read(m, "ss", &interface, &property) > 0 &&
                      strcmp(interface, BUS_JOB_INTERFACE) == 0 && bus_job_is_private(property);
    return sd_bus_message_rewind(m, true) >= 0 && is_private;
}

/* Does the answer depend on who asks? */
static bool needs_account(sd_bus_message *m)
{
    const char *interface = sd_bus_message_get_interface(m);
    const char *member = sd_bus_message_get_member(m);

    if (!interface || strcmp(interface, BUS_MANAGER_INTERFACE) == 0 ||
        strcmp(interface, BUS_JOB_INTERFACE) == 0)
        return true;
    if (strcmp(interface, PROPERTIES) != 0)
        return false;
    return strcmp(member, "Set") == 0 || (strcmp(member, "Get") == 0 && is_private_get(m));
}

/* sd-bus takes a machine whose id cannot be read for the end of the connection. */
static int check_machine_id(sd_bus_message *m, sd_bus_error *error)
{
    sd_id128_t id;

    if (!sd_bus_message_is_method_call(m, "org.freedesktop.DBus.Peer", "GetMachineId"))
        return 0;
    int r = sd_id128_get_machine(&id);
    return r < 0 ? sd_bus_error_setf(error, SD_BUS_ERROR_FILE_NOT_FOUND, "/etc/machine-id: %s",
                                     strerror(-r))
                 : 0;
}

static int on_call(struct bus *bus, sd_bus_message *m, sd_bus_error *error)
{
    struct bus_peer *peer = bus_peer_of(bus, m);

    ping(bus);
    if (!peer)
        return bus_error_setf(error, -EACCES, "the bus does not say who you are");
    if (peer->account)
        return charge(bus, peer->account, cost_of(bus, m), error);
    if (needs_account(m))
        return hold(bus, peer, m, error);
    const struct config *config = manager_get_config(bus->manager);
    if (++peer->early > config->limit_calls_burst && config->limit_calls_per_second > 0)
        return bus_error_setf(error, -EDQUOT, "too many calls at once");
    return 0;
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    const char *sender = sd_bus_message_get_sender(m);

    if (sd_bus_message_is_method_call(m, NULL, NULL)) {
        int r = queued_messages(bus) > QUEUE_MAX ? 1 : on_call(bus, m, error);
        return r ? r : check_machine_id(m, error);
    }
    if (sd_bus_message_is_signal(m, NULL, NULL) && sd_bus_message_get_destination(m))
        return sender && strcmp(sender, BUS_DRIVER) == 0 ? 0 : 1;
    return 0;
}

int bus_gate_open(struct bus *bus)
{
    return sd_bus_add_filter(bus->connection, NULL, on_message, bus);
}

void bus_gate_close(struct bus *bus)
{
    bus->ping = sd_bus_slot_unref(bus->ping);
}
