#include "tests/support/crash_client.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <signal.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "daemon/ipc.h"
#include "daemon/png.h"
#include "tests/support/faults.h"
#include "vk/base/array.h"
#include "vk/base/cleanup.h"

#define NAME       "org.diffused.Diffused1"
#define PATH       "/org/diffused/Diffused1"
#define MANAGER    NAME ".Manager"
#define JOB        NAME ".Job"
#define CALL_USEC  UINT64_C(5000000)
#define LIVE_MAX   6u  /* jobs of a client that wait or run */
#define ENDED_MAX  12u /* jobs it keeps after their end */
#define INTAKE_MAX 40u /* files that wait in the drop folder */

struct mine {
    uint64_t id;    /* 0: not answered yet */
    unsigned token; /* 0: none */
    unsigned seed, count;
    bool ended, gone; /* gone: deleted, or perhaps so */
};

#define PICTURE_SHARE 4u /* every so many jobs start from a picture */

struct state {
    const struct crash_client *client;
    int picture; /* a sealed memfd with a small PNG */
    uint64_t random;
    sd_bus *bus;
    struct ARRAY(struct mine) jobs;
    unsigned next;
};

__attribute__((format(printf, 2, 3))) static void tell(struct state *s, const char *format, ...)
{
    struct crash_log *log = s->client->log;
    size_t at = log->length;
    va_list args;

    va_start(args, format);
    int n = vsnprintf(log->text + at, CRASH_TEXT_SIZE - at, format, args);
    va_end(args);
    if (n < 0 || at + (size_t)n + 1 >= CRASH_TEXT_SIZE)
        log->stop = true;
    else
        log->length = at + (size_t)n;
}

static unsigned below(struct state *s, unsigned n)
{
    return (unsigned)(faults_random(&s->random) % n);
}

static void sleep_usec(unsigned usec)
{
    (void)nanosleep(&(struct timespec){usec / 1000000, (long)(usec % 1000000) * 1000}, NULL);
}

/* --- calls ------------------------------------------------------------------------------------ */

enum answer {
    ANSWERED,
    REFUSED, /* the daemon said no: the error's name tells why */
    NOBODY,  /* no daemon was there: nothing was done */
    UNKNOWN, /* it may have been done, or not */
};

static sd_bus_message *new_call(struct state *s, const char *path, const char *interface,
                                const char *member)
{
    sd_bus_message *call = NULL;

    (void)sd_bus_message_new_method_call(s->bus, &call, NAME, path, interface, member);
    return call;
}

/* Takes the call over. *ret_reply is the caller's when ANSWERED. */
static enum answer make_call(struct state *s, sd_bus_message *call, sd_bus_message **ret_reply,
                             char error_name[128])
{
    sd_bus_error error = SD_BUS_ERROR_NULL;

    int r = sd_bus_call(s->bus, call, CALL_USEC, &error, ret_reply);
    sd_bus_message_unref(call);
    (void)snprintf(error_name, 128, "%s", error.name ? error.name : "");
    bool ours = strncmp(error_name, NAME, sizeof NAME - 1) == 0 ||
                strcmp(error_name, "org.freedesktop.DBus.Error.UnknownObject") == 0;
    bool nobody = strcmp(error_name, "org.freedesktop.DBus.Error.ServiceUnknown") == 0 ||
                  strcmp(error_name, "org.freedesktop.DBus.Error.NameHasNoOwner") == 0;
    sd_bus_error_free(&error);
    if (r >= 0)
        return ANSWERED;
    if (ours)
        return REFUSED;
    if (!nobody)
        s->client->log->unanswered++;
    sleep_usec(8000); /* leave the machine to the next start */
    return nobody ? NOBODY : UNKNOWN;
}

static bool is_absent(const char *error_name)
{
    return strcmp(error_name, NAME ".Error.NotFound") == 0 ||
           strcmp(error_name, "org.freedesktop.DBus.Error.UnknownObject") == 0;
}

static void job_path(const struct mine *job, char path[96])
{
    (void)snprintf(path, 96, PATH "/job/%" PRIu64, job->id);
}

/* --- what a client does ----------------------------------------------------------------------- */

/* Submits, for the first time or again; the entry goes when it can never be asked about again. */
static void submit(struct state *s, size_t index, const char *what)
{
    struct mine *job = &s->jobs.items[index];
    char token[32] = "-", error[128];
    sd_bus_message *reply = NULL;
    const char *path = "";
    bool again = job->id != 0;

    sd_bus_message *call = new_call(s, PATH, MANAGER, "Submit");
    if (job->token)
        (void)snprintf(token, sizeof token, "t%u", job->token);
    (void)sd_bus_message_append(call, "s", CRASH_CANARY);
    (void)sd_bus_message_open_container(call, 'a', "{sv}");
    (void)sd_bus_message_append(call, "{sv}{sv}{sv}", "seed", "t", (uint64_t)job->seed, "count",
                                "u", job->count, "steps", "u", 1 + job->seed % 3);
    if (job->token)
        (void)sd_bus_message_append(call, "{sv}", "token", "s", token);
    if (job->seed % PICTURE_SHARE == 0) /* the same again, should it be asked again */
        (void)sd_bus_message_append(call, "{sv}", "image", "h", s->picture);
    if (job->seed % (2 * PICTURE_SHARE) == 0)
        (void)sd_bus_message_append(call, "{sv}", "mask", "h", s->picture);
    (void)sd_bus_message_close_container(call);
    enum answer answer = make_call(s, call, &reply, error);
    if (answer == REFUSED)
        tell(s, "REFUSED %s\n", error);
    if (answer != ANSWERED) {
        if (!job->token && !again)
            *job = s->jobs.items[--s->jobs.count];
        return;
    }
    (void)sd_bus_message_read(reply, "o", &path);
    uint64_t id = strtoull(path + sizeof PATH "/job", NULL, 10);
    tell(s, "%s %" PRIu64 " %s %u %u\n", what, id, token, job->seed, (unsigned)geteuid());
    s->client->log->acknowledged += !again;
    job->id = id;
    sd_bus_message_unref(reply);
}

static void submit_new(struct state *s)
{
    size_t index = s->jobs.count;
    struct mine *job = array_push(&s->jobs);

    if (!job)
        return;
    s->next++;
    *job = (struct mine){
        .token = below(s, 10) < 9 ? s->next : 0, .seed = s->next, .count = 1 + below(s, 2)};
    submit(s, index, "SUBMITTED");
}

static void submit_again(struct state *s, size_t index)
{
    const struct mine *job = &s->jobs.items[index];

    if (!job->token || job->gone)
        return;
    submit(s, index, "REPEATED");
    s->client->log->repeated += s->jobs.items[index].id != 0;
}

static void cancel(struct state *s, struct mine *job)
{
    sd_bus_message *reply = NULL;
    char error[128];

    sd_bus_message *call = new_call(s, PATH, MANAGER, "Cancel");
    (void)sd_bus_message_append(call, "t", job->id);
    enum answer answer = make_call(s, call, &reply, error);
    if (answer == ANSWERED)
        tell(s, "CANCELLED %" PRIu64 "\n", job->id);
    else if (answer == REFUSED && is_absent(error))
        tell(s, "WRONG %" PRIu64 " Cancel says %s\n", job->id, error);
    sd_bus_message_unref(reply);
}

static void look(struct state *s, struct mine *job)
{
    sd_bus_message *reply = NULL;
    char path[96], error[128];
    const char *word = "";

    job_path(job, path);
    sd_bus_message *call = new_call(s, path, "org.freedesktop.DBus.Properties", "Get");
    (void)sd_bus_message_append(call, "ss", JOB, "State");
    enum answer answer = make_call(s, call, &reply, error);
    if (answer == REFUSED)
        tell(s, "WRONG %" PRIu64 " State: %s\n", job->id, error);
    if (answer != ANSWERED)
        return;
    (void)sd_bus_message_read(reply, "v", "s", &word);
    tell(s, "STATE %" PRIu64 " %s\n", job->id, word);
    job->ended = strcmp(word, "queued") != 0 && strcmp(word, "running") != 0;
    sd_bus_message_unref(reply);
}

static void delete_job(struct state *s, struct mine *job)
{
    sd_bus_message *reply = NULL;
    char path[96], error[128];

    job_path(job, path);
    size_t before = s->client->log->length;
    tell(s, "DELETING %" PRIu64 "\n", job->id);
    enum answer answer = make_call(s, new_call(s, path, JOB, "Delete"), &reply, error);
    job->gone = answer == ANSWERED || answer == UNKNOWN;
    if (!job->gone)
        s->client->log->length = before; /* it was not even asked for */
    if (answer == ANSWERED)
        tell(s, "DELETED %" PRIu64 "\n", job->id);
    else if (answer == REFUSED && is_absent(error))
        tell(s, "WRONG %" PRIu64 " Delete says %s\n", job->id, error);
    sd_bus_message_unref(reply);
}

static void fetch(struct state *s, struct mine *job)
{
    sd_bus_message *reply = NULL;
    char path[96], error[128];

    job_path(job, path);
    sd_bus_message *call = new_call(s, path, JOB, "GetResult");
    (void)sd_bus_message_append(call, "ua{sv}", 0, 0);
    enum answer answer = make_call(s, call, &reply, error);
    if (answer == REFUSED && strcmp(error, "org.freedesktop.DBus.Error.UnknownObject") == 0)
        tell(s, "WRONG %" PRIu64 " GetResult: %s\n", job->id, error);
    sd_bus_message_unref(reply);
}

/* Every job this client was told of and did not delete must be in its list. */
static void list(struct state *s)
{
    sd_bus_message *reply = NULL;
    struct ARRAY(uint64_t) ids = {0};
    const char *path, *word;
    char error[128];
    uint64_t id;
    uint32_t owner;

    sd_bus_message *call = new_call(s, PATH, MANAGER, "ListJobs");
    (void)sd_bus_message_append(call, "a{sv}", 0);
    if (make_call(s, call, &reply, error) != ANSWERED)
        return;
    (void)sd_bus_message_enter_container(reply, 'a', "(tosu)");
    while (sd_bus_message_read(reply, "(tosu)", &id, &path, &word, &owner) > 0) {
        uint64_t *slot = array_push(&ids);
        if (slot)
            *slot = id;
        if (owner != geteuid() && geteuid() != 0)
            tell(s, "WRONG %" PRIu64 " of uid %u is in my list\n", id, owner);
    }
    for (size_t i = 0; i < s->jobs.count; i++) {
        const struct mine *job = &s->jobs.items[i];
        bool found = job->id == 0 || job->gone;
        for (size_t k = 0; !found && k < ids.count; k++)
            found = ids.items[k] == job->id;
        if (!found)
            tell(s, "WRONG %" PRIu64 " is not in my list\n", job->id);
    }
    array_done(&ids);
    sd_bus_message_unref(reply);
}

/* Forgets what was deleted. */
static void tidy(struct state *s)
{
    for (size_t i = s->jobs.count; i-- > 0;)
        if (s->jobs.items[i].gone)
            s->jobs.items[i] = s->jobs.items[--s->jobs.count];
}

static void act(struct state *s)
{
    unsigned live = 0, ended = 0, dice = below(s, 100);
    struct mine *oldest = NULL;

    tidy(s);
    for (size_t i = 0; i < s->jobs.count; i++) {
        struct mine *job = &s->jobs.items[i];
        live += !job->ended; /* those without an answer may live, too */
        ended += job->ended;
        if (job->ended && (!oldest || job->id < oldest->id))
            oldest = job;
    }
    size_t index = s->jobs.count ? below(s, (unsigned)s->jobs.count) : 0;
    struct mine *any = s->jobs.count ? &s->jobs.items[index] : NULL;
    if (!any || (dice < 40 && live < LIVE_MAX))
        submit_new(s);
    else if (any->id == 0 || dice < 46)
        submit_again(s, index);
    else if (dice < 56)
        list(s);
    else if (oldest && (ended > ENDED_MAX || dice < 62))
        delete_job(s, oldest);
    else if (!any->ended && dice < 70)
        cancel(s, any);
    else if (any->ended && dice < 80)
        fetch(s, any);
    else
        look(s, any);
}

/* --- the drop folder -------------------------------------------------------------------------- */

static bool is_intake_full(int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(closedirp) DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    unsigned count = 0;

    while (dir && readdir(dir))
        count++;
    return count > INTAKE_MAX;
}

/* What the next ticket starts from, told of as any other file. Results are called dN.png: this is
 * not. */
static bool put_picture(struct state *s, int folder)
{
    char part[64], name[64];
    off_t offset = 0;

    (void)snprintf(name, sizeof name, "d%u.jpg", s->next);
    (void)snprintf(part, sizeof part, "d%u.jpg.part", s->next);
    _cleanup_(closep) int file =
        openat(folder, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0 || sendfile(file, s->picture, &offset, 1 << 20) <= 0 ||
        renameat(folder, part, folder, name) < 0)
        return false;
    tell(s, "DROPPED %s\n", name);
    s->client->log->dropped++;
    return true;
}

/* Most are ephemeral, so that the spool does not grow without end. */
static void drop_one(struct state *s)
{
    static const char *const ends[] = {"ini", "ini", "ini", "ini", "ini", "ini", "ini", "txt"};
    const char *end = ends[below(s, ARRAY_SIZE(ends))];
    char part[64], name[64], text[256];

    _cleanup_(closep) int folder = open(s->client->drop, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || is_intake_full(folder))
        return;
    s->next++;
    if (s->next % PICTURE_SHARE == 0 && !put_picture(s, folder))
        return;
    (void)snprintf(name, sizeof name, "d%u.%s", s->next, end);
    (void)snprintf(part, sizeof part, "d%u.part", s->next);
    if (strcmp(end, "ini") == 0)
        (void)snprintf(text, sizeof text,
                       "[job]\nprompt = " CRASH_CANARY "\nseed = %u\nsteps = %u\nephemeral = yes\n",
                       s->next, 1 + s->next % 3);
    else
        (void)snprintf(text, sizeof text, CRASH_CANARY "\n");
    _cleanup_(closep) int file =
        openat(folder, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0 || write(file, text, strlen(text)) != (ssize_t)strlen(text) ||
        renameat(folder, part, folder, name) < 0)
        return;
    tell(s, "DROPPED %s\n", name);
    s->client->log->dropped++;
}

/* --- life ------------------------------------------------------------------------------------- */

static int make_picture(void)
{
    static const uint8_t rgb[16 * 16 * 3] = {0};
    static const struct png_facts facts = {0};
    _cleanup_(freep) uint8_t *png = NULL;
    size_t size;

    int r = png_encode(rgb, 16, 16, &facts, PNG_METADATA_NONE, &png, &size, NULL);
    return r < 0 ? r : ipc_memfd("picture", png, size);
}

static int become(const struct crash_client *client)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (geteuid() != 0 || client->uid == 0)
        return 0;
    if (setgroups(1, &client->gid) < 0 || setgid(client->gid) < 0 || setuid(client->uid) < 0)
        return -errno;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* the change of user took it back */
    return 0;
}

int crash_client_run(const struct crash_client *client)
{
    struct state s = {.client = client, .random = client->random, .picture = make_picture()};

    if (s.picture < 0 || become(client) < 0 || (!client->drop && sd_bus_open_system(&s.bus) < 0))
        return 1;
    while (!client->log->stop) {
        if (client->drop)
            drop_one(&s);
        else
            act(&s);
        sleep_usec(client->drop ? below(&s, 150000) : below(&s, 5000));
    }
    sd_bus_flush_close_unref(s.bus);
    array_done(&s.jobs);
    return 0;
}
