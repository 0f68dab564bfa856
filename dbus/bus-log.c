/* org.freedesktop.LogControl1, which `systemctl service-log-level` speaks: root changes how much is
 * logged while the daemon runs. Lines go to standard error, wherever the service manager sends
 * that. */
#include <errno.h>
#include <string.h>

#include "dbus/bus-internal.h"
#include "vk/base/log.h"

/* syslog's names; those above ours mean errors only. */
static const struct {
    const char *name;
    enum log_level level;
} levels[] = {
    {"err", LOG_LEVEL_ERROR},   {"warning", LOG_LEVEL_WARNING}, {"notice", LOG_LEVEL_NOTICE},
    {"info", LOG_LEVEL_INFO},   {"debug", LOG_LEVEL_DEBUG},     {"emerg", LOG_LEVEL_ERROR},
    {"alert", LOG_LEVEL_ERROR}, {"crit", LOG_LEVEL_ERROR},
};

static int set_level(struct bus *bus, sd_bus_message *call, const char *name, sd_bus_error *error)
{
    uint32_t uid = UINT32_MAX;

    int r = bus_get_uid(bus, call, &uid, error);
    if (r < 0)
        return r;
    if (uid != 0)
        return bus_error_setf(error, -EACCES, "only root may change the log level");
    for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
        if (strcmp(levels[i].name, name) != 0)
            continue;
        log_set_max_level(levels[i].level);
        return 0;
    }
    return bus_error_setf(error, -EINVAL,
                          "log level \"%.32s\": want emerg, alert, crit, err, warning, notice, "
                          "info or debug",
                          name);
}

static const char *level_name(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
        if (levels[i].level == log_get_max_level())
            return levels[i].name;
    return "";
}

int bus_log_set(struct bus *bus, sd_bus_message *call, sd_bus_error *error)
{
    const char *path = sd_bus_message_get_path(call), *interface, *property, *name;

    if (!sd_bus_message_has_signature(call, "ssv"))
        return sd_bus_error_set(error, SD_BUS_ERROR_INVALID_ARGS, "Expected 'ssv'.");
    int r = sd_bus_message_read(call, "ss", &interface, &property);
    if (r < 0)
        return r;
    if (strcmp(path, BUS_LOG_PATH) != 0 || strcmp(interface, BUS_LOG_INTERFACE) != 0 ||
        strcmp(property, "LogLevel") != 0)
        return sd_bus_error_setf(error, SD_BUS_ERROR_PROPERTY_READ_ONLY,
                                 "Property '%.64s' cannot be set.", property);
    r = sd_bus_message_read(call, "v", "s", &name);
    if (r < 0)
        return sd_bus_error_set(error, SD_BUS_ERROR_INVALID_ARGS, "LogLevel is a string.");
    r = set_level(bus, call, name, error);
    return r < 0 ? r : sd_bus_reply_method_return(call, NULL);
}

static int on_set_level(sd_bus *connection, const char *path, const char *interface,
                        const char *property, sd_bus_message *value, void *userdata,
                        sd_bus_error *error)
{
    const char *name;

    (void)connection, (void)path, (void)interface, (void)property;
    int r = sd_bus_message_read(value, "s", &name);
    return r < 0 ? r : set_level(userdata, value, name, error);
}

static int get_level(sd_bus *connection, const char *path, const char *interface,
                     const char *property, sd_bus_message *reply, void *userdata,
                     sd_bus_error *error)
{
    (void)connection, (void)path, (void)interface, (void)property, (void)userdata, (void)error;
    return sd_bus_message_append(reply, "s", level_name());
}

static int get_text(sd_bus *connection, const char *path, const char *interface,
                    const char *property, sd_bus_message *reply, void *userdata,
                    sd_bus_error *error)
{
    (void)connection, (void)path, (void)interface, (void)userdata, (void)error;
    return sd_bus_message_append(reply, "s",
                                 strcmp(property, "LogTarget") == 0 ? "console" : "diffused");
}

const sd_bus_vtable bus_log_vtable[] = {
    SD_BUS_VTABLE_START(SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_WRITABLE_PROPERTY("LogLevel", "s", get_level, on_set_level, 0,
                             SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("LogTarget", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("SyslogIdentifier", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_VTABLE_END,
};
