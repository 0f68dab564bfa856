/* The manager's object. Handlers read their arguments, ask who may, call one verb, answer. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "dbus/bus-internal.h"
#include "vk/base/version.h"

static sd_bus_message *message_free(sd_bus_message *message)
{
    return sd_bus_message_unref(message);
}
DEFINE_FREEP(sd_bus_message *, message_free)

/* --- jobs ------------------------------------------------------------------------------------- */

/* A Submit that waits for the disk. */
struct submit {
    struct bus *bus;
    sd_bus_message *call;
    uint32_t uid;
    unsigned inputs; /* pictures that came along */
};

static struct submit *submit_free(struct submit *submit)
{
    if (!submit)
        return NULL;
    sd_bus_message_unref(submit->call);
    free(submit);
    return NULL;
}
DEFINE_FREEP(struct submit *, submit_free)

static void count_inputs(struct bus *bus, const struct submit *submit, int sign)
{
    struct bus_account *account = bus_account_find(bus, submit->uid);

    if (account)
        account->inputs += (unsigned)(sign * (int)submit->inputs);
}

/* The disk has the job, or will not have it. The caller may be gone: the answer goes nowhere. */
static void on_submitted(int r, struct job *job, const struct fault *f, void *userdata)
{
    _cleanup_(submit_freep) struct submit *submit = userdata;
    char path[BUS_JOB_PATH_SIZE];

    count_inputs(submit->bus, submit, -1);
    if (r < 0) {
        bus_reply_error(submit->call, r, f);
        return;
    }
    bus_job_path(job, path);
    if (!job_state_is_final(job->state) && bus_watch_own(submit->bus, submit->call, job->id) < 0)
        (void)job_add_warning(job, "its submitter gets no signals: out of memory");
    (void)sd_bus_reply_method_return(submit->call, "o", path);
}

/* Pictures of one user that are on their way to the disk are open here: no more of them than of
 * those that are on their way out. */
static int check_inputs(struct bus *bus, uint32_t uid, unsigned inputs, sd_bus_error *error)
{
    const struct bus_account *account = bus_account_find(bus, uid);
    uint64_t limit = manager_get_config(bus->manager)->limit_user_descriptors;

    if (!account || inputs == 0 || uid == 0 || account->inputs + inputs <= limit)
        return 0;
    return bus_error_setf(error, -EDQUOT, "%u pictures of yours are being taken in: try again",
                          account->inputs);
}

static unsigned inputs_of(const struct job_input *inputs)
{
    return (inputs[JOB_INPUT_IMAGE].fd >= 0) + (inputs[JOB_INPUT_MASK].fd >= 0);
}

static int submit_request(struct bus *bus, sd_bus_message *m, struct request *request,
                          struct job_input *inputs, sd_bus_error *error)
{
    uint32_t uid = UINT32_MAX;

    int r = bus_get_uid(bus, m, &uid, error);
    if (r >= 0)
        r = check_inputs(bus, uid, inputs_of(inputs), error);
    if (r < 0)
        return r;
    struct submit *submit = calloc(1, sizeof *submit);
    if (!submit)
        return bus_error_setf(error, -ENOMEM, "out of memory");
    *submit = (struct submit){
        .bus = bus, .call = sd_bus_message_ref(m), .uid = uid, .inputs = inputs_of(inputs)};
    count_inputs(bus, submit, 1);
    const struct manager_submission submission = {
        .owner = uid, .request = request, .inputs = inputs};
    manager_submit(bus->manager, &submission, on_submitted, submit);
    return 1; /* answered there */
}

static int method_submit(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    _cleanup_(request_done) struct request request = {0};
    struct job_input inputs[JOB_INPUT_COUNT] = {{.fd = -1}, {.fd = -1}};
    struct fault f = {0};
    const char *prompt;
    uint32_t uid;

    int r = bus_check_submit(bus, m, &uid, error);
    if (r < 0)
        return r;
    r = sd_bus_message_read(m, "s", &prompt);
    if (r < 0)
        return r;
    r = request_set_text(&request, &request_rows[REQUEST_prompt], prompt, strlen(prompt), &f);
    if (r < 0)
        return bus_error_set(error, r, &f);
    r = bus_read_options(m, &request, inputs, error);
    if (r >= 0)
        r = submit_request(bus, m, &request, inputs, error);
    bus_drop_inputs(inputs); /* what the manager has not taken over */
    return r;
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    uint64_t id;

    int r = sd_bus_message_read(m, "t", &id);
    if (r < 0)
        return r;
    struct job *job = manager_find(bus->manager, id);
    if (!job)
        return bus_error_setf(error, -ENOENT, "there is no job %" PRIu64, id);
    r = bus_check_owner(bus, m, job, error);
    if (r < 0)
        return r;
    manager_cancel(bus->manager, job, bus_on_done, sd_bus_message_ref(m));
    return 1; /* answered there */
}

struct filter {
    const char *state; /* NULL: any */
    uint32_t owner, limit, caller;
    bool any_owner;
};

static bool does_match(const struct filter *filter, const struct job *job)
{
    if (filter->caller != 0 && filter->caller != job->owner)
        return false;
    if (!filter->any_owner && filter->owner != job->owner)
        return false;
    return !filter->state || strcmp(filter->state, job_state_to_string(job->state)) == 0;
}

static int read_filter(struct bus *bus, sd_bus_message *m, struct filter *filter,
                       sd_bus_error *error)
{
    const struct bus_key keys[] = {{"state", 's', &filter->state},
                                   {"owner", 'u', &filter->owner},
                                   {"limit", 'u', &filter->limit},
                                   {0}};
    enum job_state state;

    *filter = (struct filter){.owner = UINT32_MAX, .limit = UINT32_MAX};
    int r = bus_get_uid(bus, m, &filter->caller, error);
    if (r >= 0)
        r = bus_read_keys(m, keys, error);
    if (r < 0)
        return r;
    filter->any_owner = filter->owner == UINT32_MAX; /* (uid_t) -1 is nobody's */
    if (filter->state && job_state_from_string(filter->state, &state) < 0)
        return bus_error_setf(error, -EINVAL,
                              "state \"%.32s\": want queued, running, done, failed or cancelled",
                              filter->state);
    return 0;
}

/* Index of the first job to show, so that at most `limit` matching ones follow. */
static size_t find_start(const struct filter *filter, struct job *const *jobs, size_t count)
{
    uint32_t matches = 0;
    size_t i = count;

    while (i > 0 && matches < filter->limit)
        matches += does_match(filter, jobs[--i]);
    return i;
}

static int append_job(sd_bus_message *reply, const struct job *job)
{
    char path[BUS_JOB_PATH_SIZE];

    bus_job_path(job, path);
    return sd_bus_message_append(reply, "(tosu)", job->id, path, job_state_to_string(job->state),
                                 job->owner);
}

static int method_list_jobs(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;
    struct bus *bus = userdata;
    struct filter filter;
    size_t count;

    int r = read_filter(bus, m, &filter, error);
    if (r < 0)
        return r;
    struct job *const *jobs = manager_jobs(bus->manager, &count);
    r = sd_bus_message_new_method_return(m, &reply);
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "(tosu)");
    for (size_t i = find_start(&filter, jobs, count); r >= 0 && i < count; i++)
        if (does_match(&filter, jobs[i]))
            r = append_job(reply, jobs[i]);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int read_job(struct bus *bus, sd_bus_message *m, struct job **ret_job, sd_bus_error *error)
{
    const char *path;

    int r = sd_bus_message_read(m, "o", &path);
    if (r >= 0)
        r = bus_find_job(bus, path, ret_job, error);
    return r < 0 ? r : bus_check_owner(bus, m, *ret_job, error);
}

static int method_watch(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    struct job *job;

    int r = read_job(bus, m, &job, error);
    if (r >= 0 && !job_state_is_final(job->state)) /* nothing more will be said of an ended one */
        r = bus_watch(bus, m, job->id);
    return r < 0 ? r : sd_bus_reply_method_return(m, NULL);
}

static int method_unwatch(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    struct job *job;

    int r = read_job(bus, m, &job, error);
    if (r < 0)
        return r;
    bus_unwatch(bus, sd_bus_message_get_sender(m), job->id);
    return sd_bus_reply_method_return(m, NULL);
}

/* --- models and devices ----------------------------------------------------------------------- */

static int open_facts(sd_bus_message *reply, const char *name)
{
    int r = sd_bus_message_open_container(reply, 'e', "sa{sv}");

    if (r >= 0)
        r = sd_bus_message_append_basic(reply, 's', name);
    return r < 0 ? r : sd_bus_message_open_container(reply, 'a', "{sv}");
}

static int close_facts(sd_bus_message *reply)
{
    int r = sd_bus_message_close_container(reply);

    return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* The worker's name for it, or before that the directory's. */
static const char *model_name(const struct bus *bus)
{
    const char *path = manager_get_config(bus->manager)->model_path;
    const char *name = manager_get_facts(bus->manager)->model;

    if (*name || !path)
        return name;
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static int append_model(sd_bus_message *reply, const struct manager_model *model)
{
    int r = open_facts(reply, model->name);

    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}", "path", "s", model->path, "kind",
                                  "s", "stable-diffusion", "hash", "s", model->hash, "state", "s",
                                  model->state, "size", "t", model->memory);
    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}", "default", "b", (int)model->is_default,
                                  "inpainting", "b", (int)model->is_inpainting, "safety_checker",
                                  "b", (int)model->has_safety, "reason", "s", model->reason);
    return r < 0 ? r : close_facts(reply);
}

static int method_list_models(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;
    const struct bus *bus = userdata;
    struct manager_model model;

    (void)error;
    int r = sd_bus_message_new_method_return(m, &reply);
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "{sa{sv}}");
    for (size_t i = 0; r >= 0 && manager_get_model(bus->manager, i, &model); i++)
        r = append_model(reply, &model);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int append_device(sd_bus_message *reply, const struct device *d, const char *in_use)
{
    bool chosen = *in_use ? strcmp(d->name, in_use) == 0 : d->chosen;

    int r = open_facts(reply, d->name);
    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}", "node", "s", d->node, "driver",
                                  "s", d->driver, "type", "s", d->type, "memory", "t", d->memory,
                                  "chosen", "b", (int)chosen);
    return r < 0 ? r : close_facts(reply);
}

static int method_list_devices(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;
    const struct bus *bus = userdata;
    const struct device_list *devices = manager_get_devices(bus->manager);
    const char *in_use = manager_get_facts(bus->manager)->device;

    (void)error;
    int r = sd_bus_message_new_method_return(m, &reply);
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "{sa{sv}}");
    for (size_t i = 0; r >= 0 && i < devices->count; i++)
        r = append_device(reply, &devices->items[i], in_use);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

/* --- verbs of the machine's keeper ------------------------------------------------------------ */

static int pause_now(struct bus *bus, sd_bus_message *call, sd_bus_error *error)
{
    (void)error;
    manager_pause(bus->manager);
    return sd_bus_reply_method_return(call, NULL);
}

static int resume_now(struct bus *bus, sd_bus_message *call, sd_bus_error *error)
{
    (void)error;
    manager_resume(bus->manager);
    return sd_bus_reply_method_return(call, NULL);
}

static int reload_now(struct bus *bus, sd_bus_message *call, sd_bus_error *error)
{
    struct fault f = {0};

    int r = manager_reload(bus->manager, &f);
    if (r < 0)
        return bus_error_set(error, r, &f);
    (void)sd_bus_emit_properties_changed(bus->connection, BUS_PATH, BUS_MANAGER_INTERFACE,
                                         "QueueLimit", "Options", NULL);
    return sd_bus_reply_method_return(call, NULL);
}

static int load_now(struct bus *bus, sd_bus_message *call, sd_bus_error *error)
{
    const char *name;

    (void)error;
    int r = sd_bus_message_read(call, "s", &name);
    if (r < 0)
        return r;
    manager_load_model(bus->manager, name, bus_on_done, sd_bus_message_ref(call));
    return 1; /* answered there */
}

static int unload_now(struct bus *bus, sd_bus_message *call, sd_bus_error *error)
{
    (void)error;
    manager_unload_model(bus->manager, bus_on_done, sd_bus_message_ref(call));
    return 1; /* answered there */
}

static const struct {
    const char *member, *action;
    bus_authorized_t *then;
} keeper_verbs[] = {
    {"Pause", BUS_NAME ".pause", pause_now},       {"Resume", BUS_NAME ".pause", resume_now},
    {"Reload", BUS_NAME ".reload", reload_now},    {"LoadModel", BUS_NAME ".load", load_now},
    {"UnloadModel", BUS_NAME ".load", unload_now},
};

static int method_keeper(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const char *member = sd_bus_message_get_member(m);

    for (size_t i = 0; i < ARRAY_SIZE(keeper_verbs); i++)
        if (strcmp(keeper_verbs[i].member, member) == 0)
            return bus_authorize(userdata, m, keeper_verbs[i].action, keeper_verbs[i].then, error);
    return -ENOENT;
}

/* --- properties ------------------------------------------------------------------------------- */

static const char *text_of(const struct bus *bus, const char *property)
{
    const struct manager_facts *facts = manager_get_facts(bus->manager);
    const struct config *config = manager_get_config(bus->manager);
    const struct {
        const char *name, *value;
    } texts[] = {
        {"Version", DIFFUSED_VERSION},
        {"Device", facts->device},
        {"DeviceNode", facts->device_node},
        {"Driver", facts->driver},
        {"Model", model_name(bus)},
        {"ModelHash", facts->model_hash},
        {"State", manager_state_to_string(facts->state)},
        {"StateReason", facts->state_reason},
        {"DegradedReason", facts->degraded_reason},
        {"SpoolDirectory", config->spool_path},
        {"DropDirectory", config->drop_path ? config->drop_path : ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (strcmp(texts[i].name, property) == 0)
            return texts[i].value;
    return "";
}

static int get_text(sd_bus *connection, const char *path, const char *interface,
                    const char *property, sd_bus_message *reply, void *userdata,
                    sd_bus_error *error)
{
    (void)connection, (void)path, (void)interface, (void)error;
    return sd_bus_message_append(reply, "s", text_of(userdata, property));
}

static int get_degraded(sd_bus *connection, const char *path, const char *interface,
                        const char *property, sd_bus_message *reply, void *userdata,
                        sd_bus_error *error)
{
    const struct bus *bus = userdata;

    (void)connection, (void)path, (void)interface, (void)property, (void)error;
    return sd_bus_message_append(reply, "b",
                                 *manager_get_facts(bus->manager)->degraded_reason != '\0');
}

static int get_queue(sd_bus *connection, const char *path, const char *interface,
                     const char *property, sd_bus_message *reply, void *userdata,
                     sd_bus_error *error)
{
    const struct bus *bus = userdata;
    uint32_t limit = (uint32_t)manager_get_config(bus->manager)->limit_queue;

    (void)connection, (void)path, (void)interface, (void)error;
    if (strcmp(property, "QueueLimit") == 0)
        return sd_bus_message_append(reply, "u", limit);
    return sd_bus_message_append(reply, "u", manager_queue_length(bus->manager));
}

static int get_memory(sd_bus *connection, const char *path, const char *interface,
                      const char *property, sd_bus_message *reply, void *userdata,
                      sd_bus_error *error)
{
    const struct bus *bus = userdata;
    const struct manager_facts *facts = manager_get_facts(bus->manager);

    (void)connection, (void)path, (void)interface, (void)error;
    return sd_bus_message_append(
        reply, "t", strcmp(property, "MemoryUsed") == 0 ? facts->memory_used : facts->memory_total);
}

static int get_schedulers(sd_bus *connection, const char *path, const char *interface,
                          const char *property, sd_bus_message *reply, void *userdata,
                          sd_bus_error *error)
{
    (void)connection, (void)path, (void)interface, (void)property, (void)userdata, (void)error;
    int r = sd_bus_message_open_container(reply, 'a', "s");
    for (unsigned i = 0; r >= 0 && i < SCHEDULER_KIND_COUNT; i++)
        r = sd_bus_message_append_basic(reply, 's', scheduler_kind_to_string(i));
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_options(sd_bus *connection, const char *path, const char *interface,
                       const char *property, sd_bus_message *reply, void *userdata,
                       sd_bus_error *error)
{
    const struct bus *bus = userdata;

    (void)connection, (void)path, (void)interface, (void)property, (void)error;
    return bus_append_option_table(reply, &manager_get_config(bus->manager)->defaults);
}

static int get_counters(sd_bus *connection, const char *path, const char *interface,
                        const char *property, sd_bus_message *reply, void *userdata,
                        sd_bus_error *error)
{
    const struct bus *bus = userdata;
    size_t count;

    (void)connection, (void)path, (void)interface, (void)property, (void)error;
    const struct manager_counter *counters = manager_counters(bus->manager, &count);
    int r = sd_bus_message_open_container(reply, 'a', "{st}");
    for (size_t i = 0; r >= 0 && i < count; i++)
        r = sd_bus_message_append(reply, "{st}", counters[i].name, counters[i].value);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static const struct {
    unsigned change;
    const char *names[8]; /* NULL ends */
} announcements[] = {
    {MANAGER_CHANGE_STATE, {"State", "StateReason", NULL}},
    {MANAGER_CHANGE_DEVICE,
     {"Device", "DeviceNode", "Driver", "Model", "ModelHash", "MemoryTotal", NULL}},
    {MANAGER_CHANGE_QUEUE, {"QueueLength", NULL}},
    {MANAGER_CHANGE_DEGRADED, {"Degraded", "DegradedReason", NULL}},
};

void bus_manager_changed(struct bus *bus, unsigned changes)
{
    for (size_t i = 0; i < ARRAY_SIZE(announcements); i++)
        if (changes & announcements[i].change) /* the lists are const to sd-bus, too */
            (void)sd_bus_emit_properties_changed_strv(
                bus->connection, BUS_PATH, BUS_MANAGER_INTERFACE, (char **)announcements[i].names);
}

#define CONST SD_BUS_VTABLE_PROPERTY_CONST
#define EMITS SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE

/* sd-bus lets only root call what is not marked; who may is decided in bus-access.c. */
#define UNPRIVILEGED SD_BUS_VTABLE_UNPRIVILEGED

const sd_bus_vtable bus_manager_vtable[] = {
    SD_BUS_VTABLE_START(SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("Submit", "sa{sv}", SD_BUS_PARAM(prompt) SD_BUS_PARAM(options), "o",
                             SD_BUS_PARAM(job), method_submit, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("Cancel", "t", SD_BUS_PARAM(id), "", , method_cancel, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("ListJobs", "a{sv}", SD_BUS_PARAM(filter), "a(tosu)",
                             SD_BUS_PARAM(jobs), method_list_jobs, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("ListModels", "", , "a{sa{sv}}", SD_BUS_PARAM(models),
                             method_list_models, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("ListDevices", "", , "a{sa{sv}}", SD_BUS_PARAM(devices),
                             method_list_devices, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("Watch", "o", SD_BUS_PARAM(job), "", , method_watch, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("Unwatch", "o", SD_BUS_PARAM(job), "", , method_unwatch, UNPRIVILEGED),
    SD_BUS_METHOD("Pause", "", "", method_keeper, UNPRIVILEGED),
    SD_BUS_METHOD("Resume", "", "", method_keeper, UNPRIVILEGED),
    SD_BUS_METHOD("Reload", "", "", method_keeper, UNPRIVILEGED),
    SD_BUS_METHOD_WITH_NAMES("LoadModel", "s", SD_BUS_PARAM(name), "", , method_keeper,
                             UNPRIVILEGED),
    SD_BUS_METHOD("UnloadModel", "", "", method_keeper, UNPRIVILEGED),
    SD_BUS_PROPERTY("Version", "s", get_text, 0, CONST),
    SD_BUS_PROPERTY("Device", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("DeviceNode", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("Driver", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("Model", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("ModelHash", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("State", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("StateReason", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("Degraded", "b", get_degraded, 0, EMITS),
    SD_BUS_PROPERTY("DegradedReason", "s", get_text, 0, EMITS),
    SD_BUS_PROPERTY("QueueLength", "u", get_queue, 0, EMITS),
    SD_BUS_PROPERTY("QueueLimit", "u", get_queue, 0, EMITS),
    SD_BUS_PROPERTY("MemoryUsed", "t", get_memory, 0, 0),
    SD_BUS_PROPERTY("MemoryTotal", "t", get_memory, 0, EMITS),
    SD_BUS_PROPERTY("SpoolDirectory", "s", get_text, 0, CONST),
    SD_BUS_PROPERTY("DropDirectory", "s", get_text, 0, CONST),
    SD_BUS_PROPERTY("Schedulers", "as", get_schedulers, 0, CONST),
    SD_BUS_PROPERTY("Options", "a(ssssssass)", get_options, 0,
                    SD_BUS_VTABLE_PROPERTY_EMITS_INVALIDATION),
    SD_BUS_PROPERTY("Counters", "a{st}", get_counters, 0, 0),
    SD_BUS_SIGNAL_WITH_NAMES("JobAdded", "to", SD_BUS_PARAM(id) SD_BUS_PARAM(job), 0),
    SD_BUS_SIGNAL_WITH_NAMES("JobRemoved", "to", SD_BUS_PARAM(id) SD_BUS_PARAM(job), 0),
    SD_BUS_VTABLE_END,
};
