/* serve — two threads. The calling one owns the engine: it loads, runs, encodes. The link thread
 * reads the socket, so that a cancel arrives while the engine runs, and beats; once the end is
 * asked for it sees to it that it comes. They meet in what is under the lock. */
#include "daemon/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <utf8proc.h>

#include "daemon/result-json.h"
#include "daemon/serve-inputs.h"
#include "vk/base/cleanup.h"
#include "vk/base/log.h"
#include "vk/base/sha256.h"

struct serve {
    const struct serve_options *options;
    int socket, signals;
    atomic_uint_fast64_t
        load_progress; /* reports of the loader: progress before there are submissions */
    atomic_uint_fast64_t memory_used; /* bytes, as of the last look */
    pthread_t link;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* the engine's thread waits for it */
    pthread_cond_t ended;   /* the link thread waits for it */
    /* under the lock */
    struct engine *engine; /* NULL while opening */
    enum ipc_phase phase;  /* what the engine's thread is at */
    bool is_ready;         /* HELLO is out or about to go */
    bool stop, has_ended;
    enum ipc_exit status;
    bool hold;      /* the engine shall wait between steps */
    bool has_check; /* a known-answer picture is asked for */
    uint64_t job;   /* waiting or running, 0: idle */
    bool cancelled; /* that job */
    bool has_run;   /* `run` waits to be taken, with its files */
    struct ipc_run run;
    struct ipc_files files;
};

/* What the engine's callbacks need while one request runs. */
struct task {
    struct serve *serve;
    struct engine *engine;
    uint64_t job;
    const struct request *request;
    const struct serve_inputs *inputs;
    struct engine_info info;
    struct fault fault; /* why a picture could not be handed over */
};

/* Fits any bytes into a field of valid UTF-8 that ends in NUL: the manager puts them on the bus. */
static void copy_text(char *to, size_t size, const char *from)
{
    size_t n = 0;

    while (from && *from) {
        utf8proc_int32_t c;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)from, -1, &c);
        size_t take = step > 0 ? (size_t)step : 1;
        if (n + take >= size)
            break;
        if (step > 0)
            memcpy(to + n, from, take);
        else
            to[n] = '?';
        n += take;
        from += take;
    }
    to[n] = '\0';
}

/* A failed send means that the manager is gone; the link thread sees that end too and acts on it.
 */
static void send_packet(struct serve *s, union ipc_packet *p, enum ipc_type type, uint64_t job,
                        int attached)
{
    p->header = (struct ipc_header){IPC_VERSION, type, job};
    (void)ipc_send(s->socket, p, attached);
}

static void send_done(struct serve *s, enum ipc_type type, uint64_t job, int err, const char *text)
{
    union ipc_packet p = {0};

    p.done.err = err;
    copy_text(p.done.text, sizeof p.done.text, text);
    send_packet(s, &p, type, job, -1);
}

/* --- the link thread -------------------------------------------------------------------------- */

/* Ends the worker. While the engine is still opening nothing can be interrupted and nothing is
 * worth saving, so the process ends here; device memory is the kernel's to take back. */
static void stop(struct serve *s, enum ipc_exit status)
{
    (void)pthread_mutex_lock(&s->lock);
    if (!s->engine && !s->stop)
        _exit(status);
    if (s->engine)
        engine_cancel(s->engine);
    if (!s->stop)
        s->status = status;
    s->stop = true;
    (void)pthread_cond_signal(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

static void beat(struct serve *s)
{
    union ipc_packet p = {0};

    p.beat.progress = atomic_load(&s->load_progress);
    p.beat.memory_used = atomic_load(&s->memory_used);
    (void)pthread_mutex_lock(&s->lock);
    if (s->engine)
        p.beat.progress += engine_progress(s->engine);
    p.beat.phase = s->phase == IPC_PHASE_IDLE && s->job ? IPC_PHASE_RUNNING : s->phase;
    p.header = (struct ipc_header){IPC_VERSION, IPC_BEAT, s->job};
    (void)pthread_mutex_unlock(&s->lock);
    /* Never waits: this thread must go on hearing the signals. A manager that has left so much
     * unread has signs of life enough. */
    (void)ipc_send_now(s->socket, &p);
}

/* Two runs at once are a defect of the manager. Takes the files over. */
static int on_run(struct serve *s, const struct ipc_run *run, struct ipc_files *files)
{
    int r = 0;

    (void)pthread_mutex_lock(&s->lock);
    if (!s->is_ready || s->job != 0 || run->header.job == 0)
        r = -EPROTO;
    if (r == 0) {
        s->run = *run;
        s->files = *files;
        files->count = 0;
        s->has_run = true;
        s->job = run->header.job;
        s->cancelled = false;
        (void)pthread_cond_signal(&s->changed);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

/* A cancel for another job is late: its DONE is on the way. */
static void on_cancel(struct serve *s, uint64_t job)
{
    (void)pthread_mutex_lock(&s->lock);
    if (s->job == job && job != 0 && s->engine) {
        s->cancelled = true;
        engine_cancel(s->engine);
        (void)pthread_cond_signal(&s->changed);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

static void set_wish(struct serve *s, bool *wish, bool value)
{
    (void)pthread_mutex_lock(&s->lock);
    *wish = value;
    (void)pthread_cond_signal(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

static int receive(struct serve *s)
{
    _cleanup_(ipc_files_done) struct ipc_files files = {0};
    union ipc_packet p;
    int r = ipc_receive_files(s->socket, &p, &files);

    if (r < 0)
        return r;
    switch (p.header.type) {
    case IPC_RUN:
        return on_run(s, &p.run, &files);
    case IPC_CANCEL:
        on_cancel(s, p.header.job);
        return 0;
    case IPC_CHECK:
        set_wish(s, &s->has_check, true);
        return 0;
    case IPC_HOLD:
    case IPC_GO:
        set_wish(s, &s->hold, p.header.type == IPC_HOLD);
        return 0;
    default:
        return -EPROTO; /* not ours to have */
    }
}

static int64_t now_msec(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with a clock that exists */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Nothing of what the engine still does is wanted by anyone: where it does not come back, we go. */
static void await_end(struct serve *s)
{
    struct timespec until;
    int r = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SERVE_GRACE_SEC;
    (void)pthread_mutex_lock(&s->lock);
    while (!s->has_ended && r != ETIMEDOUT)
        r = pthread_cond_clockwait(&s->ended, &s->lock, CLOCK_MONOTONIC, &until);
    if (!s->has_ended) {
        log_error("worker: the engine does not end; leaving it");
        _exit(s->status);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

/* Until the end is asked for, by a signal, the manager or the lack of one. */
static enum ipc_exit attend(struct serve *s)
{
    struct pollfd fds[] = {{.fd = s->socket, .events = POLLIN},
                           {.fd = s->signals, .events = POLLIN}};
    int64_t next_beat = now_msec();

    for (;;) {
        int64_t wait = next_beat - now_msec();
        if (wait <= 0) {
            beat(s);
            next_beat = now_msec() + IPC_BEAT_MSEC;
            continue;
        }
        if (poll(fds, ARRAY_SIZE(fds), (int)wait) <= 0)
            continue;
        if (fds[1].revents)
            return IPC_EXIT_OK;
        int r = fds[0].revents ? receive(s) : 0;
        if (r < 0 && r != -EAGAIN) {
            if (r == -EPROTO)
                log_error("worker: the manager sent a packet out of order; ending");
            return r == -EPROTO ? IPC_EXIT_PROTOCOL : IPC_EXIT_OK;
        }
    }
}

static void *link_main(void *userdata)
{
    struct serve *s = userdata;

    stop(s, attend(s));
    await_end(s);
    return NULL;
}

/* --- the engine's thread ---------------------------------------------------------------------- */

static void on_load(double fraction, void *userdata)
{
    struct serve *s = userdata;
    union ipc_packet p = {0};

    atomic_fetch_add(&s->load_progress, 1);
    p.loading.fraction = fraction;
    send_packet(s, &p, IPC_LOADING, 0, -1);
}

static void on_open_warning(const char *text, void *userdata)
{
    (void)userdata;
    log_warning("worker: %s", text);
}

static void on_warning(const char *text, void *userdata)
{
    struct task *t = userdata;
    union ipc_packet p = {0};

    copy_text(p.text.text, sizeof p.text.text, text);
    send_packet(t->serve, &p, IPC_WARNING, t->job, -1);
}

/* Who may see the engine: nobody before this and after set_engine(NULL). */
static void set_engine(struct serve *s, struct engine *engine)
{
    (void)pthread_mutex_lock(&s->lock);
    s->engine = engine;
    if (engine)
        s->phase = IPC_PHASE_CHECKING;
    s->stop |= !engine;
    (void)pthread_mutex_unlock(&s->lock);
}

static bool is_stopping(struct serve *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool stop = s->stop;
    (void)pthread_mutex_unlock(&s->lock);
    return stop;
}

static enum ipc_exit status_of(int err)
{
    return err == -EIO         ? IPC_EXIT_DEVICE_LOST
           : err == -EBADMSG   ? IPC_EXIT_WRONG
           : err == -ECANCELED ? IPC_EXIT_OK
                               : IPC_EXIT_FAILED;
}

/* The worker itself cannot go on. */
static enum ipc_exit give_up(struct serve *s, int err, const struct fault *f)
{
    if (err == -ECANCELED)
        return IPC_EXIT_OK;
    set_engine(s, NULL); /* first: who hears the fault may hang up, and that is no good end */
    send_done(s, IPC_FAULT, 0, err, f->text[0] ? f->text : strerror(-err));
    return status_of(err);
}

/* The known-answer picture: it cannot be cancelled, only left out when the end is near. */
static int run_check(struct serve *s, struct engine *engine, struct fault *f)
{
    return is_stopping(s) ? -ECANCELED : engine_check(engine, f);
}

/* Answers CHECK; `after` is the phase to return to. The status to end with, or IPC_EXIT_OK. */
static enum ipc_exit check_again(struct serve *s, struct engine *engine, enum ipc_phase after)
{
    union ipc_packet p = {0};
    struct fault f = {0};

    (void)pthread_mutex_lock(&s->lock);
    s->has_check = false;
    s->phase = IPC_PHASE_CHECKING;
    (void)pthread_mutex_unlock(&s->lock);
    int r = run_check(s, engine, &f);
    if (r < 0) {
        enum ipc_exit status = give_up(s, r, &f);
        /* It could draw before: that is the device's doing, and a new worker may be better off. */
        return status == IPC_EXIT_FAILED ? IPC_EXIT_DEVICE_LOST : status;
    }
    (void)pthread_mutex_lock(&s->lock);
    s->phase = after;
    bool is_answered = !s->has_check;
    (void)pthread_mutex_unlock(&s->lock);
    if (is_answered)
        send_packet(s, &p, IPC_CHECKED, 0, -1);
    return IPC_EXIT_OK;
}

/* Waits as long as the manager wants; a cancel or the end goes on at once. True when a check is
 * wanted first. */
static bool wait_while_held(struct serve *s)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->hold && !s->has_check && !s->cancelled && !s->stop) {
        s->phase = IPC_PHASE_HELD;
        (void)pthread_cond_wait(&s->changed, &s->lock);
    }
    s->phase = IPC_PHASE_RUNNING;
    bool has_check = s->has_check && !s->cancelled && !s->stop;
    (void)pthread_mutex_unlock(&s->lock);
    return has_check;
}

/* What the manager wants done before the next step. Where the known-answer picture is wrong, so is
 * what the job has drawn: there is no way back. */
static void pause_between_steps(const struct task *t)
{
    enum ipc_exit status = IPC_EXIT_OK;

    while (status == IPC_EXIT_OK && wait_while_held(t->serve))
        status = check_again(t->serve, t->engine, IPC_PHASE_RUNNING);
    if (status != IPC_EXIT_OK)
        _exit(status);
}

static void on_step(const struct engine_step *step, void *userdata)
{
    struct task *t = userdata;
    union ipc_packet p = {0};

    p.step.picture = step->picture;
    p.step.step = step->step;
    p.step.steps = step->steps;
    p.step.timestep = step->timestep;
    send_packet(t->serve, &p, IPC_STEP, t->job, -1);
    pause_between_steps(t);
}

/* A finished file in a sealed memfd, and its size. */
static int make_file(struct task *t, const struct engine_picture *done, enum png_metadata metadata,
                     size_t *ret_size, char sha256[72])
{
    const struct png_facts facts = {
        .prompt = done->prompt,
        .negative_prompt = done->negative_prompt,
        .model = t->info.model,
        .model_hash = t->info.model_hash,
        .options = t->request,
        .width = done->width,
        .height = done->height,
        .steps = t->request->steps,
        .guidance_scale = t->request->guidance_scale,
        .seed = done->seed,
        .scheduler = (enum scheduler_kind)t->request->scheduler,
        .is_composite = request_has_image(t->request),
    };
    _cleanup_(freep) uint8_t *png = NULL;

    int r = png_encode(done->rgb, done->width, done->height, &facts, metadata, &png, ret_size,
                       &t->fault);
    if (r < 0)
        return r;
    int fd = ipc_memfd("diffused-picture", png, *ret_size);
    if (fd < 0)
        return fault_set(&t->fault, fd, "picture %u: %s", done->index, strerror(-fd));
    sha256_hex(png, *ret_size, sha256);
    return fd;
}

static int on_picture(const struct engine_picture *done, void *userdata)
{
    struct task *t = userdata;
    union ipc_packet p = {0};
    struct job_picture facts;
    size_t size;

    _cleanup_(closep) int fd =
        make_file(t, done, t->serve->options->metadata, &size, p.picture.sha256);
    if (fd < 0)
        return fd;
    result_picture_from_engine(done, t->request->count, &facts);
    p.picture.picture = done->index;
    p.picture.width = facts.width;
    p.picture.height = facts.height;
    p.picture.prompt = facts.prompt;
    p.picture.seed = facts.seed;
    p.picture.size = size;
    p.picture.is_checked = facts.is_checked;
    p.picture.is_nsfw = facts.is_nsfw;
    p.picture.is_blackened = facts.is_blackened;
    p.picture.score_count = facts.score_count;
    memcpy(p.picture.scores, facts.scores, facts.score_count * sizeof *facts.scores);
    send_packet(t->serve, &p, IPC_PICTURE, t->job, fd);
    return 0;
}

/* A look that cannot be had is none; the picture is what counts. */
static void on_preview(uint32_t picture, uint32_t step, const uint8_t *rgb, uint32_t width,
                       uint32_t height, void *userdata)
{
    static const struct png_facts facts = {0};
    struct task *t = userdata;
    union ipc_packet p = {0};
    _cleanup_(freep) uint8_t *png = NULL;
    struct fault f = {0};
    size_t size = 0;

    if (png_encode(rgb, width, height, &facts, PNG_METADATA_NONE, &png, &size, &f) < 0 ||
        size > IPC_PREVIEW_MAX)
        return;
    _cleanup_(closep) int fd = ipc_memfd("diffused-preview", png, size);
    if (fd < 0)
        return;
    p.preview.picture = picture;
    p.preview.step = step;
    p.preview.width = width;
    p.preview.height = height;
    p.preview.size = size;
    send_packet(t->serve, &p, IPC_PREVIEW, t->job, fd);
}

static bool is_cancelled(struct serve *s)
{
    (void)pthread_mutex_lock(&s->lock);
    bool cancelled = s->cancelled || s->stop;
    (void)pthread_mutex_unlock(&s->lock);
    return cancelled;
}

static int run_request(struct task *t, struct fault *f)
{
    static const struct engine_observer observer = {.on_warning = on_warning,
                                                    .on_step = on_step,
                                                    .on_picture = on_picture,
                                                    .on_preview = on_preview};
    int r = request_check(t->request, &t->info.context, f);

    if (r < 0)
        return r;
    pause_between_steps(t);
    do { /* a cancel that met the very end of what ran before sticks: not meant for this one */
        if (is_cancelled(t->serve))
            return fault_set(f, -ECANCELED, "cancelled");
        r = engine_run(t->engine, t->request, &t->inputs->inputs, &observer, t, f);
    } while (r == -ECANCELED && !is_cancelled(t->serve));
    return r;
}

/* Runs one job to its DONE. The status to end with, or IPC_EXIT_OK. Where the device does not hold
 * or compute what it should there is no DONE but a FAULT: a new worker runs the job again. */
static enum ipc_exit run_job(struct serve *s, struct engine *engine, const struct ipc_run *run,
                             const struct ipc_files *files)
{
    _cleanup_(request_done) struct request request = {0};
    _cleanup_(serve_inputs_done) struct serve_inputs inputs = {0};
    struct task t = {.serve = s,
                     .engine = engine,
                     .job = run->header.job,
                     .request = &request,
                     .inputs = &inputs};
    struct fault f = {0};

    engine_get_info(engine, &t.info);
    int r = ipc_read_run(run, files, &request);
    if (r == 0)
        r = serve_read_inputs(run, files, &inputs, &f);
    if (r == 0)
        r = run_request(&t, &f);
    if (r == -EBADMSG && !t.fault.err)
        return give_up(s, r, &f);
    engine_get_info(engine, &t.info);
    atomic_store(&s->memory_used, t.info.memory_used);

    /* Idle before DONE is out: the answer to DONE is the next RUN. */
    (void)pthread_mutex_lock(&s->lock);
    s->job = 0;
    s->phase = IPC_PHASE_IDLE;
    (void)pthread_mutex_unlock(&s->lock);
    const char *text = t.fault.err ? t.fault.text : f.text[0] ? f.text : r < 0 ? strerror(-r) : "";
    send_done(s, IPC_DONE, t.job, r, text);
    return r == -EIO && !t.fault.err ? IPC_EXIT_DEVICE_LOST : IPC_EXIT_OK;
}

enum work {
    WORK_END,
    WORK_CHECK,
    WORK_RUN,
};

/* What to do next; a wanted check comes before the next job, and for WORK_RUN *ret_run is set, and
 * the files are the caller's. */
static enum work take_work(struct serve *s, struct ipc_run *ret_run, struct ipc_files *ret_files)
{
    enum work work = WORK_END;

    (void)pthread_mutex_lock(&s->lock);
    while (!s->stop && !s->has_run && !s->has_check)
        (void)pthread_cond_wait(&s->changed, &s->lock);
    if (!s->stop)
        work = s->has_check ? WORK_CHECK : WORK_RUN;
    if (work == WORK_RUN) {
        *ret_run = s->run;
        *ret_files = s->files;
        s->files.count = 0;
        s->has_run = false;
        s->phase = IPC_PHASE_RUNNING;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return work;
}

static void send_context(struct serve *s, const struct request_context *c)
{
    union ipc_packet p = {0};

    ipc_model_from_context(c, &p.context.model);
    send_packet(s, &p, IPC_CONTEXT, 0, -1);
}

static void send_hello(struct serve *s, const struct engine_info *info)
{
    union ipc_packet p = {0};
    struct ipc_hello *h = &p.hello;

    copy_text(h->device, sizeof h->device, info->device);
    copy_text(h->device_node, sizeof h->device_node, info->device_node);
    copy_text(h->driver, sizeof h->driver, info->driver);
    copy_text(h->model, sizeof h->model, info->model);
    copy_text(h->model_hash, sizeof h->model_hash, info->model_hash);
    h->memory_used = info->memory_used;
    h->memory_total = info->memory_total;
    h->is_cpu = info->is_cpu;
    ipc_model_from_context(&info->context, &h->context);
    send_packet(s, &p, IPC_HELLO, 0, -1);
}

static int open_engine(struct serve *s, struct engine **ret_engine, struct fault *f)
{
    const struct serve_options *o = s->options;
    const struct engine_options options = {.device = o->device,
                                           .allow_cpu = o->allow_cpu,
                                           .cache = o->cache,
                                           .loras = o->loras,
                                           .strict_owner = o->strict_weights,
                                           .on_warning = on_open_warning,
                                           .on_load = on_load,
                                           .userdata = s};
    struct request_context context = {0};

    int r = engine_read_context(o->model, &context, f);
    if (r < 0)
        return r;
    send_context(s, &context);
    return engine_open(o->model, &options, ret_engine, f);
}

static void set_ready(struct serve *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->is_ready = true;
    s->phase = IPC_PHASE_IDLE;
    (void)pthread_mutex_unlock(&s->lock);
}

static enum ipc_exit work(struct serve *s, struct engine *engine)
{
    enum ipc_exit status = IPC_EXIT_OK;
    struct ipc_files files = {0};
    struct ipc_run run;
    enum work work;

    while (status == IPC_EXIT_OK && (work = take_work(s, &run, &files)) != WORK_END) {
        if (work == WORK_CHECK)
            status = check_again(s, engine, IPC_PHASE_IDLE);
        else
            status = run_job(s, engine, &run, &files);
        ipc_files_done(&files);
    }
    return status;
}

static enum ipc_exit load_and_run(struct serve *s)
{
    _cleanup_(engine_closep) struct engine *engine = NULL;
    struct engine_info info;
    struct fault f = {0};
    enum ipc_exit status;

    int r = open_engine(s, &engine, &f);
    if (r == 0) {
        set_engine(s, engine);
        r = run_check(s, engine, &f);
    }
    if (r < 0) {
        status = give_up(s, r, &f);
    } else {
        engine_get_info(engine, &info);
        atomic_store(&s->memory_used, info.memory_used);
        set_ready(s);
        send_hello(s, &info);
        status = work(s, engine);
    }
    set_engine(s, NULL);
    if (status == IPC_EXIT_DEVICE_LOST || status == IPC_EXIT_WRONG)
        _exit(status); /* see the header; what was sent still arrives */
    return status;
}

/* When memory ends, the worker is to go: it is the one that comes back. */
static void offer_to_oom_killer(void)
{
    static const char score[] = "500"; /* of 1000 */
    _cleanup_(closep) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0)
        (void)!write(fd, score, sizeof score - 1); /* what the kernel guesses is as good as none */
}

static int start(struct serve *s)
{
    sigset_t set;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a help only: the socket's end says the same */
    offer_to_oom_killer();
    int flags = fcntl(s->socket, F_GETFL);
    if (flags < 0 || fcntl(s->socket, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
        fcntl(s->socket, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    int r = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (r != 0)
        return -r;
    s->signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (s->signals < 0)
        return -errno;
    return -pthread_create(&s->link, NULL, link_main, s);
}

enum ipc_exit serve(int socket, const struct serve_options *options)
{
    struct serve s = {.options = options,
                      .socket = socket,
                      .signals = -1,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .changed = PTHREAD_COND_INITIALIZER,
                      .ended = PTHREAD_COND_INITIALIZER};

    int r = start(&s);
    if (r < 0) {
        log_error("worker: descriptor %d: %s", socket, strerror(-r));
        closep(&s.signals);
        return IPC_EXIT_PROTOCOL;
    }
    enum ipc_exit status = load_and_run(&s);
    (void)pthread_mutex_lock(&s.lock);
    s.has_ended = true;
    (void)pthread_cond_signal(&s.ended);
    (void)pthread_mutex_unlock(&s.lock);
    /* Wakes the link thread if it does not know yet; what was sent still arrives. */
    (void)shutdown(socket, SHUT_RD);
    (void)pthread_join(s.link, NULL);
    closep(&s.signals);
    return status != IPC_EXIT_OK ? status : s.status;
}
