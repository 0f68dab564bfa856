/* One object per job, found by its path: sd-bus asks bus_on_find_job() for each call. Id, State and
 * OwnerUid are public; every other getter first asks who wants to know. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dbus/bus-internal.h"

static sd_bus_message *message_free(sd_bus_message *message)
{
    return sd_bus_message_unref(message);
}
DEFINE_FREEP(sd_bus_message *, message_free)

/* --- paths ------------------------------------------------------------------------------------ */

void bus_job_path(const struct job *job, char ret_path[BUS_JOB_PATH_SIZE])
{
    (void)snprintf(ret_path, BUS_JOB_PATH_SIZE, BUS_JOB_PREFIX "/%" PRIu64, job->id);
}

/* Only the spelling bus_job_path() gives. */
static struct job *find_by_path(const struct bus *bus, const char *path)
{
    const size_t n = strlen(BUS_JOB_PREFIX "/");
    char again[BUS_JOB_PATH_SIZE];

    if (strncmp(path, BUS_JOB_PREFIX "/", n) != 0)
        return NULL;
    struct job *job = manager_find(bus->manager, strtoull(path + n, NULL, 10));
    if (!job)
        return NULL;
    bus_job_path(job, again);
    return strcmp(again, path) == 0 ? job : NULL;
}

int bus_find_job(struct bus *bus, const char *path, struct job **ret_job, sd_bus_error *error)
{
    struct job *job = find_by_path(bus, path);

    if (!job)
        return bus_error_setf(error, -ENOENT, "there is no job %.128s", path);
    *ret_job = job;
    return 0;
}

int bus_on_find_job(sd_bus *connection, const char *path, const char *interface, void *userdata,
                    void **ret_found, sd_bus_error *error)
{
    struct bus *bus = userdata;

    (void)connection, (void)interface;
    if (strcmp(path, BUS_JOB_PREFIX) == 0) /* the folder itself is no job */
        return 0;
    int r = bus_find_job(bus, path, &bus->found.job, error);
    if (r < 0)
        return r;
    *ret_found = &bus->found;
    return 1;
}

int bus_on_enumerate_jobs(sd_bus *connection, const char *prefix, void *userdata, char ***ret_nodes,
                          sd_bus_error *error)
{
    const struct bus *bus = userdata;
    char path[BUS_JOB_PATH_SIZE];
    size_t count;

    (void)connection, (void)prefix, (void)error;
    struct job *const *jobs = manager_jobs(bus->manager, &count);
    char **nodes = calloc(count + 1, sizeof *nodes);
    if (!nodes)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        bus_job_path(jobs[i], path);
        nodes[i] = strdup(path);
        if (nodes[i])
            continue;
        while (i > 0)
            free(nodes[--i]);
        free(nodes);
        return -ENOMEM;
    }
    *ret_nodes = nodes; /* sd-bus frees it */
    return 1;
}

/* --- properties ------------------------------------------------------------------------------- */

static int get_state(sd_bus *connection, const char *path, const char *interface,
                     const char *property, sd_bus_message *reply, void *userdata,
                     sd_bus_error *error)
{
    const struct job *job = ((const struct bus_found *)userdata)->job;

    (void)connection, (void)path, (void)interface, (void)property, (void)error;
    return sd_bus_message_append(reply, "s", job_state_to_string(job->state));
}

static int get_id(sd_bus *connection, const char *path, const char *interface, const char *property,
                  sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct bus_found *found = userdata;

    (void)connection, (void)path, (void)interface, (void)property, (void)error;
    return sd_bus_message_append(reply, "t", found->job->id);
}

static int get_owner(sd_bus *connection, const char *path, const char *interface,
                     const char *property, sd_bus_message *reply, void *userdata,
                     sd_bus_error *error)
{
    const struct bus_found *found = userdata;

    (void)connection, (void)path, (void)interface, (void)property, (void)error;
    return sd_bus_message_append(reply, "u", found->job->owner);
}

static int append_queue_position(sd_bus_message *reply, const struct bus *bus,
                                 const struct job *job)
{
    return sd_bus_message_append(reply, "u", manager_queue_position(bus->manager, job));
}

static int append_step(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    return sd_bus_message_append(reply, "u", job->step);
}

static int append_steps(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    return sd_bus_message_append(reply, "u", job_calls(job));
}

static int append_progress(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    return sd_bus_message_append(reply, "d", job_progress(job));
}

static int append_eta(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    return sd_bus_message_append(reply, "t", manager_eta(bus->manager, job));
}

static int append_created(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    return sd_bus_message_append(reply, "t", job->created_usec);
}

static int append_started(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    return sd_bus_message_append(reply, "t", job->started_usec);
}

static int append_finished(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    return sd_bus_message_append(reply, "t", job->finished_usec);
}

static int append_result_count(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    return sd_bus_message_append(reply, "u", job->picture_count);
}

static int append_error(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    char name[96];

    (void)bus;
    return sd_bus_message_append(reply, "(ss)", bus_error_name(job->error.err, name, sizeof name),
                                 job->error.text);
}

static int append_warnings(sd_bus_message *reply, const struct bus *bus, const struct job *job)
{
    (void)bus;
    int r = sd_bus_message_open_container(reply, 'a', "s");
    for (size_t i = 0; r >= 0 && i < job->warnings.count; i++)
        r = sd_bus_message_append_basic(reply, 's', job->warnings.items[i]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

typedef int append_property_t(sd_bus_message *reply, const struct bus *bus, const struct job *job);

static const struct {
    const char *name;
    append_property_t *append;
} private_properties[] = {
    {"QueuePosition", append_queue_position},
    {"Step", append_step},
    {"Steps", append_steps},
    {"Progress", append_progress},
    {"EtaUsec", append_eta},
    {"CreatedUsec", append_created},
    {"StartedUsec", append_started},
    {"FinishedUsec", append_finished},
    {"ResultCount", append_result_count},
    {"Error", append_error},
    {"Warnings", append_warnings},
};

/* As the vtable says. */
static const char *signature_of(const char *property)
{
    for (const sd_bus_vtable *row = bus_job_vtable; row->type != _SD_BUS_VTABLE_END; row++)
        if (row->type == _SD_BUS_VTABLE_PROPERTY && strcmp(row->x.property.member, property) == 0)
            return row->x.property.signature;
    return "";
}

/* NULL: no such private property. */
static append_property_t *find_private(const char *property)
{
    for (size_t i = 0; i < ARRAY_SIZE(private_properties); i++)
        if (strcmp(private_properties[i].name, property) == 0)
            return private_properties[i].append;
    return NULL;
}

bool bus_job_is_private(const char *property)
{
    return find_private(property) != NULL;
}

int bus_job_get(struct bus *bus, sd_bus_message *call, sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;
    const char *interface, *property;
    struct job *job;

    int r = sd_bus_message_read(call, "ss", &interface, &property);
    if (r >= 0)
        r = bus_find_job(bus, sd_bus_message_get_path(call), &job, error);
    if (r >= 0)
        r = bus_check_owner(bus, call, job, error);
    append_property_t *append = r < 0 ? NULL : find_private(property);
    if (!append)
        return r < 0 ? r : -ENOENT;
    r = sd_bus_message_new_method_return(call, &reply);
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'v', signature_of(property));
    if (r >= 0)
        r = append(reply, bus, job);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int get_private(sd_bus *connection, const char *path, const char *interface,
                       const char *property, sd_bus_message *reply, void *userdata,
                       sd_bus_error *error)
{
    sd_bus_message *call = sd_bus_get_current_message(connection);
    const struct bus_found *found = userdata;
    const struct job *job = found->job;

    (void)path, (void)interface;
    if (!call) /* not for a caller: nobody else may have it */
        return bus_error_setf(error, -EPERM, "%s is private", property);
    int r = bus_check_owner(found->bus, call, job, error);
    if (r < 0)
        return r;
    append_property_t *append = find_private(property);
    return append ? append(reply, found->bus, job) : -ENOENT;
}

/* --- methods ---------------------------------------------------------------------------------- */

static int method_get_request(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;
    const struct bus_found *found = userdata;
    const struct job *job = found->job;

    int r = bus_check_owner(found->bus, m, job, error);
    if (r < 0)
        return r;
    r = sd_bus_message_new_method_return(m, &reply);
    if (r >= 0)
        r = sd_bus_message_append(reply, "s", job->request.prompt ? job->request.prompt : "");
    if (r >= 0)
        r = bus_append_options(reply, &job->request);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const struct bus_found *found = userdata;
    struct bus *bus = found->bus;
    struct job *job = found->job;

    int r = bus_check_owner(bus, m, job, error);
    if (r < 0)
        return r;
    manager_cancel(bus->manager, job, bus_on_done, sd_bus_message_ref(m));
    return 1; /* answered there */
}

static int method_delete(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const struct bus_found *found = userdata;
    struct bus *bus = found->bus;
    struct job *job = found->job;

    int r = bus_check_owner(bus, m, job, error);
    if (r < 0)
        return r;
    manager_delete(bus->manager, job, bus_on_done, sd_bus_message_ref(m));
    return 1; /* answered there */
}

/* Where [spool] group_readable says so, who may submit may read pictures. */
static bool may_read_spool(struct bus *bus, sd_bus_message *m)
{
    uint32_t uid;

    return manager_get_config(bus->manager)->spool_group_readable &&
           bus_check_submit(bus, m, &uid, NULL) >= 0;
}

/* The spool is readable to root, to the daemon's own user and perhaps to the group. */
static int method_get_result_path(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const struct bus_found *found = userdata;
    struct bus *bus = found->bus;
    const struct job *job = found->job;
    _cleanup_(freep) char *path = NULL;
    struct fault f = {0};
    uint32_t index, uid = UINT32_MAX;

    int r = bus_check_owner(bus, m, job, error);
    if (r >= 0)
        r = bus_get_uid(bus, m, &uid, error);
    if (r >= 0)
        r = sd_bus_message_read(m, "u", &index);
    if (r < 0)
        return r;
    if (uid != 0 && uid != getuid() && !may_read_spool(bus, m))
        return bus_error_setf(error, -EACCES,
                              "the spool is not readable to you: use GetResult, which hands over "
                              "a descriptor");
    r = manager_picture_path(bus->manager, job, index, &path, &f);
    return r < 0 ? bus_error_set(error, r, &f) : sd_bus_reply_method_return(m, "s", path);
}

/* --- signals ---------------------------------------------------------------------------------- */

struct unicast {
    struct bus *bus;
    const struct job *job;
    double timestep;
};

static int new_signal(const struct unicast *u, const char *member, const char *name,
                      sd_bus_message **ret_message)
{
    char path[BUS_JOB_PATH_SIZE];

    bus_job_path(u->job, path);
    int r =
        sd_bus_message_new_signal(u->bus->connection, ret_message, path, BUS_JOB_INTERFACE, member);
    return r < 0 ? r : sd_bus_message_set_destination(*ret_message, name);
}

static void send_step_to(const char *name, void *userdata)
{
    const struct unicast *u = userdata;
    _cleanup_(message_freep) sd_bus_message *signal = NULL;

    if (new_signal(u, "Step", name, &signal) < 0)
        return; /* out of memory: progress is not worth more words */
    uint64_t eta = manager_eta(u->bus->manager, u->job);
    if (sd_bus_message_append(signal, "uuudt", u->job->picture, u->job->step, u->job->steps,
                              u->timestep, eta) >= 0)
        (void)sd_bus_send(u->bus->connection, signal, NULL);
}

static void send_preview_to(const char *name, void *userdata)
{
    const struct unicast *u = userdata;
    const struct job_preview *p = &u->job->preview;
    _cleanup_(message_freep) sd_bus_message *signal = NULL;

    if (new_signal(u, "Preview", name, &signal) < 0)
        return; /* out of memory: there will be another */
    if (sd_bus_message_append(signal, "uu", p->picture, p->step) >= 0)
        (void)sd_bus_send(u->bus->connection, signal, NULL);
}

static void send_finished_to(const char *name, void *userdata)
{
    const struct unicast *u = userdata;
    _cleanup_(message_freep) sd_bus_message *signal = NULL;

    if (new_signal(u, "Finished", name, &signal) < 0)
        return; /* out of memory; State says it too */
    if (sd_bus_message_append(signal, "s", job_state_to_string(u->job->state)) >= 0)
        (void)sd_bus_send(u->bus->connection, signal, NULL);
}

/* The first step is told, and from it on every callback_steps-th. */
static bool is_told(const struct job *job)
{
    uint32_t every = job->request.callback_steps;

    return every <= 1 || job->step == 0 || (job->step - 1) % every == 0;
}

void bus_send_preview(struct bus *bus, const struct job *job)
{
    struct unicast u = {.bus = bus, .job = job};

    if (!bus_is_congested(bus)) /* GetPreview says it too */
        bus_each_watcher(bus, job->id, send_preview_to, &u);
}

void bus_send_step(struct bus *bus, const struct job *job, double timestep)
{
    struct unicast u = {.bus = bus, .job = job, .timestep = timestep};

    if (!is_told(job))
        return;
    if (bus_is_congested(bus)) /* the next step says more, and Progress says it too */
        return;
    bus_each_watcher(bus, job->id, send_step_to, &u);
}

void bus_send_finished(struct bus *bus, const struct job *job)
{
    struct unicast u = {.bus = bus, .job = job};

    bus_each_watcher(bus, job->id, send_finished_to, &u);
}

#define PRIVATE(name, signature)                                                                   \
    SD_BUS_PROPERTY(name, signature, get_private, 0, SD_BUS_VTABLE_PROPERTY_EXPLICIT)

/* sd-bus lets only root call what is not marked; who may is decided in bus-access.c. */
#define UNPRIVILEGED SD_BUS_VTABLE_UNPRIVILEGED

const sd_bus_vtable bus_job_vtable[] = {
    SD_BUS_VTABLE_START(SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("GetRequest", "", , "sa{sv}",
                             SD_BUS_PARAM(prompt) SD_BUS_PARAM(options), method_get_request,
                             UNPRIVILEGED),
    SD_BUS_METHOD("Cancel", "", "", method_cancel, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("GetResult", "ua{sv}", SD_BUS_PARAM(index) SD_BUS_PARAM(options),
                             "ha{sv}", SD_BUS_PARAM(fd) SD_BUS_PARAM(info), bus_method_get_result,
                             UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("GetResultPath", "u", SD_BUS_PARAM(index), "s", SD_BUS_PARAM(path),
                             method_get_result_path, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("GetPreview", "", , "ha{sv}", SD_BUS_PARAM(fd) SD_BUS_PARAM(info),
                             bus_method_get_preview, UNPRIVILEGED),
    SD_BUS_METHOD("Delete", "", "", method_delete, UNPRIVILEGED),
    SD_BUS_PROPERTY("Id", "t", get_id, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("State", "s", get_state, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("OwnerUid", "u", get_owner, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    PRIVATE("QueuePosition", "u"),
    PRIVATE("Step", "u"),
    PRIVATE("Steps", "u"),
    PRIVATE("Progress", "d"),
    PRIVATE("EtaUsec", "t"),
    PRIVATE("CreatedUsec", "t"),
    PRIVATE("StartedUsec", "t"),
    PRIVATE("FinishedUsec", "t"),
    PRIVATE("ResultCount", "u"),
    PRIVATE("Error", "(ss)"),
    PRIVATE("Warnings", "as"),
    SD_BUS_SIGNAL_WITH_NAMES("Step", "uuudt",
                             SD_BUS_PARAM(picture) SD_BUS_PARAM(step) SD_BUS_PARAM(steps)
                                 SD_BUS_PARAM(timestep) SD_BUS_PARAM(eta_usec),
                             0),
    SD_BUS_SIGNAL_WITH_NAMES("Preview", "uu", SD_BUS_PARAM(picture) SD_BUS_PARAM(step), 0),
    SD_BUS_SIGNAL_WITH_NAMES("Finished", "s", SD_BUS_PARAM(state), 0),
    SD_BUS_VTABLE_END,
};
