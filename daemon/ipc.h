/* ipc — the wire between manager and worker: SOCK_SEQPACKET, one fixed-layout struct a packet.
 *
 * The worker inherits its end of the socket as descriptor IPC_WORKER_FD and is started as
 *     diffused-worker --serve --model DIR [--device D] [--allow-cpu auto|yes|no] [--cache DIR]
 *                     [--png-metadata full|provenance|none] [--strict-weights]
 *                     [--loras DIR]
 * It reads the model's configuration and sends CONTEXT at once, so that requests can be checked
 * while the weights load; then LOADING, the known-answer picture, and HELLO (or FAULT and exits);
 * then it serves one RUN at a time. CHECK asks for the known-answer picture again, before the next
 * step; a right one is answered with CHECKED, a wrong one with FAULT -EBADMSG and the worker's end,
 * and so is a RUN that finds the weights on the device to be others than they were.
 * HOLD makes it wait before the next step, and before the next job, until GO, a cancel or the end.
 * Beats go on all the time and never wait: one that finds the socket full is left out. Pictures
 * that were made travel as sealed memfds holding a finished PNG; those that a job starts from as
 * descriptors of sealed memfds or of the spool's files, which nobody else writes to, and are
 * decoded in the worker. Both sides are built from one tree: `version`
 * must be equal, a packet's size must be exactly its struct's, strings must end within their field;
 * anything else ends the connection (-EPROTO). */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "vk/base/fault.h"
#include "vk/pipeline/request.h"

#define IPC_VERSION   3u
#define IPC_WORKER_FD 3
#define IPC_BEAT_MSEC 500u

#define IPC_REQUEST_MAX (4u << 20)  /* bytes of a request on its way */
#define IPC_PREVIEW_MAX (16u << 20) /* bytes of a preview: 2048 x 2048 x 3 and some */
#define IPC_FILES_MAX   3u
#define IPC_INPUT_COUNT 2u /* image, mask */
#define IPC_SCORES_MAX  32u

/* Exit statuses of the worker. */
enum ipc_exit {
    IPC_EXIT_OK = 0,
    IPC_EXIT_FAILED = 1, /* could not open device or model; a FAULT said why */
    IPC_EXIT_USAGE = 2,
    IPC_EXIT_DEVICE_LOST = 3, /* the device is gone; start a new worker */
    IPC_EXIT_PROTOCOL = 4,
    IPC_EXIT_WRONG = 5, /* the device holds or draws what it should not; a FAULT said so */
};

enum ipc_type {
    /* worker -> manager */
    IPC_LOADING = 1, /* struct ipc_loading */
    IPC_HELLO,       /* struct ipc_hello: loaded, ready */
    IPC_BEAT,    /* struct ipc_beat: every IPC_BEAT_MSEC, idle or not, from a thread of its own */
    IPC_STEP,    /* struct ipc_step */
    IPC_WARNING, /* struct ipc_text */
    IPC_PICTURE, /* struct ipc_picture + one descriptor: a sealed memfd with the PNG */
    IPC_DONE,    /* struct ipc_done: the job's end, good or bad */
    IPC_FAULT,   /* struct ipc_done with job 0: the worker itself cannot go on */
    /* manager -> worker */
    IPC_RUN,    /* struct ipc_run + 1 to 3 descriptors: see there */
    IPC_CANCEL, /* struct ipc_job */
    /* worker -> manager */
    IPC_CONTEXT, /* struct ipc_context: engine_read_context(), before loading starts */
    IPC_CHECKED, /* struct ipc_job with job 0: every CHECK so far is answered, well */
    /* manager -> worker, struct ipc_job with job 0 */
    IPC_CHECK,
    IPC_HOLD,
    IPC_GO,
    /* worker -> manager */
    IPC_PREVIEW, /* struct ipc_preview + one descriptor: a sealed memfd with a PNG */
};

/* What the engine's thread is at. */
enum ipc_phase {
    IPC_PHASE_LOADING,
    IPC_PHASE_IDLE,
    IPC_PHASE_RUNNING,
    IPC_PHASE_HELD, /* HOLD was heard: no progress is to be expected */
    IPC_PHASE_CHECKING,
    IPC_PHASE_COUNT,
};

struct ipc_header {
    uint32_t version; /* IPC_VERSION */
    uint32_t type;    /* enum ipc_type */
    uint64_t job;     /* id, 0 where none */
};

struct ipc_loading {
    struct ipc_header header;
    double fraction; /* 0…1 */
};

/* struct request_context without the configuration's max_pixels, which is the manager's to know. */
struct ipc_model {
    uint32_t width, height, multiple, train_steps, scheduler;
    uint32_t is_inpainting, has_safety, text_layers;
};

struct ipc_context {
    struct ipc_header header;
    struct ipc_model model;
};

/* What `diffused-worker --context --model DIR` writes to its standard output. */
struct ipc_context_answer {
    struct ipc_model model;
    int32_t err; /* 0, or a negative errno and why */
    char text[252];
};

struct ipc_hello {
    struct ipc_header header;
    char device[128], device_node[64], driver[128], model[128], model_hash[72];
    uint64_t memory_used, memory_total;
    uint32_t is_cpu, reserved;
    struct ipc_model context;
};

struct ipc_beat {
    struct ipc_header header;
    uint64_t progress; /* GPU submissions finished, and reports of the loader */
    uint64_t memory_used;
    uint32_t phase, reserved; /* enum ipc_phase */
};

struct ipc_step {
    struct ipc_header header;
    uint32_t picture, step, steps, reserved;
    double timestep;
};

struct ipc_text {
    struct ipc_header header;
    char text[1024];
};

struct ipc_picture {
    struct ipc_header header;
    uint32_t picture, width, height, prompt; /* prompt: which of the request's */
    uint64_t seed, size;                     /* size: bytes in the memfd */
    char sha256[72];                         /* of the PNG, hex */
    uint32_t is_checked, is_nsfw, is_blackened, score_count;
    double scores[IPC_SCORES_MAX];
};

struct ipc_preview {
    struct ipc_header header;
    uint32_t picture, step, width, height;
    uint64_t size; /* bytes in the memfd */
};

struct ipc_done {
    struct ipc_header header;
    int32_t err; /* 0 or negative errno */
    uint32_t reserved;
    char text[256];
};

struct ipc_job {
    struct ipc_header header;
};

/* A completed, checked request. Its descriptors: a sealed memfd of `size` bytes with the rows, each
 * as uint32_t row, uint32_t length, and `length` bytes of its text in the notation of a ticket;
 * then the inputs there are, in their order. */
struct ipc_run {
    struct ipc_header header;
    uint32_t size, inputs; /* inputs: bit k: there is one of kind k */
};

union ipc_packet {
    struct ipc_header header;
    struct ipc_context context;
    struct ipc_loading loading;
    struct ipc_hello hello;
    struct ipc_beat beat;
    struct ipc_step step;
    struct ipc_text text;
    struct ipc_picture picture;
    struct ipc_done done;
    struct ipc_job job;
    struct ipc_run run;
    struct ipc_preview preview;
};

struct ipc_files {
    int fds[IPC_FILES_MAX];
    uint32_t count;
};

/* Sends a packet of header.type's size, with `attached` as descriptor unless it is -1 (stays the
 * caller's). 0, -EAGAIN when the socket is full and non-blocking, -EPIPE, or another -errno. */
int ipc_send(int socket, const union ipc_packet *packet, int attached);

/* The same with all of these, which stay the caller's. */
int ipc_send_files(int socket, const union ipc_packet *packet, const struct ipc_files *files);

/* The same without a descriptor, never waiting: -EAGAIN when a blocking socket is full too. */
int ipc_send_now(int socket, const union ipc_packet *packet);

/* Receives one packet; ret_files has its descriptors, which are the caller's. 0; -EAGAIN;
 * -ECONNRESET at the end of the connection; -EPROTO for anything malformed. */
int ipc_receive_files(int socket, union ipc_packet *ret_packet, struct ipc_files *ret_files);
/* The same; *ret_attached is -1 or the first descriptor. */
int ipc_receive(int socket, union ipc_packet *ret_packet, int *ret_attached);
void ipc_files_done(struct ipc_files *files);

/* A memfd with `size` bytes of `data`, sealed against every change. Returns the descriptor or
 * -errno. */
int ipc_memfd(const char *name, const void *data, size_t size);

/* Sends a RUN with the descriptors of the inputs by kind (-1: none; NULL: none at all), which stay
 * the caller's. As ipc_send(), or -ENOMEM, -EMFILE, -E2BIG. */
int ipc_send_run(int socket, const struct request *request, uint64_t job,
                 const int inputs[IPC_INPUT_COUNT]);
/* Reads the request of a RUN with these files. -EPROTO when it is none. */
int ipc_read_run(const struct ipc_run *run, const struct ipc_files *files,
                 struct request *ret_request);
/* The input of that kind, borrowed from `files`; -1: none. */
int ipc_input_of(const struct ipc_run *run, const struct ipc_files *files, uint32_t kind);

void ipc_model_from_context(const struct request_context *context, struct ipc_model *ret_model);
void ipc_model_to_context(const struct ipc_model *model, struct request_context *ret_context);
