/* Who is behind a unique name. The bus daemon is asked once per connection, and the loop goes on
 * meanwhile: bus-gate.c holds back the calls whose answer depends on it. Whoever leaves the bus is
 * forgotten; unique names are never given twice, so nobody inherits an entry. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dbus/bus-internal.h"

#define PEERS_MAX  4096u    /* connections; dbus-daemon allows 2048 */
#define ASK_USEC   5000000u /* the bus daemon answers within microseconds */
#define GROUPS_MAX 65536u   /* NGROUPS_MAX of Linux */

static sd_bus_message *message_free(sd_bus_message *message)
{
    return sd_bus_message_unref(message);
}
DEFINE_FREEP(sd_bus_message *, message_free)

/* --- accounts --------------------------------------------------------------------------------- */

/* One that is full again says no more than none. Those of users with connections stay. */
static void forget_full_accounts(struct bus *bus, uint64_t now)
{
    const struct config *config = manager_get_config(bus->manager);

    for (struct bus_account **at = &bus->accounts, *a; (a = *at);) {
        bool is_full = bus_take_calls(a, now, (double)config->limit_calls_per_second,
                                      (double)config->limit_calls_burst, 0) &&
                       a->calls >= (double)config->limit_calls_burst;
        if (a->peers > 0 || a->inputs > 0 || !is_full) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        free(a);
    }
}

struct bus_account *bus_account_find(struct bus *bus, uint32_t uid)
{
    struct bus_account *a = bus->accounts;

    while (a && a->uid != uid)
        a = a->next;
    return a;
}

static struct bus_account *account_of(struct bus *bus, uint32_t uid)
{
    uint64_t now = 0;

    for (struct bus_account *a = bus->accounts; a; a = a->next)
        if (a->uid == uid)
            return a;
    (void)sd_event_now(bus->event, CLOCK_MONOTONIC, &now); /* the loop runs: cannot fail */
    forget_full_accounts(bus, now);
    struct bus_account *account = calloc(1, sizeof *account);
    if (!account)
        return NULL;
    account->uid = uid;
    account->calls = (double)manager_get_config(bus->manager)->limit_calls_burst;
    account->filled_usec = now;
    account->next = bus->accounts;
    bus->accounts = account;
    return account;
}

/* --- the bus daemon's answer ------------------------------------------------------------------ */

struct credentials {
    uint32_t uid;
    bool has_uid;
    const uint32_t *groups; /* in the message */
    size_t group_bytes;
};

static int read_credential(sd_bus_message *reply, struct credentials *c)
{
    const void *groups;
    const char *key;

    int r = sd_bus_message_read_basic(reply, 's', &key);
    if (r < 0)
        return r;
    if (strcmp(key, "UnixUserID") == 0) {
        r = sd_bus_message_read(reply, "v", "u", &c->uid);
        c->has_uid = r > 0;
        return r;
    }
    if (strcmp(key, "UnixGroupIDs") != 0)
        return sd_bus_message_skip(reply, "v");
    r = sd_bus_message_enter_container(reply, 'v', "au");
    if (r > 0)
        r = sd_bus_message_read_array(reply, 'u', &groups, &c->group_bytes);
    if (r < 0)
        return r;
    c->groups = groups;
    return sd_bus_message_exit_container(reply);
}

static int read_credentials(sd_bus_message *reply, struct credentials *c)
{
    int r = sd_bus_message_enter_container(reply, 'a', "{sv}");

    while (r >= 0 && (r = sd_bus_message_enter_container(reply, 'e', "sv")) > 0) {
        r = read_credential(reply, c);
        if (r >= 0)
            r = sd_bus_message_exit_container(reply);
    }
    if (r < 0)
        return r;
    return c->has_uid && c->uid != UINT32_MAX ? 0 : -ENODATA;
}

static int keep_groups(struct bus_peer *peer, const struct credentials *c)
{
    if (!c->groups || c->group_bytes > GROUPS_MAX * sizeof *c->groups)
        return 0;
    peer->groups = malloc(c->group_bytes ? c->group_bytes : 1);
    if (!peer->groups)
        return -ENOMEM;
    if (c->group_bytes)
        memcpy(peer->groups, c->groups, c->group_bytes);
    peer->group_count = c->group_bytes / sizeof *c->groups;
    return 0;
}

static int learn(struct bus *bus, struct bus_peer *peer, sd_bus_message *reply)
{
    const char *sender = sd_bus_message_get_sender(reply);
    struct credentials c = {0};

    if (sd_bus_message_is_method_error(reply, NULL) || !sender || strcmp(sender, BUS_DRIVER) != 0)
        return -EACCES;
    int r = read_credentials(reply, &c);
    if (r >= 0)
        r = keep_groups(peer, &c);
    if (r < 0)
        return r;
    peer->account = account_of(bus, c.uid);
    if (!peer->account)
        return -ENOMEM;
    peer->account->peers++;
    return 0;
}

/* The peer is the one that waits for this slot. */
static int on_credentials(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    const sd_bus_slot *slot = sd_bus_get_current_slot(bus->connection);
    struct bus_peer *peer = bus->peers;

    (void)error;
    while (peer && peer->asking != slot)
        peer = peer->next;
    if (!peer)
        return 0;
    int r = learn(bus, peer, reply);
    if (r >= 0)
        bus_gate_release(bus, peer);
    else
        bus_gate_drop(bus, peer, false);
    peer->asking = sd_bus_slot_unref(peer->asking); /* sd-bus has it until we return */
    return 0;
}

static int ask(struct bus *bus, struct bus_peer *peer)
{
    _cleanup_(message_freep) sd_bus_message *call = NULL;

    int r =
        sd_bus_message_new_method_call(bus->connection, &call, BUS_DRIVER, "/org/freedesktop/DBus",
                                       BUS_DRIVER, "GetConnectionCredentials");
    if (r >= 0)
        r = sd_bus_message_append(call, "s", peer->name);
    return r < 0 ? r
                 : sd_bus_call_async(bus->connection, &peer->asking, call, on_credentials, bus,
                                     ASK_USEC);
}

/* --- entries ---------------------------------------------------------------------------------- */

static struct bus_peer *peer_free(struct bus *bus, struct bus_peer *peer)
{
    if (!peer)
        return NULL;
    bus_gate_drop(bus, peer, true);
    sd_bus_slot_unref(peer->asking);
    if (peer->account)
        peer->account->peers--;
    free(peer->groups);
    free(peer->name);
    free(peer);
    return NULL;
}

/* Moves it to the front: who calls much is found soon. */
struct bus_peer *bus_peer_find(struct bus *bus, const char *name)
{
    for (struct bus_peer **at = &bus->peers, *peer; (peer = *at); at = &peer->next) {
        if (strcmp(peer->name, name) != 0)
            continue;
        *at = peer->next;
        peer->next = bus->peers;
        bus->peers = peer;
        return peer;
    }
    return NULL;
}

static struct bus_peer *add(struct bus *bus, const char *name)
{
    if (bus->peer_count >= PEERS_MAX)
        return NULL;
    struct bus_peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    peer->name = strdup(name);
    if (!peer->name)
        return peer_free(bus, peer);
    peer->next = bus->peers;
    bus->peers = peer;
    bus->peer_count++;
    return peer;
}

struct bus_peer *bus_peer_of(struct bus *bus, sd_bus_message *message)
{
    const char *name = sd_bus_message_get_sender(message);
    struct bus_peer *peer = name ? bus_peer_find(bus, name) : NULL;

    if (name && !peer)
        peer = add(bus, name);
    if (!peer || peer->account || peer->asking)
        return peer;
    return ask(bus, peer) < 0 ? NULL : peer;
}

static int on_name_lost(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    const char *name;

    (void)error;
    if (sd_bus_message_read(m, "s", &name) < 0)
        return 0;
    struct bus_peer *peer = bus_peer_find(bus, name); /* in front now */
    if (!peer)
        return 0;
    bus->peers = peer->next;
    bus->peer_count--;
    bus_watcher_gone(bus, name);
    bus_results_gone(bus, name);
    bus_authorizations_gone(bus, name);
    peer_free(bus, peer);
    return 0;
}

int bus_peers_open(struct bus *bus)
{
    return sd_bus_add_match(bus->connection, NULL,
                            "type='signal',sender='" BUS_DRIVER "',interface='" BUS_DRIVER
                            "',member='NameOwnerChanged',arg2=''",
                            on_name_lost, bus);
}

void bus_peers_done(struct bus *bus)
{
    for (struct bus_peer *peer = bus->peers, *next; peer; peer = next) {
        next = peer->next;
        peer_free(bus, peer);
    }
    bus->peers = NULL;
    for (struct bus_account *a = bus->accounts, *next; a; a = next) {
        next = a->next;
        free(a);
    }
    bus->accounts = NULL;
}
