/* ipc: packets survive the way; nothing malformed gets through, and no descriptor leaks. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/ipc.h"

struct pair {
    int a, b;
};

static int setup(void **state)
{
    static struct pair pair;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return -1;
    pair = (struct pair){fds[0], fds[1]};
    *state = &pair;
    return 0;
}

static int teardown(void **state)
{
    struct pair *pair = *state;

    if (pair->a >= 0)
        (void)close(pair->a);
    (void)close(pair->b);
    return 0;
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void send_raw(const struct pair *pair, const void *data, size_t size, const int *fds,
                     size_t fd_count)
{
    union {
        char bytes[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {(void *)data, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd_count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof *fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof *fds);
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof *fds);
    }
    assert_int_equal(sendmsg(pair->a, &message, 0), size);
}

/* Receives what send_raw() sent and expects it refused, with no descriptor left over. */
static void expect_refused(const struct pair *pair, const void *data, size_t size, const int *fds,
                           size_t fd_count)
{
    union ipc_packet got;
    int attached = -7;
    unsigned before = open_descriptors();

    send_raw(pair, data, size, fds, fd_count);
    assert_int_equal(ipc_receive(pair->b, &got, &attached), -EPROTO);
    assert_int_equal(attached, -7);
    assert_int_equal(open_descriptors(), before);
}

static void test_round_trip(void **state)
{
    static const struct {
        uint32_t type;
        size_t size;
    } rows[] = {
        {IPC_LOADING, sizeof(struct ipc_loading)}, {IPC_HELLO, sizeof(struct ipc_hello)},
        {IPC_BEAT, sizeof(struct ipc_beat)},       {IPC_STEP, sizeof(struct ipc_step)},
        {IPC_WARNING, sizeof(struct ipc_text)},    {IPC_DONE, sizeof(struct ipc_done)},
        {IPC_FAULT, sizeof(struct ipc_done)},      {IPC_RUN, sizeof(struct ipc_run)},
        {IPC_CANCEL, sizeof(struct ipc_job)},      {IPC_CONTEXT, sizeof(struct ipc_context)},
        {IPC_CHECKED, sizeof(struct ipc_job)},     {IPC_CHECK, sizeof(struct ipc_job)},
        {IPC_HOLD, sizeof(struct ipc_job)},        {IPC_GO, sizeof(struct ipc_job)},
    };
    const struct pair *pair = *state;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        union ipc_packet sent = {.header = {IPC_VERSION, rows[i].type, 7 + i}}, got;
        int attached = 0;

        assert_int_equal(ipc_send(pair->a, &sent, -1), 0);
        assert_int_equal(ipc_receive(pair->b, &got, &attached), 0);
        assert_memory_equal(&got, &sent, rows[i].size);
        assert_int_equal(attached, -1);
    }
}

static void test_picture(void **state)
{
    const struct pair *pair = *state;
    int fd = ipc_memfd("picture", "abcdef", 6);
    union ipc_packet sent = {.picture = {.header = {IPC_VERSION, IPC_PICTURE, 1}, .size = 6}}, got;
    char text[8] = "";
    int attached = -1;

    assert_true(fd >= 0);
    assert_int_equal(ipc_send(pair->a, &sent, fd), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(ipc_receive(pair->b, &got, &attached), 0);
    assert_int_equal(read(attached, text, sizeof text), 6);
    assert_string_equal(text, "abcdef");
    assert_true(fcntl(attached, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(pwrite(attached, "x", 1, 0), -1);
    assert_int_equal(ftruncate(attached, 0), -1);
    assert_int_equal(fcntl(attached, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(close(attached), 0);
}

static void test_picture_descriptor(void **state)
{
    const struct pair *pair = *state;
    union ipc_packet p = {.picture = {.header = {IPC_VERSION, IPC_PICTURE, 1}, .size = 6}};
    int sealed = ipc_memfd("sealed", "abcdef", 6);
    int open_memfd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const int two[] = {sealed, sealed}, six[] = {sealed, sealed, sealed, sealed, sealed, sealed};

    assert_int_equal(write(open_memfd, "abcdef", 6), 6);
    expect_refused(pair, &p, sizeof p.picture, NULL, 0);
    expect_refused(pair, &p, sizeof p.picture, &open_memfd, 1);
    expect_refused(pair, &p, sizeof p.picture, &null, 1);
    expect_refused(pair, &p, sizeof p.picture, two, 2);
    expect_refused(pair, &p, sizeof p.picture, six, 6);
    p.picture.size = 7;
    expect_refused(pair, &p, sizeof p.picture, &sealed, 1);
    p.beat = (struct ipc_beat){.header = {IPC_VERSION, IPC_BEAT, 0}};
    expect_refused(pair, &p, sizeof p.beat, &sealed, 1);
    (void)close(sealed);
    (void)close(open_memfd);
    (void)close(null);
}

static void test_header(void **state)
{
    const struct pair *pair = *state;
    struct ipc_beat beat = {.header = {IPC_VERSION, IPC_BEAT, 0}};
    static char huge[sizeof(union ipc_packet) + 1];
    static const int32_t errs[] = {1, 1, INT32_MAX, INT32_MAX, INT32_MIN, INT32_MIN, -4096, -4096};
    struct ipc_header known = {IPC_VERSION, IPC_RUN, 0};

    expect_refused(pair, &beat, sizeof beat - 1, NULL, 0);
    expect_refused(pair, &beat, sizeof beat.header, NULL, 0);
    expect_refused(pair, &beat, 1, NULL, 0);
    beat.header.version = IPC_VERSION + 1;
    expect_refused(pair, &beat, sizeof beat, NULL, 0);
    beat.header.version = IPC_VERSION;
    beat.header.type = 0;
    expect_refused(pair, &beat, sizeof beat, NULL, 0);
    beat.header.type = 1000;
    expect_refused(pair, &beat, sizeof beat, NULL, 0);
    beat.header.type = IPC_BEAT;
    beat.phase = IPC_PHASE_COUNT;
    expect_refused(pair, &beat, sizeof beat, NULL, 0);
    for (size_t i = 0; i < sizeof errs / sizeof *errs; i++) {
        struct ipc_done done = {.header = {IPC_VERSION, i % 2 ? IPC_DONE : IPC_FAULT, 0},
                                .err = errs[i]};
        expect_refused(pair, &done, sizeof done, NULL, 0);
    }
    memcpy(huge, &known, sizeof known);
    expect_refused(pair, huge, sizeof huge, NULL, 0);
}

static void test_texts(void **state)
{
    static const struct {
        uint32_t type;
        size_t offset, field, size;
    } rows[] = {
        {IPC_WARNING, offsetof(struct ipc_text, text), 1024, sizeof(struct ipc_text)},
        {IPC_DONE, offsetof(struct ipc_done, text), 256, sizeof(struct ipc_done)},
        {IPC_FAULT, offsetof(struct ipc_done, text), 256, sizeof(struct ipc_done)},
        {IPC_HELLO, offsetof(struct ipc_hello, device), 128, sizeof(struct ipc_hello)},
        {IPC_HELLO, offsetof(struct ipc_hello, device_node), 64, sizeof(struct ipc_hello)},
        {IPC_HELLO, offsetof(struct ipc_hello, driver), 128, sizeof(struct ipc_hello)},
        {IPC_HELLO, offsetof(struct ipc_hello, model), 128, sizeof(struct ipc_hello)},
        {IPC_HELLO, offsetof(struct ipc_hello, model_hash), 72, sizeof(struct ipc_hello)},
    };
    const struct pair *pair = *state;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        union ipc_packet p = {.header = {IPC_VERSION, rows[i].type, 0}}, got;
        char *field = (char *)&p + rows[i].offset;
        int attached;

        memset(field, 'x', rows[i].field);
        expect_refused(pair, &p, rows[i].size, NULL, 0);
        field[rows[i].field - 1] = '\0';
        send_raw(pair, &p, rows[i].size, NULL, 0);
        assert_int_equal(ipc_receive(pair->b, &got, &attached), 0);
    }
}

static void test_prompts(void **state)
{
    const struct pair *pair = *state;
    union ipc_packet p = {.run = {.header = {IPC_VERSION, IPC_RUN, 1}}};

    strcpy(p.run.prompt, "fox");
    expect_refused(pair, &p, sizeof p.run, NULL, 0); /* length 0 beside a text of 3 */
    p.run.prompt_length = 4;
    expect_refused(pair, &p, sizeof p.run, NULL, 0);
    p.run.prompt_length = UINT32_MAX;
    expect_refused(pair, &p, sizeof p.run, NULL, 0);
    memset(p.run.prompt, 'x', sizeof p.run.prompt);
    p.run.prompt_length = sizeof p.run.prompt;
    expect_refused(pair, &p, sizeof p.run, NULL, 0);
    p.run.prompt[0] = '\0';
    p.run.prompt_length = 0;
    memset(p.run.negative_prompt, 'x', sizeof p.run.negative_prompt);
    expect_refused(pair, &p, sizeof p.run, NULL, 0);
}

static void test_ends(void **state)
{
    struct pair *pair = *state;
    union ipc_packet p = {.beat = {.header = {IPC_VERSION, IPC_BEAT, 0}}};
    union ipc_packet none = {.header = {IPC_VERSION, 0, 0}};
    int attached, r;

    assert_int_equal(ipc_send(pair->a, &none, -1), -EINVAL);
    assert_int_equal(ipc_receive(pair->b, &p, &attached), -EAGAIN);
    while ((r = ipc_send(pair->a, &p, -1)) == 0)
        continue;
    assert_int_equal(r, -EAGAIN);
    while ((r = ipc_receive(pair->b, &p, &attached)) == 0)
        continue;
    assert_int_equal(r, -EAGAIN);
    assert_int_equal(close(pair->a), 0);
    pair->a = -1;
    assert_int_equal(ipc_receive(pair->b, &p, &attached), -ECONNRESET);
    assert_int_equal(ipc_send(pair->b, &p, -1), -EPIPE);
}

/* A sender that must not wait does not, whatever the socket's mode. */
static void test_full_socket(void **state)
{
    struct pair *pair = *state;
    union ipc_packet p = {.beat = {.header = {IPC_VERSION, IPC_BEAT, 0}}};
    int r;

    assert_int_equal(fcntl(pair->a, F_SETFL, 0), 0);
    while ((r = ipc_send_now(pair->a, &p)) == 0)
        continue;
    assert_int_equal(r, -EAGAIN);
}

static void test_request(void **state)
{
    char prompt[] = "a fox", longest[REQUEST_PROMPT_MAX + 1] = "";
    struct request from = {.prompt = prompt,
                           .negative_prompt = longest,
                           .width = 72,
                           .height = 104,
                           .steps = 20,
                           .guidance_scale = 2.5,
                           .seed = UINT64_MAX / 2,
                           .count = 3,
                           .scheduler = SCHEDULER_LMS};
    struct request to = {0}, nothing = {0};
    static struct ipc_run run;

    (void)state;
    memset(longest, 'n', REQUEST_PROMPT_MAX);
    ipc_run_from_request(&from, 9, &run);
    assert_int_equal(run.header.job, 9);
    assert_int_equal(ipc_run_to_request(&run, &to), 0);
    assert_string_equal(to.prompt, prompt);
    assert_string_equal(to.negative_prompt, longest);
    assert_int_equal(to.width, 72);
    assert_int_equal(to.height, 104);
    assert_int_equal(to.steps, 20);
    assert_true(to.guidance_scale == 2.5);
    assert_true(to.seed == UINT64_MAX / 2);
    assert_int_equal(to.count, 3);
    assert_int_equal(to.scheduler, SCHEDULER_LMS);
    assert_true(request_is_set(&to, REQUEST_scheduler));
    free(to.prompt);
    free(to.negative_prompt);

    ipc_run_from_request(&nothing, 1, &run);
    assert_int_equal(run.prompt_length, 0);
    run.scheduler = SCHEDULER_KIND_COUNT;
    assert_int_equal(ipc_run_to_request(&run, &to), -EPROTO);
    run.scheduler = 0;
    run.count = REQUEST_COUNT_MAX + 1;
    assert_int_equal(ipc_run_to_request(&run, &to), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_picture, setup, teardown),
        cmocka_unit_test_setup_teardown(test_picture_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header, setup, teardown),
        cmocka_unit_test_setup_teardown(test_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prompts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_socket, setup, teardown),
        cmocka_unit_test(test_request),
    };

    return cmocka_run_group_tests_name("ipc", tests, NULL, NULL);
}
