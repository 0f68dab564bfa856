/* access — users and groups. All of it asks the system's user database, every time, which may be
 * slow. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* False when there is no such group. */
bool access_find_group(const char *name, gid_t *ret_gid);
/* Whether the user is known and has the group, as the first or as a further one. */
bool access_is_member(uint32_t uid, gid_t gid);
/* Root, the daemon's own user, and members of `group` (NULL: nobody else): for the drop folder,
 * where no bus vouches for anybody. */
bool access_may_submit(uint32_t uid, const char *group);
