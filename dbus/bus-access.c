/* The bus daemon vouches for the uid of a connection; what it does not say is refused. sd-bus 252
 * gives no list of groups, so membership is looked up by uid. */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dbus/bus-internal.h"

#define LOOKUP_BYTES 16384
#define GROUPS_MAX   65536 /* NGROUPS_MAX of Linux */

static sd_bus_creds *creds_free(sd_bus_creds *creds)
{
    return sd_bus_creds_unref(creds);
}
DEFINE_FREEP(sd_bus_creds *, creds_free)

int bus_get_uid(sd_bus_message *message, uint32_t *ret_uid, sd_bus_error *error)
{
    _cleanup_(creds_freep) sd_bus_creds *creds = NULL;
    uid_t uid;

    int r = sd_bus_query_sender_creds(message, SD_BUS_CREDS_EUID, &creds);
    if (r >= 0)
        r = sd_bus_creds_get_euid(creds, &uid);
    if (r < 0)
        return bus_error_setf(error, -EACCES, "the bus does not say who you are");
    *ret_uid = uid;
    return 0;
}

static bool find_group(const char *name, gid_t *ret_gid)
{
    char buffer[LOOKUP_BYTES];
    struct group group, *found = NULL;

    if (getgrnam_r(name, &group, buffer, sizeof buffer, &found) != 0 || !found)
        return false;
    *ret_gid = group.gr_gid;
    return true;
}

static bool is_member(uint32_t uid, gid_t gid)
{
    char buffer[LOOKUP_BYTES];
    struct passwd user, *found = NULL;
    int count = 64;

    if (getpwuid_r(uid, &user, buffer, sizeof buffer, &found) != 0 || !found)
        return false;
    _cleanup_(freep) gid_t *groups = malloc((size_t)count * sizeof *groups);
    if (groups && getgrouplist(user.pw_name, user.pw_gid, groups, &count) < 0) {
        free(groups); /* count says now how many there are */
        groups = count > GROUPS_MAX ? NULL : malloc((size_t)count * sizeof *groups);
        if (groups && getgrouplist(user.pw_name, user.pw_gid, groups, &count) < 0)
            return false;
    }
    for (int i = 0; groups && i < count; i++)
        if (groups[i] == gid)
            return true;
    return false;
}

int bus_check_submit(struct bus *bus, sd_bus_message *message, uint32_t *ret_uid,
                     sd_bus_error *error)
{
    const char *group = manager_get_config(bus->manager)->access_group;
    gid_t gid;

    int r = bus_get_uid(message, ret_uid, error);
    if (r < 0)
        return r;
    if (*ret_uid == 0 || *ret_uid == getuid())
        return 0;
    if (group && find_group(group, &gid) && is_member(*ret_uid, gid))
        return 0;
    return bus_error_setf(error, -EACCES,
                          "user %" PRIu32 " may not submit jobs: only members of group %s",
                          *ret_uid, group ? group : "root");
}

int bus_check_owner(sd_bus_message *message, const struct job *job, sd_bus_error *error)
{
    uint32_t uid;

    int r = bus_get_uid(message, &uid, error);
    if (r < 0)
        return r;
    if (uid == 0 || uid == job->owner)
        return 0;
    return bus_error_setf(error, -EPERM, "job %" PRIu64 " belongs to another user", job->id);
}
