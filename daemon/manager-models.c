/* Several models, one in a worker at a time. A switch is a new worker: its end takes the weights
 * off the device whatever the driver thinks of freeing memory, and a model that cannot be loaded
 * harms nothing but the worker that tried.
 *
 * Which job is next: the queue's next one, if its model is there. If not, jobs of the resident
 * model go before it, but no more than MODEL_PASSES_MAX of them and for no longer than
 * MODEL_PASS_USEC since the first did; then the model is switched for it. So a queue of two
 * models mixed is drawn in runs, and nobody waits for ever. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/event.h"
#include "daemon/manager-internal.h"

#define MODEL_PASSES_MAX 8u
#define MODEL_PASS_USEC  UINT64_C(60000000)
#define MODEL_AGAIN_USEC UINT64_C(60000000) /* after which one that could not be loaded may again */

/* --- the list --------------------------------------------------------------------------------- */

static struct model *model_free(struct model *model)
{
    if (model)
        free(model->path);
    free(model);
    return NULL;
}
DEFINE_FREEP(struct model *, model_free)

static struct model *find_model(const struct manager *manager, const char *name)
{
    for (size_t i = 0; i < manager->models.count; i++) {
        struct model *model = manager->models.items[i];
        if (!model->is_gone && strcmp(model->name, name) == 0)
            return model;
    }
    return NULL;
}

/* The one there is of this name and path, or a new one at the end of the list. */
static int keep_model(struct manager *manager, const char *name, const char *path,
                      struct model **ret_model)
{
    for (size_t i = 0; i < manager->models.count; i++) {
        struct model *known = manager->models.items[i];
        if (strcmp(known->name, name) != 0 || strcmp(known->path, path) != 0)
            continue;
        known->is_gone = false;
        *ret_model = known;
        return 0;
    }
    _cleanup_(model_freep) struct model *model = calloc(1, sizeof *model);
    if (model)
        model->path = strdup(path);
    if (!model || !model->path)
        return -ENOMEM;
    (void)snprintf(model->name, sizeof model->name, "%s", name);
    struct model **slot = array_push(&manager->models);
    if (!slot)
        return -ENOMEM;
    *ret_model = *slot = TAKE_PTR(model);
    return 0;
}

static bool is_in_use(const struct manager *manager, const struct model *model)
{
    for (size_t i = 0; i < manager->lane_count; i++) {
        const struct lane *lane = &manager->lanes[i];
        if (lane->model == model || lane->fallback == model || lane->next == model)
            return true;
    }
    for (const struct model_waiter *w = manager->model_waiters; w; w = w->next)
        if (w->model == model)
            return true;
    return manager->probed == model;
}

static void sweep(struct manager *manager)
{
    size_t kept = 0;

    for (size_t i = 0; i < manager->models.count; i++) {
        struct model *model = manager->models.items[i];
        if (model->is_gone && !is_in_use(manager, model))
            model_free(model);
        else
            manager->models.items[kept++] = model;
    }
    manager->models.count = kept;
}

static void move_to_front(struct manager *manager, struct model *model)
{
    struct model **items = manager->models.items;
    size_t i = 0;

    while (items[i] != model)
        i++;
    memmove(items + 1, items, i * sizeof *items);
    items[0] = model;
}

/* The default one first: of [model], or the first that has a name where that has no path. */
static int keep_all(struct manager *manager)
{
    const struct config *c = &manager->config;
    struct model *model, *first = NULL;
    char name[MODEL_NAME_SIZE];
    int r = 0;

    config_default_model(c, name, sizeof name);
    if (c->model_path)
        r = keep_model(manager, name, c->model_path, &first);
    for (size_t i = 0; r == 0 && i < c->model_count; i++) {
        r = keep_model(manager, c->models[i].name, c->models[i].path, &model);
        if (r == 0 && !first)
            first = model;
    }
    if (r == 0 && first)
        move_to_front(manager, first);
    return r;
}

int manager_take_models(struct manager *manager)
{
    const struct model *before = manager->models.count > 0 ? manager->models.items[0] : NULL;

    for (size_t i = 0; i < manager->models.count; i++) {
        struct model *model = manager->models.items[i];
        model->is_gone = true;
        model->err = 0; /* what was wrong may have been mended */
        model->failed_usec = 0;
        model->is_probed = model->has_context;
    }
    int r = keep_all(manager);
    if (r < 0) {
        for (size_t i = 0; i < manager->models.count; i++)
            manager->models.items[i]->is_gone = false;
        return r;
    }
    struct model *first = manager->models.count > 0 && !manager->models.items[0]->is_gone
                              ? manager->models.items[0]
                              : NULL;
    if (first != before || !manager->selected || manager->selected->is_gone)
        manager->selected = first;
    sweep(manager);
    return 0;
}

void manager_close_models(struct manager *manager)
{
    manager->model_probe = helper_free(manager->model_probe);
    for (size_t i = 0; i < manager->models.count; i++)
        model_free(manager->models.items[i]);
    array_done(&manager->models);
}

/* --- which one -------------------------------------------------------------------------------- */

struct model *manager_model_of(const struct manager *manager, const struct request *request)
{
    const char *name = request->model;

    return name && *name ? find_model(manager, name) : manager->selected;
}

static void list_names(const struct manager *manager, char *text, size_t size)
{
    size_t n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < manager->models.count && n < size; i++)
        if (!manager->models.items[i]->is_gone)
            n += (size_t)snprintf(text + n, size - n, "%s%s", n ? ", " : "",
                                  manager->models.items[i]->name);
}

static bool is_bad(const struct manager *manager, const struct model *model)
{
    uint64_t now = manager_now(manager, CLOCK_MONOTONIC);

    if (!model->err)
        return false;
    return !model->failed_usec || now - model->failed_usec < MODEL_AGAIN_USEC;
}

static int unknown_model(const struct manager *manager, const char *name, int err, struct fault *f)
{
    char names[160];

    list_names(manager, names, sizeof names);
    return fault_set(f, err, "model: \"%.40s\" is not configured; there are: %s", name,
                     *names ? names : "none");
}

int manager_check_model(const struct manager *manager, const struct request *request,
                        struct fault *f)
{
    const struct model *model = manager_model_of(manager, request);

    if (!model && request->model && *request->model)
        return unknown_model(manager, request->model, -EINVAL, f);
    if (model && model != manager->selected && is_bad(manager, model))
        return fault_set(f, model->err, "model %s: %.200s", model->name, model->reason);
    return 0;
}

bool manager_get_model(const struct manager *manager, size_t index, struct manager_model *ret)
{
    const struct model *model = NULL;
    const char *state = "available";

    for (size_t i = 0; i < manager->models.count && !model; i++)
        if (!manager->models.items[i]->is_gone && index-- == 0)
            model = manager->models.items[i];
    if (!model)
        return false;
    for (size_t i = 0; i < manager->lane_count; i++) {
        const struct lane *lane = &manager->lanes[i];
        if (lane->model != model || lane->is_unloaded)
            continue;
        bool is_ready = lane->state == MANAGER_STATE_READY || lane->state == MANAGER_STATE_BUSY;
        if (is_ready)
            state = "ready";
        else if (strcmp(state, "ready") != 0)
            state = manager_state_to_string(lane->state);
    }
    if (is_bad(manager, model) && strcmp(state, "available") == 0)
        state = "failed";
    *ret = (struct manager_model){.name = model->name,
                                  .path = model->path,
                                  .hash = model->hash,
                                  .state = state,
                                  .reason = strcmp(state, "failed") == 0 ? model->reason : "",
                                  .memory = model->memory,
                                  .is_default = model == manager->selected,
                                  .is_inpainting = model->context.is_inpainting,
                                  .has_safety = model->context.has_safety};
    return true;
}

/* --- what is learnt of them ------------------------------------------------------------------- */

void manager_on_context(struct manager *manager, struct model *model,
                        const struct request_context *context)
{
    model->context = *context;
    model->has_context = model->is_probed = true;
    for (size_t i = 0; i < manager->queue.jobs.count;) {
        struct job *job = manager->queue.jobs.items[i];
        bool stays = manager_model_of(manager, &job->request) != model ||
                     manager_settle_request(manager, job);
        i += stays; /* or it has left */
    }
}

static int read_answer(int output, struct ipc_context_answer *ret)
{
    struct ipc_context_answer answer;

    if (pread(output, &answer, sizeof answer, 0) != sizeof answer ||
        answer.model.scheduler >= SCHEDULER_KIND_COUNT)
        return -EPROTO;
    answer.text[sizeof answer.text - 1] = '\0';
    *ret = answer;
    return 0;
}

/* What cannot be found out now is found out when it is loaded. */
static void on_probe(int r, int output, const char *why, void *userdata)
{
    struct manager *manager = userdata;
    struct model *model = manager->probed;
    struct ipc_context_answer answer;
    struct request_context context;

    manager->probed = NULL;
    manager->model_probe = helper_free(manager->model_probe);
    if (r == 0)
        r = read_answer(output, &answer);
    if (r < 0) {
        log_warning("model %s: its configuration was not read: %s, ignoring", model->name, why);
    } else if (answer.err < 0) {
        model->err = -ENOEXEC;
        (void)snprintf(model->reason, sizeof model->reason, "%s", answer.text);
        event_log(EVENT_CONFIG_WARNING, EVENT_OF_NONE, "model %s: %s", model->name, answer.text);
    } else if (!model->has_context) {
        ipc_model_to_context(&answer.model, &context);
        manager_on_context(manager, model, &context);
    }
    sweep(manager);
    manager_probe_models(manager);
}

/* Lanes ask for that of their own model. */
static bool wants_probe(const struct manager *manager, const struct model *model)
{
    for (size_t i = 0; i < manager->lane_count; i++)
        if (manager->lanes[i].model == model && !manager->lanes[i].is_unloaded)
            return false;
    return !model->is_probed && !model->is_gone;
}

void manager_probe_models(struct manager *manager)
{
    char context[] = "--context", flag[] = "--model";
    struct model *model = NULL;
    struct fault f = {0};

    if (manager->model_probe)
        return;
    for (size_t i = 0; i < manager->models.count && !model; i++)
        if (wants_probe(manager, manager->models.items[i]))
            model = manager->models.items[i];
    if (!model)
        return;
    char *argv[] = {(char *)(uintptr_t)manager->options.worker, context, flag, model->path, NULL};
    model->is_probed = true;
    manager->probed = model;
    if (helper_start(manager->event, argv, -1, on_probe, manager, &manager->model_probe, &f) == 0)
        return;
    manager->probed = NULL;
    log_warning("model %s: its configuration is not read: %s, ignoring", model->name, f.text);
}

/* --- loading and unloading -------------------------------------------------------------------- */

/* Tells those who wait for this model (NULL: for none) and are no longer to. */
static void tell_waiters(struct manager *manager, const struct model *model, int r,
                         const struct fault *f)
{
    struct model_waiter *told = NULL, *waiter;

    for (struct model_waiter **at = &manager->model_waiters; (waiter = *at);) {
        if (waiter->model != model) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        waiter->next = told;
        told = waiter;
    }
    while ((waiter = told)) {
        told = waiter->next;
        if (waiter->done)
            waiter->done(r, f, waiter->userdata);
        free(waiter);
    }
}

static int add_waiter(struct manager *manager, struct model *model, manager_done_t *done,
                      void *userdata)
{
    struct model_waiter *waiter = calloc(1, sizeof *waiter);

    if (!waiter)
        return -ENOMEM;
    *waiter = (struct model_waiter){manager->model_waiters, model, done, userdata};
    manager->model_waiters = waiter;
    return 0;
}

void manager_on_loaded(struct lane *lane, const struct ipc_hello *hello)
{
    struct manager *manager = lane->manager;
    struct model *model = lane->model;
    struct fault none = {0};
    bool is_awaited = false;

    lane->fallback = NULL;
    model->err = 0;
    model->failed_usec = 0;
    (void)snprintf(model->hash, sizeof model->hash, "%s", hello->model_hash);
    model->memory = hello->memory_used;
    for (const struct model_waiter *w = manager->model_waiters; w; w = w->next)
        is_awaited |= w->model == model;
    if (is_awaited && !model->is_gone)
        manager->selected = model;
    tell_waiters(manager, model, 0, &none);
}

static void fail_jobs(struct manager *manager, const struct model *model)
{
    char text[256];

    (void)snprintf(text, sizeof text, "model %.64s cannot be loaded: %.160s", model->name,
                   model->reason);
    for (size_t i = 0; i < manager->queue.jobs.count;) {
        struct job *job = manager->queue.jobs.items[i];
        if (manager_model_of(manager, &job->request) == model)
            manager_finish_job(manager, job, JOB_STATE_FAILED, model->err, text, NULL, NULL);
        else
            i++;
    }
}

bool manager_on_load_failed(struct lane *lane, int err, const char *why)
{
    struct manager *manager = lane->manager;
    struct model *model = lane->model, *back = lane->fallback;
    struct fault f = {0};

    if (!model)
        return false;
    model->err = err == -ENOMEM ? -ENOMEM : -ENOEXEC;
    model->failed_usec = manager_now(manager, CLOCK_MONOTONIC);
    (void)snprintf(model->reason, sizeof model->reason, "%.250s", why);
    fault_mend(model->reason);
    (void)fault_set(&f, model->err, "model %.64s cannot be loaded: %.160s", model->name, why);
    tell_waiters(manager, model, model->err, &f);
    if (!back)
        return false; /* no other has been there: the service's state says so */
    if (model != manager->selected)
        fail_jobs(manager, model);
    lane->fallback = NULL;
    lane->model = back;
    sweep(manager);
    return true;
}

/* Whoever waits for something else than what was wanted last waits in vain. */
static void tell_overruled(struct manager *manager, const struct model *wanted)
{
    struct fault f = {0};
    const struct model_waiter *w;

    (void)fault_set(&f, -ECANCELED, "another model was asked for meanwhile");
    do {
        for (w = manager->model_waiters; w && w->model == wanted; w = w->next)
            continue;
        if (w)
            tell_waiters(manager, w->model, -ECANCELED, &f);
    } while (w);
}

void manager_load_model(struct manager *manager, const char *name, manager_done_t *done,
                        void *userdata)
{
    struct model *model = *name                       ? find_model(manager, name)
                          : manager->models.count > 0 ? manager->models.items[0]
                                                      : NULL;
    struct fault f = {0};
    bool is_there = false;

    if (!model)
        (void)unknown_model(manager, name, -ENOENT, &f);
    else if (add_waiter(manager, model, done, userdata) < 0)
        (void)fault_set(&f, -ENOMEM, "out of memory");
    if (f.err) {
        if (done)
            done(f.err, &f, userdata);
        return;
    }
    event_log(EVENT_MODEL_WANTED, EVENT_OF_NONE, "model %s: wanted by the operator", model->name);
    tell_overruled(manager, model);
    for (size_t i = 0; i < manager->lane_count; i++) {
        struct lane *lane = &manager->lanes[i];
        is_there |= lane->model == model && lane->worker &&
                    worker_get_state(lane->worker) == WORKER_STATE_READY;
        lane->has_next = false;
        if (lane->model != model || lane->is_unloaded || lane->state == MANAGER_STATE_FAILED)
            manager_switch_lane(lane, model);
    }
    if (is_there) {
        manager->selected = model;
        tell_waiters(manager, model, 0, &f);
    }
    manager_plan_dispatch(manager);
}

static bool is_all_unloaded(const struct manager *manager)
{
    for (size_t i = 0; i < manager->lane_count; i++)
        if (!manager->lanes[i].is_unloaded)
            return false;
    return true;
}

void manager_tell_unloaded(struct manager *manager)
{
    struct fault none = {0};

    if (is_all_unloaded(manager))
        tell_waiters(manager, NULL, 0, &none);
}

void manager_unload_model(struct manager *manager, manager_done_t *done, void *userdata)
{
    struct fault f = {0};

    if (add_waiter(manager, NULL, done, userdata) < 0) {
        (void)fault_set(&f, -ENOMEM, "out of memory");
        if (done)
            done(-ENOMEM, &f, userdata);
        return;
    }
    tell_overruled(manager, NULL);
    bool is_busy = false;
    for (size_t i = 0; i < manager->lane_count; i++) {
        manager_switch_lane(&manager->lanes[i], NULL);
        is_busy |= manager->lanes[i].running != NULL;
    }
    if (is_busy)
        tell_waiters(manager, NULL, 0, &f);
    manager_plan_dispatch(manager);
}

/* --- whose turn it is ------------------------------------------------------------------------- */

static bool is_of_lane(const struct job *job, void *userdata)
{
    const struct lane *lane = userdata;

    return manager_model_of(lane->manager, &job->request) == lane->model;
}

static bool is_overdue(const struct manager *manager, const struct job *job)
{
    uint64_t now = manager_now(manager, CLOCK_MONOTONIC);

    return job->passed >= MODEL_PASSES_MAX ||
           (job->passed_usec && now - job->passed_usec >= MODEL_PASS_USEC);
}

/* Whether another lane has the model, or will soon, and nothing else to do. */
static bool is_awaited_elsewhere(const struct lane *lane, const struct model *model)
{
    const struct manager *manager = lane->manager;

    for (size_t i = 0; i < manager->lane_count; i++) {
        const struct lane *other = &manager->lanes[i];
        bool is_coming =
            other->state == MANAGER_STATE_LOADING || other->state == MANAGER_STATE_READY;
        const struct model *its = other->has_next      ? other->next
                                  : other->is_unloaded ? NULL
                                                       : other->model;
        if (other != lane && its == model && !other->running && is_coming)
            return true;
    }
    return false;
}

/* The queue's next job whose model there is; those that want one that is not fail. */
static struct job *next_of_all(struct manager *manager)
{
    struct job *job;
    struct fault f = {0};

    while ((job = queue_next(&manager->queue, NULL, NULL))) {
        bool is_known = manager_model_of(manager, &job->request) &&
                        manager_check_model(manager, &job->request, &f) == 0;
        if (is_known && manager_settle_request(manager, job))
            return job;
        if (is_known)
            continue; /* it has failed and left */
        if (!f.err)
            (void)unknown_model(manager, job->request.model ? job->request.model : "", -EINVAL, &f);
        manager_finish_job(manager, job, JOB_STATE_FAILED, f.err, f.text, NULL, NULL);
        f = (struct fault){0};
    }
    return NULL;
}

struct job *manager_choose_job(struct lane *lane)
{
    struct manager *manager = lane->manager;
    struct job *next = next_of_all(manager), *own;

    if (!next)
        return NULL;
    struct model *wanted = manager_model_of(manager, &next->request);
    if (lane->is_unloaded) {
        if (!is_awaited_elsewhere(lane, wanted))
            manager_switch_lane(lane, wanted);
        return NULL;
    }
    if (wanted != lane->model) {
        own = queue_next(&manager->queue, is_of_lane, lane);
        bool is_patient = is_awaited_elsewhere(lane, wanted);
        if (!is_patient && (!own || is_overdue(manager, next))) {
            manager_switch_lane(lane, wanted);
            return NULL;
        }
        if (!is_patient && next->passed++ == 0)
            next->passed_usec = manager_now(manager, CLOCK_MONOTONIC);
        next = own && manager_settle_request(manager, own) ? own : NULL;
    }
    if (next)
        queue_serve(&manager->queue, next);
    return next;
}
