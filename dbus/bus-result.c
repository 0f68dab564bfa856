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

#define DECODES_MAX      4u /* at a time; each is a process */
#define DECODES_USER_MAX 2u /* of one user */

/* A GetResult call that waits for its pixels. Facts are copied: the job may be deleted
 * meanwhile. */
struct decode {
    struct bus *bus;
    struct decode *next;
    uint32_t uid; /* who asks */
    uint64_t job;
    uint32_t index;
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

static int append_scores(sd_bus_message *reply, const struct job_picture *p)
{
    int r = sd_bus_message_open_container(reply, 'e', "sv");

    if (r >= 0)
        r = sd_bus_message_append_basic(reply, 's', "safety_scores");
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'v', "ad");
    if (r >= 0)
        r = sd_bus_message_append_array(reply, 'd', p->scores, p->score_count * sizeof *p->scores);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* What the safety checker said; without one nothing is nsfw, and `checked` says why. */
static int append_verdict(sd_bus_message *reply, const struct job_picture *p)
{
    int r = sd_bus_message_append(reply, "{sv}{sv}{sv}", "checked", "b", (int)p->is_checked, "nsfw",
                                  "b", (int)(p->is_checked && p->is_nsfw), "blackened", "b",
                                  (int)(p->is_checked && p->is_blackened));

    return r < 0 || !p->is_checked ? r : append_scores(reply, p);
}

static int append_info(sd_bus_message *reply, const struct job_picture *p, const char *path,
                       uint32_t stride)
{
    int r = sd_bus_message_open_container(reply, 'a', "{sv}");

    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}{sv}{sv}{sv}{sv}", "path", "s", path, "seed", "t",
                                  p->seed, "sha256", "s", p->sha256, "width", "u", p->width,
                                  "height", "u", p->height);
    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}", "prompt_index", "u", p->prompt);
    if (r >= 0)
        r = append_verdict(reply, p);
    if (r >= 0 && stride)
        r = sd_bus_message_append(reply, "{sv}", "stride", "u", stride);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

struct handover {
    struct bus *bus;
    sd_bus_message *call;
    uint32_t uid; /* the caller's */
    uint64_t job;
    uint32_t index, stride;
    const struct job_picture *picture;
    const char *path;
};

/* The job may be gone meanwhile; then there is nothing more to do for it. */
static void tell_fetched(const struct handover *h)
{
    struct job *job = manager_find(h->bus->manager, h->job);

    if (job)
        manager_fetched(h->bus->manager, job, h->index);
}

static int hand_over(const struct handover *h, int memfd, sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;

    _cleanup_(closep) int lent = bus_lend(h->bus, h->uid, memfd, error);
    if (lent < 0)
        return lent;
    int r = sd_bus_message_new_method_return(h->call, &reply);
    if (r >= 0)
        r = sd_bus_message_append(reply, "h", lent); /* duplicated by sd-bus */
    if (r >= 0)
        r = append_info(reply, h->picture, h->path, h->stride);
    if (r >= 0)
        r = sd_bus_send(NULL, reply, NULL);
    if (r >= 0)
        tell_fetched(h);
    return r;
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

void bus_results_gone(struct bus *bus, const char *name)
{
    for (struct decode *d = bus->decodes, *next; d; d = next) {
        next = d->next;
        if (strcmp(sd_bus_message_get_sender(d->call), name) == 0)
            decode_free(d);
    }
}

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
    const struct handover h = {decode->bus,   decode->call, decode->uid, decode->job,
                               decode->index, p->width * 3, p,           decode->path};
    struct stat st;

    if (r == 0 && fstat(output, &st) < 0)
        r = -errno;
    if (r == 0 && (uint64_t)st.st_size != (uint64_t)p->width * p->height * 3)
        r = -EPIPE;
    if (r == 0)
        r = seal(output);
    if (r == 0)
        r = hand_over(&h, output, &error);
    if (r >= 0)
        return;
    if (!sd_bus_error_is_set(&error))
        (void)bus_error_setf(&error, r, "the picture cannot be decoded: the decoder %s", why);
    bus_reply_failure(decode->call, r, &error);
}

static int check_decodes(const struct bus *bus, uint32_t uid, sd_bus_error *error)
{
    unsigned his = 0, all = 0;

    for (const struct decode *d = bus->decodes; d; d = d->next) {
        his += d->uid == uid;
        all++;
    }
    if (his >= DECODES_USER_MAX)
        return bus_error_setf(error, -EDQUOT, "%u pictures are being decoded for you: wait", his);
    if (all >= DECODES_MAX)
        return bus_error_setf(error, -EBUSY, "%u pictures are being decoded: try again", all);
    return 0;
}

static int reply_decoded(const struct handover *h, int png, sd_bus_error *error)
{
    struct bus *bus = h->bus;
    struct fault f = {0};

    int r = check_decodes(bus, h->uid, error);
    if (r < 0)
        return r;
    _cleanup_(decode_freep) struct decode *decode = calloc(1, sizeof *decode);
    if (!decode)
        return -ENOMEM;
    decode->bus = bus;
    decode->call = sd_bus_message_ref(h->call);
    decode->uid = h->uid;
    decode->job = h->job;
    decode->index = h->index;
    decode->picture = *h->picture;
    (void)snprintf(decode->path, sizeof decode->path, "%s", h->path);
    r = manager_decode(bus->manager, png, on_decoded, decode, &decode->helper, &f);
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
    _cleanup_(freep) char *path = NULL;
    _cleanup_(closep) int sealed = -1;
    const struct bus_found *found = userdata;
    struct bus *bus = found->bus;
    const struct job *job = found->job;
    struct fault f = {0};
    uint32_t index, uid = UINT32_MAX;
    bool raw;

    int r = bus_check_owner(bus, m, job, error);
    if (r >= 0)
        r = bus_get_uid(bus, m, &uid, error);
    if (r >= 0)
        r = bus_check_loans(bus, uid, error);
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
    const struct handover h = {bus, m, uid, job->id, index, 0, &job->pictures[index], path};
    if (raw)
        return reply_decoded(&h, png, error);
    r = copy_to_memfd(png, &sealed);
    if (r < 0)
        return bus_error_setf(error, r, "%s: %s", path, strerror(-r));
    return hand_over(&h, sealed, error);
}

/* --- previews --------------------------------------------------------------------------------- */

static int reply_preview(struct bus *bus, sd_bus_message *m, uint32_t uid,
                         const struct job_preview *p, sd_bus_error *error)
{
    _cleanup_(message_freep) sd_bus_message *reply = NULL;
    _cleanup_(closep) int copy = -1;

    /* A copy: the job's own is open here until there is a newer one, and would not seem
     * returned. */
    int r = copy_to_memfd(p->fd, &copy);
    if (r < 0)
        return bus_error_setf(error, r, "preview: %s", strerror(-r));
    _cleanup_(closep) int lent = bus_lend(bus, uid, copy, error);
    if (lent < 0)
        return lent;
    r = sd_bus_message_new_method_return(m, &reply);
    if (r >= 0)
        r = sd_bus_message_append(reply, "ha{sv}", lent, 4, "picture", "u", p->picture, "step", "u",
                                  p->step, "width", "u", p->width, "height", "u", p->height);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

int bus_method_get_preview(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const struct bus_found *found = userdata;
    struct bus *bus = found->bus;
    const struct job *job = found->job;
    struct job_preview preview = {.fd = -1};
    uint32_t uid = UINT32_MAX;
    struct fault f = {0};

    int r = bus_check_owner(bus, m, job, error);
    if (r >= 0)
        r = bus_get_uid(bus, m, &uid, error);
    if (r >= 0)
        r = bus_check_loans(bus, uid, error);
    if (r < 0)
        return r;
    r = manager_open_preview(job, &preview, &f);
    if (r < 0)
        return bus_error_set(error, r, &f);
    r = reply_preview(bus, m, uid, &preview, error);
    closep(&preview.fd);
    return r;
}
