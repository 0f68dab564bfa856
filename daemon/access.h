/* access — who may use the service, by uid alone: for the drop folder, where no bus vouches for
 * anybody. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Root, the daemon's own user, and members of `group` (NULL: nobody else). Asks the system's user
 * database, every time. */
bool access_may_submit(uint32_t uid, const char *group);
