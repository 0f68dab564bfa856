#include "daemon/drop-manager.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/access.h"
#include "daemon/drop.h"

struct drop_manager {
    struct manager *manager; /* outlives us */
    struct drop *drop;
    struct manager_observer observer;
};

/* --- what the folder wants -------------------------------------------------------------------- */

static void submit(uint32_t owner, struct request *request, struct job_input *inputs,
                   const char *origin, drop_submitted_t *done, void *done_userdata, void *userdata)
{
    struct drop_manager *d = userdata;
    const struct manager_submission submission = {
        .owner = owner, .request = request, .origin = origin, .inputs = inputs};

    manager_submit(d->manager, &submission, done, done_userdata);
}

static struct job *find(const char *origin, void *userdata)
{
    struct drop_manager *d = userdata;

    return manager_find_origin(d->manager, origin);
}

static int open_picture(const struct job *job, uint32_t index, struct fault *f, void *userdata)
{
    struct drop_manager *d = userdata;

    return manager_open_picture(d->manager, job, index, f);
}

static void fetched(struct job *job, uint32_t index, void *userdata)
{
    struct drop_manager *d = userdata;

    manager_fetched(d->manager, job, index);
}

static uint32_t room(void *userdata)
{
    struct drop_manager *d = userdata;
    uint64_t limit = manager_get_config(d->manager)->limit_queue;
    uint32_t length = manager_queue_length(d->manager);

    return limit > length ? (uint32_t)(limit - length) : 0;
}

static bool may_submit(uint32_t uid, void *userdata)
{
    struct drop_manager *d = userdata;

    return access_may_submit(uid, manager_get_config(d->manager)->access_group);
}

static void health(const char *reason, void *userdata)
{
    struct drop_manager *d = userdata;

    manager_set_drop_trouble(d->manager, reason);
}

/* --- what the folder is told ------------------------------------------------------------------ */

static void on_job_finished(struct job *job, void *userdata)
{
    struct drop_manager *d = userdata;

    drop_on_job_finished(d->drop, job->origin);
}

static void on_changed(unsigned changes, void *userdata)
{
    struct drop_manager *d = userdata;

    if (changes & (MANAGER_CHANGE_QUEUE | MANAGER_CHANGE_CONFIG | MANAGER_CHANGE_STATE))
        drop_on_queue_changed(d->drop);
}

int drop_manager_new(sd_event *event, struct manager *manager, struct drop_manager **ret,
                     struct fault *f)
{
    const char *path = manager_get_config(manager)->drop_path;
    _cleanup_(drop_manager_freep) struct drop_manager *d = NULL;

    *ret = NULL;
    if (!path)
        return 0;
    d = calloc(1, sizeof *d);
    if (!d)
        return fault_set(f, -ENOMEM, "drop: out of memory");
    d->manager = manager;
    d->observer = (struct manager_observer){
        .on_job_finished = on_job_finished, .on_changed = on_changed, .userdata = d};
    const struct drop_options options = {.path = path,
                                         .jobs = {.submit = submit,
                                                  .find = find,
                                                  .open_picture = open_picture,
                                                  .fetched = fetched,
                                                  .room = room,
                                                  .may_submit = may_submit,
                                                  .health = health,
                                                  .userdata = d}};
    int r = drop_open(event, &options, &d->drop, f);
    if (r < 0)
        return r;
    manager_add_observer(manager, &d->observer);
    *ret = TAKE_PTR(d);
    return 0;
}

struct drop_manager *drop_manager_free(struct drop_manager *d)
{
    if (!d)
        return NULL;
    manager_remove_observer(d->manager, &d->observer);
    drop_close(d->drop);
    free(d);
    return NULL;
}
