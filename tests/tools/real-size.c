/* real-size — what a worker takes with a model of real size, against the limits we promise.
 *
 *     build/tests/real-size MODELDIR [WIDTH HEIGHT [STEPS]]        512 512 1
 *
 * A worker process (the real one's serve() with the real engine) loads the model, draws one picture
 * with guidance, then gets TRIES more jobs that are cancelled at their first submission. Exit
 * status 1 when a limit is passed. Uses a software device where there is no other. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "daemon/serve.h"
#include "tests/support/requests.h"
#include "tests/support/vulkan_faults.h"
#include "vk/pipeline/session.h"

#define CACHE_LIMIT_MB    64.0  /* of the weight files left in the page cache */
#define DISPATCH_LIMIT_MS 5.0   /* from the start message to the first submission */
#define MEMORY_LIMIT_MB   600.0 /* device memory beside the weights */
#define TRIES             7

struct worker {
    int socket;
    pid_t pid;
    _Atomic uint64_t *first_submit;
};

static uint64_t now_nsec(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- the page cache --------------------------------------------------------------------------- */

static const char *const files[] = {
    "text_encoder/model.fp16.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
};

/* Bytes of a file that are in memory; `drop`: let go of first. */
static double cached(const char *path, bool drop)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
        return 0;
    if (drop && (fdatasync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0))
        (void)fprintf(stderr, "%s: stays in the page cache\n", path);
    size_t pages = ((size_t)st.st_size + 4095) / 4096, resident = 0;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    _cleanup_(freep) unsigned char *flags = calloc(pages, 1);
    if (map != MAP_FAILED && flags && mincore(map, (size_t)st.st_size, flags) == 0)
        for (size_t i = 0; i < pages; i++)
            resident += flags[i] & 1;
    if (map != MAP_FAILED)
        (void)munmap(map, (size_t)st.st_size);
    return 4096.0 * (double)resident;
}

static double cached_mb(const char *model, bool drop)
{
    char path[4096];
    double sum = 0;

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", model, files[i]);
        sum += cached(path, drop);
    }
    return sum / 1e6;
}

/* --- the worker ------------------------------------------------------------------------------- */

static int start_worker(const char *model, struct worker *w)
{
    const struct serve_options options = {
        .model = model, .device = getenv("DIFFUSED_DEVICE"), .allow_cpu = ENGINE_ALLOW_CPU_YES};
    int fds[2];

    w->first_submit = mmap(NULL, sizeof *w->first_submit, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w->first_submit == MAP_FAILED ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    w->pid = fork();
    if (w->pid < 0)
        return -errno;
    if (w->pid == 0) {
        (void)close(fds[0]);
        vulkan_faults_watch_submit(w->first_submit);
        _exit((int)serve(fds[1], &options));
    }
    (void)close(fds[1]);
    w->socket = fds[0];
    return 0;
}

/* Up to a packet of `type`, or the worker's fault. */
static int read_to(const struct worker *w, enum ipc_type type, union ipc_packet *p)
{
    int attached, r;

    do {
        r = ipc_receive(w->socket, p, &attached);
        if (r < 0)
            return r;
        if (attached >= 0)
            (void)close(attached);
        if (p->header.type == IPC_FAULT) {
            (void)fprintf(stderr, "real-size: %s\n", p->done.text);
            return -EIO;
        }
    } while (p->header.type != type);
    return 0;
}

static int send_run(const struct worker *w, uint64_t job, uint32_t width, uint32_t height,
                    uint32_t steps)
{
    char prompt[] = "a lighthouse in the fog";
    struct request q = {.prompt = prompt,
                        .width = width,
                        .height = height,
                        .steps = steps,
                        .guidance_scale = 7.5,
                        .seed = job,
                        .count = 1,
                        .scheduler = SCHEDULER_DDIM};

    requests_complete(&q);
    return ipc_send_run(w->socket, &q, job, NULL);
}

/* Milliseconds from the start message to the first submission of a job that is then cancelled. */
static int time_dispatch(const struct worker *w, uint64_t job, uint32_t width, uint32_t height,
                         double *ret_msec)
{
    union ipc_packet p = {.job = {{IPC_VERSION, IPC_CANCEL, job}}};
    const struct timespec moment = {0, 1000000};

    *w->first_submit = 0;
    uint64_t start = now_nsec();
    int r = send_run(w, job, width, height, 50);
    while (r >= 0 && *w->first_submit == 0)
        (void)nanosleep(&moment, NULL);
    if (r >= 0)
        r = ipc_send(w->socket, &p, -1);
    if (r >= 0)
        r = read_to(w, IPC_DONE, &p);
    *ret_msec = (double)(*w->first_submit - start) * 1e-6;
    return r < 0 ? r : p.done.err == -ECANCELED ? 0 : -EPROTO;
}

static double status_mb(pid_t pid, const char *key)
{
    char path[64], line[256], format[64];
    double kib = 0;

    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    (void)snprintf(format, sizeof format, "%s: %%lf", key);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        (void)sscanf(line, format, &kib);
    fclosep(&file);
    return kib * 1024 / 1e6;
}

/* --- figures ---------------------------------------------------------------------------------- */

static int failures;

static void report(const char *what, double value, const char *unit, double limit)
{
    bool is_over = limit > 0 && !(value < limit);

    (void)printf("%-58s %9.1f %s", what, value, unit);
    if (limit > 0)
        (void)printf("   limit %.0f%s", limit, is_over ? "   PASSED" : "");
    (void)printf("\n");
    (void)fflush(stdout);
    failures += is_over;
}

static double weights_mb(const char *directory, struct fault *f)
{
    _cleanup_(model_freep) struct model *model = NULL;
    _cleanup_(weights_freep) struct weights *weights = NULL;
    int r = model_open(directory, &model, f);

    if (r >= 0)
        r = weights_open(directory, &weights, f);
    if (r >= 0)
        r = session_declare_weights(model, weights, f);
    return r < 0 ? -1 : (double)weights_total_bytes(weights) / 1e6;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static int measure_dispatch(const struct worker *w, uint32_t width, uint32_t height)
{
    double msec[TRIES];

    for (uint64_t i = 0; i < TRIES; i++) {
        int r = time_dispatch(w, 2 + i, width, height, &msec[i]);
        if (r < 0)
            return r;
    }
    qsort(msec, TRIES, sizeof msec[0], compare);
    report("later jobs: start message to first submission, least", msec[0], "ms", 0);
    report("                                               median", msec[TRIES / 2], "ms",
           DISPATCH_LIMIT_MS);
    return 0;
}

static int measure(const char *model, struct worker *w, uint32_t width, uint32_t height,
                   uint32_t steps)
{
    union ipc_packet p;
    struct fault f = {0};
    double weights = weights_mb(model, &f), before = cached_mb(model, true);
    uint64_t start = now_nsec();

    if (weights < 0) {
        (void)fprintf(stderr, "real-size: %s\n", f.text);
        return -EINVAL;
    }
    int r = start_worker(model, w);
    if (r >= 0)
        r = read_to(w, IPC_HELLO, &p);
    if (r < 0)
        return r;
    report("load, session of the model's size, known answer", (double)(now_nsec() - start) * 1e-9,
           "s", 0);
    report("weights on the device", weights, "MB", 0);
    report("page cache growth over the weight files", cached_mb(model, false) - before, "MB",
           CACHE_LIMIT_MB);
    start = now_nsec();
    r = send_run(w, 1, width, height, steps);
    if (r >= 0)
        r = read_to(w, IPC_DONE, &p);
    if (r < 0 || p.done.err < 0) {
        (void)fprintf(stderr, "real-size: %s\n", r < 0 ? strerror(-r) : p.done.text);
        return r < 0 ? r : p.done.err;
    }
    report("first job", (double)(now_nsec() - start) * 1e-9, "s", 0);
    r = measure_dispatch(w, width, height);
    if (r >= 0)
        r = read_to(w, IPC_BEAT, &p); /* the memory as of the last job */
    if (r < 0)
        return r;
    double used = (double)p.beat.memory_used / 1e6;
    report("device memory, all held at once", used, "MB", 0);
    report("device memory beside the weights", used - weights, "MB", MEMORY_LIMIT_MB);
    report("peak resident set (holds a software device's memory)", status_mb(w->pid, "VmHWM"), "MB",
           0);
    report("resident set beside device memory", status_mb(w->pid, "VmRSS") - used, "MB", 0);
    return 0;
}

int main(int argc, char **argv)
{
    uint32_t width = 512, height = 512, steps = 1;
    struct worker w = {.socket = -1};

    if (argc < 2 || argc == 3 || argc > 5) {
        (void)fprintf(stderr, "usage: real-size MODELDIR [WIDTH HEIGHT [STEPS]]\n");
        return 2;
    }
    if (argc > 3) {
        width = (uint32_t)strtoul(argv[2], NULL, 10);
        height = (uint32_t)strtoul(argv[3], NULL, 10);
    }
    if (argc > 4)
        steps = (uint32_t)strtoul(argv[4], NULL, 10);
    int r = measure(argv[1], &w, width, height, steps);
    if (w.socket >= 0) {
        (void)shutdown(w.socket, SHUT_RDWR);
        (void)waitpid(w.pid, NULL, 0);
    }
    if (r < 0)
        (void)fprintf(stderr, "real-size: %s\n", strerror(-r));
    return r < 0 || failures > 0;
}
