/* One watcher per unique name, with the jobs it wants to hear of. bus-peer.c says when it has left
 * the bus: it is forgotten then, and jobs that were not to outlive their submitter are
 * cancelled. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dbus/bus-internal.h"
#include "vk/base/array.h"
#include "vk/base/log.h"

struct watched {
    uint64_t job;
    bool is_own;  /* submitted by this one */
    bool is_mute; /* gets no signals: only its end matters */
};

struct watcher {
    struct bus *bus;
    struct watcher *next;
    char *name;
    struct ARRAY(struct watched) jobs;
};

static struct watcher *watcher_free(struct watcher *watcher)
{
    if (!watcher)
        return NULL;
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

static struct watcher *find(struct bus *bus, const char *name)
{
    struct watcher *w = bus->watchers;

    while (w && strcmp(w->name, name) != 0)
        w = w->next;
    return w;
}

static int add(struct bus *bus, const char *name, struct watcher **ret_watcher)
{
    if (!bus_peer_find(bus, name)) /* its end has been told already: it would stay for ever */
        return -ENOTCONN;
    _cleanup_(watcher_freep) struct watcher *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->bus = bus;
    w->name = strdup(name);
    if (!w->name)
        return -ENOMEM;
    w->next = bus->watchers;
    bus->watchers = w;
    *ret_watcher = TAKE_PTR(w);
    return 0;
}

static struct watched *find_job(const struct watcher *w, uint64_t job)
{
    for (size_t i = 0; i < w->jobs.count; i++)
        if (w->jobs.items[i].job == job)
            return &w->jobs.items[i];
    return NULL;
}

static int watch(struct bus *bus, sd_bus_message *message, uint64_t job, bool is_own)
{
    const char *name = sd_bus_message_get_sender(message);
    struct watcher *w = name ? find(bus, name) : NULL;

    int r = w ? 0 : name ? add(bus, name, &w) : -EINVAL;
    if (r < 0)
        return r;
    struct watched *slot = find_job(w, job);
    if (!slot) {
        slot = array_push(&w->jobs);
        if (!slot)
            return -ENOMEM;
        *slot = (struct watched){.job = job};
    }
    slot->is_own |= is_own;
    slot->is_mute = false;
    return 0;
}

int bus_watch(struct bus *bus, sd_bus_message *message, uint64_t job)
{
    return watch(bus, message, job, false);
}

static void remove_job(struct watcher *w, uint64_t job)
{
    for (size_t i = 0; i < w->jobs.count; i++) {
        if (w->jobs.items[i].job != job)
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
    struct watched *slot = w ? find_job(w, job) : NULL;

    if (slot && slot->is_own)
        slot->is_mute = true;
    else if (slot)
        remove_job(w, job);
}

void bus_forget_job(struct bus *bus, uint64_t job)
{
    for (struct watcher *w = bus->watchers, *next; w; w = next) {
        next = w->next;
        remove_job(w, job);
    }
}

static bool has_submitter(const struct bus *bus, uint64_t job)
{
    for (const struct watcher *w = bus->watchers; w; w = w->next) {
        const struct watched *slot = find_job(w, job);
        if (slot && slot->is_own)
            return true;
    }
    return false;
}

/* The job's owner may have sent its Submit twice, with a token. */
static void submitter_left(struct bus *bus, uint64_t id)
{
    struct job *job = manager_find(bus->manager, id);

    if (!job || !job->request.cancel_on_disconnect || has_submitter(bus, id))
        return;
    log_info("job %" PRIu64 ": its submitter has left the bus", id);
    manager_cancel(bus->manager, job, NULL, NULL);
}

int bus_watch_own(struct bus *bus, sd_bus_message *message, uint64_t job)
{
    int r = watch(bus, message, job, true);

    if (r != -ENOTCONN)
        return r;
    submitter_left(bus, job);
    return 0;
}

void bus_watcher_gone(struct bus *bus, const char *name)
{
    struct watcher **at = &bus->watchers;

    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    _cleanup_(watcher_freep) struct watcher *gone = *at;
    if (!gone)
        return;
    *at = gone->next; /* out of the list first: a job's end takes it out of every watcher */
    for (size_t i = 0; i < gone->jobs.count; i++)
        if (gone->jobs.items[i].is_own)
            submitter_left(bus, gone->jobs.items[i].job);
}

void bus_watchers_done(struct bus *bus)
{
    while (bus->watchers)
        drop(bus->watchers);
}

void bus_each_watcher(struct bus *bus, uint64_t job,
                      void (*on_name)(const char *name, void *userdata), void *userdata)
{
    for (struct watcher *w = bus->watchers; w; w = w->next) {
        const struct watched *slot = find_job(w, job);
        if (slot && !slot->is_mute)
            on_name(w->name, userdata);
    }
}
