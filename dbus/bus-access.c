/* Who may. The bus daemon vouches for the user and the groups of a connection (bus-peer.c asks it
 * ahead of time); what it does not say is refused. Where it does not name groups (it may be older
 * than ours) the user database is asked, at most once per user in a while, for it may be slow. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/access.h"
#include "dbus/bus-internal.h"

#define KEEP_USEC 10000000u /* what the user database said */

static struct bus_peer *peer_of(struct bus *bus, sd_bus_message *message)
{
    const char *sender = sd_bus_message_get_sender(message);
    struct bus_peer *peer = sender ? bus_peer_find(bus, sender) : NULL;

    return peer && peer->account ? peer : NULL;
}

int bus_get_uid(struct bus *bus, sd_bus_message *message, uint32_t *ret_uid, sd_bus_error *error)
{
    const struct bus_peer *peer = peer_of(bus, message);

    if (!peer)
        return bus_error_setf(error, -EACCES, "the bus does not say who you are");
    *ret_uid = peer->account->uid;
    return 0;
}

/* The access group's number is looked up again when its name has changed, and when it is old. */
static bool find_group(struct bus *bus, const char *name, uint64_t now, gid_t *ret_gid)
{
    struct bus_group *known = &bus->access_group;

    if (now >= known->until_usec || strcmp(known->name, name) != 0) {
        (void)snprintf(known->name, sizeof known->name, "%s", name);
        known->gid = 0;
        known->exists = access_find_group(name, &known->gid);
        known->until_usec = now + KEEP_USEC;
    }
    *ret_gid = known->gid;
    return known->exists;
}

static bool is_member(const struct bus_peer *peer, gid_t gid, uint64_t now)
{
    struct bus_account *account = peer->account;

    if (peer->groups) {
        for (size_t i = 0; i < peer->group_count; i++)
            if (peer->groups[i] == gid)
                return true;
        return false;
    }
    if (now >= account->member_until_usec || account->member_gid != gid) {
        account->is_member = access_is_member(account->uid, gid);
        account->member_gid = gid;
        account->member_until_usec = now + KEEP_USEC;
    }
    return account->is_member;
}

int bus_check_submit(struct bus *bus, sd_bus_message *message, uint32_t *ret_uid,
                     sd_bus_error *error)
{
    const char *group = manager_get_config(bus->manager)->access_group;
    uint64_t now = 0;
    gid_t gid;

    int r = bus_get_uid(bus, message, ret_uid, error);
    if (r < 0)
        return r;
    if (*ret_uid == 0 || *ret_uid == getuid())
        return 0;
    (void)sd_event_now(bus->event, CLOCK_MONOTONIC, &now); /* the loop runs: cannot fail */
    if (group && find_group(bus, group, now, &gid) && is_member(peer_of(bus, message), gid, now))
        return 0;
    return bus_error_setf(error, -EACCES,
                          "user %" PRIu32 " may not submit jobs: only members of group %s",
                          *ret_uid, group ? group : "root");
}

int bus_check_owner(struct bus *bus, sd_bus_message *message, const struct job *job,
                    sd_bus_error *error)
{
    uint32_t uid = UINT32_MAX;

    int r = bus_get_uid(bus, message, &uid, error);
    if (r < 0)
        return r;
    if (uid == 0 || uid == job->owner)
        return 0;
    return bus_error_setf(error, -EPERM, "job %" PRIu64 " belongs to another user", job->id);
}
