/* A request on its way to the worker: its rows as texts, so that a new row needs nothing here. The
 * reader trusts nothing: every row goes through the same checks as a ticket's. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/ipc.h"
#include "daemon/job.h"
#include "vk/base/array.h"

struct bytes ARRAY(char);

static int append(struct bytes *to, const void *data, size_t size)
{
    if (array_reserve(to, size) < 0)
        return -ENOMEM;
    memcpy(to->items + to->count, data, size);
    to->count += size;
    return 0;
}

static int append_row(struct bytes *to, const struct request *q, uint32_t row)
{
    _cleanup_(freep) char *text = NULL;

    int r = request_format(q, &request_rows[row], &text);
    if (r < 0)
        return r;
    const uint32_t head[2] = {row, (uint32_t)strlen(text)};
    r = append(to, head, sizeof head);
    return r < 0 ? r : append(to, text, head[1]);
}

static int pack(const struct request *q, struct bytes *to)
{
    int r = 0;

    for (uint32_t i = 0; i < REQUEST_ROW_COUNT && r == 0; i++)
        if (job_row_is_told(q, i))
            r = append_row(to, q, i);
    if (r == 0 && to->count > IPC_REQUEST_MAX)
        r = -E2BIG; /* every row has its limit: cannot be */
    return r;
}

static int pack_to_memfd(const struct request *request, size_t *ret_size)
{
    struct bytes bytes = {0};

    int r = pack(request, &bytes);
    int fd = r < 0 ? r : ipc_memfd("diffused-request", bytes.items, bytes.count);
    *ret_size = bytes.count;
    array_done(&bytes);
    return fd;
}

static int parse_row(const char **at, const char *end, struct request *q)
{
    uint32_t head[2];
    struct fault f = {0};

    if ((size_t)(end - *at) < sizeof head)
        return -EPROTO;
    memcpy(head, *at, sizeof head);
    *at += sizeof head;
    if (head[0] >= REQUEST_ROW_COUNT || head[1] > (size_t)(end - *at))
        return -EPROTO;
    if (request_is_set(q, (enum request_row_id)head[0]))
        return -EPROTO;
    int r = request_set_text(q, &request_rows[head[0]], *at, head[1], &f);
    *at += head[1];
    return r == 0 || r == -ENOMEM ? r : -EPROTO;
}

static int parse(const char *text, size_t size, struct request *ret_request)
{
    _cleanup_(request_done) struct request q = {0};
    const char *at = text, *end = text + size;
    int r = 0;

    while (r == 0 && at < end)
        r = parse_row(&at, end, &q);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < REQUEST_ROW_COUNT; i++) /* a size may be the picture's to say */
        if (!request_is_set(&q, i) && i != REQUEST_width && i != REQUEST_height)
            return -EPROTO;
    q.set = (UINT64_C(1) << REQUEST_ROW_COUNT) - 1;
    *ret_request = q;
    q = (struct request){0};
    return 0;
}

int ipc_read_run(const struct ipc_run *run, const struct ipc_files *files,
                 struct request *ret_request)
{
    _cleanup_(freep) char *text = malloc((size_t)run->size + 1);
    size_t used = 0;

    if (!text)
        return -ENOMEM;
    if (files->count == 0)
        return -EPROTO;
    while (used < run->size) {
        ssize_t n = pread(files->fds[0], text + used, run->size - used, (off_t)used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPROTO;
        used += (size_t)n;
    }
    return parse(text, used, ret_request);
}

int ipc_input_of(const struct ipc_run *run, const struct ipc_files *files, uint32_t kind)
{
    uint32_t before = run->inputs & ((1u << kind) - 1);
    uint32_t index = 1 + (uint32_t)__builtin_popcount(before);

    return run->inputs >> kind & 1 && index < files->count ? files->fds[index] : -1;
}

int ipc_send_run(int socket, const struct request *request, uint64_t job,
                 const int inputs[IPC_INPUT_COUNT])
{
    union ipc_packet packet = {.run.header = {IPC_VERSION, IPC_RUN, job}};
    struct ipc_files files = {.count = 1};
    size_t size = 0;

    _cleanup_(closep) int fd = pack_to_memfd(request, &size);
    if (fd < 0)
        return fd;
    files.fds[0] = fd;
    packet.run.size = (uint32_t)size;
    for (uint32_t i = 0; inputs && i < IPC_INPUT_COUNT; i++) {
        if (inputs[i] < 0)
            continue;
        packet.run.inputs |= 1u << i;
        files.fds[files.count++] = inputs[i];
    }
    return ipc_send_files(socket, &packet, &files);
}

void ipc_model_from_context(const struct request_context *c, struct ipc_model *ret_model)
{
    *ret_model = (struct ipc_model){.width = c->width,
                                    .height = c->height,
                                    .multiple = c->multiple,
                                    .train_steps = c->train_steps,
                                    .scheduler = c->scheduler,
                                    .is_inpainting = c->is_inpainting,
                                    .has_safety = c->has_safety,
                                    .text_layers = c->text_layers};
}

void ipc_model_to_context(const struct ipc_model *m, struct request_context *ret_context)
{
    *ret_context = (struct request_context){.width = m->width,
                                            .height = m->height,
                                            .multiple = m->multiple,
                                            .train_steps = m->train_steps,
                                            .scheduler = (enum scheduler_kind)m->scheduler,
                                            .is_inpainting = m->is_inpainting,
                                            .has_safety = m->has_safety,
                                            .text_layers = m->text_layers};
}
