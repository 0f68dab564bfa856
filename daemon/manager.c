/* Life, observers, verbs, looking. What a verb changes goes through manager-disk.c. */
#include "daemon/manager.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/error.h"
#include "daemon/event.h"
#include "daemon/loras.h"
#include "daemon/manager-internal.h"

#define LIMIT_TELL_USEC UINT64_C(60000000)

static const char *const state_names[MANAGER_STATE_COUNT] = {
    [MANAGER_STATE_LOADING] = "loading", [MANAGER_STATE_READY] = "ready",
    [MANAGER_STATE_BUSY] = "busy",       [MANAGER_STATE_PAUSED] = "paused",
    [MANAGER_STATE_FAILED] = "failed",
};

/* --- shared ----------------------------------------------------------------------------------- */

uint64_t manager_now(const struct manager *manager, clockid_t clock)
{
    uint64_t usec = 0;

    (void)sd_event_now(manager->event, clock, &usec); /* the loop is ours: cannot fail */
    return usec;
}

void manager_tell(struct manager *manager, unsigned changes)
{
    MANAGER_NOTIFY(manager, on_changed, changes);
}

void manager_count(struct manager *manager, enum manager_counter_id counter)
{
    manager->counters[counter].value++;
}

/* Of several lanes the best one speaks: one that works, else one that will. */
static const struct lane *find_speaker(const struct manager *manager)
{
    static const enum manager_state order[] = {MANAGER_STATE_BUSY, MANAGER_STATE_READY,
                                               MANAGER_STATE_LOADING, MANAGER_STATE_FAILED};

    for (size_t k = 0; k < ARRAY_SIZE(order); k++)
        for (size_t i = 0; i < manager->lane_count; i++)
            if (manager->lanes[i].state == order[k])
                return &manager->lanes[i];
    return &manager->lanes[0];
}

void manager_update_state(struct manager *manager)
{
    const struct lane *speaker = find_speaker(manager);
    struct manager_facts *facts = &manager->facts;
    enum manager_state state = speaker->state;
    const char *reason = speaker->reason;
    bool may_pause = state == MANAGER_STATE_READY || state == MANAGER_STATE_BUSY;

    if (may_pause && manager->is_paused && state == MANAGER_STATE_READY) {
        state = MANAGER_STATE_PAUSED;
        reason = "paused by the operator";
    } else if (may_pause && manager->is_hot) {
        state = MANAGER_STATE_PAUSED;
        reason = manager->hot_reason;
    }
    if (facts->state == state && strcmp(facts->state_reason, reason) == 0)
        return;
    facts->state = state;
    (void)snprintf(facts->state_reason, sizeof facts->state_reason, "%s", reason);
    manager_tell(manager, MANAGER_CHANGE_STATE);
}

void manager_change_job(struct manager *manager, struct job *job, enum job_state state)
{
    bool moved = job->state == JOB_STATE_QUEUED || state == JOB_STATE_QUEUED;

    job_set_state(job, state);
    MANAGER_NOTIFY(manager, on_job_changed, job);
    if (job_state_is_final(state))
        MANAGER_NOTIFY(manager, on_job_finished, job);
    if (moved)
        manager_tell(manager, MANAGER_CHANGE_QUEUE);
}

int manager_resolve(const struct manager *manager, struct request *request, bool *ret_resolved,
                    struct fault *f)
{
    const struct model *model = manager_model_of(manager, request);

    if (!model || !model->has_context)
        return 0;
    struct request_context context = model->context;
    context.max_pixels = manager->config.limit_pixels;
    int r = request_complete(request, &manager->config.defaults, &context, f);
    if (r < 0)
        return r;
    r = request_check(request, &context, f);
    if (r < 0)
        return r;
    *ret_resolved = true;
    return 0;
}

/* Room in both lists for what is on its way, and for jobs of lanes that come back. */
static int make_room(struct manager *manager, size_t more)
{
    if (array_reserve(&manager->jobs, manager->coming + more) < 0)
        return -ENOMEM;
    return queue_reserve(&manager->queue, manager->coming + more + MANAGER_LANES_MAX);
}

int manager_adopt(struct manager *manager, struct job *job)
{
    struct job **slot;

    if (make_room(manager, 1) < 0)
        return -ENOMEM;
    if (job->is_resolved)
        job_count_pictures(job);
    if (job->state == JOB_STATE_QUEUED)
        (void)queue_insert(&manager->queue, job); /* there is room */
    slot = array_push(&manager->jobs);
    assert(slot && (manager->jobs.count == 1 || slot[-1]->id < job->id));
    *slot = job;
    return 0;
}

static size_t find_index(const struct manager *manager, uint64_t id)
{
    size_t low = 0, high = manager->jobs.count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (manager->jobs.items[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void manager_remove_job(struct manager *manager, struct job *job)
{
    size_t i = find_index(manager, job->id);
    struct job **at = &manager->jobs.items[i];

    MANAGER_NOTIFY(manager, on_job_removed, job);
    assert(i < manager->jobs.count && *at == job);
    memmove(at, at + 1, (manager->jobs.count - i - 1) * sizeof *at);
    manager->jobs.count--;
    job_free(job);
}

/* --- life ------------------------------------------------------------------------------------- */

static int set_up(struct manager *manager, const struct manager_options *options)
{
    static const char *const names[COUNTER_COUNT] = {
#define COUNTER_NAME(name) #name,
        MANAGER_COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
    };

    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        manager->counters[i].name = names[i];
    manager->config = *options->config;
    *options->config = (struct config){0};
    manager->options = *options;
    manager->options.config = NULL;
    manager->options.worker = strdup(options->worker);
    manager->options.cache = options->cache ? strdup(options->cache) : NULL;
    if (!manager->options.worker || (options->cache && !manager->options.cache))
        return -ENOMEM;
    queue_init(&manager->queue, manager->config.limit_queue);
    return 0;
}

int manager_new(sd_event *event, const struct manager_options *options,
                struct manager **ret_manager, struct fault *f)
{
    _cleanup_(manager_freep) struct manager *manager = calloc(1, sizeof *manager);

    if (!manager)
        return fault_set(f, -ENOMEM, "out of memory");
    manager->event = event;
    manager->thermal = -1;
    int r = set_up(manager, options);
    if (r < 0)
        return fault_set(f, r, "manager: %s", strerror(-r));
    if ((r = manager_open_lanes(manager, f)) < 0 || (r = manager_open_care(manager, f)) < 0 ||
        (r = manager_open_disk(manager, f)) < 0)
        return r;
    *ret_manager = TAKE_PTR(manager);
    return 0;
}

void manager_stop(struct manager *manager)
{
    manager_close_care(manager);
    manager_close_lanes(manager);
    manager_close_disk(manager);
}

struct manager *manager_free(struct manager *manager)
{
    if (!manager)
        return NULL;
    manager_stop(manager);
    helper_free(manager->probe);
    for (size_t i = 0; i < manager->jobs.count; i++)
        job_free(manager->jobs.items[i]);
    manager_close_models(manager);
    array_done(&manager->jobs);
    array_done(&manager->devices);
    queue_done(&manager->queue);
    spool_close(manager->spool);
    config_done(&manager->config);
    free((char *)(uintptr_t)manager->options.worker); /* both are copies of ours */
    free((char *)(uintptr_t)manager->options.cache);
    free(manager);
    return NULL;
}

void manager_start(struct manager *manager)
{
    manager_start_probe(manager);
    manager_start_lanes(manager);
    manager_probe_models(manager);
}

void manager_add_observer(struct manager *manager, struct manager_observer *observer)
{
    observer->next = manager->observers;
    manager->observers = observer;
}

void manager_remove_observer(struct manager *manager, struct manager_observer *observer)
{
    for (struct manager_observer **at = &manager->observers; *at; at = &(*at)->next) {
        if (*at != observer)
            continue;
        *at = observer->next;
        return;
    }
}

/* --- submit ----------------------------------------------------------------------------------- */

struct job *manager_find_origin(const struct manager *manager, const char *origin)
{
    for (size_t i = 0; i < manager->jobs.count; i++)
        if (strcmp(manager->jobs.items[i]->origin, origin) == 0)
            return manager->jobs.items[i];
    return NULL;
}

static struct job *find_token(const struct manager *manager, uint32_t owner, const char *token)
{
    for (size_t i = 0; token && *token && i < manager->jobs.count; i++) {
        struct job *job = manager->jobs.items[i];
        if (job->owner == owner && job->request.token && strcmp(job->request.token, token) == 0)
            return job;
    }
    return NULL;
}

/* Whether this was submitted before; `done` is then told, now or when the disk has it. */
static bool is_repeated(struct manager *manager, const struct manager_submission *s,
                        manager_submitted_t *done, void *userdata)
{
    const char *token = s->request->token;
    struct job *job =
        s->origin ? manager_find_origin(manager, s->origin) : find_token(manager, s->owner, token);
    struct fault none = {0};

    if (!job && !manager_join_submission(manager, s->owner, token, s->origin, done, userdata))
        return false;
    manager_count(manager, COUNTER_jobs_repeated);
    if (job)
        done(0, job, &none, userdata);
    return true;
}

static struct usage usage_of(const struct manager *manager, uint32_t owner)
{
    struct usage usage = manager_coming_of(manager, owner);

    for (size_t i = 0; i < manager->jobs.count; i++) {
        const struct job *job = manager->jobs.items[i];
        if (job->owner != owner)
            continue;
        usage.jobs += !job_state_is_final(job->state);
        usage.bytes += job_bytes(job);
    }
    return usage;
}

/* Refuses; the log hears of it once a minute at most, whoever it is that tries again and again. */
static int over_limit(struct manager *manager, uint32_t owner, struct fault *f, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));
static int over_limit(struct manager *manager, uint32_t owner, struct fault *f, const char *format,
                      ...)
{
    uint64_t now = manager_now(manager, CLOCK_MONOTONIC);
    char text[256];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (manager->limit_told_usec == 0 || now - manager->limit_told_usec > LIMIT_TELL_USEC) {
        manager->limit_told_usec = now;
        event_log(EVENT_LIMIT_HIT, event_of_user(owner), "uid %" PRIu32 ": %s", owner, text);
    }
    return fault_set(f, -EDQUOT, "%s", text);
}

static uint64_t input_bytes(const struct manager_submission *s)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; s->inputs && i < JOB_INPUT_COUNT; i++)
        bytes += s->inputs[i].fd < 0 ? 0 : s->inputs[i].bytes;
    return bytes;
}

static int check_quota(struct manager *manager, const struct manager_submission *s, struct fault *f)
{
    uint32_t owner = s->owner;
    const struct config *c = &manager->config;
    struct usage usage = owner == 0 ? (struct usage){0} : usage_of(manager, owner);
    uint64_t coming = owner == 0 ? 0 : input_bytes(s);

    if (c->limit_user_jobs && usage.jobs >= c->limit_user_jobs)
        return over_limit(manager, owner, f,
                          "%" PRIu64 " of your jobs wait or run, the limit is %" PRIu64
                          ": wait for one to end, or cancel one",
                          usage.jobs, c->limit_user_jobs);
    if (c->limit_user_megabytes && usage.bytes + coming >= c->limit_user_megabytes << 20)
        return over_limit(manager, owner, f,
                          "your pictures take %" PRIu64 " MiB, the limit is %" PRIu64
                          ": delete finished jobs",
                          (usage.bytes + coming) >> 20, c->limit_user_megabytes);
    return 0;
}

static int apply_preset(const struct manager *manager, struct request *request, struct fault *f)
{
    const char *name = request->preset;

    if (!name || !*name)
        return 0;
    const struct request *preset = config_find_preset(&manager->config, name);
    if (!preset)
        return fault_set(f, -EINVAL, "preset: \"%.64s\" is not in the configuration", name);
    int r = request_merge(request, preset);
    return r < 0 ? fault_set(f, r, "out of memory") : 0;
}

static bool is_refused(const struct manager *manager, const struct request *request)
{
    _cleanup_(text_list_done) struct text_list list = {0};

    if (request->prompt && config_refused_word(&manager->config, request->prompt))
        return true;
    if (request_list(request, &request_rows[REQUEST_prompts], &list) < 0)
        return true; /* out of memory: not looked at is not allowed */
    for (size_t i = 0; i < list.count; i++)
        if (config_refused_word(&manager->config, list.items[i]))
            return true;
    return false;
}

static int check_words(const struct manager *manager, uint32_t owner, const struct request *request,
                       struct fault *f)
{
    if (!is_refused(manager, request))
        return 0;
    event_log(EVENT_PROMPT_REFUSED, event_of_user(owner),
              "a prompt of uid %" PRIu32 " is refused by the word list", owner);
    return fault_set(f, -EKEYREJECTED, "the operator of this machine does not want this prompt");
}

/* Those of the service, or the model's own where it has none, as the engine looks for them. */
static int check_loras(const struct manager *manager, const struct request *request,
                       struct fault *f)
{
    const struct model *model = manager_model_of(manager, request);
    const char *directory = manager->config.loras_path;
    char own[PATH_MAX];

    if (!directory && model) {
        (void)snprintf(own, sizeof own, "%s/loras", model->path);
        directory = own;
    }
    return directory ? loras_check(request->lora, directory, f) : 0;
}

/* A picture handed in counts as given; the spool finds its real name. Paths are not taken: whose
 * right to read would they be opened with? */
static int name_inputs(const struct manager_submission *s, struct fault *f)
{
    char *const given[JOB_INPUT_COUNT] = {s->request->image, s->request->mask};
    int r = 0;

    for (unsigned i = 0; i < JOB_INPUT_COUNT && r == 0; i++) {
        const struct request_row *row = &request_rows[job_input_row(i)];
        const char *name = job_input_name(i, JOB_FORMAT_PNG);
        if (given[i] && *given[i])
            return fault_set(f, -EINVAL, "%s: a file name is not taken, %s", row->name,
                             s->origin ? i == JOB_INPUT_IMAGE
                                             ? "put NAME.png beside the ticket"
                                             : "put NAME.mask.png beside the ticket"
                                       : "hand over a descriptor");
        if (s->inputs && s->inputs[i].fd >= 0)
            r = request_set_text(s->request, row, name, strlen(name), f);
    }
    return r;
}

/* Everything that can be said against a submission before it goes to the disk. */
static int admit(struct manager *manager, const struct manager_submission *s, bool *ret_resolved,
                 struct fault *f)
{
    int r;

    if (manager->facts.state == MANAGER_STATE_FAILED)
        return fault_set(f, -EBUSY, "not ready: %.200s", manager->facts.state_reason);
    if ((r = name_inputs(s, f)) < 0 || (r = apply_preset(manager, s->request, f)) < 0 ||
        (r = check_words(manager, s->owner, s->request, f)) < 0 ||
        (r = manager_check_model(manager, s->request, f)) < 0 ||
        (r = check_loras(manager, s->request, f)) < 0 ||
        (r = manager_resolve(manager, s->request, ret_resolved, f)) < 0 ||
        (r = queue_admit(&manager->queue, manager->coming, f)) < 0 ||
        (r = check_quota(manager, s, f)) < 0 || (r = manager_check_space(manager, f)) < 0)
        return r;
    return make_room(manager, 1) < 0 ? fault_set(f, -ENOMEM, "out of memory") : 0;
}

static struct job *make_job(struct manager *manager, const struct manager_submission *s,
                            bool is_resolved)
{
    struct job *job = job_new(spool_next_id(manager->spool), s->owner);

    if (!job)
        return NULL;
    job->is_resolved = is_resolved;
    job->created_usec = manager_now(manager, CLOCK_REALTIME);
    if (s->request->deadline)
        job->deadline_uptime_usec = manager_uptime(manager) + s->request->deadline;
    if (s->origin)
        (void)snprintf(job->origin, sizeof job->origin, "%s", s->origin);
    job->request = *s->request;
    *s->request = (struct request){0};
    for (unsigned i = 0; s->inputs && i < JOB_INPUT_COUNT; i++) {
        job->inputs[i] = s->inputs[i];
        s->inputs[i].fd = -1;
    }
    return job;
}

static void drop_submission(const struct manager_submission *s)
{
    request_done(s->request);
    for (unsigned i = 0; s->inputs && i < JOB_INPUT_COUNT; i++) {
        closep(&s->inputs[i].fd);
        s->inputs[i].fd = -1;
    }
}

void manager_submit(struct manager *manager, const struct manager_submission *s,
                    manager_submitted_t *done, void *userdata)
{
    bool is_resolved = false;
    struct job *job = NULL;
    struct fault f = {0};

    if (is_repeated(manager, s, done, userdata)) {
        drop_submission(s);
        return;
    }
    int r = admit(manager, s, &is_resolved, &f);
    if (r == 0 && !(job = make_job(manager, s, is_resolved)))
        r = fault_set(&f, -ENOMEM, "out of memory");
    if (r == 0) {
        manager_keep_job(manager, job, done, userdata);
        return;
    }
    drop_submission(s);
    manager_count(manager, COUNTER_jobs_refused);
    done(r, NULL, &f, userdata);
}

/* --- the other verbs -------------------------------------------------------------------------- */

static void tell(manager_done_t *done, void *userdata, int r, const struct fault *f)
{
    if (done)
        done(r, f, userdata);
}

void manager_cancel(struct manager *manager, struct job *job, manager_done_t *done, void *userdata)
{
    struct lane *lane = manager_lane_of(manager, job);
    struct fault none = {0};

    if (job->state == JOB_STATE_QUEUED && !job->is_moving) {
        manager_finish_job(manager, job, JOB_STATE_CANCELLED, -ECANCELED, "cancelled while queued",
                           done, userdata);
        return;
    }
    if (!job_state_is_final(job->state)) {
        if (lane && !job->is_moving && !job->is_cancelling)
            worker_cancel(lane->worker, job->id);
        job->is_cancelling = true;
    }
    tell(done, userdata, 0, &none);
}

void manager_delete(struct manager *manager, struct job *job, manager_done_t *done, void *userdata)
{
    struct fault f = {0};

    if (!job_state_is_final(job->state))
        (void)fault_set(&f, -EBUSY, "job %" PRIu64 " is %s: cancel it first, or wait for its end",
                        job->id, job_state_to_string(job->state));
    else if (job->is_moving || job->is_unsaved)
        (void)fault_set(&f, -EBUSY, "job %" PRIu64 " is on its way to the disk: try again",
                        job->id);
    if (f.err)
        tell(done, userdata, f.err, &f);
    else
        manager_erase_job(manager, job, done, userdata);
}

void manager_fetched(struct manager *manager, struct job *job, uint32_t index)
{
    if (index >= job->picture_count)
        return;
    uint64_t all = UINT64_MAX >> (64 - job->picture_count);
    job->fetched |= UINT64_C(1) << index;
    if (job->request.ephemeral && job->fetched == all)
        manager_delete(manager, job, NULL, NULL);
}

/* --- looking ---------------------------------------------------------------------------------- */

struct job *manager_find(const struct manager *manager, uint64_t id)
{
    size_t i = find_index(manager, id);

    if (i == manager->jobs.count || manager->jobs.items[i]->id != id)
        return NULL;
    return manager->jobs.items[i];
}

struct job *const *manager_jobs(const struct manager *manager, size_t *ret_count)
{
    *ret_count = manager->jobs.count;
    return manager->jobs.items;
}

static int check_picture(const struct job *job, uint32_t index, struct fault *f)
{
    if (!job_state_is_final(job->state))
        return fault_set(f, -EBUSY, "job %" PRIu64 " is %s: wait for its end", job->id,
                         job_state_to_string(job->state));
    if (index >= job->picture_count)
        return fault_set(f, -ENOENT,
                         "job %" PRIu64 " has %" PRIu32 " pictures, none has index %" PRIu32,
                         job->id, job->picture_count, index);
    return 0;
}

int manager_open_picture(struct manager *manager, const struct job *job, uint32_t index,
                         struct fault *f)
{
    int r = check_picture(job, index, f);

    if (r < 0)
        return r;
    if (job->held[index] < 0)
        return spool_open_picture(manager->spool, job, index, f);
    int fd = fcntl(job->held[index], F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? fault_set(f, -errno, "picture: %s", strerror(errno)) : fd;
}

int manager_open_preview(const struct job *job, struct job_preview *ret_preview, struct fault *f)
{
    if (job_state_is_final(job->state))
        return fault_set(f, -ENOENT, "job %" PRIu64 " is %s: its pictures are what there is to see",
                         job->id, job_state_to_string(job->state));
    if (job->is_resolved && job->request.preview_steps == 0)
        return fault_set(f, -ENOENT, "job %" PRIu64 ": preview_steps is 0, it makes none", job->id);
    if (job->preview.fd < 0)
        return fault_set(f, -EBUSY, "job %" PRIu64 " has no preview yet", job->id);
    struct job_preview preview = job->preview;
    preview.fd = fcntl(job->preview.fd, F_DUPFD_CLOEXEC, 3);
    if (preview.fd < 0)
        return fault_set(f, -errno, "preview: %s", strerror(errno));
    *ret_preview = preview;
    return 0;
}

int manager_picture_path(struct manager *manager, const struct job *job, uint32_t index,
                         char **ret_path, struct fault *f)
{
    char below[96];

    int r = check_picture(job, index, f);
    if (r < 0)
        return r;
    spool_picture_path(job, index, below, sizeof below);
    if (asprintf(ret_path, "%s/%s", manager->config.spool_path, below) < 0)
        return fault_set(f, -ENOMEM, "out of memory");
    return 0;
}

int manager_decode(struct manager *manager, int png, helper_done_t *on_done, void *userdata,
                   struct helper **ret_helper, struct fault *f)
{
    char decode[] = "--decode";
    char *argv[] = {(char *)(uintptr_t)manager->options.worker, decode, NULL};

    return helper_start(manager->event, argv, png, on_done, userdata, ret_helper, f);
}

const struct manager_facts *manager_get_facts(const struct manager *manager)
{
    return &manager->facts;
}

const struct config *manager_get_config(const struct manager *manager)
{
    return &manager->config;
}

const struct device_list *manager_get_devices(const struct manager *manager)
{
    return &manager->devices;
}

const struct manager_counter *manager_counters(const struct manager *manager, size_t *ret_count)
{
    *ret_count = COUNTER_COUNT;
    return manager->counters;
}

uint32_t manager_queue_length(const struct manager *manager)
{
    return (uint32_t)manager->queue.jobs.count;
}

static size_t count_running(const struct manager *manager)
{
    size_t count = 0;

    for (size_t i = 0; i < manager->lane_count; i++)
        count += manager->lanes[i].running != NULL;
    return count;
}

uint32_t manager_queue_position(const struct manager *manager, const struct job *job)
{
    if (job->state != JOB_STATE_QUEUED || job->is_moving)
        return 0;
    size_t running = count_running(manager), lanes = manager->lane_count;
    return (uint32_t)(queue_position(&manager->queue, job) + (running == lanes ? running : 0));
}

struct wait {
    const struct eta *eta;
    uint64_t usec; /* JOB_ETA_UNKNOWN once one is not known */
};

static void add_wait(const struct job *before, void *userdata)
{
    struct wait *wait = userdata;
    uint64_t usec = eta_left(wait->eta, before);

    if (usec == JOB_ETA_UNKNOWN || wait->usec == JOB_ETA_UNKNOWN)
        wait->usec = JOB_ETA_UNKNOWN;
    else
        wait->usec += usec;
}

/* The lane whose measures are best: its own, else one that has some. */
static const struct lane *find_measured(const struct manager *manager, const struct job *job)
{
    const struct lane *lane = manager_lane_of((struct manager *)(uintptr_t)manager, job);

    for (size_t i = 0; !lane && i < manager->lane_count; i++)
        if (manager->lanes[i].eta.step_cost > 0)
            lane = &manager->lanes[i];
    return lane ? lane : &manager->lanes[0];
}

uint64_t manager_eta(const struct manager *manager, const struct job *job)
{
    struct wait wait = {.eta = &find_measured(manager, job)->eta};
    uint64_t left = eta_left(wait.eta, job), lanes = manager->lane_count;

    if (left == 0 || left == JOB_ETA_UNKNOWN)
        return left;
    if (job->state == JOB_STATE_QUEUED) {
        queue_each_before(&manager->queue, job, add_wait, &wait);
        for (size_t i = 0; i < lanes; i++)
            if (manager->lanes[i].running && manager->lanes[i].running != job)
                add_wait(manager->lanes[i].running, &wait);
    }
    if (wait.usec == JOB_ETA_UNKNOWN)
        return JOB_ETA_UNKNOWN;
    return left + wait.usec / lanes + manager_hot_left(manager);
}

const char *manager_state_to_string(enum manager_state state)
{
    return state_names[state];
}
