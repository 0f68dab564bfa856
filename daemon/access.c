#include "daemon/access.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#include "vk/base/cleanup.h"

#define LOOKUP_BYTES 65536 /* a group's line with all its members */
#define GROUPS_MAX   65536 /* NGROUPS_MAX of Linux */

bool access_find_group(const char *name, gid_t *ret_gid)
{
    _cleanup_(freep) char *buffer = malloc(LOOKUP_BYTES);
    struct group group, *found = NULL;

    if (!buffer || getgrnam_r(name, &group, buffer, LOOKUP_BYTES, &found) != 0 || !found)
        return false;
    *ret_gid = group.gr_gid;
    return true;
}

bool access_is_member(uint32_t uid, gid_t gid)
{
    _cleanup_(freep) char *buffer = malloc(LOOKUP_BYTES);
    _cleanup_(freep) gid_t *groups = NULL;
    struct passwd user, *found = NULL;
    int count = 0;

    if (!buffer || getpwuid_r(uid, &user, buffer, LOOKUP_BYTES, &found) != 0 || !found)
        return false;
    (void)getgrouplist(user.pw_name, user.pw_gid, NULL, &count); /* says how many there are */
    if (count <= 0 || count > GROUPS_MAX)
        return false;
    groups = malloc((size_t)count * sizeof *groups);
    if (!groups || getgrouplist(user.pw_name, user.pw_gid, groups, &count) < 0)
        return false;
    for (int i = 0; i < count; i++) {
        if (groups[i] == gid)
            return true;
    }
    return false;
}

bool access_may_submit(uint32_t uid, const char *group)
{
    gid_t gid;

    if (uid == 0 || uid == getuid())
        return true;
    return group && access_find_group(group, &gid) && access_is_member(uid, gid);
}
