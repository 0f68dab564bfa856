/* bus — the manager on D-Bus: org.diffused.Diffused1, as the XML files in dbus/ say.
 *
 * The bus observes the manager and calls its verbs; the manager knows nothing of it. Everything
 * runs on the event loop's thread. */
#pragma once

#include <systemd/sd-event.h>

#include "daemon/manager.h"
#include "vk/base/cleanup.h"
#include "vk/base/fault.h"

struct bus;

/* Connects to the system bus (DBUS_SYSTEM_BUS_ADDRESS names another), puts the objects there and
 * takes the name. The loop ends with failure when the connection is lost. -EEXIST: another process
 * has the name. */
int bus_open(sd_event *event, struct manager *manager, struct bus **ret_bus, struct fault *f);
/* Sends what waits, and leaves. */
struct bus *bus_close(struct bus *bus);
DEFINE_FREEP(struct bus *, bus_close)
