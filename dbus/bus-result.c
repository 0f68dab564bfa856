/* GetResult: the caller gets a sealed memfd of its own, never the spool's file. PNG is a copy; rgb
 * is what the worker's program decodes, in a process of its own while the bus goes on answering. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "dbus/bus-internal.h"

#define DECODES_MAX 4u /* at a time; each is a process */

/* A GetResult call that waits for its pixels. Facts are copied: the job may be deleted
 * meanwhile. */
struct decode {
    struct bus *bus;
    struct decode *next;
    struct helper *helper;
    sd_bus_message *call;
    struct job_picture picture;
    char path[256];
};

static sd_bus_message *message_free(sd_bus_message *message)
{
    return sd_bus_message_unref(message);
}
DEFINE_FREEP(sd_bus_message *, message_free)

static int seal(int fd)
{
    const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

    return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

static int copy_to_memfd(int from, int *ret_fd)
{
    _cleanup_(closep) int to = memfd_create("diffused-result", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat st;
    off_t offset = 0;

    if (to < 0 || fstat(from, &st) < 0)
        return -errno;
    while (offset < st.st_size) {
        ssize_t n = sendfile(to, from, &offset, (size_t)(st.st_size - offset));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -ENODATA;
    }
    if (lseek(to, 0, SEEK_SET) < 0) /* the receiver shares the offset */
        return -errno;
    int r = seal(to);
    if (r < 0)
        return r;
    *ret_fd = TAKE_FD(to);
    return 0;
}

static int append_info(sd_bus_message *reply, const struct job_picture *p, const char *path,
                       uint32_t stride)
{
    int r = sd_bus_message_open_container(reply, 'a', "{sv}");

    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}", "path", "s", path, "seed", "t",
                                  p->seed, "sha256", "s", p->sha256, "width", "u", p->width,
                                  "height", "u", p->height);
    if (r >= 0 && stride)
        r = sd_bus_message_append(reply, "{sv}", "stride", "u", stride);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int reply_with(sd_bus_message *call, int fd, const struct job_picture *p, const char *path,
                      uint32_t stride)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;

    int r = sd_bus_message_new_method_return(call, &reply);
    if (r >= 0)
        r = sd_bus_message_append(reply, "h", fd); /* duplicated by sd-bus */
    if (r >= 0)
        r = append_info(reply, p, path, stride);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static struct decode *decode_free(struct decode *decode)
{
    if (!decode)
        return NULL;
    struct decode **at = &decode->bus->decodes;
    while (*at && *at != decode)
        at = &(*at)->next;
    if (*at)
        *at = decode->next;
    helper_free(decode->helper);
    sd_bus_message_unref(decode->call);
    free(decode);
    return NULL;
}
DEFINE_FREEP(struct decode *, decode_free)

void bus_results_done(struct bus *bus)
{
    while (bus->decodes)
        decode_free(bus->decodes);
}

static void on_decoded(int r, int output, const char *why, void *userdata)
{
    _cleanup_(decode_freep) struct decode *decode = userdata;
    const struct job_picture *p = &decode->picture;
    sd_bus_error error = SD_BUS_ERROR_NULL;
    struct stat st;

    if (r == 0 && fstat(output, &st) < 0)
        r = -errno;
    if (r == 0 && (uint64_t)st.st_size != (uint64_t)p->width * p->height * 3)
        r = -EPIPE;
    if (r == 0)
        r = seal(output);
    if (r == 0)
        r = reply_with(decode->call, output, p, decode->path, p->width * 3);
    if (r >= 0)
        return;
    (void)bus_error_setf(&error, r, "the picture cannot be decoded: the decoder %s", why);
    (void)sd_bus_reply_method_error(decode->call, &error); /* the caller may be gone */
    sd_bus_error_free(&error);
}

static size_t count_decodes(const struct bus *bus)
{
    size_t n = 0;

    for (const struct decode *d = bus->decodes; d; d = d->next)
        n++;
    return n;
}

static int reply_decoded(struct bus *bus, sd_bus_message *call, int png,
                         const struct job_picture *p, const char *path, sd_bus_error *error)
{
    struct fault f = {0};

    if (count_decodes(bus) >= DECODES_MAX)
        return bus_error_setf(error, -EBUSY, "%u pictures are being decoded: try again",
                              DECODES_MAX);
    _cleanup_(decode_freep) struct decode *decode = calloc(1, sizeof *decode);
    if (!decode)
        return -ENOMEM;
    decode->bus = bus;
    decode->call = sd_bus_message_ref(call);
    decode->picture = *p;
    (void)snprintf(decode->path, sizeof decode->path, "%s", path);
    int r = manager_decode(bus->manager, png, on_decoded, decode, &decode->helper, &f);
    if (r < 0)
        return bus_error_set(error, r, &f);
    decode->next = bus->decodes;
    bus->decodes = TAKE_PTR(decode);
    return 1; /* answered later */
}

static int read_format(sd_bus_message *m, bool *ret_raw, sd_bus_error *error)
{
    const char *format = "png";
    const struct bus_key keys[] = {{"format", 's', &format}, {0}};

    int r = bus_read_keys(m, keys, error);
    if (r < 0)
        return r;
    *ret_raw = strcmp(format, "rgb") == 0;
    if (!*ret_raw && strcmp(format, "png") != 0)
        return bus_error_setf(error, -EINVAL, "format \"%.32s\": want png or rgb", format);
    return 0;
}

int bus_method_get_result(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = bus_of(sd_bus_message_get_bus(m));
    _cleanup_(freep) char *path = NULL;
    _cleanup_(closep) int sealed = -1;
    const struct job *job = userdata;
    struct fault f = {0};
    uint32_t index;
    bool raw;

    int r = bus_check_owner(m, job, error);
    if (r >= 0)
        r = sd_bus_message_read(m, "u", &index);
    if (r >= 0)
        r = read_format(m, &raw, error);
    if (r < 0)
        return r;
    _cleanup_(closep) int png = manager_open_picture(bus->manager, job, index, &f);
    if (png < 0)
        return bus_error_set(error, png, &f);
    r = manager_picture_path(bus->manager, job, index, &path, &f);
    if (r < 0)
        return bus_error_set(error, r, &f);
    if (raw)
        return reply_decoded(bus, m, png, &job->pictures[index], path, error);
    r = copy_to_memfd(png, &sealed);
    if (r < 0)
        return bus_error_setf(error, r, "%s: %s", path, strerror(-r));
    return reply_with(m, sealed, &job->pictures[index], path, 0);
}
