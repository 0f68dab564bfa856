/* diffusectl-bus — calls to the daemon, and what their failures mean for the exit code. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "dbus/diffusectl.h"
#include "vk/base/cleanup.h"
#include "vk/base/file.h"

static void unref_message(sd_bus_message **m)
{
    (void)sd_bus_message_unref(*m);
}

int ctl_connect(sd_bus **ret_bus)
{
    int r = sd_bus_open_system(ret_bus);

    if (r < 0)
        return ctl_error(CTL_EXIT_UNREACHABLE,
                         "cannot reach the system bus: %s (a private bus is named by "
                         "DBUS_SYSTEM_BUS_ADDRESS)",
                         strerror(-r));
    return 0;
}

void ctl_job_path(uint64_t id, char ret_path[CTL_PATH_MAX])
{
    (void)snprintf(ret_path, CTL_PATH_MAX, CTL_ROOT "/job/%" PRIu64, id);
}

/* Error names and what they mean for the caller; a prefix ends in '.'. */
static const struct {
    const char *name;
    int code;
    const char *advice;
} meanings[] = {
    {CTL_ERROR "NotFound", CTL_EXIT_NOT_FOUND, NULL},
    {SD_BUS_ERROR_UNKNOWN_OBJECT, CTL_EXIT_NOT_FOUND, "no such job"},
    {CTL_ERROR "Failed", CTL_EXIT_FAILED, NULL},
    {CTL_ERROR, CTL_EXIT_REFUSED, NULL},
    {SD_BUS_ERROR_ACCESS_DENIED, CTL_EXIT_REFUSED, NULL},
    {SD_BUS_ERROR_INVALID_ARGS, CTL_EXIT_REFUSED, NULL},
    {SD_BUS_ERROR_LIMITS_EXCEEDED, CTL_EXIT_REFUSED, NULL},
    {SD_BUS_ERROR_SERVICE_UNKNOWN, CTL_EXIT_UNREACHABLE, "the daemon is not running"},
    {SD_BUS_ERROR_NAME_HAS_NO_OWNER, CTL_EXIT_UNREACHABLE, "the daemon is not running"},
    {SD_BUS_ERROR_NO_REPLY, CTL_EXIT_TIMEOUT, "the daemon does not answer"},
    {SD_BUS_ERROR_TIMEOUT, CTL_EXIT_TIMEOUT, "the daemon does not answer"},
    {SD_BUS_ERROR_DISCONNECTED, CTL_EXIT_UNREACHABLE, "the bus went away"},
    {"org.freedesktop.DBus.Error.Spawn.", CTL_EXIT_UNREACHABLE, "the daemon cannot be started"},
};

static bool is_meant(const char *pattern, const char *name)
{
    size_t n = strlen(pattern);

    return pattern[n - 1] == '.' ? strncmp(name, pattern, n) == 0 : strcmp(name, pattern) == 0;
}

int ctl_bus_failed(const sd_bus_error *error, int r)
{
    const char *message = error && error->message ? error->message : strerror(r < 0 ? -r : r);

    for (size_t i = 0; error && error->name && i < ARRAY_SIZE(meanings); i++) {
        if (!is_meant(meanings[i].name, error->name))
            continue;
        if (meanings[i].advice)
            return ctl_error(meanings[i].code, "%s: %s", meanings[i].advice, message);
        return ctl_error(meanings[i].code, "%s", message);
    }
    if (r == -ETIMEDOUT)
        return ctl_error(CTL_EXIT_TIMEOUT, "the daemon does not answer");
    if (r == -ECONNRESET || r == -ENOTCONN || r == -EPIPE)
        return ctl_error(CTL_EXIT_UNREACHABLE, "the bus went away");
    return ctl_error(CTL_EXIT_FAILED, "%s", message);
}

int ctl_send(sd_bus *bus, sd_bus_message *message, sd_bus_message **ret_reply)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int r = sd_bus_call(bus, message, 0, &error, ret_reply);

    return r < 0 ? ctl_bus_failed(&error, r) : 0;
}

int ctl_call(sd_bus *bus, const char *path, const char *interface, const char *member,
             sd_bus_message **ret_reply, const char *types, ...)
{
    _cleanup_(unref_message) sd_bus_message *m = NULL;
    va_list args;
    int r = sd_bus_message_new_method_call(bus, &m, CTL_BUS_NAME, path, interface, member);

    if (r >= 0 && types && types[0]) {
        va_start(args, types);
        r = sd_bus_message_appendv(m, types, args);
        va_end(args);
    }
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    return ctl_send(bus, m, ret_reply);
}

int ctl_get(sd_bus *bus, const char *path, const char *interface, const char *property,
            sd_bus_error *error, sd_bus_message **ret_reply)
{
    int r = sd_bus_call_method(bus, CTL_BUS_NAME, path, CTL_PROPERTIES, "Get", error, ret_reply,
                               "ss", interface, property);

    return r < 0 ? r : 0;
}

int ctl_get_basic(sd_bus *bus, const char *path, const char *interface, const char *property,
                  char type, void *ret_value)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    const char types[] = {type, '\0'}, *text;
    int r = ctl_get(bus, path, interface, property, &error, &reply);

    if (r >= 0)
        r = sd_bus_message_enter_container(reply, 'v', types);
    if (r >= 0)
        r = sd_bus_message_read_basic(reply, type, type == 's' ? (void *)&text : ret_value);
    if (r < 0)
        return ctl_bus_failed(&error, r);
    if (type != 's')
        return 0;
    char *copy = strdup(text);
    if (!copy)
        return ctl_error(CTL_EXIT_FAILED, "out of memory");
    *(char **)ret_value = copy;
    return 0;
}

/* The picture `index` of a job: a descriptor, and its size in bytes. */
static int get_result(sd_bus *bus, uint64_t id, uint32_t index, int *ret_fd, uint64_t *ret_size)
{
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    char path[CTL_PATH_MAX];
    struct stat st;
    int fd, code;

    ctl_job_path(id, path);
    code = ctl_call(bus, path, CTL_JOB, "GetResult", &reply, "ua{sv}", index, 0);
    if (code)
        return code;
    int r = sd_bus_message_read_basic(reply, 'h', &fd);
    if (r < 0)
        return ctl_bus_failed(NULL, r);
    fd = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the message keeps its own */
    if (fd < 0 || fstat(fd, &st) < 0) {
        closep(&fd);
        return ctl_error(CTL_EXIT_FAILED, "picture %u: %s", index, strerror(errno));
    }
    *ret_fd = fd;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static void write_warnings(sd_bus *bus, const char *path)
{
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    const char *text;

    /* Only what goes with a result that stands anyway: no warning about warnings. */
    if (ctl_get(bus, path, CTL_JOB, "Warnings", NULL, &reply) < 0 ||
        sd_bus_message_enter_container(reply, 'v', "as") < 0 ||
        sd_bus_message_enter_container(reply, 'a', "s") < 0)
        return;
    while (sd_bus_message_read_basic(reply, 's', &text) > 0)
        (void)ctl_error(0, "warning: %s", text);
}

int ctl_report_end(sd_bus *bus, uint64_t id, const char *state)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(unref_message) sd_bus_message *reply = NULL;
    char path[CTL_PATH_MAX];
    const char *name = "", *text = "";

    ctl_job_path(id, path);
    write_warnings(bus, path);
    if (strcmp(state, "done") == 0)
        return 0;
    if (strcmp(state, "cancelled") == 0)
        return ctl_error(CTL_EXIT_FAILED, "job %" PRIu64 " was cancelled", id);
    int r = ctl_get(bus, path, CTL_JOB, "Error", &error, &reply);
    if (r >= 0)
        r = sd_bus_message_read(reply, "v", "(ss)", &name, &text);
    if (r < 0)
        return ctl_bus_failed(&error, r);
    if (strncmp(name, CTL_ERROR, strlen(CTL_ERROR)) == 0)
        name += strlen(CTL_ERROR);
    return ctl_error(CTL_EXIT_FAILED, "job %" PRIu64 " %s: %s%s%s", id, state, text,
                     name[0] ? " — " : "", name);
}

/* Where picture `index` of `count` goes. Returns false when the name is too long. */
static bool result_path(const char *output, uint64_t id, uint32_t index, uint32_t count, char *path,
                        size_t size)
{
    int n;

    if (!output) {
        n = snprintf(path, size, "./diffused-%" PRIu64 "-%u.png", id, index);
    } else if (count == 1) {
        n = snprintf(path, size, "%s", output);
    } else {
        const char *slash = strrchr(output, '/'), *dot = strrchr(output, '.');
        if (!dot || dot == output || (slash && dot <= slash + 1))
            dot = output + strlen(output);
        n = snprintf(path, size, "%.*s-%u%s", (int)(dot - output), output, index, dot);
    }
    return n >= 0 && (size_t)n < size;
}

/* "-" is standard output. A device or pipe is written to, not replaced by a file. */
static int write_picture(const char *path, const void *data, size_t size, struct fault *f)
{
    struct stat st;

    if (strcmp(path, "-") == 0) {
        int r = file_write_all(STDOUT_FILENO, data, size);
        return r < 0 ? fault_set(f, r, "standard output: %s", strerror(-r)) : 0;
    }
    if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
        return file_write_atomic(path, data, size, f);
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    int r = fd < 0 ? -errno : file_write_all(fd, data, size);
    return r < 0 ? fault_set(f, r, "%s: %s", path, strerror(-r)) : 0;
}

static int save_result(sd_bus *bus, uint64_t id, uint32_t index, const char *path)
{
    _cleanup_(closep) int fd = -1;
    struct fault f = {0};
    uint64_t size = 0;
    int code = get_result(bus, id, index, &fd, &size);

    if (code)
        return code;
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return ctl_error(CTL_EXIT_FAILED, "picture %u: %s", index, strerror(errno));
    int r = write_picture(path, data, size, &f);
    (void)munmap(data, size); /* cannot fail with what mmap gave */
    return r < 0 ? ctl_error(CTL_EXIT_FAILED, "%s", f.text) : 0;
}

int ctl_save_results(sd_bus *bus, uint64_t id, const char *output)
{
    char object[CTL_PATH_MAX], path[4096];
    uint32_t count;

    ctl_job_path(id, object);
    int code = ctl_get_basic(bus, object, CTL_JOB, "ResultCount", 'u', &count);
    if (code == 0 && count > 1 && output && strcmp(output, "-") == 0)
        return ctl_error(CTL_EXIT_USAGE, "-o - takes one picture, job %" PRIu64 " has %u", id,
                         count);
    /* With no picture there, the daemon's answer to a request for the first one says why. */
    for (uint32_t k = 0; code == 0 && (k < count || k == 0); k++) {
        if (!result_path(output, id, k, count, path, sizeof path))
            return ctl_error(CTL_EXIT_FAILED, "the output's name is too long");
        code = save_result(bus, id, k, path);
        if (code == 0 && strcmp(path, "-") != 0)
            (void)puts(path);
    }
    return code ? code : ctl_finish_output();
}
