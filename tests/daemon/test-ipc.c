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
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/ipc.h"
#include "tests/support/requests.h"

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
        {IPC_FAULT, sizeof(struct ipc_done)},      {IPC_CANCEL, sizeof(struct ipc_job)},
        {IPC_CONTEXT, sizeof(struct ipc_context)}, {IPC_CHECKED, sizeof(struct ipc_job)},
        {IPC_CHECK, sizeof(struct ipc_job)},       {IPC_HOLD, sizeof(struct ipc_job)},
        {IPC_GO, sizeof(struct ipc_job)},
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
    struct ipc_header known = {IPC_VERSION, IPC_HELLO, 0};

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

/* A RUN has the request in a sealed memfd, and as many inputs as it announces, all regular
 * files. */
static void test_run_files(void **state)
{
    const struct pair *pair = *state;
    union ipc_packet p = {.run = {.header = {IPC_VERSION, IPC_RUN, 1}, .size = 3}};
    int request = ipc_memfd("request", "abc", 3), image = ipc_memfd("image", "png", 3);
    int open_memfd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const int both[] = {request, image}, device[] = {request, null}, unsealed[] = {open_memfd};
    const int four[] = {request, image, image, image}, turned[] = {image, request};
    int attached;

    assert_int_equal(write(open_memfd, "abc", 3), 3);
    expect_refused(pair, &p, sizeof p.run, NULL, 0);
    expect_refused(pair, &p, sizeof p.run, both, 2); /* one that is not announced */
    expect_refused(pair, &p, sizeof p.run, unsealed, 1);
    p.run.inputs = 1;
    expect_refused(pair, &p, sizeof p.run, &request, 1);
    expect_refused(pair, &p, sizeof p.run, device, 2);
    expect_refused(pair, &p, sizeof p.run, four, 4);
    p.run.inputs = 4; /* there is no such input */
    expect_refused(pair, &p, sizeof p.run, both, 2);
    p.run.inputs = 2;
    p.run.size = 4;
    expect_refused(pair, &p, sizeof p.run, both, 2);
    p.run.size = 3;
    send_raw(pair, &p, sizeof p.run, turned,
             2); /* the first one is the request, whatever it holds */
    assert_int_equal(ipc_receive(pair->b, &p, &attached), 0);
    (void)close(attached);
    (void)close(request);
    (void)close(image);
    (void)close(open_memfd);
    (void)close(null);
}

static void test_preview(void **state)
{
    const struct pair *pair = *state;
    int fd = ipc_memfd("preview", "abcdef", 6), attached = -1;
    union ipc_packet p = {.preview = {.header = {IPC_VERSION, IPC_PREVIEW, 1}, .size = 6}}, got;

    expect_refused(pair, &p, sizeof p.preview, NULL, 0);
    assert_int_equal(ipc_send(pair->a, &p, fd), 0);
    assert_int_equal(ipc_receive(pair->b, &got, &attached), 0);
    assert_true(attached >= 0);
    (void)close(attached);
    p.preview.size = (uint64_t)IPC_PREVIEW_MAX + 1;
    expect_refused(pair, &p, sizeof p.preview, &fd, 1);
    p.picture = (struct ipc_picture){
        .header = {IPC_VERSION, IPC_PICTURE, 1}, .size = 6, .score_count = IPC_SCORES_MAX + 1};
    expect_refused(pair, &p, sizeof p.picture, &fd, 1);
    (void)close(fd);
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

/* Sends a request and reads it back, with its files. */
static int pass(const struct pair *pair, const struct request *q, const int *inputs,
                struct ipc_run *ret_run, struct ipc_files *ret_files, struct request *ret_request)
{
    union ipc_packet p;

    assert_int_equal(ipc_send_run(pair->a, q, 9, inputs), 0);
    assert_int_equal(ipc_receive_files(pair->b, &p, ret_files), 0);
    assert_int_equal(p.header.type, IPC_RUN);
    assert_int_equal(p.header.job, 9);
    *ret_run = p.run;
    return ipc_read_run(&p.run, ret_files, ret_request);
}

static void test_request(void **state)
{
    char prompt[] = "a fox", longest[REQUEST_PROMPT_MAX + 1] = "", image[] = "input.png";
    char prompts[] = "[\"a\",\"b | c\"]", lora[] = "ink:0.5";
    struct request from = {.prompt = prompt,
                           .negative_prompt = longest,
                           .prompts = prompts,
                           .lora = lora,
                           .image = image,
                           .width = 72,
                           .steps = 20,
                           .guidance_scale = 2.5,
                           .strength = 0.1234567890123456,
                           .seed = UINT64_MAX / 4,
                           .count = 3,
                           .scheduler = SCHEDULER_LMS,
                           .safety = SAFETY_FLAG};
    struct request to = {0};
    struct ipc_files files;
    struct ipc_run run;
    struct fault f = {0};

    memset(longest, 'n', REQUEST_PROMPT_MAX);
    requests_complete(&from);
    assert_int_equal(from.height, 0); /* is the picture's */
    assert_int_equal(pass(*state, &from, NULL, &run, &files, &to), 0);
    ipc_files_done(&files);
    for (unsigned i = 0; i < REQUEST_ROW_COUNT; i++) {
        _cleanup_(freep) char *a = NULL, *b = NULL;
        assert_int_equal(request_format(&from, &request_rows[i], &a), 0);
        assert_int_equal(request_format(&to, &request_rows[i], &b), 0);
        assert_string_equal(a, b);
        assert_true(request_is_set(&to, i));
    }
    assert_true(to.strength == from.strength);
    const struct request_context context = {.multiple = 8, .train_steps = 1000, .has_safety = true};
    to.prompt[0] = to.negative_prompt[0] = '\0';
    assert_int_equal(request_check(&to, &context, &f), 0);
    request_done(&to);
}

static void test_inputs(void **state)
{
    struct request from = {.steps = 1}, to = {0};
    int image = ipc_memfd("image", "i", 1), mask = ipc_memfd("mask", "mm", 2);
    const int rows[][2] = {{-1, -1}, {image, -1}, {-1, mask}, {image, mask}};
    struct ipc_files files;
    struct ipc_run run;
    struct stat st;

    requests_complete(&from);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(pass(*state, &from, rows[i], &run, &files, &to), 0);
        for (uint32_t kind = 0; kind < 2; kind++) {
            int fd = ipc_input_of(&run, &files, kind);
            assert_int_equal(fd >= 0, rows[i][kind] >= 0);
            if (fd >= 0) {
                assert_int_equal(fstat(fd, &st), 0);
                assert_int_equal(st.st_size, kind + 1);
            }
        }
        ipc_files_done(&files);
        request_done(&to);
    }
    (void)close(image);
    (void)close(mask);
}

/* What a manager would never send. */
static void test_bad_requests(void **state)
{
    const struct {
        uint32_t words[4];
        size_t size;
    } rows[] = {
        {{REQUEST_ROW_COUNT, 0}, 8},                  /* no such row */
        {{REQUEST_prompt, 5, 0x41414141}, 12},        /* shorter than it says */
        {{REQUEST_prompt, UINT32_MAX, 0}, 12},        /* the same */
        {{REQUEST_prompt}, 4},                        /* half a head */
        {{REQUEST_steps, 1, 'x'}, 9},                 /* no number */
        {{REQUEST_prompt, 0, REQUEST_prompt, 0}, 16}, /* twice */
        {{REQUEST_prompt, 0}, 8},                     /* others are missing */
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct ipc_run run = {.header = {IPC_VERSION, IPC_RUN, 1},
                                    .size = (uint32_t)rows[i].size};
        struct ipc_files files = {{ipc_memfd("request", rows[i].words, rows[i].size)}, 1};
        struct request q = {0};
        assert_int_equal(ipc_read_run(&run, &files, &q), -EPROTO);
        assert_int_equal(q.set, 0);
        ipc_files_done(&files);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_picture, setup, teardown),
        cmocka_unit_test_setup_teardown(test_picture_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header, setup, teardown),
        cmocka_unit_test_setup_teardown(test_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_preview, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inputs, setup, teardown),
        cmocka_unit_test(test_bad_requests),
    };

    return cmocka_run_group_tests_name("ipc", tests, NULL, NULL);
}
