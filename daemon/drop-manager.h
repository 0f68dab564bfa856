/* drop-manager — the drop folder of a manager: drop.h on manager.h. */
#pragma once

#include "daemon/manager.h"

struct drop_manager;

/* Opens the folder of the manager's configuration; *ret is NULL when it names none. */
int drop_manager_new(sd_event *event, struct manager *manager, struct drop_manager **ret,
                     struct fault *f);
/* Before the manager is freed; after manager_stop() or before, both are well. */
struct drop_manager *drop_manager_free(struct drop_manager *drop);
DEFINE_FREEP(struct drop_manager *, drop_manager_free)
