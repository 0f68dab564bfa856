/* One watcher per unique name, with the jobs it wants to hear of. Whoever leaves the bus is
 * forgotten; the names are unique ones, so nobody inherits them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dbus/bus-internal.h"
#include "vk/base/array.h"

struct watcher {
    struct bus *bus;
    struct watcher *next;
    sd_bus_track *track;
    char *name;
    struct ARRAY(uint64_t) jobs;
};

static struct watcher *watcher_free(struct watcher *watcher)
{
    if (!watcher)
        return NULL;
    sd_bus_track_unref(watcher->track);
    array_done(&watcher->jobs);
    free(watcher->name);
    free(watcher);
    return NULL;
}
DEFINE_FREEP(struct watcher *, watcher_free)

static void drop(struct watcher *watcher)
{
    struct watcher **at = &watcher->bus->watchers;

    while (*at != watcher)
        at = &(*at)->next;
    *at = watcher->next;
    watcher_free(watcher);
}

static int on_gone(sd_bus_track *track, void *userdata)
{
    (void)track;
    drop(userdata);
    return 0;
}

static struct watcher *find(struct bus *bus, const char *name)
{
    struct watcher *w = bus->watchers;

    while (w && strcmp(w->name, name) != 0)
        w = w->next;
    return w;
}

static int add(struct bus *bus, sd_bus_message *message, struct watcher **ret_watcher)
{
    _cleanup_(watcher_freep) struct watcher *w = calloc(1, sizeof *w);
    const char *name = sd_bus_message_get_sender(message);

    if (!w || !name)
        return w ? -EINVAL : -ENOMEM;
    w->bus = bus;
    w->name = strdup(name);
    if (!w->name)
        return -ENOMEM;
    int r = sd_bus_track_new(bus->connection, &w->track, on_gone, w);
    if (r >= 0)
        r = sd_bus_track_add_sender(w->track, message);
    if (r < 0)
        return r;
    w->next = bus->watchers;
    bus->watchers = w;
    *ret_watcher = TAKE_PTR(w);
    return 0;
}

int bus_watch(struct bus *bus, sd_bus_message *message, uint64_t job)
{
    const char *name = sd_bus_message_get_sender(message);
    struct watcher *w = name ? find(bus, name) : NULL;

    int r = w ? 0 : add(bus, message, &w);
    if (r < 0)
        return r;
    for (size_t i = 0; i < w->jobs.count; i++)
        if (w->jobs.items[i] == job)
            return 0;
    uint64_t *slot = array_push(&w->jobs);
    if (!slot)
        return -ENOMEM;
    *slot = job;
    return 0;
}

static void remove_job(struct watcher *w, uint64_t job)
{
    for (size_t i = 0; i < w->jobs.count; i++) {
        if (w->jobs.items[i] != job)
            continue;
        w->jobs.items[i] = w->jobs.items[--w->jobs.count];
        break;
    }
    if (w->jobs.count == 0)
        drop(w);
}

void bus_unwatch(struct bus *bus, const char *name, uint64_t job)
{
    struct watcher *w = find(bus, name);

    if (w)
        remove_job(w, job);
}

void bus_forget_job(struct bus *bus, uint64_t job)
{
    for (struct watcher *w = bus->watchers, *next; w; w = next) {
        next = w->next;
        remove_job(w, job);
    }
}

void bus_watchers_done(struct bus *bus)
{
    while (bus->watchers)
        drop(bus->watchers);
}

void bus_each_watcher(struct bus *bus, uint64_t job,
                      void (*on_name)(const char *name, void *userdata), void *userdata)
{
    for (struct watcher *w = bus->watchers; w; w = w->next)
        for (size_t i = 0; i < w->jobs.count; i++)
            if (w->jobs.items[i] == job)
                on_name(w->name, userdata);
}
