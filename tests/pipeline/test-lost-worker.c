/* A worker process with the real engine whose device is lost in the middle of a job: the job's DONE
 * says so, the process ends with its own status, and a new worker draws. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/serve.h"
#include "tests/support/must.h"
#include "tests/support/requests.h"
#include "tests/support/vulkan_faults.h"

#define MODEL "tests/golden/models/two"

struct worker {
    int socket;
    pid_t pid;
};

/* serve() in a child; `nth`: of the calls after the hello that can report a loss, 0: none is
 * lost. */
static struct worker start_worker(uint64_t nth)
{
    const struct serve_options options = {.model = MODEL, .allow_cpu = ENGINE_ALLOW_CPU_YES};
    struct worker w;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    (void)fflush(stdout);
    w.pid = fork();
    assert_true(w.pid >= 0);
    if (w.pid == 0) {
        (void)close(fds[0]);
        vulkan_faults_arm(&(struct vulkan_fault_plan){.nth = nth, .fault = VULKAN_DEVICE_LOST});
        _exit((int)serve(fds[1], &options));
    }
    (void)close(fds[1]);
    w.socket = fds[0];
    return w;
}

/* Reads up to a packet of `type`; counts pictures. -errno when the worker hangs up before. */
static int read_to(const struct worker *w, enum ipc_type type, union ipc_packet *p,
                   unsigned *pictures)
{
    int attached, r;

    do {
        r = ipc_receive(w->socket, p, &attached);
        if (r < 0)
            return r;
        if (attached >= 0)
            (void)close(attached);
        *pictures += p->header.type == IPC_PICTURE;
    } while (p->header.type != type);
    return 0;
}

static void send_run(const struct worker *w, uint64_t job)
{
    char prompt[] = "a fox";
    struct request q = {.prompt = prompt,
                        .width = 32,
                        .height = 32,
                        .steps = 4,
                        .guidance_scale = 3,
                        .seed = 5,
                        .count = 1};

    requests_complete(&q);
    assert_int_equal(ipc_send_run(w->socket, &q, job, NULL), 0);
}

static int exit_status(const struct worker *w)
{
    int status;

    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    (void)close(w->socket);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void draws_when_well(void **state)
{
    skip_when_slow(); /* the loss is made above the driver, and a slow one takes minutes to load */
    struct worker w = start_worker(0);
    union ipc_packet p;
    unsigned pictures = 0;

    (void)state;
    assert_int_equal(read_to(&w, IPC_HELLO, &p, &pictures), 0);
    send_run(&w, 7);
    assert_int_equal(read_to(&w, IPC_DONE, &p, &pictures), 0);
    assert_int_equal(p.done.err, 0);
    assert_int_equal(pictures, 1);
    (void)shutdown(w.socket, SHUT_RDWR);
    assert_int_equal(exit_status(&w), IPC_EXIT_OK);
}

/* How many calls open and check make: counted here, in a process that then draws nothing. */
static uint64_t calls_before_hello(void)
{
    const struct engine_options options = {.allow_cpu = ENGINE_ALLOW_CPU_YES};
    struct engine *e = NULL;
    struct fault f = {0};
    static uint64_t n;

    if (n > 0)
        return n;
    vulkan_faults_arm(&(struct vulkan_fault_plan){.fault = VULKAN_DEVICE_LOST});
    if (engine_open(MODEL, &options, &e, &f) < 0 || engine_check(e, &f) < 0)
        fail_msg("%s", f.text);
    n = vulkan_faults_calls();
    engine_close(e);
    vulkan_faults_disarm();
    return n;
}

static void ends_with_its_status(void **state)
{
    static const uint64_t places[] = {
        1, 9}; /* the first submission of the job, and one in its middle */
    skip_when_slow();
    uint64_t before = calls_before_hello();
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct worker w = start_worker(before + places[i]);
        union ipc_packet p;
        unsigned pictures = 0;
        assert_int_equal(read_to(&w, IPC_HELLO, &p, &pictures), 0);
        send_run(&w, 8);
        assert_int_equal(read_to(&w, IPC_DONE, &p, &pictures), 0);
        assert_int_equal(p.header.job, 8);
        assert_int_equal(p.done.err, -EIO);
        assert_non_null(strstr(p.done.text, "VK_ERROR_DEVICE_LOST"));
        assert_int_equal(pictures, 0);
        assert_true(read_to(&w, IPC_DONE, &p, &pictures) < 0); /* it hangs up by itself */
        assert_int_equal(exit_status(&w), IPC_EXIT_DEVICE_LOST);
    }
    draws_when_well(state);
}

/* Lost while it opens or checks: no hello, a fault, the same status. */
static void ends_before_its_hello(void **state)
{
    skip_when_slow();
    uint64_t before = calls_before_hello();
    struct worker w = start_worker(before - 2);
    union ipc_packet p;
    unsigned pictures = 0;

    (void)state;
    assert_int_equal(read_to(&w, IPC_FAULT, &p, &pictures), 0);
    assert_int_equal(p.done.err, -EIO);
    assert_int_equal(exit_status(&w), IPC_EXIT_DEVICE_LOST);
}

int main(void)
{
    /* serve() draws in a child of its own: this process has touched no driver before the first. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_when_well),
        cmocka_unit_test(ends_with_its_status),
        cmocka_unit_test(ends_before_its_hello),
    };

    return cmocka_run_group_tests_name("lost-worker", tests, NULL, NULL);
}
